//! Who may come in: how many connections at the same time, and how many of them unproven.
//!
//! Pure. A [`Permit`] is taken before a thread is made and gives itself back when dropped, on every path.

use std::sync::{Arc, Mutex, PoisonError};

use crate::config::Limits;

/// Counts what is there against the limits.
#[derive(Debug)]
pub struct Admission {
    limits: Limits,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    sessions: usize,
    startups: usize,
}

/// One connection's place. Unproven until [`Permit::proven`].
#[derive(Debug)]
pub struct Permit {
    admission: Arc<Admission>,
    unproven: bool,
    /// Connections there were with this one.
    pub sessions: usize,
}

impl Admission {
    /// Starts with nobody in.
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, counts: Mutex::default() })
    }

    /// A place, or the limit that is reached.
    pub fn admit(self: &Arc<Self>) -> Result<Permit, String> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.sessions >= self.limits.sessions {
            return Err(format!("{} connections are open (SFTPPROXY_MAX_SESSIONS)", counts.sessions));
        }
        if counts.startups >= self.limits.startups {
            return Err(format!("{} connections have not proven a key (SFTPPROXY_MAX_STARTUPS)", counts.startups));
        }
        counts.sessions += 1;
        counts.startups += 1;
        Ok(Permit { admission: Arc::clone(self), unproven: true, sessions: counts.sessions })
    }
}

impl Permit {
    /// The client has proven a key: it no longer counts as a startup.
    pub fn proven(&mut self) {
        if std::mem::take(&mut self.unproven) {
            self.admission.counts.lock().unwrap_or_else(PoisonError::into_inner).startups -= 1;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.proven();
        self.admission.counts.lock().unwrap_or_else(PoisonError::into_inner).sessions -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn places_are_limited_and_come_back_on_every_path() {
        let second = Duration::from_secs(1);
        let admission = Admission::new(Limits { login_timeout: second, drain_timeout: second, sessions: 3, startups: 2 });
        let (mut one, two) = (admission.admit().unwrap(), admission.admit().unwrap());
        assert!(admission.admit().unwrap_err().contains("MAX_STARTUPS"));
        one.proven();
        one.proven();
        let three = admission.admit().unwrap();
        assert_eq!(three.sessions, 3);
        assert!(admission.admit().unwrap_err().contains("MAX_SESSIONS"));
        drop((one, two, three));
        let counts = admission.counts.lock().unwrap();
        assert_eq!((counts.sessions, counts.startups), (0, 0));
    }
}
