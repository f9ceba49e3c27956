//! What a store has said to logins that succeeded, and for how long that is good while the store says nothing.
//!
//! Pure: time is a parameter. A row is what was said last. What gives (a key's owner, a record) counts from when it was asked for, what takes
//! (nobody's key, no such user, an answer that is none, news of a change) from when it came: of two answers that cross, the one that takes stays.
//! Only what a login that succeeded was told is lent; what takes is lent always.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use crate::identity::{Fingerprint, PublicKey, UserName};
use crate::route::Record;
use crate::store::{Asked, Found, News, Shelf, StoreError};

/// Rows of a table: as many users as a node of this size serves. Clients choose the keys that are nobody's, so something must go.
const MOST: usize = 8192;

/// Longest record that is kept, in bytes of all fields: usual ones have a few hundred, one with a sealed key and rules a few thousand.
const MAX_RECORD: usize = 8 * 1024;

/// When a question was sent and when the answer came.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Sent.
    pub sent: Instant,
    /// Came.
    pub came: Instant,
}

/// What was said last.
#[derive(Debug)]
struct Row<V> {
    /// `None` = it is another thing now, and what is not known.
    said: Option<V>,
    at: Instant,
    /// A login that was told this has succeeded.
    proven: bool,
    /// It was told from here since it was said.
    lent: bool,
}

#[derive(Debug)]
struct Table<K, V> {
    rows: HashMap<K, Row<V>>,
    /// Whether an answer lets somebody do something.
    gives: fn(&V) -> bool,
}

impl<K: Eq + Hash + Clone, V: PartialEq + Clone> Table<K, V> {
    fn new(gives: fn(&V) -> bool) -> Self {
        Self { rows: HashMap::new(), gives }
    }

    /// The store has said this.
    fn learn(&mut self, key: K, said: Option<V>, times: Times) {
        let at = if said.as_ref().is_some_and(self.gives) { times.sent } else { times.came };
        let old = self.rows.get(&key);
        if old.is_some_and(|old| old.at > at) {
            return;
        }
        let proven = old.is_some_and(|old| old.proven && old.said == said);
        if old.is_none() && self.rows.len() >= MOST {
            self.make_room();
        }
        self.rows.insert(key, Row { said, at, proven, lent: false });
    }

    /// Takes away the oldest of those that cannot be lent to anybody's use, else the oldest.
    fn make_room(&mut self) {
        let gives = self.gives;
        let worth = |row: &Row<V>| (row.proven && row.said.as_ref().is_some_and(gives), row.at);
        let least = self.rows.iter().min_by_key(|(_, row)| worth(row)).map(|(key, _)| key.clone());
        least.and_then(|key| self.rows.remove(&key));
    }

    fn prove(&mut self, key: &K) {
        if let Some(row) = self.rows.get_mut(key) {
            row.proven = row.said.is_some();
        }
    }

    /// What was said, unless that was longer ago than `keep`.
    fn lend(&mut self, key: &K, now: Instant, keep: Duration) -> Option<V> {
        let gives = self.gives;
        let row = self.rows.get_mut(key).filter(|row| now.saturating_duration_since(row.at) < keep)?;
        let said = row.said.clone().filter(|said| row.proven || !gives(said))?;
        row.lent = true;
        Some(said)
    }

    /// How long ago what is lent was said.
    fn lent(&self, key: &K, now: Instant) -> Option<Duration> {
        self.rows.get(key).filter(|row| row.lent).map(|row| now.saturating_duration_since(row.at))
    }

    /// What lets somebody do something.
    fn good(&self, now: Instant, keep: Duration) -> impl Iterator<Item = (&K, &V)> {
        let gives = self.gives;
        let fresh = self.rows.iter().filter(move |(_, row)| row.proven && now.saturating_duration_since(row.at) < keep);
        fresh.filter_map(move |(key, row)| row.said.as_ref().filter(|said| gives(said)).map(|said| (key, said)))
    }
}

/// All of it.
#[derive(Debug)]
pub struct Memory {
    keep: Duration,
    /// What was asked before is not known any more.
    since: Option<Instant>,
    owners: Table<Fingerprint, Option<(UserName, PublicKey)>>,
    records: Table<UserName, Option<Record>>,
    hosts: Table<String, Record>,
    maintenance: Table<(), Option<String>>,
}

impl Memory {
    /// Lends what was said no longer ago than `keep`.
    pub fn new(keep: Duration) -> Self {
        Self {
            keep,
            since: None,
            owners: Table::new(Option::is_some),
            records: Table::new(Option::is_some),
            hosts: Table::new(|_| true),
            maintenance: Table::new(Option::is_none),
        }
    }

