//! The two streams together, as the relay will have them: what the client sends, what the upstream is sent, what it answers, what the
//! client gets, and what is told.

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use super::replies::{Replies, ReplyError};
use super::requests::{Books, RequestError, Requests};
use super::*;
use crate::ledger::{Event, Finished, Ledger, MAX_OPEN, Outcome, Transfer};
use crate::policy::Policy;
use crate::sftp::frame::MAX_PACKET;
use crate::sftp::reply::{
    ATTRS, DATA, EOF, EXTENDED_REPLY, FAILURE, HANDLE, NAME, OK, PERMISSION_DENIED, STATUS, VERSION, status,
};
use crate::sftp::{EXTENDED, INIT, KINDS, Kind, Then};
use crate::wire::{put_string, put_u32};

mod content;
mod mutations;
mod root;

fn row(name: &str) -> &'static Kind {
    KINDS.iter().find(|kind| kind.short() == name).unwrap()
}

fn framed(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_string(&mut out, body);
    out
}

/// A request: its strings, then `rest`.
fn request(name: &str, id: u32, strings: &[&[u8]], rest: &[u8]) -> Vec<u8> {
    let kind = row(name);
    let mut body = vec![kind.number];
    put_u32(&mut body, id);
    if kind.number == EXTENDED {
        put_string(&mut body, kind.name.as_bytes());
    }
    strings.iter().for_each(|string| put_string(&mut body, string));
    body.extend_from_slice(rest);
    framed(&body)
}

fn init() -> Vec<u8> {
    framed(&[INIT, 0, 0, 0, 3])
}

/// OPEN with flags and no attributes.
fn open(id: u32, path: &str, flags: u32) -> Vec<u8> {
    request("open", id, &[path.as_bytes()], &[flags.to_be_bytes(), [0; 4]].concat())
}

fn write(id: u32, handle: &str, offset: u64, content: &[u8]) -> Vec<u8> {
    let mut rest = offset.to_be_bytes().to_vec();
    put_string(&mut rest, content);
    request("write", id, &[handle.as_bytes()], &rest)
}

fn read(id: u32, handle: &str, offset: u64, length: u32) -> Vec<u8> {
    request("read", id, &[handle.as_bytes()], &[&offset.to_be_bytes()[..], &length.to_be_bytes()].concat())
}

fn close(id: u32, handle: &str) -> Vec<u8> {
    request("close", id, &[handle.as_bytes()], b"")
}

/// A reply: its strings, then `rest`.
fn reply(kind: u8, id: u32, strings: &[&[u8]], rest: &[u8]) -> Vec<u8> {
    let mut body = vec![kind];
    put_u32(&mut body, id);
    strings.iter().for_each(|string| put_string(&mut body, string));
    body.extend_from_slice(rest);
    framed(&body)
}

fn stated(id: u32, code: u32) -> Vec<u8> {
    let mut body = vec![STATUS];
    put_u32(&mut body, id);
    put_u32(&mut body, code);
    put_string(&mut body, format!("said {code}").as_bytes());
    put_string(&mut body, b"");
    framed(&body)
}

fn version(extensions: &[&str]) -> Vec<u8> {
    let mut body = vec![VERSION, 0, 0, 0, 3];
    for name in extensions {
        put_string(&mut body, name.as_bytes());
        put_string(&mut body, b"1");
    }
    framed(&body)
}

/// NAME with one name and no attributes.
fn name(id: u32, name: &str) -> Vec<u8> {
    reply(NAME, id, &[], &[&1_u32.to_be_bytes()[..], &framed(name.as_bytes()), &framed(name.as_bytes()), &[0; 4]].concat())
}

/// All sessions here live at one moment, so that what they tell can be compared.
static NOW: LazyLock<Instant> = LazyLock::new(Instant::now);

/// A session in memory.
struct Session {
    requests: Requests,
    replies: Replies,
    ledger: Ledger,
    now: Instant,
    answers: Vec<Vec<u8>>,
    events: Vec<Event>,
}

impl Session {
    fn new(home: Option<&str>, fields: &[(&str, &str)]) -> Self {
        let find = |name: &str| fields.iter().find(|(field, _)| *field == name).map(|(_, text)| *text);
        let policy = Policy::parse(find).unwrap().map(Arc::new);
        let requests = policy.clone().map_or_else(|| Requests::new(home), |policy| Requests::judged(home, policy));
        let replies = Replies::new(policy);
        Self { requests, replies, ledger: Ledger::default(), now: *NOW, answers: Vec::new(), events: Vec::new() }
    }

