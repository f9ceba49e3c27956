//! The way to Redis, be it one server or several: who asks names the entry that it is about, and is brought to a server that has it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::{Cmd, ConnectionLike, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};

use super::cluster::{Cluster, Work};
use super::connection::Connection;
use super::place::{Place, Servers};
use super::pool::{Failed, Pool, is_no_master};
use super::sentinel::Sentinels;
use super::server::{Manner, Server, Target, is_in_step, master_is};
use super::words::Words;
use crate::config;
use crate::store::StoreError;

/// How long no replica is asked after one has failed.
const SHUN: Duration = Duration::from_secs(5);

/// The servers of one place.
#[derive(Debug)]
pub struct Links {
    masters: Masters,
    /// Whether replicas may answer.
    replicas: bool,
    /// Until when they are left alone.
    shunned: Mutex<Option<Instant>>,
    words: Arc<Words>,
    db: i64,
}

/// Who is asked what has to be true.
#[derive(Debug)]
enum Masters {
    /// One server at a time, and its replicas, if any are known.
    One { pool: Box<Pool>, copies: Option<Arc<Pool>> },
    /// Each for its entries.
    Cluster(Box<Cluster>),
}

impl Links {
    /// Checks the settings. Nothing is connected yet: the server may come later.
    pub fn new(config: &config::Redis) -> Result<Self, StoreError> {
        let place = Place::read(config)?;
        let words = Arc::new(Words::new(&place, config));
        let (connect, command) = (config.connect_timeout, config.command_timeout);
        let manner = Manner { login: place.login.clone(), tls: place.tls, db: place.db, connect, command };
        let pool = |target| Pool::new(Server::new(target, &manner), config.pool_size, &words);
        let masters = match &place.servers {
            Servers::One(info) => {
                Masters::One { pool: Box::new(pool(Target::One(Box::new(info.addr().clone())))?), copies: None }
            }
            Servers::Sentinel { service, at, login } => {
                let of_sentinels = Manner { login: login.clone(), db: 0, ..manner.clone() };
                let sentinels = Arc::new(Sentinels::new(service, at, of_sentinels));
                let copies = place.replicas.then(|| pool(Target::Replica(Arc::clone(&sentinels))).map(Arc::new)).transpose()?;
                Masters::One { pool: Box::new(pool(Target::Master(sentinels))?), copies }
            }
            Servers::Cluster(at) => Masters::Cluster(Box::new(Cluster::new(at, manner.clone(), config.pool_size, &words))),
        };
        Ok(Self { masters, replicas: place.replicas, shunned: Mutex::default(), words, db: place.db })
    }

    /// The master is asked everything.
    pub fn forget_replicas(&mut self) {
        self.replicas = false;
    }

    /// Kind, address and database, without secrets.
    pub fn describe(&self) -> String {
        self.words.what.clone()
    }

    /// The database's number.
    pub fn db(&self) -> i64 {
        self.db
    }

    /// Whether one server has all entries.
    pub fn is_whole(&self) -> bool {
        matches!(self.masters, Masters::One { .. })
    }

    /// How long the server of a connection [apart](Self::apart) may be silent: not long where another one may be about to take its place.
    pub fn silence(&self) -> Duration {
        Duration::from_secs(match &self.masters {
            Masters::One { pool, .. } if !pool.server().moves() => 10,
            _ => 1,
        })
    }

    /// An error of a server in words.
    pub fn says(&self, whose: &str, error: &RedisError) -> StoreError {
        self.words.says(whose, error)
    }

    /// Does `work`, which is about this entry, at the server that has it.
    pub fn ask<T>(&self, entry: &str, mut work: impl FnMut(&mut dyn ConnectionLike) -> RedisResult<T>) -> Result<T, StoreError> {
        match &self.masters {
            Masters::One { pool, .. } => self.told(pool.ask(&mut |connection| work(connection))),
            Masters::Cluster(cluster) => cluster.ask(entry.as_bytes(), &mut work),
        }
    }

    /// The same for what only reads and may be a little behind: a replica may answer. Whatever is wrong with that one, the master is asked;
    /// in a cluster also when it has nothing, since of a slot on its way to another node it does not say that the rest is elsewhere.
    pub fn read<T: Default + PartialEq>(
        &self,
        entry: &str,
        mut work: impl FnMut(&mut dyn ConnectionLike) -> RedisResult<T>,
    ) -> Result<T, StoreError> {
        let pool = match &self.masters {
            _ if !self.replicas || self.is_shunned() => None,
            Masters::One { copies, .. } => copies.clone(),
            Masters::Cluster(cluster) => cluster.replica(entry.as_bytes()),
        };
        let answer = pool.and_then(|pool| self.copy(&pool, &mut work));
        match answer.filter(|answer| self.is_whole() || *answer != T::default()) {
            Some(answer) => Ok(answer),
            None => self.ask(entry, work),
        }
    }

