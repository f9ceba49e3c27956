//! The listening sockets outlive the process: the service manager opens them, or the router before passes them on.

use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::world::clients::{Session, installed};
use crate::world::process::{LIMIT, Process, free_port, run, signal, until};
use crate::world::router::Router;
use crate::world::tree::{big_file, hash};
use crate::world::{Kind, Setup, USER, World, keys};

mod root;

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
    world.router.signal(Signal::SIGTERM);
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

const MIB: u64 = 1024 * 1024;

/// A session that fetches a file of 6 MiB at 2 MiB a second, as soon as bytes come.
fn fetching(world: &World) -> Session {
    let mut route = world.route();
    route.push(("download_limit", "2048".to_owned()));
    world.store.put(USER, &[&keys::ed25519(USER)], &route);
    big_file(&world.sshd.files.join("big"), 6 * MIB);
    let mut session = idle(world);
    session.say("get big fetched");
    let bytes = || std::fs::metadata(world.client().join("fetched")).map_or(0, |meta| meta.len());
    assert!(until(LIMIT, || bytes() > 0), "no byte of the file comes");
    session
}

fn idle(world: &World) -> Session {
    let mut session = world.proxied(USER).session();
    session.ask("pwd", "Remote working directory");
    session
}

fn listed(world: &World) -> Vec<Value> {
    let output = world.command(&["sessions", "list", "--json"]).success();
    serde_json::from_str::<Value>(&output).expect("JSON").as_array().unwrap().clone()
}

/// What a router tells the service manager.
struct Manager(UnixDatagram);

impl Manager {
    fn at(world: &World) -> (Self, String) {
        let path = world.folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        (Self(socket), path.display().to_string())
    }

    fn hears(&self) -> Vec<String> {
        let mut bytes = [0; 1000];
        let size = self.0.recv(&mut bytes).expect("the service manager is told something");
        String::from_utf8_lossy(&bytes[..size]).lines().map(str::to_owned).collect()
    }
}

