//! Connections to upstreams that are kept for the same user's next session: `SFTPPROXY_UPSTREAM_REUSE`.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::world::process::{LIMIT, descendants, signal, until};
use crate::world::tree::{hash, small_file};
use crate::world::{Setup, USER, World, keys};

/// Long enough for the next session on a busy machine; the world's end waits until it is over.
const KEPT: &str = "8";

fn world(seconds: &str) -> World {
    World::with(Setup { settings: &[("UPSTREAM_REUSE", seconds)], ..Setup::default() })
}

/// Runs a session and returns its line `open`.
#[track_caller]
fn opened(world: &World, user: &str, number: usize) -> String {
    world.proxied(user).sftp("pwd\n").success();
    // A connection is kept when its channel is closed on both sides, which is a little after the client has gone.
    world.router.wait_for_lines("end session=", number);
    world.router.wait_for_lines("open session=", number).remove(number - 1)
}

#[test]
fn the_next_session_of_the_same_user_opens_a_channel_on_the_connection_that_was_kept() {
    let world = world(KEPT);
    small_file(&world.client().join("one"), 3_000_000, 1);
    assert!(!opened(&world, USER, 1).contains("kept"));
    let theirs = descendants(world.sshd.process.pid());
    assert!(opened(&world, USER, 2).ends_with(" kept=yes"));
    // Not only the first time, and with content.
    world.proxied(USER).sftp("put one there\nget there back\n").success();
    assert!(world.router.wait_for_lines("open session=", 3)[2].ends_with(" kept=yes"));
    assert_eq!(hash(&world.client().join("one")), hash(&world.client().join("back")));
    assert_eq!(hash(&world.client().join("one")), hash(&world.sshd.files.join("there")));
    let still = descendants(world.sshd.process.pid());
    assert!(theirs.iter().any(|pid| still.contains(pid)), "the upstream has seen a new connection: {theirs:?} {still:?}");
}

#[test]
fn nothing_is_kept_unless_it_is_asked_for_and_nothing_for_longer_than_asked() {
    let off = World::start();
    opened(&off, USER, 1);
    assert!(until(LIMIT, || descendants(off.sshd.process.pid()).is_empty()));
    assert!(!opened(&off, USER, 2).contains("kept"));

    let short = world("1");
    opened(&short, USER, 1);
    let ended = Instant::now();
    assert!(until(LIMIT, || descendants(short.sshd.process.pid()).is_empty()), "the connection is still there");
    assert!(ended.elapsed() < Duration::from_secs(6), "{:?}", ended.elapsed());
    assert!(!opened(&short, USER, 2).contains("kept"));
}

#[test]
fn another_user_or_a_changed_record_gets_a_new_connection() {
    let world = world(KEPT);
    world.add_user("bob", &keys::rsa("bob"));
    opened(&world, USER, 1);
    let target = world.proxied_with("bob", &keys::rsa("bob"));
    target.sftp("pwd\n").success();
    assert!(!world.router.wait_for_lines("open session=", 2)[1].contains("kept"), "bob has got alice's connection");
    world.router.wait_for_lines("end session=", 2);

    // The same server, the same key, but the record says something else.
    let mut route = world.route();
    route.retain(|(name, _)| *name != "home");
    world.store.put(USER, &[&keys::ed25519(USER)], &route);
    assert!(!opened(&world, USER, 3).contains("kept"));
    assert!(opened(&world, USER, 4).contains("kept"));
}

#[test]
fn a_kept_connection_is_worth_nothing_once_its_host_key_is_no_longer_trusted() {
    let world = world(KEPT);
    let known = world.folder.path().join("home/.ssh");
    std::fs::create_dir_all(&known).unwrap();
    let line = std::fs::read_to_string(world.sshd.host_key.public()).unwrap();
    let key = line.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
    let host = format!("[127.0.0.1]:{}", world.sshd.port);
    std::fs::write(known.join("known_hosts"), format!("{host} {key}\n")).unwrap();
    let mut route = world.route();
    route.retain(|(name, _)| *name != "hostkey");
    world.store.put(USER, &[&keys::ed25519(USER)], &route);
    opened(&world, USER, 1);
    assert!(opened(&world, USER, 2).contains("kept"));

    std::fs::write(known.join("known_hosts"), format!("@revoked {host} {key}\n")).unwrap();
    assert_ne!(world.proxied(USER).sftp("pwd\n").code, 0);
    world.router.wait_for_line("end session=3 *stage=\"trust\" *is revoked");
}

#[test]
fn a_kept_connection_that_has_died_is_replaced_by_a_new_one() {
    let world = world(KEPT);
    opened(&world, USER, 1);
    for pid in descendants(world.sshd.process.pid()) {
        signal(pid, Signal::SIGKILL);
    }
    assert!(!opened(&world, USER, 2).contains("kept"));

    // One that is there and says nothing costs two seconds, no session.
    let frozen = descendants(world.sshd.process.pid());
    frozen.iter().for_each(|&pid| signal(pid, Signal::SIGSTOP));
    let started = Instant::now();
    assert!(!opened(&world, USER, 3).contains("kept"));
    assert!(started.elapsed() > Duration::from_millis(1500), "nobody has tried the frozen one: {:?}", started.elapsed());
    frozen.iter().for_each(|&pid| signal(pid, Signal::SIGKILL));
}
