//! SFTP version 3 (draft-ietf-secsh-filexfer-02) with OpenSSH's extensions (OpenSSH PROTOCOL section 4): the one table of
//! requests. What a request carries and what it does is said here and nowhere else.
//!
//! Pure. Not an implementation of SFTP: the upstream's server answers. [`frame`] cuts a byte stream into packets, [`request`] and
//! [`reply`] read and write one packet each, [`attributes`] the file attributes in them.

use std::fmt;

pub mod attributes;
pub mod frame;
pub mod reply;
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

/// What follows the paths of a request, or the id where there are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Nothing that is looked at.
    Other,
    /// Attributes.
    Attributes,
    /// The flags of OPEN, then attributes.
    Flags,
    /// A handle.
    Handle,
    /// A handle, then attributes.
    HandleAttributes,
    /// A handle, the offset and the length of READ.
    Range,
    /// A handle, the offset and the content of WRITE.
    Content,
    /// A handle to read from, offset, length; a handle to write to, offset (OpenSSH PROTOCOL section 4.10).
    Copy,
}

impl Then {
    /// Whether a handle follows.
    pub fn is_handle(self) -> bool {
        matches!(self, Self::Handle | Self::HandleAttributes | Self::Range | Self::Content | Self::Copy)
    }
}

/// What a request does to the upstream's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing: it belongs to the session.
    Session,
    /// It asks about a file.
    Look,
    /// It asks about the upstream's accounts.
    Accounts,
    /// It lists a directory.
    List,
    /// It reads a file's content.
    Read,
    /// It writes a file's content.
    Write,
    /// It reads one file's content and writes another's.
    Copy,
    /// It sets attributes, the size among them.
    Attributes,
    /// It removes a file.
    Remove,
    /// It removes a directory.
    RemoveDirectory,
    /// It makes a directory.
    MakeDirectory,
    /// It gives a file another name, which must be free.
    Rename,
    /// The same, and a file of the new name is replaced.
    Replace,
    /// It makes a second name for a file.
    HardLink,
    /// It makes a symbolic link.
    SymbolicLink,
    /// Reads or writes, as its flags say.
    ByFlags,
}

impl Effect {
    /// Whether the upstream's files can be different afterwards. What depends on flags, can.
    pub fn changes(self) -> bool {
        !matches!(self, Self::Session | Self::Look | Self::Accounts | Self::List | Self::Read)
    }
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
    with(Then::Content, plain(6, "write", NONE, Effect::Write)),
    with(Then::Range, plain(5, "read", NONE, Effect::Read)),
    plain(INIT, "init", NONE, Effect::Session),
    with(Then::Flags, plain(3, "open", FILENAME, Effect::ByFlags)),
    with(Then::Handle, plain(4, "close", NONE, Effect::Session)),
    plain(7, "lstat", PATH, Effect::Look),
    with(Then::Handle, plain(8, "fstat", NONE, Effect::Look)),
    with(Then::Attributes, plain(9, "setstat", PATH, Effect::Attributes)),
    with(Then::HandleAttributes, plain(10, "fsetstat", NONE, Effect::Attributes)),
    plain(11, "opendir", PATH, Effect::List),
    with(Then::Handle, plain(12, "readdir", NONE, Effect::List)),
    plain(13, "remove", FILENAME, Effect::Remove),
    with(Then::Attributes, plain(14, "mkdir", PATH, Effect::MakeDirectory)),
    plain(15, "rmdir", PATH, Effect::RemoveDirectory),
    plain(16, "realpath", START, Effect::Look),
    plain(17, "stat", PATH, Effect::Look),
    plain(18, "rename", OLD_NEW, Effect::Rename),
    plain(19, "readlink", PATH, Effect::Look),
    plain(20, "symlink", TARGET_LINK, Effect::SymbolicLink),
    plain(EXTENDED, "posix-rename@openssh.com", OLD_NEW, Effect::Replace),
    plain(EXTENDED, "statvfs@openssh.com", PATH, Effect::Look),
    with(Then::Handle, plain(EXTENDED, "fstatvfs@openssh.com", NONE, Effect::Look)),
    plain(EXTENDED, "hardlink@openssh.com", OLD_NEW, Effect::HardLink),
    with(Then::Handle, plain(EXTENDED, "fsync@openssh.com", NONE, Effect::Write)),
    with(Then::Attributes, plain(EXTENDED, "lsetstat@openssh.com", PATH, Effect::Attributes)),
    plain(EXTENDED, "limits@openssh.com", NONE, Effect::Session),
    plain(EXTENDED, "expand-path@openssh.com", EXPAND, Effect::Look),
    with(Then::Copy, plain(EXTENDED, "copy-data", NONE, Effect::Copy)),
    plain(EXTENDED, "home-directory", NONE, Effect::Accounts),
    plain(EXTENDED, "users-groups-by-id@openssh.com", NONE, Effect::Accounts),
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OpenFlags(pub u32);

impl OpenFlags {
    /// Open for reading.
    pub const READ: u32 = 1;
    /// Open for writing.
    pub const WRITE: u32 = 2;
    /// Write at the end, whatever the offset says.
    pub const APPEND: u32 = 4;
    /// Make the file if there is none.
    pub const CREATE: u32 = 8;
    /// Empty the file.
    pub const TRUNCATE: u32 = 16;
    /// With CREATE: fail if there is a file.
    pub const EXCLUSIVE: u32 = 32;

    const NAMES: [&str; 6] = ["read", "write", "append", "creat", "trunc", "excl"];

    /// Whether a file can be changed or made by opening it so: anything but reading.
    pub fn changes(self) -> bool {
        self.0 & !Self::READ != 0
    }

    /// Whether one of `flags` is set.
    pub fn has(self, flags: u32) -> bool {
        self.0 & flags != 0
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
