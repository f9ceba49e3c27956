//! What a client with a good key, or none, can do to the program beyond logging in: channels, windows, floods, garbage. Whatever it does,
//! memory and processor time stay bounded, nothing reaches an upstream that was not sent, and the next client is served.

use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use sftpproxy::wire::{put_string, put_u32};

use nix::sys::signal::Signal;

use crate::contract::children;
use crate::login::admit;
use crate::raw::transport::closed;
use crate::raw::{
    CHANNEL_DATA, CHANNEL_EXTENDED_DATA, CHANNEL_OPEN, Channel, Client, Key, Offer, REQUEST_FAILURE, Transport, USERAUTH_SUCCESS,
};
use crate::world::process::{LIMIT, signal, until};
use crate::world::{Setup, USER, World};

/// Bytes that one hostile session may cost.
pub const MOST: u64 = 60 << 20;

/// INIT of version 3.
const INIT: [u8; 9] = [0, 0, 0, 5, 1, 0, 0, 0, 3];

/// A world that lets the hostile client's key in, as mallory.
pub struct Site {
    pub world: World,
    pub key: Key,
}

impl Site {
    pub fn start() -> Self {
        Self::with(&[])
    }

    pub fn with(settings: &[(&str, &str)]) -> Self {
        let world = World::with(Setup { settings, ..Setup::default() });
        let key = Key::ed25519();
        admit(&world, "mallory", &key);
        Self { world, key }
    }

    pub fn port(&self) -> (&'static str, u16) {
        ("127.0.0.1", self.world.router.port)
    }

    pub fn log_in(&self) -> Client {
        Client::log_in(self.port(), "mallory", &self.key).unwrap()
    }

    /// A session whose sftp has answered.
    pub fn sftp(&self) -> (Client, Channel) {
        let mut client = self.log_in();
        let channel = client.open_sftp().unwrap();
        client.data(&channel, &INIT).unwrap();
        assert_eq!(client.recv_sftp(&channel).unwrap()[0], 2, "VERSION");
        (client, channel)
    }

    pub fn end(&self, session: usize) -> String {
        self.world.router.wait_for_line(&format!("end session={session} "))
    }

    pub fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most memory that it has had so far.
    pub fn peak(&self) -> u64 {
        self.status("VmHWM:")
    }

    fn status(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.world.router.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).expect("a process that lives");
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
    }

    /// Processor time so far, in ticks of 10 ms.
    fn ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.world.router.pid())).unwrap();
        let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    /// The program comes to rest: it uses next to no processor time during a second of real time.
    #[track_caller]
    pub fn rests(&self, what: &str) {
        let rested = until(LIMIT, || {
            let before = self.ticks();
            until(Duration::from_secs(1), || false);
            self.ticks() - before < 10
        });
        assert!(rested, "{what}: the program does not come to rest");
    }

    #[track_caller]
    pub fn serves_others(&self) {
        self.world.proxied(USER).sftp("pwd\n").success();
    }
}

/// A whole SFTP packet.
fn packet(kind: u8, id: u32, fields: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut body = vec![kind];
    put_u32(&mut body, id);
    fields(&mut body);
    let mut packet = Vec::new();
    put_string(&mut packet, &body);
    packet
}

fn open_file(client: &mut Client, channel: &Channel, name: &str, flags: u32) -> Vec<u8> {
    let open = packet(3, 1, |body| {
        put_string(body, name.as_bytes());
        put_u32(body, flags);
        put_u32(body, 0);
    });
    client.data(channel, &open).unwrap();
    let reply = client.recv_sftp(channel).unwrap();
    assert_eq!(reply[0], 102, "HANDLE");
    reply[9..].to_vec()
}

#[track_caller]
fn still_speaks_sftp(client: &mut Client, channel: &Channel) {
    client.data(channel, &packet(16, 77, |body| put_string(body, b"."))).unwrap();
    let reply = client.recv_sftp(channel).unwrap();
    assert_eq!(reply[..5], [104, 0, 0, 0, 77], "NAME");
}

/// A string, then what else.
fn string(text: &str, rest: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_string(&mut bytes, text.as_bytes());
    bytes.extend_from_slice(rest);
    bytes
}

