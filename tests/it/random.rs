//! Random SFTP requests from a seed: every kind and extension, with paths that are there and not, handles that are open and not, flags
//! and attributes of all sorts; and what of an answer must be the same in two runs.
//!
//! What sftp-server does not answer or dies of is not made: truncated packets, NUL bytes in paths. Types that nobody knows it leaves
//! without an answer: [`Requests::unknown`] makes them apart.

use sftpproxy::sftp::reply::{ATTRS, EXTENDED_REPLY, HANDLE, NAME, OK, OP_UNSUPPORTED, STATUS};
use sftpproxy::sftp::{EXTENDED, Effect, KINDS, Kind, Then};
use sftpproxy::wire::{Reader, put_string, put_u32};

/// Handles open at the same time before one is closed; far below what sftp-server and a ledger allow.
const MOST_OPEN: usize = 40;

/// Times later than this are those of the run, which differ; earlier ones were set by a request and must not.
const NOW: u32 = 1_700_000_000;

/// Marsaglia's xorshift.
pub struct Random(pub u64);

impl Random {
    /// A number below the bound.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }
}

/// A request as it is made; its id is given when it is sent.
pub struct Asked {
    /// Its name, for people.
    pub name: &'static str,
    number: u8,
    rest: Vec<u8>,
    /// Of what makes a handle: the path.
    path: String,
}

impl Asked {
    /// The packet without its length field.
    pub fn packet(&self, id: u32) -> Vec<u8> {
        [&[self.number][..], &id.to_be_bytes(), &self.rest].concat()
    }

    /// What of its answer, without length field, two runs must have in common. `texts`: the words of a STATUS too.
    pub fn common(&self, reply: &[u8], texts: bool) -> String {
        let rest = &reply[5..];
        let mut reader = Reader::new(rest);
        match reply[0] {
            STATUS => {
                let code = reader.u32("code").unwrap();
                let text = if texts { String::from_utf8_lossy(reader.string("message").unwrap()) } else { "".into() };
                format!("status {code} {text}")
            }
            ATTRS => format!("attributes {}", attributes(&mut reader)),
            NAME => names(&mut reader),
            // Free blocks and free inodes are everybody's: the fields 3, 4, 6 and 7 of eleven.
            EXTENDED_REPLY if self.name.ends_with("statvfs") => {
                let fields = rest.chunks(8).enumerate().filter(|(at, _)| ![3, 4, 6, 7].contains(at));
                format!("statvfs {:?}", fields.map(|(_, field)| field.to_vec()).collect::<Vec<_>>())
            }
            kind => format!("type {kind}: {rest:?}"),
        }
    }

    /// What was asked, for people.
    pub fn shown(&self) -> String {
        let head = &self.rest[..self.rest.len().min(200)];
        format!("{} {}", self.name, String::from_utf8_lossy(head).escape_debug())
    }
}

fn time(seconds: u32) -> String {
    if seconds > NOW { "now".to_owned() } else { seconds.to_string() }
}

fn attributes(reader: &mut Reader<'_>) -> String {
    let mut number = || reader.u32("attributes").unwrap();
    let flags = number();
    let mut shown = format!("{flags:#x}");
    let mut put = |text: String| shown += &format!(" {text}");
    if flags & 1 != 0 {
        put(format!("size {}", u64::from(number()) << 32 | u64::from(number())));
    }
    if flags & 2 != 0 {
        put(format!("owner {}:{}", number(), number()));
    }
    if flags & 4 != 0 {
        put(format!("mode {:o}", number()));
    }
    if flags & 8 != 0 {
        put(format!("times {} {}", time(number()), time(number())));
    }
    assert!(flags < 16, "OpenSSH sends no further attributes");
    shown
}

/// The names, sorted, since the order in a directory is the file system's; of the line for people what is no date.
fn names(reader: &mut Reader<'_>) -> String {
    let count = reader.u32("count").unwrap();
    let mut entries: Vec<String> = (0..count)
        .map(|_| {
            let name = String::from_utf8_lossy(reader.string("filename").unwrap()).into_owned();
            let long = String::from_utf8_lossy(reader.string("longname").unwrap()).into_owned();
            let words: Vec<_> = long.split_whitespace().enumerate().filter(|(at, _)| !(5..8).contains(at)).collect();
            format!("{name} {words:?} {}", attributes(reader))
        })
        .collect();
    entries.sort();
    format!("names {}", entries.join("; "))
}

type Handle = (Vec<u8>, String);

