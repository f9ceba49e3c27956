//! An open file or directory: what is needed to open it again, and to prove that it is what the client was told.
//!
//! Pure. Version 3 has no inodes: a file is the one that has this path, these attributes and, wherever something was acknowledged, this
//! content.

use super::known::{Doubt, Known};
use crate::path::{is_below, normal};
use crate::sftp::OpenFlags;
use crate::sftp::attributes::Identity;

/// How far a directory has been listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listed {
    /// Nothing was asked for.
    Not,
    /// Some of it: nobody could say which.
    Partly,
    /// To its end.
    Whole,
    /// To its end, and it was opened again: it can only be closed.
    Over,
}

/// An open file or directory.
#[derive(Debug)]
pub struct Open {
    /// As the upstream was given it.
    pub path: Box<[u8]>,
    /// Of OPEN; of a directory none.
    pub flags: OpenFlags,
    /// How far it was listed; `None` = it is a file.
    pub listed: Option<Listed>,
    /// The upstream's handle at present.
    pub handle: Box<[u8]>,
    /// CLOSE has come.
    pub closing: bool,
    /// What it was right after its opening; `None` = not known yet.
    pub begun: Option<Identity>,
    /// What the client was given of it, or told to be stored in it.
    pub known: Known,
    /// The end of the farthest WRITE that was sent; `None` = none was.
    pub farthest: Option<u64>,
    /// Its attributes were set, but not its size.
    pub attributes_set: bool,
    /// Why it cannot be proven any more, once the upstream is lost.
    pub doubt: Option<Doubt>,
    /// Why it is lost: the upstream was, and this cannot be gone on with.
    pub lost: Option<String>,
}

impl Open {
    /// One that has just been opened.
    pub fn new(path: &[u8], flags: OpenFlags, is_directory: bool, handle: &[u8]) -> Self {
        let appends = flags.has(OpenFlags::APPEND);
        // Whatever it was before, it is empty now; the rest is asked for.
        Self {
            path: path.into(),
            flags,
            listed: is_directory.then_some(Listed::Not),
            handle: handle.into(),
            closing: false,
            begun: None,
            known: Known::default(),
            farthest: None,
            attributes_set: false,
            doubt: appends.then_some("it was opened to be appended to"),
            lost: None,
        }
    }

    /// Notes the first reason for which it could not be proven.
    pub fn doubted(&mut self, doubt: Doubt) {
        self.doubt.get_or_insert(doubt);
    }

    /// Takes the handle that it has on another connection.
    pub fn opened_again(&mut self, handle: &[u8]) {
        self.handle = handle.into();
        if self.listed == Some(Listed::Whole) {
            self.listed = Some(Listed::Over);
        }
    }

    /// Whether a directory has no more to give, and only here that is known.
    pub fn is_over(&self) -> bool {
        self.listed == Some(Listed::Over)
    }

    /// Why it cannot be opened again, as far as that is known before.
    pub fn hopeless(&self) -> Option<Doubt> {
        self.doubt.or_else(|| (self.listed == Some(Listed::Partly)).then_some("a part of it was listed"))
    }

    /// The flags to open it again with: nothing is made or emptied, and it is read where something is to be proven.
    pub fn flags_again(&self) -> u32 {
        let proof = if self.known.ranges().is_empty() { 0 } else { OpenFlags::READ };
        self.flags.0 & (OpenFlags::READ | OpenFlags::WRITE) | proof
    }