/// Requests on a channel that are not the subsystem sftp.
fn channel_requests() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("shell", vec![]),
        ("exec", string("id", &[])),
        ("pty-req", string("xterm", &[0; 20])),
        ("env", string("LD_PRELOAD", &string("/tmp/evil.so", &[]))),
        ("x11-req", [&[0][..], &string("MIT-MAGIC-COOKIE-1", &string("00", &[0; 4]))].concat()),
        ("auth-agent-req@openssh.com", vec![]),
        ("subsystem", string("shell", &[])),
        ("subsystem", string("sftp2", &[])),
        ("subsystem", string("", &[])),
        ("unheard-of", vec![]),
    ]
}

#[test]
fn every_request_but_sftp_is_refused_and_the_session_goes_on() {
    let site = Site::start();
    let mut client = site.log_in();
    let channel = client.open("session", 1 << 20, 1 << 15, &[]).unwrap().unwrap();
    for (name, payload) in channel_requests() {
        assert!(!client.request(&channel, name, &payload).unwrap(), "{name} before sftp");
    }
    assert!(client.subsystem(&channel, "sftp").unwrap());
    client.data(&channel, &INIT).unwrap();
    assert_eq!(client.recv_sftp(&channel).unwrap()[0], 2, "VERSION");
    for (name, payload) in channel_requests() {
        assert!(!client.request(&channel, name, &payload).unwrap(), "{name} beside sftp");
        still_speaks_sftp(&mut client, &channel);
    }
    assert!(!client.subsystem(&channel, "sftp").unwrap(), "a second subsystem");
    still_speaks_sftp(&mut client, &channel);
}

#[test]
fn no_second_channel_and_no_forwarding_is_opened_and_the_session_goes_on() {
    let site = Site::start();
    let (mut client, channel) = site.sftp();
    let to = string("127.0.0.1", &[&22u32.to_be_bytes()[..], &string("127.0.0.1", &[0; 4])].concat());
    for (kind, extra) in [
        ("session", vec![]),
        ("direct-tcpip", to.clone()),
        ("forwarded-tcpip", to.clone()),
        ("x11", string("127.0.0.1", &[0; 4])),
        ("auth-agent@openssh.com", vec![]),
        ("direct-streamlocal@openssh.com", string("/run/docker.sock", &string("", &[0; 4]))),
        ("tun@openssh.com", vec![0; 8]),
        ("unheard-of", vec![]),
    ] {
        assert!(client.open(kind, 1 << 20, 1 << 15, &extra).unwrap().is_err(), "{kind}");
        still_speaks_sftp(&mut client, &channel);
    }
    for (name, payload) in [
        ("tcpip-forward", string("127.0.0.1", &[0; 4])),
        ("cancel-tcpip-forward", string("127.0.0.1", &[0; 4])),
        ("streamlocal-forward@openssh.com", string("/tmp/x", &[])),
        ("unheard-of", vec![]),
    ] {
        client.global_request(name, true, &payload).unwrap();
        client.expect(REQUEST_FAILURE).unwrap_or_else(|error| panic!("{name}: {error}"));
        still_speaks_sftp(&mut client, &channel);
    }
}

#[test]
fn ssh_gets_no_shell_no_command_and_no_tunnel() {
    let site = Site::start();
    let target = site.world.proxied(USER);
    for arguments in [&["id"][..], &[], &["-N", "-o", "ExitOnForwardFailure=yes", "-R", "0:127.0.0.1:22"]] {
        let output = if arguments.first() == Some(&"-N") {
            // Options stand before the host.
            target.clone().with_option("ExitOnForwardFailure=yes").with_option("RemoteForward=0 127.0.0.1:22").ssh(&["id"])
        } else {
            target.ssh(arguments)
        };
        assert_ne!(output.code, 0, "{arguments:?}: {output:?}");
        assert!(!output.stdout.contains("uid="), "{output:?}");
    }
    assert_ne!(target.scp(&["-O", "@:nothing", "."]).code, 0, "scp by its own protocol");
    site.serves_others();
}