    /// The same after INIT and VERSION.
    fn begun(home: Option<&str>, fields: &[(&str, &str)]) -> Self {
        let mut session = Self::new(home, fields);
        assert_eq!(session.up(&init()), Ok(init()));
        assert_eq!(session.down(&version(&[])), Ok(version(&[])));
        session
    }

    /// What the upstream gets of what the client sends.
    fn up(&mut self, bytes: &[u8]) -> Result<Vec<u8>, RequestError> {
        let mut buffer = bytes.to_vec();
        let books = Books { ledger: &mut self.ledger, now: self.now };
        let result = self.requests.pass(&mut buffer, Some(books), &mut |heard| match heard {
            Heard::Asked(_) | Heard::Content(_) => {}
            Heard::Answer(packet) => self.answers.push(packet),
            Heard::Event(event) => self.events.push(event),
        });
        result.map(|()| buffer)
    }

    /// What the client gets of what the upstream sends.
    fn down(&mut self, bytes: &[u8]) -> Result<Vec<u8>, ReplyError> {
        let mut buffer = bytes.to_vec();
        let books = Books { ledger: &mut self.ledger, now: self.now };
        let result = self.replies.pass(&mut buffer, books, &mut |heard| match heard {
            Heard::Event(event) => self.events.push(event),
            other => panic!("{other:?}"),
        });
        result.map(|()| buffer)
    }

    /// Both, where nothing is changed on the way.
    fn exchange(&mut self, request: Vec<u8>, reply: Vec<u8>) {
        assert_eq!(self.up(&request), Ok(request));
        assert_eq!(self.down(&reply), Ok(reply));
    }

    /// Code and text of the router's own answer to a request that must not reach the upstream.
    fn refused(&mut self, request: &[u8]) -> (u32, String) {
        assert_eq!(self.up(request), Ok(Vec::new()), "the upstream sees it");
        let packet = self.answers.pop().expect("it has an answer");
        let read = status(&packet[4..]).unwrap();
        (read.code, String::from_utf8(read.message.to_vec()).unwrap())
    }

    fn end(&mut self) {
        self.ledger.end(self.now, &mut |event| self.events.push(event));
    }

    fn transfers(&self) -> Vec<&Transfer> {
        self.events
            .iter()
            .filter_map(|event| if let Event::Transfer(transfer) = event { Some(&**transfer) } else { None })
            .collect()
    }

    fn finished(&self) -> Vec<&Finished> {
        self.events.iter().filter_map(|event| if let Event::Finished(one) = event { Some(&**one) } else { None }).collect()
    }
}

/// An upload of three WRITEs, a download, a directory, and one request of every other kind: each with its reply.
fn talk() -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut talk = vec![
        (init(), version(&["posix-rename@openssh.com", "x@y"])),
        (open(1, "/up", 0x1a), reply(HANDLE, 1, &[b"h1"], b"")),
        (write(2, "h1", 0, &[1; 40]), stated(2, OK)),
        (write(3, "h1", 40, &[2; 30]), stated(3, OK)),
        (write(4, "h1", 70, b""), stated(4, OK)),
        (close(5, "h1"), stated(5, OK)),
        (open(6, "/down", 1), reply(HANDLE, 6, &[b"h2"], b"")),
        (read(7, "h2", 0, 50), reply(DATA, 7, &[&[3; 50]], b"")),
        (read(8, "h2", 50, 50), reply(DATA, 8, &[&[3; 7]], b"")),
        (read(9, "h2", 57, 50), stated(9, EOF)),
        (close(10, "h2"), stated(10, OK)),
        (request("opendir", 11, &[b"/dir"], b""), reply(HANDLE, 11, &[b"h3"], b"")),
        (request("readdir", 12, &[b"h3"], b""), name(12, "entry")),
        (request("readdir", 13, &[b"h3"], b""), stated(13, EOF)),
        (close(14, "h3"), stated(14, OK)),
    ];
    let others =
        KINDS.iter().filter(|kind| !matches!(kind.short(), "init" | "open" | "write" | "read" | "close" | "opendir" | "readdir"));
    for (id, kind) in (20..).zip(others) {
        let strings: Vec<&[u8]> = if kind.then.is_handle() { vec![b"hx"] } else { vec![b"/p"; kind.paths.len().max(1)] };
        let strings = if kind.short() == "limits" { vec![] } else { strings };
        let rest: &[u8] = match kind.then {
            Then::Copy => &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 2, b'h', b'y', 0, 0, 0, 0, 0, 0, 0, 0],
            _ => &[0; 4],
        };
        let answer = match kind.short() {
            "stat" | "lstat" | "fstat" => reply(ATTRS, id, &[], &[0; 4]),
            "realpath" | "readlink" | "expand-path" => name(id, "/p"),
            "limits" | "statvfs" => reply(EXTENDED_REPLY, id, &[], &[7; 32]),
            _ => stated(id, FAILURE),
        };
        talk.push((request(kind.short(), id, &strings, rest), answer));
    }
    talk
}

