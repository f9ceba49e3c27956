//! A store that notes what a login asks it and what it answers: `explain` shows what was read where.
//!
//! It answers nothing itself. What is written goes through it unnoted.

use std::sync::{Mutex, PoisonError};

use super::around::Around;
use super::{Asked, RouteStore, Shelf, StoreError};
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
            Err(error) => Answer::Failed(error.what.clone()),
        };
        let read = Read { place: self.store.place(asked), answer: noted };
        self.reads.lock().unwrap_or_else(PoisonError::into_inner).push(read);
        answer
    }
}

impl Around for Noted<'_> {
    fn inner(&self) -> &dyn RouteStore {
        self.store
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

    fn bans(&self) -> Result<Vec<Ban>, StoreError> {
        let bans = self.note(Asked::Bans, self.store.bans().map(Some), |bans| match bans.len() {
            0 => Answer::Nothing,
            1 => Answer::Text("1 network".into()),
            count => Answer::Text(format!("{count} networks")),
        });
        bans.map(Option::unwrap_or_default)
    }

    fn entry(&self, shelf: Shelf, address: &str) -> Result<Record, StoreError> {
        let entry = self.store.entry(shelf, address).map(|entry| Some(entry).filter(|entry| !entry.is_empty()));
        let entry = self.note(Asked::Entry(shelf, address), entry, |entry| Answer::Fields(entry.clone()));
        entry.map(Option::unwrap_or_default)
    }
}
