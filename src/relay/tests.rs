//! The relay between two legs in memory, which do by chance all that a leg may: little at a time, nothing at all, bursts, and errors.
//! Chance comes from a seed, which a failure tells. A wake-up that is lost is a session that does not end, and a test that fails.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::*;

mod answers;
mod orders;

/// How long one session may take: far above what it takes, so that it only ends what hangs.
const LIMIT: Duration = Duration::from_secs(30);

/// Marsaglia's xorshift.
#[derive(Clone)]
struct Chance(u64);

impl Chance {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 16
    }

    /// A number below `limit`.
    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}

/// How a leg behaves.
#[derive(Clone, Copy)]
struct Habit {
    /// Bytes that it gives or takes at a time, at most.
    piece: usize,
    /// One call in so many does nothing.
    shy: usize,
    /// The call that fails.
    fails_at: usize,
}

const PLAIN: Habit = Habit { piece: usize::MAX, shy: usize::MAX, fails_at: usize::MAX };

/// A leg over a socket pair. As a library does, it reads more than it is asked for and holds it where poll(2) does not see it.
struct Memory {
    socket: UnixStream,
    side: Side,
    chance: Chance,
    habit: Habit,
    held: Vec<u8>,
    /// The socket was read empty, and poll(2) has not said since that it has more: it is not asked again before.
    dry: bool,
    eof: bool,
    calls: usize,
    told: Arc<Told>,
}

/// What a leg has seen, for the test.
#[derive(Default)]
struct Told {
    taken: AtomicUsize,
    put: AtomicUsize,
    exit: AtomicUsize,
    explained: Mutex<String>,
}

impl Memory {
    /// The leg and its peer.
    fn new(side: Side, habit: Habit, seed: u64) -> (Self, UnixStream) {
        let (socket, peer) = UnixStream::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        let (chance, told) = (Chance::new(seed ^ side as u64), Arc::default());
        (Self { socket, side, chance, habit, held: Vec::new(), dry: false, eof: false, calls: 0, told }, peer)
    }

    fn call(&mut self) -> Result<bool, String> {
        self.calls += 1;
        if self.calls >= self.habit.fails_at {
            return Err("broken".into());
        }
        Ok(!self.chance.one_in(self.habit.shy))
    }

    fn piece(&mut self, most: usize) -> usize {
        most.min(1 + self.chance.below(self.habit.piece))
    }

    fn fill(&mut self) -> Result<bool, String> {
        if self.dry {
            return Ok(false);
        }
        let mut bytes = [0; 40_000];
        match self.socket.read(&mut bytes) {
            Ok(0) => self.eof = true,
            Ok(count) => self.held.extend_from_slice(&bytes[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.dry = true;
                return Ok(false);
            }
            // A peer that closed with bytes unread.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => self.eof = true,
            Err(error) => return Err(error.to_string()),
        }
        Ok(true)
    }

    /// Both directions are over.
    fn hung_up(&self) -> bool {
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::empty())];
        poll(&mut fds, PollTimeout::ZERO).unwrap();
        fds[0].revents().unwrap().contains(PollFlags::POLLHUP)
    }
}

impl Leg for Memory {
    fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    fn advance(&mut self, ready: bool) -> Result<bool, String> {
        self.dry &= !ready;
        // A burst, and no more than a window.
        Ok(self.call()? && !self.eof && self.held.len() < 100_000 && self.fill()?)
    }

    fn take(&mut self, buffer: &mut Vec<u8>) -> Result<Taken, String> {
        if self.held.is_empty() && !self.eof && (!self.call()? || !self.fill()?) {
            return Ok(Taken::Nothing);
        }
        if self.held.is_empty() && self.eof {
            return Ok(Taken::Eof);
        }
        let room = buffer.capacity() - buffer.len();
        let count = self.piece(room.min(self.held.len()));
        buffer.extend(self.held.drain(..count));
        self.told.taken.fetch_add(count, Ordering::SeqCst);
        Ok(Taken::Bytes(count))
    }