    /// The store has said whose key this is; `None` = something that is no answer.
    pub fn owner(&mut self, key: &PublicKey, owner: Option<&Option<UserName>>, times: Times) {
        if self.is_known(times) {
            let said = owner.map(|owner| owner.clone().map(|user| (user, key.clone())));
            self.owners.learn(key.fingerprint(), said, times);
        }
    }

    /// The store has said a user's record, likewise.
    pub fn record(&mut self, user: &UserName, record: Option<&Option<Record>>, times: Times) {
        if self.is_known(times) {
            let fits = |record: &&Option<Record>| record.as_ref().is_none_or(|record| weight(record) <= MAX_RECORD);
            self.records.learn(user.clone(), record.filter(fits).cloned(), times);
        }
    }

    /// The store has said an upstream's entry, likewise.
    pub fn host(&mut self, address: &str, entry: Option<&Record>, times: Times) {
        if self.is_known(times) {
            let fits = |entry: &&Record| weight(entry) <= MAX_RECORD;
            self.hosts.learn(address.to_owned(), entry.filter(fits).cloned(), times);
        }
    }

    /// The store has said whether nobody is let in, likewise.
    pub fn maintenance(&mut self, message: Option<&Option<String>>, times: Times) {
        if self.is_known(times) {
            self.maintenance.learn((), message.cloned(), times);
        }
    }

    /// The store has said this of a running session's user and key.
    pub fn found(&mut self, (user, key): (&UserName, &PublicKey), found: &Found, times: Times) {
        let answer = |error: &StoreError| error.away;
        if !found.owner.as_ref().is_err_and(answer) {
            self.owner(key, found.owner.as_ref().ok(), times);
        }
        if !found.record.as_ref().is_err_and(answer) {
            self.record(user, found.record.as_ref().ok(), times);
        }
        if matches!(&found.owner, Ok(Some(owner)) if owner == user) && matches!(found.record, Ok(Some(_))) {
            self.prove(&[Asked::Owner(key), Asked::Record(user)]);
        }
    }

    /// The store has said that something was changed.
    pub fn news(&mut self, news: &News, now: Instant) {
        let times = Times { sent: now, came: now };
        match news {
            News::User(user) => drop(UserName::new(user).map(|user| self.records.learn(user, None, times))),
            News::Key(base64) => {
                drop(PublicKey::from_base64(base64).map(|key| self.owners.learn(key.fingerprint(), None, times)));
            }
            News::Anything => *self = Self { since: Some(now), ..Self::new(self.keep) },
            News::Following { .. } | News::Said(_) | News::Lost => {}
        }
    }

