//! Upstreams that have shown a host key other than the approved one: noted in the store, for every node and for `host-key list`, with
//! one line in the log. Nothing more is refused than without it: each login is judged by what is approved.
//!
//! A note goes when the key that was missed is seen again by a login, when a login shows that the new one is approved meanwhile, or by
//! `host-key approve`.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::{Basis, Trust};
use crate::error::shown;
use crate::identity::{Fingerprint, PublicKey};
use crate::route::Record;
use crate::store::{RouteStore, Shelf, StoreError};

/// What is noted of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The key that was shown.
    pub key: PublicKey,
    /// Fingerprints of the keys that were approved then, separated by commas.
    pub approved: String,
    /// Who had approved them: `record`, `host` or a file.
    pub basis: String,
    /// When it was first seen, RFC 3339.
    pub since: String,
    /// By whose login.
    pub user: String,
}

/// The fields of an entry.
const FIELDS: [&str; 5] = ["key", "approved", "basis", "since", "user"];

impl Note {
    /// Reads an entry; `None` = there is none, or it is not one of ours.
    pub fn parse(entry: &Record) -> Option<Self> {
        let [key, approved, basis, since, user] = FIELDS.map(|field| entry.get(field).cloned().unwrap_or_default());
        let (key, _) = PublicKey::from_line(&key).ok()?;
        Some(Self { key, approved, basis, since, user })
    }

    fn entry(&self) -> Record {
        let key = format!("{} {}", self.key.kind(), self.key.base64());
        let values = [&key, &self.approved, &self.basis, &self.since, &self.user];
        FIELDS.into_iter().zip(values).map(|(field, value)| (field.to_owned(), value.clone())).collect()
    }
}

/// Takes an upstream's note away. `false` = there was none.
pub fn lift(store: &dyn RouteStore, address: &str) -> Result<bool, StoreError> {
    store.put_entry(Shelf::Quarantine, address, &FIELDS.into_iter().map(|field| (field.to_owned(), String::new())).collect())
}

/// What this process has said; it matters where the store cannot be written. One entry an upstream.
#[derive(Default)]
pub struct Quarantine(Mutex<HashMap<String, Fingerprint>>);

impl Quarantine {
    /// How many upstreams this process has seen with another key and not yet with the approved one.
    pub fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// An upstream has shown `key` to this user's login and `trust` approves others. The one place where a quarantine begins.
    pub(crate) fn begin(&self, store: &dyn RouteStore, address: &str, (key, user): (&PublicKey, &str), trust: &Trust) {
        let note = Note {
            key: key.clone(),
            approved: trust.approved(),
            basis: trust.basis.to_string(),
            since: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            user: user.to_owned(),
        };
        let new = store.entry(Shelf::Quarantine, address).and_then(|entry| {
            if Note::parse(&entry).is_some_and(|held| held.key == note.key) {
                return Ok(false);
            }
            // Another login may have been faster; then it has said so.
            Ok(store.put_entry(Shelf::Quarantine, address, &note.entry())? || !entry.is_empty())
        });
        let said = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(address.to_owned(), key.fingerprint());
        let unsaid = said != Some(key.fingerprint());
        if *new.as_ref().unwrap_or(&unsaid) {
            log::warn!(
                "quarantine upstream={} key=\"{} {}\" approved=\"{}\" by=\"{}\" user=\"{}\"",
                shown(address),
                key.kind(),
                key.fingerprint(),
                note.approved,
                shown(&note.basis),
                shown(user)
            );
        }
        if let Err(error) = new
            && unsaid
        {
            log::error!("the quarantine of {} is not recorded, host-key list does not show it: {error}", shown(address));
        }
    }

    /// An upstream has shown this user's login a key that `trust` approves: if that is the one that was missed, or the new one and it is
    /// approved where it was not, all is well again.
    pub(crate) fn end(&self, store: &dyn RouteStore, address: &str, (key, user): (&PublicKey, &str), trust: &Trust) {
        let Ok(entry) = store.entry(Shelf::Quarantine, address) else { return };
        let note = Note::parse(&entry);
        let print = key.fingerprint().to_string();
        // What another user's record pins says nothing of the pins that were missed.
        let common = |basis: &str| basis != Basis::Record.to_string();
        let again = |note: &Note| note.approved.split(", ").any(|approved| approved == print);
        let approved =
            |note: &Note| note.key == *key && (note.user == user || common(&note.basis) && common(&trust.basis.to_string()));
        if note.as_ref().is_some_and(|note| !again(note) && !approved(note)) {
            return;
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(address);
        if note.is_none() {
            return;
        }
        match lift(store, address) {
            Ok(true) => log::info!("release upstream={} key=\"{} {print}\"", shown(address), key.kind()),
            Ok(false) => {}
            Err(error) => log::warn!("the quarantine of {} cannot be lifted: {error}", shown(address)),
        }
    }
}
