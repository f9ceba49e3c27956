//! Faults of Redis in one line each, with what to do about it. What a server says is a peer's text; it never repeats a password.

use std::fmt;
use std::time::Duration;

use redis::{ErrorKind, RedisError, ServerErrorKind};

use super::connection::{MOST, is_too_much};
use super::place::{Place, Servers};
use crate::config;
use crate::error::shown;
use crate::store::StoreError;

/// What every fault of one Redis has in common.
#[derive(Debug)]
pub struct Words {
    /// Kind, address and database, without secrets.
    pub what: String,
    /// The settings to look at when nobody answers at the address.
    setting: &'static str,
    prefix: String,
    /// What an ACL user needs beyond what one server asks for.
    more: &'static str,
    connect: Duration,
    command: Duration,
}

impl Words {
    /// For this place with these limits.
    pub fn new(place: &Place, config: &config::Redis) -> Self {
        let more = match place.servers {
            Servers::One(_) => "",
            Servers::Sentinel { .. } => " +role",
            Servers::Cluster(_) => " +role +cluster|slots +asking +readonly",
        };
        Self {
            what: place.describe(),
            setting: place.setting,
            prefix: config.prefix.clone(),
            more,
            connect: config.connect_timeout,
            command: config.command_timeout,
        }
    }

    /// That there is no server that can be asked, in words.
    pub fn fault(&self, what: impl fmt::Display) -> StoreError {
        StoreError::away(format!("{}: {what}", self.what))
    }

    /// Every connection is in use.
    pub fn busy(&self, size: u32) -> StoreError {
        let seconds = self.connect.as_secs_f32();
        self.fault(format_args!(
            "all {size} connections are busy for {seconds} s: the server is slow or SFTPPROXY_REDIS_POOL_SIZE is too small"
        ))
    }

    /// There are no threads to make connections with.
    pub fn no_threads(&self) -> StoreError {
        self.fault("no threads to connect with: look at the limits of processes (LimitNPROC, TasksMax, ulimit -u)")
    }

    /// None could be made in time.
    pub fn late(&self) -> StoreError {
        let (seconds, setting) = (self.connect.as_secs_f32(), self.setting);
        self.fault(format_args!(
            "no connection within {seconds} s: check the network, {setting} and SFTPPROXY_REDIS_CONNECT_TIMEOUT"
        ))
    }

    /// What an error says, with what to do about it.
    pub fn text(&self, error: &RedisError) -> StoreError {
        let said = match (error.code(), error.detail()) {
            (Some(code), Some(detail)) => format!("{code} {detail}"),
            _ => error.to_string(),
        };
        let hint = self.hint(error, &said);
        let what = if error.is_timeout() || is_too_much(error) { hint } else { format!("{}{hint}", shown(&said)) };
        StoreError { what, away: is_away(error, &said) }
    }

    /// A fault of a server, which is `whose` where there are several: `master 10.0.0.7:6379: `.
    pub fn says(&self, whose: &str, error: &RedisError) -> StoreError {
        let StoreError { what, away } = self.text(error);
        StoreError { away, ..self.fault(format_args!("{whose}{what}")) }
    }

