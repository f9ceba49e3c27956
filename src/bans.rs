//! Keeps a node's penalties and the store's bans in step: what this node refuses is told to the others, what they and operators have
//! said is learnt, what an operator takes away is forgiven.
//!
//! A store that does not answer changes nothing: who is refused here stays so until the end of it, and nobody else is. It is asked
//! by a thread of its own, never when a connection comes.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::admission::Admission;
use crate::session::World;
use crate::store::{RouteStore, StoreError};

/// How often, which is how late a ban may come: few enough questions for a store with many nodes.
const LOOK: Duration = Duration::from_secs(2);

/// Sources that are told at once; the rest is told the next time.
const BATCH: usize = 256;

/// Begins, so that what the store has now holds for the first connection. An error is the lack of a thread.
pub fn watch(world: &Arc<World>) -> Result<(), String> {
    let mut said = None;
    tell(step(&world.admission, world.store.as_ref()), &mut said);
    let weak = Arc::downgrade(world);
    let run = move || {
        loop {
            thread::sleep(LOOK);
            let Some(world) = weak.upgrade() else { return };
            tell(step(&world.admission, world.store.as_ref()), &mut said);
        }
    };
    thread::Builder::new().name("bans".into()).spawn(run).map(drop).map_err(|error| format!("no thread: {error}"))
}

/// One round. The first error is the one that is returned; what can be done in spite of it is done.
fn step(admission: &Admission, store: &dyn RouteStore) -> Result<(), StoreError> {
    let mut told = Ok(());
    if store.is_shared() {
        for ban in admission.unshared(Instant::now()).into_iter().take(BATCH) {
            told = store.add_ban(&ban);
            if told.is_err() {
                break;
            }
            admission.shared(ban.network);
        }
    }
    let now = Instant::now();
    store.bans().map(|bans| admission.learn(&bans, now))?;
    told
}

/// Tells a fault once, and its end.
fn tell(result: Result<(), StoreError>, said: &mut Option<String>) {
    match result {
        Ok(()) if said.take().is_some() => log::info!("bans are in step with the store again"),
        Ok(()) => {}
        Err(error) => {
            if said.as_ref() != Some(&error.what) {
                log::warn!("bans are not in step with the store, those known stay in force: {error}");
            }
            *said = Some(error.what);
        }
    }
}
