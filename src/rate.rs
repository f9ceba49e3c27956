//! How fast a user may transfer in one direction: when bytes may be taken again after some were taken.
//!
//! Pure: time is a parameter. It is a token bucket that may go into debt by one piece: who has taken waits until what was taken is paid for at
//! the rate, and then takes the next piece. Nothing sleeps here and nothing is held: the relay does not take, and the peer stops.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes of the unit in which rates are given.
const KIB: u32 = 1024;

/// Largest piece in bytes, the relay's buffer.
const LARGEST: usize = 128 * 1024;

/// Smallest piece in bytes: below it the work of a piece would be more than its bytes'.
const SMALLEST: usize = 4 * 1024;

/// Pieces a second, where [`SMALLEST`] and [`LARGEST`] leave the choice: so often that a progress bar runs evenly.
const PIECES: usize = 8;

/// What may be saved up while nothing is taken: as long as a sleeping thread may come late, and no burst worth the name.
const SAVED: Duration = Duration::from_millis(50);

/// One direction's limit, or that there is none; all of a user's sessions share it. It may change at any time.
#[derive(Debug)]
pub struct Rate {
    /// KiB a second; 0 = no limit.
    kib: AtomicU32,
    /// When everything that was taken is paid for.
    paid: Mutex<Option<Instant>>,
}

impl Rate {
    /// A limit in KiB a second; 0 = none.
    pub fn new(kib: u32) -> Self {
        Self { kib: AtomicU32::new(kib), paid: Mutex::new(None) }
    }

    /// Another limit from now on; 0 = none. `true` = it was another one.
    pub fn set(&self, kib: u32) -> bool {
        let old = self.kib.swap(kib, Ordering::Relaxed);
        // A debt at a low rate must not outlast it.
        if old != kib {
            *self.paid() = None;
        }
        old != kib
    }

    /// Until when nothing may be taken; `None` = now.
    pub fn held(&self, now: Instant) -> Option<Instant> {
        if self.kib() == 0 { None } else { self.paid().filter(|paid| *paid > now) }
    }

    /// Says that `count` bytes were taken.
    pub fn took(&self, count: usize, now: Instant) {
        let kib = self.kib();
        if kib == 0 {
            return;
        }
        let cost = Duration::from_secs_f64(count as f64 / (f64::from(kib) * f64::from(KIB)));
        let earliest = now.checked_sub(SAVED).unwrap_or(now);
        let mut paid = self.paid();
        *paid = Some(paid.unwrap_or(now).max(earliest) + cost);
    }

    /// How many bytes to take at once at most; `None` = there is no limit.
    pub fn piece(&self) -> Option<usize> {
        let kib = self.kib();
        (kib > 0).then(|| (kib as usize * KIB as usize / PIECES).clamp(SMALLEST, LARGEST))
    }

    fn kib(&self) -> u32 {
        self.kib.load(Ordering::Relaxed)
    }

    fn paid(&self) -> MutexGuard<'_, Option<Instant>> {
        self.paid.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds that `bytes` take when somebody takes as soon and as much as they may and comes `late` each time.
    fn seconds(rate: &Rate, bytes: usize, late: Duration) -> f64 {
        let start = Instant::now();
        let (mut now, mut left) = (start, bytes);
        while left > 0 {
            if let Some(until) = rate.held(now) {
                now = until + late;
                continue;
            }
            let count = left.min(rate.piece().unwrap_or(LARGEST));
            rate.took(count, now);
            left -= count;
        }
        rate.held(now).unwrap_or(now).duration_since(start).as_secs_f64()
    }

    #[test]
    fn bytes_take_as_long_as_the_rate_says_also_when_the_thread_wakes_late() {
        for (kib, bytes) in [(1, 20 << 10), (64, 1 << 20), (2048, 8 << 20), (1 << 20, 4 << 30)] {
            for late in [0, 1, 20] {
                let took = seconds(&Rate::new(kib), bytes, Duration::from_millis(late));
                let wanted = bytes as f64 / f64::from(kib) / 1024.0;
                assert!((took / wanted - 1.0).abs() < 0.02, "{bytes} bytes at {kib} KiB/s take {took} s, not {wanted} s");
            }
        }
    }

    #[test]
    fn what_is_saved_up_in_a_pause_is_little() {
        let rate = Rate::new(1024);
        let now = Instant::now();
        rate.took(1, now);
        let later = now + Duration::from_secs(3600);
        rate.took(1 << 20, later);
        let paid = rate.held(later).unwrap().duration_since(later);
        assert!(paid >= Duration::from_millis(949), "{paid:?}");
    }

    #[test]
    fn a_limit_can_be_changed_and_taken_away_while_something_waits() {
        let (rate, now) = (Rate::new(1), Instant::now());
        rate.took(LARGEST, now);
        assert_eq!(rate.held(now), Some(now + Duration::from_secs(128)));
        assert!(!rate.set(1) && rate.held(now).is_some());
        assert!(rate.set(2048) && rate.held(now).is_none());
        rate.took(LARGEST, now);
        assert!(rate.held(now).is_some() && rate.set(0));
        assert_eq!((rate.held(now), rate.piece()), (None, None));
    }
}
