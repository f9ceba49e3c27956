//! The life of an upstream's host key: pinned for one user or for all, of any type, changed, quarantined, approved, removed. Over both
//! stores, with real sshds.

use std::process::Command;

use serde_json::Value;

use crate::contract::{know, trusts};
use crate::world::process::{Output, run};
use crate::world::{Kind, Setup, USER, World, keys};

const CHANGED: &str = "your server shows another identity than the one that is approved for it";

/// A world whose user's record has no pin.
fn unpinned(store: Kind) -> World {
    let world = World::with(Setup { store, sshd: &["LogLevel DEBUG1"], ..Setup::default() });
    let mut route = world.route();
    route.retain(|(name, _)| *name != "hostkey");
    match store {
        // A field that is there already stays in a hash.
        Kind::Redis => world.store.put(USER, &[], &[("hostkey", String::new())]),
        Kind::File => world.store.put(USER, &[&keys::ed25519(USER)], &route),
    }
    world
}

fn address(world: &World) -> String {
    format!("127.0.0.1:{}", world.sshd.port)
}

fn logs_in(world: &World) -> bool {
    world.proxied(USER).sftp("pwd\n").code == 0
}

/// The entry of the world's upstream in `host-key list --json`.
fn listed(world: &World) -> Value {
    let list: Value = serde_json::from_str(&world.command(&["host-key", "list", "--json"]).success()).unwrap();
    let address = address(world);
    let all = list.as_array().unwrap();
    all.iter().find(|one| one["upstream"] == address.as_str()).unwrap_or_else(|| panic!("not listed: {list}")).clone()
}

fn lines(world: &World, part: &str) -> usize {
    world.router.lines().iter().filter(|line| line.contains(part)).count()
}

#[track_caller]
fn refused(output: &Output, reason: &str) {
    assert!(output.code == 2 && output.stderr.contains(reason), "{reason}: {output:?}");
}

#[test]
fn a_valid_pin_never_fails_because_of_the_key_type_and_an_invalid_one_always_does() {
    let (rsa, ecdsa, other) = (keys::rsa("many-host"), keys::ecdsa("many-host"), keys::ed25519("other-host"));
    // With a certificate: libssh2, left to itself, would ask for that first.
    let folder = tempfile::tempdir().unwrap();
    let signed = folder.path().join("host.pub");
    std::fs::copy(keys::ed25519("upstream-host").public(), &signed).unwrap();
    let authority = keys::ed25519("authority");
    let sign = ["-q", "-h", "-I", "host", "-n", "127.0.0.1", "-s"];
    run(Command::new("ssh-keygen").args(sign).arg(&authority.private).arg(&signed)).success();
    let extra = [
        "LogLevel DEBUG1".to_owned(),
        format!("HostKey {}", rsa.private.display()),
        format!("HostKey {}", ecdsa.private.display()),
        format!("HostCertificate {}", folder.path().join("host-cert.pub").display()),
    ];
    let world = World::with(Setup { sshd: &extra.each_ref().map(String::as_str), ..Setup::default() });
    let own = world.sshd.host_key.clone();
    let typed = |kind: &str, key: &keys::Key| format!("{kind} {}", key.fingerprint());
    for (pins, expected) in [
        (own.fingerprint(), true),
        (rsa.fingerprint(), true),
        (ecdsa.fingerprint(), true),
        (typed("ssh-ed25519", &own), true),
        (typed("ssh-rsa", &rsa), true),
        (typed("ecdsa-sha2-nistp256", &ecdsa), true),
        // The first pin's key is not shown any more, the second one's is.
        (format!("{},{}", typed("ssh-ed25519", &other), typed("ssh-rsa", &rsa)), true),
        (format!("{},{}", typed("ssh-ed25519", &other), ecdsa.fingerprint()), true),
        (format!("{},{}", other.fingerprint(), rsa.fingerprint()), true),
        (other.fingerprint(), false),
        (typed("ssh-ed25519", &other), false),
        // Right key, wrong type: nobody can show that.
        (typed("ssh-rsa", &own), false),
    ] {
        assert_eq!(trusts(&world, &pins, ""), expected, "{pins}");
    }
    // Only an authority is known: that approves nothing, and the reason says so.
    let known = format!("@cert-authority [127.0.0.1]:{} {}\n", world.sshd.port, authority.line());
    assert!(!trusts(&world, "", &known));
    let end = world.router.wait_for_line("end session=*@cert-authority");
    assert!(end.contains("is not known") && end.contains("host certificates cannot be checked"), "{end}");
    assert!(trusts(&world, "", &format!("{known}[127.0.0.1]:{} {}\n", world.sshd.port, rsa.line())));
}

