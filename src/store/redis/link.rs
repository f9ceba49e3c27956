//! Connections to Redis: made within a limit, pooled, dropped after any fault, and every fault told with what to do about it.
//!
//! r2d2 keeps, counts and ages the connections. Its own way with a connect that fails (log it, try again in the background, let
//! everybody wait out the limit without the cause) is not ours: here a connect always yields a [`Link`], and one that failed holds
//! the reason, is shown to who waits for it at once, and is broken, so that the pool forgets it.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use redis::{Connection, ConnectionAddr, ErrorKind, IntoConnectionInfo as _, RedisError, RedisResult};

use crate::config;
use crate::error::shown;
use crate::secret::Secret;
use crate::store::StoreError;

/// What a call may take beyond the connect limit before it is told that there is no connection: threads have to be woken.
const SLACK: Duration = Duration::from_millis(500);

/// How long one wait for the pool lasts: r2d2 wakes nobody when a broken connection makes room, so who waits asks again. Each asking
/// begins one more connect, up to the pool's size, so it is not done more often than that.
const SLICE: Duration = Duration::from_millis(100);

/// A connection, or why there is none.
pub struct Link {
    made: Instant,
    opened: RedisResult<Connection>,
    broken: bool,
}

/// Where Redis is and how to log in there.
#[derive(Debug)]
struct Server {
    client: redis::Client,
    user: Option<String>,
    password: Option<Secret>,
    db: i64,
    connect: Duration,
    command: Duration,
}

impl Server {
    /// Connects and logs in. AUTH and SELECT are sent from here, since the crate's own way loses what the server answers to AUTH.
    fn open(&self) -> RedisResult<Connection> {
        let mut connection = self.client.get_connection_with_timeout(self.connect)?;
        connection.set_read_timeout(Some(self.connect))?;
        connection.set_write_timeout(Some(self.connect))?;
        if let Some(password) = &self.password {
            let mut auth = redis::cmd("AUTH");
            auth.arg(self.user.as_deref()).arg(password.expose()).exec(&mut connection)?;
        }
        if self.db != 0 {
            redis::cmd("SELECT").arg(self.db).exec(&mut connection)?;
        }
        connection.set_read_timeout(Some(self.command))?;
        connection.set_write_timeout(Some(self.command))?;
        Ok(connection)
    }
}

impl r2d2::ManageConnection for Server {
    type Connection = Link;
    type Error = Infallible;

    fn connect(&self) -> Result<Link, Infallible> {
        let opened = self.open();
        Ok(Link { made: Instant::now(), broken: opened.is_err(), opened })
    }

    fn is_valid(&self, _: &mut Link) -> Result<(), Infallible> {
        Ok(())
    }

    fn has_broken(&self, link: &mut Link) -> bool {
        link.broken
    }
}

/// The pool.
#[derive(Debug)]
pub struct Links {
    pool: r2d2::Pool<Server>,
    /// For connections that are not the pool's.
    apart: Server,
    /// `host:port` or the socket's path.
    address: String,
    db: i64,
    /// The settings to look at when nobody answers at the address.
    place: &'static str,
    prefix: String,
    connect: Duration,
    command: Duration,
}

