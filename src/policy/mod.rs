//! What a user may do: a policy from the record, and its verdict on one request. No policy = everything, as it was before.
//!
//! Pure. It judges paths as the user sees them, normal ones if [`Policy::judges_paths`]; the caller sends what was judged. Everything that
//! is not allowed in so many words is refused. What symbolic links on the upstream lead to cannot be known here.

use std::borrow::Cow;

use crate::sftp::attributes::{Attributes, SIZE};
use crate::sftp::reply::{OP_UNSUPPORTED, PERMISSION_DENIED};
use crate::sftp::{EXTENDED, Effect, Kind, OpenFlags};

mod names;
mod record;
mod rights;

pub use names::{MAX_PATTERNS, Names};
pub use record::{FIELDS, MAX_RULES};
pub use rights::{Rights, Rules};

/// What a user may do at all, whatever the rules say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    None,
    ReadOnly,
    UploadOnly,
}

impl Limit {
    fn rights(self) -> Rights {
        match self {
            Self::None => Rights::ALL,
            Self::ReadOnly => Rights::LIST.and(Rights::READ),
            Self::UploadOnly => Rights::CREATE.and(Rights::MKDIR),
        }
    }
}

/// What a user may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    limit: Limit,
    /// Whether the record has rules.
    ruled: bool,
    rules: Rules,
    allow: Option<Names>,
    deny: Option<Names>,
    max_file_size: Option<u64>,
    extensions: Option<Vec<&'static Kind>>,
    root: Option<String>,
}

/// Why a request does not go to the upstream: the STATUS that is the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Its code.
    pub code: u32,
    /// Its text: which field of the record, and what it does not allow.
    pub text: Cow<'static, str>,
}

impl Refusal {
    fn denied(text: impl Into<Cow<'static, str>>) -> Self {
        Self { code: PERMISSION_DENIED, text: text.into() }
    }

    /// For types and extensions that are not in the table: nobody here knows what they do.
    pub fn unknown() -> Self {
        Self { code: OP_UNSUPPORTED, text: "a policy is in force: this request is not known and not allowed".into() }
    }
}

/// What a handle may be used for. The default is nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Grant {
    rights: Rights,
    flags: OpenFlags,
}

/// A request with paths, to be judged.
#[derive(Debug, Clone, Copy)]
pub struct Act<'a> {
    /// Its row in the table.
    pub kind: &'static Kind,
    /// Its first path as the user sees it; of SYMLINK what the target leads to.
    pub path: &'a [u8],
    /// Its second path.
    pub second: Option<&'a [u8]>,
    /// The flags of OPEN.
    pub flags: Option<OpenFlags>,
    /// Its attributes.
    pub attributes: Attributes,
}

/// A request with a handle, to be judged.
#[derive(Debug, Clone, Copy)]
pub struct Use {
    /// Its row in the table.
    pub kind: &'static Kind,
    /// Of its handle; of copy-data the one that is written to.
    pub grant: Grant,
    /// Of the handle that copy-data reads from.
    pub source: Option<Grant>,
    /// Its attributes.
    pub attributes: Attributes,
    /// Of WRITE and copy-data the end of what is written; `None` = not known.
    pub end: Option<u64>,
}

/// What was allowed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allowed {
    /// The flags with which OPEN may go to the upstream.
    pub flags: Option<OpenFlags>,
    /// What the handle may be used for that comes of it.
    pub grant: Grant,
}

impl Policy {
    /// The directory of the upstream that the user sees as `/`: normal.
    pub fn root(&self) -> Option<&str> {
        self.root.as_deref()
    }

    /// Whether paths are judged, and so must be absolute and normal, and be sent so.
    pub fn judges_paths(&self) -> bool {
        self.root.is_some() || self.rules.look_at_paths() || self.allow.is_some() || self.deny.is_some()
    }

