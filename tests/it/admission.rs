//! Who is let in: limits of sources and users, penalties for proven faults, bans, networks; with two routers at one Redis, and without it.

use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use crate::raw::{self, Client};
use crate::world::clients::{Target, installed};
use crate::world::process::{LIMIT, run, until};
use crate::world::{Kind, Setup, USER, World, keys};

/// Two wrong logins are too many, and it does not end while a test runs.
const STRICT: [(&str, &str); 2] =
    [("PENALTIES", "authfail:60s noauth:1s grace-exceeded:60s min:90s max:90s"), ("PENALTY_EXEMPT", "none")];

fn world(store: Kind, settings: &[(&str, &str)]) -> World {
    World::with(Setup { store, settings, ..Setup::default() })
}

/// The world's user from another address.
fn from(world: &World, address: &str) -> Target {
    world.proxied(USER).with_option(&format!("BindAddress={address}"))
}

/// The world's user with a key that is nobody's.
fn stranger(world: &World) -> Target {
    world.proxied_with(USER, &keys::ed25519("nobody"))
}

#[track_caller]
fn assert_served(target: &Target) {
    target.sftp("pwd\n").success();
}

#[track_caller]
fn assert_becomes(served: bool, target: &Target) {
    assert!(until(LIMIT, || (target.sftp("pwd\n").code == 0) == served), "stays as it was, served = {}", !served);
}

#[test]
fn wrong_keys_add_up_to_a_penalty_of_their_source_alone_and_a_wrong_key_before_the_right_one_costs_nothing() {
    let world = world(Kind::File, &STRICT);
    let several = stranger(&world).with_option(&format!("IdentityFile={}", keys::ed25519(USER).private.display()));
    for _ in 0..3 {
        assert_served(&several);
    }
    // Nor does an upstream that is not there.
    let mut route = world.route();
    route.iter_mut().filter(|(field, _)| *field == "port").for_each(|(_, port)| *port = "1".into());
    world.store.put("bob", &[&keys::ed25519("bob")], &route);
    for _ in 0..3 {
        assert_ne!(world.proxied("bob").sftp("pwd\n").code, 0);
    }
    assert!(world.router.lines().iter().filter(|line| line.contains("reason=\"nobody has this key\"")).count() >= 3);
    assert!(!world.router.lines().iter().any(|line| line.contains("] fault ")), "somebody is blamed");

    assert_ne!(stranger(&world).sftp("pwd\n").code, 0);
    world.router.wait_for_line("fault session=*peer=127.0.0.1:*class=authfail keys=1 owed=60 refused=no");
    assert_served(&world.proxied(USER));
    assert_ne!(stranger(&world).sftp("pwd\n").code, 0);
    world.router.wait_for_line("fault session=*peer=127.0.0.1:*class=authfail keys=1 owed=90 refused=yes");
    assert_ne!(world.proxied(USER).sftp("pwd\n").code, 0);
    world.router.wait_for_line("refuse peer=127.0.0.1:*why=penalty reason=\"127.0.0.1/32 is refused for *last for authfail");
    assert_served(&from(&world, "127.0.0.2"));
}

#[test]
fn who_says_nothing_or_leaves_is_at_fault_too() {
    let world = world(Kind::File, &[STRICT[0], STRICT[1], ("LOGIN_TIMEOUT", "1")]);
    let connect = || TcpStream::connect(("127.0.0.1", world.router.port)).unwrap();
    drop(connect());
    world.router.wait_for_line("fault session=1 *class=noauth keys=0 owed=1 refused=no");
    let silent = connect();
    world.router.wait_for_line("fault session=2 *class=grace-exceeded keys=0");
    drop(silent);
}

