//! A client that vanishes, never reads, says nothing or garbage, or comes in crowds.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use nix::sys::signal::Signal;
use sftpproxy::wire::{put_string, put_u32};

use super::{LIMITS, assert_serves, log_in_raw, open_raw, raw_user, world, world_with_subsystem};
use crate::raw::{CHANNEL_CLOSE, CHANNEL_REQUEST, Client};
use crate::world::process::{LIMIT, until};
use crate::world::tree::big_file;
use crate::world::{Setup, USER, World};

fn world_with(settings: &[(&str, &str)]) -> World {
    World::with(Setup { settings, ..Setup::default() })
}

fn connect(world: &World) -> TcpStream {
    TcpStream::connect(("127.0.0.1", world.router.port)).unwrap()
}

/// A request in its SFTP frame.
fn request(kind: u8, number: u32, text: &[u8]) -> Vec<u8> {
    let mut body = vec![kind];
    put_u32(&mut body, number);
    if kind != 1 {
        put_string(&mut body, text);
    }
    let mut packet = Vec::new();
    put_string(&mut packet, &body);
    packet
}

#[test]
fn the_client_vanishes_before_it_says_a_word() {
    let world = world();
    let stream = connect(&world);
    world.router.wait_for_line("accept session=1 ");
    drop(stream);
    world.router.wait_for_line("end session=1 *side=downstream stage=\"exchange\"");
    assert_serves(&world);
}

#[test]
fn the_client_vanishes_between_key_exchange_and_login() {
    let world = world();
    drop(Client::connect(("127.0.0.1", world.router.port)).unwrap());
    world.router.wait_for_line("end session=1 *side=downstream stage=\"prove\"");
    assert_serves(&world);
}

#[test]
fn the_client_vanishes_between_login_and_channel() {
    let world = world();
    let key = raw_user(&world, &world.route());
    drop(log_in_raw(&world, &key));
    world.router.wait_for_line("end session=1 user=\"raw\"*side=downstream stage=\"open\"");
    assert_serves(&world);
}

/// A client that is killed as soon as the file that it makes has grown.
#[track_caller]
fn killed_amid(command: &str, grown: impl Fn(&World) -> std::path::PathBuf) {
    let world = world();
    let size = 1 << 30;
    big_file(&world.client().join("there"), size);
    big_file(&world.sshd.files.join("back"), size);
    let mut session = world.proxied(USER).session();
    session.ask("pwd", "Remote working directory");
    session.say(command);
    let file = grown(&world);
    assert!(until(LIMIT, || std::fs::metadata(&file).is_ok_and(|meta| meta.len() > 4 << 20)), "no transfer");
    session.signal(Signal::SIGKILL);
    let end = world.router.wait_for_line("end session=1 user=\"alice\"");
    assert!(end.contains("side=downstream stage=\"relay\""), "{end}");
    assert!(std::fs::metadata(&file).unwrap().len() < size, "it was killed too late to tell anything");
    assert_serves(&world);
}

#[test]
fn the_client_is_killed_amid_a_put() {
    killed_amid("put there", |world| world.sshd.files.join("there"));
}

#[test]
fn the_client_is_killed_amid_a_get() {
    killed_amid("get back", |world| world.client().join("back"));
}

#[test]
fn the_client_sends_garbage_instead_of_ssh() {
    let world = world();
    for garbage in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"\xff\x00\xfe\r\n",
        b"SSH-1.0-x\r\n",
        b"SSH-2.0-x\r\n\xff\xff\xff\xff garbage",
    ] {
        let mut stream = connect(&world);
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.write_all(garbage).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    }
    world.router.wait_for_lines("end session=*side=downstream stage=\"exchange\"", 4);
    assert_serves(&world);
}

#[test]
fn the_client_sends_garbage_instead_of_sftp() {
    let world = world();
    for (number, garbage, reason) in [
        (1, &[0; 16][..], "sftp packet of length 0"),
        (2, &[0xff; 64], "the first sftp packet is of type 255, expected INIT"),
        (3, &[0, 0, 0, 5, 1, 0, 0, 0, 3, 0x7f, 0xff, 0xff, 0xff, 11, 0, 0, 0, 1, 0, 0, 0, 1, b'/'], "at most 262144 are allowed"),
    ] {
        let (mut client, channel) = open_raw(&world, &world.route());
        world.router.wait_for_line(&format!("open session={number} "));
        client.data(&channel, garbage).unwrap();
        let _ = client.until_closed();
        world.router.wait_for_line(&format!("end session={number} *side=downstream stage=\"relay\" reason=\"*{reason}"));
    }
    assert_serves(&world);
}

