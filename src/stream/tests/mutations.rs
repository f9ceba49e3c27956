//! A million streams that were good once. No bytes of either peer make it panic, lose its place or keep more than it may.

use super::*;
use crate::sftp::frame::LENGTH_FIELD;

/// Marsaglia's xorshift: mutations that are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len());
        match self.below(5) {
            0 => bytes[at] = self.below(256) as u8,
            1 => bytes[at] ^= 1 << self.below(8),
            2 => bytes.truncate(at.max(1)),
            3 => bytes.insert(at, self.below(256) as u8),
            _ => bytes[at] = 255,
        }
    }
}

const POLICIES: [&[(&str, &str)]; 4] = [
    &[],
    &[("read_only", "yes")],
    &[("root", "/srv"), ("deny", "x*")],
    &[("rules", "/=list,create,link; /p=all"), ("max_file_size", "60"), ("extensions", "limits,copy-data")],
];

#[test]
fn a_million_mutations_of_both_streams_neither_panic_nor_grow() {
    let talk = talk();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut runs, mut good, mut bad) = (0, 0, 0);
    while runs < 1_000_000 {
        let mut session = Session::begun(Some("/home"), &[]);
        let fields = POLICIES[random.below(POLICIES.len())];
        if !fields.is_empty() {
            session = Session::begun(Some("/home"), fields);
        }
        // A session goes on until a peer's bytes end it.
        for _ in 0..400 {
            runs += 1;
            let (request, reply) = &talk[1 + random.below(talk.len() - 1)];
            let (mut request, mut reply) = (request.clone(), reply.clone());
            match random.below(6) {
                0 => random.mutate(&mut request),
                1 => random.mutate(&mut reply),
                _ => {}
            }
            let (left, right) = request.split_at(random.below(request.len()));
            let up = session.up(left).and_then(|_| session.up(right));
            // Only what the upstream was asked does it answer, most of the time.
            let asked = reply.len() < 9
                || random.below(50) == 0
                || session.ledger.asked(u32::from_be_bytes([reply[5], reply[6], reply[7], reply[8]])).is_some();
            let down = if asked { session.down(&reply).map(drop) } else { Ok(()) };
            let (pending, open) = session.ledger.counts();
            assert!(pending <= 400 && open <= 400 && session.answers.len() <= 800);
            assert!(session.requests.held().max(session.replies.held()) < LENGTH_FIELD + MAX_PACKET);
            session.answers.clear();
            session.events.clear();
            match (up, down) {
                (Ok(_), Ok(())) => good += 1,
                _ => {
                    bad += 1;
                    break;
                }
            }
        }
        session.end();
        assert_eq!(session.ledger.counts(), (0, 0));
    }
    assert!(good > 100_000 && bad > 1_000, "{good} good, {bad} bad");
}

#[test]
fn content_of_both_streams_is_neither_copied_nor_held_back() {
    let mut session = Session::begun(None, &[("rules", "/=all")]);
    session.exchange(open(1, "/f", 3), reply(HANDLE, 1, &[b"h"], b""));
    let mut buffer = write(2, "h", 0, &[7; 100_000]);
    buffer.truncate(60_000);
    let (address, capacity, before) = (buffer.as_ptr(), buffer.capacity(), buffer.clone());
    let books = Books { ledger: &mut session.ledger, now: session.now };
    session.requests.pass(&mut buffer, Some(books), &mut |_| panic!("told")).unwrap();
    assert_eq!((buffer.as_ptr(), buffer.capacity(), buffer == before), (address, capacity, true));
    session.up(&vec![7; 100_026 - 60_000]).unwrap();
    assert!(session.requests.at_boundary());

    session.up(&read(3, "h", 0, 100_000)).unwrap();
    let mut buffer = reply(DATA, 3, &[&[7; 100_000]], b"");
    buffer.truncate(60_000);
    let (address, before) = (buffer.as_ptr(), buffer.clone());
    let books = Books { ledger: &mut session.ledger, now: session.now };
    session.replies.pass(&mut buffer, books, &mut |_| panic!("told")).unwrap();
    assert_eq!((buffer.as_ptr(), buffer == before, session.replies.at_boundary()), (address, true, false));
}
