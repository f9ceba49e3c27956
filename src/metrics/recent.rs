//! What the page shows of what has just happened: who and what was refused, and how upstreams are. Bounded: a flood of strangers does not
//! wash away what concerns users, since each kind has places of its own.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::error::shown;

/// Refusals of each kind that are kept.
const MAX_EACH: usize = 20;

/// Upstreams that are known, those that were asked for last.
const MAX_UPSTREAMS: usize = 200;

/// What was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A connection.
    Connection,
    /// A key that was offered.
    Key,
    /// A client that proved no key.
    Client,
    /// The login of a user who has proven a key.
    Login,
    /// An operation of a user.
    Operation,
}

impl Kind {
    const COUNT: usize = 5;

    /// Its word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Key => "key",
            Self::Client => "client",
            Self::Login => "login",
            Self::Operation => "operation",
        }
    }
}

/// One refusal. Its texts can be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What was refused.
    pub kind: Kind,
    /// The user, as far as known.
    pub user: String,
    /// From where.
    pub from: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Instant,
}

/// An upstream, as the last login has found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// What is wrong; `None` = nothing.
    pub fault: Option<String>,
    /// Since when it is so.
    pub since: Instant,
    /// When it was asked for last.
    last: Instant,
}

/// What has just happened.
#[derive(Debug, Default)]
pub struct Recent {
    refusals: Mutex<[VecDeque<Refusal>; Kind::COUNT]>,
    upstreams: Mutex<HashMap<String, Upstream>>,
}

impl Recent {
    /// Notes a refusal; texts are peers' and are made fit to be shown here, but for `reason`, which is ours.
    pub fn refused(&self, kind: Kind, (user, from): (&str, &str), reason: &str, at: Instant) {
        let refusal = Refusal { kind, user: shown(user), from: from.to_owned(), reason: reason.to_owned(), at };
        let refusals = &mut lock(&self.refusals)[kind as usize];
        refusals.truncate(MAX_EACH - 1);
        refusals.push_front(refusal);
    }

    /// All of them, the last one first.
    pub fn refusals(&self) -> Vec<Refusal> {
        let mut all: Vec<_> = lock(&self.refusals).iter().flatten().cloned().collect();
        all.sort_by_key(|refusal| std::cmp::Reverse(refusal.at));
        all
    }

    /// Notes how an upstream was found.
    pub fn upstream(&self, address: &str, fault: Option<&str>, at: Instant) {
        let mut upstreams = lock(&self.upstreams);
        let known = upstreams.get(address).filter(|known| known.fault.is_none() == fault.is_none());
        let since = known.map_or(at, |known| known.since);
        upstreams.insert(address.to_owned(), Upstream { fault: fault.map(str::to_owned), since, last: at });
        if upstreams.len() > MAX_UPSTREAMS
            && let Some(oldest) = upstreams.iter().min_by_key(|(_, known)| known.last).map(|(address, _)| address.clone())
        {
            upstreams.remove(&oldest);
        }
    }

    /// All that are known: those that fail first, then by address.
    pub fn upstreams(&self) -> Vec<(String, Upstream)> {
        let mut all: Vec<_> = lock(&self.upstreams).iter().map(|(address, known)| (address.clone(), known.clone())).collect();
        all.sort_by(|(one, a), (two, b)| (a.fault.is_none(), one).cmp(&(b.fault.is_none(), two)));
        all
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_flood_of_strangers_washes_no_user_away_and_nothing_grows() {
        let (recent, start) = (Recent::default(), Instant::now());
        recent.refused(Kind::Login, ("alice\n", "192.0.2.7"), "her server cannot be reached", start);
        for number in 0..1000_u64 {
            let at = start + Duration::from_secs(number + 1);
            recent.refused(Kind::Connection, ("", "198.51.100.1"), "banned", at);
            recent.upstream(&format!("10.0.0.1:{number}"), (number == 999).then_some("refused"), at);
        }
        let refusals = recent.refusals();
        assert_eq!((refusals.len(), refusals[0].kind), (MAX_EACH + 1, Kind::Connection));
        assert_eq!(refusals.last().map(|last| (last.kind, last.user.as_str())), Some((Kind::Login, "alice\\n")));
        let upstreams = recent.upstreams();
        assert_eq!((upstreams.len(), upstreams[0].0.as_str()), (MAX_UPSTREAMS, "10.0.0.1:999"));
    }

    #[test]
    fn an_upstream_is_good_or_failing_since_that_began() {
        let (recent, start) = (Recent::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        for (seconds, fault, since) in
            [(0, None, 0), (5, None, 0), (9, Some("refused"), 9), (12, Some("late"), 9), (20, None, 20)]
        {
            recent.upstream("10.0.0.7:22", fault, at(seconds));
            let found = recent.upstreams().remove(0).1;
            assert_eq!((found.fault.as_deref(), found.since), (fault, at(since)), "{seconds}");
        }
    }
}
