//! The holes of this field that our design could repeat, as far as no test beside their feature shows them: `login` has the forged logins,
//! `contract` and `faults` trust, `attacks` what a client with a good key can do, `admission` sources. SECURITY.md has a row for each hole
//! with the test's name. Numbers of CVEs stand at the tests that were written because of them.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::attacks::{MOST, Site};
use crate::contract::trusts;
use crate::login::on_disk;
use crate::raw::{Answer, Client, Key, Login, Transport};
use crate::world::toxic::{Direction, Relay, Strike, Toxic};
use crate::world::{Kind, Setup, USER, World, keys};

/// IGNORE without content as it is sent before keys are exchanged: length, padding's length, type, an empty string, padding.
const PLAIN_IGNORE: [u8; 16] = [0, 0, 0, 12, 6, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

#[test]
fn what_was_tried_in_one_name_counts_for_no_other() {
    // CVE-2026-46705: what a client had tried as one user narrowed what it was told as another.
    let site = Site::start();
    let mut client = Client::connect(site.port()).unwrap();
    let only = Answer::Failure("publickey".into());
    assert_eq!(client.none("alice").unwrap(), only);
    assert_eq!(client.probe("mallory", "ssh-ed25519", &site.key.blob()).unwrap(), Answer::KeyIsGood);
    assert_eq!(client.probe("alice", "ssh-ed25519", &site.key.blob()).unwrap(), only, "the offer of another user's key");
    assert_eq!(client.none("alice").unwrap(), only);
    assert_eq!(client.password("nobody", "x").unwrap(), only);
    assert_eq!(client.login(&Login::new("mallory", &site.key)).unwrap(), Answer::Success);
    client.open_sftp().unwrap();
    site.world.router.wait_for_line("proven session=1 user=\"mallory\"");
}

#[test]
fn a_host_of_which_only_a_key_of_another_type_is_known_gets_no_credential() {
    // CVE-2026-9547: a type that the file does not have for the host was taken for "no objection".
    let world = World::with(Setup { sshd: &["LogLevel DEBUG1"], ..Setup::default() });
    let other = keys::rsa("other-host").line();
    let exact = format!("[127.0.0.1]:{}", world.sshd.port);
    assert!(!trusts(&world, "", &format!("{exact} {other}\n")), "known");
    assert!(!trusts(&world, &other.split(' ').take(2).collect::<Vec<_>>().join(" "), ""), "pinned");
}

#[test]
fn a_list_of_host_keys_that_cannot_be_read_trusts_nobody() {
    // CVE-2025-26465: a check that failed, for want of memory, counted as one that was passed.
    let world = World::with(Setup { sshd: &["LogLevel DEBUG1"], ..Setup::default() });
    let exact = format!("[127.0.0.1]:{}", world.sshd.port);
    let right = format!("{exact} ssh-ed25519 {}\n", world.sshd.host_key.base64());
    assert!(trusts(&world, "", &right));
    for (what, known) in [
        ("cut short", right[..right.len() - 20].to_owned()),
        ("without its end", exact.clone()),
        ("NUL bytes", right.replace(' ', "\0")),
        ("a line of 2 MiB", format!("{}{right}", "x".repeat(2 << 20))),
    ] {
        assert!(!trusts(&world, "", &known), "{what}");
    }
    let file = world.folder.path().join("home/.ssh/known_hosts");
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    assert_ne!(world.proxied(USER).sftp("pwd\n").code, 0, "a folder");
    let accepted = |line: &&String| line.contains("Accepted publickey");
    assert_eq!(world.sshd.process.lines().iter().filter(accepted).count(), 1, "only the right one has let us log in");
}

/// Where the first packet behind an identification ends, if it is there as a whole.
fn end_of_kexinit(bytes: &[u8]) -> Option<usize> {
    let start = bytes.iter().position(|&byte| byte == b'\n')? + 1;
    let length = bytes.get(start..start + 4)?;
    let end = start + 4 + u32::from_be_bytes(length.try_into().unwrap()) as usize;
    (end <= bytes.len()).then_some(end)
}

/// Lets the user's route lead through somebody in between.
fn route_through(world: &World, between: &Relay) {
    let mut route = world.route();
    route.retain(|(name, _)| *name != "port");
    route.push(("port", between.port.to_string()));
    world.store.put(USER, &[&keys::ed25519(USER)], &route);
}

#[test]
fn strict_key_exchange_holds_towards_the_upstream_too() {
    // CVE-2023-48795, "Terrapin": messages that are put in before the keys hide those that are taken away behind them.
    let world = World::start();
    let honest = Relay::start(world.sshd.port);
    route_through(&world, &honest);
    world.proxied(USER).sftp("pwd\n").success();
    let said = String::from_utf8_lossy(&honest.said(Direction::Up)).into_owned();
    assert!(said.contains("kex-strict-c-v00@openssh.com"), "the router does not offer it: {}", &said[..said.len().min(3000)]);

    // sshd's first packets are as long each time.
    let end = end_of_kexinit(&honest.said(Direction::Down)).expect("a whole packet");
    let inject = Strike::new(Toxic::Insert(PLAIN_IGNORE.to_vec()), Direction::Down, end);
    route_through(&world, &Relay::with(world.sshd.port, inject));
    assert_ne!(world.proxied(USER).sftp("pwd\n").code, 0);
    // Without strict key exchange it would be found out behind the keys only, where a log-in begins.
    let end = world.router.wait_for_line("end session=2 ");
    assert!(end.contains("side=upstream stage=\"trust\""), "{end}");
}

#[test]
fn the_length_of_a_packet_costs_no_memory_before_it_is_there() {
    // CVE-2024-43410: the length was allocated as it was announced, before any login.
    let site = Site::with(&[("LOGIN_TIMEOUT", "20")]);
    let before = site.peak();
    let mut held = Vec::new();
    for length in [u32::MAX, 1 << 31, 256 << 20, 1 << 20, 300_000] {
        for keyed in [false, true] {
            for _ in 0..3 {
                let mut transport = Transport::dial(site.port()).unwrap();
                if keyed {
                    transport.greet("SSH-2.0-raw", &crate::raw::Offer::default()).unwrap();
                } else {
                    transport.send_banner("SSH-2.0-raw").unwrap();
                    transport.recv_banner().unwrap();
                }
                transport.send_raw(&[&length.to_be_bytes()[..], &[4; 1000]].concat()).unwrap();
                held.push(transport);
            }
        }
    }
    for (number, mut transport) in (1..).zip(held) {
        transport.until_closed().unwrap();
        let end = site.end(number);
        assert!(!end.contains("LOGIN_TIMEOUT"), "{end}");
    }
    assert!(site.peak() < before + MOST, "{} KiB more", (site.peak() - before) >> 10);
    site.serves_others();
}

#[test]
fn lines_before_an_identification_that_never_comes_are_not_read_for_ever() {
    // CVE-2026-48108.
    let site = Site::with(&[("LOGIN_TIMEOUT", "2")]);
    let before = site.memory();
    let start = Instant::now();
    let mut transport = Transport::dial(site.port()).unwrap();
    let lines = b"not yet\r\n".repeat(1000);
    while transport.send_raw(&lines).is_ok() {
        assert!(start.elapsed() < Duration::from_secs(6), "still listens after {:?}", start.elapsed());
    }
    assert!(site.end(1).contains("stage=\"exchange\""));
    assert!(site.memory() < before + (16 << 20), "{} KiB more", (site.memory() - before) >> 10);
}

#[test]
fn pings_before_the_login_whose_answers_are_never_read_cost_bounded_memory_and_time() {
    // CVE-2025-26466: each ping of a key exchange left its answer in memory until the end.
    let site = Site::with(&[("LOGIN_TIMEOUT", "3")]);
    let before = site.memory();
    for rekeying in [false, true] {
        let mut client = Client::connect(site.port()).unwrap();
        client.set_patience(Duration::from_secs(1)).unwrap();
        if rekeying {
            client.send_kexinit(&crate::raw::Offer::default()).unwrap();
        }
        let start = Instant::now();
        let mut most = 0;
        loop {
            // Packets that nobody knows are answered too (RFC 4253 section 11.4).
            let piece: Vec<u8> = (0..1000).flat_map(|_| client.seal(&[192, 0, 0, 0, 0])).collect();
            if client.send_raw(&piece).is_err() {
                break;
            }
            most = most.max(site.memory());
            assert!(start.elapsed() < Duration::from_secs(10), "still listens after {:?}", start.elapsed());
        }
        assert!(most < before + MOST, "rekeying {rekeying}: {} KiB more", (most - before) >> 10);
    }
    site.end(1);
    site.end(2);
    site.serves_others();
}

#[test]
fn names_in_redis_mean_themselves_whatever_is_in_them() {
    let mut world = World::with(Setup { store: Kind::Redis, settings: &[("LOGIN_TIMEOUT", "2")], ..Setup::default() });
    let port = world.router.port;
    let sessions = Cell::new(0);
    let logs_in = |name: &str, key: &Key| {
        sessions.set(sessions.get() + 1);
        let mut client = Client::connect(("127.0.0.1", port)).unwrap();
        client.login(&Login::new(name, key)).unwrap() == Answer::Success
    };
    let entry = |key: &Key| format!("pysftpproxy:pubkey:{}", openssl::base64::encode_block(&key.blob()));
    let strange = [
        "*",
        "a*",
        "ALICE",
        "al?ce",
        "[a]lice",
        "alice:x",
        ":",
        "../alice",
        "alice x",
        "$(id)",
        "%s%n",
        "\\",
        "'",
        "ali\u{301}ce",
    ];
    let good: Vec<_> = strange.iter().map(|name| (*name, Key::ed25519())).collect();
    for (name, key) in &good {
        assert!(!logs_in(name, key), "{name} is not there yet, though alice is");
        world.store.redis().set(&entry(key), name);
        assert!(logs_in(name, key), "{name} has a key");
        let end = world.router.wait_for_line(&format!("end session={} ", sessions.get()));
        assert!(end.contains("reason=\"the user has no record"), "{name} gets another one's record: {end}");
        world.store.put(name, &[&on_disk(&world, "strange", key)], &world.route());
    }
    for (name, key) in &good {
        assert!(logs_in(name, key), "{name}");
        assert!(!logs_in(USER, key), "{name} as alice");
        world.router.wait_for_line(&format!("proven session=* user=\"{}\"", sftpproxy::error::shown(name)));
    }
    // Names that nobody can have, though the store has them.
    let long = "a".repeat(64 * 1024);
    for name in ["alice\n", "ali\0ce", "\n", "\u{1b}[2J", long.as_str(), &long[..256]] {
        let key = Key::ed25519();
        world.store.put(name, &[&on_disk(&world, "refused", &key)], &world.route());
        assert!(!logs_in(name, &key), "{name:.20?}");
        assert!(!logs_in(USER, &key), "{name:.20?} as alice");
    }
    // A key of one user that the store gives to another, and half a record.
    let (alices, mallorys) = (Key::ed25519(), Key::ed25519());
    world.add_user("alice", &on_disk(&world, "alices", &alices));
    world.add_user("mallory", &on_disk(&world, "mallorys", &mallorys));
    let server = world.store.redis();
    server.set(&entry(&alices), "mallory");
    server.set(&entry(&mallorys), "alice");
    assert!(!logs_in("alice", &alices) && !logs_in("mallory", &mallorys), "swapped");
    server.set(&entry(&mallorys), "mallory");
    server.ask(redis::cmd("HSET").arg("pysftpproxy:user:mallory").arg("port").arg("x"));
    assert!(logs_in("mallory", &mallorys));
    world.router.wait_for_line("end session=*user=\"mallory\"*side=store stage=\"find\" reason=\"bad record: port");
}

#[test]
fn a_proxy_header_of_a_stranger_moves_no_address() {
    // CVE-2024-35175.
    let site = Site::with(&[("LOGIN_TIMEOUT", "2")]);
    let mut second = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    second.extend([203, 0, 113, 7, 127, 0, 0, 1, 0, 1, 0, 22]);
    for (number, header) in (1..).zip([&b"PROXY TCP4 203.0.113.7 127.0.0.1 1 22\r\n"[..], &second]) {
        let mut transport = Transport::dial(site.port()).unwrap();
        transport.send_raw(header).unwrap();
        assert!(transport.greet("SSH-2.0-raw", &crate::raw::Offer::default()).is_err(), "the header is passed over");
        let end = site.end(number);
        assert!(end.contains("peer=127.0.0.1:"), "{end}");
    }
    assert!(!site.world.router.lines().iter().any(|line| line.contains("peer=203.0.113.7")));
    site.serves_others();
}
