//! One session through two relays: it logs in, waits, puts a file, gets another and leaves, until a fault ends it. Then what is said of it
//! is compared with what was to be expected, and what it was told with the disk.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sftpproxy::sftp::OpenFlags;
use sftpproxy::sftp::reply::{DATA, HANDLE, STATUS};
use sftpproxy::wire::{Reader, put_string, put_u32};

use super::expected::expected;
use super::places::{Places, more};
use super::{Cell, Leg, Stage};
use crate::acknowledged::{FLYING, PIECE, Told, missing, piece, put};
use crate::world::World;
use crate::world::clients::Target;
use crate::world::process::{LIMIT, until};
use crate::world::sftp::Sftp;
use crate::world::toxic::{Direction, Relay, Toxic};

/// How long after a fault a session may last: the longest limit that it can come to, and then what the router takes to deliver what it holds
/// (10 s without progress) and to part from a client (2 s), on a busy machine.
const BOUND: Duration = Duration::from_secs(15 + 25);

/// How long a client may take to hear of an end that the log has.
const NEWS: Duration = Duration::from_secs(2);

/// A client with its way through the router.
pub struct Worker {
    target: Target,
    /// In front of the router, and in front of the sshd.
    relays: [Relay; 2],
}

/// What has become of a session.
#[derive(Debug)]
pub struct Outcome {
    /// It went on to its end (`true`) or ended as expected; or what is wrong.
    pub verdict: Result<bool, String>,
    /// From the fault to the end line.
    pub took: Option<Duration>,
}

impl Outcome {
    /// The cell in the table.
    pub fn sign(&self) -> char {
        match self.verdict {
            Ok(true) => '=',
            Ok(false) => 'x',
            Err(_) => '!',
        }
    }
}

/// What the client knows.
#[derive(Default)]
struct Known {
    told: Told,
    /// Pieces that came, and the first that is not what it should be.
    got: Vec<usize>,
    altered: Option<usize>,
    /// It was answered what it cannot be answered; its panic is on standard error.
    astonished: bool,
}

/// How the session ended, by the log.
struct Ended {
    line: String,
    at: Instant,
}

impl Worker {
    pub fn new(target: Target, relays: [Relay; 2]) -> Self {
        Self { target, relays }
    }

    /// Runs a session without a fault, and learns where its stages begin.
    pub fn learn_places(&self, world: &World, content: &[u8]) -> [Places; 2] {
        let sftp = Sftp::open(&self.target);
        let places = [Places::of(&self.relays[0], Leg::Downstream), Places::of(&self.relays[1], Leg::Upstream)];
        sftp.end();
        assert_eq!(self.run((world, content), None, &places).verdict, Ok(true), "without a fault");
        places
    }

    /// Runs one session, with a fault or without.
    pub fn run(&self, (world, content): (&World, &[u8]), cell: Option<Cell>, places: &[Places; 2]) -> Outcome {
        let name = |cell: Cell| format!("{:?}-{:?}-{:?}-{}", cell.fault, cell.leg, cell.stage, cell.seed);
        let path = world.sshd.files.join(cell.map_or(format!("plain-{}", self.target.user), name));
        let mut random = cell.map(Cell::random).unwrap_or_default();
        self.relays.iter().for_each(|relay| relay.plan(None));
        if let Some(cell) = cell {
            self.relays[cell.leg as usize].plan(places[cell.leg as usize].plan(cell, &mut random));
        }
        let (started, before) = (Instant::now(), (world.router.count(), self.relays[0].connections()));
        let sftp = Sftp::start(&self.target);
        let (pid, left, mut known) = (sftp.pid(), AtomicBool::new(false), Known::default());
        let ended = std::thread::scope(|scope| {
            let watching = scope.spawn(|| {
                let ended = self.wait_for_end(world, before);
                // A client that can hear of it no more would wait for ever.
                if !until(if ended.is_ok() { NEWS } else { Duration::ZERO }, || left.load(Ordering::SeqCst)) {
                    let _ = kill(Pid::from_raw(pid.try_into().unwrap()), Signal::SIGKILL);
                }
                ended
            });
            let mut strikes = |stage| {
                let cell = cell.filter(|cell| cell.stage == stage);
                if let Some(cell) = cell {
                    let toxic = cell.fault.toxic(&mut random);
                    self.relays[cell.leg as usize].strike(toxic, cell.direction(), more(cell, &mut random));
                }
            };
            let talk = || talk(sftp, &mut known, (path.to_str().unwrap(), content), &mut strikes);
            let talked = catch_unwind(AssertUnwindSafe(talk));
            known.astonished = talked.is_err();
            left.store(true, Ordering::SeqCst);
            watching.join().expect("the log's reader")
        });
        let struck = cell.and_then(|cell| self.relays[cell.leg as usize].struck().filter(|struck| *struck >= started));
        self.relays.iter().for_each(|relay| relay.strike(Toxic::Cut, Direction::Up, 0));
        let took = struck.zip(ended.as_ref().ok()).map(|(struck, ended)| ended.at.saturating_duration_since(struck));
        let verdict = ended.and_then(|ended| {
            if cell.is_some() && struck.is_none() {
                return Err(format!("the fault has not come: {}", ended.line));
            }
            if took.is_some_and(|took| took > BOUND) {
                return Err(format!("{took:?} after the fault: {}", ended.line));
            }
            known.check(&path, content).and_then(|()| judge(cell, &known, &ended.line))
        });
        let _ = std::fs::remove_file(path);
        Outcome { verdict, took }
    }