#[test]
fn the_records_pins_count_before_the_hosts_and_those_before_known_hosts() {
    for kind in [Kind::File, Kind::Redis] {
        let world = unpinned(kind);
        world.store.put("bob", &[&keys::ed25519("bob")], &world.route());
        let (right, wrong, at) = (world.sshd.host_key.clone(), keys::ed25519("other-host"), address(&world));
        assert!(!logs_in(&world), "nothing is pinned");
        assert_eq!(
            (listed(&world)["quarantine"].clone(), lines(&world, "quarantine ")),
            (Value::Null, 0),
            "unknown is not changed"
        );
        // Known otherwise, but pinned for the host.
        know(&world, &format!("[127.0.0.1]:{} {}\n", world.sshd.port, wrong.line()));
        assert!(!logs_in(&world));
        assert_eq!(listed(&world)["quarantine"]["fingerprint"], right.fingerprint());
        refused(&world.command(&["host-key", "approve", &at, "--key", &wrong.fingerprint(), "--yes"]), "shows no key");
        refused(&world.command(&["host-key", "approve", &at]), "nobody is here to confirm");
        assert!(!logs_in(&world));
        let approved = world.command(&["host-key", "approve", &at, "--yes"]).success();
        assert!(approved.contains(&format!("old  ssh-ed25519  {}  known_hosts", wrong.fingerprint())), "{approved}");
        assert!(approved.contains(&format!("new  ssh-ed25519  {}", right.fingerprint())), "{approved}");
        assert!(logs_in(&world));
        let one = listed(&world);
        assert_eq!((&one["quarantine"], &one["host"][0]["fingerprint"]), (&Value::Null, &right.fingerprint().into()), "{one}");
        assert_eq!((&one["host"][0]["type"], &one["known_hosts"]), (&"ssh-ed25519".into(), &serde_json::json!([])), "{one}");
        assert!(world.command(&["host-key", "approve", &at, "--yes"]).success().contains("approved already"));
        // Pinned otherwise in the record.
        let pin = |pin: &str| world.command(&["user", "add", USER, "--update", "--host-key", pin]).success();
        pin(&wrong.fingerprint());
        assert!(!logs_in(&world));
        let table = world.command(&["host-key", "list"]);
        assert!(table.stderr.contains(&format!("{at} is quarantined")), "{table:?}");
        let table = table.success();
        assert!(table.contains(&format!("{}  host", right.fingerprint())), "{table}");
        assert!(table.contains(&format!("{}  record of alice", wrong.fingerprint())), "{table}");
        assert!(table.contains("QUARANTINED since 2") && table.contains("seen by a login of alice"), "{table}");
        // The right pin in the record ends it at the next login, another user's right pin does not.
        world.command(&["user", "add", "bob", "--update", "--host-key", &right.fingerprint()]).success();
        world.proxied("bob").sftp("pwd\n").success();
        assert_eq!(listed(&world)["quarantine"]["user"], USER);
        pin(&right.fingerprint());
        assert!(logs_in(&world));
        assert_eq!(listed(&world)["quarantine"], Value::Null);
        pin(&wrong.fingerprint());
        assert!(!logs_in(&world));
        // Approving mends the record too, and says so before.
        let approved = world.command(&["host-key", "approve", &at, "--yes"]).success();
        assert!(approved.contains("the pin in the record of alice become"), "{approved}");
        assert!(logs_in(&world));
        let one = listed(&world);
        assert_eq!(one["records"]["alice"][0]["fingerprint"], right.fingerprint(), "{one}");
        // Without pins it is as it was.
        pin("");
        let removed = world.command(&["host-key", "remove", &at, "--yes"]).success();
        assert!(removed.contains("1 pin removed"), "{removed}");
        refused(&world.command(&["host-key", "remove", &at, "--yes"]), "no such pin");
        assert!(!logs_in(&world));
        world.router.wait_for_line("end session=10*known_hosts; either");
    }
}