#[test]
fn a_penalty_holds_at_every_router_of_one_redis_with_and_without_it_until_it_is_taken_away() {
    let mut world = world(Kind::Redis, &STRICT);
    let other = world.router.again(2);
    let elsewhere = |world: &World| Target { port: other.port, ..world.proxied(USER) };
    assert_becomes(true, &elsewhere(&world));
    for _ in 0..2 {
        assert_ne!(stranger(&world).sftp("pwd\n").code, 0);
    }
    other.wait_for_line("listening on");
    assert!(until(LIMIT, || elsewhere(&world).sftp("pwd\n").code != 0), "the other router lets in who is refused here");
    other.wait_for_line("refuse peer=127.0.0.1:*why=banned reason=\"127.0.0.1/32 is banned");
    let listed = world.command(&["ban", "list", "--json"]).success();
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!((&listed[0]["network"], &listed[0]["reason"]), (&"127.0.0.1/32".into(), &"authfail".into()));
    assert!(listed[0]["seconds"].as_u64().is_some_and(|seconds| (1..=90).contains(&seconds)), "{listed}");

    world.command(&["ban", "remove", "127.0.0.1"]).success();
    assert_becomes(true, &world.proxied(USER));
    assert_becomes(true, &elsewhere(&world));

    // Once more, and now Redis goes away: who is refused stays so, and who is not is let as far as the store.
    for _ in 0..2 {
        assert_ne!(stranger(&world).sftp("pwd\n").code, 0);
    }
    world.router.wait_for_lines("fault session=*refused=yes", 2);
    let is_told = || world.command(&["ban", "list", "--json"]).success().contains("127.0.0.1/32");
    assert!(until(LIMIT, is_told), "the others are not told");
    world.store.redis().stop();
    world.router.wait_for_line("bans are not in step with the store, those known stay in force");
    let before = world.router.lines().len();
    assert_ne!(world.proxied(USER).sftp("pwd\n").code, 0);
    assert!(!world.router.lines()[before..].iter().any(|line| line.contains("accept session=")), "the refused one is let in");
    assert_ne!(from(&world, "127.0.0.2").sftp("pwd\n").code, 0);
    world.router.wait_for_line("end session=*peer=127.0.0.2:*side=store");
    // The store's fault is nobody's.
    assert!(!world.router.lines().iter().any(|line| line.contains("] fault ") && line.contains("peer=127.0.0.2:")));
    drop(other);
}

#[test]
fn networks_are_banned_and_let_in_again_by_command_with_either_store() {
    for kind in [Kind::File, Kind::Redis] {
        let world = world(kind, &[]);
        let there = from(&world, "127.0.0.2");
        assert_served(&there);
        assert!(world.command(&["ban", "list"]).success().lines().count() == 1, "an empty list has a heading only");
        let said = world.command(&["ban", "add", "127.0.0.2/31", "--for", "1h", "--reason", "too curious"]);
        assert_eq!(said.success(), "127.0.0.2/31: refused for 3600 s\n");
        assert_becomes(false, &there);
        world.router.wait_for_line("refuse peer=127.0.0.2:*why=banned reason=\"127.0.0.2/31 is banned; see: sftpproxy ban list");
        assert_served(&world.proxied(USER));
        let listed = world.command(&["ban", "list"]).success();
        assert!(
            listed.lines().any(|line| line.starts_with("127.0.0.2/31  for 3") && line.ends_with("s  too curious")),
            "{listed}"
        );
        for (bad, code) in [("127.0.0.3/31", 2), ("127.0.0.9", 2), ("everybody", 2)] {
            let output = world.command(&["ban", "remove", bad]);
            assert_eq!((output.code, output.stdout.as_str()), (code, ""), "{bad}: {output:?}");
        }
        for bad in [["--for", "0s"], ["--for", "soon"], ["--reason", "a\nb"]] {
            assert_eq!(world.command(&["ban", "add", "192.0.2.1", bad[0], bad[1]]).code, 2, "{bad:?}");
        }
        assert_eq!(world.command(&["ban", "add", "::/0"]).code, 2);
        assert_eq!(world.command(&["ban", "remove", "127.0.0.2/31"]).success(), "127.0.0.2/31: let in again\n");
        assert_becomes(true, &there);
    }
}

#[test]
fn a_ban_in_redis_ends_by_itself_and_leaves_nothing() {
    let world = world(Kind::Redis, &[]);
    world.command(&["ban", "add", "127.0.0.2", "--for", "3s"]).success();
    let there = from(&world, "127.0.0.2");
    assert_becomes(false, &there);
    assert_becomes(true, &there);
    assert_eq!(world.command(&["ban", "list", "--json"]).success().trim(), "[]");
}

