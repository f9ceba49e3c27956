//! Running sessions follow the store: what an operator takes away or changes reaches them within [`LIMIT`], on every node.
//!
//! A store that can say what was changed does ([`News`]), and the sessions of that user or key are looked at [`GRACE`] later. The others are
//! looked at every [`LOOK`], or, at a store that says everything, every [`SAFETY`]. What cannot be read ends nobody, and neither does a store
//! that has suddenly nobody in it: that is a store that was lost, not a wish.
//!
//! The same thread writes this node's sessions into the store for the other nodes' commands, and does what those want of it.

use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crate::control::{Desk, Order};
use crate::error::{Fault, Side, Stage, shown};
use crate::live::{Live, Way};
use crate::nodes::{self, Published};
use crate::route::Route;
use crate::session::World;
use crate::store::{Found, News, StoreError};

/// Within this a change is in force everywhere; what is below adds up to less.
pub const LIMIT: Duration = Duration::from_secs(2);

/// How often sessions are looked at when the store does not say what was changed.
const LOOK: Duration = Duration::from_secs(1);

/// How often they are looked at nevertheless when it does.
const SAFETY: Duration = Duration::from_secs(30);

/// How long after the news: whoever writes an entry anew may remove it first.
const GRACE: Duration = Duration::from_millis(300);

/// Sessions that are looked at in one question to the store.
const BATCH: usize = 250;

/// Names that are kept of what was changed; beyond it everybody is looked at.
const MAX_NAMED: usize = 1000;

/// How long after it was lost the store's news are asked for again.
const AGAIN: Duration = Duration::from_secs(1);

/// What is to be looked at.
#[derive(Default)]
struct Due {
    all: bool,
    users: HashSet<String>,
    keys: HashSet<String>,
    /// The store says everything that is changed.
    told: bool,
    /// This node's sessions are to be written now.
    hurry: bool,
}

impl Due {
    fn note(&mut self, news: News) {
        match news {
            News::Following { all } => (self.told, self.all) = (all, true),
            // What is gone afterwards was not taken away because it was named before.
            News::Lost => *self = Self { all: self.all || self.is_named(), hurry: self.hurry, ..Self::default() },
            News::User(user) => drop(self.users.insert(user)),
            News::Key(key) => drop(self.keys.insert(key)),
            News::Anything => self.all = true,
            News::Said(_) => {}
        }
        if self.users.len() + self.keys.len() > MAX_NAMED {
            *self = Self { all: true, told: self.told, hurry: self.hurry, ..Self::default() };
        }
    }

    fn names(&self, way: &Way) -> bool {
        self.users.contains(way.user.as_str()) || self.keys.contains(&way.key.base64())
    }

    fn is_named(&self) -> bool {
        !self.users.is_empty() || !self.keys.is_empty()
    }
}

/// What both threads share.
struct Follow {
    world: Weak<World>,
    desk: Arc<Desk>,
    due: Mutex<Due>,
    bell: Condvar,
}

/// Begins; `taken` = another router has been here before. An error is the lack of a thread.
pub fn watch(world: &Arc<World>, desk: &Arc<Desk>, taken: bool) -> Result<(), String> {
    let follow =
        Arc::new(Follow { world: Arc::downgrade(world), desk: Arc::clone(desk), due: Mutex::default(), bell: Condvar::new() });
    let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
        thread::Builder::new().name(name.into()).spawn(run).map(drop).map_err(|error| format!("no thread: {error}"))
    };
    if world.store.is_shared() {
        let hearing = Arc::clone(&follow);
        spawn("news", Box::new(move || hearing.hear()))?;
    }
    spawn("follow", Box::new(move || follow.run(Published::nothing(taken))))
}

impl Follow {
    /// Hears the store's news for ever.
    fn hear(&self) {
        loop {
            let Some(world) = self.world.upgrade() else { return };
            let heard = world.store.hear(&mut |news| {
                match &news {
                    News::Said(text) => self.obey(text),
                    _ => self.lock().note(news),
                }
                self.bell.notify_all();
            });
            if let Err(error) = heard {
                log::debug!("no news of the store: {error}");
            }
            self.lock().note(News::Lost);
            thread::sleep(AGAIN);
        }
    }

    fn obey(&self, text: &str) {
        let done = serde_json::from_str::<Order>(text).map_err(|error| error.to_string());
        match done.and_then(|order| self.desk.obey(&order)) {
            Ok(0) => {}
            Ok(count) => {
                log::info!("kick sessions={count} by=\"another node\"");
                // The one that has asked waits for it.
                self.lock().hurry = true;
            }
            Err(reason) => log::warn!("an order of another node is not understood: {}", shown(&reason)),
        }
    }

    fn run(&self, mut published: Published) {
        let mut state = State { looked: Instant::now(), version: None, owing: false, failing: None };
        loop {
            let due = self.wait();
            let Some(world) = self.world.upgrade() else { return };
            state.look(&world, &self.desk, &due);
            if due.hurry {
                published.hurry();
            }
            nodes::publish(&world, &self.desk, &mut published);
        }
    }

