//! Metrics and health over HTTP: what is counted is what happened, whoever may not see it does not, and nobody can hold it up.

mod browser;
mod page;
mod schema;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::world::process::{LIMIT, until};
use crate::world::{Kind, Setup, USER, World, keys};

const TOKEN: &str = "a-token-that-nobody-guesses-0815";

/// A world that is watched, and where.
fn watched(store: Kind, settings: &[(&str, &str)]) -> (World, u16) {
    let mut all = vec![("METRICS_ADDRESS", "127.0.0.1:0")];
    all.extend(settings.iter().filter(|(name, _)| *name != "METRICS_ADDRESS"));
    all.extend(settings.iter().filter(|(name, _)| *name == "METRICS_ADDRESS"));
    let world = World::with(Setup { store, settings: &all, ..Setup::default() });
    let port = port(&world);
    (world, port)
}

pub fn port(world: &World) -> u16 {
    let line = world.router.wait_for_line("metrics at http://");
    let address = line.split("http://").nth(1).unwrap().split('/').next().unwrap();
    address.rsplit(':').next().unwrap().parse().unwrap()
}

/// The whole answer to a request.
fn ask(port: u16, request: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap_or_else(|error| panic!("{error}: {request}"));
    answer
}

/// Status, head and body of a path.
pub fn get_with(port: u16, path: &str, fields: &str) -> (u16, String, String) {
    let answer = ask(port, &format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{fields}\r\n"));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_owned(), body.to_owned())
}

pub fn get(port: u16, path: &str) -> (u16, String) {
    let (status, _, body) = get_with(port, path, "");
    (status, body)
}

/// Every series and its value.
pub fn series(port: u16) -> BTreeMap<String, f64> {
    let (status, text) = get(port, "/metrics");
    assert_eq!(status, 200, "{text}");
    let pair = |line: &str| line.rsplit_once(' ').map(|(name, value)| (name.to_owned(), value.parse().unwrap()));
    text.lines().filter(|line| !line.starts_with('#')).filter_map(pair).collect()
}

/// The value of a series, as soon as it is the expected one.
#[track_caller]
fn wait_for(port: u16, name: &str, expected: f64) {
    let mut last = None;
    let found = until(LIMIT, || {
        last = series(port).get(name).copied();
        last == Some(expected)
    });
    assert!(found, "{name} is {last:?}, expected {expected}");
}

fn token_file(folder: &Path, token: &str) -> String {
    let path = folder.join("token");
    std::fs::write(&path, token).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

#[test]
fn a_session_and_what_it_did_are_counted() {
    let (world, port) = watched(Kind::Redis, &[("METRICS_USERS", "1")]);
    world.store.put("limited", &[&keys::ed25519("limited")], &[&world.route()[..], &[("read_only", "yes".to_owned())]].concat());
    let content = vec![7; 3_000_000];
    std::fs::write(world.client().join("f"), &content).unwrap();
    world.proxied(USER).sftp("put f\nget f g\nmkdir d\n-mkdir d\nls d\nrename f d/f\n").success();
    let refused = world.proxied("limited").sftp("mkdir e\n");
    assert_ne!(refused.code, 0);
    wait_for(port, "sftpproxy_sessions_ended_total{side=\"downstream\"}", 2.0);
    let series = series(port);
    let value = |name: &str| *series.get(name).unwrap_or_else(|| panic!("no {name}"));
    for (name, expected) in [
        ("sftpproxy_connections_total", 2.0),
        ("sftpproxy_logins_total{outcome=\"ok\",reason=\"none\"}", 2.0),
        ("sftpproxy_login_seconds_count", 2.0),
        ("sftpproxy_first_reply_seconds_count", 2.0),
        ("sftpproxy_upstream_seconds_count{step=\"dial\"}", 2.0),
        ("sftpproxy_upstream_seconds_count{step=\"open\"}", 2.0),
        ("sftpproxy_operations_total{operation=\"rename\",outcome=\"ok\"}", 0.0),
        ("sftpproxy_operations_total{operation=\"posix-rename\",outcome=\"ok\"}", 1.0),
        ("sftpproxy_operations_total{operation=\"mkdir\",outcome=\"ok\"}", 1.0),
        ("sftpproxy_operations_total{operation=\"mkdir\",outcome=\"failed\"}", 1.0),
        ("sftpproxy_operations_total{operation=\"mkdir\",outcome=\"refused\"}", 1.0),
        ("sftpproxy_operations_total{operation=\"write\",outcome=\"failed\"}", 0.0),
        ("sftpproxy_transfers_total{direction=\"up\",outcome=\"complete\"}", 1.0),
        ("sftpproxy_transfers_total{direction=\"down\",outcome=\"complete\"}", 1.0),
        ("sftpproxy_store_errors_total{call=\"owner\"}", 0.0),
        ("sftpproxy_user_logins_total{user=\"alice\"}", 1.0),
        ("sftpproxy_user_logins_total{user=\"\"}", 1.0),
        ("sftpproxy_draining", 0.0),
    ] {
        assert_eq!(value(name), expected, "{name}");
    }
    // A key is looked up when it is offered and when it is proven.
    assert!(value("sftpproxy_store_seconds_count{call=\"owner\"}") >= 4.0);
    let writes = value("sftpproxy_operations_total{operation=\"write\",outcome=\"ok\"}");
    assert!(writes >= 12.0 && writes == value("sftpproxy_operation_seconds_count{class=\"write\"}"), "{writes}");
    for direction in ["up", "down"] {
        let bytes = value(&format!("sftpproxy_bytes_total{{direction=\"{direction}\"}}"));
        assert!((3_000_000.0..3_100_000.0).contains(&bytes), "{direction}: {bytes}");
    }
    let began = value("sftpproxy_start_time_seconds");
    assert!(began > 1.7e9, "{began}");
}

#[test]
fn a_refused_key_a_refused_login_and_a_refused_connection_have_their_reasons() {
    let (world, port) = watched(Kind::File, &[("MAX_STARTUPS", "1"), ("PENALTIES", "off")]);
    let stranger = world.proxied_with(USER, &keys::ed25519("nobody-knows"));
    assert_ne!(stranger.sftp("ls\n").code, 0);
    wait_for(port, "sftpproxy_keys_refused_total{reason=\"unknown\"}", 1.0);
    wait_for(port, "sftpproxy_logins_total{outcome=\"failed\",reason=\"key\"}", 1.0);
    let other = keys::ed25519("other");
    world.add_user("other", &other);
    assert_ne!(world.proxied_with(USER, &other).sftp("ls\n").code, 0);
    wait_for(port, "sftpproxy_keys_refused_total{reason=\"another_users\"}", 1.0);
    // A host key that is not the pinned one.
    let mut route = world.route();
    route.retain(|(name, _)| *name != "hostkey");
    route.push(("hostkey", keys::ed25519("another-host").fingerprint()));
    world.store.put("misled", &[&keys::ed25519("misled")], &route);
    assert_ne!(world.proxied("misled").sftp("ls\n").code, 0);
    wait_for(port, "sftpproxy_logins_total{outcome=\"failed\",reason=\"host_key\"}", 1.0);
    wait_for(port, "sftpproxy_sessions{state=\"unproven\"}", 0.0);

    let silent = TcpStream::connect(("127.0.0.1", world.router.port)).unwrap();
    wait_for(port, "sftpproxy_sessions{state=\"unproven\"}", 1.0);
    let mut second = TcpStream::connect(("127.0.0.1", world.router.port)).unwrap();
    assert_eq!(second.read(&mut [0; 1]).unwrap_or(0), 0);
    wait_for(port, "sftpproxy_connections_refused_total{reason=\"max-startups\"}", 1.0);
    drop(silent);
    wait_for(port, "sftpproxy_sessions{state=\"unproven\"}", 0.0);
}

#[test]
fn who_is_not_ready_says_so_and_is_alive_all_the_same() {
    let (mut world, port) = watched(Kind::Redis, &[("REDIS_CONNECT_TIMEOUT", "0.5"), ("DRAIN_TIMEOUT", "60")]);
    let mut session = world.proxied(USER).session();
    session.ask("pwd", "Remote working directory");
    assert_eq!(get(port, "/readyz"), (200, "ready\n".into()));
    assert_eq!(get(port, "/healthz"), (200, "alive\n".into()));
    world.store.redis().stop();
    assert!(until(LIMIT, || get(port, "/readyz") == (503, "the store does not answer\n".into())));
    assert_eq!(get(port, "/healthz").0, 200);
    assert!(series(port)["sftpproxy_store_errors_total{call=\"check\"}"] >= 1.0);
    world.store.redis().restart();
    assert!(until(LIMIT, || get(port, "/readyz").0 == 200));

    world.router.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(until(LIMIT, || get(port, "/readyz") == (503, "draining\n".into())));
    assert_eq!((get(port, "/healthz").0, series(port)["sftpproxy_draining"]), (200, 1.0));
    assert_eq!((session.end(), world.router.wait()), (0, 0));
}

#[test]
fn without_the_token_nobody_sees_anything_and_with_it_everybody_who_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = token_file(folder.path(), &format!("{TOKEN}\n"));
    let (world, port) = watched(Kind::File, &[("METRICS_ADDRESS", "0.0.0.0:0"), ("METRICS_TOKEN_FILE", &file)]);
    let basic = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("x:{TOKEN}"));
    for (fields, expected) in [
        (String::new(), 401),
        (format!("Authorization: Bearer {TOKEN}x\r\n"), 401),
        ("Authorization: Bearer \r\n".to_owned(), 401),
        (format!("Authorization: Bearer {TOKEN}\r\n"), 200),
        (format!("Authorization: Basic {basic}\r\n"), 200),
    ] {
        let (status, head, body) = get_with(port, "/metrics", &fields);
        assert_eq!(status, expected, "{fields}");
        assert_eq!(head.contains("WWW-Authenticate: Basic"), expected == 401, "{head}");
        assert!(!head.contains(TOKEN) && !body.contains(TOKEN));
    }
    assert_eq!(get(port, "/healthz").0, 200);
    assert!(world.router.lines().iter().all(|line| !line.contains(TOKEN)));
}

