//! The start directory, against the real sftp-server: started in the user's home and spoken to directly, or started elsewhere and
//! spoken to through [`Requests`], it must give the same answers and leave the same files.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use sftpproxy::sftp::{EXTENDED, INIT, KINDS, Kind};
use sftpproxy::stream::requests::Requests;
use sftpproxy::wire::{Reader, put_string};

const STATUS: u8 = 101;
const HANDLE: u8 = 102;
const NAME: u8 = 104;
const ATTRS: u8 = 105;
const EXTENDED_REPLY: u8 = 201;

/// A real sftp-server, and what stands between it and the test.
struct Server {
    child: Child,
    requests: Requests,
    handle: Vec<u8>,
}

impl Server {
    fn start(folder: &Path, home: Option<&str>) -> Self {
        let child = Command::new("/usr/lib/openssh/sftp-server")
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Debian package openssh-sftp-server");
        let mut server = Self { child, requests: Requests::new(home), handle: Vec::new() };
        assert_eq!(server.exchange(&[INIT, 0, 0, 0, 3])[0], 2, "VERSION");
        server
    }

    fn exchange(&mut self, body: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        put_string(&mut packet, body);
        self.requests.pass(&mut packet, None, &mut |_| ()).unwrap();
        self.child.stdin.as_mut().unwrap().write_all(&packet).unwrap();
        let stdout = self.child.stdout.as_mut().unwrap();
        let mut length = [0; 4];
        stdout.read_exact(&mut length).unwrap();
        let mut reply = vec![0; u32::from_be_bytes(length) as usize];
        stdout.read_exact(&mut reply).unwrap();
        reply
    }

    /// Sends a request; the string `"H"` stands for the newest handle. The reply is without what differs between two equal servers.
    fn ask(&mut self, kind: &Kind, strings: &[&str], rest: &[u8]) -> Vec<u8> {
        let mut body = vec![kind.number, 0, 0, 0, 7];
        if kind.number == EXTENDED {
            put_string(&mut body, kind.name.as_bytes());
        }
        for string in strings {
            put_string(&mut body, if *string == "H" { &self.handle } else { string.as_bytes() });
        }
        body.extend_from_slice(rest);
        let mut reply = self.exchange(&body);
        match reply[0] {
            HANDLE => self.handle = reply[9..].to_vec(),
            NAME if kind.short() == "readdir" => reply = names(&reply),
            ATTRS => reply.truncate(reply.len() - 8), // times
            EXTENDED_REPLY if kind.short().ends_with("statvfs") => reply.truncate(21), // free blocks
            _ => {}
        }
        reply
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }
}

/// The names in a reply to READDIR, sorted.
fn names(reply: &[u8]) -> Vec<u8> {
    let mut reader = Reader::new(&reply[5..]);
    let count = reader.u32("count").unwrap();
    let mut names: Vec<_> = (0..count)
        .map(|_| {
            let name = reader.string("filename").unwrap();
            reader.string("longname").unwrap();
            reader.take(32, "attributes of flags, size, owner, permissions and times").unwrap();
            name
        })
        .collect();
    names.sort_unstable();
    names.join(&b' ')
}

const GOOD: bool = true;
const BAD: bool = false;
const NO_ATTRIBUTES: &[u8] = &[0; 4];
const MODE_600: &[u8] = &[0, 0, 0, 4, 0, 0, 1, 0o200];
const TIMES: &[u8] = &[0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 2];
const TO_READ: &[u8] = &[0, 0, 0, 1, 0, 0, 0, 0];
const TO_WRITE_NEW: &[u8] = &[0, 0, 0, 0x2a, 0, 0, 0, 0];
const OFFSET_AND_LENGTH: &[u8] = &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
const OFFSET_AND_DATA: &[u8] = &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, b'h', b'i'];