/// Both streams in pieces; what came out, and what was told.
fn split(fields: &[(&str, &str)], at: usize, chunk: usize) -> (Vec<u8>, Vec<u8>, Vec<Event>) {
    let (ups, downs): (Vec<_>, Vec<_>) = talk().into_iter().unzip();
    let mut session = Session::new(None, fields);
    let (mut up, mut down) = (Vec::new(), Vec::new());
    let pieces = |bytes: &[u8]| -> Vec<Vec<u8>> {
        let (left, right) = bytes.split_at(at.min(bytes.len()));
        left.chunks(chunk).chain(right.chunks(chunk)).map(<[u8]>::to_vec).collect()
    };
    // Handles must be known when they are used: each request is answered before the next one is asked.
    for (request, reply) in ups.iter().zip(&downs) {
        let refused = session.answers.len();
        for piece in pieces(request) {
            up.extend(session.up(&piece).unwrap());
        }
        if session.answers.len() > refused {
            continue;
        }
        for piece in pieces(reply) {
            let before = down.len();
            down.extend(session.down(&piece).unwrap());
            // Answers of the router go in only between two packets, and what has passed tells where that is.
            let whole = session.replies.at_boundary();
            assert!(!whole || down.len() == before || ends_at_boundary(&down), "in the midst of a packet");
        }
        assert!(session.replies.at_boundary() && session.requests.at_boundary());
    }
    session.end();
    (up, down, session.events)
}

fn ends_at_boundary(mut stream: &[u8]) -> bool {
    while let Some((length, rest)) = stream.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        if rest.len() < length {
            return false;
        }
        stream = &rest[length..];
    }
    stream.is_empty()
}

#[test]
fn without_a_policy_both_streams_pass_byte_for_byte_wherever_they_are_split() {
    let (requests, replies): (Vec<_>, Vec<_>) = talk().into_iter().unzip();
    let longest = requests.iter().chain(&replies).map(Vec::len).max().unwrap();
    let whole = split(&[], usize::MAX, usize::MAX);
    assert_eq!((&whole.0, &whole.1), (&requests.concat(), &replies.concat()));
    for at in 0..longest {
        assert_eq!(split(&[], at, usize::MAX), whole, "at {at}");
    }
    assert_eq!(split(&[], 0, 1), whole);
    // An upload, a download and one end for each operation but READ, WRITE, READDIR, CLOSE and limits; INIT has none.
    let transfers = whole.2.iter().filter(|event| matches!(event, Event::Transfer(_))).count();
    assert_eq!((transfers, whole.2.len()), (2, 2 + 3 + talk().len() - 16));
}

#[test]
fn a_policy_that_allows_everything_changes_no_byte_but_the_announcement() {
    let all = [("rules", "/=all")];
    let whole = split(&all, usize::MAX, usize::MAX);
    let (_, plain, _) = split(&[], usize::MAX, usize::MAX);
    let announced = version(&["posix-rename@openssh.com"]);
    assert_eq!(whole.1[..announced.len()], announced);
    assert!(whole.1[announced.len()..].len() < plain.len(), "requests with unknown handles are refused");
    for at in 0..60 {
        assert_eq!(split(&all, at, usize::MAX).0, whole.0, "at {at}");
    }
}