    /// The end line of the next session behind so many lines and connections; ports come again.
    fn wait_for_end(&self, world: &World, (lines, connections): (usize, usize)) -> Result<Ended, String> {
        if !until(LIMIT, || self.relays[0].connections() > connections) {
            return Err("the client has not connected".to_owned());
        }
        let accept = format!("] accept session=* peer=127.0.0.1:{} ", self.relays[0].goes_from());
        let line = world.router.finds(lines, &accept, LIMIT).ok_or("no line of its accept")?;
        let number = line.split("session=").nth(1).and_then(|rest| rest.split(' ').next()).expect("a number").to_owned();
        let line = world.router.finds(lines, &format!("] end session={number} "), LIMIT + BOUND).ok_or_else(|| {
            let seen: Vec<_> = world.router.lines();
            let own = seen.into_iter().filter(|line| line.contains(&format!("session={number} ")));
            format!("does not end:\n{}", own.collect::<Vec<_>>().join("\n"))
        })?;
        Ok(Ended { line, at: Instant::now() })
    }
}

/// Whether the end line is one of those that are expected; `true` = the session went on to its end.
fn judge(cell: Option<Cell>, known: &Known, line: &str) -> Result<bool, String> {
    let Some(cell) = cell else { return known.is_all().then_some(true).ok_or_else(|| line.to_owned()) };
    let expected = expected(cell);
    let as_said = |(side, stage): &(&str, &str)| line.contains(&format!(" side={side} stage=\"{stage}\" "));
    let is_proper = line.contains(" side=downstream stage=\"relay\" reason=\"the client closed the session\"");
    if expected.goes_on && known.is_all() && (is_proper || expected.ends.iter().any(as_said)) {
        return Ok(true);
    }
    // Before the client leaves nobody may think that all is done.
    if expected.ends.iter().any(as_said) && (!known.is_all() || cell.stage == Stage::Close) {
        return Ok(false);
    }
    let all = if known.is_all() { "all" } else { "not all" };
    Err(format!(
        "expected {:?}{}, the client has {all}: {line}",
        expected.ends,
        if expected.goes_on { " or its end" } else { "" }
    ))
}

impl Known {
    fn is_all(&self) -> bool {
        self.told.closed && self.got.len() == self.told.written.len() && self.altered.is_none()
    }

    /// Compares with the disk: what was acknowledged is there, and each piece is there as it was sent, or not at all.
    fn check(&self, path: &std::path::Path, content: &[u8]) -> Result<(), String> {
        if self.astonished {
            return Err("the client has panicked".to_owned());
        }
        if let Some(number) = self.altered {
            return Err(format!("piece {number} has come altered"));
        }
        let ranges: Vec<_> = self.told.written.iter().map(|number| piece(*number)).collect();
        if let Some(range) = missing(path, content, &ranges) {
            return Err(format!("{range:?} was acknowledged and is not stored"));
        }
        let whole = |bytes: &[u8], number: usize| {
            let range = piece(number);
            let there = bytes.get(range.start..range.end.min(bytes.len())).unwrap_or_default();
            there == &content[range] || there.iter().all(|&byte| byte == 0)
        };
        // The sshd may be about to write one that the router has lost interest in.
        let sound = || {
            let stored = std::fs::read(path).unwrap_or_default();
            stored.len() <= content.len() && (0..content.len().div_ceil(PIECE)).all(|number| whole(&stored, number))
        };
        if until(LIMIT, sound) { Ok(()) } else { Err("what is stored is not what was sent".to_owned()) }
    }
}

/// The client's part; `strikes` is told of each stage. It ends when the session does.
fn talk(mut sftp: Sftp, known: &mut Known, (path, content): (&str, &[u8]), strikes: &mut dyn FnMut(Stage)) {
    let mut go_on = || {
        sftp.reply()?;
        strikes(Stage::Idle);
        let mut amid = |written: usize| {
            if written == content.len() / PIECE / 2 {
                strikes(Stage::Put)
            }
        };
        put(&mut sftp, &mut known.told, (path, content), false, &mut amid)?;
        get(&mut sftp, known, content, strikes)
    };
    let done = go_on().is_some();
    if done {
        strikes(Stage::Close);
        sftp.end();
        return;
    }
    // Whatever still comes, also after sending has failed; a client that was told why leaves.
    while !known.told.refused
        && let Some(reply) = sftp.reply()
    {
        if reply[0] == STATUS && !known.told.closed {
            known.told.note(&reply);
        }
    }
}

/// Gets the file `source`, several pieces at a time. `None` = it was cut.
fn get(sftp: &mut Sftp, known: &mut Known, content: &[u8], strikes: &mut dyn FnMut(Stage)) -> Option<()> {
    let mut open = vec![3, 0, 0, 0, 0];
    put_string(&mut open, b"source");
    put_u32(&mut open, OpenFlags::READ);
    put_u32(&mut open, 0);
    sftp.send(&open).ok()?;
    let reply = sftp.reply()?;
    assert_eq!(reply[0], HANDLE);
    let handle = Reader::new(&reply[5..]).string("handle").unwrap().to_vec();
    let count = content.len().div_ceil(PIECE);
    let mut asked = 0;
    while known.got.len() < count {
        while asked < count && asked - known.got.len() < FLYING {
            let mut read = [&[5][..], &(asked as u32).to_be_bytes()].concat();
            put_string(&mut read, &handle);
            read.extend((asked * PIECE).to_be_bytes());
            put_u32(&mut read, piece(asked).len() as u32);
            sftp.send(&read).ok()?;
            asked += 1;
        }
        let reply = sftp.reply()?;
        assert_eq!(reply[0], DATA);
        let number = u32::from_be_bytes(reply[1..5].try_into().unwrap()) as usize;
        if Reader::new(&reply[5..]).string("content").ok() != content.get(piece(number)) {
            known.altered = Some(number);
        }
        known.got.push(number);
        if known.got.len() == count / 2 {
            strikes(Stage::Get);
        }
    }
    Some(())
}
