//! One table of what can be wrong with Redis. While it is: a new login is refused within the limits, with one line that says where and why, and
//! counted; a transfer that runs is whole in the end; the router's memory stays. After it: a login works again, and how soon is printed.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{LIMITS, assert_serves};
use crate::monitor;
use crate::world::clients::Session;
use crate::world::front::{Front, Mode};
use crate::world::process::{LIMIT, matches, resident, signal, until};
use crate::world::store::{RedisServer, Store};
use crate::world::tree::big_file;
use crate::world::{Kind, Setup, USER, World, keys};

/// What the router may need in KiB beyond what it had before a fault: a login's own needs, not an answer's.
const MOST_MORE: u64 = 64 * 1024;

/// A world with a transfer that runs, and with a front before its Redis if that is asked for.
struct Case {
    world: World,
    front: Front,
    metrics: u16,
    /// The transfer, and where it goes.
    transfer: Option<(Session, PathBuf)>,
}

impl Case {
    fn new(fronted: bool) -> Self {
        let limits = [("REDIS_CONNECT_TIMEOUT", "1"), ("REDIS_COMMAND_TIMEOUT", "1"), ("METRICS_ADDRESS", "127.0.0.1:0")];
        let settings: Vec<_> = LIMITS.into_iter().chain(limits).chain([("NODE_INTERVAL", "1")]).collect();
        let mut world = World::with(Setup { store: Kind::Redis, settings: &settings, ..Setup::default() });
        let front = Front::start(world.store.redis().port);
        if fronted {
            world.restart(&[("SFTPPROXY_REDIS_PORT", &front.port.to_string())]);
        }
        let metrics = monitor::port(&world);
        let mut case = Self { world, front, metrics, transfer: None };
        case.add_user();
        case.begin_transfer();
        case
    }

    /// With downloads that take a while.
    fn add_user(&self) {
        let mut route = self.world.route();
        route.push(("download_limit", "1024".to_owned()));
        self.world.store.put(USER, &[&keys::ed25519(USER)], &route);
    }

    fn begin_transfer(&mut self) {
        big_file(&self.world.sshd.files.join("big"), 6 * 1024 * 1024);
        let copy = self.world.folder.path().join("copy");
        let mut session = self.world.proxied(USER).session();
        session.say(&format!("get big {}", copy.display()));
        self.world.router.wait_for_line("open path=*/big");
        self.transfer = Some((session, copy));
    }

    #[track_caller]
    fn assert_transfer_is_whole(&mut self) {
        let (session, copy) = self.transfer.take().expect("a transfer that was begun");
        assert_eq!(session.end(), 0, "the transfer failed");
        let whole = std::fs::read(self.world.sshd.files.join("big")).unwrap();
        assert!(std::fs::read(copy).unwrap() == whole, "the transfer is not what was sent");
    }

    fn counted(&self, name: &str) -> f64 {
        monitor::series(self.metrics)[name]
    }

    #[track_caller]
    fn assert_refused(&self, name: &str, why: &str) {
        let failed = "sftpproxy_logins_total{outcome=\"failed\",reason=\"store\"}";
        let errors = "sftpproxy_store_errors_total{call=\"owner\"}";
        let (memory, seen) = (resident(self.world.router.pid()), self.world.router.lines().len());
        let (failed_before, errors_before, started) = (self.counted(failed), self.counted(errors), Instant::now());
        let output = self.world.proxied(USER).sftp("pwd\n");
        assert_ne!(output.code, 0, "{name}: {output:?}");
        assert!(started.elapsed() < Duration::from_secs(15), "{name}: took {:?}", started.elapsed());
        let ends = || {
            self.world.router.lines()[seen..]
                .iter()
                .filter(|line| line.contains("end session=") && line.contains("side=store"))
                .cloned()
                .collect::<Vec<_>>()
        };
        assert!(until(LIMIT, || !ends().is_empty()), "{name}: no end line");
        let (ends, pattern) = (ends(), format!("side=store stage=\"prove\" reason=\"redis *{why}"));
        assert!(ends.len() == 1 && matches(&ends[0], &pattern), "{name}: not one line with {pattern}: {ends:#?}");
        assert!(until(LIMIT, || self.counted(failed) == failed_before + 1.0), "{name}: the login is not counted");
        assert!(self.counted(errors) > errors_before, "{name}: the store's failure is not counted");
        self.assert_memory_stays(name, memory);
    }