#[test]
fn an_upload_is_complete_only_when_close_and_every_write_were_answered_with_ok() {
    let talk = talk();
    let run = |replies: &dyn Fn(u32) -> Option<Vec<u8>>| {
        let mut session = Session::new(None, &[]);
        for (id, (request, reply)) in (0..).zip(&talk[..6]) {
            session.up(request).unwrap();
            match id {
                0 | 1 => drop(session.down(reply).unwrap()),
                id => drop(replies(id).map(|reply| session.down(&reply).unwrap())),
            }
        }
        session.end();
        let transfer = session.transfers()[0].clone();
        assert_eq!((session.transfers().len(), session.ledger.counts()), (1, (0, 0)));
        transfer
    };
    let fine = run(&|id| Some(stated(id, OK)));
    assert_eq!((fine.upload(), fine.download(), fine.closed), (Some(Outcome::Complete), None, Some(OK)));
    assert_eq!((fine.written.bytes, fine.written.ranges.list(), &*fine.path), (70, &[(0, 70)][..], &b"/up"[..]));

    let failed = run(&|id| Some(stated(id, if id == 3 { FAILURE } else { OK })));
    assert_eq!((failed.upload(), failed.written.ranges.list()), (Some(Outcome::Partial), &[(0, 40)][..]));
    let failure = failed.failure.unwrap();
    assert_eq!((failure.operation, failure.code, &*failure.message), ("write", FAILURE, &b"said 4"[..]));
    for missing in 2..=5 {
        let transfer = run(&|id| (id != missing).then(|| stated(id, OK)));
        assert_eq!(transfer.upload(), Some(Outcome::Partial), "{missing} was never answered");
    }
    assert_eq!(run(&|id| Some(stated(id, if id == 5 { FAILURE } else { OK }))).upload(), Some(Outcome::Partial));
    assert_eq!(run(&|id| Some(stated(id, if id == 4 { EOF } else { OK }))).upload(), Some(Outcome::Partial));
    assert_eq!(
        run(&|id| Some(if id == 2 { reply(DATA, 2, &[b"x"], b"") } else { stated(id, OK) })).upload(),
        Some(Outcome::Partial)
    );
    // CLOSE may be answered before the WRITEs; until those are, nothing is said.
    let mut session = Session::new(None, &[]);
    for (request, reply) in &talk[..2] {
        session.exchange(request.clone(), reply.clone());
    }
    talk[2..6].iter().for_each(|(request, _)| drop(session.up(request).unwrap()));
    for id in [5, 4, 2] {
        session.down(&talk[id].1).unwrap();
    }
    assert_eq!(session.transfers().len(), 0);
    session.down(&talk[3].1).unwrap();
    assert_eq!(session.transfers()[0].upload(), Some(Outcome::Complete));
}

#[test]
fn a_download_is_complete_only_when_every_byte_to_the_end_was_delivered() {
    let data = |id, count| reply(DATA, id, &[&vec![0; count]], b"");
    let run = |reads: Vec<(u64, Vec<u8>)>, sized: Option<u64>| {
        let mut session = Session::begun(None, &[]);
        if let Some(size) = sized {
            session.exchange(
                request("stat", 1, &[b"/f"], b""),
                reply(ATTRS, 1, &[], &[&[0, 0, 0, 1], &size.to_be_bytes()[..]].concat()),
            );
        }
        session.exchange(open(2, "/f", 1), reply(HANDLE, 2, &[b"h"], b""));
        for (offset, reply) in reads {
            session.exchange(read(3, "h", offset, 100), reply);
        }
        session.exchange(close(4, "h"), stated(4, OK));
        session.transfers()[0].download()
    };
    let (complete, partial) = (Some(Outcome::Complete), Some(Outcome::Partial));
    assert_eq!(run(vec![(0, data(3, 100)), (100, data(3, 20)), (120, stated(3, EOF))], None), complete);
    assert_eq!(run(vec![(100, data(3, 20)), (120, stated(3, EOF)), (0, data(3, 100))], None), complete);
    assert_eq!(run(vec![(0, stated(3, EOF))], None), complete, "an empty file");
    assert_eq!(run(vec![(0, data(3, 100)), (100, data(3, 20))], Some(120)), complete);
    assert_eq!(run(vec![(0, data(3, 100)), (100, data(3, 20))], None), partial, "the end is not known");
    assert_eq!(run(vec![(0, data(3, 100)), (100, data(3, 20))], Some(121)), partial);
    assert_eq!(run(vec![(0, data(3, 100)), (200, stated(3, EOF))], None), partial, "nobody knows what is between");
    assert_eq!(run(vec![(0, data(3, 10)), (20, data(3, 10)), (30, stated(3, EOF))], None), partial, "a gap");
    assert_eq!(run(vec![(0, data(3, 10)), (10, stated(3, FAILURE)), (10, stated(3, EOF))], None), partial, "a read failed");
    assert_eq!(run(vec![], Some(9)), None);
}

