//! Cuts a byte stream that arrives in pieces into SFTP packets: a `uint32` length, a `byte` type, the fields (draft section 3).
//!
//! Pure. Whether a packet is looked at whole is the caller's to say; content passes without being copied. What a caller needs but
//! has not all of is held back, and the caller sees to the bound by asking for no more than [`MAX_PACKET`].

use crate::wire::Reader;

/// Longest packet that is looked at whole, in bytes after its length field: OpenSSH's server takes no longer ones.
pub const MAX_PACKET: usize = 256 * 1024;

/// Bytes of the length field, which does not count itself.
pub const LENGTH_FIELD: usize = 4;

/// How a packet begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// What the length field says: type and fields; 0 is a fault.
    pub length: usize,
    /// The type.
    pub kind: u8,
}

impl Head {
    /// Reads the head at the beginning of `bytes`; `None` = more bytes are needed. A packet of length 0 has no type: it is told
    /// with type 0 and is the caller's to refuse.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let length = reader.u32("length").ok()? as usize;
        let kind = if length == 0 { 0 } else { reader.byte("type").ok()? };
        Some(Self { length, kind })
    }

    /// Bytes of the whole packet.
    pub fn total(self) -> usize {
        LENGTH_FIELD + self.length
    }
}

/// Where a stream stands: at the boundary of two packets, in a packet that passes, or behind the beginning of one that is held back.
#[derive(Debug, Default)]
pub struct Cut {
    passing: usize,
    dropping: usize,
    held: Vec<u8>,
}

impl Cut {
    /// Puts what was held back in front of the bytes that came after it.
    pub fn join(&mut self, buffer: &mut Vec<u8>) {
        if !self.held.is_empty() {
            self.held.extend_from_slice(buffer);
            std::mem::swap(&mut self.held, buffer);
            self.held.clear();
        }
    }

    /// Lets the next `count` bytes of the stream pass.
    pub fn pass(&mut self, count: usize) {
        self.passing = count;
    }

    /// How many of the next `available` bytes pass unseen; they are taken as passed.
    pub fn skip(&mut self, available: usize) -> usize {
        let count = self.passing.min(available);
        self.passing -= count;
        count
    }

    /// Takes the next `count` bytes of the stream out of it.
    pub fn drop(&mut self, count: usize) {
        self.dropping = count;
    }

    /// How many of the next `available` bytes are taken out; they are taken as done.
    pub fn dropped(&mut self, available: usize) -> usize {
        let count = self.dropping.min(available);
        self.dropping -= count;
        count
    }

    /// Takes the end of `buffer`, from `at` on, out of it until more bytes have come.
    pub fn hold(&mut self, buffer: &mut Vec<u8>, at: usize) {
        debug_assert!(self.held.is_empty(), "joined before");
        if at == 0 {
            // A packet that comes byte by byte must not be copied for each.
            std::mem::swap(&mut self.held, buffer);
        } else if at < buffer.len() {
            self.held.extend_from_slice(&buffer[at..]);
            buffer.truncate(at);
        }
    }

    /// Bytes that are held back.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Whether the stream stands between two packets.
    pub fn at_boundary(&self) -> bool {
        self.passing == 0 && self.dropping == 0 && self.held.is_empty()
    }

    /// Whether what has gone on ends between two packets, whatever is held back: another packet can be put there.
    pub fn is_between(&self) -> bool {
        self.passing == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_needs_five_bytes_unless_the_length_is_zero() {
        let bytes = [0, 0, 0, 9, 17];
        for end in 0..5 {
            assert_eq!(Head::read(&bytes[..end]), None);
        }
        let head = Head::read(&bytes).unwrap();
        assert_eq!((head.length, head.kind, head.total()), (9, 17, 13));
        assert_eq!(Head::read(&[0; 4]), Some(Head { length: 0, kind: 0 }));
    }

    #[test]
    fn what_is_held_back_comes_first_in_the_next_buffer() {
        let mut cut = Cut::default();
        let mut buffer = b"abcde".to_vec();
        cut.pass(3);
        assert_eq!((cut.skip(2), cut.skip(5), cut.at_boundary()), (2, 1, true));
        cut.hold(&mut buffer, 3);
        assert_eq!((buffer.as_slice(), cut.held(), cut.at_boundary()), (&b"abc"[..], 2, false));
        let mut next = b"f".to_vec();
        cut.join(&mut next);
        cut.hold(&mut next, 0);
        assert_eq!((next.len(), cut.held()), (0, 3));
        cut.join(&mut next);
        assert_eq!((next.as_slice(), cut.at_boundary()), (&b"def"[..], true));
    }
}
