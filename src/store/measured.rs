//! A store whose answers are timed and whose failures are counted: those that sessions ask for, not those of the commands.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::{Aim, Asked, Found, News, RouteStore, Shelf, StoreError, StoredKey};
use crate::admission::Ban;
use crate::identity::{PublicKey, UserName};
use crate::metrics::Metrics;
use crate::metrics::labels::Call;
use crate::route::Record;

/// The store, and where it is counted.
pub struct Measured {
    store: Box<dyn RouteStore>,
    metrics: Arc<Metrics>,
}

impl Measured {
    /// Of a store.
    pub fn new(store: Box<dyn RouteStore>, metrics: &Arc<Metrics>) -> Self {
        Self { store, metrics: Arc::clone(metrics) }
    }

    fn ask<T>(&self, call: Call, ask: impl FnOnce(&dyn RouteStore) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let started = Instant::now();
        let answer = ask(&*self.store);
        self.metrics.store(call, started.elapsed(), answer.is_ok());
        answer
    }
}

impl RouteStore for Measured {
    fn describe(&self) -> String {
        self.store.describe()
    }

    fn check(&self) -> Result<(), StoreError> {
        self.ask(Call::Check, |store| store.check())
    }

    fn place(&self, asked: Asked<'_>) -> String {
        self.store.place(asked)
    }

    fn owner(&self, key: &PublicKey) -> Result<Option<UserName>, StoreError> {
        self.ask(Call::Owner, |store| store.owner(key))
    }

    fn record(&self, user: &UserName) -> Result<Option<Record>, StoreError> {
        self.ask(Call::Record, |store| store.record(user))
    }

    fn maintenance(&self) -> Result<Option<String>, StoreError> {
        self.ask(Call::Maintenance, |store| store.maintenance())
    }

    fn set_maintenance(&self, message: &str) -> Result<(), StoreError> {
        self.store.set_maintenance(message)
    }

    fn is_shared(&self) -> bool {
        self.store.is_shared()
    }

    fn bans(&self) -> Result<Vec<Ban>, StoreError> {
        self.ask(Call::Bans, |store| store.bans())
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
        self.ask(Call::Upstream, |store| store.entry(shelf, address))
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
