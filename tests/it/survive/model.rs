//! The model: transfers and changes in one session after another, whose upstream is cut at random amid each. What the client was told is
//! compared with the upstream's disk. `scripts/survive` makes it long.

use std::collections::BTreeSet;
use std::fs::{read, write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sftpproxy::sftp::OpenFlags;
use sftpproxy::sftp::reply::{DATA, EOF, FAILURE, NAME, OK, STATUS};
use sftpproxy::wire::Reader;

use super::client::{Client, handle, status};
use super::{PUT, world};
use crate::random::Random;
use crate::world::gate::Gate;
use crate::world::process::{LIMIT, until};
use crate::world::{Setup, USER, World};

/// Bytes of a transfer at most, of each of its pieces, and how many of these are on their way at a time.
const SIZE: usize = 1_500_000;
const PIECE: usize = 24_000;
const FLYING: usize = 12;

/// What came of one deed: done, or the first failure that was said.
type Outcome = Result<(), String>;

/// The texts with which the router may say that something is lost.
const SAID: [&str; 2] =
    ["the upstream was lost; it is not known whether this was done", "the upstream was lost, and the file cannot be proven"];

/// A failure that was said; any other is a fault of the test or of the router.
#[track_caller]
fn said(reply: &[u8]) -> String {
    let (code, text) = status(reply);
    assert!(code == FAILURE && SAID.iter().any(|said| text.contains(said)), "neither done nor said to be lost: {code} {text}");
    text
}

struct Model {
    world: World,
    gate: Gate,
    random: Random,
    client: Client,
    /// Answers until the upstream is cut; `None` = it was, or is not to be.
    left: Option<usize>,
    /// Differences in silence: what must not be.
    silent: Vec<String>,
}

impl Model {
    /// The next answer, before which the upstream may be cut.
    fn reply(&mut self, id: u32) -> Vec<u8> {
        if self.left == Some(0) {
            self.cut();
        }
        self.left = self.left.map(|left| left.saturating_sub(1));
        self.client.reply(id)
    }

    fn cut(&mut self) {
        self.left = None;
        match self.random.below(4) {
            0 => self.world.sshd.kill_sessions(),
            1 => {
                self.world.sshd.restart();
                self.gate.lead(self.world.sshd.port);
            }
            // The upstream's processes are there, and work on what they have.
            2 => self.gate.cut(),
            // Once more, perhaps while files are being opened again.
            _ => {
                self.world.sshd.kill_sessions();
                let pause = self.random.below(500) as u64;
                std::thread::sleep(Duration::from_millis(pause));
                self.world.sshd.kill_sessions();
            }
        }
    }

    /// Waits until every loss is over, of which there were so many at least; returns how many.
    fn calm(&self, least: usize) -> usize {
        let lines = |word: &str| self.world.router.lines().iter().filter(|line| line.contains(word)).count();
        let mut lost = 0;
        let is_calm = || {
            lost = lines("lost session=");
            lost >= least && lines("resumed session=") == lost
        };
        assert!(until(LIMIT, is_calm), "the upstream does not come back");
        lost
    }

    fn content(&mut self) -> Vec<u8> {
        let size = 1 + self.random.below(SIZE);
        let mut all = Vec::with_capacity(size + 8);
        while all.len() < size {
            all.extend((self.random.below(usize::MAX) as u64).to_be_bytes());
        }
        all.truncate(size);
        all
    }

    /// An upload of all from `from` on; with `eager` CLOSE follows the last WRITE without waiting for answers.
    fn upload(&mut self, path: &Path, content: &[u8], (from, flags): (usize, u32)) -> Outcome {
        let eager = self.random.below(2) == 0;
        let id = self.client.ask_open(path, flags);
        let reply = self.reply(id);
        let Some(handle) = handle(&reply) else { return Err(said(&reply)) };
        let mut offsets = (from..content.len()).step_by(PIECE).peekable();
        let (mut flying, mut close, mut failed) = (std::collections::VecDeque::new(), None, None);
        loop {
            while flying.len() < FLYING
                && let Some(at) = offsets.next()
            {
                let piece = &content[at..content.len().min(at + PIECE)];
                flying.push_back(self.client.write(&handle, at as u64, piece));
            }
            if offsets.peek().is_none() && close.is_none() && (eager || flying.is_empty()) {
                close = Some(self.client.close(&handle));
            }
            let Some(id) = flying.pop_front() else { break };
            let reply = self.reply(id);
            if status(&reply).0 != OK {
                failed.get_or_insert(said(&reply));
            }
        }
        let reply = self.reply(close.expect("sent when nothing else was"));
        if status(&reply).0 != OK {
            failed.get_or_insert(said(&reply));
        } else if failed.is_none() && read(path).unwrap_or_default() != content {
            self.silent.push(format!("{}: every answer was OK, and the file is another", path.display()));
        }
        failed.map_or(Ok(()), Err)
    }

    fn download(&mut self, path: &Path, content: &[u8]) -> Outcome {
        let id = self.client.ask_open(path, OpenFlags::READ);
        let reply = self.reply(id);
        let Some(handle) = handle(&reply) else { return Err(said(&reply)) };
        let mut offsets = (0..content.len()).step_by(PIECE);
        let (mut flying, mut failed) = (std::collections::VecDeque::new(), None);
        loop {
            while flying.len() < FLYING
                && let Some(at) = offsets.next()
            {
                let length = PIECE.min(content.len() - at);
                flying.push_back((at, length, self.client.read(&handle, at as u64, length as u32)));
            }
            let Some((at, length, id)) = flying.pop_front() else { break };
            let reply = self.reply(id);
            if reply[0] != DATA {
                failed.get_or_insert(said(&reply));
            } else if Reader::new(&reply[5..]).string("data").unwrap() != &content[at..at + length] {
                self.silent.push(format!("{}: other content at {at}", path.display()));
            }
        }
        let id = self.client.close(&handle);
        let reply = self.reply(id);
        if status(&reply).0 != OK {
            failed.get_or_insert(said(&reply));
        }
        failed.map_or(Ok(()), Err)
    }

    fn list(&mut self, folder: &Path) -> Outcome {
        let id = self.client.paths(11, &[folder]);
        let reply = self.reply(id);
        let Some(handle) = handle(&reply) else { return Err(said(&reply)) };
        let (mut names, mut failed) = (Vec::new(), None);
        loop {
            let id = self.client.handle(12, &handle);
            let reply = self.reply(id);
            if reply[0] == NAME {
                names.extend(listed(&reply));
            } else if status(&reply).0 == EOF {
                let expected: BTreeSet<_> =
                    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
                names.retain(|name| !name.starts_with('.'));
                if names.len() != expected.len() || names.iter().cloned().collect::<BTreeSet<_>>() != expected {
                    self.silent.push(format!("{} names, {} are there", names.len(), expected.len()));
                }
                break;
            } else {
                failed = Some(said(&reply));
                break;
            }
        }
        let id = self.client.close(&handle);
        let reply = self.reply(id);
        if status(&reply).0 != OK {
            failed.get_or_insert(said(&reply));
        }
        failed.map_or(Ok(()), Err)
    }

    /// MKDIR, RENAME, REMOVE and SETSTAT, all on their way at once.
    fn change(&mut self, number: usize) -> Outcome {
        let path = |name: &str| self.world.sshd.files.join(format!("{name}-{number}"));
        let [made, old, new, gone] = ["made", "old", "new", "gone"].map(path);
        write(&old, "old").unwrap();
        write(&gone, "gone").unwrap();
        let mut fields = Vec::new();
        sftpproxy::wire::put_string(&mut fields, made.to_str().unwrap().as_bytes());
        fields.extend([0; 4]);
        let ids = [
            self.client.request(14, &fields),
            self.client.paths(18, &[&old, &new]),
            self.client.paths(13, &[&gone]),
            self.client.paths(17, &[&self.world.sshd.files.clone()]),
        ];
        let done: [(&str, &dyn Fn() -> bool); 3] =
            [("mkdir", &|| made.is_dir()), ("rename", &|| new.is_file() && !old.exists()), ("remove", &|| !gone.exists())];
        let mut failed = None;
        for (id, (name, is_done)) in ids.into_iter().zip(done) {
            let reply = self.reply(id);
            if status(&reply).0 != OK {
                failed.get_or_insert(said(&reply));
            } else if !is_done() {
                self.silent.push(format!("{name} {number} was answered with OK and is not done"));
            }
        }
        let reply = self.reply(ids[3]);
        assert_ne!(reply[0], STATUS, "STAT is harmless: {reply:?}");
        failed.map_or(Ok(()), Err)
    }

    /// One deed with a cut amid it, and what came of it.
    fn step(&mut self, number: usize) -> (&'static str, Outcome) {
        let path: PathBuf = self.world.sshd.files.join(format!("file-{number}"));
        let content = self.content();
        let pieces = content.len().div_ceil(PIECE) + 2;
        match self.random.below(8) {
            0..3 => {
                self.left = Some(self.random.below(pieces));
                ("put", self.upload(&path, &content, (0, PUT)))
            }
            3 => {
                let from = self.random.below(content.len());
                write(&path, &content[..from]).unwrap();
                self.left = Some(self.random.below((content.len() - from).div_ceil(PIECE) + 2));
                ("resumed put", self.upload(&path, &content, (from, OpenFlags::WRITE)))
            }
            4..6 => {
                write(&path, &content).unwrap();
                self.left = Some(self.random.below(pieces));
                ("get", self.download(&path, &content))
            }
            6 => {
                self.left = Some(self.random.below(5));
                let folder = self.world.sshd.files.join("many");
                ("list", self.list(&folder))
            }
            _ => {
                self.left = Some(self.random.below(4));
                ("mkdir, rename, remove", self.change(number))
            }
        }
    }
}

/// The names in a NAME.
fn listed(reply: &[u8]) -> Vec<String> {
    let mut reader = Reader::new(&reply[5..]);
    let count = reader.u32("count").unwrap();
    let mut name = || {
        let name = String::from_utf8_lossy(reader.string("filename").unwrap()).into_owned();
        reader.string("longname").unwrap();
        sftpproxy::sftp::attributes::Attributes::read(&mut reader).unwrap();
        name
    };
    (0..count).map(|_| name()).collect()
}

fn number(name: &str, usual: usize) -> usize {
    std::env::var(name).map_or(usual, |text| text.parse().expect("a number"))
}

#[test]
fn whenever_the_upstream_is_cut_files_are_equal_or_the_failure_was_said() {
    let (cuts, seed) = (number("SURVIVE_CUTS", 20), number("SURVIVE_SEED", 1));
    let (world, gate) = world(60, Setup::default());
    let many = world.sshd.files.join("many");
    std::fs::create_dir(&many).unwrap();
    (0..250).for_each(|number| write(many.join(format!("{number}")), "").unwrap());
    let client = Client::start(&world.proxied(USER));
    let random = Random(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed as u64) | 1);
    let mut model = Model { world, gate, random, client, left: None, silent: Vec::new() };
    let mut table: Vec<(&str, [usize; 3])> = Vec::new();
    let mut resumed = 0;
    for number in 0..cuts {
        let (deed, outcome) = model.step(number);
        if model.left.is_some() {
            // There were fewer answers than thought; none are outstanding.
            model.cut();
        }
        let row = table.iter().position(|(name, _)| *name == deed).unwrap_or_else(|| {
            table.push((deed, [0; 3]));
            table.len() - 1
        });
        let counts = &mut table[row].1;
        (counts[0], counts[usize::from(outcome.is_err()) + 1]) = (counts[0] + 1, counts[usize::from(outcome.is_err()) + 1] + 1);
        resumed = model.calm(resumed + 1);
        assert!(model.silent.is_empty(), "seed {seed}, cut {number}, {deed}, {outcome:?}: {:?}", model.silent);
    }
    println!("survive: {:<24} {:>6} {:>6} {:>6}", "deed", "cuts", "whole", "said");
    for (name, [all, whole, said]) in &table {
        println!("survive: {name:<24} {all:>6} {whole:>6} {said:>6}");
    }
    let sum = |at: usize| table.iter().map(|(_, counts)| counts[at]).sum::<usize>();
    println!(
        "survive: {:<24} {:>6} {:>6} {:>6}   resumed {resumed}, silent differences {}",
        "all",
        sum(0),
        sum(1),
        sum(2),
        model.silent.len()
    );
    assert!(sum(1) * 2 > cuts, "most transfers go on: {table:?}");
    model.client.end();
}
