//! What clients have negotiated, from the audit's files: the events of kind `login`, read line by line.
//!
//! What a client chooses is bounded: a line by [`MAX_LINE`], the different combinations by [`MAX_GROUPS`].

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::event::Kind;
use crate::identity::Negotiated;

/// Longest line that is looked at, in bytes: a login has some 500.
const MAX_LINE: usize = 64 * 1024;

/// Most combinations that are kept apart; more than a site has, and they cost some 50 MB.
const MAX_GROUPS: usize = 100_000;

/// Who negotiates what. Fields that an event of an older router lacks are empty or 0.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    /// The user.
    pub user: String,
    /// The client's identification.
    pub software: String,
    /// The key's type.
    pub key_type: String,
    /// Its size in bits.
    pub key_bits: u64,
    /// Key exchange.
    pub kex: String,
    /// Cipher.
    pub cipher: String,
    /// MAC.
    pub mac: String,
}

impl Group {
    /// The connection's part of it.
    pub fn negotiated(&self) -> Negotiated {
        Negotiated { kex: self.kex.clone(), cipher: self.cipher.clone(), mac: self.mac.clone() }
    }
}

/// How often, and when last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Logins.
    pub count: u64,
    /// Time of the last one, as the audit has it.
    pub last: String,
}

/// All that was read.
#[derive(Debug, Default)]
pub struct Logins {
    /// By combination.
    pub groups: BTreeMap<Group, Seen>,
    /// Logins that are in no group because there were too many.
    pub beyond: u64,
    /// Lines that are no event.
    pub unread: u64,
}

impl Logins {
    /// Reads a file, or what comes on standard input.
    pub fn read(&mut self, input: &mut dyn BufRead, since: &str) -> io::Result<()> {
        let mut line = Vec::new();
        loop {
            line.clear();
            if Read::take(&mut *input, MAX_LINE as u64).read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            if line.last() == Some(&b'\n') {
                self.hear(&line, since);
            } else {
                // Too long for a login; or the last line, which is being written.
                input.skip_until(b'\n')?;
            }
        }
    }

    fn hear(&mut self, line: &[u8], since: &str) {
        // Most events are no logins, and reading them as JSON would cost most of the time.
        let kind = format!("\"kind\":\"{}\"", Kind::Login.name());
        if !line.windows(kind.len()).any(|piece| piece == kind.as_bytes()) {
            self.unread += u64::from(line.first() != Some(&b'{'));
            return;
        }
        let Ok(event) = serde_json::from_slice::<Value>(line) else {
            self.unread += 1;
            return;
        };
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        let time = text("time");
        if event["kind"] != Kind::Login.name() || time.as_str() < since {
            return;
        }
        let group = Group {
            user: text("user"),
            software: text("software"),
            key_type: text("key_type"),
            key_bits: event["key_bits"].as_u64().unwrap_or_default(),
            kex: text("kex"),
            cipher: text("cipher"),
            mac: text("mac"),
        };
        if self.groups.len() >= MAX_GROUPS && !self.groups.contains_key(&group) {
            self.beyond += 1;
            return;
        }
        let seen = self.groups.entry(group).or_default();
        seen.count += 1;
        seen.last = time.max(std::mem::take(&mut seen.last));
    }
}

/// The audit's file with those that were rotated, the oldest first.
pub fn rotated(path: &Path, count: u32) -> Vec<PathBuf> {
    let numbered = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    let old = (1..=count).rev().map(numbered).filter(|path| path.exists());
    old.chain(std::iter::once(path.to_owned())).collect()
}

/// Opens a file to read.
pub fn open(path: &Path) -> Result<BufReader<File>, String> {
    File::open(path).map(BufReader::new).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_are_counted_by_what_they_negotiated_whatever_else_stands_in_the_file() {
        let login = |user: &str, time: &str| {
            format!("{{\"v\":1,\"time\":\"{time}\",\"kind\":\"login\",\"user\":\"{user}\",\"kex\":\"curve25519-sha256\"}}\n")
        };
        let operation = "{\"kind\":\"operation\",\"path\":\"\\\"kind\\\":\\\"login\\\"\"}\n";
        let forged = "{\"kind\":\"operation\",\"path\":{\"kind\":\"login\"}}\n";
        let long = format!("{{\"kind\":\"login\",\"user\":\"{}\"}}\n", "x".repeat(MAX_LINE));
        let cut = "{\"kind\":\"login\",\"us";
        let text = [
            &login("alice", "2026-11-02T10:00:00.000Z"),
            operation,
            forged,
            &long,
            "nonsense\n",
            &login("alice", "2026-11-01T10:00:00.000Z"),
            &login("bob", "2026-10-01T10:00:00.000Z"),
            cut,
        ]
        .concat();
        let mut logins = Logins::default();
        logins.read(&mut text.as_bytes(), "2026-11").unwrap();
        let seen: Vec<_> =
            logins.groups.iter().map(|(group, seen)| (group.user.as_str(), seen.count, seen.last.as_str())).collect();
        assert_eq!((seen, logins.unread), (vec![("alice", 2, "2026-11-02T10:00:00.000Z")], 1));
    }
}
