//! A sink with a queue and a thread of its own, so that one that is slow or gone holds nobody else.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::bell::{Bell, Calm};
use super::queue::{Inlet, Next, Outlet, queue};
use crate::event::{Event, Kind, Kinds};

/// How often a lane without events looks whether there is something else to do.
const TICK: Duration = Duration::from_secs(1);

/// The longest pause before a sink that fails is tried again. The first is a hundredth of it.
const PAUSE: Duration = Duration::from_secs(5);

/// Most lines that are given to a sink at once.
const BATCH: usize = 128;

/// An event and its line.
#[derive(Debug)]
pub struct Line {
    /// The event.
    pub event: Event,
    /// The line, without its end.
    pub json: String,
}

/// Where lines go.
pub trait Sink: Send {
    /// What it is, in settings' words.
    fn name(&self) -> &'static str;

    /// Writes lines in their order and takes out those that are written. An error says why the first of the rest could not be,
    /// fit for the log; it stays and comes again. What can never be written is taken out too, and counted in the answer.
    fn write(&mut self, lines: &mut VecDeque<Arc<Line>>) -> Result<u64, String>;

    /// Called now and then while there is nothing to write.
    fn idle(&mut self) {}
}

/// What the thread that gives out lines has of a sink.
pub struct Lane {
    /// What it is.
    pub name: &'static str,
    /// Which kinds it takes.
    pub kinds: Kinds,
    inlet: Inlet<Arc<Line>>,
    lost: Arc<AtomicU64>,
}

impl Lane {
    /// A lane, and the end from which its threads take. They count into the given counter what they give up.
    pub fn new(name: &'static str, kinds: Kinds, lost: Arc<AtomicU64>) -> (Self, Outlet<Arc<Line>>) {
        let (inlet, outlet) = queue();
        (Self { name, kinds, inlet, lost }, outlet)
    }

    /// Puts a line in, if it is of a kind for this sink. What finds no room is lost and counted, but for the very events that say so:
    /// they would beget each other as long as the sink is gone.
    pub fn put(&self, weight: usize, line: &Arc<Line>) {
        let kind = line.event.what.kind();
        if self.kinds.contains(kind) && !self.inlet.push(weight, Arc::clone(line)) && kind != Kind::Dropped {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether it has lost any since that was last taken.
    pub fn has_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed) > 0
    }

    /// How many it has lost since this was last asked.
    pub fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }

    /// The counter itself, with the sink's name.
    pub fn counter(&self) -> (&'static str, Arc<AtomicU64>) {
        (self.name, Arc::clone(&self.lost))
    }
}

/// Starts the thread of a sink that takes every kind of event. It lives as long as its lane, then within the bell's deadline.
pub fn start(mut sink: Box<dyn Sink>, bell: &Arc<Bell>, done: crossbeam_channel::Sender<()>) -> Result<Lane, String> {
    let lost = Arc::new(AtomicU64::new(0));
    let (lane, outlet) = Lane::new(sink.name(), Kinds::ALL, Arc::clone(&lost));
    let bell = Arc::clone(bell);
    let name = format!("audit-{}", lane.name);
    let made = thread::Builder::new().name(name).spawn(move || {
        let _done = done;
        run(sink.as_mut(), &outlet, &bell, &lost);
    });
    made.map_err(|error| format!("no thread: {error}"))?;
    Ok(lane)
}

fn run(sink: &mut dyn Sink, outlet: &Outlet<Arc<Line>>, bell: &Bell, lost: &AtomicU64) {
    let (mut lines, mut calm, mut failures) = (VecDeque::with_capacity(BATCH), Calm::default(), 0_u32);
    loop {
        if lines.is_empty() {
            match outlet.next(TICK) {
                Next::Item(line) => lines.push_back(line),
                Next::Nothing => sink.idle(),
                Next::End => return,
            }
        }
        while lines.len() < BATCH
            && let Some(line) = outlet.ready()
        {
            lines.push_back(line);
        }
        match sink.write(&mut lines) {
            Ok(never) => {
                lost.fetch_add(never, Ordering::Relaxed);
                if std::mem::take(&mut failures) > 0 {
                    log::info!("audit: {} takes events again", sink.name());
                }
            }
            Err(reason) => {
                if let Some(unsaid) = calm.may_say() {
                    let name = sink.name();
                    log::warn!("audit: {name} takes no events: {reason}; they wait in its queue unsaid={unsaid}");
                }
                failures = failures.saturating_add(1);
                bell.nap((PAUSE / 100 * 2_u32.saturating_pow(failures.min(8) - 1)).min(PAUSE));
            }
        }
        if bell.is_over() {
            let left = lines.len() + std::iter::from_fn(|| outlet.ready()).count();
            lost.fetch_add(left as u64, Ordering::Relaxed);
            return;
        }
    }
}