    /// A login that has asked this has succeeded.
    pub fn prove(&mut self, asked: &[Asked<'_>]) {
        for asked in asked {
            match asked {
                Asked::Owner(key) => self.owners.prove(&key.fingerprint()),
                Asked::Record(user) => self.records.prove(user),
                Asked::Maintenance => self.maintenance.prove(&()),
                Asked::Entry(Shelf::Hosts, address) => self.hosts.prove(&(*address).to_owned()),
                Asked::Entry(Shelf::Quarantine, _) | Asked::Bans => {}
            }
        }
    }

    /// Whose key it was.
    pub fn lend_owner(&mut self, key: &PublicKey, now: Instant) -> Option<Option<UserName>> {
        self.owners.lend(&key.fingerprint(), now, self.keep).map(|owner| owner.map(|(user, _)| user))
    }

    /// What the user's record was.
    pub fn lend_record(&mut self, user: &UserName, now: Instant) -> Option<Option<Record>> {
        self.records.lend(user, now, self.keep)
    }

    /// What the upstream's entry was.
    pub fn lend_host(&mut self, address: &str, now: Instant) -> Option<Record> {
        self.hosts.lend(&address.to_owned(), now, self.keep)
    }

    /// Whether nobody was let in.
    pub fn lend_maintenance(&mut self, now: Instant) -> Option<Option<String>> {
        self.maintenance.lend(&(), now, self.keep)
    }

    /// How old the oldest is of what is lent for these questions; `None` = the store has answered them all.
    pub fn lent(&self, asked: &[Asked<'_>], now: Instant) -> Option<Duration> {
        let lent = |asked: &Asked<'_>| match asked {
            Asked::Owner(key) => self.owners.lent(&key.fingerprint(), now),
            Asked::Record(user) => self.records.lent(user, now),
            Asked::Maintenance => self.maintenance.lent(&(), now),
            Asked::Entry(Shelf::Hosts, address) => self.hosts.lent(&(*address).to_owned(), now),
            Asked::Entry(Shelf::Quarantine, _) | Asked::Bans => None,
        };
        asked.iter().filter_map(lent).max()
    }

    /// The users and keys that would be let in.
    pub fn users(&self, now: Instant) -> Vec<(UserName, PublicKey)> {
        self.owners.good(now, self.keep).filter_map(|(_, owner)| owner.clone()).collect()
    }

    /// The upstreams whose entries are known.
    pub fn upstreams(&self, now: Instant) -> Vec<String> {
        self.hosts.good(now, self.keep).map(|(address, _)| address.clone()).collect()
    }

    fn is_known(&self, times: Times) -> bool {
        self.since.is_none_or(|since| times.sent > since)
    }
}

fn weight(record: &Record) -> usize {
    record.iter().map(|(field, value)| field.len() + value.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: Duration = Duration::from_secs(60);

    struct Case {
        memory: Memory,
        start: Instant,
        alice: UserName,
        key: PublicKey,
    }

    /// A key of its own for each number.
    fn key(number: u32) -> PublicKey {
        let mut blob = b"\0\0\0\x0bssh-ed25519\0\0\0\x20".to_vec();
        blob.extend(number.to_be_bytes().repeat(8));
        PublicKey::from_blob(&blob).unwrap()
    }

    fn asked<'a>(alice: &'a UserName, key: &'a PublicKey) -> [Asked<'a>; 4] {
        [Asked::Maintenance, Asked::Owner(key), Asked::Record(alice), Asked::Entry(Shelf::Hosts, "10.0.0.7:22")]
    }

    impl Case {
        /// Alice has logged in at second 0, and everything of it is known.
        fn new() -> Self {
            let mut case =
                Self { memory: Memory::new(KEEP), start: Instant::now(), alice: UserName::new("alice").unwrap(), key: key(0) };
            case.says(0, Some(Some("alice")), Some(Some("10.0.0.7")));
            case.memory.maintenance(Some(&None), case.at(0));
            case.memory.host("10.0.0.7:22", Some(&Record::new()), case.at(0));
            case.prove();
            case
        }

        /// What a login asks.
        fn asked(&self) -> [Asked<'_>; 4] {
            asked(&self.alice, &self.key)
        }

        /// She has proven that the key is hers.
        fn prove(&mut self) {
            self.memory.prove(&asked(&self.alice, &self.key));
        }

        fn second(&self, second: u64) -> Instant {
            self.start + Duration::from_secs(second)
        }

        fn at(&self, second: u64) -> Times {
            Times { sent: self.second(second), came: self.second(second) + Duration::from_millis(1) }
        }

        /// The store says this at that second.
        fn says(&mut self, second: u64, owner: Option<Option<&str>>, remote: Option<Option<&str>>) {
            let times = self.at(second);
            let owner = owner.map(|owner| owner.map(|owner| UserName::new(owner).unwrap()));
            let record = remote.map(|remote| remote.map(|remote| Record::from([("remote".to_owned(), remote.to_owned())])));
            self.memory.owner(&self.key, owner.as_ref(), times);
            self.memory.record(&self.alice, record.as_ref(), times);
        }

        /// What alice would be told at that second: whose key it is, where the record goes.
        fn told(&mut self, second: u64) -> (Option<Option<String>>, Option<Option<String>>) {
            let now = self.second(second);
            let owner = self.memory.lend_owner(&self.key, now).map(|owner| owner.map(|owner| owner.to_string()));
            let record = self.memory.lend_record(&self.alice, now);
            (owner, record.map(|record| record.map(|record| record["remote"].clone())))
        }
    }

    fn some(text: &str) -> Option<Option<String>> {
        Some(Some(text.to_owned()))
    }

    #[test]
    fn who_has_logged_in_is_known_until_the_time_is_over_since_the_store_has_said_so() {
        let mut case = Case::new();
        assert_eq!(case.memory.lent(&case.asked(), case.second(9)), None);
        assert_eq!(case.told(59), (some("alice"), some("10.0.0.7")));
        assert_eq!(case.memory.lend_maintenance(case.second(59)), Some(None));
        assert_eq!(case.memory.lend_host("10.0.0.7:22", case.second(59)), Some(Record::new()));
        assert_eq!(case.memory.lent(&case.asked(), case.second(59)), Some(Duration::from_secs(59)));
        // Having been used is not having been seen.
        assert_eq!(case.told(60), (None, None));
        assert_eq!((case.memory.lend_maintenance(case.second(60)), case.memory.users(case.second(60))), (None, vec![]));
        // Being seen is.
        case.says(61, Some(Some("alice")), Some(Some("10.0.0.7")));
        assert_eq!(case.told(100), (some("alice"), some("10.0.0.7")));
        assert_eq!(case.memory.users(case.second(100)), [(case.alice.clone(), case.key.clone())]);
    }

    #[test]
    fn an_answer_that_no_login_has_succeeded_with_gives_nothing_and_one_that_takes_is_known_at_once() {
        let mut case = Case { memory: Memory::new(KEEP), ..Case::new() };
        case.says(0, Some(Some("alice")), Some(Some("10.0.0.7")));
        assert_eq!(case.told(1), (None, None));
        case.says(2, Some(None), Some(None));
        assert_eq!(case.told(3), (Some(None), Some(None)));
        case.memory.maintenance(Some(&Some("moving".into())), case.at(2));
        assert_eq!(case.memory.lend_maintenance(case.second(3)), Some(Some("moving".into())));
    }

    #[test]
    fn what_the_store_says_otherwise_takes_the_place_of_what_it_has_said() {
        let other = (Some(Some("bob")), Some(Some("10.0.0.8")));
        for (said, told) in [
            ((Some(None), Some(None)), (Some(None), Some(None))),
            // Another owner, and another record, were not yet logged in with.
            (other, (None, None)),
            // What is no answer.
            ((None, None), (None, None)),
        ] {
            let mut case = Case::new();
            case.says(5, said.0, said.1);
            assert_eq!(case.told(6), told, "{said:?}");
            // An answer that was sent for before and is late changes nothing.
            case.says(4, Some(Some("alice")), Some(Some("10.0.0.7")));
            assert_eq!(case.told(6), told, "{said:?}");
        }
        let mut case = Case::new();
        case.says(5, Some(None), Some(None));
        case.says(6, Some(Some("alice")), Some(Some("10.0.0.7")));
        assert_eq!(case.told(7), (None, None));
        case.prove();
        assert_eq!(case.told(7), (some("alice"), some("10.0.0.7")));
    }

    #[test]
    fn of_two_answers_that_cross_the_one_that_takes_stays() {
        let mut case = Case::new();
        let (early, late) = (case.at(5), Times { sent: case.second(3), came: case.second(7) });
        case.memory.owner(&case.key, Some(&Some(case.alice.clone())), early);
        case.memory.owner(&case.key, Some(&None), late);
        assert_eq!(case.told(8).0, Some(None));
    }

    #[test]
    fn news_of_a_change_take_away_what_was_said_before() {
        let news = [News::User("alice".into()), News::Key(key(0).base64()), News::Anything];
        for (news, kept) in news.into_iter().zip([(true, false), (false, true), (false, false)]) {
            let mut case = Case::new();
            case.memory.news(&news, case.second(5));
            case.says(4, Some(Some("alice")), Some(Some("10.0.0.7")));
            case.prove();
            let (owner, record) = case.told(6);
            assert_eq!((owner.is_some(), record.is_some()), kept, "{news:?}");
        }
        let mut case = Case::new();
        for news in [News::Lost, News::Following { all: true }, News::Said("x".into()), News::User("bob".into())] {
            case.memory.news(&news, case.second(5));
        }
        assert_eq!(case.told(6), (some("alice"), some("10.0.0.7")));
    }

    #[test]
    fn a_running_session_that_is_looked_at_keeps_its_user_known_and_one_that_is_taken_away_does_not() {
        let mut case = Case { memory: Memory::new(KEEP), ..Case::new() };
        let found = |owner: Option<&str>| Found {
            owner: Ok(owner.map(|owner| UserName::new(owner).unwrap())),
            record: Ok(Some(Record::from([("remote".to_owned(), "10.0.0.7".to_owned())]))),
        };
        let (user, key) = (case.alice.clone(), case.key.clone());
        case.memory.found((&user, &key), &found(Some("alice")), case.at(1));
        assert_eq!(case.told(2), (some("alice"), some("10.0.0.7")));
        // What could not be asked is as it was.
        let away = Found { owner: Err(StoreError::away("gone")), record: Err(StoreError::away("gone")) };
        case.memory.found((&user, &key), &away, case.at(3));
        assert_eq!(case.told(4), (some("alice"), some("10.0.0.7")));
        case.memory.found((&user, &key), &found(None), case.at(5));
        assert_eq!(case.told(6).0, Some(None));
    }

    #[test]
    fn keys_that_are_nobodys_and_records_without_end_make_it_no_larger_and_push_nobody_out() {
        let mut case = Case::new();
        for number in 1..3 * MOST as u32 {
            case.memory.owner(&key(number), Some(&None), case.at(1));
        }
        assert_eq!(case.memory.owners.rows.len(), MOST);
        assert_eq!(case.told(2).0, some("alice"));
        let long = "x".repeat(MAX_RECORD);
        case.says(3, Some(Some("alice")), Some(Some(&long)));
        case.prove();
        assert_eq!(case.told(4), (some("alice"), None));
    }
}