#[test]
fn check_config_refuses_an_address_that_others_reach_without_a_token_and_a_token_that_others_read() {
    let world = World::start();
    let folder = world.folder.path();
    let good = token_file(folder, TOKEN);
    let refused = |arguments: &[&str], reason: &str| {
        let output = world.command(&[arguments, &["check-config"]].concat());
        assert!(output.code == 2 && output.stderr.contains(reason), "{arguments:?}: {output:?}");
        assert!(!output.stderr.contains(TOKEN), "{output:?}");
    };
    refused(&["--metrics-address", "0.0.0.0:9922"], "SFTPPROXY_METRICS_TOKEN_FILE");
    refused(&["--metrics-address", "127.0.0.1:9922", "--metrics-token-file", "/nowhere"], "/nowhere");
    assert_eq!(world.command(&["--metrics-address", "0.0.0.0:9922", "--metrics-token-file", &good, "check-config"]).code, 0);
    std::fs::set_permissions(&good, std::fs::Permissions::from_mode(0o644)).unwrap();
    refused(&["--metrics-token-file", &good], "chmod 600");
    let short = token_file(folder, "short");
    refused(&["--metrics-token-file", &short], "at least 16");
}

#[test]
fn who_sends_no_request_or_a_bad_one_is_told_or_left_and_holds_nobody_up() {
    let (world, port) = watched(Kind::File, &[]);
    for (request, expected) in [
        (format!("POST /metrics HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"), "HTTP/1.1 405 "),
        ("GET /metrics HTTP/1.1\r\nHost: rebound.example\r\n\r\n".to_owned(), "HTTP/1.1 403 "),
        ("GET /metrics HTTP/1.1\r\n\r\n".to_owned(), "HTTP/1.1 403 "),
        (format!("GET /../etc/passwd HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"), "HTTP/1.1 404 "),
        ("SSH-2.0-OpenSSH_9.2p1\r\n".to_owned(), "HTTP/1.1 400 "),
        (format!("GET / HTTP/1.1\r\nx: {}", "x".repeat(8 * 1024)), "HTTP/1.1 431 "),
    ] {
        let answer = ask(port, &request);
        assert!(answer.starts_with(expected), "{request}: {answer}");
    }
    let head = ask(port, &format!("HEAD /metrics HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"));
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");

    // More silent connections than there are threads, one of them a byte at a time: each is left at the limit.
    let before = world.router.usage().0;
    let started = Instant::now();
    let mut silent: Vec<_> = (0..40).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    for byte in "GET /metrics HTT".bytes() {
        silent[0].write_all(&[byte]).unwrap();
    }
    std::fs::write(world.client().join("f"), "meanwhile").unwrap();
    world.proxied(USER).sftp("put f\n").success();
    assert!(until(LIMIT, || world.router.usage().0.threads <= before.threads), "a thread is made for a connection");
    assert_eq!(silent[0].read(&mut [0; 1]).unwrap_or(0), 0);
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    drop(silent);
    assert_eq!(get(port, "/healthz").0, 200);
}

#[test]
fn no_secret_is_in_what_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let file = token_file(folder.path(), TOKEN);
    let (world, port) = watched(Kind::Redis, &[("METRICS_TOKEN_FILE", &file), ("METRICS_USERS", "10")]);
    world.proxied(USER).sftp("ls\n").success();
    let private = std::fs::read_to_string(&keys::ed25519("router-user").private).unwrap();
    let secrets: Vec<_> = private.lines().filter(|line| line.len() > 20 && !line.contains("PRIVATE KEY")).collect();
    assert!(!secrets.is_empty());
    for path in ["/metrics", "/", "/healthz", "/readyz", "/state.json"] {
        let (_, head, body) = get_with(port, path, &format!("Authorization: Bearer {TOKEN}\r\n"));
        let all = format!("{head}{body}");
        assert!(!all.contains(TOKEN) && secrets.iter().all(|secret| !all.contains(secret)), "{path}");
    }
}
