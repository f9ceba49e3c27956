//! Routes in Redis, in the contract's shape: `<prefix>pubkey:<B64>` is a string, the user's name; `<prefix>user:<name>` is a hash.
//! Ours beside it, which pysftpproxy never reads: `<prefix>maintenance` is a string; `<prefix>host:<address>` and
//! `<prefix>quarantine:<address>` are hashes; `<prefix>bans` is a sorted set of `NETWORK WHY` by their ends in milliseconds, for the
//! server's clock, `+inf` = until they are taken away; `<prefix>nodes` is a sorted set of nodes likewise,
//! and `<prefix>node:<name>` a string, what that node has written of its sessions. What is said on channels is [`news`]'s.
//!
//! Each call of a login is one command. A change is one transaction (WATCH, MULTI, EXEC): it happens whole or not at all, whoever else
//! writes at the same time. Not here: connections and their faults, which are [`link`]'s. What Redis holds is not trusted to be text or
//! short: a user's name is read up to its bound, a record's field is refused beyond its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ipnet::IpNet;
use redis::{ConnectionLike, Pipeline, RedisResult, cmd};

use self::link::Links;
use self::news::Names;
use super::{Aim, Asked, Found, News, RouteStore, Shelf, StoreError, StoredKey};
use crate::admission::{Ban, MAX_BANS};
use crate::config;
use crate::error::{shown, shown_bytes};
use crate::identity::{MAX_USER_NAME, PublicKey, UserName};
use crate::network::parse_network;
use crate::route::{MAX_FIELD, MAX_MESSAGE, Record};

mod cluster;
mod connection;
pub mod link;
mod news;
mod place;
mod pool;
mod sentinel;
mod server;
mod slots;
mod socket;
mod steps;
mod words;

/// Entries asked for in one command when all are listed: replies stay small and the server is not held up.
const BATCH: usize = 1000;

/// Most fields of a record: ours are 6, and others' are few.
const MAX_FIELDS: usize = 1000;

/// Nodes that are read at most.
const MAX_NODES: usize = 256;

/// Last byte that is read of what a node has written: more than it writes.
const MAX_NODE: usize = 2 * 1024 * 1024;

/// How often a transaction begins again because somebody else wrote in between.
const ATTEMPTS: usize = 20;

/// The store.
#[derive(Debug)]
pub struct RedisStore {
    links: Links,
    prefix: String,
}

impl RedisStore {
    /// Checks the settings; connects when first asked.
    pub fn new(config: &config::Redis) -> Result<Self, StoreError> {
        Ok(Self { links: Links::new(config)?, prefix: config.prefix.clone() })
    }

    /// Every answer is the master's.
    pub fn without_replicas(mut self) -> Self {
        self.links.forget_replicas();
        self
    }

    fn key_entry(&self, base64: &str) -> String {
        format!("{}pubkey:{base64}", self.prefix)
    }

    fn user_entry(&self, user: &UserName) -> String {
        format!("{}user:{user}", self.prefix)
    }

    fn shelf_entry(&self, shelf: Shelf, address: &str) -> String {
        format!("{}{}:{address}", self.prefix, shelf_name(shelf))
    }

    /// A hash with its fields as text; `what` it is, for the fault.
    fn hash(&self, entry: &str, what: impl std::fmt::Display) -> Result<Record, StoreError> {
        let fields = self.links.read(entry, |connection| cmd("HGETALL").arg(entry).query(connection))?;
        self.read_hash(fields, what)
    }

    fn read_hash(&self, fields: BTreeMap<Vec<u8>, Vec<u8>>, what: impl std::fmt::Display) -> Result<Record, StoreError> {
        if fields.len() > MAX_FIELDS {
            return Err(self.fault(format_args!("{what} has more than {MAX_FIELDS} fields")));
        }
        let whole: Result<Record, String> = fields.into_iter().map(|(name, value)| text_field(&name, value)).collect();
        whole.map_err(|reason| self.fault(format_args!("{what}: {reason}")))
    }

    fn maintenance_entry(&self) -> String {
        format!("{}maintenance", self.prefix)
    }

    fn bans_entry(&self) -> String {
        format!("{}bans", self.prefix)
    }

    fn fault(&self, what: impl std::fmt::Display) -> StoreError {
        StoreError::new(format!("{}: {what}", self.links.describe()))
    }