    fn put(&mut self, bytes: &[u8]) -> Result<usize, String> {
        if !self.call()? {
            return Ok(0);
        }
        let count = self.piece(bytes.len());
        match self.socket.write(&bytes[..count]) {
            Ok(count) => {
                self.told.put.fetch_add(count, Ordering::SeqCst);
                Ok(count)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(error.to_string()),
        }
    }

    fn put_eof(&mut self) -> Result<bool, String> {
        if !self.call()? {
            return Ok(false);
        }
        // A socket has no EOF that is not half a close: to a client it is said with the exit status.
        if self.side == Side::Upstream {
            self.socket.shutdown(Shutdown::Write).map_err(|error| error.to_string())?;
        }
        Ok(true)
    }

    fn put_exit(&mut self, status: i32) -> Result<(), String> {
        if self.side == Side::Downstream {
            self.told.exit.store(status as usize, Ordering::SeqCst);
            let _ = self.socket.shutdown(Shutdown::Write);
        }
        Ok(())
    }

    fn exit(&mut self) -> Result<Option<i32>, String> {
        let over = match self.side {
            // As sshd, which closes when its program has said and heard everything.
            Side::Upstream => self.eof,
            _ => self.hung_up(),
        };
        Ok(over.then_some(7))
    }

    fn finished(&mut self) -> bool {
        self.hung_up()
    }

    fn interest(&self, wants: Wants) -> PollFlags {
        // A hang-up is told always; to ask for nothing would leave the socket out.
        let mut events = PollFlags::POLLPRI;
        events.set(PollFlags::POLLIN, wants.take && !self.eof);
        events.set(PollFlags::POLLOUT, wants.put);
        events
    }

    fn explain(&mut self, reason: &str) {
        reason.clone_into(&mut self.told.explained.lock().unwrap());
    }
}

/// The two peers' bytes are different everywhere and known to both.
fn bytes_of(seed: u64, count: usize) -> Vec<u8> {
    let mut chance = Chance::new(seed);
    (0..count).map(|_| chance.next() as u8).collect()
}

/// What a session came to.
struct Outcome {
    reason: Fault,
    bytes: (u64, u64),
    took: Duration,
}

/// Relays between two legs, each in its thread, as a session does; `peers` plays both peers meanwhile.
#[track_caller]
fn session(seed: u64, legs: (Memory, Memory), peers: impl FnOnce() + Send + 'static) -> Outcome {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let control = Control::new().unwrap();
        let (down, up) = halves(&control);
        let (mut down_leg, mut up_leg) = legs;
        let started = Instant::now();
        let bytes = thread::scope(|scope| {
            let upstream = scope.spawn(|| run(&control, up, &mut up_leg));
            let downstream = scope.spawn(|| run(&control, down, &mut down_leg));
            peers();
            (downstream.join().unwrap(), upstream.join().unwrap())
        });
        let _ = sender.send(Outcome { reason: control.reason().unwrap(), bytes, took: started.elapsed() });
    });
    receiver.recv_timeout(LIMIT).unwrap_or_else(|_| panic!("seed {seed}: the session does not end, or its peers have failed"))
}

fn run(control: &Control, half: Half, leg: &mut Memory) -> u64 {
    let side = half.side;
    let bytes = half.run(leg, &mut |_: &mut Vec<u8>| Ok(()), &|| None);
    // What a session does when the leg goes, and before it says that it is done.
    let _ = leg.socket.shutdown(Shutdown::Both);
    control.done(side);
    bytes
}

fn habit(chance: &mut Chance) -> Habit {
    let piece = [1, 100, 33_000, 300_000][chance.below(4)];
    Habit { piece, shy: 2 + chance.below(20), fails_at: usize::MAX }
}

/// Sends in pieces and says EOF.
fn say(peer: &UnixStream, bytes: &[u8], mut chance: Chance) {
    let mut from = 0;
    while from < bytes.len() {
        let count = (bytes.len() - from).min(1 + chance.below(50_000));
        (&*peer).write_all(&bytes[from..from + count]).unwrap();
        from += count;
        if chance.one_in(8) {
            thread::yield_now();
        }
    }
    peer.shutdown(Shutdown::Write).unwrap();
}

/// Reads in pieces up to EOF.
fn hear(mut peer: &UnixStream, mut chance: Chance) -> Vec<u8> {
    let (mut bytes, mut piece) = (Vec::new(), vec![0; 60_000]);
    loop {
        let most = 1 + chance.below(piece.len());
        match peer.read(&mut piece[..most]) {
            Ok(count @ 1..) => bytes.extend_from_slice(&piece[..count]),
            _ => return bytes,
        }
    }
}

