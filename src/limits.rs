//! How fast the users who are connected may transfer, and the thread that learns when that was changed.
//!
//! A user's sessions share one [`Rate`] a direction. Only users whose record had a limit when they logged in are looked at again; a limit that is
//! given to others holds from their next login on. With nobody to look at, the thread sleeps.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use crate::error::shown;
use crate::identity::UserName;
use crate::rate::Rate;
use crate::route::Speed;

/// How often records are looked at, which is how late a change may come: few enough questions for a store with a thousand such users.
const LOOK: Duration = Duration::from_secs(5);

/// Both directions of a user.
#[derive(Debug)]
pub struct Rates {
    /// From the client to the upstream.
    pub up: Arc<Rate>,
    /// From the upstream to the client.
    pub down: Arc<Rate>,
}

/// Everybody's.
#[derive(Debug, Default)]
pub struct Limits {
    users: Mutex<HashMap<UserName, Weak<Rates>>>,
    came: Condvar,
}

impl Limits {
    /// The rates of a user whose record says `speed` now, shared with the user's other sessions; `None` = no limit.
    pub fn of(&self, user: &UserName, speed: Speed) -> Option<Arc<Rates>> {
        let mut users = self.lock();
        let known = users.get(user).and_then(Weak::upgrade);
        if known.is_none() && speed == Speed::default() {
            return None;
        }
        let rates = known.unwrap_or_else(|| Arc::new(Rates { up: Arc::new(Rate::new(0)), down: Arc::new(Rate::new(0)) }));
        rates.set(speed);
        users.insert(user.clone(), Arc::downgrade(&rates));
        self.came.notify_one();
        Some(rates)
    }

    /// Starts the thread; `look` says what a user's record has now, `None` when that cannot be said. An error is the lack of a thread.
    pub fn watch(self: &Arc<Self>, look: impl Fn(&UserName) -> Option<Speed> + Send + 'static) -> Result<(), String> {
        let limits = Arc::clone(self);
        let run = move || {
            loop {
                limits.wait();
                thread::sleep(LOOK);
                limits.refresh(&look);
            }
        };
        thread::Builder::new().name("limits".into()).spawn(run).map(drop).map_err(|error| format!("no thread: {error}"))
    }

    /// Waits until somebody with a limit is connected.
    fn wait(&self) {
        let users = self.came.wait_while(self.lock(), |users| users.is_empty());
        drop(users.unwrap_or_else(PoisonError::into_inner));
    }

    /// Looks at every user who is connected and forgets the others. The lock is not held while the store is asked.
    fn refresh(&self, look: &impl Fn(&UserName) -> Option<Speed>) {
        let connected: Vec<_> = {
            let mut users = self.lock();
            users.retain(|_, rates| rates.strong_count() > 0);
            users.iter().filter_map(|(user, rates)| Some((user.clone(), rates.upgrade()?))).collect()
        };
        for (user, rates) in connected {
            if let Some(speed) = look(&user)
                && rates.set(speed)
            {
                let Speed { up, down } = speed;
                log::info!("limit user=\"{}\" upload={up} download={down}", shown(user.as_str()));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<UserName, Weak<Rates>>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rates {
    fn set(&self, speed: Speed) -> bool {
        // Both, whatever the first one says.
        self.up.set(speed.up) | self.down.set(speed.down)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_of_a_user_share_their_rates_which_follow_the_record_and_are_forgotten_with_the_last() {
        let (limits, alice) = (Limits::default(), UserName::new("alice").unwrap());
        assert!(limits.of(&alice, Speed::default()).is_none());
        let one = limits.of(&alice, Speed { up: 8, down: 0 }).unwrap();
        let two = limits.of(&alice, Speed { up: 8, down: 0 }).unwrap();
        assert!(Arc::ptr_eq(&one, &two));
        limits.refresh(&|_| None);
        assert_eq!((one.up.piece(), one.down.piece()), (Some(4096), None));
        limits.refresh(&|_| Some(Speed { up: 0, down: 64 }));
        assert_eq!((one.up.piece(), one.down.piece()), (None, Some(8192)));
        drop((one, two));
        limits.refresh(&|_| panic!("nobody is there"));
        assert!(limits.lock().is_empty());
    }
}
