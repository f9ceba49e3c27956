//! Where routes come from. One trait, two implementations: [`redis`] (the contract's data) and [`file`] (TOML);
//! stores [`around`] them add one thing each.
//!
//! A store holds two maps, key → user's name and user's name → record, the message of a maintenance, bans, and two [`Shelf`]s of what is known
//! of upstreams, nothing else. It parses no record and proves nothing.
//! Each call is bounded in time by the store's own limits. A store that fails says so; it never answers "no such user" instead.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use ipnet::IpNet;

use crate::admission::Ban;
use crate::error::shown;
use crate::identity::{Fingerprint, PublicKey, UserName};
use crate::route::Record;

pub mod around;
pub mod file;
pub mod grace;
pub mod measured;
pub mod noted;
pub mod redis;

/// Stack of a thread that asks a store, in bytes. The redis crate reads an answer that is a list in a list by recursion, 100 deep, whatever it
/// was asked for: unoptimised that is more than 1 MiB. What is not used is only address space.
pub const STACK: usize = 4 * 1024 * 1024;

/// Why a store could not answer: one line for the operator, without secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreError {
    /// The line.
    pub what: String,
    /// Whether the store did not answer, or said that it cannot at present. Else it has answered, with what is no answer.
    pub away: bool,
}

impl StoreError {
    /// Of a store that has answered, with what is no answer.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), away: false }
    }

    /// Of a store that has not answered.
    pub fn away(what: impl Into<String>) -> Self {
        Self { what: what.into(), away: true }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for StoreError {}

/// One entry of the map key → user, as it is stored: old data hold things here that are no keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredKey {
    /// What stands where the base64 of a key blob should stand.
    pub base64: String,
    /// The comment, where the store keeps one.
    pub comment: String,
    /// The user's name as stored.
    pub user: String,
}

/// What a writer believes of the user; the store writes nothing when it is not so any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aim {
    /// There is no record yet.
    Create,
    /// There is one.
    Update,
}

impl Aim {
    /// Whether that fits what is there.
    fn check(self, user: &UserName, exists: bool) -> Result<(), StoreError> {
        let user = shown(user.as_str());
        match (self, exists) {
            (Self::Create, true) => Err(StoreError::new(format!("there is a user \"{user}\" already; nothing was written"))),
            (Self::Update, false) => Err(StoreError::new(format!("there is no user \"{user}\"; nothing was written"))),
            _ => Ok(()),
        }
    }
}

/// Where entries about upstreams are, each by its address ([`crate::route::address`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shelf {
    /// What operators have said of them: [`crate::route::Host`].
    Hosts,
    /// Those that have shown a host key that is not the approved one. Written by the router itself, from a login.
    Quarantine,
}

