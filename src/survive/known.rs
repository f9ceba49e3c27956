//! What a file is known to contain: digests of the ranges that the client was given, or was told to be stored. No content is kept.
//!
//! Pure. A range that is written a second time has no digest any more, and neither has a file in which ranges lie scattered: then
//! nothing can be proven of it.

/// Most ranges of a file; a transfer has one, one in several pieces has one each. A digest has some 2 KiB.
pub const MAX_RANGES: usize = 16;

/// Why nothing can be proven of a file any more.
pub type Doubt = &'static str;

/// A range without gaps, from its first byte to the one behind its last.
#[derive(Debug, Clone)]
pub struct Range {
    /// Offset of its first byte.
    pub from: u64,
    /// Offset behind its last byte.
    pub to: u64,
    digest: Box<blake3::Hasher>,
}

impl Range {
    /// The digest of its bytes.
    pub fn digest(&self) -> blake3::Hash {
        self.digest.finalize()
    }
}

/// The ranges of one file.
#[derive(Debug, Clone, Default)]
pub struct Known(Vec<Range>);

impl Known {
    /// The ranges in the order in which they began.
    pub fn ranges(&self) -> &[Range] {
        &self.0
    }

    /// The end of what is known.
    pub fn end(&self) -> u64 {
        self.0.iter().map(|range| range.to).max().unwrap_or(0)
    }

    /// The client was given these bytes. What was known of them before stays.
    pub fn read(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Doubt> {
        let (mut at, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let (is_known, until) = self.at(at);
            let count = rest.len().min(usize::try_from(until - at).unwrap_or(usize::MAX));
            if count == 0 {
                return Err(FAR);
            }
            if !is_known {
                self.append(at, &rest[..count])?;
            }
            (at, rest) = (at.checked_add(count as u64).ok_or(FAR)?, &rest[count..]);
        }
        Ok(())
    }

    /// The client was told that these bytes are stored.
    pub fn written(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Doubt> {
        if bytes.is_empty() {
            return Ok(());
        }
        let end = offset.checked_add(bytes.len() as u64).ok_or(FAR)?;
        if self.overlaps(offset, end) {
            return Err("a part of it was written twice");
        }
        self.append(offset, bytes)
    }

    /// Whether something between these offsets is known.
    pub fn overlaps(&self, from: u64, to: u64) -> bool {
        self.0.iter().any(|range| range.from < to && from < range.to)
    }

    /// Whether the byte at this offset is known, and up to where that is so.
    fn at(&self, at: u64) -> (bool, u64) {
        match self.0.iter().find(|range| range.from <= at && at < range.to) {
            Some(range) => (true, range.to),
            None => (false, self.0.iter().map(|range| range.from).filter(|from| *from > at).min().unwrap_or(u64::MAX)),
        }
    }

    fn append(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Doubt> {
        let to = offset.checked_add(bytes.len() as u64).ok_or(FAR)?;
        let place = self.0.iter().position(|range| range.to == offset).unwrap_or(self.0.len());
        if place == MAX_RANGES {
            return Err("it was read or written in too many places");
        }
        if place == self.0.len() {
            self.0.push(Range { from: offset, to, digest: Box::default() });
        }
        let range = &mut self.0[place];
        range.digest.update(bytes);
        range.to = to;
        Ok(())
    }
}

/// An offset that no file reaches.
const FAR: Doubt = "it was read or written beyond what a file can be";

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(known: &Known) -> Vec<(u64, u64)> {
        known.ranges().iter().map(|range| (range.from, range.to)).collect()
    }

    fn holds(known: &Known, content: &[u8]) -> bool {
        known.ranges().iter().all(|range| range.digest() == blake3::hash(&content[range.from as usize..range.to as usize]))
    }

    #[test]
    fn whatever_order_the_pieces_come_in_the_digests_are_those_of_the_content() {
        let content: Vec<u8> = (0..=255).collect();
        for pieces in [vec![(0, 100), (100, 200)], vec![(100, 200), (0, 100), (200, 256)], vec![(50, 60), (0, 50), (60, 61)]] {
            let (mut written, mut read) = (Known::default(), Known::default());
            for (from, to) in pieces {
                assert_eq!(written.written(from as u64, &content[from..to]), Ok(()));
                assert_eq!(read.read(from as u64, &content[from..to]), Ok(()));
            }
            assert!(holds(&written, &content) && holds(&read, &content));
            assert_eq!(shown(&written), shown(&read));
            let mut other = content.clone();
            other[55] ^= 1;
            assert!(!holds(&written, &other) && !holds(&read, &other));
        }
    }

    #[test]
    fn what_is_read_again_changes_nothing_and_what_is_written_again_cannot_be_proven() {
        let content: Vec<u8> = (0..100).collect();
        let mut known = Known::default();
        for (from, to) in [(10, 20), (30, 40), (0, 50), (15, 35), (0, 60)] {
            assert_eq!(known.read(from as u64, &content[from..to]), Ok(()));
        }
        assert!(holds(&known, &content));
        assert_eq!(known.end(), 60);
        let covered: u64 = shown(&known).iter().map(|(from, to)| to - from).sum();
        assert_eq!(covered, 60, "each byte once: {:?}", shown(&known));
        assert!(known.written(59, b"ab").is_err());
        assert_eq!(known.written(60, b"ab"), Ok(()));
        assert_eq!(known.written(0, b""), Ok(()));
    }

    #[test]
    fn ranges_are_bounded_and_no_offset_overflows() {
        let mut known = Known::default();
        for place in 0..MAX_RANGES as u64 {
            assert_eq!(known.written(place * 10, b"x"), Ok(()));
        }
        assert!(known.written(1000, b"x").is_err() && known.read(1000, b"x").is_err());
        assert_eq!(known.written(1, b"y"), Ok(()), "what goes on needs no place");
        assert!(Known::default().written(u64::MAX, b"xy").is_err());
        assert!(Known::default().read(u64::MAX, b"xy").is_err());
    }
}
