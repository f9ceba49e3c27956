//! Requests that the upstream has not answered, in their order, with their bytes: what can be sent again when it is lost.
//!
//! Pure. Towards the upstream each has a number of its own, so that questions of ours cannot have the number of one of the client's, and
//! so that the client's numbers need not differ.

use std::collections::VecDeque;

use crate::sftp::Kind;
use crate::sftp::frame::LENGTH_FIELD;
use crate::sftp::request::Request;

/// Most bytes of requests: four times what an sshd lets a client be ahead.
pub const MAX_BYTES: usize = 8 * 1024 * 1024;

/// Most requests, those included that are answered behind one that is not.
pub const MAX_REQUESTS: usize = 16 * 1024;

/// What a request takes besides its bytes, about.
const BASE: usize = 128;

/// A request.
#[derive(Debug)]
pub struct Entry {
    /// Its row in the table.
    pub kind: &'static Kind,
    /// The client's number for it; `None` = it is a question of ours.
    pub asked: Option<u32>,
    /// The file of its handle, and for copy-data the one that is read from.
    pub files: [Option<u64>; 2],
    /// As it came, its length field included.
    pub packet: Vec<u8>,
    /// The upstream may have it.
    pub sent: bool,
}

/// The requests.
#[derive(Debug, Default)]
pub struct Journal {
    /// `None` = answered.
    entries: VecDeque<Option<Entry>>,
    /// The number of the first of them.
    first: u32,
    /// The place of the first that is to be sent.
    next: usize,
    bytes: usize,
}

impl Journal {
    /// Whether there is no room for another one.
    pub fn is_full(&self) -> bool {
        self.bytes >= MAX_BYTES || self.entries.len() >= MAX_REQUESTS
    }

    /// Requests that are not answered.
    pub fn unanswered(&self) -> usize {
        self.entries.iter().flatten().count()
    }

    /// Takes a request behind all others.
    pub fn push(&mut self, entry: Entry) {
        self.bytes += BASE + entry.packet.len();
        self.entries.push_back(Some(entry));
    }

    /// The next one to be sent, with its number; it is taken as sent.
    pub fn send(&mut self) -> Option<(u32, &Entry)> {
        // Answered can only be what was sent, or given up.
        while self.entries.get(self.next).is_some_and(Option::is_none) {
            self.next += 1;
        }
        let number = self.first.wrapping_add(self.next as u32);
        let entry = self.entries.get_mut(self.next)?.as_mut()?;
        self.next += 1;
        entry.sent = true;
        Some((number, entry))
    }

    /// Whether one is to be sent.
    pub fn has_unsent(&self) -> bool {
        self.entries.iter().skip(self.next).any(Option::is_some)
    }

    /// Takes the request with this number out, which is answered, with those before it that are not, as far as they were sent.
    pub fn answer(&mut self, number: u32) -> Option<(Entry, impl Iterator<Item = &Entry>)> {
        let place = number.wrapping_sub(self.first) as usize;
        let entry = self.entries.get_mut(place).filter(|entry| entry.as_ref().is_some_and(|entry| entry.sent))?.take()?;
        self.bytes -= BASE + entry.packet.len();
        let dropped = self.drop_answered();
        Some((entry, self.entries.iter().take(place.saturating_sub(dropped)).flatten().filter(|entry| entry.sent)))
    }

    /// Notes that the upstream cannot have the request with this number after all.
    pub fn unsend(&mut self, number: u32) {
        if let Some(Some(entry)) = self.entries.get_mut(number.wrapping_sub(self.first) as usize) {
            entry.sent = false;
        }
    }

    /// Begins anew with another upstream: every request that `keep` keeps is to be sent again. It is told whether a later one was answered.
    pub fn again(&mut self, mut keep: impl FnMut(&Entry, bool) -> bool) {
        let last = self.entries.iter().rposition(Option::is_none);
        for (place, slot) in self.entries.iter_mut().enumerate() {
            let Some(entry) = slot else { continue };
            if keep(entry, last.is_some_and(|last| last > place)) {
                entry.sent = false;
            } else {
                self.bytes -= BASE + entry.packet.len();
                *slot = None;
            }
        }
        self.next = 0;
        self.drop_answered();
    }