    /// Whether `now`, which it is after it was opened again, fits to what is known. Its content is another question.
    pub fn check(&self, now: &Identity) -> Result<(), String> {
        let size = now.size.ok_or("its size is not told")?;
        let Some(begun) = self.begun else {
            // Not one answer has come since it was opened: it is opened now.
            return if self.known.ranges().is_empty() {
                Ok(())
            } else {
                Err("what it was when it was opened is not known".into())
            };
        };
        let first = begun.size.ok_or("its size was not told")?;
        let (least, most) = match self.farthest {
            None => (first, first),
            Some(farthest) => (first.max(self.known.end()), first.max(farthest)),
        };
        if size < least || size > most {
            let should = if least == most { least.to_string() } else { format!("{least} to {most}") };
            return Err(format!("it has {size} bytes and should have {should}"));
        }
        if self.attributes_set {
            return Ok(());
        }
        if (now.owner, now.permissions) != (begun.owner, begun.permissions) {
            return Err("its owner or its permissions are others".into());
        }
        if self.farthest.is_none() && now.modified != begun.modified {
            return Err("it was changed at another time".into());
        }
        Ok(())
    }

    /// Whether what is done to `path` may be done to it, as far as their texts show. When one of them is relative to who knows what,
    /// it may.
    pub fn may_be(&self, path: &[u8]) -> bool {
        let is_absolute = |path: &[u8]| path.first() == Some(&b'/');
        if is_absolute(path) != is_absolute(&self.path) {
            return true;
        }
        is_below(&normal(b"/", &self.path), &normal(b"/", path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(flags: u32) -> Open {
        let begun = Identity { size: Some(10), owner: Some((1, 1)), permissions: Some(0o100_644), modified: Some(5) };
        Open { begun: Some(begun), ..Open::new(b"/a/b", OpenFlags(flags), false, b"h") }
    }

    #[test]
    fn a_file_that_was_only_read_must_be_what_it_was() {
        let open = file(OpenFlags::READ);
        let same = open.begun.unwrap();
        assert_eq!(open.check(&same), Ok(()));
        for other in [
            Identity { size: Some(9), ..same },
            Identity { size: Some(11), ..same },
            Identity { size: None, ..same },
            Identity { modified: Some(6), ..same },
            Identity { owner: Some((1, 2)), ..same },
            Identity { permissions: Some(0o100_600), ..same },
        ] {
            assert!(open.check(&other).is_err(), "{other:?}");
        }
    }

    #[test]
    fn a_file_that_is_written_has_all_that_was_acknowledged_and_no_more_than_was_sent() {
        let mut open = file(OpenFlags::WRITE);
        open.known.written(10, b"01234").unwrap();
        open.farthest = Some(20);
        let sized = |size| Identity { size: Some(size), modified: Some(99), ..open.begun.unwrap() };
        for (size, fits) in [(14, false), (15, true), (20, true), (21, false), (0, false)] {
            assert_eq!(open.check(&sized(size)).is_ok(), fits, "{size}");
        }
        assert_eq!(open.flags_again(), OpenFlags::READ | OpenFlags::WRITE);
        assert_eq!(file(0x3a).flags_again(), OpenFlags::WRITE, "nothing to prove, nothing made, nothing emptied");
        // An answer about its beginning is missing although something was acknowledged: nothing is proven.
        open.begun = None;
        assert!(open.check(&Identity { size: Some(15), ..Identity::default() }).is_err());
    }

    #[test]
    fn what_cannot_be_opened_again_is_known_before() {
        assert!(file(OpenFlags::WRITE | OpenFlags::APPEND).hopeless().is_some());
        let mut folder = Open::new(b"/a", OpenFlags(0), true, b"h");
        for (listed, hopeless) in [(Listed::Not, false), (Listed::Partly, true), (Listed::Whole, false), (Listed::Over, false)] {
            folder.listed = Some(listed);
            assert_eq!(folder.hopeless().is_some(), hopeless, "{listed:?}");
        }
    }

    #[test]
    fn a_path_may_be_that_of_a_file_however_it_is_spelled() {
        let open = file(OpenFlags::READ);
        for (path, may) in
            [("/a/b", true), ("/a", true), ("/a/./x/../b", true), ("/", true), ("a/b", true), ("/a/bc", false), ("/a/b/c", false)]
        {
            assert_eq!(open.may_be(path.as_bytes()), may, "{path}");
        }
    }
}
