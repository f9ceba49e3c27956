//! A store that goes on for a while when the store it is around is away: what that has said to logins that succeeded is told to new
//! ones (`SFTPPROXY_STORE_GRACE`).
//!
//! Only a store that does not answer is stood in for; what it answers counts, whatever that is. While it is away nobody asks it but one thread,
//! so that a login waits for no more than one time limit; that thread asks again what is remembered once the store is back or says that it may
//! have been changed unheard. Nothing is on disk. A store in a file needs no grace: it is in memory anyway.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::around::Around;
use super::{Asked, Found, News, RouteStore, Shelf, StoreError};
use crate::admission::Ban;
use crate::identity::{PublicKey, UserName};
use crate::route::Record;

mod memory;

use memory::{Memory, Times};

/// How often a store that is away is asked whether it is back.
const PROBE: Duration = Duration::from_millis(250);

/// How often the thread looks whether it is still needed.
const NAP: Duration = Duration::from_secs(1);

/// Users that are asked for in one question.
const BATCH: usize = 250;

/// What is remembered, and whether the store is away.
struct State {
    memory: Memory,
    away: Option<StoreError>,
    /// What is remembered is to be asked again.
    stale: bool,
}

/// The store, and what it has said.
pub struct Grace(Arc<Shared>);

struct Shared {
    store: Box<dyn RouteStore>,
    keep: Duration,
    state: Mutex<State>,
    bell: Condvar,
}

impl Grace {
    /// Stands in for a store with what it has said no longer ago than `keep`. An error is the lack of a thread.
    pub fn start(store: Box<dyn RouteStore>, keep: Duration) -> Result<Self, String> {
        let state = Mutex::new(State { memory: Memory::new(keep), away: None, stale: false });
        let shared = Arc::new(Shared { store, keep, state, bell: Condvar::new() });
        let weak = Arc::downgrade(&shared);
        let spawned = thread::Builder::new().name("grace".into()).spawn(move || attend(&weak));
        spawned.map_err(|error| format!("no thread: {error}"))?;
        Ok(Self(shared))
    }

    /// Asks the store unless it is away; `learn` keeps what it has said, `lend` stands in for it.
    fn ask<T>(
        &self,
        ask: impl FnOnce(&dyn RouteStore) -> Result<T, StoreError>,
        learn: impl FnOnce(&mut Memory, Option<&T>, Times),
        lend: impl FnOnce(&mut Memory, Instant) -> Option<T>,
    ) -> Result<T, StoreError> {
        let shared = &*self.0;
        let away = shared.lock().away.clone();
        let error = match away {
            Some(error) => error,
            None => match shared.ask(ask, learn) {
                Err(error) if error.away => error,
                answer => return answer,
            },
        };
        lend(&mut shared.lock().memory, Instant::now()).ok_or(error)
    }
}

impl Shared {
    /// Asks the store, whether it is away or not.
    fn ask<T>(
        &self,
        ask: impl FnOnce(&dyn RouteStore) -> Result<T, StoreError>,
        learn: impl FnOnce(&mut Memory, Option<&T>, Times),
    ) -> Result<T, StoreError> {
        let sent = Instant::now();
        let answer = ask(&*self.store);
        let times = Times { sent, came: Instant::now() };
        match &answer {
            Err(error) if error.away => self.lose(error),
            answer => learn(&mut self.lock().memory, answer.as_ref().ok(), times),
        }
        answer
    }

    fn lose(&self, error: &StoreError) {
        let mut state = self.lock();
        if state.away.replace(error.clone()).is_none() {
            let seconds = self.keep.as_secs();
            log::warn!(
                "the store is away: users that were seen in it within {seconds} s are let in by grace, others are refused: {error}"
            );
        }
        self.bell.notify_all();
    }

