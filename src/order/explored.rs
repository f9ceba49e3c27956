//! Locks, atomics and channels that behave as the real ones do, but while [`explore`] runs: then all threads are shuttle's, one at a time,
//! and before each use of one of these shuttle decides who goes on.
//!
//! Time does not pass there: who waits for a wake-up waits for that alone. One that is lost is a thread that waits for ever, and the test
//! fails. Atomics are sequentially consistent whatever order is asked for, as is the code that uses them.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::Ordering;
use std::sync::{LockResult, PoisonError, TryLockError, atomic};
use std::time::Duration;

use crossbeam_channel::{TryRecvError, TrySendError};
use nix::poll::PollTimeout;
use shuttle::scheduler::RandomScheduler;
use shuttle::{Config, Runner};

/// How often a thread asks in vain before it is said to wait for ever: every other one has long come to its end.
const ROUNDS: usize = 50_000;

/// Stack of shuttle's threads in bytes: a debug build of the relay needs more than its default.
const STACK: usize = 256 * 1024;

thread_local! {
    // All of shuttle's threads run on the one that has called `explore`.
    static EXPLORES: Cell<bool> = const { Cell::new(false) };
}

/// Runs a test in so many orders of its threads, which are `shuttle::thread`'s: the same ones each time, unless SHUTTLE_RANDOM_SEED is set.
pub fn explore(schedules: usize, test: impl Fn() + Send + Sync + 'static) {
    struct Over;
    impl Drop for Over {
        fn drop(&mut self) {
            EXPLORES.set(false);
        }
    }
    EXPLORES.set(true);
    let _over = Over;
    let mut config = Config::new();
    config.stack_size = STACK;
    Runner::new(RandomScheduler::new_from_seed(1, schedules), config).run(test);
}

/// Whether orders are explored on this thread; not while one of them has failed and is taken down.
fn explores() -> bool {
    EXPLORES.get() && !std::thread::panicking()
}

/// Others may go first.
fn point() {
    if explores() {
        shuttle::thread::yield_now();
    }
}

/// Lets others go on until there is an answer. Only while orders are explored.
#[track_caller]
pub fn patiently<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    for _ in 0..ROUNDS {
        if let Some(answer) = ask() {
            return answer;
        }
        shuttle::thread::yield_now();
    }
    panic!("a thread waits for ever: nobody wakes it");
}

/// Asks `poll` to wait so long, or until it has something. `None` = the time is over.
pub fn sleep<T>(timeout: PollTimeout, mut poll: impl FnMut(PollTimeout) -> Option<T>) -> Option<T> {
    if explores() { Some(patiently(|| poll(PollTimeout::ZERO))) } else { poll(timeout) }
}

macro_rules! atomics {
    ($($name:ident: $value:ty),*) => {$(
        /// As in the standard library.
        #[derive(Debug, Default)]
        pub struct $name(atomic::$name);

        impl $name {
            /// Holds this.
            pub const fn new(value: $value) -> Self {
                Self(atomic::$name::new(value))
            }
            /// What it holds.
            pub fn load(&self, order: Ordering) -> $value {
                point();
                self.0.load(order)
            }
            /// Holds this from now on.
            pub fn store(&self, value: $value, order: Ordering) {
                point();
                self.0.store(value, order);
            }
            /// Likewise; returns what it held.
            pub fn swap(&self, value: $value, order: Ordering) -> $value {
                point();
                self.0.swap(value, order)
            }
        }
    )*};
}

atomics!(AtomicBool: bool, AtomicU32: u32, AtomicU64: u64);

impl AtomicU32 {
    /// Adds; returns what it held.
    pub fn fetch_add(&self, value: u32, order: Ordering) -> u32 {
        point();
        self.0.fetch_add(value, order)
    }
}

/// As in the standard library.
#[derive(Debug, Default)]
pub struct Mutex<T>(std::sync::Mutex<T>);

/// Its guard, which knows its mutex: [`Condvar`] gives that back and takes it again.
pub struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    guard: std::sync::MutexGuard<'a, T>,
}

impl<T> Mutex<T> {
    /// Holds this.
    pub const fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    /// Waits for it.
    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        point();
        let locked = if explores() {
            patiently(|| match self.0.try_lock() {
                Ok(guard) => Some(Ok(guard)),
                Err(TryLockError::Poisoned(error)) => Some(Err(error)),
                Err(TryLockError::WouldBlock) => None,
            })
        } else {
            self.0.lock()
        };
        self.guarded(locked)
    }

    fn guarded<'a>(&'a self, locked: LockResult<std::sync::MutexGuard<'a, T>>) -> LockResult<MutexGuard<'a, T>> {
        let guarded = |guard| MutexGuard { mutex: self, guard };
        locked.map(guarded).map_err(|error| PoisonError::new(guarded(error.into_inner())))
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

/// As in the standard library.
#[derive(Debug, Default)]
pub struct Condvar {
    inner: std::sync::Condvar,
    /// How often it was told.
    told: atomic::AtomicU64,
}

impl Condvar {
    /// Wakes all who wait.
    pub fn notify_all(&self) {
        point();
        self.told.fetch_add(1, Ordering::SeqCst);
        self.inner.notify_all();
    }

    /// Gives the mutex back until somebody notifies, or so long, which is for ever while orders are explored. With it whether it was too long.
    pub fn wait_timeout<'a, T>(&self, guard: MutexGuard<'a, T>, time: Duration) -> LockResult<(MutexGuard<'a, T>, bool)> {
        let MutexGuard { mutex, guard } = guard;
        point();
        if explores() {
            let told = self.told.load(Ordering::SeqCst);
            drop(guard);
            patiently(|| (self.told.load(Ordering::SeqCst) != told).then_some(()));
            return match mutex.lock() {
                Ok(guard) => Ok((guard, false)),
                Err(error) => Err(PoisonError::new((error.into_inner(), false))),
            };
        }
        match self.inner.wait_timeout(guard, time) {
            Ok((guard, late)) => Ok((MutexGuard { mutex, guard }, late.timed_out())),
            Err(error) => {
                let (guard, late) = error.into_inner();
                Err(PoisonError::new((MutexGuard { mutex, guard }, late.timed_out())))
            }
        }
    }
}

/// A bounded channel.
pub fn bounded<T>(depth: usize) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = crossbeam_channel::bounded(depth);
    (Sender(sender), Receiver(receiver))
}

/// As crossbeam's.
pub struct Sender<T>(crossbeam_channel::Sender<T>);

impl<T> Sender<T> {
    /// Sends if there is room.
    pub fn try_send(&self, item: T) -> Result<(), TrySendError<T>> {
        point();
        self.0.try_send(item)
    }
    /// Whether there is none.
    pub fn is_full(&self) -> bool {
        point();
        self.0.is_full()
    }
}

/// As crossbeam's.
pub struct Receiver<T>(crossbeam_channel::Receiver<T>);

impl<T> Receiver<T> {
    /// Takes one if there is one.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        point();
        self.0.try_recv()
    }
    /// How many there are.
    pub fn len(&self) -> usize {
        point();
        self.0.len()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
