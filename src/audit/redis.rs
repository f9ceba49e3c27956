//! The sink that is a stream in Redis, for programs that follow what happens: `XREAD BLOCK 0 STREAMS <prefix><name> $`.
//!
//! An entry has the fields `kind` and `event`, the line. An entry whose answer did not come in time is sent again, so that it may be there
//! twice; `run` and `seq` say so.

use std::collections::VecDeque;
use std::sync::Arc;

use super::lane::{Line, Sink};
use crate::config;
use crate::store::redis::link::Links;

/// The stream.
pub struct Stream {
    links: Links,
    key: String,
    length: u64,
}

impl Stream {
    /// Checks the settings; connects when there is something to write. `length` = entries kept, about.
    pub fn new(config: &config::Redis, name: &str, length: u64) -> Result<Self, String> {
        // A connection of its own: followers of the audit must not be able to hold logins up.
        let config = config::Redis { pool_size: 1, ..config.clone() };
        let links = Links::new(&config).map_err(|error| error.what)?;
        Ok(Self { links, key: format!("{}{name}", config.prefix), length })
    }
}

impl Sink for Stream {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn write(&mut self, lines: &mut VecDeque<Arc<Line>>) -> Result<u64, String> {
        if lines.is_empty() {
            return Ok(0);
        }
        let mut pipeline = redis::pipe();
        for line in lines.iter() {
            let add = pipeline.cmd("XADD").arg(&self.key).arg("MAXLEN").arg("~").arg(self.length).arg("*");
            add.arg("kind").arg(line.event.what.kind().name()).arg("event").arg(&line.json).ignore();
        }
        let sent = self.links.ask(&self.key, |connection| pipeline.exec(connection));
        sent.map_err(|error| match error.what {
            said if said.contains("NOPERM") => format!("{said}; for the stream also +xadd"),
            said if said.contains("WRONGTYPE") => format!("{said} ({} must be a stream)", self.key),
            said => said,
        })?;
        lines.clear();
        Ok(0)
    }
}
