//! What Redis says of itself: which of our entries were changed, by whom and how ever, and what other nodes say.
//!
//! Of three ways the first that the server offers is taken. `CLIENT TRACKING` in broadcasting mode (Redis 6 and newer) says every change of an
//! entry, its end by a time to live included, to a connection of ours; it needs no setting of the server, and the ACL rule
//! `+client|tracking +client|id`. Keyspace events say the same where the server's `notify-keyspace-events` has them, which is not asked. The
//! channel `<prefix>changed` says what our own commands change; any server has it, with the ACL rules `+subscribe &<prefix>*`.

use std::time::{Duration, Instant};

use redis::{FromRedisValue as _, Msg, RedisError, RedisResult, Value, cmd};

use super::connection::{Connection, Listening};
use super::escaped;
use crate::store::{News, StoreError};

/// The channel that tracking without RESP3 speaks on.
const INVALIDATED: &str = "__redis__:invalidate";

/// The names of things of one store.
pub struct Names<'a> {
    /// What all entries begin with.
    pub prefix: &'a str,
    /// The database.
    pub db: i64,
    /// Whether one server has all entries; else what it says of them is not all there is.
    pub whole: bool,
    /// How long there may be no news before the server is asked whether it is there.
    pub silence: Duration,
}

impl Names<'_> {
    /// The channel of our own commands.
    pub fn changed(&self) -> String {
        format!("{}changed", self.prefix)
    }

    /// The channel of what nodes say to each other.
    pub fn said(&self) -> String {
        format!("{}said", self.prefix)
    }

    /// What an entry's change means.
    fn of_entry(&self, entry: &[u8]) -> Option<News> {
        let name = std::str::from_utf8(entry.strip_prefix(self.prefix.as_bytes())?).ok()?;
        match name.split_once(':')? {
            ("user", user) => Some(News::User(user.to_owned())),
            ("pubkey", key) => Some(News::Key(key.to_owned())),
            _ => None,
        }
    }

    fn news(&self, message: &Msg) -> RedisResult<Vec<News>> {
        let channel = message.get_channel_name();
        if channel == INVALIDATED {
            return Ok(match message.get_payload::<Value>()? {
                // The database was emptied.
                Value::Nil => vec![News::Anything],
                entries => Vec::<Vec<u8>>::from_redis_value(entries)?.iter().filter_map(|entry| self.of_entry(entry)).collect(),
            });
        }
        if channel == self.said() {
            return Ok(vec![News::Said(String::from_utf8_lossy(message.get_payload_bytes()).into_owned())]);
        }
        let entry = if channel == self.changed() {
            message.get_payload_bytes()
        } else {
            channel.split_once("__:").map_or(&b""[..], |(_, entry)| entry.as_bytes())
        };
        Ok(self.of_entry(entry).into_iter().collect())
    }
}

/// Why there are no news any more.
pub enum Failed {
    /// The connection broke.
    Said(RedisError),
    /// Another server is the one to ask.
    Moved(StoreError),
}

impl From<RedisError> for Failed {
    fn from(error: RedisError) -> Self {
        Self::Said(error)
    }
}

/// Tells all news that come on this connection, which is good for nothing else, until it breaks. `look` is called as often as
/// the server may be silent, so that what is to be seen elsewhere is seen in time too.
pub fn hear(
    mut connection: Connection,
    names: &Names<'_>,
    look: &mut dyn FnMut() -> Result<(), StoreError>,
    tell: &mut dyn FnMut(News),
) -> Result<(), Failed> {
    let tracked = names.whole && track(&mut connection, names).is_ok();
    let mut listening = Listening::new(connection);
    listening.subscribe("SUBSCRIBE", &[names.said(), names.changed()])?;
    let all = tracked && listening.subscribe("SUBSCRIBE", &[INVALIDATED.to_owned()])?;
    if names.whole && !all {
        let pattern = |kind: &str| format!("__keyspace@{}__:{}{kind}:*", names.db, escaped(names.prefix));
        listening.subscribe("PSUBSCRIBE", &[pattern("user"), pattern("pubkey")])?;
    }
    let way = if all { "tracking" } else { "keyspace events, where there are any, and our own commands" };
    log::debug!("news of the store by {way}");
    // What was changed while nobody listened.
    tell(News::Following { all });
    let mut looked = Instant::now();
    loop {
        match listening.message(names.silence)? {
            Some(message) => names.news(&message)?.into_iter().for_each(&mut *tell),
            // A connection may be dead without a word.
            None => listening.ping()?,
        }
        if looked.elapsed() >= names.silence {
            look().map_err(Failed::Moved)?;
            looked = Instant::now();
        }
    }
}

fn track(connection: &mut Connection, names: &Names<'_>) -> RedisResult<()> {
    let id: u64 = cmd("CLIENT").arg("ID").query(connection)?;
    let mut track = cmd("CLIENT");
    track.arg("TRACKING").arg("ON").arg("REDIRECT").arg(id).arg("BCAST");
    for kind in ["user", "pubkey"] {
        track.arg("PREFIX").arg(format!("{}{kind}:", names.prefix));
    }
    track.exec(connection)
}