    /// Asks again what is remembered, so that what was changed unheard is known when the store goes away again.
    fn refresh(&self) -> Result<(), StoreError> {
        let (users, upstreams) = {
            let (state, now) = (self.lock(), Instant::now());
            (state.memory.users(now), state.memory.upstreams(now))
        };
        self.ask(|store| store.maintenance(), Memory::maintenance).map(drop).or_else(said)?;
        for batch in users.chunks(BATCH) {
            let who: Vec<_> = batch.iter().map(|(user, key)| (user, key)).collect();
            self.ask(|store| store.look(&who), |memory, found, times| look(memory, &who, found, times))
                .map(drop)
                .or_else(said)?;
        }
        for address in upstreams {
            let learn = |memory: &mut Memory, entry: Option<&Record>, times| memory.host(&address, entry, times);
            self.ask(|store| store.entry(Shelf::Hosts, &address), learn).map(drop).or_else(said)?;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was said is learnt, whatever it is; only a store that is away ends a round.
fn said(error: StoreError) -> Result<(), StoreError> {
    if error.away { Err(error) } else { Ok(()) }
}

fn look(memory: &mut Memory, who: &[(&UserName, &PublicKey)], found: Option<&Vec<Found>>, times: Times) {
    let found = found.into_iter().flatten();
    who.iter().zip(found).for_each(|(who, found)| memory.found(*who, found, times));
}

/// The thread: finds out when the store is back, and asks again what is stale.
fn attend(shared: &Weak<Shared>) {
    while let Some(shared) = shared.upgrade() {
        let quiet = |state: &mut State| state.away.is_none() && !state.stale;
        let waited = shared.bell.wait_timeout_while(shared.lock(), NAP, quiet);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let (away, stale) = (state.away.is_some(), state.stale);
        drop(state);
        if away {
            thread::sleep(PROBE);
            if shared.store.check().is_err_and(|error| error.away) {
                continue;
            }
            let mut state = shared.lock();
            (state.away, state.stale) = (None, true);
            log::info!("the store is back");
        } else if stale {
            shared.lock().stale = false;
            if shared.refresh().is_err() {
                shared.lock().stale = true;
            }
        }
    }
}

impl Around for Grace {
    fn inner(&self) -> &dyn RouteStore {
        &*self.0.store
    }

    fn check(&self) -> Result<(), StoreError> {
        self.ask(|store| store.check(), |_, _, _| (), |_, _| None)
    }

    fn owner(&self, key: &PublicKey) -> Result<Option<UserName>, StoreError> {
        self.ask(
            |store| store.owner(key),
            |memory, owner, times| memory.owner(key, owner, times),
            |memory, now| memory.lend_owner(key, now),
        )
    }

    fn record(&self, user: &UserName) -> Result<Option<Record>, StoreError> {
        self.ask(
            |store| store.record(user),
            |memory, record, times| memory.record(user, record, times),
            |memory, now| memory.lend_record(user, now),
        )
    }

    fn maintenance(&self) -> Result<Option<String>, StoreError> {
        self.ask(|store| store.maintenance(), Memory::maintenance, Memory::lend_maintenance)
    }

    fn bans(&self) -> Result<Vec<Ban>, StoreError> {
        self.ask(|store| store.bans(), |_, _, _| (), |_, _| None)
    }

    fn look(&self, who: &[(&UserName, &PublicKey)]) -> Result<Vec<Found>, StoreError> {
        self.ask(|store| store.look(who), |memory, found, times| look(memory, who, found, times), |_, _| None)
    }

    fn hear(&self, tell: &mut dyn FnMut(News)) -> Result<(), StoreError> {
        self.0.store.hear(&mut |news| {
            let mut state = self.0.lock();
            state.memory.news(&news, Instant::now());
            if matches!(news, News::Following { .. }) {
                state.stale = true;
                self.0.bell.notify_all();
            }
            drop(state);
            tell(news);
        })
    }

    fn entry(&self, shelf: Shelf, address: &str) -> Result<Record, StoreError> {
        match shelf {
            Shelf::Hosts => self.ask(
                |store| store.entry(shelf, address),
                |memory, entry, times| memory.host(address, entry, times),
                |memory, now| memory.lend_host(address, now),
            ),
            Shelf::Quarantine => self.ask(|store| store.entry(shelf, address), |_, _, _| (), |_, _| None),
        }
    }

    fn put_entry(&self, shelf: Shelf, address: &str, fields: &Record) -> Result<bool, StoreError> {
        self.ask(|store| store.put_entry(shelf, address, fields), |_, _, _| (), |_, _| None)
    }

    fn served(&self, asked: &[Asked<'_>]) {
        self.0.lock().memory.prove(asked);
    }

    fn lent(&self, asked: &[Asked<'_>]) -> Option<Duration> {
        self.0.lock().memory.lent(asked, Instant::now())
    }

    fn stands_in(&self) -> bool {
        let state = self.0.lock();
        state.away.is_some() && !state.memory.users(Instant::now()).is_empty()
    }
}
