//! `sessions`: what runs is seen, on every node, and ended with a reason that the user is shown.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::world::clients::Session;
use crate::world::process::{LIMIT, Output, run, until};
use crate::world::router::Router;
use crate::world::tree::big_file;
use crate::world::{Kind, Setup, USER, World, keys};

const MIB: u64 = 1024 * 1024;

fn json(output: Output) -> Value {
    serde_json::from_str(&output.success()).expect("JSON")
}

fn listed(world: &World) -> Vec<Value> {
    json(world.command(&["sessions", "list", "--json"])).as_array().unwrap().clone()
}

/// A session that fetches a file of 64 MiB at 1 MiB a second, as soon as bytes come.
fn fetching(world: &World, router: &Router) -> Session {
    let mut route = world.route();
    route.push(("download_limit", "1024".to_owned()));
    world.store.put(USER, &[&keys::ed25519(USER)], &route);
    big_file(&world.sshd.files.join("big"), 64 * MIB);
    let mut target = world.proxied(USER);
    target.port = router.port;
    let mut session = target.session();
    session.ask("pwd", "Remote working directory");
    session.say("get big /dev/null");
    session
}

#[test]
fn a_transfer_is_seen_and_its_session_ended_with_a_reason_that_the_user_is_shown() {
    let world = World::start();
    assert!(listed(&world).is_empty());
    let session = fetching(&world, &world.router);
    let file = |sessions: &[Value]| sessions.first().map_or(Value::Null, |session| session["transfers"][0].clone());
    assert!(until(LIMIT, || file(&listed(&world))["offset"].as_u64().is_some_and(|offset| offset > 0)), "{:?}", listed(&world));
    // The second look is a second after the first.
    assert!(until(LIMIT, || listed(&world)[0]["slow"] == "limit"), "{:?}", listed(&world));
    let sessions = listed(&world);
    let (seen, transfer) = (&sessions[0], file(&sessions));
    assert_eq!((&seen["user"], &seen["state"], &seen["here"]), (&USER.into(), &"relaying".into(), &true.into()), "{seen}");
    assert_eq!(seen["key"], keys::ed25519(USER).fingerprint());
    assert_eq!((&transfer["direction"], &transfer["size"]), (&"down".into(), &(64 * MIB).into()), "{transfer}");
    assert!(transfer["path"].as_str().unwrap().ends_with("/big"), "{transfer}");
    let list = world.command(&["sessions", "list"]).success();
    assert!(list.starts_with("SESSION  USER") && list.contains("alice") && list.contains("127.0.0.1:"), "{list}");
    let number = seen["session"].to_string();
    let shown = world.command(&["sessions", "show", &number]).success();
    assert!(shown.contains("big") && shown.contains(" of 64 MiB ("), "{shown}");

    for (arguments, code, reason) in [
        (&["show", "99"][..], 2, "no session 99"),
        (&["kick", "99"], 2, "no session 99"),
        (&["kick", "x"], 2, "not a session's number"),
        (&["kick", "--user", "nobody"], 2, "no such session"),
        (&["kick", "--all"], 2, "--yes"),
        (&["kick", &number, "--reason", "two\nlines"], 2, "one line"),
    ] {
        let output = world.command(&[&["sessions"], arguments].concat());
        assert!(output.code == code && output.stderr.contains(reason), "{arguments:?}: {output:?}");
    }
    let ended = json(world.command(&["sessions", "kick", &number, "--reason", "the \"disk\" is full", "--json"]));
    assert_eq!(ended[0]["user"], USER);
    session
        .shows("Received disconnect from 127.0.0.1 port *:11: your session was ended by the administrator: the \"disk\" is full");
    assert_ne!(session.end(), 0);
    world
        .router
        .wait_for_line("end session=*user=\"alice\"*side=router*reason=\"ended by the operator: the \\'disk\\' is full\"");
    assert!(until(LIMIT, || listed(&world).is_empty()));
}

#[test]
fn all_sessions_or_a_users_are_ended_at_once_also_those_that_have_not_logged_in() {
    let world = World::start();
    world.add_user("bob", &keys::ed25519("bob"));
    let mut sessions = [USER, "bob"].map(|user| world.proxied(user).session());
    sessions.iter_mut().for_each(|session| drop(session.ask("pwd", "Remote working directory")));
    let silent = std::net::TcpStream::connect(("127.0.0.1", world.router.port)).unwrap();
    assert!(until(LIMIT, || listed(&world).len() == 3));
    let [mut alice, bob] = sessions;
    let output = world.command(&["sessions", "kick", "--user", "bob"]).success();
    assert!(output.contains("of bob from 127.0.0.1:") && output.lines().count() == 1, "{output}");
    bob.shows("Received disconnect*your session was ended by the administrator");
    alice.ask("pwd", "Remote working directory");
    world.command(&["sessions", "kick", "--all", "--yes"]).success();
    alice.shows("Received disconnect*your session was ended by the administrator");
    world.router.wait_for_lines("end session=*reason=\"ended by the operator\"", 3);
    drop((silent, alice.end(), bob.end()));
}

#[test]
fn the_socket_has_the_mode_that_is_wanted_and_is_replaced_after_a_crash() {
    let mut world = World::with(Setup { settings: &[("CONTROL_MODE", "0660")], ..Setup::default() });
    let socket = world.folder.path().join("state/control.sock");
    let mode = || std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o660);
    world.router.kill();
    assert!(socket.exists());
    let output = world.command(&["sessions", "list"]);
    assert!(output.code == 1 && output.stderr.contains("no router of this machine answers"), "{output:?}");
    world.restart(&[("SFTPPROXY_CONTROL_MODE", "0600")]);
    assert_eq!((mode(), listed(&world).len()), (0o600, 0));
    // A second router of the same state goes without, unless it was told where.
    let second = world.router.again(0);
    second.wait_for_line("WARN*control socket*another router answers there");
    let named = socket.display().to_string();
    let output = run(world.router.command().env("SFTPPROXY_CONTROL_SOCKET", &named));
    assert!(output.code == 1 && output.stderr.contains("another router answers there"), "{output:?}");
    drop(second);
    world.restart(&[("SFTPPROXY_CONTROL_SOCKET", "none")]);
    assert!(!socket.exists());
}

#[test]
fn sessions_of_another_node_are_seen_and_ended_through_redis() {
    let world = World::with(Setup { store: Kind::Redis, settings: &[("NODE_INTERVAL", "1")], ..Setup::default() });
    let second = world.router.again(world.store.lazy_descriptors());
    let session = fetching(&world, &second);
    let file = |sessions: &[Value]| sessions.first().map_or(Value::Null, |session| session["transfers"][0].clone());
    assert!(until(LIMIT, || file(&listed(&world))["offset"].as_u64().is_some_and(|offset| offset > 0)), "{:?}", listed(&world));
    let seen = &listed(&world)[0];
    assert_eq!((&seen["user"], &seen["here"]), (&USER.into(), &false.into()), "{seen}");
    let name = format!("{}/{}", seen["node"].as_str().unwrap(), seen["session"]);
    assert!(world.command(&["sessions", "list"]).success().contains(&name));
    let started = Instant::now();
    let output = world.command(&["sessions", "kick", &name, "--reason", "moved"]).success();
    assert!(output.contains(&format!("session {name} of alice")), "{output}");
    session.shows("Received disconnect*your session was ended by the administrator: moved");
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    second.wait_for_line("end session=1 user=\"alice\"*reason=\"ended by the operator: moved\"");
    assert_ne!(session.end(), 0);
    assert!(until(LIMIT, || listed(&world).is_empty()));
}