    fn names(&self) -> Names<'_> {
        let (whole, silence) = (self.links.is_whole(), self.links.silence());
        Names { prefix: &self.prefix, db: self.links.db(), whole, silence }
    }

    fn node_entry(&self, node: &str) -> String {
        format!("{}node:{node}", self.prefix)
    }

    /// Tells the nodes what one of our commands has changed. Who may not publish is heard of otherwise, or looked at later.
    fn tell_changed(&self, entry: &str) {
        let channel = self.names().changed();
        let _ = self.links.any(&channel, |connection| cmd("PUBLISH").arg(&channel).arg(entry).exec(connection));
    }

    /// What follows `<prefix><kind>:` in every entry of that kind, sorted. SCAN may name an entry twice.
    fn list(&self, kind: &str) -> Result<BTreeSet<Vec<u8>>, StoreError> {
        let head = format!("{}{kind}:", self.prefix);
        let pattern = format!("{}*", escaped(&head));
        let mut found = BTreeSet::new();
        self.links.each(&mut |connection| {
            let mut cursor = 0_u64;
            loop {
                let mut scan = cmd("SCAN");
                scan.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(BATCH);
                let (next, entries): (u64, Vec<Vec<u8>>) = scan.query(connection)?;
                found.extend(entries.iter().filter_map(|entry| entry.strip_prefix(head.as_bytes())).map(<[u8]>::to_vec));
                if next == 0 {
                    return Ok(());
                }
                cursor = next;
            }
        })?;
        Ok(found)
    }

    /// One answer of many.
    fn answer<T: redis::FromRedisValue>(&self, answer: &Result<redis::Value, StoreError>) -> Result<T, StoreError> {
        T::from_redis_value(answer.clone()?).map_err(|error| self.fault(error))
    }

    /// The user's name that a key's entry holds.
    fn read_owner(&self, key: &PublicKey, value: Vec<u8>) -> Result<Option<UserName>, StoreError> {
        if value.is_empty() {
            return Ok(None);
        }
        let name = std::str::from_utf8(&value).map_err(|_| "not UTF-8".to_owned()).and_then(UserName::new);
        name.map(Some).map_err(|reason| {
            let value = shown_bytes(&value[..value.len().min(64)]);
            self.fault(format_args!("the entry of key {} does not hold a user's name (\"{value}\"): {reason}", key.fingerprint()))
        })
    }

    /// Runs `work` with `entries` watched; `work` queues its changes or answers that there is nothing to do.
    fn change<T>(
        &self,
        entries: &[String],
        mut work: impl FnMut(&mut dyn ConnectionLike, &mut Pipeline) -> RedisResult<Change<T>>,
    ) -> Result<T, StoreError> {
        let done = self.links.ask(&entries[0], |connection| {
            for _ in 0..ATTEMPTS {
                cmd("WATCH").arg(entries).exec(connection)?;
                let mut pipeline = redis::pipe();
                let answer = match work(connection, pipeline.atomic())? {
                    Change::Nothing(answer) => {
                        cmd("UNWATCH").exec(connection)?;
                        return Ok(Some(answer));
                    }
                    Change::Queued(answer) => answer,
                };
                if pipeline.query::<Option<redis::Value>>(connection)?.is_some() {
                    return Ok(Some(answer));
                }
            }
            Ok(None)
        })?;
        done.ok_or_else(|| self.fault("somebody else keeps changing the same entries; nothing was changed, try again"))
    }
}

/// What the body of a transaction came to.
enum Change<T> {
    /// Commands were queued.
    Queued(T),
    /// There is nothing to write.
    Nothing(T),
}

impl RouteStore for RedisStore {
    fn describe(&self) -> String {
        format!("{}, entries {}*", self.links.describe(), shown(&self.prefix))
    }

    fn check(&self) -> Result<(), StoreError> {
        // Not PING: what has to work is reading our entries, also for an ACL user who may do nothing else.
        let entry = self.key_entry("");
        self.links.any(&entry, |connection| cmd("GETRANGE").arg(&entry).arg(0).arg(0).exec(connection))
    }

