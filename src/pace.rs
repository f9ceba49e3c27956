//! What a thread of the relay has done so far, for who asks while it works: bytes that its peer was given, and how long it has slept,
//! by what it slept for. From both threads' figures one can say who is slow.
//!
//! One thread writes, any thread reads; nothing is locked or allocated, and a clock is read only around a sleep. What is read while it
//! changes is a little old.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// What a thread sleeps for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Its peer takes no more.
    Peer,
    /// The other thread has not taken what it was given.
    Room,
    /// The user's limit.
    Rate,
    /// Everything is passed on, and the upstream owes an answer.
    Answer,
    /// Everything is passed on and answered: it is the client's turn.
    Question,
    /// Everything is passed on; whose turn it is, nobody counts.
    Anything,
}

/// Kinds of [`Wait`].
const KINDS: usize = 6;

/// Bits of [`Pace::asleep`] that say for what.
const KIND_BITS: u32 = 3;

/// One thread's figures.
#[derive(Debug)]
pub struct Pace {
    start: Instant,
    bytes: AtomicU64,
    /// Microseconds.
    slept: [AtomicU64; KINDS],
    /// 0 = awake; else since when, in microseconds from `start`, and for what.
    asleep: AtomicU64,
}

/// A look at a [`Pace`], or the difference between two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// Bytes that the peer was given.
    pub bytes: u64,
    /// Microseconds in all.
    pub micros: u64,
    slept: [u64; KINDS],
}

impl Default for Pace {
    fn default() -> Self {
        let slept = std::array::from_fn(|_| AtomicU64::new(0));
        Self { start: Instant::now(), bytes: AtomicU64::new(0), slept, asleep: AtomicU64::new(0) }
    }
}

impl Pace {
    /// The peer was given so many bytes more.
    pub fn gave(&self, count: usize) {
        self.bytes.store(self.bytes() + count as u64, Ordering::Relaxed);
    }

    /// Bytes that the peer was given so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Does what sleeps, for this.
    pub fn asleep<T>(&self, wait: Wait, sleep: impl FnOnce() -> T) -> T {
        let since = self.micros();
        self.asleep.store((since << KIND_BITS) | (wait as u64 + 1), Ordering::Relaxed);
        let done = sleep();
        let slept = &self.slept[wait as usize];
        slept.store(slept.load(Ordering::Relaxed) + (self.micros() - since), Ordering::Relaxed);
        self.asleep.store(0, Ordering::Relaxed);
        done
    }

    /// All of it now, a sleep that still lasts included.
    pub fn look(&self) -> Spent {
        let micros = self.micros();
        let asleep = self.asleep.load(Ordering::Relaxed);
        let mut slept = std::array::from_fn(|kind| self.slept[kind].load(Ordering::Relaxed));
        let kind = (asleep & ((1 << KIND_BITS) - 1)) as usize;
        if kind > 0 {
            slept[kind - 1] += micros.saturating_sub(asleep >> KIND_BITS);
        }
        Spent { bytes: self.bytes(), micros, slept }
    }

    fn micros(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }
}

impl Spent {
    /// What came since an earlier look.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(before.bytes),
            micros: self.micros.saturating_sub(before.micros),
            slept: std::array::from_fn(|kind| self.slept[kind].saturating_sub(before.slept[kind])),
        }
    }

    /// Microseconds slept for this.
    pub fn slept(&self, wait: Wait) -> u64 {
        self.slept[wait as usize]
    }

    /// Microseconds of work.
    pub fn busy(&self) -> u64 {
        self.micros.saturating_sub(self.slept.iter().sum())
    }

    /// Bytes a second.
    pub fn rate(&self) -> u64 {
        if self.micros == 0 { 0 } else { (self.bytes as f64 * 1e6 / self.micros as f64) as u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_sleep_counts_for_what_it_was_also_while_it_lasts() {
        let pace = Pace::default();
        pace.gave(1000);
        let before = pace.look();
        pace.asleep(Wait::Peer, || std::thread::sleep(Duration::from_millis(20)));
        let during = pace.asleep(Wait::Answer, || {
            std::thread::sleep(Duration::from_millis(30));
            pace.look()
        });
        pace.gave(500);
        let spent = pace.look().since(&before);
        assert!(during.slept(Wait::Answer) >= 30_000 && spent.slept(Wait::Answer) >= during.slept(Wait::Answer), "{during:?}");
        assert!(spent.slept(Wait::Peer) >= 20_000 && spent.slept(Wait::Room) == 0, "{spent:?}");
        assert!(spent.bytes == 500 && spent.busy() < spent.micros && spent.rate() <= 500 * 20, "{spent:?}");
    }
}
