//! `explain` says of a login what the login then meets: each case is explained and tried, with real clients, over Redis.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use serde_json::Value;

use crate::world::keys::{self, Key};
use crate::world::{Kind, Setup, USER, World};

/// A world over Redis whose upstream counts who comes.
fn world() -> World {
    World::with(Setup { store: Kind::Redis, ..Setup::default() })
}

/// What `explain` says as JSON, and its exit code.
#[track_caller]
fn explain(world: &World, arguments: &[&str]) -> (i32, Value) {
    let output = world.command(&[&["explain", "--user", USER, "--json"], arguments].concat());
    let said = serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.code, said)
}

/// The steps of this name that stand so.
fn steps<'a>(said: &'a Value, name: &str, state: &str) -> Vec<&'a Value> {
    let all = said["steps"].as_array().unwrap();
    all.iter().filter(|step| step["step"] == name && step["state"] == state).collect()
}

/// A route of [`USER`] like the world's with these fields otherwise.
fn put(world: &mut World, fields: &[(&str, &str)]) {
    let mut route = world.route();
    route.retain(|(name, _)| fields.iter().all(|(changed, _)| name != changed));
    world.store.redis().ask(redis::cmd("DEL").arg("pysftpproxy:user:alice"));
    let changed = fields.iter().map(|(name, value)| (*name, (*value).to_owned())).filter(|(_, value)| !value.is_empty());
    let all: Vec<_> = route.into_iter().chain(changed).collect();
    world.store.put(USER, &[&keys::ed25519(USER)], &all);
}

/// Explains the login of [`USER`] with a key and tries it: both must be refused, and for the same reason.
#[track_caller]
fn refused_alike(world: &World, key: &Key, (step, reason, advice): (&str, &str, &str)) {
    let (code, said) = explain(world, &["--key", key.public().to_str().unwrap()]);
    assert_eq!((code, said["outcome"].as_str()), (3, Some("refused")), "{said:#}");
    let bad = steps(&said, step, "BAD");
    let one = bad.first().unwrap_or_else(|| panic!("{step} is not what is bad: {said:#}"));
    assert!(one["text"].as_str().unwrap().contains(reason), "{reason}: {said:#}");
    assert!(one["advice"].as_str().unwrap_or_default().contains(advice), "{advice}: {said:#}");
    assert!(said["reason"].as_str().unwrap().contains(reason), "{said:#}");

    let before = world.router.lines().len();
    let output = world.proxied_with(USER, key).sftp("pwd\n");
    assert_ne!(output.code, 0, "the login that was explained as refused is let in: {said:#}");
    let ended = |lines: &[String]| lines.iter().any(|line| line.contains("end session="));
    let lines = || world.router.lines().split_off(before);
    assert!(crate::world::process::until(crate::world::process::LIMIT, || ended(&lines())));
    let told = lines().into_iter().filter(|line| line.contains("reason=\"")).any(|line| line.contains(&reason.replace('"', "'")));
    assert!(told, "the login was refused for another reason than {reason}:\n{}", lines().join("\n"));
}

