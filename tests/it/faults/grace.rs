//! What the router remembers of Redis, for new logins while that is away: whom it lets in, whom not, and for how long.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{LIMITS, assert_serves};
use crate::monitor;
use crate::world::process::{LIMIT, signal, until};
use crate::world::{Kind, Setup, USER, World, keys};

/// Who has never logged in; who was removed and refused since; who was removed while connected.
const UNSEEN: &str = "bob";
const REMOVED: &str = "carol";
const CUT: &str = "dave";

fn world(grace: &str) -> World {
    let limits = [
        ("REDIS_CONNECT_TIMEOUT", "1"),
        ("REDIS_COMMAND_TIMEOUT", "1"),
        ("METRICS_ADDRESS", "127.0.0.1:0"),
        ("STORE_GRACE", grace),
    ];
    let settings: Vec<_> = LIMITS.into_iter().chain(limits).collect();
    World::with(Setup { store: Kind::Redis, settings: &settings, ..Setup::default() })
}

fn logs_in(world: &World, user: &str) -> bool {
    world.proxied(user).sftp("pwd\n").code == 0
}

/// Questions of logins that the store has not answered.
fn unanswered(world: &World) -> f64 {
    let all = monitor::series(monitor::port(world));
    let of = |call: &str| all[&format!("sftpproxy_store_errors_total{{call=\"{call}\"}}")];
    ["owner", "record", "maintenance", "upstream"].map(of).iter().sum()
}

/// Upstreams that the store was asked about.
fn upstreams(world: &World) -> f64 {
    monitor::series(monitor::port(world))["sftpproxy_store_seconds_count{call=\"upstream\"}"]
}

fn graced(world: &World) -> f64 {
    monitor::series(monitor::port(world))["sftpproxy_logins_by_grace_total"]
}

/// Users of all kinds, whose logins the router has seen while Redis was there.
fn prepare(world: &World) {
    for user in [UNSEEN, REMOVED, CUT] {
        world.add_user(user, &keys::ed25519(user));
    }
    assert_serves(world);
    world.proxied(REMOVED).sftp("pwd\n").success();
    world.store.remove(REMOVED, &[&keys::ed25519(REMOVED)]);
    assert!(!logs_in(world, REMOVED));
    let mut session = world.proxied(CUT).session();
    session.ask("pwd", "Remote working directory");
    world.store.remove(CUT, &[&keys::ed25519(CUT)]);
    world.router.wait_for_line("end session=*user=\"dave\"*reason=\"revoked");
    assert!(session.was_cut());
}

/// While Redis is away.
#[track_caller]
fn assert_grace(world: &World) {
    let (unanswered_before, graced_before) = (unanswered(world), graced(world));
    for number in 1..=2 {
        assert_serves(world);
        let lines = world.router.wait_for_lines("WARN*grace session=*user=\"alice\" key=\"ssh-ed25519 SHA256:*seen=", number);
        assert_eq!(lines.len(), number);
    }
    assert_eq!(graced(world), graced_before + 2.0);
    for user in [UNSEEN, REMOVED, CUT] {
        assert!(!logs_in(world, user), "{user} is let in");
    }
    world.router.wait_for_line("end session=*side=store stage=\"prove\" reason=\"redis ");
    // One has waited for the limit, if the router's own threads have not found out before; nobody after that.
    assert!(unanswered(world) <= unanswered_before + 1.0, "the store was asked again and again");
    assert_eq!(
        monitor::get(monitor::port(world), "/readyz").1.trim(),
        "by grace: the store does not answer, users seen lately are let in"
    );
}

#[test]
fn who_was_seen_logs_in_while_redis_is_stopped_and_nobody_who_was_not_or_was_taken_away() {
    let mut world = world("600");
    prepare(&world);
    world.store.redis().stop();
    assert_grace(&world);
    let explained = world.command(&["explain", "--user", USER]);
    assert!(explained.stdout.contains("was seen in it within 600 s (SFTPPROXY_STORE_GRACE)"), "{explained:?}");
    // It comes back empty. The router asks again what it remembers, upstreams last, and nobody has to log in for that.
    let before = upstreams(&world);
    world.store.redis().restart();
    assert!(until(LIMIT, || upstreams(&world) > before), "what is remembered is not asked again");
    world.store.redis().stop();
    assert!(!logs_in(&world, USER), "who was gone when Redis was there is let in when it is away again");
    // What an empty Redis says counts: it knows nobody.
    world.store.redis().restart();
    world.router.wait_for_lines("the store is back", 2);
    assert!(until(LIMIT, || !logs_in(&world, USER)), "a Redis that knows nobody is not believed");
    world.add_user(USER, &keys::ed25519(USER));
    let graced_before = graced(&world);
    assert_serves(&world);
    // And so does an answer that makes no sense.
    let entry = format!("pysftpproxy:pubkey:{}", keys::ed25519(USER).base64());
    world.store.redis().ask(redis::cmd("DEL").arg(&entry));
    world.store.redis().ask(redis::cmd("RPUSH").arg(&entry).arg(USER));
    assert!(!logs_in(&world, USER), "an error of a Redis that answers is taken for none");
    assert_eq!(graced(&world), graced_before);
}

#[test]
fn who_was_seen_logs_in_while_redis_is_frozen_and_one_login_at_most_waits_for_the_limit() {
    let mut world = world("600");
    prepare(&world);
    let pid = world.store.redis().process.pid();
    signal(pid, Signal::SIGSTOP);
    assert_grace(&world);
    signal(pid, Signal::SIGCONT);
    assert!(until(LIMIT, || logs_in(&world, UNSEEN)), "who was not seen is not let in afterwards");
    world.router.wait_for_line("the store is back");
}

#[test]
fn grace_ends_so_long_after_the_store_has_said_it_and_using_it_does_not_prolong_it() {
    let mut world = world("3");
    assert_serves(&world);
    world.store.redis().stop();
    // All that it has said was said before now.
    let stopped = Instant::now();
    let served = || {
        let begun = stopped.elapsed();
        let served = logs_in(&world, USER);
        assert!(!served || begun < Duration::from_secs(3), "a login that was begun {begun:?} after is let in");
        served
    };
    assert!(until(LIMIT, || !served()), "grace does not end");
    assert!(!served());
    // Key, record and the rest were not said at the same time: which of them ends it is chance.
    world.router.wait_for_line("end session=*side=store*reason=\"redis *refused");
}
