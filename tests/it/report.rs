//! `report algorithms` says of real logins what they have negotiated, and of stored keys what will have to go.

use std::path::Path;

use serde_json::Value;

use crate::world::process::{LIMIT, Output, until};
use crate::world::{Kind, Setup, USER, World, keys};

/// A world over Redis with its audit in a file of this folder.
fn audited(folder: &Path) -> World {
    let audit = format!("file:{}", folder.join("audit").display());
    World::with(Setup { store: Kind::Redis, settings: &[("AUDIT", &audit)], ..Setup::default() })
}

fn report(world: &World, arguments: &[&str]) -> Output {
    world.command(&[&["report", "algorithms"], arguments].concat())
}

#[track_caller]
fn json(world: &World, arguments: &[&str]) -> Value {
    let text = report(world, &[&["--json"], arguments].concat()).success();
    serde_json::from_str(&text).unwrap()
}

fn wait_for_logins(folder: &Path, count: usize) {
    let logins = || std::fs::read_to_string(folder.join("audit")).unwrap_or_default().matches("\"kind\":\"login\"").count();
    assert!(until(LIMIT, || logins() == count), "{} of {count} logins are in the audit", logins());
}

#[test]
fn logins_are_told_by_user_client_and_what_was_negotiated() {
    let folder = tempfile::tempdir().unwrap();
    let world = audited(folder.path());
    let old = keys::rsa_of("report", 2048);
    world.add_user("bob", &old);
    world.proxied(USER).sftp("pwd\n").success();
    let bob = ["KexAlgorithms=curve25519-sha256", "Ciphers=aes128-ctr", "MACs=hmac-sha2-256"]
        .into_iter()
        .fold(world.proxied_with("bob", &old), |bob, option| bob.with_option(option));
    bob.sftp("pwd\n").success();
    bob.sftp("pwd\n").success();
    wait_for_logins(folder.path(), 3);

    let said = json(&world, &[]);
    let of = |user: &str| said["logins"].as_array().unwrap().iter().find(|login| login["user"] == user).unwrap();
    let bobs = of("bob");
    for (field, value) in
        [("kex", "curve25519-sha256"), ("cipher", "aes128-ctr"), ("mac", "hmac-sha2-256"), ("key_type", "ssh-rsa")]
    {
        assert!(bobs[field].as_str().unwrap().starts_with(value), "{field}: {bobs:#}");
    }
    assert_eq!((&bobs["key_bits"], &bobs["logins"], &bobs["post_quantum"]), (&2048.into(), &2.into(), &false.into()), "{bobs:#}");
    assert!(bobs["state"] == "warning" && bobs["notes"].to_string().contains("RSA of 2048 bits"), "{bobs:#}");
    assert!(bobs["software"].as_str().unwrap().starts_with("SSH-2.0-OpenSSH_"), "{bobs:#}");
    let alices = of(USER);
    assert_eq!((&alices["key_type"], &alices["key_bits"], &alices["logins"]), (&"ssh-ed25519".into(), &256.into(), &1.into()));
    assert!(!alices["kex"].as_str().unwrap().is_empty() && alices["state"] != "warning", "{alices:#}");
    assert_eq!(said["summary"]["logins"], 3, "{said:#}");
    assert!(!said.to_string().contains("sha1"), "SHA-1 was negotiated: {said:#}");
    let keys: Vec<_> = said["keys"].as_array().unwrap().iter().map(|key| (&key["user"], &key["bits"], &key["state"])).collect();
    assert!(keys.contains(&(&"bob".into(), &2048.into(), &"warning".into())) && keys.len() == 2, "{said:#}");

    let text = report(&world, &[]).success();
    for expected in
        ["STATE    USER", "warning  bob", "ssh-rsa 2048", "RSA of 2048 bits, 3072 are recommended", "3 logins, ", "STORED KEYS"]
    {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn rotated_files_dates_and_what_an_old_router_wrote_are_taken_into_account() {
    let folder = tempfile::tempdir().unwrap();
    let world = audited(folder.path());
    world.proxied(USER).sftp("pwd\n").success();
    wait_for_logins(folder.path(), 1);
    let old = "{\"v\":1,\"time\":\"2024-02-03T04:05:06.000Z\",\"kind\":\"login\",\"user\":\"carol\",\"software\":\"SSH-2.0-x\\u001b[2J\"}\n";
    std::fs::write(folder.path().join("audit.1"), old).unwrap();
    let users = |said: &Value| said["logins"].as_array().unwrap().iter().map(|login| login["user"].clone()).collect::<Vec<_>>();
    let said = json(&world, &[]);
    assert_eq!(users(&said), [USER, "carol"], "{said:#}");
    assert_eq!(
        (&said["logins"][1]["state"], &said["logins"][1]["last"]),
        (&"unknown".into(), &"2024-02-03T04:05:06.000Z".into())
    );
    assert_eq!(users(&json(&world, &["--since", "2025-01-01"])), [USER]);
    let file = folder.path().join("audit.1").display().to_string();
    assert_eq!(users(&json(&world, &[&file])), ["carol"]);
    let text = report(&world, &[&file]).success();
    assert!(text.contains("carol") && !text.contains('\u{1b}'), "{text}");
    let only = json(&world, &["--from-store"]);
    assert!(only["logins"].is_null() && only["keys"].as_array().unwrap().len() == 1, "{only:#}");
    assert!(report(&world, &["--from-store"]).success().contains("ssh-ed25519"));
    for (arguments, code, reason) in [
        (&["--since", "yesterday"][..], 2, "is no date"),
        (&["/does/not/exist"], 1, "No such file"),
        (&["--from-store", &file], 2, "cannot be used with"),
    ] {
        let output = report(&world, arguments);
        assert!(output.code == code && output.stderr.contains(reason), "{output:?}");
    }
}
