//! A store that notes what a login asks it and what it answers: `explain` shows what was read where.
//!
//! It answers nothing itself. What is written goes through it unnoted.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ipnet::IpNet;

use super::{Aim, Asked, Found, News, RouteStore, Shelf, StoreError, StoredKey};
use crate::admission::Ban;
use crate::identity::{PublicKey, UserName};
use crate::route::Record;

/// What a store has said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// There is no such entry.
    Nothing,
    /// An entry that is one text.
    Text(String),
    /// An entry with fields.
    Fields(Record),
    /// It could not say.
    Failed(String),
}

/// One look into a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// Where it looked.
    pub place: String,
    /// What it found.
    pub answer: Answer,
}

/// The store, and what it was asked.
pub struct Noted<'a> {
    store: &'a dyn RouteStore,
    reads: Mutex<Vec<Read>>,
}

impl<'a> Noted<'a> {
    /// Notes what `store` is asked from now on.
    pub fn new(store: &'a dyn RouteStore) -> Self {
        Self { store, reads: Mutex::default() }
    }

    /// What was read since the last call.
    pub fn take(&self) -> Vec<Read> {
        std::mem::take(&mut *self.reads.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note<T>(
        &self,
        asked: Asked<'_>,
        answer: Result<Option<T>, StoreError>,
        found: impl FnOnce(&T) -> Answer,
    ) -> Result<Option<T>, StoreError> {
        let noted = match &answer {
            Ok(Some(value)) => found(value),
            Ok(None) => Answer::Nothing,
            Err(error) => Answer::Failed(error.0.clone()),
        };
        let read = Read { place: self.store.place(asked), answer: noted };
        self.reads.lock().unwrap_or_else(PoisonError::into_inner).push(read);
        answer
    }
}

impl RouteStore for Noted<'_> {
    fn describe(&self) -> String {
        self.store.describe()
    }

    fn check(&self) -> Result<(), StoreError> {
        self.store.check()
    }

    fn place(&self, asked: Asked<'_>) -> String {
        self.store.place(asked)
    }

    fn owner(&self, key: &PublicKey) -> Result<Option<UserName>, StoreError> {
        self.note(Asked::Owner(key), self.store.owner(key), |owner| Answer::Text(owner.to_string()))
    }

    fn record(&self, user: &UserName) -> Result<Option<Record>, StoreError> {
        self.note(Asked::Record(user), self.store.record(user), |record| Answer::Fields(record.clone()))
    }

    fn maintenance(&self) -> Result<Option<String>, StoreError> {
        self.note(Asked::Maintenance, self.store.maintenance(), |message| Answer::Text(message.clone()))
    }

    fn set_maintenance(&self, message: &str) -> Result<(), StoreError> {
        self.store.set_maintenance(message)
    }

    fn is_shared(&self) -> bool {
        self.store.is_shared()
    }

    fn bans(&self) -> Result<Vec<Ban>, StoreError> {
        let bans = self.note(Asked::Bans, self.store.bans().map(Some), |bans| match bans.len() {
            0 => Answer::Nothing,
            1 => Answer::Text("1 network".into()),
            count => Answer::Text(format!("{count} networks")),
        });
        bans.map(Option::unwrap_or_default)
    }

    fn add_ban(&self, ban: &Ban) -> Result<(), StoreError> {
        self.store.add_ban(ban)
    }

    fn remove_ban(&self, network: &IpNet) -> Result<bool, StoreError> {
        self.store.remove_ban(network)
    }

    fn look(&self, who: &[(&UserName, &PublicKey)]) -> Result<Vec<Found>, StoreError> {
        self.store.look(who)
    }

    fn version(&self) -> Option<u64> {
        self.store.version()
    }

    fn is_empty(&self) -> Result<bool, StoreError> {
        self.store.is_empty()
    }

    fn hear(&self, tell: &mut dyn FnMut(News)) -> Result<(), StoreError> {
        self.store.hear(tell)
    }

    fn say(&self, text: &str) -> Result<(), StoreError> {
        self.store.say(text)
    }

    fn publish(&self, node: &str, text: &str, life: Duration) -> Result<(), StoreError> {
        self.store.publish(node, text, life)
    }

    fn nodes(&self) -> Result<Vec<String>, StoreError> {
        self.store.nodes()
    }

    fn users(&self) -> Result<Vec<UserName>, StoreError> {
        self.store.users()
    }

    fn keys(&self) -> Result<Vec<StoredKey>, StoreError> {
        self.store.keys()
    }

    fn put(&self, user: &UserName, aim: Aim, fields: &Record, keys: &[(PublicKey, String)]) -> Result<(), StoreError> {
        self.store.put(user, aim, fields, keys)
    }

    fn entry(&self, shelf: Shelf, address: &str) -> Result<Record, StoreError> {
        let entry = self.store.entry(shelf, address).map(|entry| Some(entry).filter(|entry| !entry.is_empty()));
        let entry = self.note(Asked::Entry(shelf, address), entry, |entry| Answer::Fields(entry.clone()));
        entry.map(Option::unwrap_or_default)
    }

    fn entries(&self, shelf: Shelf) -> Result<BTreeMap<String, Record>, StoreError> {
        self.store.entries(shelf)
    }

    fn put_entry(&self, shelf: Shelf, address: &str, fields: &Record) -> Result<bool, StoreError> {
        self.store.put_entry(shelf, address, fields)
    }

    fn remove_user(&self, user: &UserName) -> Result<bool, StoreError> {
        self.store.remove_user(user)
    }

    fn remove_key(&self, user: &str, base64: &str) -> Result<bool, StoreError> {
        self.store.remove_key(user, base64)
    }
}