#[test]
fn a_thousand_refused_requests_end_the_session() {
    let site = Site::start();
    let requests = |client: &mut Client, channel: &Channel, count: usize| {
        (0..count).try_for_each(|_| client.send_request(channel, "shell", false, &[]))
    };
    let (mut client, channel) = site.sftp();
    requests(&mut client, &channel, 50).unwrap();
    still_speaks_sftp(&mut client, &channel);
    let _ = requests(&mut client, &channel, 950);
    client.until_closed().unwrap();
    let end = site.end(1);
    assert!(end.contains("refused requests") && end.contains("side=downstream"), "{end}");
    // The same before sftp was asked for, and with channels.
    let mut client = site.log_in();
    let channel = client.open("session", 1 << 20, 1 << 15, &[]).unwrap().unwrap();
    let _ = requests(&mut client, &channel, 1000);
    client.until_closed().unwrap();
    assert!(site.end(2).contains("refused requests"));
    let (mut client, _) = site.sftp();
    let mut open = vec![CHANNEL_OPEN];
    put_string(&mut open, b"session");
    [9, 1 << 20, 1 << 15].iter().for_each(|&field| put_u32(&mut open, field));
    let _ = (0..1000).try_for_each(|_| client.send_packet(&open));
    client.until_closed().unwrap();
    assert!(site.end(3).contains("refused requests"));
    site.serves_others();
}

#[test]
fn requests_that_libssh_refuses_by_itself_cost_no_memory() {
    let site = Site::start();
    let (mut client, channel) = site.sftp();
    let before = site.memory();
    for _ in 0..5_000 {
        let to = string("h", &[&22u32.to_be_bytes()[..], &string("h", &[0; 4])].concat());
        let outcome = client.open("direct-tcpip", 1, 1, &to);
        let Ok(opened) = outcome else { break };
        assert!(opened.is_err());
        if client.request(&channel, "unheard-of", &[7; 1000]).is_err() {
            break;
        }
    }
    assert!(site.memory() < before + (16 << 20), "{} bytes more", site.memory() - before);
    drop(client);
    site.serves_others();
}

/// Asks for 256 MiB of a file and reads nothing.
pub fn download_unread(site: &Site, window: u32) -> Client {
    let file = std::fs::File::create(site.world.sshd.files.join("big")).unwrap();
    file.set_len(300 << 20).unwrap();
    file.write_all_at(b"end", (300 << 20) - 3).unwrap();
    let mut client = site.log_in();
    let channel = client.open("session", window, 1 << 15, &[]).unwrap().unwrap();
    assert!(client.subsystem(&channel, "sftp").unwrap());
    client.data(&channel, &INIT).unwrap();
    assert_eq!(client.recv_sftp(&channel).unwrap()[0], 2, "VERSION");
    let handle = open_file(&mut client, &channel, "big", 1);
    let reads: Vec<u8> = (0..1024u64).flat_map(|number| read_at(number as u32, &handle, number << 18)).collect();
    for piece in reads.chunks(30_000) {
        client.data(&channel, piece).unwrap();
    }
    assert!(window < 300_000 || until(LIMIT, || waiting_for(&client) > 256 << 10), "nothing waits to be read");
    client
}

/// Bytes that the router has given its socket towards a client and that the client has not taken (proc_net_tcp(5), `tx_queue`).
fn waiting_for(client: &Client) -> usize {
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let to = format!("0100007F:{:04X}", client.socket().local_addr().unwrap().port());
    let line = sockets.lines().find(|line| line.split_whitespace().nth(2) == Some(&to));
    let queues = line.and_then(|line| line.split_whitespace().nth(4)?.split_once(':'));
    queues.map_or(0, |(waiting, _)| usize::from_str_radix(waiting, 16).unwrap())
}

fn read_at(id: u32, handle: &[u8], offset: u64) -> Vec<u8> {
    packet(5, id, |body| {
        put_string(body, handle);
        body.extend(offset.to_be_bytes());
        put_u32(body, 1 << 18);
    })
}

#[test]
fn a_client_with_the_largest_window_that_never_reads_costs_bounded_memory_and_no_time() {
    let site = Site::start();
    let before = site.memory();
    let client = download_unread(&site, u32::MAX);
    site.rests("a download that nobody reads");
    let after = site.memory();
    assert!(after < before + MOST, "{} MiB more", (after - before) >> 20);
    site.serves_others();
    drop(client);
}

