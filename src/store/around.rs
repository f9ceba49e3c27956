//! A store around another one, such as one that measures or notes: it says only what it does otherwise, and everything else is handed on.
//!
//! What may be done otherwise is what a running router asks; what commands change goes to the inner store always.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::IpNet;

use super::{Aim, Asked, Found, News, RouteStore, Shelf, StoreError, StoredKey};
use crate::admission::Ban;
use crate::identity::{PublicKey, UserName};
use crate::route::Record;

/// A store around another one. Each method is the [`RouteStore`]'s of the same name.
#[expect(missing_docs, reason = "they stand in RouteStore")]
pub trait Around: Send + Sync {
    /// The store that it is around.
    fn inner(&self) -> &dyn RouteStore;

    fn check(&self) -> Result<(), StoreError> {
        self.inner().check()
    }

    fn owner(&self, key: &PublicKey) -> Result<Option<UserName>, StoreError> {
        self.inner().owner(key)
    }

    fn record(&self, user: &UserName) -> Result<Option<Record>, StoreError> {
        self.inner().record(user)
    }

    fn maintenance(&self) -> Result<Option<String>, StoreError> {
        self.inner().maintenance()
    }

    fn bans(&self) -> Result<Vec<Ban>, StoreError> {
        self.inner().bans()
    }

    fn look(&self, who: &[(&UserName, &PublicKey)]) -> Result<Vec<Found>, StoreError> {
        self.inner().look(who)
    }

    fn hear(&self, tell: &mut dyn FnMut(News)) -> Result<(), StoreError> {
        self.inner().hear(tell)
    }

    fn entry(&self, shelf: Shelf, address: &str) -> Result<Record, StoreError> {
        self.inner().entry(shelf, address)
    }

    fn put_entry(&self, shelf: Shelf, address: &str, fields: &Record) -> Result<bool, StoreError> {
        self.inner().put_entry(shelf, address, fields)
    }

    fn served(&self, asked: &[Asked<'_>]) {
        self.inner().served(asked);
    }

    fn lent(&self, asked: &[Asked<'_>]) -> Option<Duration> {
        self.inner().lent(asked)
    }

    fn stands_in(&self) -> bool {
        self.inner().stands_in()
    }
}

impl<A: Around> RouteStore for A {
    fn check(&self) -> Result<(), StoreError> {
        Around::check(self)
    }

    fn owner(&self, key: &PublicKey) -> Result<Option<UserName>, StoreError> {
        Around::owner(self, key)
    }

    fn record(&self, user: &UserName) -> Result<Option<Record>, StoreError> {
        Around::record(self, user)
    }

    fn maintenance(&self) -> Result<Option<String>, StoreError> {
        Around::maintenance(self)
    }

    fn bans(&self) -> Result<Vec<Ban>, StoreError> {
        Around::bans(self)
    }

    fn look(&self, who: &[(&UserName, &PublicKey)]) -> Result<Vec<Found>, StoreError> {
        Around::look(self, who)
    }

    fn hear(&self, tell: &mut dyn FnMut(News)) -> Result<(), StoreError> {
        Around::hear(self, tell)
    }

    fn entry(&self, shelf: Shelf, address: &str) -> Result<Record, StoreError> {
        Around::entry(self, shelf, address)
    }

    fn put_entry(&self, shelf: Shelf, address: &str, fields: &Record) -> Result<bool, StoreError> {
        Around::put_entry(self, shelf, address, fields)
    }

    fn served(&self, asked: &[Asked<'_>]) {
        Around::served(self, asked);
    }

    fn lent(&self, asked: &[Asked<'_>]) -> Option<Duration> {
        Around::lent(self, asked)
    }

    fn stands_in(&self) -> bool {
        Around::stands_in(self)
    }

    // From here on handed on.

    fn describe(&self) -> String {
        self.inner().describe()
    }

    fn place(&self, asked: Asked<'_>) -> String {
        self.inner().place(asked)
    }

    fn set_maintenance(&self, message: &str) -> Result<(), StoreError> {
        self.inner().set_maintenance(message)
    }

    fn is_shared(&self) -> bool {
        self.inner().is_shared()
    }

    fn add_ban(&self, ban: &Ban) -> Result<(), StoreError> {
        self.inner().add_ban(ban)
    }

    fn remove_ban(&self, network: &IpNet) -> Result<bool, StoreError> {
        self.inner().remove_ban(network)
    }

    fn version(&self) -> Option<u64> {
        self.inner().version()
    }

    fn is_empty(&self) -> Result<bool, StoreError> {
        self.inner().is_empty()
    }

    fn say(&self, text: &str) -> Result<(), StoreError> {
        self.inner().say(text)
    }

    fn publish(&self, node: &str, text: &str, life: Duration) -> Result<(), StoreError> {
        self.inner().publish(node, text, life)
    }

    fn nodes(&self) -> Result<Vec<String>, StoreError> {
        self.inner().nodes()
    }

    fn users(&self) -> Result<Vec<UserName>, StoreError> {
        self.inner().users()
    }

    fn keys(&self) -> Result<Vec<StoredKey>, StoreError> {
        self.inner().keys()
    }

    fn put(&self, user: &UserName, aim: Aim, fields: &Record, keys: &[(PublicKey, String)]) -> Result<(), StoreError> {
        self.inner().put(user, aim, fields, keys)
    }

    fn entries(&self, shelf: Shelf) -> Result<BTreeMap<String, Record>, StoreError> {
        self.inner().entries(shelf)
    }

    fn remove_user(&self, user: &UserName) -> Result<bool, StoreError> {
        self.inner().remove_user(user)
    }

    fn remove_key(&self, user: &str, base64: &str) -> Result<bool, StoreError> {
        self.inner().remove_key(user, base64)
    }
}
