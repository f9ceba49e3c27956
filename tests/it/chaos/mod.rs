//! Ten faults × two legs × nine stages of a session's life, in front of one router and one sshd. A fault that only makes things slow
//! changes nothing; any other ends its own session within its limit, with one line that names leg and stage, and nobody else's. Nothing
//! that arrives is altered, and nothing was called stored that is not.
//!
//! The suite has a cell of each fault on each leg. `scripts/chaos` has all of them, three seeds each, and prints the table.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::time::Duration;

use crate::world::process::until;
use crate::world::toxic::{Direction, Relay, Toxic};
use crate::world::tree::small_file;
use crate::world::{Setup, World, keys};

mod expected;
mod places;
mod session;

use places::Places;
use session::{Outcome, Worker};

/// Limits small enough to be waited for many times, and large enough for an honest session on a machine with much else to do.
const LIMITS: [(&str, &str); 7] = [
    ("LOGIN_TIMEOUT", "15"),
    ("UPSTREAM_CONNECT_TIMEOUT", "8"),
    ("UPSTREAM_EXCHANGE_TIMEOUT", "8"),
    ("UPSTREAM_LOGIN_TIMEOUT", "8"),
    ("IDLE_TIMEOUT", "8"),
    ("STALL_TIMEOUT", "8"),
    ("LOG", "info,sftpproxy::file=off"),
];

/// How long after its sessions the router may take to have given back all threads and descriptors.
const TIDY: Duration = Duration::from_secs(30);

/// Which connection the fault is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Leg {
    Downstream,
    Upstream,
}

/// Where in a session's life it strikes. The same nine on both legs: what is `prove` downstream is `log in` upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// The connection is there, and nothing was said.
    Connect,
    /// Amid the identification.
    Identify,
    /// Amid the key exchange, before the keys are in use.
    Exchange,
    /// Amid authentication.
    LogIn,
    /// The channel is being opened.
    Open,
    /// The session is open and nothing happens.
    Idle,
    /// Amid an upload.
    Put,
    /// Amid a download.
    Get,
    /// The client has all that it wants, and leaves.
    Close,
}

impl Stage {
    const ALL: [Self; 9] =
        [Self::Connect, Self::Identify, Self::Exchange, Self::LogIn, Self::Open, Self::Idle, Self::Put, Self::Get, Self::Close];
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Latency,
    Rate,
    Slices,
    Stall,
    Reset,
    HalfClose,
    Cut,
    Flip,
    Garbage,
    Twice,
}

impl Fault {
    const ALL: [Self; 10] = [
        Self::Latency,
        Self::Rate,
        Self::Slices,
        Self::Stall,
        Self::Reset,
        Self::HalfClose,
        Self::Cut,
        Self::Flip,
        Self::Garbage,
        Self::Twice,
    ];

    fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    fn toxic(self, random: &mut fastrand::Rng) -> Toxic {
        match self {
            Self::Latency => Toxic::Latency(Duration::from_millis(10), Duration::from_millis(40)),
            Self::Rate => Toxic::Rate(300_000),
            Self::Slices => Toxic::Slices(400, Duration::from_micros(200)),
            Self::Stall => Toxic::Stall,
            Self::Reset => Toxic::Reset,
            Self::HalfClose => Toxic::HalfClose,
            Self::Cut => Toxic::Cut,
            Self::Flip => Toxic::Flip(random.u8(0..8)),
            Self::Garbage => Toxic::Insert((0..random.usize(1..200)).map(|_| random.u8(..)).collect()),
            // So few that the end of a packet, come twice, is not whole the first time: `places::LEFT`.
            Self::Twice => Toxic::Twice(random.usize(1..places::LEFT)),
        }
    }
}

/// One session with one fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Cell {
    fault: Fault,
    leg: Leg,
    stage: Stage,
    seed: u64,
}

impl Cell {
    /// The direction is the seed's last bit in one stage and the other one in the next: three seeds in a row have both.
    fn direction(self) -> Direction {
        if (self.seed + self.stage as u64).is_multiple_of(2) { Direction::Up } else { Direction::Down }
    }

    fn random(self) -> fastrand::Rng {
        let cell = (self.fault as u64) << 16 | (self.leg as u64) << 8 | self.stage as u64;
        fastrand::Rng::with_seed(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ cell)
    }
}

/// Each fault once on each leg, so that each stage has its turn. None is stalled where only the longest limit ends it.
fn small(seed: u64) -> Vec<Cell> {
    let cell = |(at, fault): (usize, Fault), leg, shift| Cell { fault, leg, stage: Stage::ALL[(at + shift) % 9], seed };
    let all = || Fault::ALL.into_iter().enumerate();
    all().flat_map(|one| [cell(one, Leg::Downstream, 3), cell(one, Leg::Upstream, 8)]).collect()
}

/// All stages of both legs for one fault.
fn whole(fault: Fault, seeds: std::ops::Range<u64>) -> Vec<Cell> {
    let legs = [Leg::Downstream, Leg::Upstream].into_iter();
    let places = legs.flat_map(|leg| Stage::ALL.into_iter().map(move |stage| (leg, stage)));
    places.flat_map(|(leg, stage)| seeds.clone().map(move |seed| Cell { fault, leg, stage, seed })).collect()
}

/// What has become of all cells.
#[derive(Default)]
struct Results {
    cells: BTreeMap<Cell, Outcome>,
    undisturbed: usize,
    wrong: Vec<String>,
}