#[test]
fn a_reply_that_nobody_asked_for_and_an_id_that_is_in_flight_end_the_session() {
    let mut session = Session::begun(None, &[]);
    assert_eq!(session.down(&stated(7, OK)), Err(ReplyError::Unasked(7)));
    let mut session = Session::begun(None, &[]);
    session.up(&close(7, "h")).unwrap();
    assert_eq!(session.up(&close(7, "h")), Err(RequestError::Twice(7)));
    assert_eq!(session.down(&stated(7, OK)), Ok(stated(7, OK)));
    assert_eq!(session.down(&stated(7, OK)), Err(ReplyError::Unasked(7)));
    // What no server may ever answer does not block its id.
    let mut session = Session::begun(None, &[]);
    let unknown = framed(b"\x63\0\0\0\x07whatever");
    assert_eq!(session.up(&unknown), Ok(unknown.clone()));
    session.exchange(close(7, "h"), stated(7, OK));
    for (bad, error) in [
        (vec![0; 4], ReplyError::Empty),
        (framed(&[VERSION, 0, 0, 0, 3]), ReplyError::Type(VERSION)),
        (framed(b"\x63\0\0\0\x01"), ReplyError::Type(0x63)),
        (framed(&[DATA, 0, 0, 0]), ReplyError::Fields(DATA, crate::wire::WireError::Missing("id"))),
        (
            (MAX_PACKET as u32 + 1).to_be_bytes().into_iter().chain([STATUS]).collect(),
            ReplyError::TooLong(STATUS, MAX_PACKET + 1),
        ),
    ] {
        assert_eq!(Session::begun(None, &[]).down(&bad), Err(error));
    }
    assert_eq!(Session::new(None, &[]).down(&stated(7, OK)), Err(ReplyError::NotVersion(STATUS)));
    let mut session = Session::new(None, &[]);
    assert_eq!(session.up(&framed(&[INIT, 0, 0, 0, 6])), Ok(init()), "later versions have other fields in the same packets");
    assert_eq!(session.down(&framed(&[VERSION, 0, 0, 0, 4])), Err(ReplyError::Version(4)));
    assert_eq!(Session::begun(None, &[]).up(&init()), Err(RequestError::Again));
}

#[test]
fn a_refused_write_is_taken_out_of_the_stream_with_all_its_content() {
    let mut session = Session::begun(None, &[("max_file_size", "100")]);
    session.exchange(open(1, "/f", 0x1a), reply(HANDLE, 1, &[b"h"], b""));
    let (fine, bad) = (write(2, "h", 0, &[1; 60]), write(3, "h", 60, &[2; 5000]));
    let stream = [fine.clone(), bad, close(4, "h")].concat();
    for piece in [1, 7, 100, 4096, stream.len()] {
        let mut session = Session::begun(None, &[("max_file_size", "100")]);
        session.exchange(open(1, "/f", 0x1a), reply(HANDLE, 1, &[b"h"], b""));
        let mut sent = Vec::new();
        for part in stream.chunks(piece) {
            sent.extend(session.up(part).unwrap());
        }
        assert_eq!(sent, [fine.clone(), close(4, "h")].concat(), "in pieces of {piece}");
        assert_eq!(session.answers.len(), 1);
        let read = status(&session.answers[0][4..]).unwrap();
        assert_eq!((read.code, read.message), (PERMISSION_DENIED, &b"max_file_size: a file has at most 100 bytes"[..]));
        session.down(&[stated(2, OK), stated(4, OK)].concat()).unwrap();
        let transfer = session.transfers()[0];
        assert_eq!((transfer.upload(), transfer.written.bytes), (Some(Outcome::Partial), 60), "what was refused is missing");
    }
}

