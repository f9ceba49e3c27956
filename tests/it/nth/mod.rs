//! The n-th failure, as SQLite tests itself: the first call of a function fails, then the second, and so on until a whole visit passes without
//! reaching the one that is to fail. `tests/nth/fail.c` makes calls fail in the router's process. Whatever fails, the client is told nothing that is not
//! so, the router lives and serves the next one, and threads and descriptors come back. `scripts/nth` runs all of it; here is every so-manyth call,
//! with the first error of each function.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nix::libc;

use crate::world::process::{resident, until};
use crate::world::{Kind, Setup, USER, World, keys};

mod denied;
mod lever;
mod many;
mod start;
mod visit;

use lever::{Callers, Class, Lever, Order};
use visit::{Place, Wrong};

/// How long after a visit the router may take until it is as before: a client that is gone is waited for, and so is an upstream.
const TIDY: Duration = Duration::from_secs(30);

/// Errors with their names; 0 = one byte only.
type Errors = &'static [(&'static str, i32)];

/// Calls of one kind that are made to fail with one error after the other.
struct Series {
    name: &'static str,
    class: Class,
    errors: Errors,
    callers: Callers,
    /// Every so-manyth call, here: of a visit, and of a start.
    every: [u64; 2],
}

const fn series(name: &'static str, class: Class, errors: Errors, every: [u64; 2]) -> Series {
    Series { name, class, errors, callers: Callers::All, every }
}

impl Series {
    /// That the n-th call fails with this error, of all threads or of those that serve a session.
    fn order(&self, error: (&str, i32), nth: u64, all_threads: bool) -> Order {
        Order { class: self.class, error: error.1, nth, on: asked("NTH_ON").is_some(), all_threads, callers: self.callers }
    }

    /// Whether it is the log that cannot be written: then a line that is missing is no fault.
    fn is_log(&self) -> bool {
        self.class == Class::Log
    }
}

/// All of them.
#[rustfmt::skip]
const ALL: &[Series] = &[
    series("read", Class::Read, &[("ECONNRESET", libc::ECONNRESET), ("EIO", libc::EIO), ("EINTR", libc::EINTR), ("short", 0)], [70, 25]),
    series("write", Class::Write, &[("EPIPE", libc::EPIPE), ("ENOSPC", libc::ENOSPC), ("EINTR", libc::EINTR), ("short", 0)], [40, 17]),
    series("connect", Class::Connect, &[("ECONNREFUSED", libc::ECONNREFUSED), ("ENETUNREACH", libc::ENETUNREACH)], [1, 1]),
    series("poll", Class::Poll, &[("ENOMEM", libc::ENOMEM), ("EINTR", libc::EINTR)], [60, 40]),
    series("openat", Class::OpenAt, &[("EMFILE", libc::EMFILE), ("EACCES", libc::EACCES)], [1, 4]),
    series("socket", Class::Socket, &[("EMFILE", libc::EMFILE), ("ENOBUFS", libc::ENOBUFS)], [1, 4]),
    series("option", Class::Option, &[("EINVAL", libc::EINVAL), ("ENOTCONN", libc::ENOTCONN)], [8, 30]),
    series("thread", Class::Thread, &[("EAGAIN", libc::EAGAIN)], [1, 3]),
    series("log", Class::Log, &[("EIO", libc::EIO), ("ENOSPC", libc::ENOSPC)], [6, 2]),
    Series { callers: Callers::C, ..series("malloc", Class::Malloc, &[("ENOMEM", libc::ENOMEM)], [1500, 0]) },
    Series { callers: Callers::Rust, ..series("malloc-rust", Class::Malloc, &[("ENOMEM", libc::ENOMEM)], [130, 1200]) },
];

/// Ends of the process that are not ours to mend (ARCHITECTURE.md, "What fails for want of memory"): a function in the trace, and what it is.
const KNOWN: &[(&str, &str)] = &[
    ("__cxa_thread_atexit_impl", "the C library, which ends the process when a thread's variable has no memory"),
    ("ffi::bind::Bind::accept", "libssh, which takes for granted that a session's poll handle was made"),
    ("ffi::client::ClientSession::connect", "libssh, which takes for granted what a client's key exchange is made of"),
    (
        "std::thread::thread::Thread>::new",
        "Rust's standard library, which makes a thread's name and number past the program's allocator",
    ),
];

