//! Keys are exchanged anew all the time, on both legs and begun by both sides of each, over connections that take little at once: nothing
//! is lost and nothing stands still. `scripts/rekey` makes it long.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use sftpproxy::sftp::OpenFlags;
use sftpproxy::sftp::reply::{DATA, HANDLE, OK, STATUS};
use sftpproxy::wire::{Reader, put_string, put_u32};

use crate::random::{Random, code};
use crate::world::clients::Target;
use crate::world::sftp::Sftp;
use crate::world::tree::{big_file, hash};
use crate::world::{Setup, USER, World, keys, library};

mod narrow;
mod unended;

use narrow::{Narrow, Width};

/// What both peers of the router are told (`RekeyLimit` of ssh_config(5) and sshd_config(5)): a key exchange every two packets of data.
const LIMIT: &str = "RekeyLimit 64K";

/// Time for one transfer of hundreds of megabytes with a key exchange for every 64 KiB, on a busy machine.
const LONG: Duration = Duration::from_secs(3600);

/// Bytes of a READ and a WRITE, and how many of each are on their way at a time.
const PIECE: usize = 32 * 1024;
const FLYING: usize = 32;

/// One session that reads one file and writes another at the same time, so that both directions are full of data.
struct Both<'a> {
    sftp: Sftp,
    source: &'a File,
    size: u64,
    /// READs and WRITEs that are not answered: where a READ is from.
    flying: BTreeMap<u32, Option<u64>>,
    next: u32,
}

impl Both<'_> {
    /// Writes `there` and reads `source`, which has the same content, in this folder of the upstream.
    fn at_once(target: &Target, folder: &Path, source: &File, size: u64) {
        let mut both = Both { sftp: Sftp::open(target), source, size, flying: BTreeMap::new(), next: 1 };
        let write = both.open(&folder.join("there"), OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::TRUNCATE);
        let read = both.open(&folder.join("source"), OpenFlags::READ);
        let (mut written, mut asked) = (0, 0);
        loop {
            while written < both.size && both.in_flight(false) < FLYING {
                let bytes = both.piece(written);
                both.send(6, &write, written, None, |packet| put_string(packet, &bytes));
                written += PIECE as u64;
            }
            while asked < both.size && both.in_flight(true) < FLYING {
                both.send(5, &read, asked, Some(asked), |packet| put_u32(packet, PIECE as u32));
                asked += PIECE as u64;
            }
            if both.flying.is_empty() {
                break;
            }
            both.take();
        }
        both.sftp.end();
    }

    fn open(&mut self, path: &Path, flags: u32) -> Vec<u8> {
        let mut open = vec![3, 0, 0, 0, 0];
        put_string(&mut open, path.to_str().unwrap().as_bytes());
        put_u32(&mut open, flags);
        put_u32(&mut open, 0);
        self.sftp.send(&open).unwrap();
        let reply = self.sftp.reply().expect("HANDLE");
        assert_eq!(reply[0], HANDLE, "{}: {reply:?}", path.display());
        Reader::new(&reply[5..]).string("handle").unwrap().to_vec()
    }

    fn in_flight(&self, reads: bool) -> usize {
        self.flying.values().filter(|from| from.is_some() == reads).count()
    }

    fn piece(&self, offset: u64) -> Vec<u8> {
        let mut bytes = vec![0; PIECE];
        self.source.read_exact_at(&mut bytes, offset).unwrap();
        bytes
    }

    fn send(&mut self, kind: u8, handle: &[u8], offset: u64, from: Option<u64>, rest: impl FnOnce(&mut Vec<u8>)) {
        let mut packet = [&[kind][..], &self.next.to_be_bytes()].concat();
        put_string(&mut packet, handle);
        packet.extend(offset.to_be_bytes());
        rest(&mut packet);
        self.sftp.send(&packet).expect("a session that takes requests");
        self.flying.insert(self.next, from);
        self.next += 1;
    }

    fn take(&mut self) {
        let reply = self.sftp.reply().expect("an answer");
        let id = u32::from_be_bytes(reply[1..5].try_into().unwrap());
        match self.flying.remove(&id).expect("an answer to a question") {
            None => assert_eq!((reply[0], code(&reply)), (STATUS, OK)),
            Some(offset) => {
                assert_eq!(reply[0], DATA, "READ at {offset}");
                assert!(reply[9..] == self.piece(offset), "READ at {offset}: other bytes");
            }
        }
    }
}

/// Two sessions of OpenSSH's sftp at the same time: one puts, one gets.
fn two_sessions(target: &Target, client: &Path) {
    std::thread::scope(|scope| {
        scope.spawn(|| target.sftp_within(LONG, "put source there\n").success());
        scope.spawn(|| target.sftp_within(LONG, "get source got\n").success());
    });
    assert_eq!(hash(&client.join("got")), hash(&client.join("source")), "what was got");
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name}: no number")))
}

#[test]
fn rekeying_at_every_64_kibibytes_by_all_four_peers_over_narrow_connections_loses_nothing() {
    let (seeds, first) = (number("REKEY_SEEDS", 2), number("REKEY_SEED", 1));
    let size = number("REKEY_MEBIBYTES", 4) << 20;
    for seed in first..first + seeds {
        let start = Instant::now();
        let (how, rekeys, widths) = transfer(seed, size);
        assert!(rekeys as u64 > size >> 17, "seed {seed}: {rekeys} key exchanges");
        let (library, mebibytes, seconds) = (library(), size >> 20, start.elapsed().as_secs_f32());
        println!(
            "seed {seed}, {library}: {mebibytes} MiB each way, {how}, {rekeys} key exchanges with the upstream: equal after {seconds:.1} s; {widths:?}"
        );
    }
}

/// Puts and gets so many bytes; returns how, and how often the upstream got new keys.
fn transfer(seed: u64, size: u64) -> (&'static str, usize, [Width; 2]) {
    // A world for each: the upstream has much to tell of so many key exchanges.
    let world = World::with(Setup { sshd: &[LIMIT, "LogLevel DEBUG1"], ..Setup::default() });
    let (source, there) = (world.client().join("source"), world.sshd.files.join("there"));
    big_file(&source, size);
    std::fs::copy(&source, world.sshd.files.join("source")).unwrap();
    let mut random = Random(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed) | 1);
    let widths = [Width::of(&mut random), Width::of(&mut random)];
    let legs = [(world.router.port, widths[0], 2 * seed), (world.sshd.port, widths[1], 2 * seed + 1)];
    let [near, far] = legs.map(|(to, width, seed)| Narrow::start(to, width, seed));
    let mut route = world.route();
    route.iter_mut().filter(|(name, _)| *name == "port").for_each(|(_, port)| *port = far.port.to_string());
    world.store.put(USER, &[&keys::ed25519(USER)], &route);
    let mut target = world.proxied(USER).with_option(&LIMIT.replace(' ', "="));
    target.port = near.port;
    let how = if seed.is_multiple_of(2) {
        Both::at_once(&target, &world.sshd.files, &File::open(&source).unwrap(), size);
        "one session both ways"
    } else {
        two_sessions(&target, &world.client());
        "two sessions"
    };
    assert_eq!(hash(&there), hash(&source), "seed {seed}: what was put");
    let lines = world.sshd.process.lines();
    (how, lines.iter().filter(|line| line.contains("SSH2_MSG_NEWKEYS received")).count(), widths)
}