    /// Does `work`, which every server can do: to see that the store answers, or to publish.
    pub fn any(&self, entry: &str, mut work: impl FnMut(&mut dyn ConnectionLike) -> RedisResult<()>) -> Result<(), StoreError> {
        match &self.masters {
            Masters::One { .. } => self.ask(entry, work),
            Masters::Cluster(cluster) => cluster.any(&mut work),
        }
    }

    /// Does `work` at every server that has entries.
    pub fn each(&self, work: Work<'_, ()>) -> Result<(), StoreError> {
        match &self.masters {
            Masters::One { pool, .. } => self.told(pool.ask(&mut |connection| work(connection))),
            Masters::Cluster(cluster) => cluster.each(work),
        }
    }

    /// Sends commands, each about its entry, and returns their answers in their order.
    pub fn many<E: AsRef<[u8]>>(&self, commands: &[(E, Cmd)]) -> Result<Vec<Result<Value, StoreError>>, StoreError> {
        let pool = match &self.masters {
            Masters::One { pool, .. } => pool,
            Masters::Cluster(cluster) => return cluster.many(commands),
        };
        let mut pipeline = redis::pipe();
        for (_, command) in commands {
            pipeline.add_command(command.clone());
        }
        pipeline.ignore_errors();
        let answers: Vec<RedisResult<Value>> = self.told(pool.ask(&mut |connection| pipeline.query(connection)))?;
        Ok(answers.into_iter().map(|answer| answer.map_err(|error| self.says("", &error))).collect())
    }

    /// A connection for who keeps it, beside the pools, and which server it is.
    pub fn apart(&self) -> Result<(String, Connection), StoreError> {
        match &self.masters {
            Masters::One { pool, .. } => pool.server().open(&self.words),
            Masters::Cluster(cluster) => cluster.apart(),
        }
    }

    /// Looks whether that server still is the one to go to; an error when it is not. What cannot be said is no error.
    pub fn look_around(&self, whose: &str) -> Result<(), StoreError> {
        let server = match &self.masters {
            Masters::One { pool, .. } => pool.server(),
            Masters::Cluster(cluster) => {
                cluster.look_around();
                return Ok(());
            }
        };
        let Some(Ok(address)) = server.sentinels().map(|sentinels| sentinels.master(Instant::now() + server.limit())) else {
            return Ok(());
        };
        let now = master_is(&address);
        if now == whose {
            return Ok(());
        }
        self.renew();
        Err(self.words.fault(format_args!("{now}it is the master now")))
    }

    /// Connections that are there are not used any more where another server may have taken the place of theirs.
    pub fn renew(&self) {
        if let Masters::One { pool, .. } = &self.masters
            && pool.server().moves()
        {
            pool.renew();
        }
    }

    fn told<T>(&self, asked: Result<T, Failed>) -> Result<T, StoreError> {
        asked.map_err(|failed| failed.told(&self.words))
    }

    fn is_shunned(&self) -> bool {
        let shunned = self.shunned.lock().unwrap_or_else(PoisonError::into_inner);
        shunned.is_some_and(|until| Instant::now() < until)
    }

    /// What a replica answers; `None` = the master has to be asked.
    fn copy<T>(&self, pool: &Pool, work: Work<'_, T>) -> Option<T> {
        let asked = pool.ask(&mut |connection| {
            let answer = work(connection)?;
            // Afterwards: what it has answered was up to date if it is in step even now.
            if is_in_step(connection)? { Ok(answer) } else { Err(out_of_step()) }
        });
        let failed = match asked {
            Ok(answer) => return Some(answer),
            Err(failed) => failed,
        };
        // What is wrong with the entry is no fault of the replica's.
        if let Failed::Said { error, .. } = &failed
            && !(error.is_io_error() || error.is_timeout() || is_no_master(error))
        {
            return None;
        }
        log::debug!("the master is asked instead of a replica: {failed:?}");
        *self.shunned.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + SHUN);
        None
    }
}

fn out_of_step() -> RedisError {
    RedisError::from((ErrorKind::Server(ServerErrorKind::MasterDown), "the replica is not in step with its master"))
}
