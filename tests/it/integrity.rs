//! One flipped bit on the way, on either leg and in either direction, with every cipher that is offered: the session ends, and nothing that is
//! altered is delivered. `scripts/integrity` makes it long.

use std::ops::Range;
use std::path::Path;

use sftpproxy::wire::Reader;

use crate::random::Random;
use crate::raw::Transport;
use crate::world::clients::Target;
use crate::world::keys::{Key, ed25519};
use crate::world::process::{LIMIT, matches, until};
use crate::world::sshd::Sshd;
use crate::world::toxic::{Direction, Relay, Strike, Toxic};
use crate::world::tree::small_file;
use crate::world::{Setup, World, library, route_to};

/// Ciphers that `SFTPPROXY_CIPHERS` could name besides those that are offered when it names none.
const OTHERS: [&str; 3] = ["aes256-cbc", "aes192-cbc", "aes128-cbc"];

/// MACs for ciphers that need one; each cipher gets another one first.
const MACS: [&str; 4] = ["hmac-sha2-256-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-512"];

/// Bytes of each file, of which one is put and another one got.
const SIZE: usize = 300_000;

/// What of a connection the flipped bit is in. Pieces that come begin with a packet and end with one, as a rule.
#[derive(Debug, Clone, Copy)]
enum Part {
    /// What a KEXINIT says.
    Exchange,
    /// A packet's length, or what is encrypted in its place. The other side may wait for more, until a time limit.
    Length,
    /// The length of the padding, likewise.
    Padding,
    Middle,
    /// The end of a tag or MAC.
    Tag,
}

impl Part {
    /// The part for the bit of this number out of `count`; a single one is elsewhere in each suite, and waits for no time limit.
    fn of(number: usize, count: usize, suite: usize) -> Self {
        match number {
            0 if count == 1 => [Self::Exchange, Self::Middle, Self::Tag, Self::Padding][suite % 4],
            _ if number * 10 < count => Self::Exchange,
            _ => [Self::Middle, Self::Tag, Self::Padding, Self::Length][number % 4],
        }
    }

    /// Before which byte of a direction it is, by what passed when nothing was flipped.
    fn place(self, relay: &Relay, direction: Direction, random: &mut Random) -> usize {
        let pieces = relay.pieces(direction);
        let kexinit = kexinit(&relay.said(direction));
        // Behind the key exchange, and well before the end, when everything is delivered: no two connections have the very same bytes.
        let total = pieces.last().expect("a connection with bytes");
        let first = pieces.iter().position(|&end| end > kexinit.end + 2000).expect("more than a key exchange");
        let last = pieces.iter().rposition(|&end| end + 4000 < *total).expect("more than an end");
        let number = first + random.below(last - first);
        let (start, end) = (pieces[number - 1], pieces[number]);
        match self {
            Self::Exchange => kexinit.start + random.below(kexinit.len()),
            Self::Length => start + random.below(4),
            Self::Padding => start + 4,
            Self::Middle => (start + end) / 2,
            Self::Tag => end - 1,
        }
    }
}

/// Where the first packet behind an identification has what it says; its padding is protected by nothing, and means nothing.
fn kexinit(said: &[u8]) -> Range<usize> {
    let start = said.iter().position(|&byte| byte == b'\n').expect("an identification") + 1;
    let length = u32::from_be_bytes(said[start..start + 4].try_into().unwrap()) as usize;
    start + 5..start + 4 + length - usize::from(said[start + 4])
}

/// One leg and direction: who uses it, and the relay that is in its way.
struct Way {
    leg: &'static str,
    user: String,
    key: Key,
    relay: Relay,
    direction: Direction,
    /// Sessions so far.
    sessions: usize,
}

impl Way {
    fn name(&self) -> String {
        format!("{} leg, what the {} says", self.leg, if self.direction == Direction::Up { "client" } else { "server" })
    }

    /// Puts and gets, with a bit of this byte flipped. Returns the exit code, and the router's end line.
    fn run(&mut self, world: &World, files: &Path, place: Option<usize>, options: &[String]) -> (i32, String) {
        self.relay.plan(place.map(|place| Strike::new(Toxic::Flip((place % 8) as u8), self.direction, place)));
        let mut target: Target = world.proxied_with(&self.user, &self.key);
        target.options.extend_from_slice(options);
        if self.leg == "downstream" {
            target.port = self.relay.port;
        }
        let (there, got) = (format!("there-{}", self.user), format!("got-{}", self.user));
        for path in [files.join(&there), world.client().join(&got)] {
            let _ = std::fs::remove_file(path);
        }
        let seen = world.router.lines().len();
        let code = target.sftp(&format!("put source {there}\nget source {got}\n")).code;
        let end = if self.leg == "downstream" {
            // Not an earlier one: ports come again.
            let pattern = format!("end session=*peer=127.0.0.1:{} ", self.relay.goes_from());
            let end = || world.router.lines().into_iter().skip(seen).find(|line| matches(line, &pattern));
            assert!(until(LIMIT, || end().is_some()), "no line with {pattern}");
            end().unwrap()
        } else {
            self.sessions += 1;
            let pattern = format!("end session=*user=\"{}\"", self.user);
            world.router.wait_for_lines(&pattern, self.sessions).remove(self.sessions - 1)
        };
        (code, end)
    }

    /// What is delivered is the beginning of what was sent.
    fn check(&self, world: &World, files: &Path, what: &str) {
        let source = std::fs::read(world.client().join("source")).unwrap();
        for path in [files.join(format!("there-{}", self.user)), world.client().join(format!("got-{}", self.user))] {
            let delivered = std::fs::read(&path).unwrap_or_default();
            assert!(source.starts_with(&delivered), "{what}: altered bytes in {}", path.display());
        }
    }
}

