//! A store whose answers are timed and whose failures are counted: those that sessions ask for, not those of the commands.

use std::sync::Arc;
use std::time::Instant;

use super::around::Around;
use super::{RouteStore, Shelf, StoreError};
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

impl Around for Measured {
    fn inner(&self) -> &dyn RouteStore {
        &*self.store
    }

    fn check(&self) -> Result<(), StoreError> {
        self.ask(Call::Check, |store| store.check())
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

    fn bans(&self) -> Result<Vec<Ban>, StoreError> {
        self.ask(Call::Bans, |store| store.bans())
    }

    fn entry(&self, shelf: Shelf, address: &str) -> Result<Record, StoreError> {
        self.ask(Call::Upstream, |store| store.entry(shelf, address))
    }
}
