//! One session as it is counted, and the requests of one buffer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::Metrics;
use super::labels::{self, Answered, Class, Direction, Reason, State, Whole};
use super::recent::Kind;
use super::users::User;
use crate::error::Fault;
use crate::sftp;

/// One session. It counts as open until it is dropped; both of its threads share it.
#[derive(Debug)]
pub struct Seen {
    metrics: Arc<Metrics>,
    proven: AtomicBool,
    opened: AtomicBool,
    user: OnceLock<Option<Arc<User>>>,
}

impl Seen {
    /// A session whose client has proven nothing.
    pub fn new(metrics: &Arc<Metrics>) -> Arc<Self> {
        metrics.sessions.add(&[State::Unproven as usize], 1);
        Arc::new(Self {
            metrics: Arc::clone(metrics),
            proven: AtomicBool::new(false),
            opened: AtomicBool::new(false),
            user: OnceLock::new(),
        })
    }

    /// The client has proven a key of this user. To be called once.
    pub fn proven(&self, user: &str) {
        self.proven.store(true, Ordering::Relaxed);
        self.metrics.sessions.less(&[State::Unproven as usize]);
        self.metrics.sessions.add(&[State::Proven as usize], 1);
        let _ = self.user.set(self.metrics.users.of(user));
    }

    /// The upstream is open, so long after accept.
    pub fn opened(&self, time: Duration) {
        self.opened.store(true, Ordering::Relaxed);
        self.metrics.logged_in(time);
        if let Some(user) = self.user() {
            user.logged_in();
        }
    }

    /// Whether it has an upstream.
    pub fn is_open(&self) -> bool {
        self.opened.load(Ordering::Relaxed)
    }

    /// An operation of this user was refused by the router.
    pub fn refused(&self, (user, from): (&str, &str), reason: &str, at: Instant) {
        self.metrics.recent.refused(Kind::Operation, (user, from), reason, at);
    }

    /// The session has ended so.
    pub fn ended(&self, fault: &Fault) {
        if self.is_open() {
            self.metrics.session_ended(fault.side);
        } else {
            self.metrics.login_failed(Reason::of(fault));
        }
    }

    /// Whether requests are to be counted, for which a ledger is needed.
    pub fn counts_operations(&self) -> bool {
        self.metrics.read
    }

    /// A buffer was received.
    pub fn received(&self, direction: Direction, count: usize) {
        self.metrics.bytes.add(&[direction as usize], count as u64);
        if let Some(user) = self.user() {
            user.received(direction, count as u64);
        }
    }

    /// The upstream's first reply came so long after the proven key.
    pub fn replied(&self, time: Duration) {
        self.metrics.reply.observe(&[], time);
    }

    /// A file was transferred.
    pub fn transferred(&self, direction: Direction, whole: bool) {
        let whole = if whole { Whole::Complete } else { Whole::Partial };
        self.metrics.transfers.add(&[direction as usize, whole as usize], 1);
    }

    fn user(&self) -> Option<&User> {
        self.user.get()?.as_deref()
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        let state = if *self.proven.get_mut() { State::Proven } else { State::Unproven };
        self.metrics.sessions.less(&[state as usize]);
    }
}

/// The requests of one buffer that were answered. Those of one kind that took about as long, as nearly all of a transfer do, are
/// counted together: three atomics a buffer instead of three a request. What is left is counted when it is dropped.
pub struct Tally<'a> {
    seen: &'a Seen,
    /// What those that wait have in common.
    run: Option<Run>,
    count: u64,
    sum: Duration,
}

/// Requests that are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    operation: usize,
    outcome: Answered,
    /// Of those that the upstream has answered.
    timed: Option<(Class, usize)>,
}

impl<'a> Tally<'a> {
    /// Of a buffer of this session.
    pub fn new(seen: &'a Seen) -> Self {
        Self { seen, run: None, count: 0, sum: Duration::ZERO }
    }

    /// A request was answered; `kind` is `None` of a type that nobody knows, `time` that from the request to the upstream's answer.
    pub fn answered(&mut self, kind: Option<&'static sftp::Kind>, outcome: Answered, time: Option<Duration>) {
        let timed = time.map(|time| (Class::of(kind), self.seen.metrics.answers.bucket(time)));
        let run = Some(Run { operation: labels::operation(kind), outcome, timed });
        if self.run != run {
            self.count();
            self.run = run;
        }
        self.count += 1;
        self.sum += time.unwrap_or_default();
    }

    fn count(&mut self) {
        let (count, sum) = (std::mem::take(&mut self.count), std::mem::take(&mut self.sum));
        let Some(Run { operation, outcome, timed }) = self.run.take() else { return };
        self.seen.metrics.operations.add(&[operation, outcome as usize], count);
        if let Some((class, bucket)) = timed {
            self.seen.metrics.answers.add(&[class as usize], bucket, (count, sum));
        }
    }
}

impl Drop for Tally<'_> {
    fn drop(&mut self) {
        self.count();
    }
}