#[test]
fn a_user_who_is_let_in_is_explained_with_everything_that_is_read_and_the_upstream_is_not_asked() {
    let world = world();
    let key = keys::ed25519(USER);
    let visits = || world.sshd.process.lines().iter().filter(|line| line.contains("Connection from")).count();
    let before = visits();
    let output = world.command(&["explain", "--user", USER, "--from", "192.0.2.7"]);
    let text = output.clone().success();
    let (address, pin) = (format!("127.0.0.1:{}", world.sshd.port), world.sshd.host_key.fingerprint());
    let (entry, fingerprint) = (format!("read pysftpproxy:pubkey:{}: alice", key.base64()), key.fingerprint());
    let credential = format!(
        "key {}: ssh-ed25519 {}",
        keys::ed25519("router-user").private.display(),
        keys::ed25519("router-user").fingerprint()
    );
    for expected in [
        "ok      connect    192.0.2.7 may connect, while fewer than 1000 connections are open",
        "read pysftpproxy:bans: nothing",
        &entry,
        &format!("ssh-ed25519 {fingerprint} is alice's"),
        "read pysftpproxy:maintenance: nothing",
        "read pysftpproxy:user:alice: 5 fields",
        "  remote = 127.0.0.1",
        &format!("@{address}, starts in "),
        "everything is allowed",
        &format!("must be {pin}, by the record"),
        &credential,
        &format!("{address} was not asked"),
        "user alice would be let in",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert!(!text.contains('\u{1b}'), "colours where no terminal is: {text}");
    assert_eq!(visits(), before);
    world.proxied(USER).sftp("pwd\n").success();

    for arguments in [&["--key", key.public().to_str().unwrap()][..], &["--fingerprint", &fingerprint], &[]] {
        let (code, said) = explain(&world, arguments);
        assert_eq!((code, said["outcome"].as_str(), &said["reason"]), (0, Some("let in"), &Value::Null), "{said:#}");
        assert_eq!(steps(&said, "key", "ok")[0]["reads"][0]["value"], USER, "{said:#}");
        assert_eq!(steps(&said, "route", "ok")[0]["reads"][1]["value"]["hostkey"], pin.as_str(), "{said:#}");
    }
}

#[test]
fn a_key_that_does_not_let_in_is_explained_as_its_login_meets_it() {
    let mut world = world();
    let [mine, bobs, nobodys] = [USER, "bob", "nobody"].map(keys::ed25519);
    world.add_user("bob", &bobs);
    refused_alike(&world, &bobs, ("key", "the key is another user's", "log in as bob, or: sftpproxy key remove bob SHA256:"));
    refused_alike(&world, &nobodys, ("key", "nobody has this key", "sftpproxy key add alice FILE"));
    let (code, said) = explain(&world, &["--fingerprint", &nobodys.fingerprint()]);
    assert!(code == 3 && said["reason"].as_str().unwrap().starts_with("nobody has a key with the fingerprint"), "{said:#}");

    // The whole line where its second field should stand.
    let dead = keys::ed25519("dead");
    world.store.redis().set(&format!("pysftpproxy:pubkey:{}", dead.line()), USER);
    refused_alike(
        &world,
        &dead,
        (
            "key",
            "nobody has this key",
            &format!("sftpproxy key remove alice {}, then: sftpproxy key add alice", dead.fingerprint()),
        ),
    );
    let (code, said) = explain(&world, &[]);
    assert_eq!((code, steps(&said, "key", "ok").len(), steps(&said, "key", "note").len()), (0, 1, 1), "{said:#}");
    world.store.redis().ask(redis::cmd("DEL").arg(format!("pysftpproxy:pubkey:{}", mine.base64())));
    let (code, said) = explain(&world, &[]);
    assert_eq!(code, 3);
    assert!(steps(&said, "key", "BAD")[0]["text"].as_str().unwrap().contains("the whole line is stored"), "{said:#}");
    world.store.redis().ask(redis::cmd("DEL").arg(format!("pysftpproxy:pubkey:{}", dead.line())));
    let (code, said) = explain(&world, &[]);
    assert!(code == 3 && said["reason"] == "the store has no key of user \"alice\"", "{said:#}");

    // libssh refuses it without asking the store.
    let short = keys::rsa_of("short", 1024);
    world.store.redis().set(&format!("pysftpproxy:pubkey:{}", short.base64()), USER);
    let (code, said) = explain(&world, &["--key", short.public().to_str().unwrap()]);
    assert!(code == 3 && said["reason"].as_str().unwrap().contains("an RSA key of 1024 bits is refused"), "{said:#}");
    assert_ne!(world.proxied_with(USER, &short).sftp("pwd\n").code, 0);
}

#[test]
fn a_route_that_leads_nowhere_is_explained_as_its_login_meets_it() {
    let mut world = world();
    let key = keys::ed25519(USER);
    world.store.redis().set("pysftpproxy:maintenance", "back at 14:00");
    refused_alike(&world, &key, ("route", "maintenance: back at 14:00", "sftpproxy maintenance off"));
    world.store.redis().ask(redis::cmd("DEL").arg("pysftpproxy:maintenance"));
    put(&mut world, &[("maintenance", "moving")]);
    refused_alike(&world, &key, ("route", "maintenance: moving", "sftpproxy maintenance off --user alice"));
    put(&mut world, &[("port", "70000")]);
    refused_alike(&world, &key, ("route", "port: \"70000\" is not a port", "sftpproxy user add alice --update"));
    world.store.redis().ask(redis::cmd("DEL").arg("pysftpproxy:user:alice"));
    refused_alike(&world, &key, ("route", "the user has no record", ""));
}

#[test]
fn what_is_missing_for_the_upstream_is_explained_as_its_login_meets_it() {
    let mut world = world();
    let key = keys::ed25519(USER);
    put(&mut world, &[("hostkey", "")]);
    // A login names the key that it was shown, which an explanation cannot know.
    let (code, said) = explain(&world, &[]);
    let bad = &steps(&said, "host key", "BAD")[0];
    assert!(
        code == 3 && bad["text"].as_str().unwrap().starts_with("none is approved: no pin in the record or of 127.0.0.1:"),
        "{said:#}"
    );
    assert!(bad["advice"].as_str().unwrap().starts_with(&format!("sftpproxy host-key scan 127.0.0.1:{}", world.sshd.port)));
    assert_ne!(world.proxied(USER).sftp("pwd\n").code, 0);
    world.router.wait_for_line("end session=*stage=\"trust\" reason=\"host key*is not known");

    let address = format!("127.0.0.1:{}", world.sshd.port);
    world.command(&["host-key", "approve", &address, "--key", &world.sshd.host_key.fingerprint(), "--yes"]).success();
    let (code, said) = explain(&world, &[]);
    let good = &steps(&said, "host key", "ok")[0];
    assert!(code == 0 && good["text"].as_str().unwrap().ends_with(&format!("by the entry of {address}")), "{said:#}");
    assert_eq!(good["reads"][0]["place"], format!("pysftpproxy:host:{address}"), "{said:#}");
    world.proxied(USER).sftp("pwd\n").success();
    world.store.redis().ask(redis::cmd("DEL").arg(format!("pysftpproxy:host:{address}")));

    let file = world.folder.path().join("home/.ssh/known_hosts");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, format!("[127.0.0.1]:{} {}\n", world.sshd.port, world.sshd.host_key.line())).unwrap();
    let (code, said) = explain(&world, &[]);
    assert!(code == 0 && steps(&said, "host key", "ok")[0]["text"].as_str().unwrap().ends_with("known_hosts"), "{said:#}");

    put(&mut world, &[("key", "/does/not/exist")]);
    refused_alike(&world, &key, ("credential", "/does/not/exist: No such file", "mode 0600"));
    let open: PathBuf = world.folder.path().join("open");
    std::fs::copy(keys::ed25519("router-user").private, &open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o644)).unwrap();
    put(&mut world, &[("key", open.to_str().unwrap())]);
    refused_alike(&world, &key, ("credential", "; run: chmod 600", "mode 0600"));
    std::fs::write(&open, "-----BEGIN OPENSSH PRIVATE KEY-----\nbm9uZQ==\n").unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o600)).unwrap();
    let (code, said) = explain(&world, &[]);
    assert!(code == 3 && said["reason"].as_str().unwrap().contains("not an unencrypted private key"), "{said:#}");
    assert!(!said.to_string().contains("bm9uZQ"), "the content of a key file is shown: {said:#}");
}

