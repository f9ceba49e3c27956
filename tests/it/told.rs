//! Users who have proven a key and cannot be served learn why from the clients that they use, once, and in maintenance in the operator's
//! words.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use sftpproxy::sftp::EXTENDED;
use sftpproxy::sftp::reply::{self, FAILURE, HANDLE, NAME, PERMISSION_DENIED};
use sftpproxy::wire::{Reader, put_string, put_u32};

use crate::raw::{self, CHANNEL_CLOSE, Channel, Client};
use crate::world::clients::{Target, installed};
use crate::world::keys::{self, Key};
use crate::world::process::free_port;
use crate::world::sftp::Sftp;
use crate::world::{Kind, Setup, USER, World};

const UNREACHED: &str = "your server cannot be reached; please tell your administrator";

/// A world in which the user's upstream is at a port where nobody listens.
fn unreached() -> World {
    let world = World::start();
    put_port(&world, free_port());
    world
}

fn put_port(world: &World, port: u16) {
    let mut route = world.route();
    route.retain(|(name, _)| *name != "port");
    route.push(("port", port.to_string()));
    world.store.put(USER, &[&keys::ed25519(USER)], &route);
}

#[test]
fn each_client_shows_the_reason_and_ends_with_an_error() {
    let world = unreached();
    let user = world.proxied(USER);
    let clients = [
        ("sftp", user.sftp("pwd\n")),
        ("scp", user.scp(&["@:x", "y"])),
        ("lftp", if installed("lftp") { user.lftp("ls") } else { user.sftp("pwd\n") }),
        ("rclone", if installed("rclone") { user.rclone(&["lsf", "@:"]) } else { user.sftp("pwd\n") }),
    ];
    for (client, output) in clients {
        assert_ne!(output.code, 0, "{client}: {output:?}");
        assert!(output.stderr.contains(UNREACHED), "{client} does not show it: {output:?}");
        if client == "sftp" {
            assert_eq!(output.stderr.matches(UNREACHED).count(), 1, "{client} shows it more than once: {output:?}");
        }
    }
    world.router.wait_for_lines("told session=*user=\"alice\" requests=1 text=\"your server cannot be reached", 1);
    world.router.wait_for_line("end session=*side=upstream stage=\"dial\" reason=\"127.0.0.1:*refused");
}

#[test]
fn psftp_which_shows_no_texts_of_answers_gets_the_reason_on_standard_error_at_the_end() {
    if !installed("psftp") {
        return;
    }
    let world = unreached();
    let output = world.proxied(USER).psftp(&"cd x\n".repeat(40));
    assert!(format!("{}{}", output.stdout, output.stderr).contains(UNREACHED), "{output:?}");
}

/// Opens a session of the raw client as [`USER`]'s record says.
fn open_raw(world: &World, port: u16) -> (Client, Channel) {
    let key = raw::Key::ed25519();
    let file = Key { private: world.folder.path().join("raw") };
    std::fs::write(file.public(), key.line()).unwrap();
    let mut route = world.route();
    route.retain(|(name, _)| *name != "port");
    route.push(("port", port.to_string()));
    world.store.put("raw", &[&file], &route);
    let mut client = Client::log_in(("127.0.0.1", world.router.port), "raw", &key).unwrap();
    let channel = client.open_sftp().unwrap();
    (client, channel)
}

/// INIT, or a request with one path, in its SFTP frame.
fn packet(kind: u8, number: u32) -> Vec<u8> {
    let mut body = vec![kind];
    put_u32(&mut body, number);
    if kind != 1 {
        put_string(&mut body, b"/some/path");
    }
    let mut packet = Vec::new();
    put_string(&mut packet, &body);
    packet
}

#[track_caller]
fn assert_status(packet: &[u8], id: u32, text: &str) {
    let mut reader = Reader::new(packet);
    assert_eq!((reader.byte("type").unwrap(), reader.u32("id").unwrap(), reader.u32("code").unwrap()), (101, id, 4));
    assert_eq!(String::from_utf8_lossy(reader.string("text").unwrap()), text);
}