/// Requests of every kind: name, strings, what follows them, whether the direct server grants it.
const SCRIPT: &[(&str, &[&str], &[u8], bool)] = &[
    ("realpath", &[""], &[], GOOD),
    ("realpath", &["."], &[], GOOD),
    ("realpath", &["./file"], &[], GOOD),
    ("realpath", &["sub/.."], &[], GOOD),
    ("realpath", &[".."], &[], GOOD),
    ("realpath", &["link/x"], &[], GOOD),
    ("realpath", &["missing/x"], &[], BAD),
    ("expand-path", &[""], &[], GOOD),
    ("expand-path", &["file"], &[], GOOD),
    ("expand-path", &["~root/x"], &[], GOOD),
    ("expand-path", &["~"], &[], GOOD),
    ("expand-path", &["~/x"], &[], GOOD),
    ("stat", &["file"], &[], GOOD),
    ("stat", &[""], &[], BAD),
    ("stat", &["."], &[], GOOD),
    ("stat", &["./sub//"], &[], GOOD),
    ("stat", &["../outside"], &[], GOOD),
    ("lstat", &["."], &[], GOOD),
    ("lstat", &["link"], &[], GOOD),
    ("lstat", &[""], &[], BAD),
    ("setstat", &["file"], MODE_600, GOOD),
    ("setstat", &["missing"], MODE_600, BAD),
    ("lsetstat", &["link"], TIMES, GOOD),
    ("open", &["file"], TO_READ, GOOD),
    ("read", &["H"], OFFSET_AND_LENGTH, GOOD),
    ("fstat", &["H"], &[], GOOD),
    ("fstatvfs", &["H"], &[], GOOD),
    ("close", &["H"], &[], GOOD),
    ("open", &["new"], TO_WRITE_NEW, GOOD),
    ("write", &["H"], OFFSET_AND_DATA, GOOD),
    ("fsetstat", &["H"], MODE_600, GOOD),
    ("fsync", &["H"], &[], GOOD),
    ("close", &["H"], &[], GOOD),
    ("open", &["new"], TO_WRITE_NEW, BAD),
    ("open", &[""], TO_READ, BAD),
    ("open", &["missing/new"], TO_WRITE_NEW, BAD),
    ("opendir", &["."], &[], GOOD),
    ("readdir", &["H"], &[], GOOD),
    ("readdir", &["H"], &[], BAD),
    ("close", &["H"], &[], GOOD),
    ("opendir", &["link"], &[], GOOD),
    ("readdir", &["H"], &[], GOOD),
    ("opendir", &[""], &[], BAD),
    ("opendir", &["file"], &[], BAD),
    ("mkdir", &["made"], NO_ATTRIBUTES, GOOD),
    ("mkdir", &["./made/deep"], NO_ATTRIBUTES, GOOD),
    ("mkdir", &["."], NO_ATTRIBUTES, BAD),
    ("rmdir", &["made"], &[], BAD),
    ("rmdir", &["made/deep"], &[], GOOD),
    ("rmdir", &["."], &[], BAD),
    ("rmdir", &[""], &[], BAD),
    ("rename", &["new", "sub/newer"], &[], GOOD),
    ("rename", &["file", "sub/newer"], &[], BAD),
    ("rename", &[".", "elsewhere"], &[], BAD),
    ("posix-rename", &["sub/newer", "made/newest"], &[], GOOD),
    ("posix-rename", &[".", "../moved"], &[], BAD),
    ("hardlink", &["file", "made/hard"], &[], GOOD),
    ("hardlink", &["missing", "x"], &[], BAD),
    ("symlink", &["../target of nothing", "made/soft"], &[], GOOD),
    ("symlink", &["", "made/empty"], &[], BAD),
    ("readlink", &["made/soft"], &[], GOOD),
    ("readlink", &["file"], &[], BAD),
    ("readlink", &[""], &[], BAD),
    ("remove", &["link"], &[], GOOD),
    ("remove", &["."], &[], BAD),
    ("remove", &[""], &[], BAD),
    ("statvfs", &["."], &[], GOOD),
    ("statvfs", &[""], &[], BAD),
    ("limits", &[], &[], GOOD),
    ("copy-data", &["H"], &[0; 16], BAD),
    ("home-directory", &["root"], &[], GOOD),
    ("users-groups-by-id", &["\0\0\0\0", "\0\0\0\0"], &[], GOOD),
];

/// Plays the script. `home` = resolved on the way, with the server started elsewhere.
fn play(world: &Path, start: &str, resolved: bool) -> (Vec<Vec<u8>>, BTreeMap<String, String>) {
    fs::create_dir_all(world.join("real/sub")).unwrap();
    fs::create_dir(world.join("unused")).unwrap();
    fs::write(world.join("outside"), "o").unwrap();
    fs::write(world.join("real/file"), "content").unwrap();
    symlink("sub", world.join("real/link")).unwrap();
    symlink("real", world.join("linked")).unwrap();
    let home = world.join(start);
    let mut server =
        if resolved { Server::start(&world.join("unused"), Some(home.to_str().unwrap())) } else { Server::start(&home, None) };
    let mut replies = Vec::new();
    for (name, strings, rest, good) in SCRIPT {
        let kind = KINDS.iter().find(|kind| kind.short() == *name).unwrap();
        // copy-data has a second handle after its numbers.
        let rest = if *name == "copy-data" { &[rest, &[0, 0, 0, 1, b'?'][..], &[0; 8]].concat() } else { *rest };
        let reply = server.ask(kind, strings, rest);
        let granted = reply[0] != STATUS || reply[5..9] == [0; 4];
        assert_eq!(granted, *good, "{name} {strings:?}, resolved: {resolved}: {}", String::from_utf8_lossy(&reply));
        replies.push(reply);
    }
    drop(server);
    let files = tree(world);
    fs::remove_dir_all(world).unwrap();
    (replies, files)
}

/// Every file below `folder`: its path, and its content or target.
fn tree(folder: &Path) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let meta = fs::symlink_metadata(&path).unwrap();
        let content = if meta.is_symlink() {
            fs::read_link(&path).unwrap().display().to_string()
        } else if meta.is_dir() {
            files.extend(tree(&path));
            "directory".to_owned()
        } else {
            fs::read_to_string(&path).unwrap()
        };
        files.insert(path.display().to_string(), content);
    }
    files
}

#[test]
fn every_request_with_a_relative_path_is_answered_as_if_the_server_had_been_started_in_home() {
    let folder = tempfile::tempdir().unwrap();
    let world = folder.path().join("world");
    for start in ["real", "linked", "real/sub/.."] {
        let (direct, files) = play(&world, start, false);
        let (resolved, resolved_files) = play(&world, start, true);
        for ((name, strings, ..), (direct, resolved)) in SCRIPT.iter().zip(direct.iter().zip(&resolved)) {
            let text = |reply: &[u8]| String::from_utf8_lossy(reply).into_owned();
            assert_eq!(text(direct), text(resolved), "{name} {strings:?} from {start}");
            assert_eq!(direct, resolved, "{name} {strings:?} from {start}");
        }
        assert_eq!(files, resolved_files);
        assert!(files.values().any(|content| content == "hi"), "{files:?}");
    }
    let untested = |kind: &&Kind| kind.number != INIT && !SCRIPT.iter().any(|(name, ..)| *name == kind.short());
    assert_eq!(KINDS.iter().find(untested), None);
}
