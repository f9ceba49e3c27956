//! SFTP version 3 (draft-ietf-secsh-filexfer-02) with OpenSSH's extensions (OpenSSH PROTOCOL section 4): the one table of
//! requests. What a request carries and what it does is said here and nowhere else.
//!
//! Pure. Not an implementation of SFTP: the upstream's server answers. [`frame`] cuts a byte stream into packets, [`request`]
//! reads and rewrites the stream towards the upstream.

use std::fmt;

pub mod frame;
pub mod request;

/// Type of the first packet, the only request without an id.
pub const INIT: u8 = 1;

/// Type of every extension; its name follows the id.
pub const EXTENDED: u8 = 200;

/// One kind of request.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// The packet's type; [`EXTENDED`] for all extensions.
    pub number: u8,
    /// Its name in lower case; of an extension the name on the wire.
    pub name: &'static str,
    /// The paths, in the order of the wire, directly after the id (of an extension: after its name).
    pub paths: &'static [Field],
    /// What follows the paths.
    pub then: Then,
    /// What it does to the upstream's files.
    pub effect: Effect,
}

impl Kind {
    /// The name for people: an extension's without its domain.
    pub fn short(&self) -> &'static str {
        self.name.split('@').next().unwrap_or(self.name)
    }
}

/// A path in a request.
#[derive(Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name in the standard.
    pub name: &'static str,
    /// What a relative one is relative to.
    pub meaning: Meaning,
}

/// What a path that is not absolute means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// A file below the start directory.
    File,
    /// The same, and empty or `.` is the start directory itself.
    Start,
    /// The same as `Start`; `~` is the start directory too (as sftp-server has it), `~name` the upstream's to expand.
    Expand,
    /// The content of a symbolic link: relative to the link, kept as it is.
    Target,
}

/// What follows the paths of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Nothing that is looked at.
    Other,
    /// Attributes.
    Attributes,
    /// The flags of OPEN, then attributes.
    Flags,
}

/// What a request does to the upstream's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing: it belongs to the session.
    Session,
    /// It asks about a file.
    Look,
    /// It lists a directory.
    List,
    /// It reads a file's content.
    Read,
    /// It writes a file's content.
    Write,
    /// It changes names or attributes.
    Change,
    /// Reads or writes, as its flags say.
    ByFlags,
}

const fn field(name: &'static str, meaning: Meaning) -> Field {
    Field { name, meaning }
}

const fn plain(number: u8, name: &'static str, paths: &'static [Field], effect: Effect) -> Kind {
    Kind { number, name, paths, then: Then::Other, effect }
}

const fn with(then: Then, kind: Kind) -> Kind {
    Kind { then, ..kind }
}

const NONE: &[Field] = &[];
const PATH: &[Field] = &[field("path", Meaning::File)];
const FILENAME: &[Field] = &[field("filename", Meaning::File)];
const OLD_NEW: &[Field] = &[field("oldpath", Meaning::File), field("newpath", Meaning::File)];
const START: &[Field] = &[field("path", Meaning::Start)];
const EXPAND: &[Field] = &[field("path", Meaning::Expand)];
/// OpenSSH's order, which is not the draft's: PROTOCOL section 4.1.
const TARGET_LINK: &[Field] = &[field("targetpath", Meaning::Target), field("linkpath", Meaning::File)];

/// Every request of version 3 and every extension of OpenSSH's server. The two that carry content come first.
pub static KINDS: &[Kind] = &[
    plain(6, "write", NONE, Effect::Write),
    plain(5, "read", NONE, Effect::Read),
    plain(INIT, "init", NONE, Effect::Session),
    with(Then::Flags, plain(3, "open", FILENAME, Effect::ByFlags)),
    plain(4, "close", NONE, Effect::Session),
    plain(7, "lstat", PATH, Effect::Look),
    plain(8, "fstat", NONE, Effect::Look),
    with(Then::Attributes, plain(9, "setstat", PATH, Effect::Change)),
    plain(10, "fsetstat", NONE, Effect::Change),
    plain(11, "opendir", PATH, Effect::List),
    plain(12, "readdir", NONE, Effect::List),
    plain(13, "remove", FILENAME, Effect::Change),
    with(Then::Attributes, plain(14, "mkdir", PATH, Effect::Change)),
    plain(15, "rmdir", PATH, Effect::Change),
    plain(16, "realpath", START, Effect::Look),
    plain(17, "stat", PATH, Effect::Look),
    plain(18, "rename", OLD_NEW, Effect::Change),
    plain(19, "readlink", PATH, Effect::Look),
    plain(20, "symlink", TARGET_LINK, Effect::Change),
    plain(EXTENDED, "posix-rename@openssh.com", OLD_NEW, Effect::Change),
    plain(EXTENDED, "statvfs@openssh.com", PATH, Effect::Look),
    plain(EXTENDED, "fstatvfs@openssh.com", NONE, Effect::Look),
    plain(EXTENDED, "hardlink@openssh.com", OLD_NEW, Effect::Change),
    plain(EXTENDED, "fsync@openssh.com", NONE, Effect::Write),
    with(Then::Attributes, plain(EXTENDED, "lsetstat@openssh.com", PATH, Effect::Change)),
    plain(EXTENDED, "limits@openssh.com", NONE, Effect::Session),
    plain(EXTENDED, "expand-path@openssh.com", EXPAND, Effect::Look),
    plain(EXTENDED, "copy-data", NONE, Effect::Write),
    plain(EXTENDED, "home-directory", NONE, Effect::Look),
    plain(EXTENDED, "users-groups-by-id@openssh.com", NONE, Effect::Look),
];

/// Longest name of an extension in the table; a longer one is none of them.
pub const MAX_EXTENSION_NAME: usize = 32;

/// The row of a packet type that is not an extension.
pub fn kind(number: u8) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.number == number && number != EXTENDED)
}

/// The row of an extension.
pub fn extension(name: &[u8]) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.number == EXTENDED && kind.name.as_bytes() == name)
}

/// The flags of OPEN (draft section 6.3), shown as words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenFlags(pub u32);

impl OpenFlags {
    const NAMES: [&str; 6] = ["read", "write", "append", "creat", "trunc", "excl"];

    /// Whether a file can be changed or made by opening it so: anything but reading.
    pub fn changes(self) -> bool {
        self.0 & !1 != 0
    }
}

impl fmt::Display for OpenFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = (0..6).filter(|bit| self.0 >> bit & 1 == 1).map(|bit| Self::NAMES[bit]);
        f.write_str(&set.collect::<Vec<_>>().join(","))?;
        match self.0 >> 6 << 6 {
            0 => Ok(()),
            unknown => write!(f, "+{unknown:#x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_is_found_by_what_stands_on_the_wire() {
        for row in KINDS {
            let found = if row.number == EXTENDED { extension(row.name.as_bytes()) } else { kind(row.number) };
            assert_eq!(found, Some(row));
            assert!(row.name.len() <= MAX_EXTENSION_NAME && row.paths.len() <= 2, "{}", row.name);
        }
        assert_eq!((kind(EXTENDED), kind(0), extension(b"open")), (None, None, None));
        assert_eq!(extension(b"posix-rename@openssh.com").map(Kind::short), Some("posix-rename"));
    }

    #[test]
    fn open_flags_are_shown_as_words() {
        for (flags, shown, changes) in
            [(1, "read", false), (0x1a, "write,creat,trunc", true), (0, "", false), (0x41, "read+0x40", true)]
        {
            assert_eq!((OpenFlags(flags).to_string().as_str(), OpenFlags(flags).changes()), (shown, changes));
        }
    }
}