#[test]
fn requests_sent_before_the_failure_and_after_it_are_answered_alike() {
    let world = World::with(Setup { settings: &[("UPSTREAM_EXCHANGE_TIMEOUT", "2")], ..Setup::default() });
    // Takes connections and says nothing.
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let (mut client, channel) = open_raw(&world, silent.local_addr().unwrap().port());
    let text = "the identity of your server could not be verified, nothing was sent to it; please tell your administrator";
    let sent: Vec<u8> = [packet(1, 3), packet(16, 5), packet(11, 6)].concat();
    // Split amid a request: the rest comes when the upstream has failed.
    let (before, after) = sent.split_at(sent.len() - 3);
    client.data(&channel, before).unwrap();
    let mut come = Replies { client: &mut client, channel: &channel, bytes: Vec::new() };
    assert_eq!(come.next(), [2, 0, 0, 0, 3]);
    assert_status(&come.next(), 5, text);
    come.client.data(&channel, after).unwrap();
    assert_status(&come.next(), 6, text);
    come.client.data(&channel, &packet(17, 7)).unwrap();
    assert_status(&come.next(), 7, text);
    client.eof(&channel).unwrap();
    until_closed(&mut client);
    client.close(&channel).unwrap();
    drop(client);
    world.router.wait_for_line("told session=1 user=\"raw\" requests=3 text=\"the identity");
    world.router.wait_for_line("end session=1 user=\"raw\"*side=upstream stage=\"trust\" reason=\"*up=0 ");
}

/// SFTP packets as they come, however they are put into messages.
struct Replies<'a> {
    client: &'a mut Client,
    channel: &'a Channel,
    bytes: Vec<u8>,
}

impl Replies<'_> {
    fn next(&mut self) -> Vec<u8> {
        loop {
            let mut reader = Reader::new(&self.bytes);
            if let Ok(packet) = reader.string("packet") {
                let packet = packet.to_vec();
                self.bytes.drain(..4 + packet.len());
                return packet;
            }
            let more = self.client.recv_data(self.channel).unwrap();
            assert!(!more.is_empty(), "the channel ended");
            self.bytes.extend(more);
        }
    }
}

/// What comes until the router has closed the channel.
fn until_closed(client: &mut Client) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    while packets.last().is_none_or(|last: &Vec<u8>| last[0] != CHANNEL_CLOSE) {
        packets.push(client.recv().unwrap());
    }
    packets
}

#[test]
fn a_client_that_says_nothing_or_asks_without_end_is_not_kept() {
    let world = World::start();
    let (mut client, channel) = open_raw(&world, free_port());
    let started = Instant::now();
    let said = until_closed(&mut client);
    let took = started.elapsed();
    assert!((Duration::from_secs(4)..Duration::from_secs(9)).contains(&took), "{took:?}");
    assert!(said.iter().any(|packet| packet.windows(UNREACHED.len()).any(|part| part == UNREACHED.as_bytes())), "{said:?}");
    assert!(said.iter().any(|packet| packet.ends_with(b"exit-status\0\0\0\0\x01")), "{said:?}");
    client.close(&channel).unwrap();
    drop(client);
    world.router.wait_for_line("told session=1 user=\"raw\" requests=0 ");

    let (mut client, channel) = open_raw(&world, free_port());
    let started = Instant::now();
    client.data(&channel, &packet(1, 3)).unwrap();
    (0..100).for_each(|id| drop(client.data(&channel, &packet(17, id))));
    until_closed(&mut client);
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    client.close(&channel).unwrap();
    drop(client);
    world.router.wait_for_line("told session=2 user=\"raw\" requests=16 ");
}