/// What a login asks a store for.
#[derive(Debug, Clone, Copy)]
pub enum Asked<'a> {
    /// Whose key this is.
    Owner(&'a PublicKey),
    /// A user's record.
    Record(&'a UserName),
    /// Why nobody is let in.
    Maintenance,
    /// Which networks are refused.
    Bans,
    /// An upstream's entry.
    Entry(Shelf, &'a str),
}

/// What a store answers about a user and a key, each for itself.
#[derive(Debug)]
pub struct Found {
    /// The name of the user whose key it is.
    pub owner: Result<Option<UserName>, StoreError>,
    /// The user's record.
    pub record: Result<Option<Record>, StoreError>,
}

/// What a store says by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// From now on it says what is changed.
    Following {
        /// Everything, whoever changes it; else only some of it.
        all: bool,
    },
    /// A user's record was changed.
    User(String),
    /// A key's entry was changed: its base64.
    Key(String),
    /// Everything may have been changed.
    Anything,
    /// A node has [said](RouteStore::say) something.
    Said(String),
    /// It says nothing any more.
    Lost,
}

/// Routes, to read at each login and to change by the commands of `admin`.
pub trait RouteStore: Send + Sync {
    /// What the store is, for the log: kind and address, without secrets.
    fn describe(&self) -> String;

    /// Asks the store whether it can answer at all.
    fn check(&self) -> Result<(), StoreError>;

    /// Where the answer stands in the store, so that an operator can look it up there.
    fn place(&self, asked: Asked<'_>) -> String;

    /// The name of the user whose key this is.
    fn owner(&self, key: &PublicKey) -> Result<Option<UserName>, StoreError>;

    /// The user's record; `None` = there is no such user.
    fn record(&self, user: &UserName) -> Result<Option<Record>, StoreError>;

    /// Why nobody is let in at present, in the operator's words; `None` = everybody is.
    fn maintenance(&self) -> Result<Option<String>, StoreError>;

    /// Says so, or that everybody is let in again (an empty message).
    fn set_maintenance(&self, message: &str) -> Result<(), StoreError>;

    /// Whether other nodes see what this one writes, and a node may write on its own: penalties are shared then.
    fn is_shared(&self) -> bool;

    /// The networks that are refused now, at most [`crate::admission::MAX_BANS`].
    fn bans(&self) -> Result<Vec<Ban>, StoreError>;

    /// Refuses a network, in place of a ban for the same network and reason.
    fn add_ban(&self, ban: &Ban) -> Result<(), StoreError>;

    /// Takes away every ban of exactly this network. `false` = there was none.
    fn remove_ban(&self, network: &IpNet) -> Result<bool, StoreError>;

    /// Asks about running sessions: each one's user and key. The answers are in their order.
    fn look(&self, who: &[(&UserName, &PublicKey)]) -> Result<Vec<Found>, StoreError>;

    /// A number that is another one when something was changed; `None` = the store has none.
    fn version(&self) -> Option<u64>;

    /// Whether there is not one user in a store that may have been lost.
    fn is_empty(&self) -> Result<bool, StoreError>;

    /// Tells the store's news as they come; returns when there will be none any more.
    fn hear(&self, tell: &mut dyn FnMut(News)) -> Result<(), StoreError>;

    /// A login that has asked all this has succeeded.
    fn served(&self, asked: &[Asked<'_>]) {
        let _ = asked;
    }

    /// How long ago the store has said what a login that has asked all this was told, if that is not what it says now.
    fn lent(&self, asked: &[Asked<'_>]) -> Option<Duration> {
        let _ = asked;
        None
    }

    /// Whether somebody is let in although the store does not answer.
    fn stands_in(&self) -> bool {
        false
    }

    /// Says something to every node that hears the store's news.
    fn say(&self, text: &str) -> Result<(), StoreError>;

    /// Writes what other nodes shall read of this one, for this long; an empty text takes it away.
    fn publish(&self, node: &str, text: &str, life: Duration) -> Result<(), StoreError>;

    /// What the nodes have written.
    fn nodes(&self) -> Result<Vec<String>, StoreError>;

    /// All users' names, sorted.
    fn users(&self) -> Result<Vec<UserName>, StoreError>;

    /// All entries of the map key → user, sorted by user; dead ones too.
    fn keys(&self) -> Result<Vec<StoredKey>, StoreError>;

    /// Writes `fields` into a user's record (an empty value removes the field, fields that are not named stay) and adds `keys` (with
    /// comments), all or nothing. The error says when one of the keys is another user's, or when `aim` does not fit.
    fn put(&self, user: &UserName, aim: Aim, fields: &Record, keys: &[(PublicKey, String)]) -> Result<(), StoreError>;

    /// An upstream's entry; empty = there is none.
    fn entry(&self, shelf: Shelf, address: &str) -> Result<Record, StoreError>;

    /// All entries of a shelf, by address.
    fn entries(&self, shelf: Shelf) -> Result<BTreeMap<String, Record>, StoreError>;

    /// Writes fields into an upstream's entry (an empty value removes the field, fields that are not named stay; an entry without fields
    /// is gone). `false` = it came to nothing new: no field was added and none removed.
    fn put_entry(&self, shelf: Shelf, address: &str, fields: &Record) -> Result<bool, StoreError>;

    /// Removes a user's record and every key that names the user. `false` = there was neither.
    fn remove_user(&self, user: &UserName) -> Result<bool, StoreError>;

    /// Removes one key entry by what is stored, user's name included, so that dead entries can be removed too. `false` = there was none.
    fn remove_key(&self, user: &str, base64: &str) -> Result<bool, StoreError>;
}

/// The refusal of a key that another user has.
fn owned(key: &Fingerprint, owner: &str) -> StoreError {
    StoreError::new(format!("key {key} belongs to user \"{}\"; one key names one user, so nothing was written", shown(owner)))
}