    /// Whether the upstream's announcement of an extension is passed on: it is in the table, and something could be done with it.
    pub fn announces(&self, kind: &Kind) -> bool {
        let any = |right: Rights| self.limit.rights().has(right) && self.rules.anywhere(right);
        let writes = any(Rights::CREATE) || any(Rights::OVERWRITE);
        self.has_extension(kind)
            && match kind.effect {
                Effect::Replace => any(Rights::RENAME) && any(Rights::OVERWRITE),
                Effect::HardLink => any(Rights::LINK),
                Effect::Attributes => any(Rights::ATTRIBUTES) || any(Rights::OVERWRITE),
                Effect::Write => writes,
                // OpenSSH's client copies without saying how much.
                Effect::Copy => any(Rights::READ) && writes && self.max_file_size.is_none(),
                Effect::Accounts => self.knows_accounts(kind),
                Effect::Look | Effect::Session => true,
                _ => false,
            }
    }

    /// Judges a request with paths, or with neither paths nor a handle.
    pub fn judge(&self, act: &Act<'_>) -> Result<Allowed, Refusal> {
        let (kind, path) = (act.kind, act.path);
        self.check_extension(kind)?;
        self.check_names(act)?;
        match kind.effect {
            Effect::Session => Ok(()),
            Effect::Accounts if self.knows_accounts(kind) => Ok(()),
            Effect::Accounts if self.is_rooted() => Err(Refusal::denied(format!("root: {} is not allowed", kind.short()))),
            Effect::Accounts => Err(self.refusal(kind, Rights::LIST)),
            Effect::Look => self.look(kind, path),
            Effect::List => self.need(kind, path, Rights::LIST),
            Effect::ByFlags => return self.open(act),
            Effect::Attributes => self.attributes(kind, self.rights(path), act.attributes, None),
            Effect::Remove | Effect::RemoveDirectory => self.not_the_root(kind, path).and(self.need(kind, path, Rights::DELETE)),
            Effect::MakeDirectory => {
                self.need(kind, path, Rights::MKDIR)?;
                if act.attributes.beyond_permissions() { self.need(kind, path, Rights::ATTRIBUTES) } else { Ok(()) }
            }
            Effect::Rename | Effect::Replace => self.rename(act),
            Effect::HardLink | Effect::SymbolicLink => self.link(act),
            // These have a handle.
            Effect::Read | Effect::Write | Effect::Copy => Err(self.refusal(kind, Rights::NONE)),
        }?;
        Ok(Allowed { flags: act.flags, grant: Grant { rights: self.rights(path), flags: OpenFlags(0) } })
    }

    /// Judges a request with a handle that is known.
    pub fn judge_use(&self, deed: &Use) -> Result<(), Refusal> {
        let (kind, rights) = (deed.kind, deed.grant.rights);
        self.check_extension(kind)?;
        let need = |has: bool, right| if has { Ok(()) } else { Err(self.refusal(kind, right)) };
        match kind.effect {
            Effect::Session | Effect::Look => Ok(()),
            Effect::List => need(rights.has(Rights::LIST), Rights::LIST),
            Effect::Read => need(rights.has(Rights::READ), Rights::READ),
            Effect::Write if kind.number == EXTENDED => need(deed.grant.writes(), Rights::OVERWRITE),
            Effect::Write => need(deed.grant.writes(), Rights::OVERWRITE).and(self.size(deed.end)),
            Effect::Copy => {
                need(deed.source.is_some_and(|source| source.rights.has(Rights::READ)), Rights::READ)?;
                need(deed.grant.writes(), Rights::OVERWRITE).and(self.size(deed.end))
            }
            Effect::Attributes => self.attributes(kind, rights, deed.attributes, Some(deed.grant)),
            _ => Err(self.refusal(kind, Rights::NONE)),
        }
    }

    fn rights(&self, path: &[u8]) -> Rights {
        self.rules.at(path) & self.limit.rights()
    }

