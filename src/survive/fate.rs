//! What may be done with a request that was sent and not answered, when the upstream is lost: nobody knows whether it was done.
//!
//! Pure. Sent again is only what leaves the same behind whether it is done once or twice, also when the lost upstream does it later than
//! the new one: a process that is cut off from its peer may still work on what it had.

use crate::sftp::request::Request;
use crate::sftp::{Effect, Kind, OpenFlags, Then};

/// What is done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is sent again.
    Again,
    /// The client is told that nobody knows.
    Unknown,
}

/// What is done with a request of a file that is proven, or of none. `overtaken` = a later one was answered.
///
/// OPEN that makes or empties a file is not sent again: done late by the lost upstream, it would empty what the client has written since.
pub fn fate(request: &Request<'_>, overtaken: bool) -> Fate {
    let again = match request.kind.effect {
        Effect::Session | Effect::Look | Effect::Accounts | Effect::List | Effect::Read | Effect::Write => true,
        Effect::ByFlags => request.flags.is_some_and(|flags| flags.0 & !(OpenFlags::READ | OpenFlags::WRITE) == 0),
        // Values that are set, not changed. A size would cut off what was written since.
        Effect::Attributes => !overtaken && request.attributes().is_ok_and(|attributes| attributes.size.is_none()),
        Effect::Copy
        | Effect::Remove
        | Effect::RemoveDirectory
        | Effect::MakeDirectory
        | Effect::Rename
        | Effect::Replace
        | Effect::HardLink
        | Effect::SymbolicLink => false,
    };
    if again { Fate::Again } else { Fate::Unknown }
}

/// Whether its answer is a new handle.
pub fn is_open(kind: &Kind) -> bool {
    kind.effect == Effect::ByFlags || kind.effect == Effect::List && kind.then != Then::Handle
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sftp::KINDS;
    use crate::sftp::attributes::{PERMISSIONS, SIZE};
    use crate::wire::{put_string, put_u32};

    /// A request of this kind with these flags, which are those of OPEN or of attributes.
    fn packet(kind: &Kind, flags: u32) -> Vec<u8> {
        let mut body = vec![kind.number, 0, 0, 0, 7];
        if kind.number == crate::sftp::EXTENDED {
            put_string(&mut body, kind.name.as_bytes());
        }
        kind.paths.iter().for_each(|_| put_string(&mut body, b"/a"));
        if kind.then.is_handle() {
            put_string(&mut body, b"h");
        }
        match kind.then {
            Then::Copy => {
                body.extend(0_u64.to_be_bytes());
                body.extend(1_u64.to_be_bytes());
                put_string(&mut body, b"i");
                body.extend(0_u64.to_be_bytes());
            }
            Then::Range | Then::Content => {
                body.extend(0_u64.to_be_bytes());
                put_u32(&mut body, 0);
            }
            Then::Other | Then::Handle => {}
            Then::Flags | Then::Attributes | Then::HandleAttributes => {
                put_u32(&mut body, flags);
                put_u32(&mut body, 0);
                put_u32(&mut body, 0);
            }
        }
        body
    }

    fn fate_of(kind: &'static Kind, flags: u32, overtaken: bool) -> Fate {
        fate(&Request::read(kind, &packet(kind, flags)).unwrap(), overtaken)
    }

    #[test]
    fn each_request_of_the_table_is_sent_again_only_if_that_is_harmless() {
        let again: Vec<_> = KINDS.iter().filter(|kind| fate_of(kind, 0, false) == Fate::Again).map(Kind::short).collect();
        let expected = "write read init open close lstat fstat setstat fsetstat opendir readdir realpath stat readlink statvfs fstatvfs fsync \
            lsetstat limits expand-path home-directory users-groups-by-id";
        assert_eq!(again, expected.split_whitespace().collect::<Vec<_>>());
    }

    #[test]
    fn what_makes_or_empties_a_file_or_sets_its_size_is_not() {
        let kind = |name: &str| KINDS.iter().find(|kind| kind.short() == name).unwrap();
        for flags in 0..128 {
            let harmless = flags & !3 == 0;
            assert_eq!(fate_of(kind("open"), flags, false) == Fate::Again, harmless, "{flags:#x}");
        }
        for name in ["setstat", "fsetstat", "lsetstat"] {
            assert_eq!(fate_of(kind(name), SIZE, false), Fate::Unknown);
            assert_eq!(fate_of(kind(name), PERMISSIONS, false), Fate::Again);
            assert_eq!(fate_of(kind(name), PERMISSIONS, true), Fate::Unknown);
        }
    }
}
