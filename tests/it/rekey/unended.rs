//! A peer that begins a key exchange and never ends it: nothing else may pass on its leg until then, so it is cut, within a bound. One that
//! is slow or paused is not.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::attacks::{Site, download_unread};
use crate::contract::children;
use crate::raw::{CHANNEL_DATA, Client, Offer};
use crate::world::keys::{Key, ed25519};
use crate::world::process::{LIMIT, signal, until};
use crate::world::tree::big_file;
use crate::world::{Setup, USER, World};

/// SFTPPROXY_LOGIN_TIMEOUT here, which is also how long a key exchange may take.
const SECONDS: u64 = 5;

/// What the clients do after they have begun.
type Act = fn(&mut Client) -> std::io::Result<()>;

#[test]
fn a_client_that_begins_a_rekey_and_never_ends_it_is_cut() {
    let site = Site::with(&[("LOGIN_TIMEOUT", &SECONDS.to_string())]);
    let acts: [(&str, Act); 4] = [
        ("nothing more", |client| client.send_kexinit(&Offer::default()).map(drop)),
        ("everything but NEWKEYS", |client| client.exchange(&Offer { unended: true, ..Offer::default() })),
        ("ever more that means nothing", |client| {
            client.send_kexinit(&Offer::default())?;
            until(LIMIT, || client.ignore(b"still here").is_err());
            Ok(())
        }),
        ("KEXINIT amid a download", |client| client.send_kexinit(&Offer::default()).map(drop)),
    ];
    let mut clients: Vec<_> = (1..acts.len()).map(|_| site.sftp().0).collect();
    clients.push(download_unread(&site, 1 << 30));
    std::thread::scope(|scope| {
        for ((what, act), mut client) in acts.into_iter().zip(clients) {
            scope.spawn(move || {
                act(&mut client).unwrap_or_else(|error| panic!("{what}: {error}"));
                // It reads all that still comes.
                while client.recv_packet().is_ok() {}
            });
        }
    });
    for (number, (what, _)) in (1..).zip(acts) {
        let end = site.end(number);
        let told = end.contains("side=downstream stage=\"relay\"") && end.contains("the client did not end a rekey within 5 s");
        // libssh itself may take it for an error that something else comes.
        assert!(told || number == 3 && end.contains("side=downstream"), "{what}: {end}");
    }
    site.serves_others();
}

#[test]
fn a_client_that_is_paused_amid_a_rekey_gets_everything_when_it_goes_on() {
    let site = Site::with(&[("LOGIN_TIMEOUT", "4")]);
    let mut client = download_unread(&site, 1 << 30);
    client.exchange(&Offer { pause: Duration::from_secs(10), ..Offer::default() }).unwrap();
    // More than what had been sent before: it comes with the new keys.
    let mut got = 0;
    while got < 32 << 20 {
        let packet = client.recv_packet().unwrap();
        got += if packet[0] == CHANNEL_DATA { packet.len() } else { 0 };
    }
    client.disconnect(11, "enough").unwrap();
    let end = site.end(1);
    assert!(end.contains("disconnected"), "{end}");
}

/// A relay to an sshd whose packets have their length in plain sight (AES-GCM, RFC 5647 section 7.3): it lets pass what the sshd says as far as its
/// second KEXINIT and `more` packets behind it, and then nothing more.
fn stops_in_rekey(sshd: u16, more: usize) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for near in listener.incoming().map_while(Result::ok) {
            let far = TcpStream::connect(("127.0.0.1", sshd)).unwrap();
            let (mut from, mut to) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
            });
            std::thread::spawn(move || {
                let _ = as_far_as_rekey(&far, &near, more);
                // The sshd is heard, and the router hears nothing of it, until it goes.
                let _ = std::io::copy(&mut &far, &mut std::io::sink());
                let _ = (far.shutdown(Shutdown::Both), near.shutdown(Shutdown::Both));
            });
        }
    });
    port
}

fn as_far_as_rekey(mut from: &TcpStream, mut to: &TcpStream, mut more: usize) -> std::io::Result<()> {
    let mut byte = [0];
    while byte != *b"\n" {
        from.read_exact(&mut byte)?;
        to.write_all(&byte)?;
    }
    let (mut first, mut tag, mut rekeys) = (0, 0, false);
    loop {
        let mut packet = vec![0; 4];
        from.read_exact(&mut packet)?;
        let length = u32::from_be_bytes(packet[..4].try_into().unwrap()) as usize;
        packet.resize(4 + length + tag, 0);
        from.read_exact(&mut packet[4..])?;
        if rekeys {
            match more.checked_sub(1) {
                None => return Ok(()),
                Some(left) => more = left,
            }
        }
        to.write_all(&packet)?;
        match packet[5] {
            20 if first == 0 => first = length,
            21 if tag == 0 => tag = 16,
            // Nothing else that this sshd says is about as long.
            _ => rekeys |= tag > 0 && length.abs_diff(first) < 100,
        }
    }
}

#[test]
fn an_upstream_that_begins_a_rekey_and_never_ends_it_is_cut() {
    let seconds = SECONDS.to_string();
    let settings = [("LOGIN_TIMEOUT", seconds.as_str()), ("UPSTREAM_CIPHERS", "aes256-gcm@openssh.com")];
    let world = World::with(Setup { sshd: &["RekeyLimit 64K"], settings: &settings, ..Setup::default() });
    big_file(&world.sshd.files.join("big"), 8 << 20);
    big_file(&world.client().join("big"), 8 << 20);
    let cases = [(0, "get big got0\n"), (1, "get big got1\n"), (0, "put big put0\n"), (1, "put big put1\n")];
    std::thread::scope(|scope| {
        for (number, (more, command)) in cases.into_iter().enumerate() {
            let (user, key) = (format!("user{number}"), ed25519(USER));
            let mut route = world.route();
            let port = stops_in_rekey(world.sshd.port, more);
            route.iter_mut().filter(|(name, _)| *name == "port").for_each(|(_, text)| *text = port.to_string());
            let key: Key = if number == 0 { key } else { ed25519(&format!("rekey-{number}")) };
            let user = if number == 0 { USER.to_owned() } else { user };
            world.store.put(&user, &[&key], &route);
            let target = world.proxied_with(&user, &key);
            let world = &world;
            scope.spawn(move || {
                assert_ne!(target.sftp(command).code, 0, "{command}");
                let end = world.router.wait_for_line(&format!("end session=*user=\"{user}\""));
                let told = end.contains("side=upstream stage=\"relay\"");
                assert!(told && end.contains("the upstream did not end a rekey within 5 s"), "{command}{more}: {end}");
            });
        }
    });
    world.store.put(USER, &[&ed25519(USER)], &world.route());
    world.proxied(USER).sftp("get big\n").success();
}

#[test]
fn an_upstream_that_stands_still_for_longer_than_a_rekey_may_take_is_waited_for() {
    let world = World::with(Setup { settings: &[("LOGIN_TIMEOUT", "4")], ..Setup::default() });
    let mut session = world.proxied(USER).session();
    session.ask("pwd", "Remote working directory");
    let server = children(world.sshd.process.pid());
    server.iter().for_each(|&pid| signal(pid, Signal::SIGSTOP));
    session.say("mkdir made");
    until(Duration::from_secs(10), || false);
    server.iter().for_each(|&pid| signal(pid, Signal::SIGCONT));
    session.say("ls");
    session.shows("made");
    assert_eq!(session.end(), 0);
}
