//! The life of the program: how it starts, how it ends, and what its exit code says.

use std::net::{TcpListener, TcpStream};

use nix::sys::signal::Signal;

use crate::world::process::{LIMIT, run, until};
use crate::world::{Kind, Setup, USER, World};

fn world_with(settings: &[(&str, &str)]) -> World {
    World::with(Setup { settings, ..Setup::default() })
}

fn refuses_connections(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_err()
}

#[test]
fn without_sessions_either_signal_ends_it_at_once_with_code_0() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut world = World::start();
        world.router.signal(signal);
        assert_eq!(world.router.wait(), 0, "{signal}");
        assert!(refuses_connections(world.router.port));
    }
}

#[test]
fn after_the_first_signal_nobody_new_gets_in_and_a_session_may_finish() {
    let mut world = World::start();
    let mut session = world.proxied(USER).session();
    session.ask("pwd", "Remote working directory");
    world.router.signal(Signal::SIGTERM);
    assert!(until(LIMIT, || refuses_connections(world.router.port)), "still listens after SIGTERM");
    std::fs::write(world.client().join("late"), "after the signal").unwrap();
    session.say("put late");
    assert_eq!(session.end(), 0);
    assert_eq!(world.router.wait(), 0);
    assert_eq!(std::fs::read_to_string(world.sshd.files.join("late")).unwrap(), "after the signal");
}

#[test]
fn a_session_that_goes_on_beyond_the_drain_limit_is_cut_and_the_code_is_3() {
    let mut world = world_with(&[("DRAIN_TIMEOUT", "0.5")]);
    let mut session = world.proxied(USER).session();
    session.ask("pwd", "Remote working directory");
    world.router.signal(Signal::SIGTERM);
    assert_eq!(world.router.wait(), 3);
    assert!(session.was_cut());
}

#[test]
fn the_second_signal_cuts_sessions_at_once_and_the_code_is_3() {
    let mut world = world_with(&[("DRAIN_TIMEOUT", "3600")]);
    let mut session = world.proxied(USER).session();
    session.ask("pwd", "Remote working directory");
    world.router.signal(Signal::SIGTERM);
    assert!(until(LIMIT, || refuses_connections(world.router.port)), "still listens after SIGTERM");
    world.router.signal(Signal::SIGTERM);
    assert_eq!(world.router.wait(), 3);
    assert!(session.was_cut());
}

#[test]
fn the_second_signal_also_cuts_clients_that_never_spoke() {
    let mut world = world_with(&[("DRAIN_TIMEOUT", "3600")]);
    let silent: Vec<_> = (0..20).map(|_| TcpStream::connect(("127.0.0.1", world.router.port)).unwrap()).collect();
    world.router.wait_for_lines("accept session=", silent.len());
    world.router.signal(Signal::SIGTERM);
    assert!(until(LIMIT, || refuses_connections(world.router.port)), "still listens after SIGTERM");
    world.router.signal(Signal::SIGTERM);
    assert_eq!(world.router.wait(), 3);
}

#[test]
fn a_bad_configuration_ends_the_start_with_code_2_and_names_every_fault() {
    let world = World::start();
    let mut command = world.router.command();
    let output = run(command.env("SFTPPROXY_PORT", "70000").env("SFTPPROXY_REDIS_DB", "x"));
    assert_eq!(output.code, 2, "{output:?}");
    assert!(output.stderr.contains("SFTPPROXY_PORT") && output.stderr.contains("SFTPPROXY_REDIS_DB"), "{output:?}");
    let mut check = world.router.command();
    let checked = run(check.env("SFTPPROXY_PORT", "70000").arg("check-config"));
    assert_eq!(checked.code, 2, "{checked:?}");
    assert_eq!(world.command(&["check-config"]).code, 0);
}

#[test]
fn a_port_that_is_taken_ends_the_start_with_code_1() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let world = World::start();
    let mut command = world.router.command();
    let output = run(command.env("SFTPPROXY_PORT", taken.local_addr().unwrap().port().to_string()));
    assert_eq!(output.code, 1, "{output:?}");
}

#[test]
fn a_store_that_goes_away_and_comes_back_touches_no_running_session() {
    let mut world = World::with(Setup { store: Kind::Redis, ..Setup::default() });
    let mut session = world.proxied(USER).session();
    session.ask("pwd", "Remote working directory");
    world.store.redis().stop();
    assert_ne!(world.proxied(USER).sftp("pwd\n").code, 0);
    session.ask("ls -la", " ..");
    world.store.redis().restart();
    world.add_user(USER, &crate::world::keys::ed25519(USER));
    world.proxied(USER).sftp("pwd\n").success();
    assert_eq!(session.end(), 0);
}

#[test]
fn started_as_root_with_a_user_id_it_runs_as_that_user() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not root: this test tells nothing");
        return;
    }
    // The world's folder and keys are root's: it is enough to see who the process is, and in which groups.
    let world = world_with(&[("USERID", "65534"), ("GROUPID", "65534")]);
    let status = std::fs::read_to_string(format!("/proc/{}/status", world.router.pid())).unwrap();
    let field = |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
    assert_eq!(field("Uid:").split_whitespace().skip(1).collect::<Vec<_>>(), ["65534"; 4]);
    assert_eq!(field("Gid:").split_whitespace().skip(1).collect::<Vec<_>>(), ["65534"; 4]);
    assert!(field("Groups:").split_whitespace().skip(1).all(|group| group == "65534"), "{status}");
}
