use super::*;
use crate::sftp::{KINDS, Kind};
use crate::wire::{put_string, put_u32};

/// A packet: its length, type, id and name (of an extension), the strings, then `rest`.
fn packet(kind: &Kind, strings: &[&[u8]], rest: &[u8]) -> Vec<u8> {
    let mut body = vec![kind.number];
    if kind.number != INIT {
        put_u32(&mut body, 7);
    }
    if kind.number == EXTENDED {
        put_string(&mut body, kind.name.as_bytes());
    }
    strings.iter().for_each(|string| put_string(&mut body, string));
    body.extend_from_slice(rest);
    framed(&body)
}

fn framed(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_string(&mut out, body);
    out
}

fn row(name: &str) -> &'static Kind {
    KINDS.iter().find(|kind| kind.short() == name).unwrap()
}

fn init() -> Vec<u8> {
    packet(row("init"), &[], &[0, 0, 0, 3])
}

const REST: &[u8] = &[0, 0, 0, 26, 0, 0, 0, 0];

/// One request of each kind with each of `paths`, and a type and an extension that nobody knows.
fn every_kind(paths: &[&[u8]]) -> Vec<u8> {
    let mut stream = init();
    for kind in KINDS.iter().filter(|kind| kind.number != INIT) {
        for path in paths {
            let strings: Vec<&[u8]> = if kind.paths.is_empty() { vec![b"handle"] } else { vec![path; kind.paths.len()] };
            stream.extend(packet(kind, &strings, REST));
        }
    }
    stream.extend(framed(b"\x63whatever"));
    stream.extend(framed(b"\xc8\0\0\0\x01\0\0\0\x03x@yrest"));
    stream.extend(framed(&[b"\xc8\0\0\0\x01\0\0\0\x28".as_slice(), &[b'n'; 40], b"rest"].concat()));
    stream
}

/// What came out, and the operations that were told.
#[derive(Debug, PartialEq)]
struct Passed {
    out: Vec<u8>,
    told: Vec<String>,
    end: Result<bool, RequestError>,
    held: usize,
}

fn told(operation: &Operation<'_>) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let second = operation.second.map_or(String::new(), |second| format!(" {}", text(second)));
    let flags = operation.flags.map_or(String::new(), |flags| format!(" {flags}"));
    format!("{} {}{second}{flags}", operation.name(), text(operation.path))
}

/// Feeds `pieces` and checks after each of them that what is held back is bounded.
fn pass<'a>(home: Option<&str>, pieces: impl IntoIterator<Item = &'a [u8]>) -> Passed {
    let mut requests = Requests::new(home);
    let mut passed = Passed { out: Vec::new(), told: Vec::new(), end: Ok(true), held: 0 };
    for piece in pieces {
        let mut buffer = piece.to_vec();
        let result = requests.pass(&mut buffer, None, &mut |heard| {
            if let Heard::Asked(operation) = heard {
                passed.told.push(told(operation));
            }
        });
        passed.out.extend(buffer);
        passed.held = requests.held();
        assert!(passed.held < LENGTH_FIELD + MAX_PACKET);
        passed.end = result.map(|()| requests.at_boundary());
        if passed.end.is_err() {
            break;
        }
    }
    passed
}

