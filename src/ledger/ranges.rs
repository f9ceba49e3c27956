//! Which bytes of a file have been seen: ranges, merged as they come, and bounded.

/// Most ranges of one direction of one open file that are told apart. Clients have up to 64 requests in flight, so answers out of
/// order leave at most 64 gaps; a file with more has been written here and there.
pub const MAX_RANGES: usize = 128;

/// Byte ranges `[start, end)`, in order, neither touching nor overlapping.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges {
    list: Vec<(u64, u64)>,
    many: bool,
}

impl Ranges {
    /// Adds `length` bytes at `start`. Beyond [`MAX_RANGES`] a new range is not kept, and [`Ranges::is_many`] says so.
    pub fn add(&mut self, start: u64, length: u64) {
        let end = start.saturating_add(length);
        if end == start {
            return;
        }
        // The way of nearly every transfer: one after the other.
        if let Some(last) = self.list.last_mut().filter(|last| last.1 == start) {
            last.1 = end;
            return;
        }
        let first = self.list.partition_point(|range| range.1 < start);
        let behind = self.list.partition_point(|range| range.0 <= end);
        if first < behind {
            let merged = (self.list[first].0.min(start), self.list[behind - 1].1.max(end));
            self.list[first] = merged;
            self.list.drain(first + 1..behind);
        } else if self.list.len() < MAX_RANGES {
            self.list.insert(first, (start, end));
        } else {
            self.many = true;
        }
    }

    /// The ranges that are known, in order.
    pub fn list(&self) -> &[(u64, u64)] {
        &self.list
    }

    /// Whether there were more ranges than are kept.
    pub fn is_many(&self) -> bool {
        self.many
    }

    /// The end of the one range from the file's beginning: 0 if there is none at all, `None` if there are gaps.
    pub fn whole_to(&self) -> Option<u64> {
        match self.list[..] {
            _ if self.many => None,
            [] => Some(0),
            [(0, end)] => Some(end),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(parts: &[(u64, u64)]) -> Ranges {
        let mut ranges = Ranges::default();
        parts.iter().for_each(|&(start, length)| ranges.add(start, length));
        ranges
    }

    #[test]
    fn ranges_that_touch_or_overlap_become_one() {
        for (parts, expected) in [
            (vec![(0, 10), (10, 5)], vec![(0, 15)]),
            (vec![(10, 5), (0, 10)], vec![(0, 15)]),
            (vec![(0, 5), (10, 5)], vec![(0, 5), (10, 15)]),
            (vec![(0, 5), (10, 5), (5, 5)], vec![(0, 15)]),
            (vec![(0, 5), (10, 5), (20, 5), (3, 20)], vec![(0, 25)]),
            (vec![(10, 5), (20, 5), (0, 3)], vec![(0, 3), (10, 15), (20, 25)]),
            (vec![(0, 10), (2, 3)], vec![(0, 10)]),
            (vec![(0, 10), (2, 13), (20, 1), (15, 5)], vec![(0, 21)]),
            (vec![(5, 0)], vec![]),
            (vec![(u64::MAX - 1, 9)], vec![(u64::MAX - 1, u64::MAX)]),
        ] {
            assert_eq!(ranges(&parts).list(), expected, "{parts:?}");
        }
        assert_eq!(
            (ranges(&[(0, 7)]).whole_to(), ranges(&[]).whole_to(), ranges(&[(1, 7)]).whole_to()),
            (Some(7), Some(0), None)
        );
    }

    #[test]
    fn any_order_of_pieces_gives_the_same_as_bits_in_a_row() {
        let mut seed = 1_u64;
        for _ in 0..2_000 {
            let (mut bits, mut ranges) = ([false; 64], Ranges::default());
            for _ in 0..12 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let (start, length) = ((seed >> 33) % 60, (seed >> 40) % 5);
                ranges.add(start, length);
                (start..(start + length).min(64)).for_each(|at| bits[at as usize] = true);
            }
            let listed: Vec<_> = (0..64).map(|at| ranges.list().iter().any(|&(start, end)| (start..end).contains(&at))).collect();
            assert_eq!(listed, bits);
            assert!(ranges.list().windows(2).all(|pair| pair[0].1 < pair[1].0));
        }
    }

    #[test]
    fn beyond_the_bound_there_are_many_and_memory_stays() {
        let parts: Vec<_> = (0..10_000).map(|part| (part * 3, 1)).collect();
        let ranges = ranges(&parts);
        assert_eq!((ranges.list().len(), ranges.is_many(), ranges.whole_to()), (MAX_RANGES, true, None));
    }
}
