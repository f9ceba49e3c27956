//! What is owed in a session, as both its threads ask.

use super::*;
use crate::identity::UserName;
use crate::metrics::Metrics;
use crate::relay::Control;
use crate::route::{Defaults, Record};
use crate::sftp::INIT;
use crate::sftp::reply::{DATA, HANDLE, VERSION};
use crate::wire::{put_string, put_u32};

const OPEN: u8 = 3;
const READ: u8 = 5;

/// A packet: its type and, where it has one, its id, its string, and what is behind.
fn packet(kind: u8, id: Option<u32>, string: &[u8], rest: &[u8]) -> Vec<u8> {
    let mut body = vec![kind];
    if let Some(id) = id {
        put_u32(&mut body, id);
        put_string(&mut body, string);
    }
    body.extend_from_slice(rest);
    let mut out = Vec::new();
    put_string(&mut out, &body);
    out
}

fn teller() -> Teller {
    let subject = Subject {
        session: 1,
        user: "alice".into(),
        client: "127.0.0.1:9".parse().unwrap(),
        key: String::new(),
        software: String::new(),
        upstream: None,
    };
    Teller::new(Audit::default(), subject, Seen::new(&Metrics::new(std::time::Duration::ZERO, false, 0)))
}

#[test]
fn an_answer_that_has_come_in_part_is_owed_until_its_last_byte() {
    let (live, teller) = (Live::new(1, "127.0.0.1:9".parse().unwrap(), Control::new().unwrap()), teller());
    let route = Route::parse(&UserName::new("alice").unwrap(), &Record::new(), &Defaults::default()).unwrap();
    let watched = Watched::new(&live, Some(&route), &teller);
    let (mut requests, mut replies) = (watched.requests(), watched.replies(None));
    let mut asks = |packet: Vec<u8>| requests.pass(&mut packet.clone()).unwrap();
    let mut answers = |bytes: &[u8]| {
        replies.pass(&mut bytes.to_vec()).unwrap();
        (watched.owes(), replies.owes())
    };
    let (owed, nothing) = ((Some(true), Some(true)), (Some(false), Some(false)));
    asks(packet(INIT, None, b"", &3u32.to_be_bytes()));
    assert_eq!(answers(&packet(VERSION, None, b"", &3u32.to_be_bytes())), nothing);
    asks(packet(OPEN, Some(1), b"/f", &[0, 0, 0, 1, 0, 0, 0, 0]));
    assert_eq!(watched.owes(), Some(true));
    assert_eq!(answers(&packet(HANDLE, Some(1), b"h", b"")), nothing);
    let data = packet(DATA, Some(2), &[7; 1000], b"");
    // Within the length, within the head, right behind it, within the content, before the last byte.
    for cut in [2, 7, 13, 600, data.len() - 1] {
        asks(packet(READ, Some(2), b"h", &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 232]));
        assert_eq!(watched.owes(), Some(true));
        assert_eq!(answers(&data[..cut]), owed, "{cut} bytes have come");
        assert_eq!(answers(&data[cut..]), nothing, "{cut} bytes had come");
    }
}
