//! A cluster: each entry is at one of several masters, and moves. A pool for each node, and the map of who has what, which a node tells.
//!
//! The map is read when there is none yet, again when something does not fit it, and every second while news are heard. An answer that sends
//! elsewhere is followed at once. The crate's own cluster client is not used: it looks at every node before it does anything, so that one
//! that stands still holds all logins, and waits for that without a limit.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use redis::{Cmd, ConnectionLike, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value, cmd};

use super::connection::Connection;
use super::place::Address;
use super::pool::{Failed, Pool};
use super::server::{Manner, Server, Target};
use super::slots::{Map, sent_to, slot};
use super::words::Words;
use crate::store::StoreError;

/// How often one question may be sent elsewhere.
const MOST_HOPS: usize = 5;

/// Pools that are kept at most: a cluster has at most 1000 nodes (Redis Cluster specification).
const MOST_POOLS: usize = 2000;

/// Nodes that are asked for the map in one reading, at most.
const MOST_ASKED: usize = 16;

/// How long a map that is in doubt is used before it is read again.
const DOUBT: Duration = Duration::from_secs(1);

/// How long it is waited where a node says that it cannot yet.
const PAUSE: Duration = Duration::from_millis(50);

/// What is done at a server.
pub type Work<'a, T> = &'a mut dyn FnMut(&mut dyn ConnectionLike) -> RedisResult<T>;

/// The nodes.
#[derive(Debug)]
pub struct Cluster {
    seeds: Vec<Address>,
    manner: Manner,
    /// Connections to each node at most.
    size: u32,
    words: Arc<Words>,
    known: Mutex<Known>,
    /// Held by who reads the map.
    reading: Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    map: Option<Arc<Map>>,
    /// When it was read, or was tried to be.
    tried: Option<Instant>,
    in_doubt: bool,
    /// Why the last attempt came to nothing.
    fault: Option<StoreError>,
    /// By address; `true` = it answers as a replica.
    pools: HashMap<(Address, bool), Arc<Pool>>,
    /// Who has told the map.
    teller: Option<Address>,
}

impl Cluster {
    /// Nothing is connected yet.
    pub fn new(seeds: &[Address], manner: Manner, size: u32, words: &Arc<Words>) -> Self {
        let (known, reading) = (Mutex::default(), Mutex::default());
        Self { seeds: seeds.to_vec(), manner, size, words: Arc::clone(words), known, reading }
    }