    /// Waits until it is time, or something was said.
    fn wait(&self) -> Due {
        let quiet = |due: &mut Due| !due.all && !due.is_named() && !due.hurry;
        let (due, timeout) = self.bell.wait_timeout_while(self.lock(), LOOK, quiet).unwrap_or_else(PoisonError::into_inner);
        drop(due);
        if !timeout.timed_out() {
            thread::sleep(GRACE);
        }
        let mut due = self.lock();
        let told = due.told;
        std::mem::replace(&mut *due, Due { told, ..Due::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Due> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the thread remembers from one look to the next.
struct State {
    /// When everybody was looked at.
    looked: Instant,
    /// Of a store that has versions, the one that was looked at.
    version: Option<u64>,
    /// Somebody was to be looked at and could not be.
    owing: bool,
    /// Why the store could not be looked at.
    failing: Option<String>,
}

impl State {
    fn look(&mut self, world: &World, desk: &Desk, due: &Due) {
        let version = world.store.version();
        let every = if due.told { SAFETY } else { LOOK / 2 };
        let timely = version.is_none() && self.looked.elapsed() >= every;
        let all = due.all || self.owing || timely || version != self.version;
        let sessions = desk.registry.sessions();
        let chosen: Vec<_> = sessions
            .iter()
            .filter_map(|live| live.way().map(|way| (live, way)))
            // Who came while the store was changed may have read what was there before.
            .filter(|(_, way)| all || !way.seen() || due.names(way))
            .collect();
        match check(world, &chosen, due) {
            Ok(()) => {
                if self.failing.take().is_some() {
                    log::info!("running sessions follow the store again");
                }
                self.owing = false;
                if all {
                    (self.looked, self.version) = (Instant::now(), version);
                }
                chosen.iter().for_each(|(_, way)| way.mark_seen());
            }
            Err(error) => {
                if self.failing.as_ref() != Some(&error.what) {
                    log::warn!("running sessions go on as they are, the store cannot be asked about them: {error}");
                }
                self.failing = Some(error.what);
                self.owing = true;
            }
        }
    }
}

/// Looks at sessions and ends those that may not go on.
fn check(world: &World, chosen: &[(&Arc<Live>, &Way)], due: &Due) -> Result<(), StoreError> {
    let mut found = Vec::with_capacity(chosen.len());
    for batch in chosen.chunks(BATCH) {
        let asked: Vec<_> = batch.iter().map(|(_, way)| (&way.user, &way.key)).collect();
        found.extend(world.store.look(&asked)?);
    }
    let nobody = |found: &Found| matches!((&found.owner, &found.record), (Ok(None), Ok(None)));
    let unnamed = chosen.iter().any(|(_, way)| !due.names(way));
    if !found.is_empty() && found.iter().all(nobody) && unnamed && world.store.is_empty()? {
        return Err(StoreError::new(format!("{} has no users at all any more; it is taken for lost", world.store.describe())));
    }
    for ((live, way), found) in chosen.iter().zip(&found) {
        if let Some((what, told)) = judge(world, live, way, found) {
            live.control().cut(Fault::new(Side::Store, Stage::Relay, what).told(told.to_owned()));
        }
    }
    Ok(())
}

/// Why a session may not go on, and what the user is told.
fn judge(world: &World, live: &Live, way: &Way, found: &Found) -> Option<(String, &'static str)> {
    // What could not be read says nothing.
    let (Ok(owner), Ok(record)) = (&found.owner, &found.record) else { return None };
    if owner.as_ref() != Some(&way.user) {
        return Some(("revoked: the key is no longer the user's".into(), "your key is no longer accepted"));
    }
    let Some(record) = record else {
        return Some(("revoked: the user was removed".into(), "your access was taken away"));
    };
    let route = match Route::parse(&way.user, record, &world.config.defaults) {
        Ok(route) => route,
        Err(reasons) => {
            return Some((format!("bad record: {reasons}"), "your access was changed; please tell your administrator"));
        }
    };
    let Way { user, route: old, .. } = way;
    if !(route.from.is_empty() || route.from.contains(live.peer().ip())) {
        return Some(("revoked: the user may not come from there any more".into(), "your access was changed"));
    }
    if !goes_the_same_way(old, &route) {
        return Some(("the route was changed".into(), "your server was changed; please connect again"));
    }
    if (&old.policy, &old.home, old.hash) != (&route.policy, &route.home, route.hash) {
        return Some(("what the user may do was changed".into(), "what you may do was changed; please connect again"));
    }
    if world.limits.change(user, route.speed) {
        let (up, down) = (route.speed.up, route.speed.down);
        log::info!("limit user=\"{}\" upload={up} download={down}", shown(user.as_str()));
    }
    None
}

/// To the same account of the same host, trusted by the same keys; and the key for it is not taken away: a rotation keeps it as the old one.
fn goes_the_same_way(old: &Route, new: &Route) -> bool {
    let key_stays = old.keys.now == new.keys.now || (old.keys.now.is_some() && old.keys.now == new.keys.old);
    key_stays && (&old.remote, old.port, &old.login, &old.pins) == (&new.remote, new.port, &new.login, &new.pins)
}
