//! What a user may do, against the real sftp-server: everything that a client could say is said through both streams, and the files are
//! looked at afterwards.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use sftpproxy::ledger::{Event, Ledger, Outcome, Transfer};
use sftpproxy::policy::Policy;
use sftpproxy::sftp::reply::{HANDLE, NAME, NO_SUCH_FILE, OK, OP_UNSUPPORTED, PERMISSION_DENIED, STATUS};
use sftpproxy::sftp::{EXTENDED, INIT, KINDS, Kind, OpenFlags, Then};
use sftpproxy::stream::Heard;
use sftpproxy::stream::replies::Replies;
use sftpproxy::stream::requests::{Books, Requests};
use sftpproxy::wire::{Reader, put_string, put_u32};

use crate::random::Requests as Random;

/// A real sftp-server with our two streams before it, or with nothing.
struct Server {
    child: Child,
    streams: Option<(Requests, Replies, Ledger)>,
    events: Vec<Event>,
    /// Whether the last answer was the router's own.
    refused: bool,
}

impl Server {
    fn direct(folder: &Path) -> Self {
        Self::start(folder, None)
    }

    /// Fields of a record; none = a ledger without a policy.
    fn through(folder: &Path, home: Option<&str>, fields: &[(&str, &str)]) -> Self {
        let find = |name: &str| fields.iter().find(|(field, _)| *field == name).map(|(_, text)| *text);
        let policy = Policy::parse(find).unwrap().map(Arc::new);
        let requests = policy.clone().map_or_else(|| Requests::new(home), |policy| Requests::judged(home, policy));
        Self::start(folder, Some((requests, Replies::new(policy), Ledger::default())))
    }

    fn start(folder: &Path, streams: Option<(Requests, Replies, Ledger)>) -> Self {
        let child = Command::new("/usr/lib/openssh/sftp-server")
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Debian package openssh-sftp-server");
        let mut server = Self { child, streams, events: Vec::new(), refused: false };
        assert_eq!(server.exchange(&[INIT, 0, 0, 0, 3])[0], 2, "VERSION");
        server
    }

    /// The reply to a packet, both without their length fields.
    fn exchange(&mut self, body: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        put_string(&mut packet, body);
        self.refused = false;
        let now = Instant::now();
        if let Some((requests, _, ledger)) = &mut self.streams {
            let mut answer = None;
            requests
                .pass(&mut packet, Some(Books { ledger, now }), &mut |heard| match heard {
                    Heard::Asked(_) | Heard::Content(_) => {}
                    Heard::Answer(packet) => answer = Some(packet),
                    Heard::Event(event) => self.events.push(event),
                })
                .unwrap();
            if let Some(answer) = answer {
                assert!(packet.is_empty(), "answered and sent");
                self.refused = true;
                return answer[4..].to_vec();
            }
        }
        self.child.stdin.as_mut().unwrap().write_all(&packet).unwrap();
        let stdout = self.child.stdout.as_mut().unwrap();
        let mut length = [0; 4];
        stdout.read_exact(&mut length).unwrap();
        let mut reply = length.to_vec();
        reply.resize(4 + u32::from_be_bytes(length) as usize, 0);
        stdout.read_exact(&mut reply[4..]).unwrap();
        if let Some((_, replies, ledger)) = &mut self.streams {
            let mut told = |heard: Heard<'_>| {
                if let Heard::Event(event) = heard {
                    self.events.push(event);
                }
            };
            replies.pass(&mut reply, Books { ledger, now }, &mut told).unwrap();
            assert!(replies.at_boundary());
        }
        reply[4..].to_vec()
    }

    fn ask(&mut self, kind: &Kind, strings: &[&[u8]], rest: &[u8]) -> Vec<u8> {
        let mut body = vec![kind.number, 0, 0, 0, 7];
        if kind.number == EXTENDED {
            put_string(&mut body, kind.name.as_bytes());
        }
        strings.iter().for_each(|string| put_string(&mut body, string));
        body.extend_from_slice(rest);
        self.exchange(&body)
    }

    fn open(&mut self, path: &str, flags: u32) -> Vec<u8> {
        let reply = self.ask(row("open"), &[path.as_bytes()], &[flags.to_be_bytes(), [0; 4]].concat());
        assert_eq!(reply[0], HANDLE, "{path}: {}", String::from_utf8_lossy(&reply));
        reply[9..].to_vec()
    }

    fn transfers(&self) -> impl Iterator<Item = &Transfer> {
        self.events.iter().filter_map(|event| if let Event::Transfer(transfer) = event { Some(&**transfer) } else { None })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }
}

