//! Connections to one server: made within a limit, pooled, dropped after any fault.
//!
//! r2d2 keeps, counts and ages the connections. Its own way with a connect that fails (log it, try again in the background, let
//! everybody wait out the limit without the cause) is not ours: here a connect always yields a [`Link`], and one that failed holds
//! the reason, is shown to who waits for it at once, and is broken, so that the pool forgets it.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind};

use super::connection::Connection;
use super::server::Server;
use super::words::Words;
use crate::store::StoreError;

/// What a call may take beyond the connect limit before it is told that there is no connection: threads have to be woken.
const SLACK: Duration = Duration::from_millis(500);

/// How long one wait for the pool lasts: r2d2 wakes nobody when a broken connection makes room, so who waits asks again. Each asking
/// begins one more connect, up to the pool's size, so it is not done more often than that.
const SLICE: Duration = Duration::from_millis(100);

/// A connection, or why there is none.
pub struct Link {
    made: Instant,
    opened: Result<Connection, StoreError>,
    /// Which server it is, where there are several.
    whose: String,
    broken: bool,
}

/// What the pool is given: the server, and how its faults are told.
#[derive(Debug)]
struct Maker {
    server: Arc<Server>,
    words: Arc<Words>,
}

impl r2d2::ManageConnection for Maker {
    type Connection = Link;
    type Error = Infallible;

    fn connect(&self) -> Result<Link, Infallible> {
        let (whose, opened) = match self.server.open(&self.words) {
            Ok((whose, connection)) => (whose, Ok(connection)),
            Err(error) => (String::new(), Err(error)),
        };
        Ok(Link { made: Instant::now(), broken: opened.is_err(), opened, whose })
    }

    fn is_valid(&self, _: &mut Link) -> Result<(), Infallible> {
        Ok(())
    }

    fn has_broken(&self, link: &mut Link) -> bool {
        link.broken
    }
}

/// Why a pool has no answer.
#[derive(Debug)]
pub enum Failed {
    /// What the server said, or what became of the connection.
    Said {
        /// Which server.
        whose: String,
        /// What.
        error: RedisError,
    },
    /// There is no connection.
    Told(StoreError),
}

impl Failed {
    /// In words.
    pub fn told(self, words: &Words) -> StoreError {
        match self {
            Self::Said { whose, error } => words.says(&whose, &error),
            Self::Told(error) => error,
        }
    }
}

/// The pool.
#[derive(Debug)]
pub struct Pool {
    pool: r2d2::Pool<Maker>,
    server: Arc<Server>,
    words: Arc<Words>,
    connect: Duration,
    /// Connections from before are not used any more: another server may be the one that is meant.
    fresh: Mutex<Option<Instant>>,
}

impl Pool {
    /// Of at most `size` connections. Nothing is connected yet: the server may come later. An error is the lack of threads.
    pub fn new(server: Server, size: u32, words: &Arc<Words>) -> Result<Self, StoreError> {
        let (connect, server, words) = (server.limit(), Arc::new(server), Arc::clone(words));
        let maker = Maker { server: Arc::clone(&server), words: Arc::clone(&words) };
        let builder =
            r2d2::Pool::builder().max_size(size).min_idle(Some(0)).test_on_check_out(false).connection_timeout(connect + SLACK);
        // It takes for granted that there are threads.
        let pool = catch_unwind(AssertUnwindSafe(|| builder.build_unchecked(maker))).map_err(|_| words.no_threads())?;
        Ok(Self { pool, server, words, connect, fresh: Mutex::default() })
    }

    /// The server.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Connections that are there are not used any more.
    pub fn renew(&self) {
        *self.fresh() = Some(Instant::now());
    }

    fn fresh(&self) -> MutexGuard<'_, Option<Instant>> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, because of a fault of a connection that was made then. One that is out of use already says nothing about those in use.
    fn doubt(&self, made: Instant) {
        let mut fresh = self.fresh();
        if fresh.is_none_or(|fresh| made >= fresh) {
            *fresh = Some(Instant::now());
        }
    }

    /// Does `work` on a connection. A pooled one may have died with a restarted server: then `work` begins again on another one, each
    /// dead one being dropped. After a time limit nothing is tried again. Any fault drops the connection.
    pub fn ask<T>(&self, work: &mut dyn FnMut(&mut Connection) -> RedisResult<T>) -> Result<T, Failed> {
        let start = Instant::now();
        // A server that may not write any more has done nothing: who takes its place is asked instead, once.
        let mut moved = false;
        loop {
            let mut link = self.link(start).map_err(Failed::Told)?;
            // Not only one that was used before: r2d2 may have made more than were waited for.
            let pooled = link.made < start;
            let link = &mut *link;
            let done = match &mut link.opened {
                Ok(connection) => work(connection),
                Err(error) => return Err(Failed::Told(error.clone())),
            };
            let error = match done {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            link.broken = true;
            let again = self.server.moves() && !moved && is_no_master(&error);
            if self.server.moves() && (is_no_master(&error) || error.is_timeout() || error.is_connection_dropped()) {
                self.doubt(link.made);
            }
            if !(again || (pooled && error.is_connection_dropped())) {
                return Err(Failed::Said { whose: link.whose.clone(), error });
            }
            moved |= again;
        }
    }

    fn link(&self, start: Instant) -> Result<r2d2::PooledConnection<Maker>, StoreError> {
        let limit = self.connect + SLACK;
        loop {
            let left = limit.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Err(self.late());
            }
            let Ok(mut link) = self.pool.get_timeout(left.min(SLICE)) else { continue };
            // A failure that nobody has waited for: it says nothing about now.
            if link.opened.is_err() && link.made < start {
                continue;
            }
            if self.fresh().is_some_and(|fresh| link.made < fresh) {
                link.broken = true;
                continue;
            }
            return Ok(link);
        }
    }

    fn late(&self) -> StoreError {
        let state = self.pool.state();
        if state.connections - state.idle_connections >= self.pool.max_size() {
            self.words.busy(self.pool.max_size())
        } else {
            self.words.late()
        }
    }
}

/// Whether that is what a server says which is no master, or not yet.
pub fn is_no_master(error: &RedisError) -> bool {
    use ServerErrorKind::{BusyLoading, MasterDown, ReadOnly};
    matches!(error.kind(), ErrorKind::Server(ReadOnly | BusyLoading | MasterDown))
}
