//! The PROXY protocol, with a real HAProxy on either side and with headers by hand: whom the router believes, and what an upstream is told.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::world::clients::Target;
use crate::world::haproxy::Haproxy;
use crate::world::process::{LIMIT, until};
use crate::world::{Setup, USER, World, keys};

/// The balancer is at 127.0.0.9, where the tests' HAProxy connects from.
const BALANCER: &str = "127.0.0.9";

fn world(settings: &[(&str, &str)]) -> World {
    let mut all = vec![("PROXY_FROM", BALANCER)];
    all.extend(settings);
    World::with(Setup { settings: &all, ..Setup::default() })
}

fn balancer(world: &World, version: &str) -> Haproxy {
    Haproxy::start(world.folder.path(), world.router.port, "", &format!("{version} source {BALANCER}"))
}

fn through(world: &World, haproxy: &Haproxy, from: &str) -> Target {
    Target { port: haproxy.port, ..world.proxied(USER) }.with_option(&format!("BindAddress={from}"))
}

/// What the router answers to these first bytes, from an address: up to the end of the connection, or its banner.
fn answer(world: &World, from: &str, bytes: &[u8]) -> Vec<u8> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let address = |text: &str| text.parse::<std::net::SocketAddrV4>().map(SockaddrIn::from).unwrap();
    bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &address(&format!("{from}:0"))).unwrap();
    connect(std::os::fd::AsRawFd::as_raw_fd(&fd), &address(&format!("127.0.0.1:{}", world.router.port))).unwrap();
    let mut stream = TcpStream::from(fd);
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let _ = stream.write_all(bytes);
    let mut said = Vec::new();
    let mut piece = [0; 256];
    while !said.ends_with(b"\n") {
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => said.extend_from_slice(&piece[..count]),
            Err(error) => {
                assert_ne!(error.kind(), ErrorKind::WouldBlock, "the router neither answers nor hangs up");
                break;
            }
        }
    }
    said
}

const V2_LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

#[test]
fn behind_a_balancer_the_clients_address_is_the_one_that_counts_in_log_and_limits() {
    if !Haproxy::is_installed() {
        return;
    }
    let world = world(&[("PENALTIES", "authfail:60s min:60s max:60s"), ("PENALTY_EXEMPT", "none"), ("DENY_FROM", "127.0.0.4")]);
    for (version, from, shown) in [
        ("send-proxy", "127.0.0.5", "127.0.0.5:"),
        ("send-proxy-v2", "127.0.0.5", "127.0.0.5:"),
        ("send-proxy-v2", "::1", "[::1]:"),
    ] {
        let haproxy = balancer(&world, version);
        let mut target = through(&world, &haproxy, from);
        if from == "::1" {
            target = target.with_option("HostName=::1").with_option("StrictHostKeyChecking=no");
        }
        target.sftp("pwd\n").success();
        world.router.wait_for_line(&format!("proxied session=*peer={shown}*by={BALANCER}:"));
        world.router.wait_for_line(&format!("end session=*user=\"alice\" peer={shown}"));
    }
    let haproxy = balancer(&world, "send-proxy-v2");
    let stranger = Target { key: keys::ed25519("nobody"), ..through(&world, &haproxy, "127.0.0.6") };
    assert_ne!(stranger.sftp("pwd\n").code, 0);
    world.router.wait_for_line("fault session=*peer=127.0.0.6:*class=authfail keys=1 owed=60 refused=yes");
    assert_ne!(through(&world, &haproxy, "127.0.0.6").sftp("pwd\n").code, 0);
    world.router.wait_for_line("end session=*peer=127.0.0.6:*stage=\"accept\" reason=\"127.0.0.6/32 is refused for");
    assert_ne!(through(&world, &haproxy, "127.0.0.4").sftp("pwd\n").code, 0);
    world.router.wait_for_line("end session=*peer=127.0.0.4:*stage=\"accept\" reason=\"the address is in SFTPPROXY_DENY_FROM");
    // The others behind the same balancer are none of that.
    through(&world, &haproxy, "127.0.0.7").sftp("pwd\n").success();
}

