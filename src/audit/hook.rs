//! The hook: a program or an address that is called for events of some kinds. It is a lane with several threads, so that a call that
//! takes its time holds back only its own; each call has a limit, and an event that is not taken is tried again, later and later.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::bell::{Bell, Calm};
use super::lane::{Lane, Line};
use super::queue::{Next, Outlet};
use crate::config::audit::{Hook, Target};
use crate::event::Kind;

mod command;
mod http;

/// The pause after the first attempt; each next one is twice as long, up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// How often a thread without events looks up.
const TICK: Duration = Duration::from_secs(600);

/// What came of a call that did not succeed: one line, in which others' text has gone through `error::shown`.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// It may succeed later.
    Again(String),
    /// It will not, whoever calls how often.
    Never(String),
}

/// How a hook is called.
enum Caller {
    Command(command::Program),
    Http(http::Poster),
}

impl Caller {
    fn new(hook: &Hook) -> Result<Self, String> {
        Ok(match &hook.target {
            Target::Command(path) => Self::Command(command::Program::new(path)?),
            Target::Url(url) => Self::Http(http::Poster::new(url)?),
        })
    }

    fn call(&self, line: &Line, limit: Duration, bell: &Bell) -> Result<(), Failure> {
        match self {
            Self::Command(program) => program.run(line, limit, bell),
            Self::Http(poster) => poster.post(line, limit),
        }
    }
}

/// Whether the hook is one that could be called, without calling it.
pub fn check(hook: &Hook) -> Result<(), String> {
    Caller::new(hook).map(drop)
}

/// Starts the threads of a hook.
pub fn start(hook: &Hook, bell: &Arc<Bell>, done: &crossbeam_channel::Sender<()>) -> Result<Lane, String> {
    let caller = Arc::new(Caller::new(hook)?);
    let lost = Arc::new(AtomicU64::new(0));
    let (lane, outlet) = Lane::new("hook", hook.events, Arc::clone(&lost));
    for number in 0..hook.parallel {
        let worker = Worker {
            caller: Arc::clone(&caller),
            outlet: outlet.clone(),
            bell: Arc::clone(bell),
            lost: Arc::clone(&lost),
            timeout: hook.timeout,
            attempts: hook.attempts,
        };
        let done = done.clone();
        let made = thread::Builder::new().name(format!("hook-{number}")).spawn(move || {
            let _done = done;
            worker.run();
        });
        made.map_err(|error| format!("no thread: {error}"))?;
    }
    Ok(lane)
}

struct Worker {
    caller: Arc<Caller>,
    outlet: Outlet<Arc<Line>>,
    bell: Arc<Bell>,
    lost: Arc<AtomicU64>,
    timeout: Duration,
    attempts: u32,
}

impl Worker {
    fn run(&self) {
        let mut calm = Calm::default();
        loop {
            match self.outlet.next(TICK) {
                Next::Item(line) if self.deliver(&line, &mut calm) => {}
                // Of what is said about losses none is counted: see `Lane::put`.
                Next::Item(line) if line.event.what.kind() == Kind::Dropped => {}
                Next::Item(_) => drop(self.lost.fetch_add(1, Ordering::Relaxed)),
                Next::Nothing => {}
                Next::End => return,
            }
        }
    }

    /// Calls until it is taken, up to the number of attempts. When the end is told, what is left gets one more attempt each.
    fn deliver(&self, line: &Line, calm: &mut Calm) -> bool {
        for attempt in 1..=self.attempts {
            let left = self.bell.deadline().map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let limit = left.map_or(self.timeout, |left| left.min(self.timeout));
            if limit.is_zero() {
                return false;
            }
            let (reason, last) = match self.caller.call(line, limit, &self.bell) {
                Ok(()) => return true,
                Err(Failure::Never(reason)) => (reason, true),
                Err(Failure::Again(reason)) => (reason, attempt == self.attempts || left.is_some()),
            };
            self.say(line, attempt, &reason, last, calm);
            if last {
                return false;
            }
            self.bell.nap((FIRST_PAUSE * 2_u32.saturating_pow(attempt.min(16) - 1)).min(MAX_PAUSE));
        }
        false
    }

    fn say(&self, line: &Line, attempt: u32, reason: &str, last: bool, calm: &mut Calm) {
        let Some(unsaid) = calm.may_say() else { return };
        let then = if last { "the event is given up" } else { "it will be called again" };
        let (kind, attempts) = (line.event.what.kind().name(), self.attempts);
        log::warn!("audit: hook for {kind}: {reason}; attempt {attempt} of {attempts}, {then} unsaid={unsaid}");
    }
}