    fn place(&self, asked: Asked<'_>) -> String {
        match asked {
            Asked::Owner(key) => self.key_entry(&key.base64()),
            Asked::Record(user) => self.user_entry(user),
            Asked::Maintenance => self.maintenance_entry(),
            Asked::Bans => self.bans_entry(),
            Asked::Entry(shelf, address) => self.shelf_entry(shelf, address),
        }
    }

    fn owner(&self, key: &PublicKey) -> Result<Option<UserName>, StoreError> {
        let entry = self.key_entry(&key.base64());
        // GETRANGE instead of GET: a value of any size costs no more than the longest name and one byte. Missing = empty.
        let range = |connection: &mut dyn ConnectionLike| cmd("GETRANGE").arg(&entry).arg(0).arg(MAX_USER_NAME).query(connection);
        let value: Vec<u8> = self.links.read(&entry, range)?;
        self.read_owner(key, value)
    }

    fn record(&self, user: &UserName) -> Result<Option<Record>, StoreError> {
        let record = self.hash(&self.user_entry(user), of_user(user))?;
        Ok((!record.is_empty()).then_some(record))
    }

    fn maintenance(&self) -> Result<Option<String>, StoreError> {
        let entry = self.maintenance_entry();
        let range =
            |connection: &mut dyn ConnectionLike| cmd("GETRANGE").arg(&entry).arg(0).arg(MAX_MESSAGE - 1).query(connection);
        let value: Vec<u8> = self.links.read(&entry, range)?;
        // Whatever somebody has put there by hand is a wish that nobody be let in.
        let text = String::from_utf8_lossy(&value).replace(char::is_control, " ");
        Ok((!text.is_empty()).then_some(text))
    }

