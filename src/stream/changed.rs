//! The bytes to forward as far as they differ from those received; nothing is copied before the first difference.

use std::ops::Range;

/// What came so far, changed.
#[derive(Default)]
pub struct Changed {
    out: Vec<u8>,
    copied: usize,
}

impl Changed {
    /// Puts `new` in place of `range` of `buffer`. Ranges come in order and are not empty.
    pub fn replace(&mut self, buffer: &[u8], range: Range<usize>, new: &[u8]) {
        self.out.extend_from_slice(&buffer[self.copied..range.start]);
        self.out.extend_from_slice(new);
        self.copied = range.end;
    }

    /// Makes `buffer` what is to be forwarded. It stays where it is if there is room: the relay uses it again.
    pub fn finish(self, buffer: &mut Vec<u8>) {
        if self.copied == 0 {
            return;
        }
        let (out, copied) = (self.out.len(), self.copied);
        if out + buffer.len() - copied > buffer.capacity() {
            let mut whole = self.out;
            whole.extend_from_slice(&buffer[copied..]);
            *buffer = whole;
            return;
        }
        if out <= copied {
            buffer.drain(out..copied);
            buffer[..out].copy_from_slice(&self.out);
        } else {
            buffer.splice(..copied, self.out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_replaced_and_the_buffer_is_kept_while_there_is_room() {
        for (capacity, new, kept) in
            [(64, "xyz", true), (64, "", true), (64, "longer than before", true), (10, "longer than before", false)]
        {
            let mut buffer = Vec::with_capacity(capacity);
            buffer.extend_from_slice(b"0123456789");
            let address = buffer.as_ptr();
            let mut changed = Changed::default();
            changed.replace(&buffer, 2..4, new.as_bytes());
            changed.replace(&buffer, 6..7, b"-");
            changed.finish(&mut buffer);
            assert_eq!(String::from_utf8(buffer.clone()).unwrap(), format!("01{new}45-789"));
            assert_eq!(buffer.as_ptr() == address, kept, "{new}");
        }
        let mut same = b"ab".to_vec();
        Changed::default().finish(&mut same);
        assert_eq!(same, b"ab");
    }
}
