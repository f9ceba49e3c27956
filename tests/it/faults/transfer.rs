//! Faults in the middle of a transfer: an upstream that dies or pauses, a client that pauses, the last bytes before a close.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{assert_rests, assert_serves, log_in_raw, raw_user, world, world_with_subsystem};
use crate::world::clients::Session;
use crate::world::process::{LIMIT, descendants, resident, signal, until};
use crate::world::tree::{big_file, hash, small_file};
use crate::world::{USER, World};

/// Bytes of a file that no buffer between the ends can hold.
const BIG: u64 = 256 << 20;

/// Memory in KiB that one session may need beyond what the process has: two windows of 2 MiB, the relay's buffers, libraries' own.
const MEMORY: u64 = 24 << 10;

fn grown(file: &Path) -> bool {
    until(LIMIT, || std::fs::metadata(file).is_ok_and(|meta| meta.len() > 4 << 20))
}

/// The processes that sshd has made for its sessions.
fn signal_sessions(world: &World, number: Signal) {
    descendants(world.sshd.process.pid()).into_iter().for_each(|pid| signal(pid, number));
}

/// Begins a transfer of `BIG` bytes, lets `then` happen when it is under way, and returns sftp's exit code.
fn amid(world: &World, put: bool, then: impl FnOnce(&Session)) -> i32 {
    let (client, upstream) = (world.client().join("file"), world.sshd.files.join("file"));
    let (from, to) = if put { (&client, &upstream) } else { (&upstream, &client) };
    big_file(from, BIG);
    let mut session = world.proxied(USER).session();
    session.ask("pwd", "Remote working directory");
    session.say(if put { "put file" } else { "get file" });
    assert!(grown(to), "no transfer");
    then(&session);
    session.end()
}

fn assert_equal(world: &World) {
    assert_eq!(hash(&world.client().join("file")), hash(&world.sshd.files.join("file")));
}

#[test]
fn the_upstream_is_killed_amid_a_put_or_a_get() {
    for put in [true, false] {
        let world = world();
        let code = amid(&world, put, |_| signal_sessions(&world, Signal::SIGKILL));
        assert_ne!(code, 0, "put: {put}");
        world.router.wait_for_line("end session=1 *side=upstream stage=\"relay\"");
        assert_serves(&world);
    }
}

/// Memory stays within its bound and the processor rests while a transfer is stopped; then it goes on to its end.
fn paused(world: &World, before: u64) {
    assert_rests(&world.router, Duration::from_secs(2));
    let needed = resident(world.router.pid()).saturating_sub(before);
    assert!(needed < MEMORY, "a paused session needs {needed} KiB");
}

#[test]
fn an_upstream_that_pauses_amid_a_put_costs_nothing_and_the_file_arrives_whole() {
    let world = world();
    assert_serves(&world);
    let before = resident(world.router.pid());
    let code = amid(&world, true, |_| {
        signal_sessions(&world, Signal::SIGSTOP);
        paused(&world, before);
        signal_sessions(&world, Signal::SIGCONT);
    });
    assert_eq!(code, 0);
    assert_equal(&world);
}

#[test]
fn an_upstream_that_pauses_amid_a_get_costs_nothing_and_the_file_arrives_whole() {
    let world = world();
    let code = amid(&world, false, |_| {
        signal_sessions(&world, Signal::SIGSTOP);
        assert_rests(&world.router, Duration::from_secs(2));
        signal_sessions(&world, Signal::SIGCONT);
    });
    assert_eq!(code, 0);
    assert_equal(&world);
}

#[test]
fn a_client_that_stops_reading_amid_a_get_costs_nothing_and_the_file_arrives_whole() {
    let world = world();
    assert_serves(&world);
    let before = resident(world.router.pid());
    let code = amid(&world, false, |session| {
        session.signal(Signal::SIGSTOP);
        paused(&world, before);
        assert_serves(&world);
        session.signal(Signal::SIGCONT);
    });
    assert_eq!(code, 0);
    assert_equal(&world);
}

#[test]
fn an_upstream_that_dies_while_the_client_does_not_read_ends_the_session_when_it_reads_again() {
    let world = world();
    let code = amid(&world, false, |session| {
        session.signal(Signal::SIGSTOP);
        assert_rests(&world.router, Duration::from_secs(1));
        signal_sessions(&world, Signal::SIGKILL);
        session.signal(Signal::SIGCONT);
        world.router.wait_for_line("end session=1 *side=upstream stage=\"relay\"");
    });
    assert_ne!(code, 0);
    assert_serves(&world);
}

#[test]
fn what_an_upstream_said_before_it_closed_reaches_a_slow_client_to_the_last_byte() {
    const RUNS: u32 = 50;
    /// What the client lets come at a time.
    const WINDOW: u32 = 50_000;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    small_file(&file, 600_007, 5);
    let said = std::fs::read(&file).unwrap();
    let world = world_with_subsystem(&format!("cat {0}; echo >> {0}.ended", file.display()));
    let key = raw_user(&world, &world.route());
    for run in 1..=RUNS {
        let mut client = log_in_raw(&world, &key);
        let channel = client.open("session", WINDOW, 1 << 15, &[]).unwrap().unwrap();
        assert!(client.subsystem(&channel, "sftp").unwrap());
        // The upstream has said all and has ended before the client takes more than its first window.
        let ended = || std::fs::metadata(file.with_extension("ended")).is_ok_and(|meta| meta.len() == u64::from(run));
        assert!(until(LIMIT, ended), "run {run}: the upstream cannot say all");
        let mut come = Vec::new();
        loop {
            let bytes = client.recv_data(&channel).unwrap();
            if bytes.is_empty() {
                break;
            }
            client.adjust(&channel, bytes.len() as u32).unwrap();
            come.extend(bytes);
        }
        assert!(come == said, "run {run}: {} of {} bytes", come.len(), said.len());
    }
    world.router.wait_for_lines("end session=*reason=\"the upstream closed the session", RUNS as usize);
}