/// What comes of panics that are not ours to mend: who made the call that failed, and what takes for granted that it does not.
const TAKEN_FOR_GRANTED: &[(&str, &str)] =
    &[("signal_hook::iterator::", "the crate signal-hook, which takes for granted that it can read its own socket")];

/// Panics of which nothing comes but a line that says why.
const CAUGHT: &[(&str, &str)] =
    &[("scheduled_thread_pool::", "the crate r2d2, which takes for granted that there are threads; that was caught and told")];

/// What of this list a trace leads through.
fn known(list: &[(&str, &'static str)], trace: &[String]) -> Option<&'static str> {
    list.iter().find(|(name, _)| trace.iter().any(|frame| frame.contains(name))).map(|(_, known)| *known)
}

/// What became of a series.
#[derive(Default)]
struct Tally {
    /// Calls that failed, each in a visit of its own.
    reached: u64,
    /// Visits that were whole all the same.
    whole: u64,
    /// What is not ours to mend, and how often it was that.
    known: BTreeMap<&'static str, u64>,
    /// What was wrong, by what it was, with how often and an example.
    bad: BTreeMap<String, (u64, String)>,
}

impl Tally {
    fn bad(&mut self, what: String, example: String) {
        self.bad.entry(what).or_insert((0, example)).0 += 1;
    }

    /// Prints what became of it, and what was wrong.
    fn print(&self, what: &str, more: &str) {
        let Self { reached, whole, .. } = self;
        let bad: u64 = self.bad.values().map(|(count, _)| count).sum();
        println!(
            "nth {what}: {reached} made to fail, {whole} whole, {} said to have failed, {bad} wrong{more}",
            reached.saturating_sub(*whole)
        );
        for (what, count) in &self.known {
            println!("    {count} times it was {what}");
        }
        for (what, (count, example)) in &self.bad {
            println!("    {count} times: {what}\n      such as {example}");
        }
    }
}

/// A world whose router obeys the lever.
struct Stage {
    world: World,
    lever: Lever,
    place: Place,
}

impl Stage {
    fn new(store: Kind) -> Self {
        let banner = concat!(env!("CARGO_TARGET_TMPDIR"), "/nth-banner");
        std::fs::write(banner, "welcome\n").expect("a banner");
        let settings = [("PENALTIES", "off"), ("BANNER", banner)];
        let mut world = World::with(Setup { store, settings: &settings, ..Setup::default() });
        let lever = Lever::new(world.folder.path());
        let variables = lever.variables();
        world.restart(&variables.each_ref().map(|(name, value)| (*name, value.as_str())));
        let place = Place::prepare(&world.sshd.files, USER, &keys::ed25519(USER));
        let stage = Self { world, lever, place };
        // What is made once, and the descriptors that come late.
        for _ in 0..3 {
            stage.place.visit(stage.world.router.port).expect("a visit to a router that is well");
        }
        stage
    }

    /// Whether everything is as it was when there was no visitor. A process that is being ended has fewer threads than that.
    fn is_tidy(&self) -> bool {
        let (now, baseline) = self.world.router.usage();
        now.threads == baseline.threads && (1..=baseline.descriptors).contains(&now.descriptors) && self.lever.end().is_empty()
    }

    /// One visit in which one call fails; `false` = there was no such call.
    fn attempt(&mut self, order: Order, tally: &mut Tally) -> bool {
        self.lever.arm(order);
        let start = Instant::now();
        let visit = self.place.visit(self.world.router.port);
        let tidy = until(TIDY, || self.world.router.ended().is_some() || self.is_tidy());
        self.lever.disarm();
        let (count, failed) = self.lever.counted();
        if failed == 0 {
            assert!(visit.is_ok(), "none of {count} calls failed, and yet: {visit:?}");
            return false;
        }
        tally.reached += 1;
        tally.whole += u64::from(visit.is_ok());
        let here = |what: &str| {
            let caller = self.lever.caller();
            format!(
                "n={} after {:.1} s: {what}\n      called by {}",
                order.nth,
                start.elapsed().as_secs_f64(),
                caller.join("\n        < ")
            )
        };
        if let Some(code) = self.world.router.ended() {
            let end = self.lever.end();
            if let Some(known) = known(KNOWN, &end) {
                *tally.known.entry(known).or_default() += 1;
                self.renew();
                return true;
            }
            let place = end.iter().find(|frame| !frame.starts_with("libc.so")).cloned().unwrap_or_default();
            let example = here(&format!("{visit:?}\n      ended in {}", end.join("\n        < ")));
            tally.bad(format!("the router ended with {code} in {place}"), example);
            self.renew();
            return true;
        }
        if let Err(Wrong::Lied(what)) = &visit {
            tally.bad(format!("false: {what}"), here(""));
        }
        if !tidy {
            let (now, baseline) = self.world.router.usage();
            tally.bad(format!("it holds {now:?} instead of {baseline:?}"), here(&format!("{visit:?}")));
            self.renew();
        }
        true
    }

    /// Another router in the place of one that is not well.
    fn renew(&mut self) {
        let again = self.world.router.again(self.world.store.lazy_descriptors());
        let mut before = std::mem::replace(&mut self.world.router, again);
        if before.ended().is_none() {
            before.kill();
        }
        // It cannot be held to what others are.
        std::mem::forget(before);
    }

    /// The next visitors are served.
    fn serves(&mut self, tally: &mut Tally) {
        if let Err(wrong) = self.place.visit(self.world.router.port) {
            tally.bad(format!("the next visit: {wrong:?}"), String::new());
            self.renew();
        }
    }

    /// Fails one call after the other with this error.
    fn series(&mut self, series: &Series, error: (&str, i32), every: u64) -> Tally {
        let mut tally = Tally::default();
        let all_threads = asked("NTH_ALL_THREADS").is_some();
        let order = |nth| series.order(error, nth, all_threads);
        // How many there are when all goes well: threads that are no session's never come to an end of theirs.
        self.attempt(order(0), &mut tally);
        let (usual, _) = self.lever.counted();
        let (mut before, mut nth) = (None, every);
        while self.attempt(order(nth), &mut tally) || (all_threads && nth <= usual) {
            if tally.reached.is_multiple_of(20) {
                self.serves(&mut tally);
            }
            if tally.reached == 50 {
                before = Some((self.world.router.pid(), resident(self.world.router.pid())));
            }
            nth += every;
        }
        self.serves(&mut tally);
        let lines = self.world.router.lines();
        for line in lines.iter().filter(|line| line.contains("panicked")) {
            tally.bad("a panic".to_owned(), line.clone());
        }
        let pid = self.world.router.pid();
        let memory = before.filter(|(same, _)| *same == pid).map_or(String::new(), |(_, before)| {
            format!(", {:.2} KiB grown each", resident(pid).saturating_sub(before) as f64 / (tally.reached - 49) as f64)
        });
        tally.print(&format!("{} {}: {usual} calls in a visit", series.name, error.0), &memory);
        tally
    }
}

/// What `scripts/nth` asks for, or nothing.
fn asked(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn number(name: &str) -> Option<u64> {
    asked(name).map(|text| text.parse().unwrap_or_else(|_| panic!("{name}: no number")))
}

fn store() -> Kind {
    if asked("NTH_STORE").as_deref() == Some("file") { Kind::File } else { Kind::Redis }
}

/// What is to be tried, of a visit (0) or a start (1): each series with its errors, here the first one, and every so-manyth call of it.
fn chosen(of: usize) -> Vec<(&'static Series, Errors, u64)> {
    let (only, every) = (asked("NTH_ONLY"), number("NTH_EVERY"));
    let all = ALL.iter().filter(|series| only.as_deref().is_none_or(|only| only == series.name));
    all.map(|series| match every {
        Some(every) => (series, series.errors, every.max(1)),
        None => (series, &series.errors[..1], series.every[of]),
    })
    .collect()
}

#[test]
fn whatever_call_fails_nothing_is_told_that_is_not_so_and_the_next_session_is_served() {
    let mut stage = Stage::new(store());
    let mut bad = 0;
    for (series, errors, every) in chosen(0) {
        for error in errors {
            bad += stage.series(series, *error, every).bad.len();
        }
        if series.is_log() {
            // Lines that could not be written are not there to be held against it.
            stage.renew();
        }
    }
    if bad > 0 {
        // What it was is printed, and a router that was made to panic is not held to what others are.
        stage.renew();
    }
    assert_eq!(bad, 0, "what was wrong is above");
}
