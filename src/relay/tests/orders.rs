//! Wake-ups, the control and both halves in every order that shuttle makes of the threads. A wake-up that is lost is a thread that sleeps
//! for ever, since no time passes there.

use std::sync::atomic::AtomicU64;

use shuttle::rand::Rng as _;
use shuttle::thread::{self, JoinHandle};

use super::*;
use crate::order::explored::{explore, patiently};

/// Orders of threads that are tried of the small tests, and of whole sessions.
const SCHEDULES: usize = 500;
const SESSIONS: usize = 100;

/// A few bytes at a time, so that the channels between the halves fill up.
const SMALL: Habit = Habit { piece: 3, shy: 4, fails_at: usize::MAX };

/// Bytes that the client sends and gets back.
const BYTES: usize = 48;

fn stopped() -> Fault {
    Fault::new(Side::Router, Stage::Relay, "stopped")
}

#[test]
fn in_every_order_of_threads_a_thread_that_sleeps_sees_what_was_written_before_it_was_woken() {
    explore(SCHEDULES, || {
        let control = Control::new().unwrap();
        let said = Arc::new([AtomicBool::new(false), AtomicBool::new(false)]);
        let speak = |which: usize| {
            let (control, said) = (Arc::clone(&control), Arc::clone(&said));
            thread::spawn(move || {
                said[which].store(true, Ordering::SeqCst);
                control.wake_of(Side::Upstream).wake();
            })
        };
        let speakers = [speak(0), speak(1)];
        for which in &*said {
            while !which.load(Ordering::SeqCst) {
                let idle = || !which.load(Ordering::SeqCst);
                control.wake_of(Side::Upstream).sleep(-1, PollFlags::empty(), None, idle).unwrap();
            }
        }
        speakers.into_iter().for_each(|speaker| speaker.join().unwrap());
    });
}

#[test]
fn in_every_order_of_threads_a_cut_ends_both_threads_and_shuts_the_upstreams_socket_unless_it_was_given_back_before() {
    explore(SCHEDULES, || {
        let control = Control::new().unwrap();
        let (socket, mut peer) = UnixStream::pair().unwrap();
        peer.set_nonblocking(true).unwrap();
        let spawn = |act: fn(&Control)| {
            let control = Arc::clone(&control);
            thread::spawn(move || act(&control))
        };
        let downstream = spawn(|control| sleep_until_cut(control, Side::Downstream));
        let cutter = spawn(|control| control.cut(stopped()));
        control.hold(TcpStream::from(std::os::fd::OwnedFd::from(socket)));
        let given_back = shuttle::rand::thread_rng().gen_bool(0.5).then(|| control.release());
        // No cut has begun: it comes too late for this socket.
        let too_late = given_back.is_some() && !control.is_cut();
        sleep_until_cut(&control, Side::Upstream);
        [downstream, cutter].into_iter().for_each(|thread| thread.join().unwrap());
        let shut = matches!(peer.read(&mut [0]), Ok(0));
        assert!(!(too_late && shut), "a cut has ended what was given back before it");
        assert!(shut || given_back.is_some(), "the upstream's socket is still open");
        assert_eq!(control.reason().unwrap().what, "stopped");
    });
}

fn sleep_until_cut(control: &Control, side: Side) {
    while !control.is_cut() {
        control.wake_of(side).sleep(-1, PollFlags::empty(), None, || !control.is_cut()).unwrap();
    }
}

/// What came of a session, and what its client heard.
struct Came {
    reason: Fault,
    bytes: (u64, u64),
    heard: Vec<u8>,
}