#[test]
fn each_request_has_its_paths_resolved_and_nothing_else_changed() {
    let target: &[u8] = b"../target";
    for (name, sent, forwarded) in [
        ("open", vec![&b"x"[..]], vec![&b"/srv/x"[..]]),
        ("lstat", vec![b"x"], vec![b"/srv/x"]),
        ("setstat", vec![b"x"], vec![b"/srv/x"]),
        ("opendir", vec![b"."], vec![b"/srv/."]),
        ("remove", vec![b"./x"], vec![b"/srv/x"]),
        ("mkdir", vec![b"x/y"], vec![b"/srv/x/y"]),
        ("rmdir", vec![b".."], vec![b"/srv/.."]),
        ("realpath", vec![b"."], vec![b"/srv"]),
        ("realpath", vec![b""], vec![b"/srv"]),
        ("realpath", vec![b"x/.."], vec![b"/srv/x/.."]),
        ("stat", vec![b"x"], vec![b"/srv/x"]),
        ("stat", vec![b""], vec![b""]),
        ("rename", vec![b"x", b"y"], vec![b"/srv/x", b"/srv/y"]),
        ("rename", vec![b"/x", b"y"], vec![b"/x", b"/srv/y"]),
        ("rename", vec![b"x", b"/y"], vec![b"/srv/x", b"/y"]),
        ("readlink", vec![b"x"], vec![b"/srv/x"]),
        ("symlink", vec![target, b"link"], vec![target, b"/srv/link"]),
        ("symlink", vec![b"", b"/link"], vec![b"", b"/link"]),
        ("posix-rename", vec![b"x", b"y"], vec![b"/srv/x", b"/srv/y"]),
        ("statvfs", vec![b"."], vec![b"/srv/."]),
        ("hardlink", vec![b"x", b"y"], vec![b"/srv/x", b"/srv/y"]),
        ("lsetstat", vec![b"x"], vec![b"/srv/x"]),
        ("expand-path", vec![b"x"], vec![b"/srv/x"]),
        ("expand-path", vec![b""], vec![b"/srv"]),
        ("expand-path", vec![b"~/x"], vec![b"/srv/x"]),
        ("expand-path", vec![b"~//x"], vec![b"/srv/x"]),
        ("expand-path", vec![b"~"], vec![b"/srv"]),
        ("expand-path", vec![b"~root/x"], vec![b"~root/x"]),
        ("home-directory", vec![b"x"], vec![b"x"]),
        ("close", vec![b"x"], vec![b"x"]),
        ("copy-data", vec![b"x", b"y"], vec![b"x", b"y"]),
        ("users-groups-by-id", vec![b"x", b"y"], vec![b"x", b"y"]),
    ] {
        let stream = [init(), packet(row(name), &sent, REST)].concat();
        let expected = [init(), packet(row(name), &forwarded, REST)].concat();
        let passed = pass(Some("/srv"), [stream.as_slice()]);
        assert_eq!((passed.out, passed.end), (expected, Ok(true)), "{name} {sent:?}");
        assert_eq!(passed.told.len(), usize::from(!row(name).paths.is_empty()), "{name}");
    }
}

#[test]
fn however_a_stream_is_split_the_same_bytes_come_out() {
    let stream = every_kind(&[b"a", b"/b", b""]);
    let whole = pass(Some("/home/of/alice"), [stream.as_slice()]);
    assert_eq!(whole.end, Ok(true));
    assert_eq!(whole.told.len(), 3 * KINDS.iter().filter(|kind| !kind.paths.is_empty()).count());
    assert!(whole.out.len() > stream.len());
    for at in 0..=stream.len() {
        let (left, right) = stream.split_at(at);
        assert_eq!(pass(Some("/home/of/alice"), [left, right]), whole, "split at {at}");
    }
    assert_eq!(pass(Some("/home/of/alice"), stream.chunks(1)), whole);
}

#[test]
fn without_a_home_every_byte_passes_and_operations_are_still_told() {
    let stream = every_kind(&[b"a", b"."]);
    let passed = pass(None, stream.chunks(3));
    assert_eq!((passed.out, passed.end), (stream, Ok(true)));
    assert!(passed.told.contains(&"rename a a".to_owned()) && passed.told.contains(&"open . write,creat,trunc".into()));
}

#[test]
fn content_is_neither_copied_nor_held_back_nor_limited() {
    let mut requests = Requests::new(Some("/srv"));
    let mut buffer = init();
    put_u32(&mut buffer, u32::MAX);
    buffer.push(row("write").number);
    buffer.resize(32 * 1024, 3);
    let (address, capacity) = (buffer.as_ptr(), buffer.capacity());
    for _ in 0..100 {
        requests.pass(&mut buffer, None, &mut |_| panic!("told")).unwrap();
        assert_eq!((buffer.as_ptr(), buffer.capacity(), buffer.len()), (address, capacity, 32 * 1024));
    }
    assert!(!requests.at_boundary());
    assert_eq!(requests.held(), 0);
}