    /// Threads that look at the store by themselves may be amid an answer that is as large as any may be.
    #[track_caller]
    fn assert_memory_stays(&self, name: &str, before: u64) {
        let more = || resident(self.world.router.pid()).saturating_sub(before);
        assert!(until(LIMIT, || more() < MOST_MORE), "{name}: {} KiB more than before", more());
    }

    /// Prints when the login that worked was begun, which is the router's doing, and when it was done, which is a busy machine's too.
    #[track_caller]
    fn assert_works_again(&self, name: &str) {
        let (since, mut begun, mut logins) = (Instant::now(), Duration::ZERO, 0);
        let works = || {
            (begun, logins) = (since.elapsed(), logins + 1);
            self.world.proxied(USER).sftp("pwd\n").code == 0
        };
        assert!(until(LIMIT, works), "{name}: no login works afterwards");
        let [begun, done] = [begun, since.elapsed()].map(|time| time.as_secs_f64());
        let failed = logins - 1;
        println!(
            "{name}: after the end of the fault {failed} logins failed; the next one was begun after {begun:.1} s and done after {done:.1} s"
        );
    }

    /// Waits until so many connections of the router hear what is said in Redis.
    #[track_caller]
    fn wait_for_listeners(&self, count: i64) {
        let question = redis::cmd("PUBSUB").arg("NUMSUB").arg(CHANNEL).to_owned();
        let counted = || redis::from_redis_value::<(String, i64)>(self.redis().ask(&question)).unwrap().1;
        assert!(until(LIMIT, || counted() == count), "not {count} but {} listen", counted());
    }

    fn redis(&self) -> &RedisServer {
        let Store::Redis(redis) = &self.world.store else { panic!("not Redis") };
        redis
    }
}

/// Where the router hears that an entry was changed.
const CHANNEL: &str = "pysftpproxy:changed";

/// An answer that is not there in time, on a connection that there was; on a busy machine already a new one may not be there in time, or those
/// who look after the store wait on all of them.
const LATE: &str = "1 s*SFTPPROXY_REDIS_";

#[test]
fn garbage_in_the_place_of_redis_refuses_logins_touches_no_transfer_and_costs_no_memory() {
    let mut case = Case::new(true);
    for (name, mode, why) in [
        ("too late", Mode::Late(Duration::from_millis(2500)), LATE),
        ("random bytes", Mode::Instead(b"\x8f\x13\0%~\xff\xfe\r\n\r\n"), ""),
        ("another protocol", Mode::Instead(b"HTTP/1.1 400 Bad Request\r\n\r\n"), ""),
        ("another type", Mode::Instead(b":5\r\n"), ""),
        ("a text of 2 GiB that does not come", Mode::Instead(b"$2147483647\r\nabc"), LATE),
        ("a list of two milliards that does not come", Mode::Instead(b"*2147483647\r\n$1\r\na\r\n"), LATE),
        ("a length that is none", Mode::Instead(b"$99999999999999999999\r\n"), ""),
        ("lists in lists", Mode::Instead(&DEEP), ""),
        ("a line whose end does not come", Mode::Instead(b"+aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"), LATE),
        ("loading", Mode::Instead(b"-LOADING Redis is loading the dataset in memory\r\n"), "LOADING"),
        ("not let in", Mode::Instead(b"-NOAUTH Authentication required.\r\n"), "NOAUTH*check SFTPPROXY_REDIS_PASSWORD"),
        ("read only", Mode::Instead(b"-READONLY You can't write against a read only replica.\r\n"), "READONLY"),
        // On a slow machine there may be less in the time that there is.
        ("a text of 2 GiB that does come", Mode::Endless(b"$2147483647\r\n", b"a"), ""),
        ("a list of two milliards that does come", Mode::Endless(b"*2147483647\r\n", b":1\r\n"), ""),
        ("an answer without end, a byte at a time", Mode::Drip(b"$2147483647\r\n", Duration::from_millis(200)), LATE),
        ("hung up amid an answer", Mode::Last(b"$5\r\nal"), ""),
        ("hung up", Mode::Last(b""), ""),
    ] {
        case.front.set(mode);
        case.assert_refused(name, why);
        case.front.set(Mode::Honest);
        case.assert_works_again(name);
    }
    case.front.set(Mode::Late(Duration::from_millis(100)));
    assert_serves(&case.world);
    case.assert_transfer_is_whole();
}

