//! File attributes (draft section 5), as far as somebody asks: which are there, the size, and what tells one file from another.
//!
//! Pure. Values that nobody asks for are stepped over, not kept.

use crate::wire::{Reader, WireError};

/// The size is there.
pub const SIZE: u32 = 1;
/// Owner and group are there.
pub const OWNER: u32 = 2;
/// The permissions are there.
pub const PERMISSIONS: u32 = 4;
/// The times of the last access and the last change are there.
pub const TIMES: u32 = 8;
/// Extended pairs are there: a count, and two strings each.
pub const PAIRS: u32 = 1 << 31;

/// What was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Which attributes are there: an or of the constants above.
    pub flags: u32,
    /// The size in bytes.
    pub size: Option<u64>,
}

/// What tells one file from another, as far as version 3 can: it has no inodes. `None` = the upstream does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Identity {
    /// The size in bytes.
    pub size: Option<u64>,
    /// Numbers of the owner and the group.
    pub owner: Option<(u32, u32)>,
    /// Type and mode.
    pub permissions: Option<u32>,
    /// When its content was changed, in seconds since 1970.
    pub modified: Option<u32>,
}

impl Identity {
    /// Reads attributes and leaves `reader` behind them.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        fields(reader).map(|(_, identity)| identity)
    }
}

/// Which attributes are there, and those that somebody asks for.
fn fields(reader: &mut Reader<'_>) -> Result<(u32, Identity), WireError> {
    let flags = reader.u32("attrs")?;
    let mut found = Identity::default();
    if flags & SIZE != 0 {
        found.size = Some(reader.u64("size")?);
    }
    if flags & OWNER != 0 {
        let mut both = Reader::new(reader.take(8, "uid and gid")?);
        found.owner = Some((both.u32("uid")?, both.u32("gid")?));
    }
    if flags & PERMISSIONS != 0 {
        found.permissions = Some(reader.u32("permissions")?);
    }
    if flags & TIMES != 0 {
        let mut both = Reader::new(reader.take(8, "atime and mtime")?);
        both.u32("atime")?;
        found.modified = Some(both.u32("mtime")?);
    }
    if flags & PAIRS != 0 {
        for _ in 0..reader.u32("extended_count")? {
            reader.string("extended_type")?;
            reader.string("extended_data")?;
        }
    }
    Ok((flags, found))
}

impl Attributes {
    /// Reads attributes and leaves `reader` behind them. A flag that the draft does not know brings nothing along, as OpenSSH's
    /// server has it.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        fields(reader).map(|(flags, found)| Self { flags, size: found.size })
    }

    /// Whether anything but the permissions is there.
    pub fn beyond_permissions(self) -> bool {
        self.flags & !PERMISSIONS != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_attribute_is_stepped_over_and_a_missing_one_is_named() {
        let all = [
            &(SIZE | OWNER | PERMISSIONS | TIMES | PAIRS).to_be_bytes()[..],
            &[0, 0, 0, 1, 0, 0, 0, 2],
            &[0; 16],
            &[0, 0, 0, 7],
            &[0, 0, 0, 1, 0, 0, 0, 1, b'a', 0, 0, 0, 0],
        ]
        .concat();
        let identity = Identity::read(&mut Reader::new(&all)).unwrap();
        assert_eq!((identity.owner, identity.permissions, identity.modified), (Some((0, 0)), Some(0), Some(7)));
        let mut reader = Reader::new(&all);
        let read = Attributes::read(&mut reader).unwrap();
        assert_eq!((read.size, reader.end()), (Some(1 << 32 | 2), Ok(())));
        for (end, field) in [
            (3, "attrs"),
            (11, "size"),
            (19, "uid and gid"),
            (23, "permissions"),
            (31, "atime and mtime"),
            (35, "extended_count"),
        ] {
            assert_eq!(Attributes::read(&mut Reader::new(&all[..end])), Err(WireError::Missing(field)));
        }
        assert!(Attributes::read(&mut Reader::new(&[0, 0, 0, 16])).unwrap().beyond_permissions());
        assert!(!Attributes::read(&mut Reader::new(&[0, 0, 0, 4, 0, 0, 1, 255])).unwrap().beyond_permissions());
        // A count of four thousand millions ends with the bytes.
        let endless = [&PAIRS.to_be_bytes()[..], &[255; 4], &[0; 8]].concat();
        assert_eq!(Attributes::read(&mut Reader::new(&endless)), Err(WireError::Missing("extended_type")));
    }
}
