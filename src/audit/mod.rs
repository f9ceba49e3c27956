//! Where events go: from the sessions through one queue to a thread that makes lines of them, and from there to each sink's own queue
//! and thread.
//!
//! [`Audit::send`] never waits, whatever the sinks do: what finds no room is dropped, counted, and said in an event `dropped` and in
//! the log. A sink that fails keeps its lines and tries again; the hook gives an event up after some attempts. What an event says
//! is `event`'s business.

use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, bounded};

use self::bell::{Bell, Calm};
use self::lane::{Lane, Line, Sink};
use self::queue::{Inlet, Next, Outlet, queue};
use crate::config::audit as config;
use crate::event::{Event, Kind, Kinds, Subject, What};
use crate::metrics::Metrics;

mod bell;
mod file;
mod hook;
mod lane;
pub mod queue;
mod redis;
mod stream;

/// How long events gather before the next are given out: short for who follows them, long beside the microseconds of waking a thread.
const GATHER: Duration = Duration::from_millis(5);

/// Events given out in a row: with more there is no time to be deaf.
const MOST_AT_ONCE: usize = queue::MOST / 8;

/// How often the thread that makes lines looks whether something was lost.
const TICK: Duration = Duration::from_secs(1);

/// What sessions hold: cheap to clone, and to ask whether an event is wanted at all.
#[derive(Debug, Clone, Default)]
pub struct Audit(Option<Arc<Inbox>>);

#[derive(Debug)]
struct Inbox {
    inlet: Inlet<Box<Event>>,
    kinds: Kinds,
    lost: AtomicU64,
}

impl Audit {
    /// Whether any sink wants events of this kind: if not, none need be made.
    pub fn wants(&self, kind: Kind) -> bool {
        self.0.as_ref().is_some_and(|inbox| inbox.kinds.contains(kind))
    }