#[test]
fn two_hundred_silent_connections_keep_nobody_out_and_each_ends_at_the_login_limit() {
    let world = world_with(&[("LOGIN_TIMEOUT", "8")]);
    let silent: Vec<_> = (0..200).map(|_| connect(&world)).collect();
    world.router.wait_for_lines("accept session=", silent.len());
    assert_serves(&world);
    assert!(!world.router.lines().iter().any(|line| line.contains("stage=\"exchange\"")), "the next client had to wait");
    let end = "end session=*side=downstream stage=\"exchange\" reason=\"not done within SFTPPROXY_LOGIN_TIMEOUT";
    world.router.wait_for_lines(end, silent.len());
    assert_serves(&world);
}

#[test]
fn beyond_the_limits_connections_are_refused_and_later_ones_are_served() {
    for (setting, limit) in [("MAX_STARTUPS", "2"), ("MAX_SESSIONS", "2")] {
        let world = world_with(&[(setting, limit)]);
        let silent: Vec<_> = (0..2).map(|_| connect(&world)).collect();
        world.router.wait_for_lines("accept session=", 2);
        assert_eq!(connect(&world).read(&mut [0]).unwrap_or(0), 0, "a third connection is talked to");
        world.router.wait_for_line(&format!("refuse peer=127.0.0.1:*SFTPPROXY_{setting}"));
        drop(silent);
        world.router.wait_for_lines("end session=", 2);
        assert!(until(LIMIT, || world.proxied(USER).sftp("pwd\n").code == 0), "nobody is served after {setting}");
    }
}

#[test]
fn a_client_that_says_eof_with_replies_outstanding_gets_them_all_and_the_exit_status() {
    // sftp-server itself forgets its replies at EOF; this subsystem answers all.
    let world = world_with_subsystem("cat; exit 7");
    let (mut client, channel) = open_raw(&world, &world.route());
    let mut sent = request(1, 3, b"");
    for number in 0..20_000 {
        sent.extend(request(17, number, format!("/folder/of/number/{number}").as_bytes()));
    }
    for piece in sent.chunks(20_000) {
        client.data(&channel, piece).unwrap();
    }
    client.eof(&channel).unwrap();
    let mut come = Vec::new();
    loop {
        let bytes = client.recv_data(&channel).unwrap();
        if bytes.is_empty() {
            break;
        }
        come.extend(bytes);
    }
    assert!(come == sent, "{} of {} bytes come back", come.len(), sent.len());
    let last = [client.recv().unwrap(), client.recv().unwrap()];
    assert_eq!(last[0][0], CHANNEL_REQUEST, "{last:?}");
    assert!(last[0].ends_with(b"exit-status\0\0\0\0\x07"), "{last:?}");
    assert_eq!(last[1][0], CHANNEL_CLOSE, "{last:?}");
    client.close(&channel).unwrap();
    drop(client);
    world.router.wait_for_line("end session=1 *reason=\"the client closed the session");
}

#[test]
fn a_client_that_closes_its_channel_without_eof_is_answered_with_a_close() {
    let world = world();
    let (mut client, channel) = open_raw(&world, &world.route());
    client.data(&channel, &request(1, 3, b"")).unwrap();
    assert_eq!(client.recv_sftp(&channel).unwrap()[0], 2);
    client.close(&channel).unwrap();
    while client.recv().unwrap()[0] != CHANNEL_CLOSE {}
    client.disconnect(11, "bye").unwrap();
    world.router.wait_for_line("end session=1 *reason=\"the client closed the session");
    assert_serves(&world);
}

#[test]
fn a_client_that_logs_in_and_never_opens_a_channel_ends_at_the_login_limit() {
    let settings: Vec<_> =
        LIMITS.into_iter().filter(|(name, _)| *name != "LOGIN_TIMEOUT").chain([("LOGIN_TIMEOUT", "3")]).collect();
    let world = world_with(&settings);
    let client = log_in_raw(&world, &raw_user(&world, &world.route()));
    world.router.wait_for_line(
        "end session=1 user=\"raw\"*side=downstream stage=\"open\" reason=\"not done within SFTPPROXY_LOGIN_TIMEOUT",
    );
    drop(client);
    assert_serves(&world);
}
