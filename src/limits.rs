//! How fast the users who are connected may transfer. A user's sessions share one [`Rate`] a direction; changes come while they run.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::identity::UserName;
use crate::rate::Rate;
use crate::route::Speed;

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
}

impl Limits {
    /// The rates of a user whose record says `speed` now, shared with the user's other sessions.
    pub fn of(&self, user: &UserName, speed: Speed) -> Arc<Rates> {
        let mut users = self.lock();
        let new = || Arc::new(Rates { up: Arc::new(Rate::new(0)), down: Arc::new(Rate::new(0)) });
        let rates = users.get(user).and_then(Weak::upgrade).unwrap_or_else(new);
        rates.set(speed);
        users.retain(|_, rates| rates.strong_count() > 0);
        users.insert(user.clone(), Arc::downgrade(&rates));
        rates
    }

    /// The limits of a user who is connected, from now on. `true` = they were others.
    pub fn change(&self, user: &UserName, speed: Speed) -> bool {
        let rates = self.lock().get(user).and_then(Weak::upgrade);
        rates.is_some_and(|rates| rates.set(speed))
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
        assert_eq!((one.up.piece(), one.down.piece()), (None, None));
        assert!(limits.change(&alice, Speed { up: 8, down: 0 }) && !limits.change(&alice, Speed { up: 8, down: 0 }));
        assert_eq!((one.up.piece(), two.down.piece()), (Some(4096), None));
        assert!(limits.change(&alice, Speed { up: 0, down: 64 }));
        assert_eq!((one.up.piece(), two.down.piece()), (None, Some(8192)));
        drop((one, two));
        assert!(!limits.change(&alice, Speed { up: 1, down: 1 }));
        let _bob = limits.of(&UserName::new("bob").unwrap(), Speed::default());
        assert_eq!(limits.lock().len(), 1);
    }
}
