//! What threads share and how they wait for each other, where the order of threads matters: the standard library's locks and atomics and
//! crossbeam's channels, under their own names.
//!
//! In unit tests they are the same in [`explored`], which can let another thread go first before each use of one: so a schedule explorer
//! finds what happens in every order. Outside of unit tests there is nothing of it.

#[cfg(test)]
pub mod explored;

#[cfg(test)]
pub use explored::{AtomicBool, AtomicU32, AtomicU64, Condvar, Mutex, MutexGuard, Receiver, Sender, bounded, sleep};

#[cfg(not(test))]
pub use crossbeam_channel::{Receiver, Sender, bounded};
#[cfg(not(test))]
pub use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
#[cfg(not(test))]
pub use std::sync::{Condvar, Mutex, MutexGuard};

#[cfg(not(test))]
use nix::poll::PollTimeout;

/// Asks `poll` to wait so long. `None` = the time is over.
#[cfg(not(test))]
pub fn sleep<T>(timeout: PollTimeout, mut poll: impl FnMut(PollTimeout) -> Option<T>) -> Option<T> {
    poll(timeout)
}