impl Results {
    fn table(&self, faults: &[Fault]) -> String {
        let mut text = format!("{:21}", "");
        faults.iter().for_each(|fault| write!(text, "{:>10}", fault.name()).unwrap());
        for (leg, stage) in [Leg::Downstream, Leg::Upstream].into_iter().flat_map(|leg| Stage::ALL.map(|stage| (leg, stage))) {
            write!(text, "\n{:11}{:10}", format!("{leg:?}").to_lowercase(), format!("{stage:?}").to_lowercase()).unwrap();
            for &fault in faults {
                let of = |cell: &&Cell| (cell.fault, cell.leg, cell.stage) == (fault, leg, stage);
                let signs: String = self.cells.keys().filter(of).map(|cell| self.cells[cell].sign()).collect();
                write!(text, "{signs:>10}").unwrap();
            }
        }
        text + "\n= went on to its end, all equal   x ended as it should   ! not as it should\n"
    }

    fn check_cells(&mut self) {
        for (cell, outcome) in &self.cells {
            if let Err(why) = &outcome.verdict {
                self.wrong.push(format!("{cell:?} {:?}: {why}", cell.direction()));
            }
        }
    }
}

/// The world that all cells share.
struct Site {
    world: World,
    workers: Vec<Worker>,
    content: Vec<u8>,
    places: [Places; 2],
}

impl Site {
    fn start(count: usize) -> Self {
        let world = World::with(Setup { settings: &LIMITS, ..Setup::default() });
        let source = world.sshd.files.join("source");
        small_file(&source, crate::acknowledged::SIZE, 9);
        let content = std::fs::read(source).unwrap();
        let workers: Vec<_> = (0..count).map(|number| worker(&world, number)).collect();
        let places = workers[0].learn_places(&world, &content);
        Self { world, workers, content, places }
    }

    /// Runs cells at the same time, and among them sessions without a fault, which nothing may disturb.
    fn run(&self, cells: &[Cell], results: &mut Results) {
        let jobs: Vec<_> = cells.chunks(10).flat_map(|some| some.iter().copied().map(Some).chain([None])).collect();
        let (jobs, done) = (Mutex::new(jobs.into_iter()), Mutex::new(Vec::new()));
        let next = || jobs.lock().unwrap().next();
        std::thread::scope(|scope| {
            for worker in &self.workers {
                let (next, done) = (&next, &done);
                scope.spawn(move || {
                    while let Some(cell) = next() {
                        let outcome = worker.run((&self.world, &self.content), cell, &self.places);
                        done.lock().unwrap().push((cell, outcome));
                    }
                });
            }
        });
        for (cell, outcome) in done.into_inner().unwrap() {
            match cell {
                Some(cell) => drop(results.cells.insert(cell, outcome)),
                None if outcome.verdict == Ok(true) => results.undisturbed += 1,
                None => results.wrong.push(format!("a session without a fault: {:?}", outcome.verdict)),
            }
        }
        let usage = || self.world.router.usage();
        let is_tidy = || usage().0.threads <= usage().1.threads && usage().0.descriptors <= usage().1.descriptors;
        if !until(TIDY, is_tidy) {
            results.wrong.push(format!("threads and descriptors now and at the start, after {cells:?}: {:?}", usage()));
        }
    }
}

/// A user with a route through a relay, and a client that comes through another. Names are of one length: lengths of packets depend on them.
fn worker(world: &World, number: usize) -> Worker {
    let user = format!("chaos{number:03}");
    let relays =
        [world.router.port, world.sshd.port].map(|to| Relay::start_at(std::net::Ipv4Addr::LOCALHOST.into(), to, number as u64));
    let mut route = world.route();
    route.iter_mut().filter(|(name, _)| *name == "port").for_each(|(_, port)| *port = relays[1].port.to_string());
    world.store.put(&user, &[&keys::ed25519(&user)], &route);
    let mut target = world.proxied(&user);
    target.port = relays[0].port;
    Worker::new(target, relays)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[test]
fn whatever_happens_to_the_bytes_of_a_leg_at_any_stage_ends_that_session_alone_in_time_and_alters_nothing() {
    let (seed, seeds) = (number("CHAOS_SEED").unwrap_or(1), number("CHAOS_SEEDS"));
    let only = std::env::var("CHAOS_ONLY").unwrap_or_default();
    let faults: Vec<_> = Fault::ALL.into_iter().filter(|fault| only.is_empty() || fault.name() == only).collect();
    assert!(!faults.is_empty(), "CHAOS_ONLY is one of {:?}", Fault::ALL.map(Fault::name));
    let site = Site::start(number("CHAOS_WORKERS").map_or(10, |count| count as usize));
    let mut results = Results::default();
    match seeds {
        None => site.run(&small(seed), &mut results),
        Some(seeds) => faults.iter().for_each(|fault| site.run(&whole(*fault, seed..seed + seeds), &mut results)),
    }
    site.world.proxied(crate::world::USER).sftp("pwd\n").success();
    results.check_cells();
    print!("{}", results.table(&faults));
    let longest = results.cells.values().filter_map(|outcome| outcome.took).max().unwrap_or_default();
    println!(
        "{} cells from seed {seed}, {} of them wrong; {} sessions beside them undisturbed; the longest took {:.1} s from the fault to the end",
        results.cells.len(),
        results.cells.values().filter(|outcome| outcome.verdict.is_err()).count(),
        results.undisturbed,
        longest.as_secs_f64()
    );
    assert!(results.wrong.is_empty(), "{}", results.wrong.join("\n"));
}
