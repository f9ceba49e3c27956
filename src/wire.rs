//! Reader and writer of SSH wire types (RFC 4251 section 5): `byte`, `uint32`, `uint64`, `string`.
//!
//! Pure. Not a codec of any message: those know their own fields. A reader names the field it missed, so that a fault in a
//! peer's bytes can be told in one line, and it refuses bytes that nobody asked for.

use std::fmt;

/// Why bytes are not the message they claim to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WireError {
    /// The bytes end before or within the named field.
    Missing(&'static str),
    /// The named field is there but its value is not allowed.
    Invalid(&'static str),
    /// This many bytes follow the last field.
    Trailing(usize),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(field) => write!(f, "field \"{field}\" is missing or cut short"),
            Self::Invalid(field) => write!(f, "field \"{field}\" has a value that is not allowed"),
            Self::Trailing(count) => write!(f, "{count} bytes after the last field"),
        }
    }
}

impl std::error::Error for WireError {}

/// A cursor over received bytes. Each read either yields a whole field or names it in the error; none allocates.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Takes `count` bytes as they are.
    pub fn take(&mut self, count: usize, field: &'static str) -> Result<&'a [u8], WireError> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or(WireError::Missing(field))?;
        self.rest = rest;
        Ok(head)
    }

    /// Reads a `byte`.
    pub fn byte(&mut self, field: &'static str) -> Result<u8, WireError> {
        Ok(self.take(1, field)?[0])
    }

    /// Reads a `uint32`, big-endian.
    pub fn u32(&mut self, field: &'static str) -> Result<u32, WireError> {
        let bytes = self.take(4, field)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// Reads a `uint64`, big-endian.
    pub fn u64(&mut self, field: &'static str) -> Result<u64, WireError> {
        Ok(u64::from(self.u32(field)?) << 32 | u64::from(self.u32(field)?))
    }

    /// Reads a `string`: a `uint32` length and that many bytes, which need not be text.
    pub fn string(&mut self, field: &'static str) -> Result<&'a [u8], WireError> {
        let length = self.u32(field)? as usize;
        self.take(length, field)
    }

    /// What has not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Ends the message: nothing may be left.
    pub fn end(self) -> Result<(), WireError> {
        match self.rest.len() {
            0 => Ok(()),
            count => Err(WireError::Trailing(count)),
        }
    }
}

/// Appends a `uint32`, big-endian.
pub fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Appends a `string`. Its length must fit a `uint32`, which every bound of this program keeps far from.
pub fn put_string(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u32(out, u32::try_from(bytes.len()).expect("a string of this program is far below 4 GiB"));
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_names_the_field_it_missed_and_refuses_trailing_bytes() {
        let mut out = Vec::new();
        put_u32(&mut out, 7);
        put_string(&mut out, b"abc");
        let mut reader = Reader::new(&out);
        assert_eq!(reader.u32("id"), Ok(7));
        assert_eq!(reader.string("path"), Ok(&b"abc"[..]));
        assert_eq!(reader.end(), Ok(()));

        let mut short = Reader::new(&out[..out.len() - 1]);
        assert_eq!(short.u32("id"), Ok(7));
        assert_eq!(short.string("path"), Err(WireError::Missing("path")));
        assert_eq!(Reader::new(&out).end(), Err(WireError::Trailing(11)));
        assert_eq!(Reader::new(&[0, 0, 0, 0, 0, 0, 1, 2]).u64("offset"), Ok(0x102));
        assert_eq!(Reader::new(&[255; 4]).string("handle"), Err(WireError::Missing("handle")));
    }
}