fn row(name: &str) -> &'static Kind {
    KINDS.iter().find(|kind| kind.short() == name).unwrap()
}

/// The code of a STATUS.
fn code(reply: &[u8]) -> Option<u32> {
    (reply[0] == STATUS).then(|| u32::from_be_bytes([reply[5], reply[6], reply[7], reply[8]]))
}

/// Everything that can be seen of the files below a folder.
fn tree(folder: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).chain([folder.clone()]) {
            let is = fs::symlink_metadata(&path).unwrap();
            let content = match is.file_type() {
                kind if kind.is_symlink() => fs::read_link(&path).unwrap().display().to_string(),
                kind if kind.is_file() => String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned(),
                _ => String::new(),
            };
            if is.is_dir() && path != folder {
                folders.push(path.clone());
            }
            let what =
                format!("{:o} {} {} {} {}.{} {content}", is.mode(), is.uid(), is.nlink(), is.len(), is.mtime(), is.mtime_nsec());
            found.insert(path.display().to_string(), what);
        }
    }
    found
}

fn plant(folder: &Path) {
    fs::create_dir_all(folder.join("d/e")).unwrap();
    fs::write(folder.join("f"), "content of f").unwrap();
    fs::write(folder.join("d/g"), "g").unwrap();
    symlink("f", folder.join("l")).unwrap();
}

#[test]
fn nothing_that_a_read_only_user_can_say_changes_any_file() {
    let folder = tempfile::tempdir().unwrap();
    plant(folder.path());
    let home = folder.path().to_str().unwrap();
    let before = tree(folder.path());
    let (mut said, mut refused) = (0, 0);
    for fields in [&[("read_only", "yes")][..], &[("rules", "/=list,read")], &[("read_only", "yes"), ("deny", "nothing")]] {
        for kind in KINDS.iter().filter(|kind| kind.number != INIT && kind.short() != "limits") {
            let mut server = Server::through(folder.path(), Some(home), fields);
            let handle = server.open("f", OpenFlags::READ);
            let flags: Vec<u32> = if kind.then == Then::Flags { (0..128).collect() } else { vec![0] };
            for path in ["f", "d", "d/e", "new", "l", "d/new"] {
                for &flags in &flags {
                    for attributes in 0..16_u32 {
                        let mut rest = Vec::new();
                        match kind.then {
                            Then::Flags => put_u32(&mut rest, flags),
                            Then::Range | Then::Content => rest.extend([0; 8]),
                            _ => {}
                        }
                        let sized = |rest: &mut Vec<u8>| {
                            put_u32(rest, attributes);
                            let sizes = [(1, 8), (2, 8), (4, 4), (8, 8)];
                            sizes
                                .iter()
                                .filter(|(flag, _)| attributes & flag != 0)
                                .for_each(|(_, size)| rest.extend(vec![0; *size]));
                        };
                        match kind.then {
                            Then::Range => put_u32(&mut rest, 9),
                            Then::Content => put_string(&mut rest, b"changed"),
                            Then::Copy => {
                                rest.extend([0; 16]);
                                put_string(&mut rest, &handle);
                                rest.extend([0; 8]);
                            }
                            _ => sized(&mut rest),
                        }
                        let strings: Vec<&[u8]> = match kind.paths.len() {
                            0 if kind.then.is_handle() => vec![&handle],
                            0 if kind.short() == "home-directory" => vec![b"root"],
                            0 => vec![b"", b""],
                            1 => vec![path.as_bytes()],
                            _ => vec![path.as_bytes(), b"other"],
                        };
                        if kind.short() == "close" {
                            continue;
                        }
                        let reply = server.ask(kind, &strings, &rest);
                        said += 1;
                        refused += usize::from(server.refused);
                        assert!(!server.refused || matches!(code(&reply), Some(PERMISSION_DENIED)), "{} {reply:?}", kind.name);
                        assert!(!(kind.effect.changes() && kind.then != Then::Flags) || server.refused, "{} is sent", kind.name);
                        if reply[0] == HANDLE && kind.then == Then::Flags {
                            assert_eq!(code(&server.ask(row("close"), &[&reply[9..]], b"")), Some(OK));
                        }
                        if attributes == 15 && kind.then != Then::Flags {
                            assert_eq!(tree(folder.path()), before, "{}", kind.name);
                        }
                    }
                }
            }
        }
        assert_eq!(tree(folder.path()), before);
    }
    assert!(said > 30_000 && refused > 30_000, "{said} {refused}");
}