#[test]
fn a_quarantined_upstream_is_a_warning_for_who_pins_another_key() {
    let mut world = world();
    put(&mut world, &[("hostkey", &keys::ed25519("strange").fingerprint())]);
    assert_ne!(world.proxied(USER).sftp("pwd\n").code, 0);
    world.router.wait_for_line("quarantine upstream=127.0.0.1:");
    let (code, said) = explain(&world, &[]);
    let warned = &steps(&said, "quarantine", "warning")[0];
    assert!(code == 0 && warned["text"].as_str().unwrap().contains(&world.sshd.host_key.fingerprint()), "{said:#}");
}

#[test]
fn where_a_user_comes_from_is_judged_by_settings_bans_and_the_record() {
    let mut world = World::with(Setup { store: Kind::Redis, settings: &[("DENY_FROM", "203.0.113.0/24")], ..Setup::default() });
    put(&mut world, &[("from", "192.0.2.0/24")]);
    world.command(&["ban", "add", "198.51.100.0/24", "--reason", "noise"]).success();
    for (from, step, reason, advice) in [
        ("203.0.113.9", "connect", "the address is in SFTPPROXY_DENY_FROM", "change the setting"),
        ("198.51.100.9", "connect", "198.51.100.0/24 is banned", "sftpproxy ban remove 198.51.100.0/24"),
        ("127.0.0.1", "from", "the address is not in the field \"from\"", "sftpproxy user add alice --update --from"),
    ] {
        let (code, said) = explain(&world, &["--from", from]);
        let bad = steps(&said, step, "BAD");
        assert!(code == 3 && bad.len() == 1 && bad[0]["text"].as_str().unwrap().contains(reason), "{said:#}");
        assert!(bad[0]["advice"].as_str().unwrap().starts_with(advice), "{said:#}");
    }
    let (code, said) = explain(&world, &["--from", "192.0.2.9"]);
    assert!(code == 0 && steps(&said, "from", "ok")[0]["text"] == "192.0.2.9 is in 192.0.2.0/24", "{said:#}");
    // As explained: this client comes from 127.0.0.1.
    assert_ne!(world.proxied(USER).sftp("pwd\n").code, 0);
    world.router.wait_for_line("end session=*the address is not in the field 'from'");
}

