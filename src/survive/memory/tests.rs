//! The memory between a client and an upstream that are made by hand.

use super::*;
use crate::sftp::OpenFlags;
use crate::sftp::reply::status;

const WRITE: u32 = OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::TRUNCATE;

/// A packet: type, id and fields.
fn packet(number: u8, id: u32, fields: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    put_string(&mut out, &[&[number][..], &id.to_be_bytes(), &fields.concat()].concat());
    out
}

fn string(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_string(&mut out, bytes);
    out
}

fn number(value: u32) -> Vec<u8> {
    value.to_be_bytes().to_vec()
}

/// Attributes of a file of this size.
fn sized(size: u64) -> Vec<u8> {
    [&number(1)[..], &size.to_be_bytes()].concat()
}

fn open(path: &str, flags: u32) -> [Vec<u8>; 3] {
    [string(path.as_bytes()), number(flags), number(0)]
}

/// A memory and what it has said.
#[derive(Default)]
struct Session {
    memory: Memory,
    /// For the client.
    told: Vec<u8>,
}

impl Session {
    /// One that is greeted.
    fn start() -> Self {
        let mut session = Self::default();
        session.ask(INIT, 3, &[]);
        session.sent();
        session.memory.answer(&packet(VERSION, 3, &[&string(b"vendor@x"), &string(b"1")]), &mut session.told).unwrap();
        assert_eq!(session.told(), [packet(VERSION, 3, &[])], "what is not known here is not announced");
        session
    }

    fn ask(&mut self, number: u8, id: u32, fields: &[&[u8]]) {
        self.memory.ask(&packet(number, id, fields), &mut self.told).unwrap();
    }

    /// What goes to the upstream, as type, id and the rest.
    fn sent(&mut self) -> Vec<(u8, u32, Vec<u8>)> {
        let (mut out, mut begins) = (Vec::new(), Vec::new());
        while self.memory.has_unsent() {
            self.memory.send(&mut out, &mut begins);
        }
        cut(&out).iter().map(|p| (p[4], u32::from_be_bytes(p[5..9].try_into().unwrap()), p[9..].to_vec())).collect()
    }

    fn answer(&mut self, number: u8, id: u32, fields: &[&[u8]]) {
        self.memory.answer(&packet(number, id, fields), &mut self.told).unwrap();
    }

    fn answer_ok(&mut self, id: u32) {
        self.answer(STATUS, id, &[&number(OK)]);
    }

    /// What the client has been given since the last call.
    fn told(&mut self) -> Vec<Vec<u8>> {
        cut(&std::mem::take(&mut self.told))
    }

    /// The same, which are STATUS: id, code and text.
    fn told_status(&mut self) -> Vec<(u32, u32, String)> {
        let all = self.told();
        let text = |p: &[u8]| status(&p[4..]).map(|s| (s.code, String::from_utf8_lossy(s.message).into_owned())).unwrap();
        all.iter().map(|p| (u32::from_be_bytes(p[5..9].try_into().unwrap()), text(p).0, text(p).1)).collect()
    }

    /// Opens a file as the client's request `id`; returns the client's handle.
    fn opened(&mut self, id: u32, path: &str, flags: u32, handle: &[u8]) -> Vec<u8> {
        let [path, flags, rest] = open(path, flags);
        self.ask(3, id, &[&path, &flags, &rest]);
        let number = self.sent()[0].1;
        self.answer(HANDLE, number, &[&string(handle)]);
        let told = self.told();
        assert_eq!((told.len(), &told[0][4..9]), (1, &packet(HANDLE, id, &[])[4..9]));
        let asked = self.sent();
        assert_eq!((asked[0].0, &asked[0].2), (FSTAT, &string(handle)), "what it is now is asked");
        self.answer(ATTRS, asked[0].1, &[&sized(0)]);
        assert!(self.told().is_empty(), "the client has not asked that");
        told[0][9..].to_vec()
    }