impl Links {
    /// Checks the settings. Nothing is connected yet: the server may come later.
    pub fn new(config: &config::Redis) -> Result<Self, StoreError> {
        let server = server(config)?;
        let place = match config.url {
            Some(_) => "SFTPPROXY_REDIS_URL",
            None => "SFTPPROXY_REDIS_HOST and SFTPPROXY_REDIS_PORT",
        };
        let address = match server.client.get_connection_info().addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } if host.contains(':') => {
                format!("[{host}]:{port}")
            }
            address => address.to_string(),
        };
        let db = server.db;
        let pool = r2d2::Pool::builder()
            .max_size(config.pool_size)
            .min_idle(Some(0))
            .test_on_check_out(false)
            .connection_timeout(config.connect_timeout + SLACK)
            .build_unchecked(server);
        let (connect, command) = (config.connect_timeout, config.command_timeout);
        let apart = self::server(config)?;
        Ok(Self { pool, apart, address, db, place, prefix: config.prefix.clone(), connect, command })
    }

    /// Kind, address and database, without secrets.
    pub fn describe(&self) -> String {
        format!("redis {} database {}", self.address, self.db)
    }

    /// The database's number.
    pub fn db(&self) -> i64 {
        self.db
    }

    /// A connection for who keeps it, beside the pool.
    pub fn apart(&self) -> Result<Connection, StoreError> {
        self.apart.open().map_err(|error| self.says(&error))
    }

    /// Does `work` on a connection. A pooled one may have died with a restarted server: then `work` begins again on another one, each
    /// dead one being dropped. After a time limit nothing is tried again. Any fault drops the connection.
    pub fn ask<T>(&self, mut work: impl FnMut(&mut Connection) -> RedisResult<T>) -> Result<T, StoreError> {
        let start = Instant::now();
        loop {
            let mut link = self.link(start)?;
            // Not only one that was used before: r2d2 may have made more than were waited for.
            let pooled = link.made < start;
            let done = match &mut link.opened {
                Ok(connection) => work(connection),
                Err(error) => return Err(self.says(error)),
            };
            match done {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    link.broken = true;
                    if !(pooled && error.is_connection_dropped()) {
                        return Err(self.says(&error));
                    }
                }
            }
        }
    }

    fn link(&self, start: Instant) -> Result<r2d2::PooledConnection<Server>, StoreError> {
        let limit = self.connect + SLACK;
        loop {
            let left = limit.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Err(self.late());
            }
            match self.pool.get_timeout(left.min(SLICE)) {
                // A failure that nobody has waited for: it says nothing about now.
                Ok(link) if link.opened.is_err() && link.made < start => {}
                Ok(link) => return Ok(link),
                Err(_) => {}
            }
        }
    }

    fn late(&self) -> StoreError {
        let state = self.pool.state();
        let seconds = self.connect.as_secs_f32();
        StoreError(if state.connections - state.idle_connections >= self.pool.max_size() {
            format!(
                "{}: all {} connections are busy for {seconds} s: the server is slow or SFTPPROXY_REDIS_POOL_SIZE is too small",
                self.describe(),
                self.pool.max_size()
            )
        } else {
            format!(
                "{}: no connection within {seconds} s: check the network, {} and SFTPPROXY_REDIS_CONNECT_TIMEOUT",
                self.describe(),
                self.place
            )
        })
    }

    /// The fault in one line with what to do. The server's text is a peer's text; it never repeats a password.
    pub fn says(&self, error: &RedisError) -> StoreError {
        let said = match (error.code(), error.detail()) {
            (Some(code), Some(detail)) => format!("{code} {detail}"),
            _ => error.to_string(),
        };
        let hint = self.hint(error, &said);
        if error.is_timeout() {
            return StoreError(format!("{}: {hint}", self.describe()));
        }
        StoreError(format!("{}: {}{hint}", self.describe(), shown(&said)))
    }

    fn hint(&self, error: &RedisError, said: &str) -> String {
        let place = self.place;
        let has = |text: &str| said.contains(text);
        if error.is_timeout() {
            let (connect, command) = (self.connect.as_secs_f32(), self.command.as_secs_f32());
            return format!(
                "no answer in time (limits: SFTPPROXY_REDIS_CONNECT_TIMEOUT = {connect} s, SFTPPROXY_REDIS_COMMAND_TIMEOUT = {command} s): is the server stopped or overloaded?"
            );
        }
        if error.is_connection_refusal() {
            return format!(": start Redis there or correct {place}");
        }
        if has("without any password configured") {
            return ": the server has no password; unset SFTPPROXY_REDIS_PASSWORD".into();
        }
        if has("WRONGPASS") || has("NOAUTH") || has("invalid password") || error.kind() == ErrorKind::AuthenticationFailed {
            return ": check SFTPPROXY_REDIS_PASSWORD (or user and password in SFTPPROXY_REDIS_URL)".into();
        }
        if has("NOPERM") {
            return format!(
                ": allow the ACL user ~{}* and +@read +select, for the commands that change routes +@write +@transaction too",
                shown(&self.prefix)
            );
        }
        if has("WRONGTYPE") {
            return ": pubkey entries must be strings and user entries hashes; look at the entry with redis-cli TYPE and remove it".into();
        }
        if has("DB index") {
            return ": check SFTPPROXY_REDIS_DB".into();
        }
        if has("certificate") {
            return ": for a private CA name its file in SSL_CERT_FILE or add it to the system's store".into();
        }
        if has("lookup address") {
            return format!(": check {place}");
        }
        String::new()
    }
}

fn server(config: &config::Redis) -> Result<Server, StoreError> {
    let (info, db) = match &config.url {
        Some(url) => from_url(url, config.db)?,
        None => {
            let host = config.host.trim_matches(['[', ']']).to_owned();
            let info = (host, config.port).into_connection_info().map_err(|error| StoreError(error.to_string()))?;
            (info, config.db)
        }
    };
    let login = info.redis_settings().clone();
    // The client itself must send nothing: see `Server::open`.
    let info = info
        .set_redis_settings(redis::RedisConnectionInfo::default().set_skip_set_lib_name())
        .set_tcp_settings(redis::io::tcp::TcpSettings::default().set_nodelay(true));
    Ok(Server {
        client: redis::Client::open(info).map_err(|error| StoreError(format!("redis: {error}")))?,
        user: login.username().map(str::to_owned),
        password: login.password().map(|text| Secret::new(text.as_bytes().to_vec())).or_else(|| config.password.clone()),
        db,
        connect: config.connect_timeout,
        command: config.command_timeout,
    })
}

/// A URL without a database means `db` (the contract's 1), not Redis' own 0: who moves from host and port to a URL keeps the data.
fn from_url(url: &Secret, db: i64) -> Result<(redis::ConnectionInfo, i64), StoreError> {
    let fault = |reason: &str| StoreError(format!("SFTPPROXY_REDIS_URL: {reason} (the value is not shown)"));
    let url = url.expose_str().and_then(redis::parse_redis_url).ok_or_else(|| fault("not a URL of Redis"))?;
    let local = url.scheme().ends_with("unix");
    let named = if local { url.query_pairs().any(|(name, _)| name == "db") } else { !url.path().trim_matches('/').is_empty() };
    // The crate would drop these in silence.
    if local && (!url.username().is_empty() || url.password().is_some()) {
        return Err(fault("give user and password of a socket as ?user=…&pass=…"));
    }
    let info = url.into_connection_info().map_err(|error| fault(&error.to_string()))?;
    if matches!(info.addr(), ConnectionAddr::TcpTls { insecure: true, .. }) {
        return Err(fault("#insecure is not supported; for a private CA name its file in SSL_CERT_FILE"));
    }
    let db = if named { info.redis_settings().db() } else { db };
    Ok((info, db))
}
