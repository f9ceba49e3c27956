//! File attributes (draft section 5), as far as somebody asks: which are there, and the size.
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

impl Attributes {
    /// Reads attributes and leaves `reader` behind them. A flag that the draft does not know brings nothing along, as OpenSSH's
    /// server has it.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let flags = reader.u32("attrs")?;
        let size = if flags & SIZE != 0 { Some(reader.u64("size")?) } else { None };
        for (flag, bytes, name) in [(OWNER, 8, "uid and gid"), (PERMISSIONS, 4, "permissions"), (TIMES, 8, "atime and mtime")] {
            if flags & flag != 0 {
                reader.take(bytes, name)?;
            }
        }
        if flags & PAIRS != 0 {
            for _ in 0..reader.u32("extended_count")? {
                reader.string("extended_type")?;
                reader.string("extended_data")?;
            }
        }
        Ok(Self { flags, size })
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
            &[0; 20],
            &[0, 0, 0, 1, 0, 0, 0, 1, b'a', 0, 0, 0, 0],
        ]
        .concat();
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