    /// Loses the upstream and has another one on which these files have these handles.
    fn again(&mut self, handles: &[(u64, &[u8])]) -> Settled {
        for (file, handle) in handles {
            self.memory.file(*file).unwrap().opened_again(handle);
        }
        self.memory.again(&mut self.told)
    }
}

fn cut(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(length) = whole(bytes).unwrap() {
        all.push(bytes[..length].to_vec());
        bytes = &bytes[length..];
    }
    assert!(bytes.is_empty());
    all
}

#[test]
fn the_client_has_handles_of_ours_and_its_own_numbers_and_the_upstream_has_its_handles_and_our_numbers() {
    let mut session = Session::start();
    let handle = session.opened(900, "/a", WRITE, b"theirs");
    assert_eq!(handle.len(), 4 + HANDLE_BYTES);
    session.ask(6, 901, &[&handle, &0_u64.to_be_bytes(), &string(b"abc")]);
    session.ask(200, 901, &[&string(b"fsync@openssh.com"), &handle]);
    session.ask(200, 902, &[&string(b"copy-data"), &handle, &[0; 16], &handle, &[0; 8]]);
    let sent = session.sent();
    let content = [&string(b"theirs")[..], &0_u64.to_be_bytes(), &string(b"abc")].concat();
    assert_eq!((sent[0].0, &sent[0].2), (6, &content));
    assert_eq!((sent[1].0, &sent[1].2), (200, &[string(b"fsync@openssh.com"), string(b"theirs")].concat()));
    let copy = [&string(b"copy-data")[..], &string(b"theirs"), &[0; 16], &string(b"theirs"), &[0; 8]].concat();
    assert_eq!((sent[2].0, &sent[2].2), (200, &copy));
    sent.iter().for_each(|(_, id, _)| session.answer_ok(*id));
    assert_eq!(session.told_status().iter().map(|told| told.0).collect::<Vec<_>>(), [901, 901, 902]);
    assert!(session.memory.answer(&packet(STATUS, 77, &[&number(OK)]), &mut Vec::new()).is_err(), "nobody has asked");
}

#[test]
fn what_is_not_known_here_is_refused_and_never_sent() {
    let mut session = Session::start();
    let handle = session.opened(1, "/a", WRITE, b"0000");
    session.ask(99, 2, &[]);
    session.ask(200, 3, &[&string(b"vendor@x"), &handle]);
    session.ask(5, 4, &[&string(b"0000"), &[0; 12]]);
    session.ask(5, 5, &[&string(&[0; 8]), &[0; 12]]);
    session.ask(4, 6, &[&handle]);
    session.ask(5, 7, &[&handle, &[0; 12]]);
    let told: Vec<_> = session.told_status().into_iter().map(|(id, code, _)| (id, code)).collect();
    assert_eq!(told, [(2, 8), (3, 8), (4, 4), (5, 4), (7, 4)]);
    assert_eq!(session.sent().len(), 1, "CLOSE alone");
    assert!(Memory::default().ask(&packet(5, 1, &[]), &mut Vec::new()).is_err(), "no INIT");
    assert!(session.memory.ask(&packet(6, 1, &[&handle, &[0; 8], &number(4), b"abc"]), &mut Vec::new()).is_err());
}