#[test]
fn a_header_is_believed_from_the_balancer_alone_and_must_be_there() {
    let world = world(&[("LOGIN_TIMEOUT", "20"), ("PENALTIES", "noauth:60s min:60s max:60s"), ("PENALTY_EXEMPT", "none")]);
    let header = b"PROXY TCP4 203.0.113.7 192.0.2.1 5555 22\r\n";
    let v2 = sftpproxy::proxy::header("203.0.113.8:5555".parse().unwrap(), "192.0.2.1:22".parse().unwrap()).unwrap();
    for (number, good) in [&header[..], &v2, V2_LOCAL, b"PROXY UNKNOWN\r\n"].into_iter().enumerate() {
        assert!(answer(&world, BALANCER, good).starts_with(b"SSH-2.0-"), "header {number} gets no banner");
    }
    world.router.wait_for_line("proxied session=1 peer=203.0.113.7:5555 by=127.0.0.9:");
    world.router.wait_for_line("proxied session=2 peer=203.0.113.8:5555 by=127.0.0.9:");
    world.router.wait_for_lines("end session=", 4);
    // The clients that the balancer named have said nothing, and are refused; the balancer itself is not.
    assert_eq!(answer(&world, BALANCER, header), b"");
    world.router.wait_for_line("end session=5 peer=203.0.113.7:5555 *reason=\"203.0.113.7/32 is refused");
    for bad in [&b"SSH-2.0-x\r\n"[..], b"PROXY TCP4 203.0.113.7\r\n", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff"] {
        assert_eq!(answer(&world, BALANCER, bad), b"", "{}", bad.escape_ascii());
    }
    world.router.wait_for_lines("end session=*peer=127.0.0.9:*side=downstream stage=\"accept\" reason=\"PROXY header: ", 3);
    // Nothing at all: an end in time, and no blame.
    let started = std::time::Instant::now();
    assert_eq!(answer(&world, BALANCER, b""), b"");
    assert!(started.elapsed() < Duration::from_secs(15));
    world.router.wait_for_line("end session=*peer=127.0.0.9:*reason=\"PROXY header: not complete within 5 s");
    assert!(!world.router.lines().iter().any(|line| line.contains("] fault ") && line.contains("peer=127.0.0.9")));
    // A stranger's header is what any other garbage is; and nobody is who he says.
    for forged in [&header[..], &v2, V2_LOCAL] {
        let said = answer(&world, "127.0.0.3", &[forged, b"SSH-2.0-x\r\n"].concat());
        assert!(said.is_empty() || said.starts_with(b"SSH-2.0-"), "{}", said.escape_ascii());
    }
    world.router.wait_for_line("end session=*peer=127.0.0.3:*side=downstream stage=\"exchange\"");
    assert!(!world.router.lines().iter().any(|line| line.contains("proxied session=") && line.contains("by=127.0.0.3")));
}

#[test]
fn an_upstream_learns_the_clients_address_if_it_is_to() {
    if !Haproxy::is_installed() {
        return;
    }
    let world = world(&[("UPSTREAM_REUSE", "60")]);
    // HAProxy as the upstream's door: what it takes for the client's address is what it was told.
    let door = Haproxy::start(world.folder.path(), world.sshd.port, "accept-proxy", "");
    let mut route = world.route();
    route.iter_mut().filter(|(field, _)| *field == "port").for_each(|(_, port)| *port = door.port.to_string());
    let put = |header: &str| {
        let mut route = route.clone();
        route.push(("proxy_protocol", header.to_owned()));
        world.store.put(USER, &[&keys::ed25519(USER)], &route);
    };
    put("v2");
    for from in ["127.0.0.5", "127.0.0.6"] {
        world.proxied(USER).with_option(&format!("BindAddress={from}")).sftp("pwd\n").success();
        let line = format!("client {from}:");
        assert!(until(LIMIT, || door.process.lines().iter().any(|said| said.contains(&line))), "{:?}", door.process.lines());
    }
    assert!(!world.router.lines().iter().any(|line| line.contains("kept=yes")), "one client's connection is used for another");
    // Behind a balancer it is the balancer's client.
    let haproxy = balancer(&world, "send-proxy");
    through(&world, &haproxy, "127.0.0.8").sftp("pwd\n").success();
    assert!(until(LIMIT, || door.process.lines().iter().any(|said| said.contains("client 127.0.0.8:"))));
    put("no");
    let output = world.proxied(USER).sftp("pwd\n");
    assert_ne!(output.code, 0, "an upstream that wants a header is content without: {output:?}");
}