#[test]
fn addresses_are_allowed_and_denied_for_everybody_and_for_a_user() {
    let world = world(Kind::File, &[("ALLOW_FROM", "127.0.0.0/29"), ("DENY_FROM", "127.0.0.3")]);
    assert_served(&from(&world, "127.0.0.2"));
    for (address, why) in [("127.0.0.3", "denied"), ("127.0.0.8", "not-allowed")] {
        // A second between two lines of refusals.
        assert!(
            until(LIMIT, || {
                assert_ne!(from(&world, address).sftp("pwd\n").code, 0);
                world.router.lines().iter().any(|line| line.contains(&format!("refuse peer={address}:")) && line.contains(why))
            }),
            "no line why={why}"
        );
    }
    let mut route = world.route();
    route.push(("from", "127.0.0.2, ::1".to_owned()));
    world.store.put(USER, &[&keys::ed25519(USER)], &route);
    assert_served(&from(&world, "127.0.0.2"));
    let output = world.proxied(USER).sftp("pwd\n");
    assert!(output.code != 0 && output.stderr.contains("you may not log in from where you are"), "{output:?}");
    world
        .router
        .wait_for_line("end session=*user=\"alice\"*side=router stage=\"find\" reason=\"the address is not in the field 'from'");
    assert!(!world.router.lines().iter().any(|line| line.contains("] fault ")), "somebody is blamed");
}

#[test]
fn a_user_and_a_source_have_so_many_sessions_and_the_next_is_told() {
    let world = world(Kind::File, &[("MAX_USER_SESSIONS", "1"), ("MAX_SOURCE_SESSIONS", "3")]);
    let mut one = world.proxied(USER).session();
    one.ask("pwd", "Remote working directory");
    let output = world.proxied(USER).sftp("pwd\n");
    assert!(output.code != 0 && output.stderr.contains("you have 1 sessions open, and may have no more"), "{output:?}");
    world.router.wait_for_lines("end session=", 1);
    world.command(&["user", "add", USER, "--update", "--max-sessions", "9"]).success();
    let mut two = world.proxied(USER).session();
    two.ask("pwd", "Remote working directory");
    let silent = TcpStream::connect(("127.0.0.1", world.router.port)).unwrap();
    world.router.wait_for_lines("accept session=", 4);
    assert_ne!(world.proxied(USER).sftp("pwd\n").code, 0);
    world.router.wait_for_line("refuse peer=127.0.0.1:*why=source-sessions*SFTPPROXY_MAX_SOURCE_SESSIONS");
    assert_served(&from(&world, "127.0.0.2"));
    drop(silent);
    assert_eq!((one.end(), two.end()), (0, 0));
}

#[test]
fn fail2ban_finds_the_faults_and_nothing_else_in_a_real_log() {
    if !installed("fail2ban-regex") {
        return;
    }
    let world = world(Kind::File, &[("PENALTIES", "off")]);
    assert_ne!(stranger(&world).sftp("pwd\n").code, 0);
    drop(TcpStream::connect(("127.0.0.1", world.router.port)).unwrap());
    world.router.wait_for_lines("fault session=", 2);
    // A name that would be such a line if it were not escaped; OpenSSH's own client would not send it.
    let name = "x\" peer=192.0.2.1:1\n[2026-11-27T11:39:20.511Z INFO  sftpproxy::session] fault session=1 peer=192.0.2.2:1 class=authfail keys=1 \
                owed=0 refused=no";
    let mut forger = Client::connect(("127.0.0.1", world.router.port)).unwrap();
    let key = raw::Key::ed25519();
    forger.probe(name, key.algorithm(), &key.blob()).unwrap();
    drop(forger);
    world.router.wait_for_lines("class=authfail keys=1", 2);
    assert_served(&world.proxied(USER));
    let log = world.folder.path().join("log");
    let mut lines = world.router.lines();
    lines.retain(|line| !line.is_empty());
    // As with SFTPPROXY_ADDRESS=:: a client of IPv6 would be written.
    lines.push(lines.iter().find(|line| line.contains("] fault ")).unwrap().replace("127.0.0.1:", "[2001:db8::7]:"));
    std::fs::write(&log, lines.join("\n") + "\n").unwrap();
    let filter = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/fail2ban/filter.d/sftpproxy.conf");
    let found = run(Command::new("fail2ban-regex").args(["-o", "ip"]).arg(&log).arg(filter)).success();
    let mut found: Vec<_> = found.lines().collect();
    found.sort_unstable();
    assert_eq!(found, ["127.0.0.1", "127.0.0.1", "127.0.0.1", "2001:db8::7"]);
}