#[test]
fn a_client_without_window_costs_bounded_memory_and_no_time() {
    let site = Site::start();
    let before = site.memory();
    let client = download_unread(&site, 4096);
    site.rests("a download without window");
    let after = site.memory();
    assert!(after < before + MOST, "{} MiB more", (after - before) >> 20);
    drop(client);
}

#[test]
fn a_window_that_opens_byte_by_byte_gets_every_byte() {
    let site = Site::start();
    let mut client = site.log_in();
    let channel = client.open("session", 0, 1 << 15, &[]).unwrap().unwrap();
    assert!(client.subsystem(&channel, "sftp").unwrap());
    client.data(&channel, &INIT).unwrap();
    let mut bytes = Vec::new();
    while bytes.len() < 4 || bytes.len() < 4 + u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize {
        client.adjust(&channel, 1).unwrap();
        let more = client.recv_data(&channel).unwrap();
        assert_eq!(more.len(), 1, "more than the window");
        bytes.extend(more);
    }
    assert!(bytes.len() > 50 && bytes[4] == 2, "VERSION with extensions: {bytes:?}");
}

#[test]
fn a_largest_packet_of_one_byte_works_and_one_of_none_ends_or_waits_without_spinning() {
    // CVE-2026-59843: libssh divided by it, or went round for ever.
    let site = Site::with(&[("LOGIN_TIMEOUT", "5")]);
    let mut client = site.log_in();
    let channel = client.open("session", 1 << 20, 1, &[]).unwrap().unwrap();
    assert!(client.subsystem(&channel, "sftp").unwrap());
    client.data(&channel, &INIT).unwrap();
    assert_eq!(client.recv_sftp(&channel).unwrap()[0], 2, "VERSION");
    drop(client);
    let mut client = site.log_in();
    if let Ok(Ok(channel)) = client.open("session", 1 << 20, 0, &[])
        && client.subsystem(&channel, "sftp").is_ok()
    {
        let _ = client.data(&channel, &INIT);
        site.rests("a largest packet of 0");
    }
    drop(client);
    site.end(2);
    site.serves_others();
}

#[test]
fn data_beyond_the_window_end_the_session() {
    let site = Site::start();
    let mut client = site.log_in();
    let channel = client.open("session", 1 << 20, 1 << 15, &[]).unwrap().unwrap();
    // Nobody reads the channel before it is sftp: the window stays what it was.
    let piece = vec![0; 32_000];
    // libssh 0.10 takes what comes beyond it, and so does the program, up to a bound.
    let _ = (0..200).try_for_each(|_| client.data(&channel, &piece));
    client.until_closed().unwrap();
    let end = site.end(1);
    assert!(end.contains("side=downstream") && end.to_lowercase().contains("window"), "{end}");
    site.serves_others();
}

#[test]
fn data_beyond_the_window_of_an_upstream_that_stands_still_end_the_session() {
    let site = Site::start();
    let (mut client, channel) = site.sftp();
    let server = children(site.world.sshd.process.pid());
    server.iter().for_each(|&pid| signal(pid, Signal::SIGSTOP));
    let before = site.memory();
    // Requests that are whole, so that nothing but their number is wrong.
    let piece: Vec<u8> = (0..1000).flat_map(|id| packet(16, id, |body| put_string(body, &[b'/'; 17]))).collect();
    let _ = (0..4000).try_for_each(|_| client.data(&channel, &piece[..30_000]));
    let end = site.end(1);
    assert!(end.contains("side=downstream") && end.to_lowercase().contains("window"), "{end}");
    assert!(site.memory() < before + (24 << 20), "{} KiB more", (site.memory() - before) >> 10);
    server.iter().for_each(|&pid| signal(pid, Signal::SIGCONT));
}

