//! What is taken away or changed reaches the sessions that run, on every node, within two seconds; a store that fails ends nobody.

use std::time::{Duration, Instant};

use crate::world::clients::Session;
use crate::world::router::Router;
use crate::world::tree::big_file;
use crate::world::{Kind, Setup, USER, World, keys};

const MIB: u64 = 1024 * 1024;

/// The promise, and what a busy machine takes to notice.
const LIMIT: Duration = Duration::from_millis(2500);

/// A world in which alice's downloads take a minute.
fn world(store: Kind) -> World {
    let world = World::with(Setup { store, ..Setup::default() });
    big_file(&world.sshd.files.join("big"), 64 * MIB);
    put(&world, &[]);
    world
}

fn put(world: &World, fields: &[(&'static str, &str)]) {
    let mut route = world.route();
    route.push(("download_limit", "1024".to_owned()));
    route.extend(fields.iter().map(|(name, value)| (*name, (*value).to_owned())));
    world.store.put(USER, &[&keys::ed25519(USER)], &route);
}

/// A session of alice's at this router that is amid a download.
fn fetching(world: &World, router: &Router) -> Session {
    let mut target = world.proxied(USER);
    target.port = router.port;
    let mut session = target.session();
    session.ask("pwd", "Remote working directory");
    let before = router.lines().len();
    session.say("get big /dev/null");
    let opened = || router.lines()[before..].iter().any(|line| line.contains("open path=") && line.contains("/big"));
    assert!(crate::world::process::until(crate::world::process::LIMIT, opened));
    session
}

#[track_caller]
fn assert_ends(router: &Router, session: Session, number: u64, since: Instant, (reason, told): (&str, &str)) {
    router.wait_for_line(&format!("end session={number} user=\"alice\"*side=store stage=\"relay\" reason=\"{reason}"));
    let took = since.elapsed();
    assert!(took < LIMIT, "took {took:?}");
    session.shows(&format!("Received disconnect*:11: {told}"));
    assert_ne!(session.end(), 0);
}

#[test]
fn a_key_or_a_user_that_is_removed_ends_running_transfers_on_two_nodes_within_two_seconds() {
    let world = world(Kind::Redis);
    let second = world.router.again(world.store.lazy_descriptors());
    let base64 = keys::ed25519(USER).base64();
    let entry = format!("pysftpproxy:pubkey:{base64}");
    let ways: [(&dyn Fn(), _); 3] = [
        (
            &|| drop(world.command(&["key", "remove", USER, &base64, "--yes"]).success()),
            ("revoked: the key is no longer the user's", "your key is no longer accepted"),
        ),
        (
            &|| {
                let output = world.command(&["user", "remove", USER, "--yes"]).success();
                assert!(output.contains("end within 2 seconds"), "{output}");
            },
            ("revoked: the key is no longer the user's", "your key is no longer accepted"),
        ),
        (
            &|| {
                let crate::world::store::Store::Redis(redis) = &world.store else { panic!("not Redis") };
                redis.ask(redis::cmd("DEL").arg(&entry));
            },
            ("revoked: the key is no longer the user's", "your key is no longer accepted"),
        ),
    ];
    for (number, (remove, why)) in (1..).zip(ways) {
        let sessions = [&world.router, &second].map(|router| (router, fetching(&world, router)));
        let since = Instant::now();
        remove();
        for (router, session) in sessions {
            assert_ends(router, session, number, since, why);
        }
        put(&world, &[]);
    }
}

#[test]
fn what_is_changed_by_hand_in_a_redis_that_says_nothing_ends_a_transfer_within_two_seconds() {
    let mut world = world(Kind::Redis);
    // As with a server of old: no tracking, no events.
    world.store.redis().ask(redis::cmd("ACL").arg("SETUSER").arg("default").arg("-client|tracking"));
    world.restart(&[]);
    let session = fetching(&world, &world.router);
    let since = Instant::now();
    world.store.redis().ask(redis::cmd("DEL").arg("pysftpproxy:user:alice"));
    let why = ("revoked: the user was removed", "your access was taken away");
    assert_ends(&world.router, session, 1, since, why);
}

#[test]
fn a_route_or_what_a_user_may_do_that_is_changed_ends_the_session_and_other_fields_do_not() {
    for store in [Kind::Redis, Kind::File] {
        let world = world(store);
        let session = fetching(&world, &world.router);
        let changed = |arguments: &[&str]| {
            let since = Instant::now();
            world.command(&[&["user", "add", USER, "--update"], arguments].concat()).success();
            since
        };
        changed(&["--download-limit", "1000"]);
        world.router.wait_for_line("limit user=\"alice\" upload=0 download=1000");
        world.command(&["maintenance", "on", "x", "--user", USER]).success();
        world.command(&["maintenance", "off", "--user", USER]).success();
        let since = changed(&["--read-only", "yes"]);
        let why = ("what the user may do was changed", "what you may do was changed; please connect again");
        assert_ends(&world.router, session, 1, since, why);
        let session = fetching(&world, &world.router);
        let since = changed(&["--remote", "127.0.0.2"]);
        assert_ends(&world.router, session, 2, since, ("the route was changed", "your server was changed; please connect again"));
    }
}

#[test]
fn whatever_has_let_a_session_in_ends_it_when_it_changes_and_the_user_is_shown_why() {
    let world = world(Kind::Redis);
    let crate::world::store::Store::Redis(redis) = &world.store else { panic!("not Redis") };
    let entry = format!("pysftpproxy:pubkey:{}", keys::ed25519(USER).base64());
    let set = |field: &str, value: &str| redis.ask(redis::cmd("HSET").arg("pysftpproxy:user:alice").arg(field).arg(value));
    let pin = keys::ed25519("another-host").fingerprint();
    let changed = ("the route was changed", "your server was changed; please connect again");
    let ways: [(&dyn Fn(), _); 4] = [
        (
            &|| drop(set("from", "192.0.2.0/24")),
            ("revoked: the user may not come from there any more", "your access was changed"),
        ),
        (&|| drop(set("hostkey", &pin)), changed),
        (&|| drop(set("key", "another-key")), changed),
        (
            &|| drop(redis.ask(redis::cmd("PEXPIRE").arg(&entry).arg(1))),
            ("revoked: the key is no longer the user's", "your key is no longer accepted"),
        ),
    ];
    for (number, (change, (reason, told))) in (1..).zip(ways) {
        let mut session = world.proxied(USER).session();
        session.ask("pwd", "Remote working directory");
        change();
        world.router.wait_for_line(&format!("end session={number} user=\"alice\"*side=store stage=\"relay\" reason=\"{reason}"));
        session.shows(&format!("Received disconnect*:11: {told}"));
        assert!(session.was_cut());
        // As it was: an empty field is a missing one.
        put(&world, &[("from", ""), ("key", "")]);
    }
}

#[test]
fn a_redis_that_goes_away_or_comes_back_empty_ends_nobody() {
    let mut world = world(Kind::Redis);
    let mut session = world.proxied(USER).session();
    session.ask("pwd", "Remote working directory");
    world.store.redis().stop();
    world.router.wait_for_line("WARN*running sessions go on as they are, the store cannot be asked about them");
    session.ask("ls", "big");
    world.store.redis().restart();
    world.router.wait_for_line("WARN*running sessions go on as they are*has no users at all any more; it is taken for lost");
    session.ask("ls", "big");
    put(&world, &[]);
    world.router.wait_for_line("running sessions follow the store again");
    // And again as before: the news come from the server that was started anew.
    world.command(&["key", "remove", USER, &keys::ed25519(USER).base64(), "--yes"]).success();
    session.shows("Received disconnect*:11: your key is no longer accepted");
    assert!(session.was_cut());
}
