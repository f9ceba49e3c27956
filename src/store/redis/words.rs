//! Faults of Redis in one line each, with what to do about it. What a server says is a peer's text; it never repeats a password.

use std::fmt;
use std::time::Duration;

use redis::{ErrorKind, RedisError};

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

    /// A fault in words.
    pub fn fault(&self, what: impl fmt::Display) -> StoreError {
        StoreError(format!("{}: {what}", self.what))
    }

    /// Every connection is in use.
    pub fn busy(&self, size: u32) -> StoreError {
        let seconds = self.connect.as_secs_f32();
        self.fault(format_args!(
            "all {size} connections are busy for {seconds} s: the server is slow or SFTPPROXY_REDIS_POOL_SIZE is too small"
        ))
    }

    /// None could be made in time.
    pub fn late(&self) -> StoreError {
        let (seconds, setting) = (self.connect.as_secs_f32(), self.setting);
        self.fault(format_args!(
            "no connection within {seconds} s: check the network, {setting} and SFTPPROXY_REDIS_CONNECT_TIMEOUT"
        ))
    }

    /// A fault of a server, which is `whose` where there are several: `master 10.0.0.7:6379: `.
    pub fn says(&self, whose: &str, error: &RedisError) -> StoreError {
        let said = match (error.code(), error.detail()) {
            (Some(code), Some(detail)) => format!("{code} {detail}"),
            _ => error.to_string(),
        };
        let hint = self.hint(error, &said);
        if error.is_timeout() {
            return self.fault(format_args!("{whose}{hint}"));
        }
        self.fault(format_args!("{whose}{}{hint}", shown(&said)))
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
        if has("CLUSTERDOWN") {
            return ": look at redis-cli CLUSTER INFO there".into();
        }
        String::new()
    }
}
