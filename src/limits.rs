//! How fast the users who are connected may transfer, and the thread that learns when that was changed.
//!
//! A user's sessions share one [`Rate`] a direction. Only the records of users who transfer are looked at again, whether they had a limit or not:
//! sessions that wait cost the store nothing.

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

/// Bytes that a user must have moved since then: no limit is so low that who moves less would feel it.
const LEAST: u64 = 4 * 1024;

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
    /// The rates of a user whose record says `speed` now, shared with the user's other sessions.
    pub fn of(&self, user: &UserName, speed: Speed) -> Arc<Rates> {
        let mut users = self.lock();
        let new = || Arc::new(Rates { up: Arc::new(Rate::new(0)), down: Arc::new(Rate::new(0)) });
        let rates = users.get(user).and_then(Weak::upgrade).unwrap_or_else(new);
        rates.set(speed);
        users.insert(user.clone(), Arc::downgrade(&rates));
        self.came.notify_one();
        rates
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

    /// Waits until somebody is connected.
    fn wait(&self) {
        let users = self.came.wait_while(self.lock(), |users| users.is_empty());
        drop(users.unwrap_or_else(PoisonError::into_inner));
    }

    /// Looks at every user who is connected and transfers, and forgets those who have gone. The lock is not held while the store is asked.
    fn refresh(&self, look: &impl Fn(&UserName) -> Option<Speed>) {
        let connected: Vec<_> = {
            let mut users = self.lock();
            users.retain(|_, rates| rates.strong_count() > 0);
            users.iter().filter_map(|(user, rates)| Some((user.clone(), rates.upgrade()?))).collect()
        };
        for (user, rates) in connected {
            if rates.up.moved() + rates.down.moved() < LEAST {
                continue;
            }
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
        let one = limits.of(&alice, Speed::default());
        let two = limits.of(&alice, Speed::default());
        assert!(Arc::ptr_eq(&one, &two));
        limits.refresh(&|_| panic!("nothing was moved"));
        let pieces = || {
            one.down.took(1 << 20, std::time::Instant::now());
            (one.up.piece(), one.down.piece())
        };
        assert_eq!(pieces(), (None, None));
        limits.refresh(&|_| Some(Speed { up: 8, down: 0 }));
        assert_eq!(pieces(), (Some(4096), None));
        limits.refresh(&|_| None);
        assert_eq!(pieces(), (Some(4096), None));
        limits.refresh(&|_| Some(Speed { up: 0, down: 64 }));
        assert_eq!(pieces(), (None, Some(8192)));
        drop((one, two));
        limits.refresh(&|_| panic!("nobody is there"));
        assert!(limits.lock().is_empty());
    }
}
