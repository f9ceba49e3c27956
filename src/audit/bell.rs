//! The end, told to threads that may be sleeping, and lines of the log that must not become a flood.

use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How long a thread waits between two attempts once the end has been told.
const HASTE: Duration = Duration::from_millis(100);

/// Rings once: from then on everybody knows how long there is still time.
#[derive(Debug, Default)]
pub struct Bell {
    deadline: Mutex<Option<Instant>>,
    rung: Condvar,
}

impl Bell {
    /// Tells everybody.
    pub fn ring(&self, deadline: Instant) {
        *self.deadline.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(deadline);
        self.rung.notify_all();
    }

    /// Until when, once it has rung.
    pub fn deadline(&self) -> Option<Instant> {
        *self.deadline.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Whether the time is over.
    pub fn is_over(&self) -> bool {
        self.deadline().is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Sleeps so long, or until it rings; after that only for a moment.
    pub fn nap(&self, time: Duration) {
        let deadline = self.deadline.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if deadline.is_some() {
            drop(deadline);
            return thread::sleep(time.min(HASTE));
        }
        let _ = self.rung.wait_timeout_while(deadline, time, |deadline| deadline.is_none());
    }
}

/// At most one line a period, with the number of those that were not written.
#[derive(Debug, Default)]
pub struct Calm {
    last: Option<Instant>,
    unsaid: u64,
}

impl Calm {
    /// The period.
    pub const PERIOD: Duration = Duration::from_secs(10);

    /// How many have gone unsaid, if this one may be said.
    pub fn may_say(&mut self) -> Option<u64> {
        if self.last.is_some_and(|last| last.elapsed() < Self::PERIOD) {
            self.unsaid += 1;
            return None;
        }
        self.last = Some(Instant::now());
        Some(std::mem::take(&mut self.unsaid))
    }
}