#[test]
fn a_router_takes_over_with_other_settings_and_the_old_one_finishes_its_transfers_and_ends() {
    let mut world = World::start();
    let (manager, notify) = Manager::at(&world);
    world.router.signal(Signal::SIGTERM);
    assert_eq!(world.router.wait(), 0);
    world.restart(&[("NOTIFY_SOCKET", &notify)]);
    assert_eq!(manager.hears(), [format!("MAINPID={}", world.router.pid()), "READY=1".into()]);
    let port = world.router.port;
    let transfer = fetching(&world);
    let banner = world.folder.path().join("banner");
    std::fs::write(&banner, "the second router\n").unwrap();
    let mut old = world.take_over(&[("SFTPPROXY_BANNER", banner.to_str().unwrap())]);
    // Of the old one, which is the service until then, and then of the new one.
    assert_eq!(manager.hears(), [format!("MAINPID={}", world.router.pid())]);
    assert_eq!(manager.hears(), [format!("MAINPID={}", world.router.pid()), "READY=1".into()]);
    assert_eq!(world.router.port, port);
    world.router.wait_for_line("listening on *socket=taken");
    world.router.wait_for_line(&format!("taken over: from={} changed=\"SFTPPROXY_BANNER\"", old.pid()));
    old.wait_for_line(&format!("handed over: to={} sessions=1;*86400 s", world.router.pid()));
    let output = world.proxied(USER).sftp("pwd\n");
    assert!(output.code == 0 && output.stderr.contains("the second router"), "{output:?}");
    world.router.wait_for_line("accept session=1 ");

    // Both are seen; the old one by a name of its own.
    assert!(until(LIMIT, || listed(&world).len() == 1), "{:?}", listed(&world));
    let seen = &listed(&world)[0];
    assert_eq!((&seen["here"], &seen["transfers"][0]["direction"]), (&false.into(), &"down".into()), "{seen}");
    let own = world.folder.path().join(format!("state/control.sock.{}", old.pid()));
    assert!(own.exists());
    assert_eq!(transfer.end(), 0);
    assert_eq!(hash(&world.sshd.files.join("big")), hash(&world.client().join("fetched")));
    assert_eq!(old.wait(), 0, "it ends with its last session");
    assert!(!own.exists() && world.folder.path().join("state/control.sock").exists());
    assert!(listed(&world).is_empty());
    world.router.signal(Signal::SIGTERM);
    assert_eq!(world.router.wait(), 0);
    assert_eq!(manager.hears(), ["STOPPING=1"], "the old one has said nothing at its end");
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[test]
fn an_heir_that_fails_or_dies_before_it_serves_changes_nothing() {
    let world = World::start();
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let redis = silent.local_addr().unwrap().port().to_string();
    let mut session = idle(&world);
    let heir = |changes: &[(&str, &str)]| {
        let mut command = world.router.command();
        command.env("SFTPPROXY_TAKE_OVER", "yes").envs(changes.iter().copied());
        command
    };
    let output = run(&mut heir(&[("SFTPPROXY_PORT", "x")]));
    assert!(output.code == 2 && output.stderr.contains("SFTPPROXY_PORT"), "{output:?}");
    let output = run(&mut heir(&[("SFTPPROXY_AUDIT", "file:/no/such/file")]));
    assert!(output.code == 1 && output.stderr.contains("SFTPPROXY_AUDIT"), "{output:?}");
    world.router.wait_for_line("WARN*take-over: process *has left before it served; this router goes on");
    // One whose store says nothing has been handed the sockets and does not serve yet.
    let slow = [
        ("SFTPPROXY_ROUTES_FILE", ""),
        ("SFTPPROXY_REDIS_PORT", &redis),
        ("SFTPPROXY_REDIS_CONNECT_TIMEOUT", "600"),
        ("SFTPPROXY_REDIS_COMMAND_TIMEOUT", "600"),
    ];
    let starting = Process::start(&mut heir(&slow));
    let (_asked, _) = silent.accept().expect("the heir asks its store");
    let output = run(&mut heir(&[]));
    assert!(output.code == 1 && output.stderr.contains("taking over already"), "{output:?}");
    for _ in 0..5 {
        world.proxied(USER).sftp("pwd\n").success();
    }
    signal(starting.pid(), Signal::SIGKILL);
    world.router.wait_for_lines("take-over: process *has left before it served", 2);
    world.proxied(USER).sftp("pwd\n").success();
    session.ask("pwd", "Remote working directory");
    assert_eq!((listed(&world).len(), session.end()), (1, 0));
    assert!(!world.router.lines().iter().any(|line| line.contains("handed over")));
}

#[test]
fn who_is_not_of_the_routers_account_gets_no_socket_whatever_the_mode_of_the_control_socket() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not root: this test tells nothing");
        return;
    }
    let world = World::start();
    let own = tempfile::tempdir().unwrap();
    let (open, socket) = (|mode| std::fs::Permissions::from_mode(mode), world.folder.path().join("state/control.sock"));
    for folder in [world.folder.path(), &world.folder.path().join("state")] {
        std::fs::set_permissions(folder, open(0o711)).unwrap();
    }
    std::fs::set_permissions(&socket, open(0o666)).unwrap();
    let program = own.path().join("sftpproxy");
    std::fs::copy(env!("CARGO_BIN_EXE_sftpproxy"), &program).unwrap();
    std::fs::write(own.path().join("routes.toml"), "").unwrap();
    for file in [own.path(), &program, &own.path().join("routes.toml")] {
        std::os::unix::fs::chown(file, Some(65534), Some(65534)).unwrap();
    }
    let mut stranger = Command::new("setpriv");
    stranger.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program).env_clear();
    stranger.env("SFTPPROXY_TAKE_OVER", "yes").env("SFTPPROXY_CONTROL_SOCKET", &socket).env("SFTPPROXY_PORT", "0");
    stranger.env("SFTPPROXY_STATE_DIR", own.path()).env("SFTPPROXY_ROUTES_FILE", own.path().join("routes.toml"));
    let output = run(&mut stranger);
    assert!(output.code == 1 && output.stderr.contains("user id 65534 is not the router's"), "{output:?}");
    world.router.wait_for_line("WARN*take-over: user id 65534 is not the router's*this router goes on");
    world.proxied(USER).sftp("pwd\n").success();
}

