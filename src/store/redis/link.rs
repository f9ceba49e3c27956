//! The way to Redis, be it one server or several: who asks names the entry that it is about, and is brought to a server that has it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::{Cmd, Connection, ConnectionLike, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};

use super::place::Place;
use super::pool::{Failed, Pool, is_no_master};
use super::server::{Manner, Server, Target, is_in_step, master_is, target};
use super::words::Words;
use crate::config;
use crate::store::StoreError;

/// How long no replica is asked after one has failed.
const SHUN: Duration = Duration::from_secs(5);

/// The servers of one place.
#[derive(Debug)]
pub struct Links {
    pool: Pool,
    /// Of a replica, where one may answer.
    copies: Option<Copies>,
    words: Arc<Words>,
    db: i64,
}

/// Replicas, and until when they are left alone.
#[derive(Debug)]
struct Copies {
    pool: Pool,
    shunned: Mutex<Option<Instant>>,
}

impl Links {
    /// Checks the settings. Nothing is connected yet: the server may come later.
    pub fn new(config: &config::Redis) -> Result<Self, StoreError> {
        let place = Place::read(config)?;
        let words = Arc::new(Words::new(&place, config));
        let manner = Manner {
            login: place.login.clone(),
            tls: place.tls,
            db: place.db,
            connect: config.connect_timeout,
            command: config.command_timeout,
        };
        let target = target(&place.servers, &manner)?;
        let copies = match &target {
            Target::Master(sentinels) if place.replicas => {
                let server = Server::new(Target::Replica(Arc::clone(sentinels)), &manner);
                Some(Copies { pool: Pool::new(server, config.pool_size, &words), shunned: Mutex::default() })
            }
            _ => None,
        };
        Ok(Self { pool: Pool::new(Server::new(target, &manner), config.pool_size, &words), copies, words, db: place.db })
    }

    /// The master is asked everything.
    pub fn forget_replicas(&mut self) {
        self.copies = None;
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
        true
    }

    /// How long the server of a connection [apart](Self::apart) may be silent: not long where another one may be about to take its place.
    pub fn silence(&self) -> Duration {
        Duration::from_secs(if self.pool.server().moves() { 1 } else { 10 })
    }

    /// An error of a server in words.
    pub fn says(&self, whose: &str, error: &RedisError) -> StoreError {
        self.words.says(whose, error)
    }

    /// Does `work`, which is about this entry, at the server that has it.
    pub fn ask<T>(&self, _entry: &str, mut work: impl FnMut(&mut dyn ConnectionLike) -> RedisResult<T>) -> Result<T, StoreError> {
        self.pool.ask(&mut |connection| work(connection)).map_err(|failed| failed.told(&self.words))
    }

    /// The same for what only reads and may be a little behind: a replica may answer. Whatever is wrong with that one, the master is asked.
    pub fn read<T>(&self, entry: &str, mut work: impl FnMut(&mut dyn ConnectionLike) -> RedisResult<T>) -> Result<T, StoreError> {
        match self.copies.as_ref().and_then(|copies| copies.ask(&mut work)) {
            Some(answer) => Ok(answer),
            None => self.ask(entry, work),
        }
    }

    /// Does `work` at every server that has entries.
    pub fn each(&self, work: &mut dyn FnMut(&mut dyn ConnectionLike) -> RedisResult<()>) -> Result<(), StoreError> {
        self.ask("", work)
    }

    /// Sends commands, each about its entry, and returns their answers in their order.
    pub fn many<E: AsRef<[u8]>>(&self, commands: &[(E, Cmd)]) -> Result<Vec<Result<Value, StoreError>>, StoreError> {
        let mut pipeline = redis::pipe();
        for (_, command) in commands {
            pipeline.add_command(command.clone());
        }
        pipeline.ignore_errors();
        let answers: Vec<RedisResult<Value>> = self.ask("", |connection| pipeline.query(connection))?;
        Ok(answers.into_iter().map(|answer| answer.map_err(|error| self.says("", &error))).collect())
    }

    /// A connection for who keeps it, beside the pool, and which server it is.
    pub fn apart(&self) -> Result<(String, Connection), StoreError> {
        self.pool.server().open(&self.words)
    }

    /// Looks whether that server still is the one to go to; an error when it is not. What cannot be said is no error.
    pub fn look_around(&self, whose: &str) -> Result<(), StoreError> {
        let server = self.pool.server();
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
        if self.pool.server().moves() {
            self.pool.renew();
        }
    }
}

impl Copies {
    /// `None` = the master has to be asked.
    fn ask<T>(&self, work: &mut dyn FnMut(&mut dyn ConnectionLike) -> RedisResult<T>) -> Option<T> {
        let mut shunned = self.shunned.lock().unwrap_or_else(PoisonError::into_inner);
        if shunned.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        *shunned = None;
        drop(shunned);
        let asked = self.pool.ask(&mut |connection| {
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