fn number(name: &str, otherwise: usize) -> usize {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name}: no number")))
}

/// The ciphers that a router offers whose operator has chosen none, in its order.
fn offered() -> Vec<String> {
    let world = World::with(Setup { settings: &[("CIPHERS", "")], ..Setup::default() });
    let mut transport = Transport::dial(("127.0.0.1", world.router.port)).unwrap();
    transport.send_banner("SSH-2.0-raw").unwrap();
    transport.recv_banner().unwrap();
    let kexinit = transport.recv_packet().unwrap();
    let mut reader = Reader::new(&kexinit[17..]);
    let lists = [(); 3].map(|()| String::from_utf8(reader.string("list").unwrap().to_vec()).unwrap());
    lists[2].split(',').map(str::to_owned).collect()
}

/// Each cipher with each MAC that it shall be tried with.
fn suites(ciphers: &[String], all: bool) -> Vec<(&str, &'static str)> {
    let mut suites = Vec::new();
    for (number, cipher) in ciphers.iter().enumerate() {
        let aead = cipher.contains('@');
        let macs = if aead || !all { 1 } else { MACS.len() };
        suites.extend((0..macs).map(|mac| (cipher.as_str(), MACS[(number + mac) % MACS.len()])));
    }
    suites
}

#[test]
fn one_flipped_bit_ends_the_session_with_every_cipher_on_both_legs_in_both_directions_and_nothing_altered_is_delivered() {
    let (places, seed, all) = (number("INTEGRITY_PLACES", 1), number("INTEGRITY_SEED", 1), number("INTEGRITY_ALL", 0) == 1);
    let mut ciphers = offered();
    ciphers.extend(OTHERS.iter().filter(|_| all).map(|&cipher| cipher.to_owned()));
    let list = ciphers.join(",");
    let settings = [
        ("CIPHERS", list.as_str()),
        ("UPSTREAM_CIPHERS", &list),
        ("UPSTREAM_MACS", &MACS.join(",")),
        ("MACS", &MACS.join(",")),
        ("IDLE_TIMEOUT", "10"),
        ("STALL_TIMEOUT", "10"),
        ("UPSTREAM_EXCHANGE_TIMEOUT", "10"),
    ];
    let world = World::with(Setup { settings: &settings, ..Setup::default() });
    small_file(&world.client().join("source"), SIZE, 5);
    let users = ["downstream", "upstream"].map(|leg| [(leg, Direction::Up), (leg, Direction::Down)]).concat();
    let mut sessions = [0; 4];
    for (suite, (cipher, mac)) in suites(&ciphers, all).into_iter().enumerate() {
        let options = [format!("Ciphers={cipher}"), format!("MACs={mac}")];
        let lines = options.each_ref().map(|option| option.replace('=', " "));
        let folder = world.folder.path().join(format!("upstream-{suite}"));
        let sshd = Sshd::start(&folder, "upstream", &lines.each_ref().map(String::as_str));
        std::fs::copy(world.client().join("source"), sshd.files.join("source")).unwrap();
        let ways = users.iter().map(|&(leg, direction)| {
            let is_downstream = leg == "downstream";
            let relay = Relay::start(if is_downstream { world.router.port } else { sshd.port });
            let user = format!("{leg}-{direction:?}").to_lowercase();
            let key = ed25519(&user);
            let mut route = route_to(&sshd);
            route.retain(|(name, _)| *name != "port");
            route.push(("port", if is_downstream { sshd.port } else { relay.port }.to_string()));
            world.store.put(&user, &[&key], &route);
            Way { leg, user, key, relay, direction, sessions: 0 }
        });
        let ways: Vec<_> = ways.collect();
        std::thread::scope(|scope| {
            for ((number, mut way), sessions) in (1..).zip(ways).zip(&mut sessions) {
                let random = Random(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul((seed * 1000 + suite * 4 + number) as u64) | 1);
                let (world, files, options) = (&world, &sshd.files, &options);
                scope.spawn(move || {
                    way.sessions = *sessions;
                    flip(world, files, (&mut way, options), (suite, cipher, mac), places, random);
                    *sessions = way.sessions;
                });
            }
        });
    }
}

/// Flips a bit at each of the places, and prints a line.
fn flip(
    world: &World,
    files: &Path,
    (way, options): (&mut Way, &[String]),
    (suite, cipher, mac): (usize, &str, &str),
    places: usize,
    mut random: Random,
) {
    let options = if way.leg == "downstream" { options } else { &[] };
    let (code, end) = way.run(world, files, None, options);
    assert_eq!(code, 0, "{cipher}, {mac}, {}, without a flip: {end}", way.name());
    let parts = (0..places).map(|number| Part::of(number, places, suite));
    let parts: Vec<_> = parts.map(|part| (part, part.place(&way.relay, way.direction, &mut random))).collect();
    let (mut at_once, mut by_limit) = (0, 0);
    for (part, place) in parts {
        let (code, end) = way.run(world, files, Some(place), options);
        let what = format!("{cipher}, {mac}, {}, {part:?} at {place}, seen from {}", way.name(), library());
        assert!(way.relay.struck().is_some(), "{what}: nothing was flipped");
        way.check(world, files, &what);
        assert_ne!(code, 0, "{what}: the client is content: {end}");
        assert!(end.contains(&format!("side={} ", way.leg)), "{what}: {end}");
        *(if end.contains("_TIMEOUT") { &mut by_limit } else { &mut at_once }) += 1;
    }
    let mac = if cipher.contains('@') { "" } else { mac };
    println!(
        "| {cipher} {mac} | {} | {places} flipped | {at_once} ended at once, {by_limit} at a time limit | 0 altered |",
        way.name()
    );
}