#[test]
fn what_is_harmless_is_sent_again_with_the_new_handle_and_the_rest_is_said_not_to_be_known() {
    let mut session = Session::start();
    let handle = session.opened(1, "/a", WRITE, b"0000");
    session.ask(6, 10, &[&handle, &0_u64.to_be_bytes(), &string(b"abc")]);
    session.ask(6, 11, &[&handle, &3_u64.to_be_bytes(), &string(b"def")]);
    session.ask(18, 12, &[&string(b"/x"), &string(b"/y")]);
    session.ask(17, 13, &[&string(b"/a")]);
    let [path, flags, rest] = open("/new", WRITE);
    session.ask(3, 14, &[&path, &flags, &rest]);
    let sent = session.sent();
    session.answer_ok(sent[0].1);
    session.told();
    // The one that was not sent is sent, whatever it is.
    session.ask(13, 15, &[&string(b"/z")]);
    let settled = session.again(&[(1, b"1111")]);
    assert_eq!(settled, Settled { again: 2, unknown: 2, lost: 0 });
    let told = session.told_status();
    assert_eq!(told.iter().map(|(id, code, _)| (*id, *code)).collect::<Vec<_>>(), [(12, FAILURE), (14, FAILURE)]);
    assert!(told[0].2.contains("not known whether"));
    let again = session.sent();
    let write = [&string(b"1111")[..], &3_u64.to_be_bytes(), &string(b"def")].concat();
    assert_eq!((again[0].0, &again[0].2), (6, &write));
    assert_eq!(again.iter().map(|sent| sent.0).collect::<Vec<_>>(), [6, 17, 13]);
    // What was acknowledged is known by its digest, what was not is not.
    session.answer_ok(again[0].1);
    let known = &session.memory.file(1).unwrap().known;
    assert_eq!((known.ranges().len(), known.ranges()[0].digest()), (1, blake3::hash(b"abcdef")));
    assert_eq!(session.memory.opening, 0);
}

#[test]
fn of_a_file_that_is_lost_every_request_is_told_so_until_it_is_closed() {
    let mut session = Session::start();
    let handle = session.opened(1, "/a", WRITE, b"0000");
    session.ask(6, 10, &[&handle, &0_u64.to_be_bytes(), &string(b"abc")]);
    session.sent();
    session.ask(6, 11, &[&handle, &3_u64.to_be_bytes(), &string(b"def")]);
    session.memory.file(1).unwrap().lost = Some("lost it is".into());
    assert_eq!(session.again(&[]), Settled { lost: 2, ..Settled::default() });
    session.ask(8, 12, &[&handle]);
    session.ask(4, 13, &[&handle]);
    session.ask(4, 14, &[&handle]);
    let told = session.told_status();
    assert_eq!(told.iter().map(|told| told.0).collect::<Vec<_>>(), [10, 11, 12, 13, 14]);
    assert!(told[..4].iter().all(|told| told.1 == FAILURE && told.2 == "lost it is"), "{told:?}");
    assert!(session.sent().is_empty() && session.memory.files.is_empty());
    assert_eq!(told[4].2, "Failure");

    // CLOSE on its way.
    let handle = session.opened(20, "/a", WRITE, b"0000");
    session.ask(4, 21, &[&handle]);
    session.sent();
    session.memory.file(2).unwrap().lost = Some("lost".into());
    assert_eq!(session.again(&[]).lost, 1);
    assert_eq!(session.told_status()[0].1, FAILURE);
    assert!(session.memory.files.is_empty());
}

#[test]
fn what_the_client_does_to_a_file_that_it_has_open_makes_it_doubtful() {
    let doubt = |number: u8, fields: &[&[u8]]| {
        let mut session = Session::start();
        let handle = session.opened(1, "/d/a", WRITE, b"0000");
        let fields: Vec<&[u8]> = fields.iter().map(|field| if field.is_empty() { &handle[..] } else { field }).collect();
        session.ask(number, 2, &fields);
        let before = session.memory.file(1).unwrap().doubt;
        session.sent();
        let open = session.memory.file(1).unwrap();
        assert_eq!(before, None, "not before it is sent");
        (open.doubt.is_some(), open.attributes_set)
    };
    assert_eq!(doubt(18, &[&string(b"/d/a"), &string(b"/y")]), (true, false));
    assert_eq!(doubt(18, &[&string(b"/y"), &string(b"/d/a")]), (true, false));
    assert_eq!(doubt(18, &[&string(b"/d"), &string(b"/e")]), (true, false));
    assert_eq!(doubt(18, &[&string(b"/x"), &string(b"/y")]), (false, false));
    assert_eq!(doubt(13, &[&string(b"/d/a")]), (true, false));
    assert_eq!(doubt(9, &[&string(b"/d/a"), &sized(3)]), (true, false));
    assert_eq!(doubt(9, &[&string(b"/d/a"), &number(4), &number(0o600)]), (false, true));
    assert_eq!(doubt(10, &[&[], &sized(3)]), (true, false));
    assert_eq!(doubt(10, &[&[], &number(4), &number(0o600)]), (false, true));
    assert_eq!(doubt(8, &[&[]]), (false, false));
}