#[test]
fn a_fault_is_named_and_what_stands_before_it_is_kept() {
    let fields = |name, field| RequestError::Fields(name, WireError::Missing(field));
    let long = packet(row("mkdir"), &[&vec![b'x'; MAX_PACKET - 9]], b"");
    let mut too_long = packet(row("mkdir"), &[b"x"], REST);
    too_long[..4].copy_from_slice(&(MAX_PACKET as u32 + 1).to_be_bytes());
    for (bad, error) in [
        (vec![0; 4], RequestError::Empty),
        (too_long, RequestError::TooLong("mkdir", MAX_PACKET + 1)),
        (long, RequestError::TooLong("mkdir", MAX_PACKET + 5)),
        (framed(b"\x11"), fields("stat", "id")),
        (framed(b"\x11\0\0\0\x01\0\0\0\x02x"), fields("stat", "path")),
        (framed(b"\x12\0\0\0\x01\0\0\0\x01x"), fields("rename", "newpath")),
        (framed(b"\x03\0\0\0\x01\0\0\0\x01x\0\0\0"), fields("open", "pflags")),
        (framed(b"\xc8\0\0\0\x01\0\0"), fields("extended", "id")),
        (framed(b"\xc8\0\0\0\x01\xff\xff\xff\xffx"), fields("extended", "extended-request")),
    ] {
        let good = [init(), packet(row("stat"), &[b"x"], b"")].concat();
        let expected = [init(), packet(row("stat"), &[b"/srv/x"], b"")].concat();
        let passed = pass(Some("/srv"), [[good, bad.clone()].concat().as_slice()]);
        assert_eq!((passed.out, passed.end), (expected, Err(error)));
    }
    let passed = pass(None, [packet(row("stat"), &[b"x"], b"").as_slice()]);
    assert_eq!((passed.out.len(), passed.end), (0, Err(RequestError::NotInit(17))));
}

#[test]
fn the_longest_request_passes_and_is_held_back_until_it_is_whole() {
    let longest = packet(row("mkdir"), &[&vec![b'x'; MAX_PACKET - 9]], b"");
    assert_eq!(longest.len(), LENGTH_FIELD + MAX_PACKET);
    let stream = [init(), longest].concat();
    let passed = pass(None, stream.chunks(7));
    assert_eq!((passed.out, passed.end), (stream, Ok(true)));
}

/// Marsaglia's xorshift: mutations that are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

#[test]
fn no_bytes_make_it_panic_lose_bytes_or_hold_back_without_bound() {
    let samples: Vec<_> =
        KINDS.iter().filter(|kind| kind.number != INIT).map(|kind| packet(kind, &[b"ab", b"c"], REST)).collect();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut good, mut bad) = (0, 0);
    for _ in 0..300_000 {
        let mut stream = init();
        for _ in 0..1 + random.below(3) {
            stream.extend(&samples[random.below(samples.len())]);
        }
        for _ in 0..random.below(4) {
            let at = random.below(stream.len());
            match random.below(3) {
                0 => stream[at] = random.below(256) as u8,
                1 => stream[at] ^= 1 << random.below(8),
                _ => stream.truncate(at.max(1)),
            }
        }
        let (left, right) = stream.split_at(random.below(stream.len()));
        let plain = pass(None, [left, right]);
        assert!(stream.starts_with(&plain.out));
        match plain.end {
            Ok(_) => {
                assert_eq!(plain.out.len() + plain.held, stream.len(), "bytes were lost: {stream:?}");
                good += 1;
            }
            Err(_) => bad += 1,
        }
        let split = pass(Some("/h"), [left, right]);
        assert_eq!(split, pass(Some("/h"), [stream.as_slice()]), "{stream:?}");
    }
    assert!(good > 10_000 && bad > 10_000, "{good} good, {bad} bad");
}