#[test]
fn below_a_root_nothing_outside_is_seen_or_changed() {
    let folder = tempfile::tempdir().unwrap();
    let (inside, outside) = (folder.path().join("in"), folder.path().join("out"));
    plant(&inside);
    plant(&outside);
    symlink(outside.join("f"), inside.join("to-out")).unwrap();
    symlink("../out/f", inside.join("climbs")).unwrap();
    symlink(inside.join("f"), inside.join("to-in")).unwrap();
    symlink(&inside, folder.path().join("alias")).unwrap();
    let before = tree(&outside);
    for root in [&inside, &folder.path().join("alias")] {
        let mut server = Server::through(folder.path(), None, &[("root", root.to_str().unwrap())]);
        let mut name = |kind: &str, path: &str| {
            let reply = server.ask(row(kind), &[path.as_bytes()], b"");
            match reply[0] {
                NAME => String::from_utf8(Reader::new(&reply[9..]).string("filename").unwrap().to_vec()).unwrap(),
                _ => format!("{}", code(&reply).unwrap()),
            }
        };
        for (kind, path, expected) in [
            ("realpath", ".", "/"),
            ("realpath", "", "/"),
            ("realpath", "../..", "/"),
            ("realpath", "d/e/..", "/d"),
            ("realpath", "/l", "/f"),
            ("expand-path", "~/d", "/d"),
            ("readlink", "l", "f"),
            ("readlink", "to-out", "3"),
            ("readlink", "climbs", "3"),
            ("home-directory", "root", "3"),
        ] {
            // Reached through an alias, a path is told as it was asked for.
            let expected = if root.ends_with("alias") && (kind, path) == ("realpath", "/l") { "/l" } else { expected };
            assert_eq!(name(kind, path), expected, "{kind} {path} below {}", root.display());
        }
        if !root.ends_with("alias") {
            assert_eq!(name("readlink", "to-in"), "/f");
        }
        for up in ["../out", "/../out", "d/../../out", "/d/e/../../../out", "//..//out", "./../out/."] {
            for file in ["f", "d"] {
                assert_eq!(code(&server.ask(row("stat"), &[format!("{up}/{file}").as_bytes()], b"")), Some(NO_SUCH_FILE), "{up}");
            }
            for (kind, rest) in [("remove", &b""[..]), ("rmdir", b""), ("setstat", &[0, 0, 0, 4, 0, 0, 1, 0])] {
                assert!(code(&server.ask(row(kind), &[format!("{up}/f").as_bytes()], rest)) != Some(OK), "{kind} {up}");
            }
            assert!(code(&server.ask(row("rename"), &[format!("{up}/f").as_bytes(), b"stolen"], b"")) != Some(OK));
        }
        assert_eq!(code(&server.ask(row("symlink"), &[b"../out/f", b"mine"], b"")), Some(PERMISSION_DENIED));
        assert_eq!(code(&server.ask(row("mkdir"), &[b"/../made"], &[0; 4])), Some(OK));
        assert!(inside.join("made").is_dir());
        fs::remove_dir(inside.join("made")).unwrap();
    }
    assert_eq!(tree(&outside), before);
}