/// Whether two paths could be one spelled in two ways. sftp-server refuses to copy from a handle to another with the same path, by the
/// spelling that it was given; a router that puts a start directory before relative paths makes two spellings one.
fn spelled_otherwise(one: &str, other: &str) -> bool {
    let plain = |path: &str| path.trim_start_matches("./").replace("//", "/");
    let (a, b) = (plain(one), plain(other));
    one != other && (a.ends_with(&b) || b.ends_with(&a))
}

/// Makes requests. The same seed, paths and answers make the same requests.
pub struct Requests {
    random: Random,
    paths: Vec<String>,
    /// Open ones with the paths that they were opened by, and some that nobody ever gave.
    handles: Vec<Handle>,
    owner: (u32, u32),
}

impl Requests {
    /// About these paths, none of which may lead to a file that matters. If the first is relative, other relative ones are made too.
    pub fn new(seed: u64, paths: Vec<String>) -> Self {
        let handles = [&b"\0\0\0\x63"[..], b"bad", b"", b"\xff\xff\xff\xff", b"longer than any"];
        let handles = handles.map(|handle| (handle.to_vec(), "of nobody".to_owned())).into();
        let owner = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        // Neighbouring small seeds would begin alike.
        Self { random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1), paths, handles, owner }
    }

    /// How many requests are sent before their answers are waited for.
    pub fn depth(&mut self) -> usize {
        let most = self.random.of(&[1, 4, 16, 64]);
        1 + self.random.below(most)
    }

    /// A request of a type that is in no standard, which sftp-server does not answer.
    pub fn unknown(&mut self) -> Option<Asked> {
        let number = self.random.of(&[21, 99, 150, 255]);
        let rest = vec![0; self.random.below(20)];
        (self.random.below(100) == 0).then_some(Asked { name: "unknown", number, rest, path: String::new() })
    }

    /// The next request.
    pub fn next(&mut self) -> Asked {
        let open = self.handles.len() > MOST_OPEN;
        let kind = match self.random.below(40) {
            0 => return self.unknown_extension(),
            // More of what makes handles and uses them.
            1..=4 => row("open"),
            5..=8 => row(self.random.of(&["write", "read", "readdir", "fstat"])),
            9..=14 if open => row("close"),
            _ => self.any(),
        };
        let mut rest = Vec::new();
        if kind.number == EXTENDED {
            put_string(&mut rest, kind.name.as_bytes());
        }
        let mut path = String::new();
        for _ in kind.paths {
            path = self.path(kind);
            put_string(&mut rest, path.as_bytes());
        }
        match kind.short() {
            "home-directory" => put_string(&mut rest, self.random.of(&[&b"root"[..], b"", b"nobody at all"])),
            "users-groups-by-id" => [[0; 4], [0, 0, 0x30, 0x39]].iter().for_each(|ids| put_string(&mut rest, ids)),
            _ => {}
        }
        let handle = kind.then.is_handle().then(|| self.handle());
        handle.iter().for_each(|(handle, _)| put_string(&mut rest, handle));
        self.then(kind, handle.as_ref(), &mut rest);
        // sftp-server takes no offence at bytes behind the last field.
        let more = if self.random.below(50) == 0 { 3 } else { 0 };
        rest.resize(rest.len() + more, 7);
        if kind.short() == "close" {
            // Another file may get it before the answer is here; what it then stands for is for a policy to refuse.
            self.handles.retain(|other| Some(other) != handle.as_ref() || other.1 == "of nobody");
        }
        Asked { name: kind.short(), number: kind.number, rest, path }
    }

    fn any(&mut self) -> &'static Kind {
        let kind = &KINDS[self.random.below(KINDS.len())];
        if kind.short() == "init" { row("stat") } else { kind }
    }

    fn unknown_extension(&mut self) -> Asked {
        let mut rest = Vec::new();
        put_string(&mut rest, self.random.of(&[&b"nobody@knows"[..], b"", b"open", b"posix-rename@openssh.co"]));
        rest.resize(rest.len() + self.random.below(9), 0);
        Asked { name: "unknown extension", number: EXTENDED, rest, path: String::new() }
    }

    fn path(&mut self, kind: &Kind) -> String {
        let looks = matches!(kind.effect, Effect::Look | Effect::List);
        match self.random.below(24) {
            _ if self.paths[0].starts_with('/') => self.paths[self.random.below(self.paths.len())].clone(),
            0 => String::new(),
            // A start directory that is removed or renamed would be the end of the run.
            1 | 2 if looks => ".".to_owned(),
            3 => "n".repeat(300),
            4 => format!("./{}", self.paths[0]),
            5 if kind.short() == "expand-path" => "~/d".to_owned(),
            _ => self.paths[self.random.below(self.paths.len())].clone(),
        }
    }

    fn handle(&mut self) -> Handle {
        self.handles[self.random.below(self.handles.len())].clone()
    }

    /// What follows the paths and the handle.
    fn then(&mut self, kind: &Kind, handle: Option<&Handle>, rest: &mut Vec<u8>) {
        let offset = self.random.of(&[40, 40, 100_000]);
        let offset = self.random.below(offset) as u64;
        match kind.then {
            Then::Flags => put_u32(rest, self.random.below(64) as u32),
            Then::Range => {
                rest.extend(offset.to_be_bytes());
                put_u32(rest, self.random.of(&[0, 9, 9, 9, 32_768, 70_000, 1 << 20]));
            }
            Then::Content => {
                rest.extend(offset.to_be_bytes());
                let length = self.random.of(&[0, 5, 12, 12, 12, 40_000]);
                let seed = self.random.below(256);
                put_string(rest, &(0..length).map(|at: usize| (at * 7 + at / 256 + seed) as u8).collect::<Vec<_>>());
            }
            Then::Copy => {
                // Never 0, which is "to the end": a file copied into itself has none.
                rest.extend([offset.to_be_bytes(), (1 + offset % 7).to_be_bytes()].concat());
                let (to, path) = self.handle();
                let same = handle.is_some_and(|(_, from)| spelled_otherwise(from, &path));
                put_string(rest, if same { b"bad" } else { &to });
                rest.extend(self.random.below(40).to_be_bytes());
            }
            _ => {}
        }
        if matches!(kind.then, Then::Flags | Then::Attributes | Then::HandleAttributes) {
            self.attributes(rest);
        }
    }

    fn attributes(&mut self, rest: &mut Vec<u8>) {
        const FURTHER: u32 = 0x8000_0000;
        let flags = self.random.of(&[0, 0, 1, 2, 4, 8, 13, 15, FURTHER, FURTHER | 4]);
        put_u32(rest, flags);
        if flags & 1 != 0 {
            rest.extend(self.random.below(30).to_be_bytes());
        }
        if flags & 2 != 0 {
            put_u32(rest, self.owner.0);
            put_u32(rest, self.owner.1);
        }
        if flags & 4 != 0 {
            put_u32(rest, self.random.of(&[0o700, 0o755]));
        }
        if flags & 8 != 0 {
            put_u32(rest, self.random.of(&[1, 1_000_000]));
            put_u32(rest, self.random.of(&[2, 2_000_000]));
        }
        if flags & FURTHER != 0 {
            put_u32(rest, 1);
            put_string(rest, b"attribute@nobody");
            put_string(rest, b"value");
        }
    }

    /// Learns from an answer without length field which handles there are.
    pub fn learn(&mut self, asked: &Asked, reply: &[u8]) {
        if reply[0] == HANDLE {
            self.handles.push((Reader::new(&reply[5..]).string("handle").unwrap().to_vec(), asked.path.clone()));
        }
    }
}