#[test]
fn a_handle_that_is_guessed_or_being_closed_is_good_for_nothing_under_a_policy() {
    let mut session = Session::begun(None, &[("rules", "/=all; /ro=read")]);
    let chmod = |id| request("fsetstat", id, &[b"h"], &[0, 0, 0, 4, 0, 0, 1, 255]);
    session.up(&open(1, "/ro/f", 1)).unwrap();
    assert_eq!(session.refused(&chmod(2)).0, FAILURE, "guessed before HANDLE came");
    session.down(&reply(HANDLE, 1, &[b"h"], b"")).unwrap();
    assert_eq!(session.refused(&chmod(2)), (PERMISSION_DENIED, "rules: fsetstat (attributes) is not allowed".into()));
    session.exchange(close(3, "h"), stated(3, OK));
    session.exchange(open(4, "/rw", 3), reply(HANDLE, 4, &[b"h"], b""));
    session.exchange(chmod(5), stated(5, OK));
    // CLOSE, OPEN of another file, and a guess that it gets the same handle.
    session.up(&[close(6, "h"), open(7, "/ro/f", 1)].concat()).unwrap();
    assert_eq!(session.refused(&chmod(8)).0, FAILURE);
    assert_eq!(session.refused(&write(9, "h", 0, b"x")).0, FAILURE);
    session.down(&[stated(6, OK), reply(HANDLE, 7, &[b"h"], b"")].concat()).unwrap();
    assert_eq!(session.refused(&chmod(8)).0, PERMISSION_DENIED);
    assert_eq!(session.refused(&write(9, "h", 0, b"x")).0, PERMISSION_DENIED);
    assert_eq!(session.refused(&framed(b"\xc8\0\0\0\x01\0\0\0\x03x@y")).0, crate::sftp::reply::OP_UNSUPPORTED);
    assert_eq!(session.refused(&framed(b"\x15\0\0\0\x01rest")).0, crate::sftp::reply::OP_UNSUPPORTED);
}

#[test]
fn what_is_refused_is_told_and_never_sent() {
    let mut session = Session::begun(Some("/srv"), &[("read_only", "yes")]);
    let (code, text) = session.refused(&request("rename", 9, &[b"a", b"/b"], b""));
    assert_eq!((code, text.as_str()), (PERMISSION_DENIED, "read-only: rename is not allowed"));
    let told = session.finished()[0];
    assert_eq!((told.refused, told.code, told.kind.short(), &*told.path), (true, Some(PERMISSION_DENIED), "rename", &b"a"[..]));
    assert_eq!((told.second.as_deref(), &*told.message), (Some(&b"/b"[..]), text.as_bytes()));
    assert_eq!(session.up(&request("stat", 9, &[b"a"], b"")), Ok(request("stat", 9, &[b"/srv/a"], b"")));
    session.down(&stated(9, 2)).unwrap();
    let told = session.finished()[1];
    assert_eq!((told.refused, told.code, &*told.path, &*told.message), (false, Some(2), &b"/srv/a"[..], &b"said 2"[..]));
}

#[test]
fn open_handles_and_requests_in_flight_are_bounded_and_the_refusal_is_clean() {
    let mut session = Session::begun(None, &[]);
    for id in 0..MAX_OPEN as u32 {
        session.up(&open(id, "/f", 1)).unwrap();
        session.down(&reply(HANDLE, id, &[&id.to_be_bytes()], b"")).unwrap();
    }
    assert_eq!(session.refused(&open(1, "/f", 1)), (FAILURE, "too many open handles".into()));
    let first = request("close", 1, &[&[0; 4]], b"");
    session.exchange(first, stated(1, OK));
    session.exchange(open(1, "/f", 1), reply(HANDLE, 1, &[b"again"], b""));

    let mut session = Session::begun(None, &[]);
    let long = vec![b'x'; 5000];
    let count =
        (0..).take_while(|&id| session.up(&request("stat", id, &[&long], b"")).is_ok_and(|sent| !sent.is_empty())).count();
    assert!((1900..2000).contains(&count), "{count} paths of 4096 bytes are kept");
    let mut session = Session::begun(None, &[]);
    let count = (0..).take_while(|&id| !session.up(&read(id, "h", 0, 1)).unwrap().is_empty()).count();
    assert_eq!(count, crate::ledger::MAX_IN_FLIGHT);
}

#[test]
fn an_upstream_that_gives_a_handle_again_before_it_was_closed_mixes_nothing_up() {
    let mut session = Session::begun(None, &[]);
    session.exchange(open(1, "/a", 0x1a), reply(HANDLE, 1, &[b"h"], b""));
    session.up(&[write(2, "h", 0, b"abc"), close(3, "h"), open(4, "/b", 0x1a)].concat()).unwrap();
    session.down(&reply(HANDLE, 4, &[b"h"], b"")).unwrap();
    session.down(&[stated(3, OK), stated(2, OK)].concat()).unwrap();
    session.exchange(write(5, "h", 0, b"de"), stated(5, OK));
    session.exchange(close(6, "h"), stated(6, OK));
    let told: Vec<_> = session.transfers().iter().map(|t| (&*t.path, t.written.bytes, t.upload())).collect();
    assert_eq!(told, [(&b"/a"[..], 3, Some(Outcome::Complete)), (&b"/b"[..], 2, Some(Outcome::Complete))]);
    assert_eq!(session.ledger.counts(), (0, 0));
}
