//! How a user sees the upstream's paths: where a relative one starts, what `/` is, and what is shown of paths in answers.
//!
//! Without a policy that judges paths nothing is normalised: a relative path is put behind the start directory, and that is all. With
//! one every path becomes absolute and normal, is judged so and sent so.

use std::borrow::Cow;

use crate::path::{self, MAX_PATH};
use crate::policy::{Policy, Refusal};
use crate::sftp::Meaning;
use crate::sftp::reply::{BAD_MESSAGE, NO_SUCH_FILE, PERMISSION_DENIED};
use crate::sftp::request::Request;

/// Where a user's paths begin.
#[derive(Debug, Clone)]
pub struct View {
    home: Option<String>,
    /// The same, normal; where normal paths start.
    start: Vec<u8>,
    /// The directory that is seen as `/`; `/` itself if the whole upstream is seen.
    root: String,
    /// Whether paths are made normal.
    normal: bool,
}

/// One path of a request.
#[derive(Debug)]
pub struct Place<'a> {
    /// As it is judged: what the user sees.
    pub seen: Cow<'a, [u8]>,
    /// As the upstream gets it.
    pub sent: Cow<'a, [u8]>,
}

impl Place<'_> {
    fn same(path: Cow<'_, [u8]>) -> Place<'_> {
        Place { seen: path.clone(), sent: path }
    }
}

impl View {
    /// The view of a user who starts in `home`: a path as the user sees it, below the policy's root if there is one. With a policy that
    /// judges paths a missing `home` is `/`, because a relative path must be known to be judged.
    pub fn new(home: Option<&str>, policy: Option<&Policy>) -> Self {
        let normal = policy.is_some_and(Policy::judges_paths);
        let root = policy.and_then(Policy::root).unwrap_or("/").to_owned();
        let start = path::normal(b"/", home.unwrap_or("/").as_bytes());
        Self { home: home.map(str::to_owned), start, root, normal }
    }

    /// Whether the upstream's paths in answers are another's.
    pub fn has_root(&self) -> bool {
        self.root.len() > 1
    }

    /// The paths of a request.
    pub fn places<'a>(&self, request: &Request<'a>) -> Result<(Option<Place<'a>>, Option<Place<'a>>), Refusal> {
        let meaning = |index: usize| request.kind.paths.get(index).map(|field| field.meaning);
        let place = |index: usize, path: Option<&'a [u8]>| match (path, meaning(index)) {
            (Some(path), Some(meaning)) if self.normal => self.place(meaning, path).map(Some),
            (Some(path), Some(meaning)) => Ok(Some(Place::same(self.resolved(meaning, path)))),
            _ => Ok(None),
        };
        let second = place(1, request.second)?;
        let first = match (request.path, &second) {
            (Some(path), Some(link)) if self.normal && meaning(0) == Some(Meaning::Target) => {
                Some(self.target(&link.seen, path)?)
            }
            (path, _) => place(0, path)?,
        };
        Ok((first, second))
    }

    /// What the user sees of a path that the upstream names; `None` = it is not below the root.
    pub fn shown(&self, path: &[u8]) -> Option<Vec<u8>> {
        path::leave(&self.root, path)
    }

    /// What the user sees of the target of the symbolic link with the upstream's path `link`; `None` = it leads out of the root.
    pub fn shown_target(&self, link: &[u8], target: &[u8]) -> Option<Vec<u8>> {
        if target.first() == Some(&b'/') {
            return self.shown(target);
        }
        path::target(&self.shown(link)?, target).map(|_| target.to_vec())
    }

    /// A path that is only put behind the start directory.
    fn resolved<'a>(&self, meaning: Meaning, path: &'a [u8]) -> Cow<'a, [u8]> {
        let Some(home) = &self.home else { return path.into() };
        let resolved = match meaning {
            Meaning::Target => None,
            Meaning::Expand if path.starts_with(b"~") => match &path[1..] {
                [] => path::resolve_start(home, b""),
                [b'/', rest @ ..] => path::resolve_start(home, without_slashes(rest)),
                _ => None,
            },
            Meaning::Start | Meaning::Expand => path::resolve_start(home, path),
            Meaning::File => path::resolve(home, path),
        };
        resolved.map_or(path.into(), Cow::from)
    }

    fn place<'a>(&self, meaning: Meaning, path: &'a [u8]) -> Result<Place<'a>, Refusal> {
        check_text(path)?;
        let path = match (meaning, path) {
            (Meaning::File, []) => return Err(refusal(NO_SUCH_FILE, "No such file")),
            (Meaning::Expand, [b'~']) => &[],
            (Meaning::Expand, [b'~', b'/', rest @ ..]) => without_slashes(rest),
            (Meaning::Expand, [b'~', ..]) => {
                return Err(refusal(PERMISSION_DENIED, "the directories of other accounts are not shown"));
            }
            (_, path) => path,
        };
        self.entered(path::normal(&self.start, path))
    }

    fn target<'a>(&self, link: &[u8], target: &'a [u8]) -> Result<Place<'a>, Refusal> {
        check_text(target)?;
        match target {
            [] => Err(refusal(NO_SUCH_FILE, "No such file")),
            [b'/', ..] => self.entered(path::normal(b"/", target)),
            _ => {
                let seen = path::target(link, target).ok_or(refusal(PERMISSION_DENIED, "the link would lead out of the root"))?;
                Ok(Place { seen: seen.into(), sent: path::normal_relative(target).into() })
            }
        }
    }

    fn entered<'a>(&self, seen: Vec<u8>) -> Result<Place<'a>, Refusal> {
        let sent = path::enter(&self.root, &seen);
        if sent.len() >= MAX_PATH {
            // What sftp-server says of a name that is too long.
            return Err(refusal(BAD_MESSAGE, "Bad message"));
        }
        Ok(Place { seen: seen.into(), sent: sent.into() })
    }
}

/// A path that ends for the upstream where it does not end here must not be judged.
fn check_text(path: &[u8]) -> Result<(), Refusal> {
    if path.contains(&0) { Err(refusal(BAD_MESSAGE, "a path with a NUL byte is not allowed")) } else { Ok(()) }
}

fn refusal(code: u32, text: &'static str) -> Refusal {
    Refusal { code, text: text.into() }
}

/// `~//x` is `~/x`, and not the absolute path `/x`.
fn without_slashes(path: &[u8]) -> &[u8] {
    &path[path.iter().take_while(|&&byte| byte == b'/').count()..]
}