#[test]
fn answers_out_of_order_are_taken_and_changes_of_one_place_out_of_order_are_doubtful() {
    for (second, doubtful) in [(3_u64, false), (2, true)] {
        let mut session = Session::start();
        let handle = session.opened(1, "/a", WRITE, b"0000");
        session.ask(6, 10, &[&handle, &0_u64.to_be_bytes(), &string(b"abc")]);
        session.ask(6, 11, &[&handle, &second.to_be_bytes(), &string(b"def")]);
        let sent = session.sent();
        session.answer_ok(sent[1].1);
        assert_eq!(session.memory.file(1).unwrap().doubt.is_some(), doubtful, "{second}");
        session.answer_ok(sent[0].1);
        assert_eq!(session.told_status().iter().map(|told| told.0).collect::<Vec<_>>(), [11, 10]);
    }
    let mut session = Session::start();
    let handle = session.opened(1, "/a", WRITE, b"0000");
    session.ask(6, 10, &[&handle, &0_u64.to_be_bytes(), &string(b"abc")]);
    let sent = session.sent();
    session.answer(STATUS, sent[0].1, &[&number(FAILURE)]);
    assert!(session.memory.file(1).unwrap().doubt.is_some(), "a write that failed may have written something");
}

#[test]
fn a_directory_is_opened_again_before_it_is_listed_and_after_and_never_amid() {
    let mut session = Session::start();
    session.ask(11, 1, &[&string(b"/d")]);
    let sent = session.sent();
    session.answer(HANDLE, sent[0].1, &[&string(b"0000")]);
    let handle = session.told()[0][9..].to_vec();
    assert_eq!(session.memory.file(1).unwrap().hopeless(), None);
    session.ask(12, 2, &[&handle]);
    let sent = session.sent();
    session.answer(104, sent[0].1, &[&number(0)]);
    assert!(session.memory.file(1).unwrap().hopeless().is_some());
    session.ask(12, 3, &[&handle]);
    let sent = session.sent();
    session.answer(STATUS, sent[0].1, &[&number(EOF)]);
    assert_eq!(session.memory.file(1).unwrap().hopeless(), None);
    session.told();
    // A listing must not begin anew where the client thinks that it goes on.
    session.ask(12, 4, &[&handle]);
    session.again(&[(1, b"1111")]);
    session.ask(12, 5, &[&handle]);
    session.ask(4, 6, &[&handle]);
    assert_eq!(session.told_status().iter().map(|told| (told.0, told.1)).collect::<Vec<_>>(), [(4, FAILURE), (5, FAILURE)]);
    assert_eq!(session.sent().iter().map(|sent| sent.0).collect::<Vec<_>>(), [4]);
}

#[test]
fn another_version_or_other_extensions_are_not_the_same_session() {
    let mut session = Session::start();
    let other = packet(VERSION, 3, &[]);
    assert!(session.memory.greeted_again(&other, &mut Vec::new()).is_err());
    let same = packet(VERSION, 3, &[&string(b"vendor@x"), &string(b"1")]);
    let mut told = Vec::new();
    assert_eq!((session.memory.greeted_again(&same, &mut told), told.len()), (Ok(()), 0));
    // A client that has not been greeted is greeted now.
    let mut session = Session::default();
    session.ask(INIT, 3, &[]);
    session.sent();
    let mut told = Vec::new();
    assert_eq!((session.memory.greeted_again(&same, &mut told), told.len()), (Ok(()), 9));
}