    fn set_maintenance(&self, message: &str) -> Result<(), StoreError> {
        let entry = self.maintenance_entry();
        self.links.ask(&entry, |connection| match message {
            "" => cmd("DEL").arg(&entry).exec(connection),
            message => cmd("SET").arg(&entry).arg(message).exec(connection),
        })
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn bans(&self) -> Result<Vec<Ban>, StoreError> {
        let entry = self.bans_entry();
        let (now, rows) = self.links.ask(&entry, |connection| {
            let now = milliseconds(connection)?;
            let mut range = cmd("ZRANGEBYSCORE");
            range.arg(&entry).arg(format!("({now}")).arg("+inf").arg("WITHSCORES").arg("LIMIT").arg(0).arg(MAX_BANS);
            Ok((now, range.query::<Vec<(Vec<u8>, f64)>>(connection)?))
        })?;
        // What is no network keeps nobody out, and nobody in.
        Ok(rows.iter().filter_map(|(member, until)| ban(member, *until, now)).collect())
    }

    fn add_ban(&self, ban: &Ban) -> Result<(), StoreError> {
        let (entry, member) = (self.bans_entry(), format!("{} {}", ban.network, ban.why));
        let there = self.links.ask(&entry, |connection| {
            let now = milliseconds(connection)?;
            cmd("ZREMRANGEBYSCORE").arg(&entry).arg("-inf").arg(now).exec(connection)?;
            let there: usize = cmd("ZCARD").arg(&entry).query(connection)?;
            if there < MAX_BANS {
                let until = ban.left.map_or("+inf".to_owned(), |left| (now + left.as_millis() as u64).to_string());
                cmd("ZADD").arg(&entry).arg(until).arg(&member).exec(connection)?;
            }
            Ok(there)
        })?;
        if there < MAX_BANS { Ok(()) } else { Err(self.fault(format_args!("there are {MAX_BANS} bans already"))) }
    }

    fn remove_ban(&self, network: &IpNet) -> Result<bool, StoreError> {
        let (entry, head) = (self.bans_entry(), format!("{network} "));
        self.links.ask(&entry, |connection| {
            let members: Vec<Vec<u8>> = cmd("ZRANGE").arg(&entry).arg(0).arg(-1).query(connection)?;
            let theirs: Vec<_> = members.into_iter().filter(|member| member.starts_with(head.as_bytes())).collect();
            if theirs.is_empty() {
                return Ok(false);
            }
            cmd("ZREM").arg(&entry).arg(theirs).query(connection).map(|removed: usize| removed > 0)
        })
    }

    fn look(&self, who: &[(&UserName, &PublicKey)]) -> Result<Vec<Found>, StoreError> {
        let mut commands = Vec::with_capacity(who.len() * 2);
        for (user, key) in who {
            let (key, user) = (self.key_entry(&key.base64()), self.user_entry(user));
            commands.push((key.clone(), cmd("GETRANGE").arg(key).arg(0).arg(MAX_USER_NAME).clone()));
            commands.push((user.clone(), cmd("HGETALL").arg(user).clone()));
        }
        let answers = self.links.many(&commands)?;
        let read = |(answers, (user, key)): (&[Result<redis::Value, StoreError>], &(&UserName, &PublicKey))| {
            let [owner, record] = answers else { return Err(self.fault("an answer is missing")) };
            Ok(Found {
                owner: self.answer(owner).and_then(|value| self.read_owner(key, value)),
                record: self
                    .answer(record)
                    .and_then(|fields| self.read_hash(fields, of_user(user)))
                    .map(|record| (!record.is_empty()).then_some(record)),
            })
        };
        answers.chunks(2).zip(who).map(read).collect()
    }

    fn version(&self) -> Option<u64> {
        None
    }

    fn is_empty(&self) -> Result<bool, StoreError> {
        Ok(self.list("user")?.is_empty())
    }

    fn hear(&self, tell: &mut dyn FnMut(News)) -> Result<(), StoreError> {
        let (whose, connection) = self.links.apart()?;
        let mut look = || self.links.look_around(&whose);
        let heard = news::hear(connection, &self.names(), &mut look, tell);
        // What has become of this connection has become of the others, for all that is known.
        self.links.renew();
        heard.map_err(|failed| match failed {
            news::Failed::Said(error) => self.links.says(&whose, &error),
            news::Failed::Moved(error) => error,
        })
    }

    fn say(&self, text: &str) -> Result<(), StoreError> {
        let channel = self.names().said();
        self.links.any(&channel, |connection| cmd("PUBLISH").arg(&channel).arg(text).exec(connection))
    }

    fn publish(&self, node: &str, text: &str, life: Duration) -> Result<(), StoreError> {
        let (entry, nodes) = (self.node_entry(node), format!("{}nodes", self.prefix));
        let life = life.as_millis() as u64;
        self.links.ask(&entry, |connection| match text {
            "" => cmd("DEL").arg(&entry).exec(connection),
            text => cmd("SET").arg(&entry).arg(text).arg("PX").arg(life).exec(connection),
        })?;
        self.links.ask(&nodes, |connection| {
            let now = milliseconds(connection)?;
            cmd("ZREMRANGEBYSCORE").arg(&nodes).arg("-inf").arg(now).exec(connection)?;
            match text {
                "" => cmd("ZREM").arg(&nodes).arg(node).exec(connection),
                _ => cmd("ZADD").arg(&nodes).arg(now + life).arg(node).exec(connection),
            }
        })
    }

    fn nodes(&self) -> Result<Vec<String>, StoreError> {
        let nodes = format!("{}nodes", self.prefix);
        let names: Vec<String> = self.links.ask(&nodes, |connection| {
            let now = milliseconds(connection)?;
            let mut range = cmd("ZRANGEBYSCORE");
            range.arg(&nodes).arg(format!("({now}")).arg("+inf").arg("LIMIT").arg(0).arg(MAX_NODES);
            range.query(connection)
        })?;
        let text = |name: &String| {
            let entry = self.node_entry(name);
            self.links.ask(&entry, |connection| cmd("GETRANGE").arg(&entry).arg(0).arg(MAX_NODE).query(connection))
        };
        let texts = names.iter().map(text).collect::<Result<Vec<Vec<u8>>, StoreError>>()?;
        let full = |text: Vec<u8>| String::from_utf8(text).ok().filter(|text| !text.is_empty());
        Ok(texts.into_iter().filter_map(full).collect())
    }

    fn users(&self) -> Result<Vec<UserName>, StoreError> {
        let names = self.list("user")?;
        Ok(names.iter().filter_map(|name| UserName::new(std::str::from_utf8(name).ok()?).ok()).collect())
    }

    fn keys(&self) -> Result<Vec<StoredKey>, StoreError> {
        let entries: Vec<_> = self.list("pubkey")?.into_iter().collect();
        let mut keys = Vec::with_capacity(entries.len());
        for batch in entries.chunks(BATCH) {
            // MGET has nothing to say of an entry of another type, nor of one that went away just now. One command an entry: a cluster
            // takes no other.
            let owner = |entry: &Vec<u8>| {
                let entry = [self.key_entry("").as_bytes(), entry].concat();
                (entry.clone(), cmd("MGET").arg(entry).clone())
            };
            let owners = self.links.many(&batch.iter().map(owner).collect::<Vec<_>>())?;
            for (entry, owner) in batch.iter().zip(&owners) {
                let [owner] = self.answer::<[Option<Vec<u8>>; 1]>(owner)?;
                keys.push(StoredKey {
                    base64: String::from_utf8_lossy(entry).into_owned(),
                    comment: String::new(),
                    user: String::from_utf8_lossy(&owner.unwrap_or_default()).into_owned(),
                });
            }
        }
        keys.sort_by(|a, b| (&a.user, &a.base64).cmp(&(&b.user, &b.base64)));
        Ok(keys)
    }

    fn put(&self, user: &UserName, aim: Aim, fields: &Record, keys: &[(PublicKey, String)]) -> Result<(), StoreError> {
        let entry = self.user_entry(user);
        if !self.links.is_whole() && !keys.is_empty() {
            let done = self.put_in_steps(user, aim, fields, keys);
            self.tell_changed(&entry);
            return done;
        }
        let key_entries: Vec<_> = keys.iter().map(|(key, _)| self.key_entry(&key.base64())).collect();
        let watched = [std::slice::from_ref(&entry), &key_entries].concat();
        self.change(&watched, |connection, pipeline| {
            // Read before the transaction: a command that meets the wrong type inside it would fail alone, and half be written.
            let length: u64 = cmd("HLEN").arg(&entry).query(connection)?;
            if let Err(refusal) = aim.check(user, length > 0) {
                return Ok(Change::Nothing(Err(refusal)));
            }
            for ((key, _), key_entry) in keys.iter().zip(&key_entries) {
                let owner: Option<Vec<u8>> = cmd("GET").arg(key_entry).query(connection)?;
                match owner {
                    None => drop(pipeline.cmd("SET").arg(key_entry).arg(user.as_str())),
                    // Left alone, so that a time to live that somebody put on it stays.
                    Some(owner) if owner == user.as_str().as_bytes() => {}
                    Some(owner) => {
                        let refusal = super::owned(&key.fingerprint(), &String::from_utf8_lossy(&owner));
                        return Ok(Change::Nothing(Err(refusal)));
                    }
                }
            }
            queue_fields(pipeline, &entry, fields);
            Ok(Change::Queued(Ok(())))
        })??;
        self.tell_changed(&entry);
        Ok(())
    }

    fn entry(&self, shelf: Shelf, address: &str) -> Result<Record, StoreError> {
        self.hash(&self.shelf_entry(shelf, address), format_args!("the entry of upstream {}", shown(address)))
    }

    fn entries(&self, shelf: Shelf) -> Result<BTreeMap<String, Record>, StoreError> {
        let addresses = self.list(shelf_name(shelf))?;
        let entry = |address: &[u8]| {
            let address = String::from_utf8_lossy(address).into_owned();
            self.entry(shelf, &address).map(|entry| (address, entry))
        };
        addresses.iter().map(|address| entry(address)).collect()
    }

    fn put_entry(&self, shelf: Shelf, address: &str, fields: &Record) -> Result<bool, StoreError> {
        let entry = self.shelf_entry(shelf, address);
        let (mut set, mut unset) = (cmd("HSET"), cmd("HDEL"));
        set.arg(&entry);
        unset.arg(&entry);
        for (field, value) in fields {
            match value.as_str() {
                "" => unset.arg(field),
                value => set.arg(field).arg(value),
            };
        }
        let removes = fields.values().filter(|value| value.is_empty()).count();
        // Most are one command, so that the router's own account needs no more rights than that.
        self.links.ask(&entry, |connection| {
            Ok(match (fields.len() - removes, removes) {
                (0, 0) => false,
                (_, 0) => set.query::<u64>(connection)? > 0,
                (0, _) => unset.query::<u64>(connection)? > 0,
                _ => {
                    let mut both = redis::pipe();
                    let counts: Vec<u64> = both.atomic().add_command(set.clone()).add_command(unset.clone()).query(connection)?;
                    counts.iter().any(|count| *count > 0)
                }
            })
        })
    }

    fn remove_user(&self, user: &UserName) -> Result<bool, StoreError> {
        if !self.links.is_whole() {
            return self.remove_in_steps(user);
        }
        let keys = self.keys()?.into_iter().filter(|key| key.user == user.as_str());
        let watched: Vec<_> = std::iter::once(self.user_entry(user)).chain(keys.map(|key| self.key_entry(&key.base64))).collect();
        let removed = self.change(&watched, |connection, pipeline| {
            let owners: Vec<Option<Vec<u8>>> = cmd("MGET").arg(&watched).query(connection)?;
            let mut any = cmd("EXISTS").arg(&watched[0]).query(connection)?;
            pipeline.cmd("DEL").arg(&watched[0]);
            for (entry, owner) in watched.iter().zip(owners).skip(1) {
                // Somebody may have given the key to another user since it was listed.
                if owner.as_deref() == Some(user.as_str().as_bytes()) {
                    pipeline.cmd("DEL").arg(entry);
                    any = true;
                }
            }
            Ok(if any { Change::Queued(true) } else { Change::Nothing(false) })
        })?;
        self.tell_changed(&watched[0]);
        Ok(removed)
    }

    fn remove_key(&self, user: &str, base64: &str) -> Result<bool, StoreError> {
        let entry = self.key_entry(base64);
        let removed = self.change(std::slice::from_ref(&entry), |connection, pipeline| {
            let owner: Option<Vec<u8>> = cmd("GET").arg(&entry).query(connection)?;
            if owner.is_none_or(|owner| String::from_utf8_lossy(&owner) != user) {
                return Ok(Change::Nothing(false));
            }
            pipeline.cmd("DEL").arg(&entry);
            Ok(Change::Queued(true))
        })?;
        self.tell_changed(&entry);
        Ok(removed)
    }
}

/// The server's clock: bans end for all nodes at the same time, whatever their own clocks say.
fn milliseconds(connection: &mut dyn ConnectionLike) -> RedisResult<u64> {
    let (seconds, micros): (u64, u64) = cmd("TIME").query(connection)?;
    Ok(seconds * 1000 + micros / 1000)
}

/// A member `NETWORK WHY` and its score, the end in milliseconds.
fn ban(member: &[u8], until: f64, now: u64) -> Option<Ban> {
    let (network, why) = std::str::from_utf8(member).ok()?.split_once(' ')?;
    let left = until.is_finite().then(|| Duration::from_millis((until as u64).saturating_sub(now)));
    Some(Ban { network: parse_network(network).ok()?, left, why: why.to_owned() })
}

/// What a record is called in faults.
fn of_user(user: &UserName) -> String {
    format!("the record of user \"{}\"", shown(user.as_str()))
}

/// A field as text, or which one is none.
fn text_field(name: &[u8], value: Vec<u8>) -> Result<(String, String), String> {
    let shown_name = shown_bytes(name);
    if value.len() > MAX_FIELD || name.len() > MAX_FIELD {
        return Err(format!("{shown_name}: longer than {MAX_FIELD} bytes"));
    }
    let name = String::from_utf8(name.to_vec()).map_err(|_| format!("{shown_name}: the field's name is not UTF-8"))?;
    let value = String::from_utf8(value).map_err(|_| format!("{shown_name}: not UTF-8"))?;
    Ok((name, value))
}

fn shelf_name(shelf: Shelf) -> &'static str {
    match shelf {
        Shelf::Hosts => "host",
        Shelf::Quarantine => "quarantine",
    }
}

/// Queues the writing of fields.
fn queue_fields(pipeline: &mut Pipeline, entry: &str, fields: &Record) {
    for (field, value) in fields {
        match value.as_str() {
            "" => pipeline.cmd("HDEL").arg(entry).arg(field),
            value => pipeline.cmd("HSET").arg(entry).arg(field).arg(value),
        };
    }
    // A hash without fields does not exist, but a user with all defaults does: an empty field is a missing one.
    pipeline.cmd("HSETNX").arg(entry).arg("remote").arg("");
}

/// Text for SCAN's MATCH that means itself.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if "*?[]\\^".contains(character) {
            out.push('\\');
        }
        out.push(character);
    }
    out
}
