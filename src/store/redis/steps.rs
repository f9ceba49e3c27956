//! Changes of more than one entry where no transaction can hold them together: in a cluster a record and keys are at different nodes.
//!
//! A change is then a step for each entry, each whole for itself, in an order in which no half of it lets in anybody who should not come in: a
//! new record stands before the keys that lead to it, and of a user who is removed the record goes first, without which no key leads
//! anywhere. A fault says that it is half done, and what does the rest.

use std::fmt;

use redis::cmd;

use super::{Change, RedisStore, queue_fields};
use crate::error::shown;
use crate::identity::{PublicKey, UserName};
use crate::route::Record;
use crate::store::{Aim, RouteStore as _, StoreError, owned};

/// What does the rest of a change that broke off.
const AGAIN: &str = "run the same command again";

/// What became of a key that was to be a user's.
enum Claim {
    /// It is, since now.
    New,
    /// It was already.
    Old,
    /// It is another user's.
    Of(Vec<u8>),
}

impl RedisStore {
    /// Writes a record and keys. What is to be refused is refused before anything is written, unless somebody else writes at the same time.
    pub(super) fn put_in_steps(
        &self,
        user: &UserName,
        aim: Aim,
        fields: &Record,
        keys: &[(PublicKey, String)],
    ) -> Result<(), StoreError> {
        for (key, _) in keys {
            if let Some(owner) = self.stored_owner(key)?.filter(|owner| owner != user.as_str().as_bytes()) {
                return Err(owned(&key.fingerprint(), &String::from_utf8_lossy(&owner)));
            }
        }
        self.put_record(user, aim, fields)?;
        let rest = match aim {
            Aim::Create => "run the same command again with --update",
            Aim::Update => AGAIN,
        };
        let mut claimed = Vec::new();
        for (key, _) in keys {
            match self.claim(user, key).map_err(|error| half_done(&error, rest))? {
                Claim::New => claimed.push(key),
                Claim::Old => {}
                Claim::Of(owner) => {
                    let refusal = owned(&key.fingerprint(), &String::from_utf8_lossy(&owner));
                    return Err(match aim {
                        Aim::Create => self.take_back(user, &claimed, refusal),
                        Aim::Update => half_done(&refusal, rest),
                    });
                }
            }
        }
        Ok(())
    }

    /// Removes a user's record, then the keys.
    pub(super) fn remove_in_steps(&self, user: &UserName) -> Result<bool, StoreError> {
        let entry = self.user_entry(user);
        let mut removed: bool = self.links.ask(&entry, |connection| cmd("DEL").arg(&entry).query(connection))?;
        self.tell_changed(&entry);
        let keys = self.keys().map_err(|error| half_done(&error, AGAIN))?;
        for key in keys.iter().filter(|key| key.user == user.as_str()) {
            removed |= self.remove_key(&key.user, &key.base64).map_err(|error| half_done(&error, AGAIN))?;
        }
        Ok(removed)
    }

    fn stored_owner(&self, key: &PublicKey) -> Result<Option<Vec<u8>>, StoreError> {
        let entry = self.key_entry(&key.base64());
        self.links.ask(&entry, |connection| cmd("GET").arg(&entry).query(connection))
    }

    fn put_record(&self, user: &UserName, aim: Aim, fields: &Record) -> Result<(), StoreError> {
        let entry = self.user_entry(user);
        self.change(std::slice::from_ref(&entry), |connection, pipeline| {
            let length: u64 = cmd("HLEN").arg(&entry).query(connection)?;
            if let Err(refusal) = aim.check(user, length > 0) {
                return Ok(Change::Nothing(Err(refusal)));
            }
            queue_fields(pipeline, &entry, fields);
            Ok(Change::Queued(Ok(())))
        })?
    }

    fn claim(&self, user: &UserName, key: &PublicKey) -> Result<Claim, StoreError> {
        let entry = self.key_entry(&key.base64());
        self.links.ask(&entry, |connection| {
            let set: Option<String> = cmd("SET").arg(&entry).arg(user.as_str()).arg("NX").query(connection)?;
            if set.is_some() {
                return Ok(Claim::New);
            }
            let owner: Option<Vec<u8>> = cmd("GET").arg(&entry).query(connection)?;
            Ok(match owner {
                Some(owner) if owner == user.as_str().as_bytes() => Claim::Old,
                Some(owner) => Claim::Of(owner),
                // It has gone just now.
                None => Claim::Of(Vec::new()),
            })
        })
    }

    /// Removes what this change has made, keys first.
    fn take_back(&self, user: &UserName, claimed: &[&PublicKey], refusal: StoreError) -> StoreError {
        let entry = self.user_entry(user);
        let keys = claimed.iter().try_for_each(|key| self.remove_key(user.as_str(), &key.base64()).map(drop));
        let record = || self.links.ask(&entry, |connection| cmd("DEL").arg(&entry).exec(connection));
        match keys.and_then(|()| record()) {
            Ok(()) => refusal,
            Err(error) => StoreError::new(format!(
                "{refusal}, but for what could not be taken back ({error}): remove user \"{}\" before it is added again",
                shown(user.as_str())
            )),
        }
    }
}

fn half_done(error: &dyn fmt::Display, rest: &str) -> StoreError {
    StoreError::new(format!("{error}; the change is half done, and lets in nobody who should not come in: {rest}"))
}
