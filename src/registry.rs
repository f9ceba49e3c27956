//! Who is connected: to see them, to end them, and to know when the last one has gone.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use crate::error::Fault;
use crate::live::{Live, Snapshot};
use crate::order::{Condvar, Mutex, MutexGuard};

/// All running sessions.
#[derive(Default)]
pub struct Registry {
    sessions: Mutex<HashMap<u64, Arc<Live>>>,
    changed: Condvar,
}

/// A session's entry; dropping it removes it, on every path.
pub struct Entry {
    registry: Arc<Registry>,
    id: u64,
}

impl Registry {
    /// Enters a session.
    pub fn enter(self: &Arc<Self>, live: Arc<Live>) -> Entry {
        let id = live.id();
        self.lock().insert(id, live);
        Entry { registry: Arc::clone(self), id }
    }

    /// The running sessions, in the order of their numbers.
    pub fn sessions(&self) -> Vec<Arc<Live>> {
        let mut sessions: Vec<_> = self.lock().values().cloned().collect();
        sessions.sort_by_key(|live| live.id());
        sessions
    }

    /// All of them as they are now. The lock is not held while each is asked.
    pub fn snapshots(&self) -> Vec<Snapshot> {
        self.sessions().iter().map(|live| live.snapshot()).collect()
    }

    /// The session of this number.
    pub fn find(&self, id: u64) -> Option<Arc<Live>> {
        self.lock().get(&id).cloned()
    }

    /// Ends every session now and says how many there were.
    pub fn cut(&self, fault: &Fault) -> usize {
        let sessions = self.lock();
        sessions.values().for_each(|live| live.control().cut(fault.clone()));
        sessions.len()
    }

    /// Waits until nobody is left, `until` has come, or `stop` says so after [`Self::nudge`]. Returns how many are left.
    pub fn wait_empty(&self, until: Instant, stop: impl Fn() -> bool) -> usize {
        let mut sessions = self.lock();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if sessions.is_empty() || left.is_zero() || stop() {
                return sessions.len();
            }
            sessions = self.changed.wait_timeout(sessions, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Makes [`Self::wait_empty`] ask its `stop` again.
    pub fn nudge(&self) {
        drop(self.lock());
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Live>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.registry.lock().remove(&self.id);
        self.registry.changed.notify_all();
    }
}

#[cfg(test)]
mod tests;