/// The code of a STATUS without its length field.
pub fn code(reply: &[u8]) -> u32 {
    Reader::new(&reply[5..]).u32("code").unwrap()
}

fn row(name: &str) -> &'static Kind {
    KINDS.iter().find(|kind| kind.short() == name).unwrap()
}

#[test]
fn two_answers_that_differ_in_what_a_client_sees_are_different() {
    let asked = Asked { name: "stat", number: 17, rest: Vec::new(), path: String::new() };
    let attrs = |size: u8, time: u32| {
        let head = [ATTRS, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, size];
        asked.common(&[&head[..], &time.to_be_bytes(), &time.to_be_bytes()].concat(), false)
    };
    assert_ne!(attrs(1, 5), attrs(2, 5));
    assert_ne!(attrs(1, 5), attrs(1, 6));
    assert_eq!(attrs(1, NOW + 5), attrs(1, NOW + 6));
    let status = |code, id, texts| asked.common(&[STATUS, 0, 0, 0, id, 0, 0, 0, code, 0, 0, 0, 1, b'x' + id], texts);
    assert_ne!(status(OK as u8, 1, false), status(OP_UNSUPPORTED as u8, 1, false));
    assert_ne!(status(4, 1, true), status(4, 0, true));
    assert_eq!(status(4, 1, false), status(4, 0, false));
}