/// A session in threads of shuttle's. Its upstream says again what it hears: piece by piece, or `late`, when it has heard everything.
/// Somebody may cut it meanwhile.
fn echoed(seed: u64, [down, up]: [Habit; 2], is_late: bool, is_cut: bool) -> Came {
    let (down, client) = Memory::new(Side::Downstream, down, seed);
    let (up, sshd) = Memory::new(Side::Upstream, up, seed);
    [&client, &sshd].into_iter().for_each(|peer| peer.set_nonblocking(true).unwrap());
    let control = Control::new().unwrap();
    let (ours, theirs) = halves(&control);
    let half = |half: Half, mut leg: Memory| -> JoinHandle<u64> {
        let control = Arc::clone(&control);
        thread::spawn(move || run(&control, half, &mut leg))
    };
    let (downstream, upstream) = (half(ours, down), half(theirs, up));
    let echo = thread::spawn(move || {
        let mut held = Vec::new();
        while let Some(bytes) = listen(&sshd, 5) {
            held.extend(bytes);
            if !is_late {
                speak(&sshd, &std::mem::take(&mut held));
            }
        }
        held.chunks(7).for_each(|bytes| speak(&sshd, bytes));
        let _ = sshd.shutdown(Shutdown::Both);
    });
    let cutter = is_cut.then(|| {
        let control = Arc::clone(&control);
        thread::spawn(move || control.cut(stopped()))
    });
    for bytes in bytes_of(seed, BYTES).chunks(7) {
        speak(&client, bytes);
    }
    let _ = client.shutdown(Shutdown::Write);
    let heard = std::iter::from_fn(|| listen(&client, 9)).flatten().collect();
    // One who was told the end closes too.
    let _ = client.shutdown(Shutdown::Both);
    [Some(echo), cutter].into_iter().flatten().for_each(|thread| thread.join().unwrap());
    let bytes = (downstream.join().unwrap(), upstream.join().unwrap());
    Came { reason: control.reason().unwrap(), bytes, heard }
}

/// Hears something, at most so many bytes. `None` = nothing more will come.
fn listen(mut peer: &UnixStream, most: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; most];
    let count = patiently(|| match peer.read(&mut bytes) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        read => Some(read.unwrap_or_default()),
    });
    bytes.truncate(count);
    Some(bytes).filter(|bytes| !bytes.is_empty())
}

/// Some bytes always fit into the socket; they go nowhere when the other end has gone.
fn speak(mut peer: &UnixStream, bytes: &[u8]) {
    let _ = peer.write_all(bytes);
    thread::yield_now();
}

#[test]
fn in_every_order_of_threads_all_bytes_arrive_in_order_and_both_halves_end() {
    let (seeds, judged) = (AtomicU64::new(0), Arc::new(AtomicUsize::new(0)));
    let done = Arc::clone(&judged);
    explore(SESSIONS, move || {
        let (seed, started) = (seeds.fetch_add(1, Ordering::SeqCst), Instant::now());
        let came = echoed(seed, [SMALL; 2], seed.is_multiple_of(2), false);
        assert_eq!(came.reason.what, "the client closed the session", "seed {seed}");
        // Real time still limits how long the rest may take to be delivered.
        if started.elapsed() < LINGER {
            assert_eq!(came.heard, bytes_of(seed, BYTES), "seed {seed}");
            assert_eq!(came.bytes, (BYTES as u64, BYTES as u64), "seed {seed}");
            done.fetch_add(1, Ordering::SeqCst);
        }
    });
    assert!(judged.load(Ordering::SeqCst) > 0, "every session took too long to tell anything");
}

#[test]
fn in_every_order_of_threads_a_cut_ends_both_halves_wherever_they_are_and_nothing_wrong_arrives() {
    let seeds = AtomicU64::new(0);
    explore(SESSIONS, move || {
        let seed = seeds.fetch_add(1, Ordering::SeqCst);
        let came = echoed(seed, [SMALL; 2], seed.is_multiple_of(2), true);
        assert!(
            ["stopped", "the client closed the session"].contains(&came.reason.what.as_str()),
            "seed {seed}: {}",
            came.reason.what
        );
        assert!(bytes_of(seed, BYTES).starts_with(&came.heard), "seed {seed}");
    });
}

#[test]
fn in_every_order_of_threads_a_leg_that_fails_at_any_call_ends_the_other_half_too() {
    let seeds = AtomicU64::new(0);
    explore(SESSIONS, move || {
        let seed = seeds.fetch_add(1, Ordering::SeqCst);
        let failing = Habit { fails_at: 1 + (seed / 2 % 40) as usize, ..SMALL };
        let habits = if seed.is_multiple_of(2) { [failing, SMALL] } else { [SMALL, failing] };
        let came = echoed(seed, habits, false, false);
        assert!(
            ["broken", "the client closed the session"].contains(&came.reason.what.as_str()),
            "seed {seed}: {}",
            came.reason.what
        );
        assert!(bytes_of(seed, BYTES).starts_with(&came.heard), "seed {seed}");
    });
}
