//! Limits of a user's bandwidth, with real transfers: as fast as the record says, both ways, for all of the user's sessions together, and
//! changed while they run.

use std::time::{Duration, Instant};

use crate::world::clients::installed;
use crate::world::process::ticks;
use crate::world::tree::big_file;
use crate::world::{Kind, Setup, USER, World, keys};

const MIB: u64 = 1024 * 1024;

fn limited(store: Kind, fields: &[(&'static str, &str)]) -> World {
    let world = World::with(Setup { store, ..Setup::default() });
    limit(&world, fields);
    world
}

fn limit(world: &World, fields: &[(&'static str, &str)]) {
    let mut route = world.route();
    route.extend(fields.iter().map(|(name, value)| (*name, (*value).to_owned())));
    world.store.put(USER, &[&keys::ed25519(USER)], &route);
}

/// Seconds that `sftp` needs for this, less what it needs for nothing.
fn seconds(world: &World, batch: &str) -> f64 {
    let timed = |batch: &str| {
        let started = Instant::now();
        world.proxied(USER).sftp(batch).success();
        started.elapsed().as_secs_f64()
    };
    let nothing = timed("pwd\n");
    timed(batch) - nothing
}

#[track_caller]
fn assert_about(took: f64, wanted: f64) {
    assert!((took / wanted - 1.0).abs() <= 0.15, "took {took:.2} s, not {wanted} s");
}

#[test]
fn uploads_and_downloads_are_as_fast_as_the_record_says_and_no_faster() {
    let world = limited(Kind::File, &[("upload_limit", "2048"), ("download_limit", "4096")]);
    big_file(&world.client().join("up"), 8 * MIB);
    big_file(&world.sshd.files.join("down"), 8 * MIB);
    let before = ticks(world.router.pid());
    assert_about(seconds(&world, "put up\n"), 4.0);
    assert_about(seconds(&world, "get down\n"), 2.0);
    // Six seconds of waiting; encryption of 16 MiB in a debug build is some of it.
    let used = ticks(world.router.pid()) - before;
    assert!(used < 150, "{used} ticks");
    assert_eq!(std::fs::read(world.sshd.files.join("up")).unwrap(), std::fs::read(world.client().join("up")).unwrap());
    assert_eq!(std::fs::read(world.sshd.files.join("down")).unwrap(), std::fs::read(world.client().join("down")).unwrap());
}

#[test]
fn two_sessions_of_a_user_share_one_limit() {
    let world = limited(Kind::File, &[("download_limit", "2048")]);
    let world = &world;
    let get = |name: &str| seconds(world, &format!("get {name}\n"));
    for name in ["one", "two"] {
        big_file(&world.sshd.files.join(name), 5 * MIB);
    }
    let took =
        std::thread::scope(|scope| ["one", "two"].map(|name| scope.spawn(move || get(name))).map(|one| one.join().unwrap()));
    // Alone each would take half of it.
    let longest = took[0].max(took[1]);
    assert!((4.25..6.5).contains(&longest), "10 MiB at 2 MiB/s take {took:?} s");
}

#[test]
fn a_limit_that_is_changed_or_taken_away_reaches_a_transfer_that_runs() {
    let world = limited(Kind::Redis, &[("upload_limit", "64")]);
    // At the first limit this would take 256 seconds.
    big_file(&world.client().join("up"), 16 * MIB);
    let changed = std::thread::scope(|scope| {
        let (world, started) = (&world, Instant::now());
        let put = scope.spawn(move || world.proxied(USER).sftp("put up\n").success());
        world.router.wait_for_line("open session=");
        world.command(&["user", "add", USER, "--update", "--upload-limit", "8192"]).success();
        let line = world.router.wait_for_line("limit user=\"alice\" upload=8192 download=0");
        let changed = started.elapsed();
        assert!(changed < Duration::from_secs(8), "{changed:?}: {line}");
        put.join().unwrap();
        (changed, started.elapsed())
    });
    let left = (changed.1 - changed.0).as_secs_f64();
    assert!((1.0..4.0).contains(&left), "16 MiB at 8 MiB/s take {left} s");
}

#[test]
fn a_limit_for_a_user_without_one_reaches_a_transfer_that_runs() {
    if !installed("lftp") {
        return;
    }
    let world = limited(Kind::Redis, &[]);
    big_file(&world.client().join("up"), 40 * MIB);
    std::thread::scope(|scope| {
        let world = &world;
        // The client itself takes ten seconds.
        let put = scope.spawn(move || world.proxied(USER).lftp("set net:limit-rate 0:4194304\nput up").success());
        world.router.wait_for_line("open session=");
        world.command(&["user", "add", USER, "--update", "--upload-limit", "100000"]).success();
        world.router.wait_for_line("limit user=\"alice\" upload=100000 download=0");
        assert!(!put.is_finished(), "the transfer was over before the limit came");
        put.join().unwrap();
    });
}

#[test]
fn a_limited_session_in_which_nothing_happens_costs_no_processor_time() {
    let world = limited(Kind::File, &[("upload_limit", "1"), ("download_limit", "1")]);
    let mut session = world.proxied(USER).session();
    session.ask("pwd", "Remote working directory");
    crate::faults::assert_rests(&world.router, Duration::from_secs(2));
    assert_eq!(session.end(), 0);
}