#[test]
fn a_changed_key_quarantines_the_upstream_on_every_node_until_the_pinned_one_is_seen_again() {
    for kind in [Kind::Redis, Kind::File] {
        let mut world = unpinned(kind);
        let (first, second, at) = (world.sshd.host_key.clone(), keys::ed25519("second-host"), address(&world));
        world.command(&["host-key", "approve", &at, "--yes"]).success();
        assert!(logs_in(&world));
        world.sshd.show(second.clone());
        for _ in 0..2 {
            let output = world.proxied(USER).sftp("pwd\n");
            assert!(output.code != 0 && output.stderr.contains(CHANGED), "{output:?}");
        }
        let tried = world.sshd.process.lines().iter().filter(|line| line.contains("userauth-request")).count();
        world.router.wait_for_line(&format!(
            "WARN*quarantine upstream={at} key=\"ssh-ed25519 {}\" approved=\"{}\" by=\"host\" user=\"alice\"",
            second.fingerprint(),
            first.fingerprint()
        ));
        // Another node refuses as well, and says no more about it.
        let node = world.router.again(world.store.lazy_descriptors());
        let one_node = std::mem::replace(&mut world.router, node);
        assert!(!logs_in(&world));
        world.router.wait_for_line("end session=1*stage=\"trust\"");
        assert_eq!(lines(&world, "quarantine upstream"), 0);
        let one = listed(&world);
        assert_eq!(
            (&one["quarantine"]["fingerprint"], &one["quarantine"]["user"], &one["quarantine"]["approved"][0]),
            (&second.fingerprint().into(), &"alice".into(), &first.fingerprint().into()),
            "{one}"
        );
        // The pinned key is there again, and another node sees it.
        world.sshd.show(first.clone());
        assert!(logs_in(&world));
        world.router.wait_for_line(&format!("release upstream={at} key=\"ssh-ed25519 {}\"", first.fingerprint()));
        assert_eq!(listed(&world)["quarantine"], Value::Null);
        world.router = one_node;
        assert_eq!(lines(&world, "quarantine upstream"), 1);
        // A second change is a second line.
        world.sshd.show(second.clone());
        assert!(!logs_in(&world) && !logs_in(&world));
        assert_eq!(lines(&world, "quarantine upstream"), 2);
        // Nobody listens there now: what was seen can be approved, beside what was pinned.
        let output = world.sshd.process.lines().iter().filter(|line| line.contains("userauth-request")).count();
        assert!(output > tried, "the login that was let in is not seen");
        drop(std::mem::replace(&mut world.sshd.process, crate::world::process::Process::start(Command::new("sleep").arg("60"))));
        let approved = world.command(&["host-key", "approve", &at, "--add", "--yes"]);
        assert!(approved.stderr.contains("this is the one that a login has seen"), "{approved:?}");
        assert!(approved.success().contains("2 keys pinned"));
        let one = listed(&world);
        assert_eq!((&one["quarantine"], one["host"].as_array().unwrap().len()), (&Value::Null, 2), "{one}");
        let removed = world.command(&["host-key", "remove", &at, "--key", &first.fingerprint(), "--yes"]).success();
        assert!(removed.contains("1 pin removed"), "{removed}");
        assert_eq!(listed(&world)["host"][0]["fingerprint"], second.fingerprint());
    }
}

#[test]
fn a_store_that_the_router_may_not_write_costs_the_note_and_neither_the_refusal_nor_the_log() {
    let mut world = unpinned(Kind::Redis);
    let at = address(&world);
    world.command(&["host-key", "approve", &at, "--yes"]).success();
    let acl = |rules: &[&str]| redis::cmd("ACL").arg("SETUSER").arg("router").arg("reset").arg(rules).to_owned();
    let narrow = ["on", ">s3cret", "~pysftpproxy:*", "+hgetall", "+getrange", "+select"];
    let selector = "(~pysftpproxy:quarantine:* +hset +hdel)";
    world.store.redis().ask(&acl(&narrow));
    let port = world.store.redis().port;
    world.restart(&[("SFTPPROXY_REDIS_URL", &format!("redis://router:s3cret@127.0.0.1:{port}"))]);
    assert!(logs_in(&world));
    world.sshd.show(keys::ed25519("second-host"));
    assert!(!logs_in(&world) && !logs_in(&world));
    assert_eq!((lines(&world, "quarantine upstream"), lines(&world, "is not recorded")), (1, 1));
    // As the README says.
    world.store.redis().ask(&acl(&[&narrow[..], &[selector]].concat()));
    assert!(!logs_in(&world));
    let held = redis::cmd("HGET").arg(format!("pysftpproxy:quarantine:{at}")).arg("user").to_owned();
    assert_eq!(world.store.redis().ask(&held), redis::Value::BulkString(b"alice".to_vec()));
    world.sshd.show(keys::ed25519("upstream-host"));
    assert!(logs_in(&world));
    assert_eq!(world.store.redis().ask(&held), redis::Value::Nil);
}

#[test]
fn a_revoked_key_is_not_approved() {
    let world = unpinned(Kind::File);
    know(&world, &format!("@revoked [127.0.0.1]:{} {}\n", world.sshd.port, world.sshd.host_key.line()));
    refused(&world.command(&["host-key", "approve", &address(&world), "--yes"]), "is revoked in ");
}
