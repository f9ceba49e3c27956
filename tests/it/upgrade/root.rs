//! A router that root has started for an account: the one that takes over becomes that account too, and what both leave on the disk is
//! of use to the account and to root.

use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use nix::unistd::User;
use serde_json::Value;

use super::{fetching, idle, listed, reload};
use crate::world::process::{LIMIT, Output, run, signal, until};
use crate::world::tree::hash;
use crate::world::{USER, World, keys};

/// An ordinary account that every machine has.
const ACCOUNT: &str = "nobody";

fn account() -> Option<User> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not root: this test tells nothing");
        return None;
    }
    User::from_name(ACCOUNT).expect("the account database")
}

/// A world whose router root has started for the account; it makes its state folder itself.
fn world_of(account: &User) -> World {
    let mut world = World::start();
    let at = |name: &str| world.folder.path().join(name);
    std::fs::set_permissions(world.folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
    let (key, program, state) = (at("key"), at("sftpproxy"), at("made").display().to_string());
    std::fs::copy(&keys::ed25519("router-user").private, &key).unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_sftpproxy"), program).unwrap();
    chown(&key, Some(account.uid.as_raw()), None).unwrap();
    world.restart(&[
        ("SFTPPROXY_USERID", ACCOUNT),
        ("SFTPPROXY_STATE_DIR", &state),
        ("SFTPPROXY_UPSTREAM_KEY_PATH", key.to_str().unwrap()),
    ]);
    world
}

/// Runs one of our commands as the account.
fn as_account(world: &World, account: &User, arguments: &[&str]) -> Output {
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={}", account.uid), format!("--regid={}", account.gid), "--clear-groups".into()]);
    command.arg(world.folder.path().join("sftpproxy")).args(arguments);
    run(command.env_clear().envs(world.router.environment().iter().cloned()))
}

/// The user of a process, whether real, effective or saved, and of its files.
fn users(pid: u32) -> Vec<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let line = status.lines().find(|line| line.starts_with("Uid:")).expect("a line of proc(5)");
    line.split_whitespace().skip(1).map(|user| user.parse().unwrap()).collect()
}

fn owner(path: &Path) -> u32 {
    path.metadata().unwrap_or_else(|error| panic!("{}: {error}", path.display())).uid()
}

#[test]
fn started_by_root_for_an_account_it_is_replaced_twice_by_one_that_becomes_the_account_too() {
    let Some(account) = account() else { return };
    let mut world = world_of(&account);
    let (uid, made) = (account.uid.as_raw(), world.folder.path().join("made"));
    assert_eq!((owner(&made), made.metadata().unwrap().mode() & 0o7777), (0, 0o1770));
    assert_eq!((users(world.router.pid()), owner(&made.join("control.sock"))), (vec![uid; 4], uid));
    let transfer = fetching(&world);
    let mut first = world.take_over(&[]);
    world.router.wait_for_line("listening on *socket=taken");
    first.wait_for_line(&format!("handed over: to={} sessions=1;", world.router.pid()));
    assert_eq!((users(world.router.pid()), owner(&made.join("control.sock"))), (vec![uid; 4], uid));
    world.proxied(USER).sftp("pwd\n").success();
    // Both see both generations.
    assert!(until(LIMIT, || listed(&world).len() == 1), "{:?}", listed(&world));
    let seen: Value = serde_json::from_str(&as_account(&world, &account, &["sessions", "list", "--json"]).success()).unwrap();
    assert_eq!((seen.as_array().map(Vec::len), &seen[0]["here"]), (Some(1), &false.into()), "{seen}");
    assert_eq!(transfer.end(), 0);
    assert_eq!(hash(&world.sshd.files.join("big")), hash(&world.client().join("fetched")));
    assert_eq!(first.wait(), 0, "it ends with its last session");

    // The account cannot read root's host keys, and says so; root can.
    let output = as_account(&world, &account, &["reload"]);
    assert!(output.code == 1 && output.stderr.contains("host key") && output.stderr.contains("goes on"), "{output:?}");
    let (mut session, log) = (idle(&world), made.join("log"));
    let (_reload, heir) = reload(&world, &[("SFTPPROXY_LOG_FILE", log.to_str().unwrap())]);
    assert_eq!((users(heir.0), owner(&made.join("control.sock")), owner(&log)), (vec![uid; 4], uid, uid));
    world.proxied(USER).sftp("pwd\n").success();
    session.ask("pwd", "Remote working directory");
    std::fs::rename(&log, made.join("moved")).unwrap();
    signal(heir.0, Signal::SIGHUP);
    assert!(until(LIMIT, || log.exists()), "the account opens its log anew");
    // The newest one, ended, ends the one before, which still has somebody.
    let kicked = as_account(&world, &account, &["sessions", "kick", "--user", USER, "--reason", "moved"]).success();
    assert!(kicked.contains("of alice"), "{kicked}");
    session.shows("Received disconnect*your session was ended by the administrator: moved");
    assert!(session.was_cut());
    assert_eq!(world.router.wait(), 0);
    signal(heir.0, Signal::SIGTERM);
    assert!(until(LIMIT, || !heir.lives()));
    let left =
        || std::fs::read_dir(&made).unwrap().flatten().filter(|entry| entry.file_name().to_string_lossy().contains("sock"));
    assert_eq!(left().count(), 0, "{:?}", left().collect::<Vec<_>>());
}

#[test]
fn an_heir_that_would_be_another_account_changes_nothing() {
    if account().is_none() {
        return;
    }
    let world = World::start();
    let mut session = idle(&world);
    let mut heir = world.router.command();
    let output = run(heir.env("SFTPPROXY_TAKE_OVER", "yes").env("SFTPPROXY_USERID", ACCOUNT));
    assert!(output.code == 1 && output.stderr.contains("another account needs a restart"), "{output:?}");
    world.router.wait_for_line("WARN*take-over: process *has left before it served; this router goes on");
    session.ask("pwd", "Remote working directory");
    world.proxied(USER).sftp("pwd\n").success();
    assert_eq!((session.end(), listed(&world).len()), (0, 0));
}