    fn need(&self, kind: &Kind, path: &[u8], right: Rights) -> Result<(), Refusal> {
        if self.rights(path).has(right) { Ok(()) } else { Err(self.refusal(kind, right)) }
    }

    /// Looking at a file's attributes needs any right there, or a way to a place with one.
    fn look(&self, kind: &Kind, path: &[u8]) -> Result<(), Refusal> {
        if !self.rights(path).is_none() || self.rules.leads_on(path) {
            return Ok(());
        }
        Err(Refusal::denied(format!("rules: {} is not allowed here", kind.short())))
    }

    fn open(&self, act: &Act<'_>) -> Result<Allowed, Refusal> {
        let (kind, rights) = (act.kind, self.rights(act.path));
        let need = |right| if rights.has(right) { Ok(()) } else { Err(self.refusal(kind, right)) };
        let mut flags = act.flags.unwrap_or(OpenFlags(u32::MAX));
        // OpenSSH's server opens for reading whatever it is not told to write.
        if flags.has(OpenFlags::READ) || !flags.has(OpenFlags::WRITE) {
            need(Rights::READ)?;
        }
        if flags.has(OpenFlags::CREATE) && !flags.has(OpenFlags::EXCLUSIVE) {
            // Whether there is a file cannot be known here. The upstream is told what it may do.
            match (rights.has(Rights::CREATE), rights.has(Rights::OVERWRITE)) {
                (true, true) => {}
                (true, false) => flags.0 |= OpenFlags::EXCLUSIVE,
                (false, true) => flags.0 &= !OpenFlags::CREATE,
                (false, false) => need(Rights::CREATE)?,
            }
        } else if flags.has(OpenFlags::CREATE) {
            need(Rights::CREATE)?;
        } else if flags.changes() {
            need(Rights::OVERWRITE)?;
        }
        if act.attributes.beyond_permissions() {
            need(Rights::ATTRIBUTES)?;
        }
        if self.max_file_size.is_some() && flags.has(OpenFlags::APPEND) {
            return Err(Refusal::denied("max_file_size: open with append is not allowed, the size cannot be known"));
        }
        self.size(act.attributes.size.or(Some(0)))?;
        Ok(Allowed { flags: Some(flags), grant: Grant { rights, flags } })
    }

    fn attributes(&self, kind: &Kind, rights: Rights, given: Attributes, grant: Option<Grant>) -> Result<(), Refusal> {
        let writes = grant.map_or(rights.has(Rights::OVERWRITE), Grant::writes);
        if given.flags & SIZE != 0 {
            if !writes {
                return Err(self.refusal(kind, Rights::OVERWRITE));
            }
            self.size(given.size)?;
        }
        // One that sets nothing needs the right too: whether a file is there is not everybody's to try.
        if (given.flags & !SIZE != 0 || given.flags == 0) && !rights.has(Rights::ATTRIBUTES) {
            return Err(self.refusal(kind, Rights::ATTRIBUTES));
        }
        Ok(())
    }

    fn rename(&self, act: &Act<'_>) -> Result<(), Refusal> {
        let (kind, new) = (act.kind, act.second.unwrap_or_default());
        for path in [act.path, new] {
            self.not_the_root(kind, path)?;
            self.need(kind, path, Rights::RENAME)?;
            self.not_above_others(kind, path)?;
        }
        if kind.effect == Effect::Replace { self.need(kind, new, Rights::OVERWRITE) } else { Ok(()) }
    }

    fn link(&self, act: &Act<'_>) -> Result<(), Refusal> {
        let (kind, link) = (act.kind, act.second.unwrap_or_default());
        for path in [act.path, link] {
            self.need(kind, path, Rights::LINK)?;
            self.not_above_others(kind, path)?;
        }
        Ok(())
    }