#[test]
fn extended_data_of_a_client_are_not_taken_for_requests() {
    let site = Site::start();
    let (mut client, channel) = site.sftp();
    for kind in [1u32, 0, 7] {
        let make = packet(14, 5, |body| {
            put_string(body, b"evil");
            put_u32(body, 0);
        });
        let mut extended = kind.to_be_bytes().to_vec();
        put_string(&mut extended, &make);
        client.about(CHANNEL_EXTENDED_DATA, &channel, &extended).unwrap();
        still_speaks_sftp(&mut client, &channel);
    }
    assert!(!site.world.sshd.files.join("evil").exists());
    // Nor are they kept, however many come.
    let before = site.memory();
    let mut extended = 1u32.to_be_bytes().to_vec();
    put_string(&mut extended, &[7; 30_000]);
    for _ in 0..2_000 {
        client.about(CHANNEL_EXTENDED_DATA, &channel, &extended).unwrap();
    }
    still_speaks_sftp(&mut client, &channel);
    assert!(site.memory() < before + (16 << 20), "{} KiB more", (site.memory() - before) >> 10);
}

#[test]
fn a_flood_of_packets_that_mean_nothing_costs_no_memory_and_the_session_goes_on() {
    let site = Site::start();
    let (mut client, channel) = site.sftp();
    let before = site.memory();
    // The smallest ones in one piece: libssh handles the packets of a piece by recursion.
    let small: Vec<u8> = (0..20_000).flat_map(|_| client.seal(&[2, 0, 0, 0, 0])).collect();
    client.send_raw(&small).unwrap();
    for _ in 0..1_000 {
        client.ignore(&[7; 30_000]).unwrap();
    }
    still_speaks_sftp(&mut client, &channel);
    assert!(site.memory() < before + (16 << 20), "{} KiB more", (site.memory() - before) >> 10);
}

#[test]
fn a_flood_of_questions_whose_answers_are_never_read_costs_bounded_memory_and_no_time() {
    let site = Site::start();
    let (mut client, _) = site.sftp();
    let before = site.memory();
    client.set_patience(Duration::from_secs(2)).unwrap();
    let mut request = vec![80];
    put_string(&mut request, b"keepalive@openssh.com");
    request.push(1);
    let mut asked = 0;
    while asked < 1_000_000 {
        let piece: Vec<u8> = (0..1_000).flat_map(|_| client.seal(&request)).collect();
        if client.send_raw(&piece).is_err() {
            break;
        }
        asked += 1_000;
    }
    assert!(asked < 1_000_000, "the program never stopped listening");
    site.rests("a client that asks and does not read");
    assert!(site.memory() < before + MOST, "{} KiB more", (site.memory() - before) >> 10);
    site.serves_others();
    drop(client);
}