#[test]
fn a_session_that_goes_on_beyond_the_limit_of_a_hand_over_is_cut_and_told() {
    let mut world = World::with(Setup { settings: &[("HAND_OVER_TIMEOUT", "0.5")], ..Setup::default() });
    let session = idle(&world);
    let mut old = world.take_over(&[]);
    session.shows("Received disconnect*the server was replaced; please connect again");
    assert_eq!(old.wait(), 3);
    assert!(session.was_cut());
    old.wait_for_line("end session=1*side=router*reason=\"the router was replaced\"");
}

#[test]
fn three_generations_are_seen_and_ended_through_the_newest_and_an_address_that_is_not_wanted_is_closed() {
    let mut world = World::with(Setup { settings: &[("HAND_OVER_TIMEOUT", "0")], ..Setup::default() });
    let first = idle(&world);
    let mut grandparent = world.take_over(&[]);
    let second = idle(&world);
    let port = world.router.port;
    let mut parent = world.take_over(&[("SFTPPROXY_ADDRESS", "127.0.0.3")]);
    world.router.wait_for_line("listening on 127.0.0.3:*socket=bound");
    assert!(until(LIMIT, || TcpStream::connect(("127.0.0.1", port)).is_err()), "nobody wants that address any more");
    assert!(world.router.lines().iter().any(|line| line.contains("changed=\"SFTPPROXY_ADDRESS\"")));
    assert_eq!(listed(&world).len(), 2);
    let name = |session: &Value| format!("{}/{}", session["node"].as_str().unwrap(), session["session"]);
    let oldest = listed(&world).iter().map(name).find(|name| name.contains(&format!(":{}/", grandparent.pid()))).unwrap();
    let output = world.command(&["sessions", "kick", &oldest, "--reason", "moved"]).success();
    assert!(output.contains(&format!("session {oldest} of alice")), "{output}");
    first.shows("Received disconnect*your session was ended by the administrator: moved");
    assert!(first.was_cut());
    assert_eq!(grandparent.wait(), 0);
    // The newest one ends last, also when it has nobody itself.
    world.router.signal(Signal::SIGTERM);
    parent.wait_for_line("stopping: no new connections");
    assert!(!std::fs::read(format!("/proc/{}/cmdline", world.router.pid())).unwrap().is_empty(), "it has ended first");
    assert_eq!(second.end(), 0, "what runs may finish within the limit");
    assert_eq!((parent.wait(), world.router.wait()), (0, 0));
    assert!(parent.lines().last().unwrap().contains("stopped"));
}

#[test]
fn two_routers_of_one_name_at_one_redis_are_told_apart_while_one_takes_over() {
    let settings = [("NODE", "web1"), ("NODE_INTERVAL", "1")];
    let mut world = World::with(Setup { store: Kind::Redis, settings: &settings, ..Setup::default() });
    let session = idle(&world);
    let key = |node: &str| format!("pysftpproxy:node:{node}");
    let written =
        |world: &mut World, node: &str| world.store.redis().ask(redis::cmd("EXISTS").arg(key(node))) == redis::Value::Int(1);
    assert!(until(LIMIT, || written(&mut world, "web1")));
    let mut old = world.take_over(&[]);
    let name = format!("web1.{}", old.pid());
    assert!(
        until(LIMIT, || written(&mut world, &name) && !written(&mut world, "web1")),
        "one entry each, and the new one has nobody"
    );
    let seen = listed(&world);
    assert!(seen.len() == 1 && seen[0]["node"] == name.as_str(), "{seen:?}");
    world.command(&["sessions", "kick", "--user", USER]).success();
    assert!(session.was_cut());
    assert_eq!(old.wait(), 0);
    // What is taken away while two run reaches both.
    let (of_old, mut of_new) = (idle(&world), world.take_over(&[]));
    let session = idle(&world);
    world.command(&["key", "remove", "--yes", USER, &keys::ed25519(USER).fingerprint()]).success();
    of_old.shows("Received disconnect*your key is no longer accepted");
    session.shows("Received disconnect*your key is no longer accepted");
    assert_eq!(of_new.wait(), 0);
    assert!(of_old.was_cut() && session.was_cut());
}