#[test]
fn maintenance_refuses_new_logins_with_the_operators_words_and_leaves_running_sessions_alone() {
    for store in [Kind::File, Kind::Redis] {
        let world = World::with(Setup { store, ..Setup::default() });
        world.add_user("bob", &keys::ed25519("bob"));
        let shown = |text: &str| assert_eq!(world.command(&["maintenance", "show"]).success().trim(), text);
        shown("off");
        let mut running = world.proxied(USER).session();
        running.ask("pwd", "Remote working directory");

        world.command(&["maintenance", "on", "the disks are changed, back at 14:00"]).success();
        for user in [USER, "bob"] {
            assert_maintained(&world, user, "the disks are changed, back at 14:00");
        }
        running.ask("pwd", "Remote working directory");
        assert_eq!(running.end(), 0);
        world.command(&["maintenance", "off"]).success();
        world.proxied(USER).sftp("pwd\n").success();
        shown("off");

        world.command(&["maintenance", "on", "we are moving you", "--user", "bob"]).success();
        shown("USER  MESSAGE\nbob   we are moving you");
        assert_maintained(&world, "bob", "we are moving you");
        world.proxied(USER).sftp("pwd\n").success();
        world.command(&["maintenance", "off", "--user", "bob"]).success();
        world.proxied("bob").sftp("pwd\n").success();
        shown("off");

        for (arguments, fault) in [
            (&["on", "two\nlines"][..], "one line"),
            (&["on", " "], "empty"),
            (&["on", "x", "--user", "nobody"], "no user \"nobody\""),
            (&["off", "--user", "nobody"], "no user \"nobody\""),
        ] {
            let output = world.command(&[&["maintenance"], arguments].concat());
            assert!(output.code == 2 && output.stderr.contains(fault), "{arguments:?}: {output:?}");
        }
        shown("off");
    }
}

#[track_caller]
fn assert_maintained(world: &World, user: &str, message: &str) {
    let output = world.proxied(user).sftp("pwd\n");
    assert!(
        output.code != 0 && output.stderr.lines().any(|line| line.ends_with(&format!(": maintenance: {message}"))),
        "{output:?}"
    );
    let end = format!("end session=*user=\"{user}\"*side=router stage=\"find\" reason=\"maintenance: {message}\"");
    world.router.wait_for_line(&end);
}

#[test]
fn a_stranger_learns_nothing_of_a_maintenance() {
    let world = World::start();
    world.command(&["maintenance", "on", "secret plans"]).success();
    let output = world.proxied_with(USER, &keys::ed25519("stranger")).sftp("pwd\n");
    assert!(output.code != 0 && !output.stderr.contains("secret"), "{output:?}");
    assert!(output.stderr.contains("Permission denied"), "{output:?}");
}

#[test]
fn what_redis_has_as_a_message_closes_the_router_whatever_it_is() {
    let mut world = World::with(Setup { store: Kind::Redis, ..Setup::default() });
    world.store.redis().set("pysftpproxy:maintenance", &format!("a\nb {}", "x".repeat(1000)));
    let output = world.proxied(USER).sftp("pwd\n");
    assert!(output.code != 0 && output.stderr.contains(": maintenance: a b xxx"), "{output:?}");
    assert!(!output.stderr.contains(&"x".repeat(300)), "{output:?}");
}

/// The requests of WinSCP, which is no program for this machine: as its source has them (source/core/SftpFileSystem.cpp and Terminal.cpp of
/// 2024), one after the other, each with its own type in the lowest byte of its id. It shows the text of a STATUS whatever its code is, unless
/// it was ready for that code.
struct WinScp {
    sftp: Sftp,
    version: Vec<u8>,
    asked: u32,
}

impl WinScp {
    const OPEN: u8 = 3;
    const CLOSE: u8 = 4;
    const LSTAT: u8 = 7;
    const OPENDIR: u8 = 11;
    const READDIR: u8 = 12;
    const REALPATH: u8 = 16;

    /// Says INIT: version 3 to a server that it does not know, 6 to one that it knows or when it is told so.
    fn start(target: &Target, version: u8) -> Self {
        let sftp = Sftp::start_with(target, version);
        let version = sftp.reply().expect("VERSION");
        Self { sftp, version, asked: 0 }
    }

    /// Sends a request that begins with a text, and takes its answer.
    #[track_caller]
    fn ask(&mut self, kind: u8, text: &[u8], rest: &[u8]) -> Vec<u8> {
        self.asked += 1;
        let id = self.asked << 8 | u32::from(kind);
        let mut body = vec![kind];
        put_u32(&mut body, id);
        put_string(&mut body, text);
        body.extend(rest);
        self.sftp.send(&body).expect("a session that takes requests");
        let reply = self.sftp.reply().expect("an answer");
        assert_eq!(reply[1..5], id.to_be_bytes(), "{reply:?}");
        reply
    }