#[test]
fn whatever_the_legs_do_all_bytes_arrive_in_order_and_both_halves_end() {
    for seed in 0..30 {
        let mut chance = Chance::new(seed);
        let (down, client) = Memory::new(Side::Downstream, habit(&mut chance), seed);
        let (up, sshd) = Memory::new(Side::Upstream, habit(&mut chance), seed);
        // One byte at a time is slow, and tells as much with fewer of them.
        let most = if down.habit.piece == 1 || up.habit.piece == 1 { 50_000 } else { 1_500_000 };
        let (requests, replies) = (bytes_of(seed, chance.below(most)), bytes_of(seed + 1000, chance.below(most)));
        let expected = (replies.len() as u64, requests.len() as u64);
        let exit = Arc::clone(&down.told);
        let outcome = session(seed, (down, up), move || {
            thread::scope(|scope| {
                // The sshd ends when it has heard everything, the client says EOF and hears on.
                let heard = scope.spawn(|| hear(&client, Chance::new(seed + 1)));
                scope.spawn(|| say(&client, &requests, Chance::new(seed + 2)));
                let sshd_heard = scope.spawn(|| hear(&sshd, Chance::new(seed + 3)));
                let sent = {
                    let (bytes, all) = replies.split_at(replies.len() / 2);
                    (&sshd).write_all(bytes).unwrap();
                    assert!(sshd_heard.join().unwrap() == requests, "seed {seed}: requests");
                    all
                };
                say(&sshd, sent, Chance::new(seed + 4));
                assert!(heard.join().unwrap() == replies, "seed {seed}: replies");
            });
        });
        assert_eq!(outcome.bytes, expected, "seed {seed}");
        assert_eq!(outcome.reason.what, "the client closed the session", "seed {seed}");
        assert_eq!(exit.exit.load(Ordering::SeqCst), 7, "seed {seed}: exit status");
    }
}

#[test]
fn what_the_upstream_said_before_it_closed_reaches_a_client_that_speaks_on() {
    for seed in 0..40 {
        let mut chance = Chance::new(seed);
        let (down, client) = Memory::new(Side::Downstream, Habit { piece: 20_000, ..habit(&mut chance) }, seed);
        let (up, sshd) = Memory::new(Side::Upstream, Habit { piece: 20_000, ..habit(&mut chance) }, seed);
        let replies = bytes_of(seed, 700_000);
        let outcome = session(seed, (down, up), move || {
            thread::scope(|scope| {
                let heard = scope.spawn(|| hear(&client, Chance::new(seed + 1)));
                say(&sshd, &replies, Chance::new(seed + 2));
                assert!(heard.join().unwrap() == replies, "seed {seed}");
            });
            // A client that was told the end closes too: here, where it goes.
            drop(client);
        });
        assert_eq!(outcome.reason.what, "the upstream closed the session", "seed {seed}");
    }
}

#[test]
fn buffers_on_their_way_never_exceed_their_bound_while_a_peer_does_not_read() {
    for (seed, from_client) in [(1, true), (2, false)] {
        let (down, client) = Memory::new(Side::Downstream, PLAIN, seed);
        let (up, sshd) = Memory::new(Side::Upstream, PLAIN, seed);
        let (down_told, up_told) = (Arc::clone(&down.told), Arc::clone(&up.told));
        let (speaker, deaf, taken, put) =
            if from_client { (client, sshd, down_told, up_told) } else { (sshd, client, up_told, down_told) };
        let (all, told) = (bytes_of(seed, 4 << 20), (Arc::clone(&taken), Arc::clone(&put)));
        session(seed, (down, up), move || {
            thread::scope(|scope| {
                scope.spawn(|| say(&speaker, &all, Chance::new(seed)));
                let held = || told.0.taken.load(Ordering::SeqCst) - told.1.put.load(Ordering::SeqCst);
                // The sender is stopped when nothing moves any more: then the buffers are full, and hold what they may.
                let (mut last, mut since) = (held(), Instant::now());
                while since.elapsed() < Duration::from_millis(300) {
                    thread::yield_now();
                    // One buffer beyond the channel's is in the hands of the thread that puts.
                    assert!(held() <= (DEPTH + 1) * BUFFER, "{} bytes are on their way", held());
                    if held() != last {
                        (last, since) = (held(), Instant::now());
                    }
                }
                assert!(last > DEPTH * BUFFER / 4, "only {last} bytes are on their way: the test has tested nothing");
                assert!(hear(&deaf, Chance::new(seed)) == all);
                drop(deaf);
            });
            drop(speaker);
        });
    }
}

