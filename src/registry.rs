//! Who is connected: to end them all, and to know when the last one has gone.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use crate::error::Fault;
use crate::relay::Control;

/// All running sessions.
#[derive(Default)]
pub struct Registry {
    sessions: Mutex<HashMap<u64, Arc<Control>>>,
    changed: Condvar,
}

/// A session's entry; dropping it removes it, on every path.
pub struct Entry {
    registry: Arc<Registry>,
    id: u64,
}

impl Registry {
    /// Enters a session.
    pub fn enter(self: &Arc<Self>, id: u64, control: Arc<Control>) -> Entry {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).insert(id, control);
        Entry { registry: Arc::clone(self), id }
    }

    /// Ends every session now and says how many there were.
    pub fn cut(&self, fault: &Fault) -> usize {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.values().for_each(|control| control.cut(fault.clone()));
        sessions.len()
    }

    /// Waits until nobody is left, `until` has come, or `stop` says so after [`Self::nudge`]. Returns how many are left.
    pub fn wait_empty(&self, until: Instant, stop: impl Fn() -> bool) -> usize {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
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
        drop(self.sessions.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.registry.sessions.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
        self.registry.changed.notify_all();
    }
}
