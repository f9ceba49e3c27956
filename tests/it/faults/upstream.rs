//! An upstream that is not there, does not speak, speaks something else, or is another one.

use std::io::Write as _;
use std::net::{Shutdown, TcpListener, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use super::{LIMITS, assert_serves, assert_told, open_raw, world, world_with_subsystem};
use crate::world::process::{Output, free_port};
use crate::world::toxic::{Direction, Relay, Strike, Toxic};
use crate::world::{Setup, USER, World, keys, library};

/// Far more than any of [`LIMITS`] and far less than what a client would wait.
const SOON: Duration = Duration::from_secs(15);

/// Gives the user a record with other fields and lets him try.
fn tries(world: &World, user: &str, fields: &[(&'static str, String)]) -> Output {
    let mut route = world.route();
    route.retain(|(name, _)| !fields.iter().any(|(other, _)| other == name));
    route.extend(fields.iter().cloned());
    let key = keys::ed25519(user);
    world.store.put(user, &[&key], &route);
    let started = Instant::now();
    let output = world.proxied(user).sftp("pwd\n");
    assert!(started.elapsed() < SOON, "took {:?}", started.elapsed());
    output
}

/// The record's fields make the session end like this, and the next one, with the world's own record, is served.
#[track_caller]
fn check(world: &World, fields: &[(&'static str, String)], end: &str, told: &str) {
    let output = tries(world, USER, fields);
    assert_told(&output, told);
    world.router.wait_for_line(&format!("end session=*user=\"alice\"*side=upstream stage={end}"));
    world.add_user(USER, &keys::ed25519(USER));
    assert_serves(world);
}

fn port(port: u16) -> [(&'static str, String); 1] {
    [("port", port.to_string())]
}

const UNREACHED: &str = "your server cannot be reached";
const CHANGED: &str = "your server shows another identity than the one that is approved for it, nothing was sent to it";
const UNVERIFIED: &str = "the identity of your server could not be verified, nothing was sent to it";
const NOT_LET_IN: &str = "your server does not let the router in";
const NO_SFTP: &str = "your server does not offer sftp";

/// A listener whose connections are all treated like this, one after the other.
fn listener(treat: impl Fn(std::net::TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || listener.incoming().map_while(Result::ok).for_each(treat));
    port
}

/// Holds a connection until the other side leaves it.
fn hold(mut stream: std::net::TcpStream) {
    let _ = std::io::copy(&mut stream, &mut std::io::sink());
}

#[test]
fn nobody_listens_at_the_upstream() {
    check(&world(), &port(free_port()), "\"dial\" reason=\"127.0.0.1:*refused", UNREACHED);
}

#[test]
fn the_upstreams_name_does_not_exist() {
    let host = [("remote", "no-such-host.invalid".to_owned())];
    check(&world(), &host, "\"dial\" reason=\"the name 'no-such-host.invalid' cannot be resolved", UNREACHED);
}

#[test]
fn the_upstream_does_not_answer_to_a_connection() {
    // A listener whose queue is full lets further connections wait, as a host behind a firewall does.
    let full = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    nix::sys::socket::listen(&full, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
    let address = full.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        waiting.push(stream);
    }
    check(&world(), &port(address.port()), "\"dial\" reason=\"127.0.0.1:*timed out", UNREACHED);
}

#[test]
fn the_upstream_accepts_and_says_nothing() {
    check(&world(), &port(listener(hold)), "\"trust\" reason=\"key exchange: no answer within 2 s", UNVERIFIED);
}

#[test]
fn the_upstream_says_who_it_is_and_then_nothing() {
    let silent = listener(|mut stream| {
        stream.write_all(b"SSH-2.0-OpenSSH_9.9\r\n").unwrap();
        hold(stream);
    });
    check(&world(), &port(silent), "\"trust\" reason=\"key exchange: no answer within 2 s", UNVERIFIED);
}

#[test]
fn the_upstream_closes_each_connection_at_once() {
    check(&world(), &port(listener(drop)), "\"trust\" reason=\"key exchange: ", UNVERIFIED);
}

#[test]
fn the_upstream_is_no_ssh_server() {
    for said in
        [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], &[0xff; 100_000], b"SSH-2.0-x\r\n\0\0\0\x0c\x0agarbage garbage garbage"]
    {
        let garbage = listener(move |mut stream| {
            let _ = stream.write_all(said).and_then(|()| stream.shutdown(Shutdown::Write));
            hold(stream);
        });
        check(&world(), &port(garbage), "\"trust\" reason=\"key exchange: ", UNVERIFIED);
    }
}

#[test]
fn an_upstream_that_babbles_without_end_is_left_at_the_limit_of_the_whole_login() {
    // libssh counts and gives up; libssh2 does not come back from its call as long as there is something to read: the limit of the stage is not looked at.
    let world = World::with(Setup { settings: &[("LOGIN_TIMEOUT", "3")], ..Setup::default() });
    let babbles = listener(|mut stream| while stream.write_all(&[b'x'; 10_000]).is_ok() {});
    assert_ne!(tries(&world, USER, &port(babbles)).code, 0);
    let reason = if library() == "libssh" { "too large banner" } else { "not done within SFTPPROXY_LOGIN_TIMEOUT" };
    world.router.wait_for_line(&format!("end session=1 *reason=*{reason}"));
    world.add_user(USER, &keys::ed25519(USER));
    assert_serves(&world);
}

/// An sshd that fails after each piece of what it says until its channel is open: for each of them one user, all at the same time.
#[track_caller]
fn fails_at_each_piece(toxic: &Toxic, reason: &str) {
    // A subsystem that says nothing by itself: when the channel is open, all pieces are of the login.
    let world = &world_with_subsystem("/bin/cat");
    let whole = Relay::start(world.sshd.port);
    let mut route = world.route();
    route.retain(|(name, _)| *name != "port");
    route.extend(port(whole.port));
    let client = open_raw(world, &route);
    world.router.wait_for_line("open session=");
    let mut limits = whole.pieces(Direction::Down);
    limits.pop();
    drop(client);

    let stages: Vec<_> = std::thread::scope(|scope| {
        let failing = |(number, limit): (usize, usize)| {
            scope.spawn(move || {
                let strike = Strike::new(toxic.clone(), Direction::Down, limit);
                let (user, relay) = (format!("user{number}"), Relay::with(world.sshd.port, strike));
                let output = tries(world, &user, &port(relay.port));
                let end = world.router.wait_for_line(&format!("end session=*user=\"{user}\"*side=upstream"));
                let (_, rest) = end.split_once("stage=\"").unwrap();
                let stage = rest.split('"').next().unwrap().to_owned();
                let told = match stage.as_str() {
                    "trust" => UNVERIFIED,
                    "log in" => NOT_LET_IN,
                    _ => NO_SFTP,
                };
                assert_told(&output, told);
                assert!(end.contains(reason), "{end}");
                stage
            })
        };
        let failing: Vec<_> = limits.iter().copied().enumerate().map(failing).collect();
        failing.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut kinds = stages.clone();
    kinds.dedup();
    assert_eq!(kinds, ["trust", "log in", "open"], "{stages:?} at {limits:?}");
}

#[test]
fn the_upstream_falls_silent_after_any_of_its_packets() {
    fails_at_each_piece(&Toxic::Silence, "no answer within 2 s");
}

#[test]
fn the_upstream_hangs_up_after_any_of_its_packets() {
    fails_at_each_piece(&Toxic::Cut, "");
}

#[test]
fn the_limit_of_the_whole_login_holds_when_no_stage_reaches_its_own() {
    let settings = [("LOGIN_TIMEOUT", "2")];
    let world = World::with(Setup { settings: &settings, ..Setup::default() });
    check(&world, &port(listener(hold)), "\"trust\" reason=\"key exchange: not done within SFTPPROXY_LOGIN_TIMEOUT", UNVERIFIED);
}

#[test]
fn the_upstream_shows_another_host_key() {
    let world = world();
    let pin = [("hostkey", keys::ed25519("somebody-else").fingerprint())];
    check(&world, &pin, "\"trust\" reason=\"host key ssh-ed25519 SHA256:*is not the pinned one", CHANGED);
    let unknown = [("hostkey", String::new())];
    check(&world, &unknown, "\"trust\" reason=\"host key ssh-ed25519 SHA256:*is not known", UNVERIFIED);
    let seen = world.sshd.process.lines();
    let logins = seen.iter().filter(|line| line.contains("Accepted publickey")).count();
    assert_eq!(logins, 2, "only the clients that were served have logged in: {seen:#?}");
}

#[test]
fn the_upstream_does_not_take_the_routers_key() {
    let world = world();
    let key = [("key", keys::ed25519("unknown-at-the-upstream").private.display().to_string())];
    check(&world, &key, "\"log in\" reason=\"login '*' was not accepted (key /*authorized_keys", NOT_LET_IN);
    let user = [("user", "nobody-of-this-name".to_owned())];
    check(&world, &user, "\"log in\" reason=\"login 'nobody-of-this-name' was not accepted", NOT_LET_IN);
    let absent = [("key", "/nonexistent/key".to_owned())];
    check(&world, &absent, "\"log in\" reason=\"login '*' was not accepted (key /nonexistent/key: ", NOT_LET_IN);
}

#[test]
fn the_upstream_has_no_sftp() {
    let world = World::with(Setup { settings: &LIMITS, sshd: &["# no subsystem"], ..Setup::default() });
    assert_told(&world.proxied(USER).sftp("pwd\n"), NO_SFTP);
    world
        .router
        .wait_for_line("end session=*side=upstream stage=\"open\" reason=\"the upstream does not open its subsystem sftp: ");
}

#[test]
fn the_upstreams_sftp_exits_at_once() {
    let world = world_with_subsystem("exit 3");
    let output = world.proxied(USER).sftp("pwd\n");
    assert_ne!(output.code, 0, "{output:?}");
    world.router.wait_for_line("end session=*side=upstream stage=\"relay\" reason=\"the upstream closed the session");
}

#[test]
fn the_exit_status_of_the_upstreams_sftp_reaches_the_client() {
    let world = world_with_subsystem("cat >/dev/null; exit 3");
    let output = world.proxied(USER).ssh(&["-s", "sftp"]);
    assert_eq!(output.code, 3, "{output:?}");
}

#[test]
fn what_the_upstreams_sftp_says_on_stderr_stops_nothing() {
    let script = "head -c 5242880 /dev/zero >&2; exec /usr/lib/openssh/sftp-server";
    let world = world_with_subsystem(script);
    assert_serves(&world);
}

#[test]
fn all_addresses_of_the_upstreams_name_are_tried() {
    let world = world();
    let localhost: Vec<_> = ("localhost", 0).to_socket_addrs().unwrap().map(|address| address.ip()).collect();
    for address in localhost {
        // Nobody listens at the others.
        let relay = Relay::start_at(address, world.sshd.port, 0);
        assert_eq!(tries(&world, USER, &[("remote", "localhost".to_owned()), port(relay.port)[0].clone()]).code, 0, "{address}");
    }
}