#[test]
fn a_leg_that_fails_at_any_call_ends_the_other_one_within_the_bound() {
    for seed in 0..60 {
        let mut chance = Chance::new(seed);
        let (side, fails_at) = ([Side::Downstream, Side::Upstream][seed as usize % 2], 1 + chance.below(8));
        let habits = [habit(&mut chance), habit(&mut chance)].map(|habit| Habit { piece: habit.piece.max(100), ..habit });
        let failing = |of: Side, habit: Habit| if of == side { Habit { fails_at, ..habit } } else { habit };
        let (down, client) = Memory::new(Side::Downstream, failing(Side::Downstream, habits[0]), seed);
        let (up, sshd) = Memory::new(Side::Upstream, failing(Side::Upstream, habits[1]), seed);
        let outcome = session(seed, (down, up), move || {
            // Peers that never read and never leave: the leg that has not failed may wait for them no longer than the bound.
            for mut peer in [&client, &sshd] {
                peer.set_nonblocking(true).unwrap();
                let _ = peer.write(&bytes_of(seed, 200_000));
            }
            for peer in [&client, &sshd] {
                let mut fds = [PollFd::new(peer.as_fd(), PollFlags::POLLHUP)];
                poll(&mut fds, PollTimeout::try_from(LIMIT).unwrap()).unwrap();
            }
        });
        assert_eq!((outcome.reason.side, outcome.reason.what.as_str()), (side, "broken"), "seed {seed}");
        assert!(outcome.took < LINGER * 20, "seed {seed}: took {:?}", outcome.took);
    }
}

#[test]
fn a_cut_ends_both_halves_at_once_and_its_reason_stands() {
    let (mut down, client) = Memory::new(Side::Downstream, PLAIN, 1);
    let (mut up, sshd) = Memory::new(Side::Upstream, PLAIN, 1);
    let control = Control::new().unwrap();
    let (ours, theirs) = halves(&control);
    let started = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| run(&control, ours, &mut down));
        scope.spawn(|| run(&control, theirs, &mut up));
        control.cut(Fault::new(Side::Router, Stage::Relay, "stopped"));
    });
    assert!(started.elapsed() < LINGER, "took {:?}", started.elapsed());
    assert_eq!(control.reason().unwrap().what, "stopped");
    drop((client, sshd));
}

#[test]
fn a_user_whose_upstream_cannot_be_had_is_told_why_and_given_status_1() {
    let (mut down, client) = Memory::new(Side::Downstream, PLAIN, 1);
    let control = Control::new().unwrap();
    let (ours, theirs) = halves(&control);
    thread::scope(|scope| {
        scope.spawn(|| run(&control, ours, &mut down));
        control.end(Fault::new(Side::Upstream, Stage::Dial, "the inside"));
        drop(theirs);
        control.done(Side::Upstream);
        assert!(hear(&client, Chance::new(1)).is_empty());
        client.shutdown(Shutdown::Both).unwrap();
    });
    assert_eq!(*down.told.explained.lock().unwrap(), "your server cannot be reached; please tell your administrator");
    assert_eq!(down.told.exit.load(Ordering::SeqCst), 1);
}

/// A leg whose other side goes just when it has found nothing to do.
struct Last(Memory, Option<(Arc<Control>, Half)>);

impl Leg for Last {
    fn fd(&self) -> RawFd {
        self.0.fd()
    }
    fn advance(&mut self, _ready: bool) -> Result<bool, String> {
        Ok(false)
    }
    fn take(&mut self, _: &mut Vec<u8>) -> Result<Taken, String> {
        if let Some((control, half)) = self.1.take() {
            drop(half);
            control.done(Side::Upstream);
        }
        Ok(Taken::Nothing)
    }
    fn put(&mut self, bytes: &[u8]) -> Result<usize, String> {
        self.0.put(bytes)
    }
    fn put_eof(&mut self) -> Result<bool, String> {
        self.0.put_eof()
    }
    fn put_exit(&mut self, status: i32) -> Result<(), String> {
        self.0.put_exit(status)
    }
    fn exit(&mut self) -> Result<Option<i32>, String> {
        self.0.exit()
    }
    fn finished(&mut self) -> bool {
        self.0.finished()
    }
    fn interest(&self, wants: Wants) -> PollFlags {
        self.0.interest(wants)
    }
}

#[test]
fn the_other_sides_end_is_seen_also_in_the_moment_before_sleep() {
    let (memory, client) = Memory::new(Side::Downstream, PLAIN, 1);
    let control = Control::new().unwrap();
    let (ours, theirs) = halves(&control);
    let mut leg = Last(memory, Some((Arc::clone(&control), theirs)));
    let (started, told) = (Instant::now(), Arc::clone(&leg.0.told));
    // As during a login, when a deadline far away holds.
    ours.run(&mut leg, &mut |_: &mut Vec<u8>| Ok(()), &|| Some(started + LINGER * 20));
    assert!(started.elapsed() < LINGER * 10, "took {:?}", started.elapsed());
    assert_eq!(told.exit.load(Ordering::SeqCst), 1);
    drop(client);
}