    /// Tells what happened just now, in a session or, without a subject, to the router itself. Never waits.
    pub fn send(&self, subject: Option<&Arc<Subject>>, what: What) {
        let Some(inbox) = self.0.as_ref().filter(|inbox| inbox.kinds.contains(what.kind())) else { return };
        let event = Box::new(Event { at: SystemTime::now(), subject: subject.cloned(), what });
        if !inbox.inlet.push(event.weight(), event) {
            inbox.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The running audit.
pub struct Running {
    audit: Audit,
    bell: Arc<Bell>,
    /// Dropped to tell the end.
    end: Sender<()>,
    /// Disconnected when every thread has ended.
    done: Receiver<()>,
    /// What each sink has lost since it was last said.
    lost: Vec<(&'static str, Arc<AtomicU64>)>,
}

/// Starts sinks and threads. Without a sink and a hook there are none, and events cost nothing. `reopen` is set when the file was moved.
/// What is lost is counted in `metrics`.
pub fn start(config: &config::Audit, reopen: &Arc<AtomicBool>, metrics: &Arc<Metrics>) -> Result<Running, String> {
    let bell = Arc::new(Bell::default());
    let (sender, done) = bounded(0);
    let mut lanes = Vec::new();
    for sink in &config.sinks {
        lanes.push(lane::start(open(sink, config, reopen)?, &bell, sender.clone())?);
    }
    if let Some(hook) = &config.hook {
        lanes.push(hook::start(hook, &bell, &sender)?);
    }
    let (end, told) = bounded(0);
    let lost = lanes.iter().map(Lane::counter).collect();
    let audit = if lanes.is_empty() { Audit::default() } else { begin(lanes, told, sender, Arc::clone(metrics))? };
    audit.send(None, What::Start { version: env!("CARGO_PKG_VERSION") });
    Ok(Running { audit, bell, end, done, lost })
}

fn begin(lanes: Vec<Lane>, end: Receiver<()>, done: Sender<()>, metrics: Arc<Metrics>) -> Result<Audit, String> {
    let (inlet, outlet) = queue();
    let kinds = lanes.iter().fold(Kinds::default(), |all, lane| all.union(lane.kinds));
    let inbox = Arc::new(Inbox { inlet, kinds, lost: AtomicU64::new(0) });
    // Nobody guesses it and nobody need: it only tells starts apart.
    let run = format!("{:016x}", RandomState::new().hash_one(std::process::id()));
    let desk = Desk { inbox: Arc::clone(&inbox), outlet, lanes, metrics, run, seq: 0, calm: Calm::default() };
    let made = thread::Builder::new().name("audit".into()).spawn(move || {
        let _done = done;
        desk.run(&end);
    });
    made.map_err(|error| format!("no thread: {error}"))?;
    Ok(Audit(Some(inbox)))
}

fn open(sink: &config::Sink, config: &config::Audit, reopen: &Arc<AtomicBool>) -> Result<Box<dyn Sink>, String> {
    Ok(match sink {
        config::Sink::File(path) => Box::new(file::Rotated::open(path, config.file_size, config.file_count, Arc::clone(reopen))?),
        config::Sink::Stdout => Box::new(stream::Stdout::new()?),
        config::Sink::Journald => Box::new(stream::Journald::new(Path::new(stream::JOURNAL))?),
        config::Sink::Redis(name) => Box::new(redis::Stream::new(&config.redis, name, config.redis_length)?),
    })
}

/// What is wrong with the sinks and the hook, as far as can be seen without starting and without making anything.
pub fn check(config: &config::Audit) -> Vec<String> {
    let sink = |sink: &config::Sink| match sink {
        config::Sink::File(path) => file::check(path),
        config::Sink::Stdout => Ok(()),
        config::Sink::Journald => stream::check(Path::new(stream::JOURNAL)),
        config::Sink::Redis(name) => redis::Stream::new(&config.redis, name, config.redis_length).map(drop),
    };
    let sinks = config.sinks.iter().map(sink);
    sinks.chain(config.hook.iter().map(hook::check)).filter_map(Result::err).collect()
}

impl Running {
    /// What sessions hold.
    pub fn audit(&self) -> Audit {
        self.audit.clone()
    }

    /// Ends it: what was sent before is written within the limit, and what is not is said in the log. Returns how many events were
    /// lost at the end; a thread that hangs in a sink is left behind.
    pub fn close(self, limit: Duration) -> u64 {
        self.audit.send(None, What::Stop {});
        let deadline = Instant::now() + limit;
        self.bell.ring(deadline);
        drop(self.end);
        let hangs = self.done.recv_deadline(deadline + TICK) == Err(crossbeam_channel::RecvTimeoutError::Timeout);
        if hangs {
            log::warn!("audit: a sink has not come back within {} s; its events are lost", limit.as_secs_f32());
        }
        let mut lost = 0;
        for (name, counter) in &self.lost {
            let count = counter.swap(0, Ordering::Relaxed);
            if count > 0 {
                log::warn!("audit: {count} events for {name} were lost at the end");
            }
            lost += count;
        }
        lost
    }
}

/// The thread that numbers events, makes lines of them and gives them out.
struct Desk {
    inbox: Arc<Inbox>,
    outlet: Outlet<Box<Event>>,
    lanes: Vec<Lane>,
    metrics: Arc<Metrics>,
    run: String,
    seq: u64,
    calm: Calm,
}

impl Desk {
    fn run(mut self, end: &Receiver<()>) {
        loop {
            match self.outlet.next_unless(end, TICK) {
                Next::Item(event) => {
                    self.give(*event);
                    let mut more = 0;
                    while more < MOST_AT_ONCE
                        && let Some(event) = self.outlet.ready()
                    {
                        self.give(*event);
                        more += 1;
                    }
                    if more < MOST_AT_ONCE {
                        // Deaf for a moment: a session that tells one event after another wakes this thread once, not each time.
                        let _ = end.recv_timeout(GATHER);
                    }
                }
                Next::Nothing => {}
                Next::End => break,
            }
            self.say_lost(false);
        }
        while let Some(event) = self.outlet.ready() {
            self.give(*event);
        }
        self.say_lost(true);
    }

    fn give(&mut self, event: Event) {
        self.seq += 1;
        let json = event.line(&self.run, self.seq);
        let weight = event.weight();
        let line = Arc::new(Line { event, json });
        self.lanes.iter().for_each(|lane| lane.put(weight, &line));
    }

    /// Says what was lost, at most once a period: the first loss at once.
    fn say_lost(&mut self, last: bool) {
        let any = self.inbox.lost.load(Ordering::Relaxed) > 0 || self.lanes.iter().any(Lane::has_lost);
        if !any || (self.calm.may_say().is_none() && !last) {
            return;
        }
        let mut lost = vec![("queue", self.inbox.lost.swap(0, Ordering::Relaxed))];
        lost.extend(self.lanes.iter().map(|lane| (lane.name, lane.take_lost())));
        for (at, count) in lost.into_iter().filter(|(_, count)| *count > 0) {
            log::warn!("audit: {count} events were dropped at {at}");
            self.metrics.audit_dropped(at, count);
            self.give(Event { at: SystemTime::now(), subject: None, what: What::Dropped { at, count } });
        }
    }
}