    fn hint(&self, error: &RedisError, said: &str) -> String {
        let setting = self.setting;
        let has = |text: &str| said.contains(text);
        if error.is_timeout() {
            let (connect, command) = (self.connect.as_secs_f32(), self.command.as_secs_f32());
            return format!(
                "no answer in time (limits: SFTPPROXY_REDIS_CONNECT_TIMEOUT = {connect} s, SFTPPROXY_REDIS_COMMAND_TIMEOUT = {command} s): is the server stopped or overloaded?"
            );
        }
        if is_too_much(error) {
            let most = MOST / (1024 * 1024);
            return format!("an answer of more than {most} MiB: is it Redis, and is an entry too large (redis-cli --bigkeys)?");
        }
        if error.is_connection_refusal() && !self.more.is_empty() {
            return ": is it down, and a failover under way?".into();
        }
        if error.is_connection_refusal() {
            return format!(": start Redis there or correct {setting}");
        }
        if has("without any password configured") {
            return ": the server has no password; unset SFTPPROXY_REDIS_PASSWORD".into();
        }
        if has("WRONGPASS") || has("NOAUTH") || has("invalid password") || error.kind() == ErrorKind::AuthenticationFailed {
            return ": check SFTPPROXY_REDIS_PASSWORD (or user and password in SFTPPROXY_REDIS_URL)".into();
        }
        if has("NOPERM") {
            return format!(
                ": allow the ACL user ~{}* and +@read +select{}, for the commands that change routes +@write +@transaction too",
                shown(&self.prefix),
                self.more
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
            return format!(": check {setting}");
        }
        if has("cluster support disabled") {
            return ": that is no node of a cluster, give its address as redis://".into();
        }
        if has("MOVED") && self.more.is_empty() {
            return ": that is a node of a cluster, give its address as redis+cluster://".into();
        }
        if has("CLUSTERDOWN") || has("MOVED") || error.kind() == ErrorKind::Server(ServerErrorKind::Ask) {
            return ": look at redis-cli CLUSTER INFO there".into();
        }
        String::new()
    }
}

/// Whether the server did not answer, or in no language of Redis, or said that it cannot at present. To be told that one may not ask, or
/// that an entry is something else, is an answer.
fn is_away(error: &RedisError, said: &str) -> bool {
    match error.kind() {
        ErrorKind::Io
        | ErrorKind::Parse
        | ErrorKind::UnexpectedReturnType
        | ErrorKind::MasterNameNotFoundBySentinel
        | ErrorKind::NoValidReplicasFoundBySentinel
        | ErrorKind::ClusterConnectionNotFound => true,
        ErrorKind::Server(
            ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown | ServerErrorKind::ClusterDown | ServerErrorKind::TryAgain,
        ) => true,
        // A script that runs too long, and a server that has no place for one more client.
        _ => error.code() == Some("BUSY") || said.contains("max number of clients"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_lists_in_lists_without_end_is_refused_within_half_of_the_stack() {
        // An overflow ends the whole process, so this test says yes or nothing. Half of it is also what threads have that are not told otherwise.
        let read = || redis::parse_redis_value(&b"*1\r\n".repeat(1000)).map(drop).map_err(|error| is_away(&error, ""));
        let thread = std::thread::Builder::new().stack_size(crate::store::STACK / 2).spawn(read).unwrap();
        assert_eq!(thread.join().unwrap(), Err(true));
    }

    #[test]
    fn a_server_is_away_when_it_does_not_answer_or_cannot_and_not_when_it_refuses() {
        for (reply, away) in [
            ("-LOADING Redis is loading the dataset in memory", true),
            ("-MASTERDOWN Link with MASTER is down", true),
            ("-CLUSTERDOWN The cluster is down", true),
            ("-BUSY Redis is busy running a script", true),
            ("-ERR max number of clients reached", true),
            ("%~not Redis", true),
            ("HTTP/1.1 400 Bad Request", true),
            ("-NOAUTH Authentication required.", false),
            ("-WRONGPASS invalid username-password pair", false),
            ("-NOPERM this user has no permissions", false),
            ("-WRONGTYPE Operation against a key", false),
            ("-READONLY You can't write against a read only replica.", false),
            ("-OOM command not allowed when used memory > 'maxmemory'.", false),
            ("-ERR unknown command", false),
        ] {
            let parsed = redis::parse_redis_value(format!("{reply}\r\n").as_bytes());
            let error = match parsed {
                Ok(value) => value.extract_error().unwrap_err(),
                Err(error) => error,
            };
            assert_eq!(is_away(&error, &error.to_string()), away, "{reply}: {error:?}");
        }
        let too_much = RedisError::from((ErrorKind::Client, "an answer that is larger than any may be"));
        assert!(!is_away(&too_much, &too_much.to_string()));
        let silent = RedisError::from(std::io::Error::from(std::io::ErrorKind::WouldBlock));
        assert!(is_away(&silent, ""));
        let another = <Vec<u8> as redis::FromRedisValue>::from_redis_value(redis::Value::Int(1)).unwrap_err();
        assert!(is_away(&another.into(), ""));
    }
}