#[test]
fn a_drop_box_takes_a_file_once_and_the_transfer_says_what_was_stored() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_str().unwrap();
    let mut server = Server::through(folder.path(), None, &[("upload_only", "yes"), ("root", root), ("max_file_size", "10")]);
    let put = |server: &mut Server, handle: &[u8], offset: u64, content: &[u8]| {
        let mut rest = offset.to_be_bytes().to_vec();
        put_string(&mut rest, content);
        code(&server.ask(row("write"), &[handle], &rest)).unwrap()
    };
    const NEW: u32 = OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::TRUNCATE;
    let handle = server.open("new", NEW);
    assert_eq!((put(&mut server, &handle, 0, b"12345"), put(&mut server, &handle, 5, b"67890")), (OK, OK));
    assert_eq!(code(&server.ask(row("read"), &[&handle], &[0; 12])), Some(PERMISSION_DENIED));
    assert_eq!(code(&server.ask(row("close"), &[&handle], b"")), Some(OK));
    let again = server.ask(row("open"), &[b"new"], &[NEW.to_be_bytes(), [0; 4]].concat());
    assert!(!server.refused && code(&again).is_some_and(|code| code != OK), "the upstream says that it is there");
    assert_eq!(fs::read_to_string(folder.path().join("new")).unwrap(), "1234567890");
    let handle = server.open("large", NEW);
    assert_eq!((put(&mut server, &handle, 0, b"12345"), put(&mut server, &handle, 5, b"678901")), (OK, PERMISSION_DENIED));
    assert_eq!(code(&server.ask(row("close"), &[&handle], b"")), Some(OK));
    let told: Vec<_> = server.transfers().map(|transfer| (transfer.upload(), transfer.written.ranges.list().to_vec())).collect();
    assert_eq!(told, [(Some(Outcome::Complete), vec![(0, 10)]), (Some(Outcome::Partial), vec![(0, 5)])]);
    assert_eq!(code(&server.ask(row("opendir"), &[b"."], b"")), Some(PERMISSION_DENIED));
    assert_eq!(code(&server.exchange(b"\xc8\0\0\0\x07\0\0\0\x03x@y")), Some(OP_UNSUPPORTED));
}

/// What a client is told by `count` random requests, without what differs between two runs.
fn random_answers(server: &mut Server, folder: &Path, seed: u64, count: usize) -> Vec<(String, String)> {
    let names = ["f", "l", "d", "d/g", "d/e", "new", "d/new", "no/such", "dangling"];
    let mut random = Random::new(seed, names.map(|name| format!("{}/{name}", folder.display())).into());
    let mut told = Vec::new();
    for _ in 0..count {
        let asked = random.next();
        let reply = server.exchange(&asked.packet(7));
        random.learn(&asked, &reply);
        told.push((asked.shown(), asked.common(&reply, false)));
    }
    told
}

#[test]
fn random_requests_get_the_same_answers_direct_and_through_a_ledger_and_a_policy_that_allows_everything() {
    let base = tempfile::tempdir().unwrap();
    let folder = base.path().join("same");
    let mut answered = 0;
    for seed in 1..=6 {
        let run = |start: &dyn Fn(&Path) -> Server| {
            fs::create_dir(&folder).unwrap();
            plant(&folder);
            symlink("nowhere", folder.join("dangling")).unwrap();
            let told = random_answers(&mut start(&folder), &folder, seed, 2_000);
            let left: Vec<_> = tree(&folder).into_keys().collect();
            fs::remove_dir_all(&folder).unwrap();
            (told, left)
        };
        let direct = run(&|folder| Server::direct(folder));
        for fields in [&[][..], &[("rules", "/=all")], &[("deny", "never*"), ("root", "/"), ("rules", "/=all")]] {
            let through = run(&|folder| Server::through(folder, None, fields));
            let differs = direct.0.iter().zip(&through.0).find(|(direct, through)| direct != through);
            assert!(differs.is_none(), "seed {seed}, {fields:?}: {differs:#?}");
            assert_eq!(direct.1, through.1, "seed {seed}, {fields:?}");
            answered += through.0.len();
        }
    }
    assert_eq!(answered, 6 * 3 * 2_000);
}