    /// Does `work`, which is about this entry only, at its master, wherever that is by now.
    pub fn ask<T>(&self, entry: &[u8], work: Work<'_, T>) -> Result<T, StoreError> {
        let (slot, until) = (slot(entry), Instant::now() + self.manner.connect + self.manner.command);
        let (mut at, mut asking, mut hops) = (self.master(slot)?, false, 0);
        loop {
            let failed = match self.send(&at, asking, work) {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            // Who is to try again begins at the master, and the time limit ends that.
            hops = if says(&failed, ServerErrorKind::TryAgain) { 0 } else { hops + 1 };
            // Who is sent on for once may get the answer there, or the better reason.
            let late = Instant::now() > until && !says(&failed, ServerErrorKind::Ask);
            let next = match &failed {
                _ if hops > MOST_HOPS || late => None,
                Failed::Said { error, .. } => self.elsewhere(error, &at, slot)?,
                // Another one may have taken its place.
                Failed::Told(_) => Some((self.doubted(slot)?, false)).filter(|(now, _)| *now != at),
            };
            match next {
                Some(next) => (at, asking) = next,
                None => return Err(failed.told(&self.words)),
            }
        }
    }

    /// Where to ask again after this answer, and whether as somebody who was sent there for once.
    fn elsewhere(&self, error: &RedisError, at: &Address, slot: u16) -> Result<Option<(Address, bool)>, StoreError> {
        use ServerErrorKind::{Ask, ExecAbort, Moved, TryAgain};
        Ok(match error.kind() {
            // Of several commands nobody says where to, and a transaction that was not begun does not say why.
            ErrorKind::Server(Moved | ExecAbort) => {
                let by_map = self.doubted(slot)?;
                sent_to(error, at).or(Some(by_map).filter(|now| now != at)).map(|to| (to, false))
            }
            ErrorKind::Server(Ask) => sent_to(error, at).map(|to| (to, true)),
            ErrorKind::Server(TryAgain) => {
                thread::sleep(PAUSE);
                Some((self.master(slot)?, false))
            }
            _ => {
                // Nothing is tried again: it may have been done. But who comes next looks first.
                if error.is_io_error() || error.is_cluster_error() {
                    self.doubt();
                }
                None
            }
        })
    }

    /// Does `work` at every master. Entries that move meanwhile may be met twice, or not at all.
    pub fn each(&self, work: Work<'_, ()>) -> Result<(), StoreError> {
        let map = self.map()?;
        if let Some(slot) = map.hole() {
            return Err(self.nobody(slot));
        }
        map.masters().into_iter().try_for_each(|at| self.send(at, false, work).map_err(|failed| failed.told(&self.words)))
    }

    /// Does `work` at some master, be it that this says the entry would be another one's.
    pub fn any(&self, work: Work<'_, ()>) -> Result<(), StoreError> {
        let map = self.map()?;
        let (mut failed, until) = (self.words.late(), Instant::now() + self.manner.connect + self.manner.command);
        for at in self.in_order(&map) {
            match self.send(at, false, work) {
                Ok(()) => return Ok(()),
                Err(other) if says(&other, ServerErrorKind::Moved) || says(&other, ServerErrorKind::Ask) => return Ok(()),
                Err(other) => failed = other.told(&self.words),
            }
            if Instant::now() > until {
                break;
            }
        }
        Err(failed)
    }

    /// Every master, first who has told the map: it has just answered.
    fn in_order<'a>(&self, map: &'a Map) -> Vec<&'a Address> {
        let teller = self.known().teller.clone();
        let mut masters: Vec<_> = map.masters().into_iter().collect();
        masters.sort_by_key(|at| Some(*at) != teller.as_ref());
        masters
    }

    /// Sends commands, each about its entry, those for one node together. A node that fails is told with each of its entries.
    pub fn many<E: AsRef<[u8]>>(&self, commands: &[(E, Cmd)]) -> Result<Vec<Result<Value, StoreError>>, StoreError> {
        let map = self.map()?;
        let mut groups: BTreeMap<&Address, Vec<usize>> = BTreeMap::new();
        let mut answers: Vec<_> = commands.iter().map(|_| Err(self.words.fault("no answer"))).collect();
        for (number, (entry, _)) in commands.iter().enumerate() {
            let slot = slot(entry.as_ref());
            match map.nodes(slot).and_then(<[Address]>::first) {
                Some(at) => groups.entry(at).or_default().push(number),
                None => answers[number] = Err(self.nobody(slot)),
            }
        }
        for (at, numbers) in groups {
            let mut pipeline = redis::pipe();
            for &number in &numbers {
                pipeline.add_command(commands[number].1.clone());
            }
            pipeline.ignore_errors();
            let asked: Result<Vec<RedisResult<Value>>, _> = self.send(at, false, &mut |connection| pipeline.query(connection));
            let told = asked.map_err(|failed| {
                self.doubt();
                failed.told(&self.words)
            });
            for (place, number) in numbers.into_iter().enumerate() {
                answers[number] = match &told {
                    Ok(told) => self.one_of(told.get(place), &commands[number]),
                    Err(error) => Err(error.clone()),
                };
            }
        }
        Ok(answers)
    }

    fn one_of<E: AsRef<[u8]>>(
        &self,
        told: Option<&RedisResult<Value>>,
        (entry, command): &(E, Cmd),
    ) -> Result<Value, StoreError> {
        match told {
            Some(Ok(value)) => Ok(value.clone()),
            Some(Err(error)) if !error.is_cluster_error() => Err(self.words.says("", error)),
            // It has moved.
            _ => self.ask(entry.as_ref(), &mut |connection| command.query(connection)),
        }
    }

    /// The pool of a replica that has this entry.
    pub fn replica(&self, entry: &[u8]) -> Option<Arc<Pool>> {
        let map = self.map().ok()?;
        let replicas = map.nodes(slot(entry))?.get(1..)?;
        if replicas.is_empty() { None } else { self.pool(&replicas[fastrand::usize(..replicas.len())], true).ok() }
    }

    /// A connection to some node, beside the pools: what is published is heard at each.
    pub fn apart(&self) -> Result<(String, Connection), StoreError> {
        let map = self.map()?;
        let mut failed = self.words.late();
        for at in self.in_order(&map) {
            match Server::new(Target::Node(at.clone()), &self.manner).open(&self.words) {
                Ok(opened) => return Ok(opened),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// Reads the map again, whatever is known; now and then at another node than the last, which may be cut off from the others.
    pub fn look_around(&self) {
        if fastrand::u8(..8) == 0 {
            self.known().teller = None;
        }
        if let Err(error) = self.read(Instant::now()) {
            log::debug!("the map of the cluster stays as it was: {error}");
        }
    }

    fn send<T>(&self, at: &Address, asking: bool, work: Work<'_, T>) -> Result<T, Failed> {
        let pool = self.pool(at, false).map_err(Failed::Told)?;
        pool.ask(&mut |connection| if asking { work(&mut Asking(connection)) } else { work(connection) })
    }

    fn pool(&self, at: &Address, replica: bool) -> Result<Arc<Pool>, StoreError> {
        let mut known = self.known();
        if known.pools.len() >= MOST_POOLS {
            known.pools.clear();
        }
        let target = if replica { Target::Copy } else { Target::Node };
        Ok(match known.pools.entry((at.clone(), replica)) {
            Entry::Occupied(entry) => Arc::clone(entry.get()),
            Entry::Vacant(entry) => {
                let server = Server::new(target(at.clone()), &self.manner);
                Arc::clone(entry.insert(Arc::new(Pool::new(server, self.size, &self.words)?)))
            }
        })
    }

    fn master(&self, slot: u16) -> Result<Address, StoreError> {
        self.map()?.nodes(slot).and_then(|nodes| nodes.first().cloned()).ok_or_else(|| self.nobody(slot))
    }

    fn doubted(&self, slot: u16) -> Result<Address, StoreError> {
        self.doubt();
        self.master(slot)
    }

    fn nobody(&self, slot: u16) -> StoreError {
        self.words.fault(format_args!("nobody has slot {slot}: look at redis-cli CLUSTER INFO at a node"))
    }

    fn doubt(&self) {
        self.known().in_doubt = true;
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The map, read when there is none or when it is time to read one that is in doubt.
    fn map(&self) -> Result<Arc<Map>, StoreError> {
        let asked = Instant::now();
        let known = self.known();
        let old = known.map.clone();
        let due = known.in_doubt && known.tried.is_none_or(|tried| tried.elapsed() >= DOUBT);
        drop(known);
        match old {
            Some(map) if !due => Ok(map),
            Some(map) => Ok(self.read(asked).unwrap_or(map)),
            None => self.read(asked),
        }
    }

    /// Reads it from the first node that tells it, within the limit of a connection; who has to wait for another's reading has that.
    fn read(&self, asked: Instant) -> Result<Arc<Map>, StoreError> {
        let _alone = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.known();
        if known.tried.is_some_and(|tried| tried > asked) {
            return match (&known.map, &known.fault) {
                (_, Some(fault)) => Err(fault.clone()),
                (Some(map), None) => Ok(Arc::clone(map)),
                (None, None) => Err(self.words.late()),
            };
        }
        let nodes = self.tellers(&known);
        drop(known);
        let until = Instant::now() + self.manner.connect;
        let (mut said, mut away) = (Vec::new(), false);
        for (number, node) in nodes.iter().enumerate() {
            let share = until.saturating_duration_since(Instant::now()) / (nodes.len() - number) as u32;
            match self.told_by(node, share) {
                Ok(map) => return Ok(self.learn(map, node)),
                Err(error) => {
                    away |= error.away;
                    said.push(format!("{node}: {error}"));
                }
            }
        }
        let fault = format_args!("no node says who has which entry ({})", said.join("; "));
        let fault = StoreError { away, ..self.words.fault(fault) };
        let mut known = self.known();
        (known.tried, known.fault) = (Some(Instant::now()), Some(fault.clone()));
        Err(fault)
    }

    /// Who is asked for the map: first who has told it last, then others as chance has it, so that no dead ones stand before the rest for ever.
    fn tellers(&self, known: &Known) -> Vec<Address> {
        let all: BTreeSet<&Address> = known.map.iter().flat_map(|map| map.masters()).chain(&self.seeds).collect();
        let mut nodes: Vec<_> = all.into_iter().filter(|node| Some(*node) != known.teller.as_ref()).cloned().collect();
        fastrand::shuffle(&mut nodes);
        let mut nodes: Vec<_> = known.teller.iter().cloned().chain(nodes).collect();
        nodes.truncate(MOST_ASKED);
        nodes
    }

    fn told_by(&self, node: &Address, limit: Duration) -> Result<Map, StoreError> {
        let told = self.manner.reach(node, limit).and_then(|mut connection| cmd("CLUSTER").arg("SLOTS").query(&mut connection));
        let map = Map::read(&told.map_err(|error| self.words.text(&error))?, &node.host);
        if map.is_empty() { Err(StoreError::away("nobody has any slots there")) } else { Ok(map) }
    }

    fn learn(&self, map: Map, teller: &Address) -> Arc<Map> {
        let (map, mut known) = (Arc::new(map), self.known());
        let all = map.all();
        known.pools.retain(|(at, _), _| all.contains(at));
        (known.tried, known.in_doubt, known.teller) = (Some(Instant::now()), false, Some(teller.clone()));
        known.fault = None;
        known.map = Some(Arc::clone(&map));
        drop(known);
        // At once, so that all threads there will be are there from the start.
        map.masters().into_iter().for_each(|at| drop(self.pool(at, false)));
        map
    }
}

/// Whether that is what a node says.
fn says(failed: &Failed, what: ServerErrorKind) -> bool {
    matches!(failed, Failed::Said { error, .. } if error.kind() == ErrorKind::Server(what))
}

/// A connection to a node which does not have the slot yet: each command has to say that it was sent there. A transaction cannot.
struct Asking<'a>(&'a mut Connection);

impl ConnectionLike for Asking<'_> {
    fn req_packed_command(&mut self, command: &[u8]) -> RedisResult<Value> {
        cmd("ASKING").exec(self.0)?;
        self.0.req_packed_command(command)
    }

    fn req_packed_commands(&mut self, _: &[u8], _: usize, _: usize) -> RedisResult<Vec<Value>> {
        let kind = ErrorKind::Server(ServerErrorKind::TryAgain);
        Err(RedisError::from((
            kind,
            "the slot of this entry is on its way to another node; nothing was written there, try again",
        )))
    }

    fn get_db(&self) -> i64 {
        0
    }

    fn check_connection(&mut self) -> bool {
        self.0.check_connection()
    }

    fn is_open(&self) -> bool {
        self.0.is_open()
    }
}
