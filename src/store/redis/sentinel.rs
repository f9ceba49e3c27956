//! What sentinels say: which server is the master, and which are its replicas.
//!
//! They are asked one after the other until one answers, the one that has answered last being the first; each has its share of the time
//! that is left, so that one which stands still costs no login. Whether it is true is for [`super::server`] to see, at the server.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use redis::{Cmd, FromRedisValue, RedisResult, cmd};

use super::connection::is_too_much;
use super::place::Address;
use super::server::Manner;
use crate::error::shown;

/// Replicas that are looked at, at most.
const MOST: usize = 64;

/// The sentinels of one service.
#[derive(Debug)]
pub struct Sentinels {
    service: String,
    at: Vec<Address>,
    manner: Manner,
    first: AtomicUsize,
}

impl Sentinels {
    /// Nothing is connected yet.
    pub fn new(service: &str, at: &[Address], manner: Manner) -> Self {
        Self { service: service.to_owned(), at: at.to_vec(), manner, first: AtomicUsize::new(0) }
    }

    /// The master's address, or why no sentinel says it.
    pub fn master(&self, until: Instant) -> Result<Address, String> {
        let named: Option<(String, u16)> = self.ask(cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(&self.service), until)?;
        let unknown = || format!("the sentinels know no service \"{}\": check SFTPPROXY_REDIS_URL", shown(&self.service));
        named.map(|(host, port)| Address { host, port }).ok_or_else(unknown)
    }

    /// The addresses of the replicas that are in step, as far as the sentinel knows.
    pub fn replicas(&self, until: Instant) -> Result<Vec<Address>, String> {
        // SLAVES is understood by every version.
        let all: Vec<HashMap<String, String>> = self.ask(cmd("SENTINEL").arg("SLAVES").arg(&self.service), until)?;
        Ok(all.iter().filter_map(replica).take(MOST).collect())
    }

    /// Another one is asked first from now on.
    pub fn turn(&self) {
        self.first.fetch_add(1, Ordering::Relaxed);
    }

    fn ask<T: FromRedisValue>(&self, question: &Cmd, until: Instant) -> Result<T, String> {
        let (first, count) = (self.first.load(Ordering::Relaxed), self.at.len());
        let mut said = Vec::new();
        for number in 0..count {
            let place = first.wrapping_add(number) % count;
            let left = until.saturating_duration_since(Instant::now());
            match self.ask_one(&self.at[place], question, left / (count - number) as u32) {
                Ok(answer) => {
                    self.first.store(place, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(error) => said.push(format!("{}: {}", self.at[place], shown(&says(&error)))),
            }
        }
        Err(format!("no sentinel answers ({}): check SFTPPROXY_REDIS_URL", said.join("; ")))
    }

    fn ask_one<T: FromRedisValue>(&self, at: &Address, question: &Cmd, limit: std::time::Duration) -> RedisResult<T> {
        question.query(&mut self.manner.reach(at, limit)?)
    }
}

fn says(error: &redis::RedisError) -> String {
    let said = error.to_string();
    if error.is_timeout() {
        return "no answer in time".into();
    }
    if is_too_much(error) {
        return "an answer that is larger than any may be".into();
    }
    if said.contains("NOAUTH") || said.contains("WRONGPASS") || said.contains("password") {
        return format!("{said}: check sentinel_username and sentinel_password in SFTPPROXY_REDIS_URL");
    }
    said
}

fn replica(told: &HashMap<String, String>) -> Option<Address> {
    let of = |name: &str| told.get(name).map_or("", String::as_str);
    let is_down = of("flags").split(',').any(|flag| ["s_down", "o_down", "disconnected"].contains(&flag));
    let in_step = !is_down && of("master-link-status") == "ok";
    in_step.then(|| Some(Address { host: told.get("ip")?.clone(), port: of("port").parse().ok()? }))?
}