    /// Forgets what is answered, up to the first that is not; returns how many that were.
    fn drop_answered(&mut self) -> usize {
        let mut dropped = 0;
        while let Some(None) = self.entries.front() {
            self.entries.pop_front();
            dropped += 1;
        }
        self.first = self.first.wrapping_add(dropped as u32);
        self.next = self.next.saturating_sub(dropped);
        dropped
    }
}

/// The request of an entry, which was read well before.
pub fn read_again(entry: &Entry) -> Request<'_> {
    Request::read(entry.kind, &entry.packet[LENGTH_FIELD..]).expect("read before it was entered")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sftp::KINDS;

    fn entry(asked: u32) -> Entry {
        Entry { kind: &KINDS[0], asked: Some(asked), files: [None; 2], packet: vec![0; 100], sent: false }
    }

    fn sent(journal: &mut Journal) -> Vec<(u32, u32)> {
        let mut all = Vec::new();
        while let Some((number, entry)) = journal.send() {
            all.push((number, entry.asked.unwrap()));
        }
        all
    }

    #[test]
    fn numbers_are_the_journals_own_and_answers_may_come_in_any_order() {
        let mut journal = Journal { first: u32::MAX - 1, ..Journal::default() };
        // The client's numbers need not differ.
        [7, 7, 8, 9].into_iter().for_each(|asked| journal.push(entry(asked)));
        assert!(journal.answer(u32::MAX - 1).is_none(), "not sent");
        assert_eq!(sent(&mut journal), [(u32::MAX - 1, 7), (u32::MAX, 7), (0, 8), (1, 9)]);
        let (answered, before) = journal.answer(0).unwrap();
        assert_eq!((answered.asked, before.count()), (Some(8), 2));
        assert!(journal.answer(0).is_none(), "answered twice");
        assert_eq!(journal.answer(u32::MAX - 1).unwrap().1.count(), 0);
        assert_eq!(journal.answer(u32::MAX).unwrap().1.count(), 0);
        journal.push(entry(10));
        assert_eq!(sent(&mut journal), [(2, 10)]);
        assert_eq!(journal.answer(2).unwrap().1.count(), 1);
        assert_eq!(journal.answer(1).unwrap().0.asked, Some(9));
        assert_eq!((journal.unanswered(), journal.bytes, journal.entries.len()), (0, 0, 0));
        assert!(journal.answer(77).is_none());
    }

    #[test]
    fn what_is_not_answered_is_sent_again_in_its_order_and_knows_whether_it_was_overtaken() {
        let mut journal = Journal::default();
        (0..5).for_each(|asked| journal.push(entry(asked)));
        for _ in 0..4 {
            journal.send();
        }
        assert_eq!(journal.answer(2).unwrap().1.count(), 2);
        journal.unsend(3);
        let mut seen = Vec::new();
        journal.again(|entry, overtaken| {
            seen.push((entry.asked.unwrap(), entry.sent, overtaken));
            entry.asked != Some(0)
        });
        assert_eq!(seen, [(0, true, true), (1, true, true), (3, false, false), (4, false, false)]);
        assert!(journal.has_unsent());
        assert_eq!(sent(&mut journal), [(1, 1), (3, 3), (4, 4)]);
        assert!(!journal.has_unsent());
        assert_eq!(journal.answer(1).unwrap().1.count(), 0);
        assert_eq!(journal.answer(4).unwrap().1.count(), 1);
    }

    #[test]
    fn it_is_full_at_its_bytes_and_at_its_number_and_has_room_again() {
        let mut journal = Journal::default();
        while !journal.is_full() {
            journal.push(entry(0));
        }
        assert_eq!(journal.entries.len(), MAX_REQUESTS);
        journal.send();
        assert!(journal.answer(0).is_some() && !journal.is_full());
        let mut journal = Journal::default();
        while !journal.is_full() {
            journal.push(Entry { packet: vec![0; 1024 * 1024], ..entry(0) });
        }
        assert_eq!(journal.entries.len(), 8);
    }
}
