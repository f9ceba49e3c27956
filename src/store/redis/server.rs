//! How a connection to a server is made: to which one, within which limit, logged in, and looked at where it has to be a master or a copy of one.
//!
//! AUTH and SELECT are sent from here. The redis crate's own sentinels' client is not used: it connects without any limit, so that one sentinel
//! that stands still would hold a login for ever.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{ConnectionAddr, RedisResult, Role, cmd};

use super::connection::Connection;
use super::place::{Address, Login};
use super::sentinel::Sentinels;
use super::words::Words;
use crate::store::StoreError;

/// What a replica may take to be reached, and to answer: it spares a master work, and who waits for it could have asked that.
const REPLICA: Duration = Duration::from_millis(500);

/// Which server a connection goes to.
#[derive(Debug)]
pub enum Target {
    /// This one.
    One(Box<ConnectionAddr>),
    /// This node of a cluster.
    Node(Address),
    /// This node, which is a replica.
    Copy(Address),
    /// The one that the sentinels call the master.
    Master(Arc<Sentinels>),
    /// One of those that they call its replicas.
    Replica(Arc<Sentinels>),
}

/// Whoever speaks to servers of one place does it like this.
#[derive(Debug, Clone)]
pub struct Manner {
    /// What is sent first.
    pub login: Login,
    /// Whether addresses are spoken to with TLS.
    pub tls: bool,
    /// Database.
    pub db: i64,
    /// Limit for a connection.
    pub connect: Duration,
    /// Limit for an answer.
    pub command: Duration,
}

/// Where connections go, and how.
#[derive(Debug)]
pub struct Server {
    target: Target,
    manner: Manner,
}

impl Server {
    /// Nothing is connected yet.
    pub fn new(target: Target, manner: &Manner) -> Self {
        let mut manner = manner.clone();
        if matches!(target, Target::Copy(_) | Target::Replica(_)) {
            (manner.connect, manner.command) = (manner.connect.min(REPLICA), manner.command.min(REPLICA));
        }
        Self { target, manner }
    }

    /// What a connection may take.
    pub fn limit(&self) -> Duration {
        self.manner.connect
    }

    /// Whether another connection may be one to another server.
    pub fn moves(&self) -> bool {
        matches!(self.target, Target::Master(_) | Target::Replica(_))
    }

    /// The sentinels that know which server it is.
    pub fn sentinels(&self) -> Option<&Sentinels> {
        match &self.target {
            Target::Master(sentinels) | Target::Replica(sentinels) => Some(sentinels),
            _ => None,
        }
    }

    /// Connects and logs in. Where there are several servers the text says which one it is.
    pub fn open(&self, words: &Words) -> Result<(String, Connection), StoreError> {
        let limit = self.manner.connect;
        let (whose, opened) = match &self.target {
            Target::One(address) => (String::new(), self.manner.enter(address, limit)),
            Target::Node(address) => (format!("node {address}: "), self.manner.reach(address, limit)),
            Target::Copy(address) => return self.copy(address, Instant::now() + limit, words),
            Target::Master(sentinels) => return self.master(sentinels, words),
            Target::Replica(sentinels) => return self.replica(sentinels, words),
        };
        let done = opened.map(|connection| self.manner.ready(connection));
        done.map(|connection| (whose.clone(), connection)).map_err(|error| words.says(&whose, &error))
    }

    /// The master. A sentinel may name one that is dead or no master any more, for as long as nobody has taken its place: a third of the time
    /// is for the first attempt, so that who waits for a dead one is soon told of the new one.
    fn master(&self, sentinels: &Sentinels, words: &Words) -> Result<(String, Connection), StoreError> {
        let start = Instant::now();
        let mut failed = words.late();
        for share in [3, 1] {
            let until = start + self.manner.connect / share;
            let address = match sentinels.master(until) {
                Ok(address) => address,
                Err(reason) => {
                    failed = words.fault(reason);
                    continue;
                }
            };
            let whose = master_is(&address);
            let opened = self.manner.reach(&address, until.saturating_duration_since(Instant::now()));
            let looked = opened.and_then(|mut connection| Ok((cmd("ROLE").query(&mut connection)?, connection)));
            match looked.map(|(role, connection): (Role, _)| (role, self.manner.ready(connection))) {
                Ok((Role::Primary { .. }, connection)) => return Ok((whose, connection)),
                Ok(_) => {
                    failed =
                        words.fault(format_args!("{whose}a sentinel names it, but it is no master: is a failover under way?"))
                }
                Err(error) => failed = words.says(&whose, &error),
            }
            // Not the same one again: another may have heard of the new master first.
            sentinels.turn();
        }
        Err(failed)
    }

    /// Some replica that is in step with its master.
    fn replica(&self, sentinels: &Sentinels, words: &Words) -> Result<(String, Connection), StoreError> {
        let until = Instant::now() + self.manner.connect;
        let addresses = sentinels.replicas(until).map_err(|reason| words.fault(reason))?;
        let mut failed = words.fault("no replica is known");
        let first = if addresses.is_empty() { 0 } else { fastrand::usize(..addresses.len()) };
        for address in addresses.iter().cycle().skip(first).take(addresses.len()) {
            match self.copy(address, until, words) {
                Ok(opened) => return Ok(opened),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    fn copy(&self, address: &Address, until: Instant, words: &Words) -> Result<(String, Connection), StoreError> {
        let whose = format!("replica {address}: ");
        let mut opened = self.manner.reach(address, until.saturating_duration_since(Instant::now()));
        // A replica in a cluster sends elsewhere who does not say that he knows what it is.
        if matches!(self.target, Target::Copy(_)) {
            opened = opened.and_then(|mut connection| cmd("READONLY").exec(&mut connection).map(|()| connection));
        }
        let looked = opened.and_then(|mut connection| Ok((is_in_step(&mut connection)?, self.manner.ready(connection))));
        match looked {
            Ok((true, connection)) => Ok((whose, connection)),
            Ok((false, _)) => Err(words.fault(format_args!("{whose}not in step with its master"))),
            Err(error) => Err(words.says(&whose, &error)),
        }
    }
}

/// How the faults of a master begin.
pub fn master_is(address: &Address) -> String {
    format!("master {address}: ")
}

/// Whether that is a replica whose connection to its master stands.
pub fn is_in_step(connection: &mut Connection) -> RedisResult<bool> {
    let role: Role = cmd("ROLE").query(connection)?;
    Ok(matches!(role, Role::Replica { replication_state, .. } if replication_state == "connected"))
}

impl Manner {
    /// Connects to an address and logs in there.
    pub fn reach(&self, address: &Address, limit: Duration) -> RedisResult<Connection> {
        let (host, port) = (address.host.clone(), address.port);
        let address = if self.tls {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        };
        self.enter(&address, limit)
    }

    /// Connects and logs in, all of it within the limit, which is also for what is asked before the connection is [ready](Self::ready).
    fn enter(&self, to: &ConnectionAddr, limit: Duration) -> RedisResult<Connection> {
        let mut connection = Connection::open(to, Instant::now() + limit)?;
        if let Some(password) = &self.login.password {
            let mut auth = cmd("AUTH");
            auth.arg(self.login.user.as_deref()).arg(password.expose()).exec(&mut connection)?;
        }
        if self.db != 0 {
            cmd("SELECT").arg(self.db).exec(&mut connection)?;
        }
        Ok(connection)
    }

    /// For commands, from now on.
    fn ready(&self, mut connection: Connection) -> Connection {
        connection.set_limit(self.command);
        connection
    }
}
