//! Sessions that survive their upstream's restart (`survive`): what goes on, what is said to be lost, and that nothing is ever different in
//! silence. `model` cuts the upstream at random amid transfers; here is each case by itself.

mod client;
mod model;

use std::fs::{read, write};
use std::time::{Duration, Instant};

use sftpproxy::sftp::OpenFlags;
use sftpproxy::sftp::reply::{DATA, FAILURE, HANDLE, OK, STATUS};

use crate::monitor;
use crate::world::gate::Gate;
use crate::world::process::{LIMIT, descendants, signal, until};
use crate::world::sshd::Sshd;
use crate::world::tree::{hash, small_file};
use crate::world::{Kind, Setup, USER, World, keys};
use client::Client;

const PUT: u32 = OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::TRUNCATE;

/// A world whose user's sessions survive for so many seconds, behind a gate.
fn world(seconds: u32, setup: Setup<'_>) -> (World, Gate) {
    let world = World::with(setup);
    let gate = Gate::start(world.sshd.port);
    put(&world, &gate, &[("survive", seconds.to_string())]);
    (world, gate)
}

fn put(world: &World, gate: &Gate, fields: &[(&'static str, String)]) {
    let mut route = world.route();
    route.retain(|(name, _)| *name != "port");
    route.push(("port", gate.port.to_string()));
    route.extend(fields.iter().cloned());
    world.store.put(USER, &[&keys::ed25519(USER)], &route);
}

fn count(world: &World, part: &str) -> usize {
    world.router.lines().iter().filter(|line| line.contains(part)).count()
}

/// A router that counts.
const COUNTED: Setup<'_> = Setup { store: Kind::File, sshd: &[], settings: &[("METRICS_ADDRESS", "127.0.0.1:0")] };

/// Losses after which sessions went on, losses that have ended one, and lost files.
fn counted(world: &World) -> [usize; 3] {
    let series = monitor::series(monitor::port(world));
    let names = ["upstream_lost_total{outcome=\"resumed\"}", "upstream_lost_total{outcome=\"ended\"}", "files_lost_total"];
    names.map(|name| series[&format!("sftpproxy_{name}")] as usize)
}

/// The upstream goes, `meanwhile` happens, and it is back.
fn away(world: &World, gate: &Gate, meanwhile: impl FnOnce()) {
    let lost = count(world, "lost session=");
    gate.shut();
    assert!(until(LIMIT, || count(world, "lost session=") > lost), "nobody notices");
    meanwhile();
    gate.lead(world.sshd.port);
}

#[test]
fn openssh_sftp_sees_a_pause_and_both_files_arrive_whole() {
    let (mut world, gate) = world(60, Setup::default());
    small_file(&world.client().join("one"), 6_000_000, 1);
    let mut session = world.proxied(USER).session();
    session.ask("pwd", "Remote working directory");
    let there = world.sshd.files.join("there");
    session.say("put one there");
    assert!(until(LIMIT, || there.exists()));
    world.sshd.kill_sessions();
    session.ask("!echo put is done", "put is done");
    assert_eq!(hash(&there), hash(&world.client().join("one")));
    session.say("get there back");
    assert!(until(LIMIT, || world.client().join("back").exists()));
    world.sshd.restart();
    gate.lead(world.sshd.port);
    session.ask("!echo get is done", "get is done");
    assert_eq!(session.end(), 0);
    assert_eq!(hash(&world.client().join("back")), hash(&there));
    // At which byte it was is the machine's.
    world.router.wait_for_lines("resumed session=1 user=\"alice\"", 1);
}

/// What is done to a file while the upstream is away.
type Deed = fn(&std::path::Path);

const DEEDS: [(&str, Deed, &str); 7] = [
    ("nothing", |_| {}, ""),
    ("truncated", |path| write(path, &read(path).unwrap()[..10]).unwrap(), "bytes and should have"),
    ("grown", |path| write(path, [&read(path).unwrap()[..], b"more"].concat()).unwrap(), "bytes and should have"),
    (
        "overwritten with as many bytes",
        |path| {
            let mut content = read(path).unwrap();
            content[5] ^= 1;
            let meta = std::fs::metadata(path).unwrap();
            write(path, content).unwrap();
            // Whoever keeps the time as well is found out by the content.
            std::fs::File::options().write(true).open(path).unwrap().set_modified(meta.modified().unwrap()).unwrap();
        },
        "content is not what",
    ),
    (
        "emptied where it was acknowledged, as by a page cache that was lost",
        |path| {
            let content = read(path).unwrap();
            write(path, vec![0; content.len()]).unwrap();
        },
        "",
    ),
    (
        "replaced",
        |path| {
            write(path.with_extension("new"), vec![b'x'; read(path).unwrap().len()]).unwrap();
            std::fs::rename(path.with_extension("new"), path).unwrap();
        },
        "",
    ),
    ("removed", |path| std::fs::remove_file(path).unwrap(), "No such file"),
];

#[test]
fn a_file_that_is_another_when_the_upstream_is_back_is_lost_and_that_is_said() {
    let (world, gate) = world(60, COUNTED);
    let path = |name: &str| world.sshd.files.join(name);
    let mut client = Client::start(&world.proxied(USER));
    for (deed, act, reason) in DEEDS {
        for upload in [true, false] {
            let (file, content) = (path("file"), b"0123456789abcdefghijklmnopqrstuvwxyz");
            write(&file, if upload { &b""[..] } else { content }).unwrap();
            let handle = client.open(&file, if upload { PUT } else { OpenFlags::READ });
            let first = if upload { client.write(&handle, 0, &content[..20]) } else { client.read(&handle, 0, 20) };
            assert_eq!(client.reply(first)[0], if upload { STATUS } else { DATA });
            away(&world, &gate, || act(&file));
            let rest = if upload { client.write(&handle, 20, &content[20..]) } else { client.read(&handle, 20, 16) };
            let close = client.close(&handle);
            let (rest, close) = (client.reply(rest), client.reply(close));
            let case = format!("{deed}, upload: {upload}");
            if deed == "nothing" {
                assert_eq!(client::status(&close).0, OK, "{case}");
                let whole = if upload { read(&file).unwrap() } else { [&content[..20], &rest[9..]].concat() };
                assert_eq!(whole, content, "{case}");
                continue;
            }
            for reply in [rest, close] {
                let (code, text) = client::status(&reply);
                assert_eq!(code, FAILURE, "{case}");
                assert!(text.contains("the upstream was lost, and the file cannot be proven"), "{case}: {text}");
                // A file that was only read is told by its time too.
                assert!(!upload || text.contains(reason), "{case}: {text}");
            }
        }
    }
    assert_eq!(count(&world, "lost-file session=1"), 2 * (DEEDS.len() - 1));
    assert_eq!(counted(&world), [2 * DEEDS.len(), 0, 2 * (DEEDS.len() - 1)]);
    // The session is none the worse for it.
    let handle = client.open(&path("next"), PUT);
    let id = client.write(&handle, 0, b"x");
    assert_eq!(client::status(&client.reply(id)).0, OK);
    client.end();
}

/// Stops the upstream's processes, so that what is sent to it is not answered; then they are killed.
fn unanswered(world: &World, client: &mut Client, ask: impl FnOnce(&mut Client) -> Vec<u32>) -> Vec<Vec<u8>> {
    let before = count(world, "lost session=");
    let frozen = descendants(world.sshd.process.pid());
    frozen.iter().for_each(|&pid| signal(pid, nix::sys::signal::Signal::SIGSTOP));
    let ids = ask(client);
    // That they have been sent shows at the router alone, which says nothing of it: a later loss would find them unsent and send them.
    client.settle(world);
    world.sshd.kill_sessions();
    assert!(until(LIMIT, || count(world, "lost session=") > before));
    ids.into_iter().map(|id| client.reply(id)).collect()
}

#[test]
fn what_may_have_been_done_is_said_not_to_be_known_and_what_is_harmless_is_done() {
    let (world, _gate) = world(60, Setup::default());
    let path = |name: &str| world.sshd.files.join(name);
    for name in ["a", "b", "c"] {
        write(path(name), name).unwrap();
    }
    let mut client = Client::start(&world.proxied(USER));
    let exclusive = PUT & !OpenFlags::TRUNCATE | OpenFlags::EXCLUSIVE;
    let replies = unanswered(&world, &mut client, |client| {
        vec![
            client.ask_open(&path("new"), exclusive),
            client.ask_open(&path("a"), PUT),
            client.paths(18, &[&path("b"), &path("moved")]),
            client.paths(13, &[&path("c")]),
            client.paths(17, &[&path("a")]),
            client.ask_open(&path("a"), OpenFlags::READ),
        ]
    });
    for (number, reply) in replies[..4].iter().enumerate() {
        let (code, text) = client::status(reply);
        assert_eq!((code, text.as_str()), (FAILURE, "the upstream was lost; it is not known whether this was done"), "{number}");
    }
    assert_eq!((replies[4][0], replies[5][0]), (105, HANDLE));
    client.end();
}

#[test]
fn a_file_that_is_appended_to_and_a_directory_amid_its_listing_are_lost() {
    let (world, gate) = world(60, Setup::default());
    let path = |name: &str| world.sshd.files.join(name);
    (0..250).for_each(|number| write(path(&format!("{number}")), "").unwrap());
    let mut client = Client::start(&world.proxied(USER));
    let append = client.open(&path("0"), OpenFlags::WRITE | OpenFlags::APPEND);
    let begun = client.open_directory(&path(""));
    let fresh = client.open_directory(&path(""));
    let id = client.handle(12, &begun);
    assert_eq!(client.reply(id)[0], 104);
    away(&world, &gate, || {});
    for (id, expected) in [
        (client.write(&append, 0, b"x"), "it was opened to be appended to"),
        (client.handle(12, &begun), "a part of it was listed"),
        (client.close(&begun), "a part of it was listed"),
    ] {
        let (code, text) = client::status(&client.reply(id));
        assert!(code == FAILURE && text.contains(expected), "{text}");
    }
    let mut names = 0;
    loop {
        let id = client.handle(12, &fresh);
        match client.reply(id) {
            reply if reply[0] == 104 => names += u32::from_be_bytes(reply[5..9].try_into().unwrap()),
            reply => break assert_eq!(client::status(&reply).0, 1),
        }
    }
    assert_eq!(names, 252, "with . and ..");
    // Listed to its end it can be closed, and is not listed from its beginning again.
    away(&world, &gate, || {});
    let ids = [client.handle(12, &fresh), client.close(&fresh)];
    assert_eq!(ids.map(|id| client::status(&client.reply(id)).0), [FAILURE, OK]);
    assert_eq!(read(path("0")).unwrap(), b"");
    client.end();
}

#[test]
fn an_upstream_that_does_not_come_back_ends_the_session_with_the_reason_within_the_limit() {
    let (world, gate) = world(2, COUNTED);
    let mut client = Client::start(&world.proxied(USER));
    let handle = client.open(&world.sshd.files.join("file"), PUT);
    let began = Instant::now();
    gate.shut();
    client.write(&handle, 0, b"x");
    world
        .router
        .wait_for_line("end session=1 *side=upstream stage=\"relay\" reason=\"*it was not back within 2 s (survive): upstream");
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(client.is_over());
    assert_eq!(counted(&world), [0, 1, 0]);
}

#[test]
fn another_host_key_on_the_return_is_found_before_any_credential_and_quarantined() {
    let (world, gate) = world(60, Setup::default());
    let other = Sshd::start_with(&world.folder.path().join("other"), keys::ed25519("other-host"), &["LogLevel DEBUG1"]);
    let mut client = Client::start(&world.proxied(USER));
    client.open(&world.sshd.files.join("file"), PUT);
    gate.shut();
    gate.lead(other.port);
    world.router.wait_for_line("end session=1 *side=upstream stage=\"trust\"");
    assert!(client.is_over());
    assert!(other.process.lines().iter().all(|line| !line.contains("userauth-request")), "{:#?}", other.process.lines());
    let list = world.command(&["host-key", "list"]).success();
    assert!(list.contains("QUARANTINED"), "{list}");
}

#[test]
fn a_session_that_waits_for_its_upstream_can_be_ended_and_no_limit_of_patience_ends_it() {
    let (world, gate) = world(60, Setup { settings: &[("STALL_TIMEOUT", "3")], ..Setup::default() });
    let file = world.sshd.files.join("file");
    let mut client = Client::start(&world.proxied(USER));
    let handle = client.open(&file, PUT);
    let frozen = descendants(world.sshd.process.pid());
    frozen.iter().for_each(|&pid| signal(pid, nix::sys::signal::Signal::SIGSTOP));
    let id = client.write(&handle, 0, b"content");
    away(&world, &gate, || {
        // Longer than the limit.
        std::thread::sleep(Duration::from_secs(4));
        frozen.iter().for_each(|&pid| signal(pid, nix::sys::signal::Signal::SIGKILL));
    });
    assert_eq!(client::status(&client.reply(id)).0, OK);
    assert_eq!(read(&file).unwrap(), b"content");
    let id = client.write(&handle, 7, b" and more");
    assert_eq!(client::status(&client.reply(id)).0, OK);
    client.end();

    let mut client = Client::start(&world.proxied(USER));
    let handle = client.open(&file, PUT);
    gate.shut();
    client.write(&handle, 0, b"x");
    world.router.wait_for_lines("lost session=2", 1);
    world.command(&["user", "remove", USER, "--yes"]).success();
    world.router.wait_for_line("end session=2 *side=store");
    assert!(client.is_over());
}

#[test]
fn without_the_field_a_session_ends_with_its_upstream_as_before() {
    let (world, gate) = world(60, Setup::default());
    put(&world, &gate, &[]);
    let mut client = Client::start(&world.proxied(USER));
    let handle = client.open(&world.sshd.files.join("file"), PUT);
    assert_eq!(handle.len(), 4, "the upstream's own");
    gate.cut();
    world.router.wait_for_line("end session=1 *side=upstream stage=\"relay\"");
    assert!(client.is_over());
    assert_eq!(count(&world, "lost session="), 0);
}
