//! Who may come in: how many connections at the same time, of whom, from where, and who is refused for what went before.
//!
//! Pure: time and chance are parameters. A [`Permit`] is taken before a thread is made and gives itself back when dropped, on every
//! path. Everything is bounded: a source or a user is known only while it has a connection, penalties have tables of fixed size.
//! Whose faults they are is judged in [`blame`], and only what is proven counts.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::config::admission::{Admission as Terms, Class, Startups};
use crate::identity::UserName;
use crate::order::{Mutex, MutexGuard};

mod bans;
mod penalties;
mod refusal;

pub use bans::{Ban, Bans, MAX_BANS, MAX_WHY};
pub use penalties::Sentence;
pub use refusal::{Came, Refusal, blame};

/// Counts what is there against the limits.
#[derive(Debug)]
pub struct Admission {
    terms: Terms,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    sessions: usize,
    startups: usize,
    /// Those that have a connection.
    sources: HashMap<IpNet, Count>,
    /// Those who have a session.
    users: HashMap<UserName, usize>,
    penalties: penalties::Debts,
    bans: Bans,
    refused: [u64; Refusal::COUNT],
}

#[derive(Debug, Default, Clone, Copy)]
struct Count {
    sessions: usize,
    startups: usize,
}

/// One connection's place. Unproven until [`Permit::proven`].
#[derive(Debug)]
pub struct Permit {
    admission: Arc<Admission>,
    unproven: bool,
    /// Where it is counted; `None` = where it comes from is not known yet.
    source: Option<IpNet>,
    /// Whose session it is, once that is counted.
    user: Option<UserName>,
    /// Connections there were with this one.
    pub sessions: usize,
}

/// How many there are of what, for who wants to show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figures {
    /// Connections.
    pub sessions: usize,
    /// Those that have not proven a key.
    pub startups: usize,
    /// Sources with a connection.
    pub sources: usize,
    /// Sources that owe something.
    pub penalties: usize,
    /// Bans that the store has.
    pub bans: usize,
    /// Refusals since the start, in the order of [`Refusal::NAMES`].
    pub refused: [u64; Refusal::COUNT],
}

impl Admission {
    /// Starts with nobody in.
    pub fn new(terms: Terms) -> Arc<Self> {
        Arc::new(Self { terms, state: Mutex::default() })
    }

    /// The terms.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// A place for a connection from `address`, or of one that has yet to say where it comes from, `None`, and is
    /// [located](Permit::locate) later. `dice` is a number from 0 to 99, by chance.
    pub fn admit(self: &Arc<Self>, address: Option<IpAddr>, now: Instant, dice: u32) -> Result<Permit, Refusal> {
        let mut state = self.lock();
        let source = address.map(|address| self.terms.blocks.source(address));
        let result = (|| {
            if let Some(address) = address {
                self.check_source(&mut state, address, now)?;
            }
            if state.sessions >= self.terms.sessions {
                return Err(Refusal::Sessions(state.sessions));
            }
            check_startups(self.terms.startups, state.startups, dice)?;
            if let Some(source) = source {
                self.check_counts(&state, source, 1)?;
            }
            Ok(())
        })();
        state.note(result)?;
        state.sessions += 1;
        state.startups += 1;
        if let Some(source) = source {
            state.enter(source, true);
        }
        Ok(Permit { admission: Arc::clone(self), unproven: true, source, user: None, sessions: state.sessions })
    }

    /// Whether a connection from `address` would be refused at `now` for where it comes from. Counts nothing.
    pub fn check(&self, address: IpAddr, now: Instant) -> Result<(), Refusal> {
        let mut state = self.lock();
        self.check_source(&mut state, address, now)?;
        self.check_counts(&state, self.terms.blocks.source(address), 1)
    }

    /// Whether one more session of a user would be refused. Counts nothing.
    pub fn check_user(&self, user: &UserName, limit: Option<usize>) -> Result<(), Refusal> {
        let limit = limit.unwrap_or(self.terms.user_sessions);
        match self.lock().users.get(user) {
            Some(&sessions) if limit != 0 && sessions >= limit => Err(Refusal::UserSessions(sessions)),
            _ => Ok(()),
        }
    }

    /// A client has done something wrong. `None` = that costs it nothing.
    pub fn penalise(&self, address: IpAddr, class: Class, now: Instant) -> Option<Sentence> {
        let rules = self.terms.penalties.as_ref().filter(|_| !self.terms.exempt.contains(address))?;
        self.lock().penalties.add(rules, self.terms.blocks.source(address), class, now)
    }

    /// Refused sources that other nodes have not been told of.
    pub fn unshared(&self, now: Instant) -> Vec<Ban> {
        let refused = self.lock().penalties.unshared(now);
        let ban = |(network, left, class): (_, _, Class)| Ban { network, left: Some(left), why: class.name().to_owned() };
        refused.into_iter().map(ban).collect()
    }

    /// Other nodes know of this one now.
    pub fn shared(&self, network: IpNet) {
        self.lock().penalties.shared(network);
    }

    /// The whole list of the store, asked for at `now`. What was shared and is not in it any more is forgiven.
    pub fn learn(&self, bans: &[Ban], now: Instant) {
        let bans = Bans::new(bans, now);
        let mut state = self.lock();
        state.penalties.forgive(|network| bans.has(network));
        state.bans = bans;
    }

    /// How many there are of what.
    pub fn figures(&self) -> Figures {
        let state = self.lock();
        Figures {
            sessions: state.sessions,
            startups: state.startups,
            sources: state.sources.len(),
            penalties: state.penalties.count(),
            bans: state.bans.count(),
            refused: state.refused,
        }
    }