#[test]
fn a_store_that_does_not_answer_and_bad_arguments_have_codes_of_their_own() {
    let mut world = world();
    let key = keys::ed25519(USER);
    for (arguments, reason) in [
        (&["explain", "--user", "a\nb"][..], "control characters"),
        (&["explain", "--user", USER, "--from", "here"], "is no address"),
        (&["explain", "--user", USER, "--fingerprint", "SHA256:x"], "not a SHA256 fingerprint"),
        (&["explain", "--user", USER, "--key", "/does/not/exist"], "/does/not/exist"),
        (&["explain", "--user", USER, "--key", key.private.to_str().unwrap()], "private key"),
    ] {
        let output = world.command(arguments);
        assert!(output.code == 2 && output.stderr.contains(reason), "{arguments:?}: {output:?}");
        assert!(output.stderr.starts_with("sftpproxy explain: "), "{output:?}");
    }
    world.store.redis().stop();
    for arguments in [&["--key", key.public().to_str().unwrap()][..], &[]] {
        let (code, said) = explain(&world, arguments);
        assert_eq!((code, said["outcome"].as_str()), (1, Some("unknown")), "{said:#}");
        assert!(!steps(&said, "key", "unknown").is_empty(), "{said:#}");
    }
    world.store.redis().restart();
}

#[test]
fn routes_in_a_file_are_explained_with_the_places_in_the_file() {
    let world = World::start();
    let (code, said) = explain(&world, &[]);
    let key = &steps(&said, "key", "ok")[0]["reads"][0];
    assert!(code == 0 && key["place"].as_str().unwrap().contains("routes.toml: keys with AAAA"), "{said:#}");
    let route = &steps(&said, "route", "ok")[0]["reads"];
    assert!(route[1]["place"].as_str().unwrap().ends_with("routes.toml: [users.alice]"), "{said:#}");
}