#[test]
fn who_does_not_speak_ssh_is_sent_away_in_time() {
    let site = Site::with(&[("LOGIN_TIMEOUT", "2")]);
    let line = [b"SSH-2.0-".as_slice(), &[b'A'; 100 << 10], b"\r\n"].concat();
    let endless = vec![b'x'; 200 << 10];
    let garbage: Vec<u8> = (0..50_000u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let cases: [(&str, &[u8]); 8] = [
        ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        ("a line of 100 KiB", &line),
        ("a line without end", &endless),
        ("garbage", &garbage),
        ("zeros", &[0; 5000]),
        ("SSH 1", b"SSH-1.5-old\r\n"),
        ("half a line", b"SSH-2.0-half"),
    ];
    for (number, (what, bytes)) in (1..).zip(cases) {
        let mut transport = Transport::dial(site.port()).unwrap();
        let _ = transport.send_raw(bytes);
        let mut rest = Vec::new();
        let read = std::io::Read::read_to_end(&mut transport.socket(), &mut rest);
        assert!(read.as_ref().map_or_else(closed, |_| true), "{what}: {read:?}");
        assert!(rest.starts_with(b"SSH-2.0-") || rest.is_empty(), "{what}");
        let end = site.end(number);
        assert!(end.contains("stage=\"exchange\"") && end.len() < 800, "{what}: {end}");
    }
    site.serves_others();
}

#[test]
fn garbage_instead_of_a_key_exchange_or_after_it_ends_the_session() {
    let site = Site::with(&[("LOGIN_TIMEOUT", "2")]);
    let mut transport = Transport::dial(site.port()).unwrap();
    transport.send_banner("SSH-2.0-raw").unwrap();
    transport.recv_banner().unwrap();
    transport.send_raw(&[0xff; 4096]).unwrap();
    transport.until_closed().unwrap();
    assert!(site.end(1).contains("stage=\"exchange\""));
    let mut client = Client::connect(site.port()).unwrap();
    client.socket().write_all(&[0xa5; 4096]).unwrap();
    client.until_closed().unwrap();
    let end = site.end(2);
    assert!(end.contains("stage=\"prove\"") && !end.contains("LOGIN_TIMEOUT"), "{end}");
    let (client, _) = site.sftp();
    client.socket().write_all(&[0xa5; 100_000]).unwrap_or(());
    let mut client = client;
    client.until_closed().unwrap();
    assert!(site.end(3).contains("stage=\"relay\""));
    site.serves_others();
}

#[test]
fn a_packet_that_has_no_place_in_a_key_exchange_ends_the_session_at_once() {
    let site = Site::with(&[("LOGIN_TIMEOUT", "20")]);
    for (number, kind) in (1..).zip([5u8, 50, USERAUTH_SUCCESS, CHANNEL_OPEN, CHANNEL_DATA]) {
        let mut transport = Transport::dial(site.port()).unwrap();
        let offer = Offer { injected: vec![vec![kind, 0, 0, 0, 0]], strict: number % 2 == 0, ..Offer::default() };
        assert!(transport.greet("SSH-2.0-raw", &offer).is_err(), "{kind}");
        let end = site.end(number);
        assert!(end.contains("stage=\"exchange\"") && !end.contains("LOGIN_TIMEOUT"), "{kind}: {end}");
    }
    site.serves_others();
}

#[test]
fn strict_key_exchange_is_offered_and_a_packet_amid_it_ends_the_session() {
    // CVE-2023-48795, "Terrapin".
    let site = Site::with(&[("LOGIN_TIMEOUT", "20")]);
    let mut transport = Transport::dial(site.port()).unwrap();
    transport.greet("SSH-2.0-raw", &Offer::default()).unwrap();
    let kexinit = String::from_utf8_lossy(&transport.server_kexinit).into_owned();
    assert!(kexinit.contains("kex-strict-s-v00@openssh.com"), "{kexinit}");
    drop(transport);
    for (number, injected) in [vec![2, 0, 0, 0, 0], vec![4, 0, 0, 0, 0, 0, 0, 0, 0, 0]].into_iter().enumerate() {
        let mut transport = Transport::dial(site.port()).unwrap();
        let offer = Offer { injected: vec![injected], ..Offer::default() };
        // libssh finds out when the client's NEWKEYS comes, after it has sent its own.
        let _ = transport.greet("SSH-2.0-raw", &offer);
        let end = site.end(number + 2);
        assert!(end.contains("stage=\"exchange\"") && !end.contains("LOGIN_TIMEOUT"), "{end}");
        assert!(Client::keyed(transport).service("ssh-userauth").is_err());
    }
    site.serves_others();
}

#[test]
fn weak_algorithms_and_bad_points_get_no_session() {
    let site = Site::with(&[("LOGIN_TIMEOUT", "5")]);
    let offer = Offer::default;
    for (what, offer) in [
        ("CBC", Offer { ciphers: "aes256-cbc".into(), ..offer() }),
        ("3DES", Offer { ciphers: "3des-cbc".into(), ..offer() }),
        ("no cipher", Offer { ciphers: "none".into(), ..offer() }),
        ("SHA-1 key exchange", Offer { kex: "diffie-hellman-group14-sha1".into(), ..offer() }),
        ("group 1", Offer { kex: "diffie-hellman-group1-sha1".into(), ..offer() }),
        ("SHA-1 host key", Offer { host_keys: "ssh-rsa".into(), ..offer() }),
        ("a point of zeros", Offer { point: Some(vec![0; 32]), ..offer() }),
        ("a point of 31 bytes", Offer { point: Some(vec![9; 31]), ..offer() }),
        ("a point of 10,000 bytes", Offer { point: Some(vec![9; 10_000]), ..offer() }),
    ] {
        let mut transport = Transport::dial(site.port()).unwrap();
        let error = transport.greet("SSH-2.0-raw", &offer).unwrap_err();
        assert!(error.kind() != ErrorKind::WouldBlock, "{what}: {error}");
        assert!(transport.session_id.is_empty(), "{what}");
    }
    site.serves_others();
}