    /// What it shows when a request is answered like this: the code and the server's text.
    #[track_caller]
    fn shows(reply: &[u8]) -> (u32, String) {
        let status = reply::status(reply).expect("a STATUS");
        (status.code, String::from_utf8(status.message.to_vec()).expect("UTF-8"))
    }

    /// A login that goes well, up to the list in its window; every answer.
    #[track_caller]
    fn log_in(target: &Target, version: u8) -> Vec<Vec<u8>> {
        let mut this = Self::start(target, version);
        let mut replies = vec![this.version.clone()];
        if this.version.windows(18).any(|part| part == b"limits@openssh.com") {
            replies.push(this.ask(EXTENDED, b"limits@openssh.com", b""));
        }
        let real = this.ask(Self::REALPATH, b".", b"");
        let folder = reply::Name::read(&real).expect("a NAME").name.to_vec();
        replies.extend([real, this.ask(Self::LSTAT, &folder, b"")]);
        let opened = this.ask(Self::OPENDIR, &folder, b"");
        assert_eq!(opened[0], HANDLE, "{opened:?}");
        let handle = reply::handle(&opened).expect("a handle").to_vec();
        replies.push(opened);
        while replies.last().is_some_and(|last| [HANDLE, NAME].contains(&last[0])) {
            replies.push(this.ask(Self::READDIR, &handle, b""));
        }
        replies.push(this.ask(Self::CLOSE, &handle, b""));
        this.sftp.end();
        replies
    }
}

#[test]
fn what_winscp_asks_at_its_login_is_answered_as_the_upstream_answers_it() {
    let world = World::start();
    std::fs::write(world.sshd.files.join("in the list"), "").unwrap();
    // The time of the last access is in the answers, and changes once.
    WinScp::log_in(&world.direct(), 3);
    for version in [3, 6] {
        let (direct, routed) = (WinScp::log_in(&world.direct(), version), WinScp::log_in(&world.proxied(USER), version));
        assert_eq!(direct, routed, "INIT {version}");
        assert!(routed.concat().windows(11).any(|part| part == b"in the list"), "INIT {version}: {routed:?}");
        assert_eq!(WinScp::shows(routed.last().unwrap()).0, reply::OK);
    }
}

#[test]
fn winscp_is_given_the_reason_with_whatever_it_asks_at_its_login() {
    let world = unreached();
    let bob = keys::ed25519("bob");
    world.add_user("bob", &bob);
    world.command(&["maintenance", "on", "zurück um 14:00", "--user", "bob"]).success();
    for (user, text) in [(USER, UNREACHED), ("bob", "maintenance: zurück um 14:00")] {
        for version in [3, 6] {
            let mut client = WinScp::start(&world.proxied(user), version);
            // Nothing is announced that it would ask for before it asks for a directory.
            assert_eq!(client.version, [reply::VERSION, 0, 0, 0, 3]);
            // The directory that the user was in last, the start directory for the title, once more for the list, the list.
            for (kind, path) in
                [(WinScp::REALPATH, "/last"), (WinScp::REALPATH, "."), (WinScp::REALPATH, "."), (WinScp::OPENDIR, "/")]
            {
                assert_eq!(
                    WinScp::shows(&client.ask(kind, path.as_bytes(), b"")),
                    (FAILURE, text.into()),
                    "INIT {version}: {path}"
                );
            }
            client.sftp.end();
        }
        world.router.wait_for_lines(&format!("told session=*user=\"{user}\" requests=4 text=\"{text}\""), 2);
    }
}

#[test]
fn winscp_is_given_the_reason_why_a_user_may_not_upload() {
    let world = World::start();
    let mut route = world.route();
    route.push(("read_only", "yes".to_owned()));
    world.store.put(USER, &[&keys::ed25519(USER)], &route);
    let mut client = WinScp::start(&world.proxied(USER), 3);
    // Write, create, truncate; no attributes. A big file gets its name when it is complete.
    let answer = client.ask(WinScp::OPEN, b"big.iso.filepart", &[0, 0, 0, 0x1a, 0, 0, 0, 0]);
    assert_eq!(WinScp::shows(&answer), (PERMISSION_DENIED, "read-only: open (create) is not allowed".into()));
    client.sftp.end();
    assert!(!world.sshd.files.join("big.iso.filepart").exists());
}