    /// What holds for an address, whoever else is connected.
    fn check_source(&self, state: &mut State, address: IpAddr, now: Instant) -> Result<(), Refusal> {
        let address = address.to_canonical();
        if self.terms.deny.contains(address) {
            return Err(Refusal::Denied);
        }
        if !self.terms.allow.is_empty() && !self.terms.allow.contains(address) {
            return Err(Refusal::NotAllowed);
        }
        if let Some(network) = state.bans.holds(address, now) {
            return Err(Refusal::Banned(network));
        }
        let Some(rules) = self.terms.penalties.as_ref().filter(|_| !self.terms.exempt.contains(address)) else { return Ok(()) };
        let source = self.terms.blocks.source(address);
        if let Some((left, class)) = state.penalties.refused(source, now) {
            return Err(Refusal::Penalty(source, class, left));
        }
        if state.penalties.is_closed(rules, source, now) { Err(Refusal::PenaltiesFull) } else { Ok(()) }
    }

    /// What holds for a source because of its other connections; `more` = startups that this one adds.
    fn check_counts(&self, state: &State, source: IpNet, more: usize) -> Result<(), Refusal> {
        let Count { sessions, startups } = state.sources.get(&source).copied().unwrap_or_default();
        if self.terms.source_sessions != 0 && sessions >= self.terms.source_sessions {
            return Err(Refusal::SourceSessions(source, sessions));
        }
        if self.terms.source_startups != 0 && startups + more > self.terms.source_startups {
            return Err(Refusal::SourceStartups(source, startups));
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As sshd does it: the nearer to the limit, the more are refused, so that a flood of silent connections leaves a chance to others.
fn check_startups(terms: Startups, startups: usize, dice: u32) -> Result<(), Refusal> {
    if startups < terms.start {
        return Ok(());
    }
    if startups >= terms.full {
        return Err(Refusal::Startups(startups));
    }
    let (over, room) = (startups - terms.start, terms.full - terms.start);
    let rate = terms.rate as usize + (100 - terms.rate as usize) * over / room;
    if (dice as usize) < rate { Err(Refusal::StartupsDropped(startups)) } else { Ok(()) }
}

impl State {
    /// Counts a refusal.
    fn note<T>(&mut self, result: Result<T, Refusal>) -> Result<T, Refusal> {
        result.inspect_err(|refusal| self.refused[refusal.index()] += 1)
    }

    fn enter(&mut self, source: IpNet, unproven: bool) {
        let count = self.sources.entry(source).or_default();
        count.sessions += 1;
        count.startups += usize::from(unproven);
    }

    fn leave(&mut self, source: IpNet) {
        if let Some(count) = self.sources.get_mut(&source) {
            count.sessions -= 1;
            if count.sessions == 0 {
                self.sources.remove(&source);
            }
        }
    }
}

impl Permit {
    /// Where the connection comes from, now that it is known; also whether somebody from there may come in.
    pub fn locate(&mut self, address: IpAddr, now: Instant) -> Result<(), Refusal> {
        let admission = Arc::clone(&self.admission);
        let mut state = admission.lock();
        let source = admission.terms.blocks.source(address);
        let checked = admission.check_source(&mut state, address, now);
        let checked = checked.and_then(|()| admission.check_counts(&state, source, usize::from(self.unproven)));
        state.note(checked)?;
        if let Some(old) = self.source.replace(source) {
            state.leave(old);
        }
        state.enter(source, self.unproven);
        Ok(())
    }

    /// The client has proven a key: it no longer counts as a startup.
    pub fn proven(&mut self) {
        if std::mem::take(&mut self.unproven) {
            let mut state = self.admission.lock();
            state.startups -= 1;
            if let Some(count) = self.source.and_then(|source| state.sources.get_mut(&source)) {
                count.startups -= 1;
            }
        }
    }

    /// Whose session it is; `limit` = how many sessions the user's record allows, 0 = any number, `None` = it says nothing.
    pub fn count_user(&mut self, user: &UserName, limit: Option<usize>) -> Result<(), Refusal> {
        let limit = limit.unwrap_or(self.admission.terms.user_sessions);
        let mut state = self.admission.lock();
        let sessions = state.users.get(user).copied().unwrap_or_default();
        if limit != 0 && sessions >= limit {
            return state.note(Err(Refusal::UserSessions(sessions)));
        }
        if self.user.is_none() {
            *state.users.entry(user.clone()).or_default() += 1;
            self.user = Some(user.clone());
        }
        Ok(())
    }

    /// The terms.
    pub fn terms(&self) -> &Terms {
        &self.admission.terms
    }

    /// The connection is refused for a reason that the session has found.
    pub fn refuse(&self, refusal: Refusal) -> Refusal {
        let _ = self.admission.lock().note(Err::<(), _>(refusal.clone()));
        refusal
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.proven();
        let mut state = self.admission.lock();
        state.sessions -= 1;
        if let Some(source) = self.source {
            state.leave(source);
        }
        if let Some(user) = &self.user
            && let Some(sessions) = state.users.get_mut(user)
        {
            *sessions -= 1;
            if *sessions == 0 {
                state.users.remove(user);
            }
        }
    }
}

/// What is left of a ban, rounded up to seconds, for who reads it.
pub fn seconds(left: Duration) -> u64 {
    left.as_millis().div_ceil(1000) as u64
}

#[cfg(test)]
mod tests;