/// A process that is nobody's child; killed when dropped.
struct Orphan(u32);

impl Orphan {
    fn lives(&self) -> bool {
        std::fs::read(format!("/proc/{}/cmdline", self.0)).is_ok_and(|words| !words.is_empty())
    }
}

impl Drop for Orphan {
    fn drop(&mut self) {
        if self.lives() {
            signal(self.0, Signal::SIGKILL);
        }
    }
}

/// Has `sftpproxy reload` replace the router, with these variables otherwise. Returns the command with its log, and the heir.
fn reload(world: &World, changes: &[(&str, &str)]) -> (Process, Orphan) {
    let mut reload = Process::start(world.router.command().arg("reload").envs(changes.iter().copied()));
    assert!(until(LIMIT, || reload.ended().is_some()), "{:?}", reload.lines());
    assert_eq!(reload.ended(), Some(0), "{:?}", reload.lines());
    let line = world.router.wait_for_line("handed over: to=");
    (reload, Orphan(line.split("to=").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap()))
}

#[test]
fn reload_starts_an_heir_and_ends_when_it_serves() {
    let mut world = World::start();
    let mut session = idle(&world);
    let mut bad = world.router.command();
    let output = run(bad.args(["reload"]).env("SFTPPROXY_AUDIT", "file:/no/such/file"));
    assert!(output.code == 1 && output.stderr.contains("the one that runs goes on"), "{output:?}");
    let (reload, heir) = reload(&world, &[]);
    session.ask("pwd", "Remote working directory");
    world.proxied(USER).sftp("pwd\n").success();
    reload.wait_for("accept session=1 ", 1, LIMIT).expect("the heir serves, and its log goes where reload's went");
    assert_eq!(session.end(), 0);
    assert_eq!(world.router.wait(), 0);
    signal(heir.0, Signal::SIGTERM);
    assert!(until(LIMIT, || !heir.lives()));
    assert!(TcpStream::connect(("127.0.0.1", world.router.port)).is_err());
    let output = world.command(&["reload"]);
    assert!(output.code == 1 && output.stderr.contains("no router of this machine answers"), "{output:?}");
}

#[test]
fn sighup_ends_nothing_reads_the_banner_again_opens_the_log_anew_and_names_what_needs_a_take_over() {
    let world = World::start();
    let at = |name: &str| world.folder.path().join(name);
    std::fs::write(at("banner"), "before\n").unwrap();
    let mut world = world;
    let (banner, log) = (world.folder.path().join("banner"), world.folder.path().join("log"));
    world.restart(&[("SFTPPROXY_BANNER", banner.to_str().unwrap())]);
    let mut session = idle(&world);
    std::fs::write(&banner, "after\n").unwrap();
    world.router.signal(Signal::SIGHUP);
    let said = world.router.wait_for_line("reload: banner, ");
    assert!(said.contains("host keys") && said.contains("sftpproxy reload"), "{said}");
    let output = world.proxied(USER).sftp("pwd\n");
    assert!(output.code == 0 && output.stderr.contains("after"), "{output:?}");
    session.ask("pwd", "Remote working directory");
    std::fs::remove_file(&banner).unwrap();
    world.router.signal(Signal::SIGHUP);
    world.router.wait_for_line("WARN*the banner stays as it was: SFTPPROXY_BANNER");
    assert_eq!(session.end(), 0);

    let read = |path: &std::path::Path| std::fs::read_to_string(path).unwrap_or_default();
    let mut command = world.router.command();
    command.env("SFTPPROXY_BANNER", "").env("SFTPPROXY_CONTROL_SOCKET", "none").env("SFTPPROXY_LOG_FILE", &log);
    let logging = Process::start(&mut command);
    assert!(until(LIMIT, || read(&log).contains("listening on ")));
    std::fs::rename(&log, log.with_extension("moved")).unwrap();
    signal(logging.pid(), Signal::SIGHUP);
    assert!(until(LIMIT, || read(&log).contains("reload: banner")), "{}", read(&log.with_extension("moved")));
}