    /// A place with rights of its own would have others after its directory was renamed, or when it is reached through a link.
    fn not_above_others(&self, kind: &Kind, path: &[u8]) -> Result<(), Refusal> {
        if self.rules.is_above_others(path) {
            return Err(Refusal::denied(format!("rules: {} is not allowed, there are other rules below", kind.short())));
        }
        Ok(())
    }

    fn not_the_root(&self, kind: &Kind, path: &[u8]) -> Result<(), Refusal> {
        if self.is_rooted() && path == b"/" {
            return Err(Refusal::denied(format!("root: {} of the root is not allowed", kind.short())));
        }
        Ok(())
    }

    fn size(&self, end: Option<u64>) -> Result<(), Refusal> {
        match (self.max_file_size, end) {
            (None, _) => Ok(()),
            (Some(most), Some(end)) if end <= most => Ok(()),
            (Some(most), Some(_)) => Err(Refusal::denied(format!("max_file_size: a file has at most {most} bytes"))),
            (Some(_), None) => Err(Refusal::denied("max_file_size: the size is not known")),
        }
    }

    fn check_names(&self, act: &Act<'_>) -> Result<(), Refusal> {
        let paths = || [Some(act.path), act.second].into_iter().flatten();
        if let Some(deny) = &self.deny
            && paths().any(|path| deny.match_in(path))
        {
            return Err(Refusal::denied(format!("deny: {} is not allowed for this name", act.kind.short())));
        }
        let of_files = matches!(
            act.kind.effect,
            Effect::ByFlags | Effect::Remove | Effect::Rename | Effect::Replace | Effect::HardLink | Effect::SymbolicLink
        );
        if let Some(allow) = &self.allow
            && of_files
            && !paths().all(|path| allow.matches(path.rsplit(|&byte| byte == b'/').next().unwrap_or_default()))
        {
            return Err(Refusal::denied(format!("allow: {} is not allowed for this name", act.kind.short())));
        }
        Ok(())
    }

    fn check_extension(&self, kind: &Kind) -> Result<(), Refusal> {
        if self.has_extension(kind) {
            return Ok(());
        }
        Err(Refusal { code: OP_UNSUPPORTED, text: format!("extensions: {} is not allowed", kind.short()).into() })
    }

    fn has_extension(&self, kind: &Kind) -> bool {
        kind.number != EXTENDED || self.extensions.as_ref().is_none_or(|list| list.iter().any(|one| one.name == kind.name))
    }

    /// Names of accounts are shown to who may list; a home directory is a path of the upstream and none below a root.
    fn knows_accounts(&self, kind: &Kind) -> bool {
        let lists = self.limit.rights().has(Rights::LIST) && self.rules.anywhere(Rights::LIST);
        lists && !(self.is_rooted() && kind.name == "home-directory")
    }

    /// Whether something of the upstream is hidden: with the root `/` paths are made normal, and that is all.
    fn is_rooted(&self) -> bool {
        self.root.as_deref().is_some_and(|root| root != "/")
    }

    /// Says which field does not give a right.
    fn refusal(&self, kind: &Kind, right: Rights) -> Refusal {
        let field = match self.limit {
            Limit::ReadOnly if !self.limit.rights().has(right) => "read-only",
            Limit::UploadOnly if !self.limit.rights().has(right) => "upload-only",
            _ if !self.ruled => "root",
            _ => "rules",
        };
        let (name, word) = (kind.short(), right.word());
        if right.is_none() || name == word {
            Refusal::denied(format!("{field}: {name} is not allowed"))
        } else {
            Refusal::denied(format!("{field}: {name} ({word}) is not allowed"))
        }
    }
}

impl Grant {
    /// Whether it is for writing: opened so, which was judged, or of a file that may be made and written anyhow; then the upstream says
    /// what is wrong with the handle.
    fn writes(self) -> bool {
        self.flags.has(OpenFlags::WRITE | OpenFlags::APPEND) || self.rights.has(Rights::CREATE.and(Rights::OVERWRITE))
    }
}

#[cfg(test)]
mod tests;
