//! The listening sockets outlive the process: the service manager opens them, or the router before passes them on.

use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use crate::world::clients::installed;
use crate::world::process::{LIMIT, Process, free_port, run};
use crate::world::router::Router;
use crate::world::{USER, World};

/// Starts the program as a service manager does: descriptor 3 is the socket.
const AS_MANAGER: &str = r#"export LISTEN_PID=$$ LISTEN_FDS=1; exec "$0" 3<&0 </dev/null"#;

/// A socket that listens, and its port.
fn listening() -> (TcpListener, u16) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

#[test]
fn a_socket_of_the_service_manager_is_used_and_who_waits_there_while_nobody_runs_is_served() {
    let mut world = World::start();
    let (listener, port) = listening();
    let environment = world.router.environment().to_vec();
    let given = || Stdio::from(OwnedFd::from(listener.try_clone().unwrap()));
    world.router = Router::start_by(AS_MANAGER, given(), &environment, world.store.lazy_descriptors());
    assert_eq!(world.router.port, port);
    world.router.wait_for_line("listening on 127.0.0.1:*socket=given");
    world.proxied(USER).sftp("pwd\n").success();
    world.router.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(world.router.wait(), 0);
    let waiting = TcpStream::connect(("127.0.0.1", port)).expect("the socket is still the manager's");
    world.router = Router::start_by(AS_MANAGER, given(), &environment, world.store.lazy_descriptors());
    world.router.wait_for_line(&format!("accept session=1 peer={}", waiting.local_addr().unwrap()));
    drop(waiting);
    world.proxied(USER).sftp("pwd\n").success();
}

#[test]
fn sockets_of_others_are_not_taken_and_what_is_none_ends_the_start() {
    let world = World::start();
    let (listener, port) = listening();
    let start = |script: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", script, env!("CARGO_BIN_EXE_sftpproxy")]).env_clear().current_dir("/");
        command.envs(world.router.environment().iter().cloned()).env("SFTPPROXY_CONTROL_SOCKET", "none");
        command
    };
    let given = || Stdio::from(OwnedFd::from(listener.try_clone().unwrap()));
    // Another process was meant: an inherited variable says nothing.
    let script = r#"export LISTEN_PID=1 LISTEN_FDS=1; exec "$0" 3<&0 </dev/null"#;
    let other = Process::start_given(&mut start(script), given());
    let line = other.wait_for("listening on ", 1, LIMIT).expect("it starts").remove(0);
    assert!(line.contains("socket=bound") && !line.contains(&format!(":{port} ")), "{line}");
    drop(other);
    for (script, reason) in [
        (r#"export LISTEN_PID=$$ LISTEN_FDS=1; exec "$0" 3</dev/null"#, "Accept=no"),
        (r#"export LISTEN_PID=$$ LISTEN_FDS=7; exec "$0""#, "LISTEN_FDS"),
        (r#"export LISTEN_PID=$$ LISTEN_FDS=x; exec "$0""#, "LISTEN_FDS"),
    ] {
        let output = run(&mut start(script));
        assert!(output.code == 1 && output.stderr.contains(reason), "{script}: {output:?}");
    }
}

#[test]
fn systemds_own_activator_starts_it_at_the_first_connection() {
    if !installed("systemd-socket-activate") {
        return;
    }
    let world = World::start();
    let start = |port: u16| {
        let mut command = Command::new("systemd-socket-activate");
        command.args(["--listen", &format!("127.0.0.1:{port}"), "--fdname", "sftp"]).current_dir("/").env_clear();
        for (name, value) in world.router.environment() {
            command.arg(format!("--setenv={name}={value}"));
        }
        command.arg("--setenv=SFTPPROXY_CONTROL_SOCKET=none").arg(env!("CARGO_BIN_EXE_sftpproxy"));
        Process::start(&mut command)
    };
    // Another test may have got the port meanwhile.
    let listens = |port: u16| Some((port, start(port))).filter(|(_, process)| process.wait_for("Listening on", 1, LIMIT).is_ok());
    let (port, activator) = (0..5).find_map(|_| listens(free_port())).expect("a free port");
    TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    activator.wait_for("listening on *socket=given", 1, LIMIT).expect("the program is started");
    let mut target = world.proxied(USER);
    target.port = port;
    target.sftp("pwd\n").success();
}