#[test]
fn a_message_without_end_is_heard_no_longer_than_an_answer_and_news_are_heard_again() {
    let mut case = Case::new(true);
    let memory = resident(case.world.router.pid());
    for then in [Mode::Endless(MESSAGE, b"a"), Mode::Drip(MESSAGE, Duration::from_millis(200))] {
        case.wait_for_listeners(1);
        case.front.set(then);
        case.redis().ask(redis::cmd("PUBLISH").arg(CHANNEL).arg("x"));
        case.wait_for_listeners(0);
        case.assert_memory_stays(&format!("{then:?}"), memory);
        case.front.set(Mode::Honest);
    }
    case.wait_for_listeners(1);
    case.assert_works_again("a message without end");
    case.assert_transfer_is_whole();
}

/// What a message begins with that is 2 GiB large.
const MESSAGE: &[u8] = b"*3\r\n$7\r\nmessage\r\n$19\r\npysftpproxy:changed\r\n$2147483647\r\n";

/// Lists in lists, deeper than anybody means.
const DEEP: [u8; 4000] = {
    let mut deep = [0; 4000];
    let mut at = 0;
    while at < deep.len() {
        deep[at] = b"*1\r\n"[at % 4];
        at += 1;
    }
    deep
};

#[test]
fn a_redis_that_is_stopped_frozen_or_full_refuses_logins_and_touches_no_transfer() {
    let mut case = Case::new(false);
    case.world.store.redis().stop();
    case.assert_refused("stopped", "refused*start Redis there or correct SFTPPROXY_REDIS_HOST");
    case.world.store.redis().restart();
    case.add_user();
    case.assert_works_again("stopped");

    let pid = case.world.store.redis().process.pid();
    signal(pid, Signal::SIGSTOP);
    case.assert_refused("frozen", LATE);
    signal(pid, Signal::SIGCONT);
    case.assert_works_again("frozen");

    // One who stays has the only place.
    let address = format!("redis://127.0.0.1:{}/1", case.world.store.redis().port);
    let mut first = redis::Client::open(address).unwrap().get_connection().unwrap();
    let set = |name: &str, value: &str| redis::cmd("CONFIG").arg("SET").arg(name).arg(value).to_owned();
    set("maxclients", "1").exec(&mut first).unwrap();
    for kind in ["normal", "pubsub"] {
        redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg(kind).arg("SKIPME").arg("yes").exec(&mut first).unwrap();
    }
    case.assert_refused("no place for a client", "");
    set("maxclients", "1000").exec(&mut first).unwrap();
    case.assert_works_again("no place for a client");
    case.assert_transfer_is_whole();
}

#[test]
fn a_redis_that_takes_no_more_lets_users_in_and_what_is_not_written_is_said() {
    let mut case = Case::new(false);
    let set = |value: &str| redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(value).to_owned();
    case.world.store.redis().ask(&set("1"));
    assert_serves(&case.world);
    case.world.router.wait_for_line("WARN*this node's sessions are not seen on other nodes: redis *OOM");
    case.world.store.redis().ask(&set("0"));
    assert_serves(&case.world);
    case.assert_transfer_is_whole();
}

#[test]
fn a_redis_that_comes_back_empty_lets_nobody_in_and_touches_no_transfer() {
    let mut case = Case::new(false);
    case.world.store.redis().stop();
    case.world.store.redis().restart();
    let refused = || {
        let output = case.world.proxied(USER).sftp("pwd\n");
        output.code != 0 && case.world.router.lines().iter().any(|line| line.contains("reason=\"nobody has this key\""))
    };
    assert!(until(LIMIT, refused), "somebody is let in by an empty Redis");
    case.world.router.wait_for_line("has no users at all any more; it is taken for lost");
    case.add_user();
    case.assert_works_again("empty");
    case.assert_transfer_is_whole();
}
