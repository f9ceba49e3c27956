//! How results look: tables for people, JSON for programs. What a store holds is escaped where a row is made of it.

use std::io::{self, Write};

use anstyle::{AnsiColor, Effects};
use serde_json::{Map, Value, json};

use super::Console;
use crate::error::shown;
use crate::identity::{PublicKey, UserName};
use crate::route::{FIELDS, Record};
use crate::sealed::shown_field;
use crate::store::StoredKey;

/// How something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// As it should be.
    Good,
    /// Neither good nor bad.
    Note,
    /// It works, and may not always.
    Warning,
    /// It does not work.
    Bad,
    /// It cannot be said.
    Unknown,
}

impl State {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Bad => "BAD",
            Self::Unknown => "unknown",
        }
    }

    /// The word in a column of seven, in its colour if there are colours.
    pub fn painted(self, colour: bool) -> String {
        let word = format!("{:7}", self.word());
        let style = match self {
            Self::Good => AnsiColor::Green.on_default(),
            Self::Note => return word,
            Self::Warning => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default() | Effects::BOLD,
            Self::Unknown => AnsiColor::Magenta.on_default(),
        };
        if colour { format!("{style}{word}{style:#}") } else { word }
    }
}

/// Prints rows in columns under a heading.
pub fn table(out: &mut dyn Write, heading: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    let heading: Vec<_> = heading.iter().map(|name| (*name).to_owned()).collect();
    let widths = widths(&heading, rows.iter());
    for row in std::iter::once(&heading).chain(rows) {
        writeln!(out, "{}", line(row, &widths))?;
    }
    Ok(())
}

/// The same, and in front of each row how it stands.
pub fn states(console: &mut Console<'_>, heading: &[&str], rows: &[(State, Vec<String>)]) -> io::Result<()> {
    let heading: Vec<_> = heading.iter().map(|name| (*name).to_owned()).collect();
    let widths = widths(&heading, rows.iter().map(|(_, row)| row));
    writeln!(console.out, "STATE    {}", line(&heading, &widths))?;
    for (state, row) in rows {
        writeln!(console.out, "{}  {}", state.painted(console.colour), line(row, &widths))?;
    }
    Ok(())
}

fn widths<'a>(heading: &[String], rows: impl Iterator<Item = &'a Vec<String>> + Clone) -> Vec<usize> {
    let width = |column: usize| rows.clone().map(|row| row[column].chars().count()).max().unwrap_or_default();
    heading.iter().enumerate().map(|(column, name)| width(column).max(name.len())).collect()
}

fn line(row: &[String], widths: &[usize]) -> String {
    let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
    cells.join("  ").trim_end().to_owned()
}

/// Prints a value as indented JSON.
pub fn json(out: &mut dyn Write, value: &Value) -> io::Result<()> {
    writeln!(out, "{value:#}")
}

/// A record's fields: ours first, in their order, then others.
pub fn fields(record: &Record) -> Vec<(&str, String)> {
    let ours = FIELDS.iter().filter_map(|field| Some((*field, record.get(*field)?)));
    let others = record.iter().filter(|(name, _)| !FIELDS.contains(&name.as_str()));
    ours.chain(others.map(|(name, value)| (name.as_str(), value))).map(|(name, value)| (name, shown_field(name, value))).collect()
}

/// The same as JSON, all texts as stored but of encrypted keys.
pub fn fields_json(record: &Record) -> Value {
    Value::Object(fields(record).into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect::<Map<_, _>>())
}

/// What a stored key is: the key, or why nobody can log in with it.
pub struct Judged<'a> {
    /// As stored.
    pub stored: &'a StoredKey,
    /// The key, when it is one.
    pub key: Option<PublicKey>,
    /// Why the entry is dead.
    pub dead: Option<String>,
}

impl<'a> Judged<'a> {
    /// Judges an entry; `exists` says whether a user has a record.
    pub fn new(stored: &'a StoredKey, exists: &dyn Fn(&UserName) -> bool) -> Self {
        let (key, mut dead) = match (PublicKey::from_base64(&stored.base64), PublicKey::from_line(&stored.base64)) {
            (Ok(key), _) => (Some(key), None),
            (_, Ok((key, _))) => (
                Some(key),
                Some(
                    "the whole line is stored where only its second field should stand: add the key again and remove this".into(),
                ),
            ),
            (Err(reason), _) => (None, Some(reason)),
        };
        dead = dead.or_else(|| match UserName::new(&stored.user) {
            Err(_) if stored.user.is_empty() => Some("it names no user".into()),
            Err(reason) => Some(reason),
            Ok(user) if !exists(&user) => Some("its user has no record".into()),
            Ok(_) => None,
        });
        Self { stored, key, dead }
    }

    /// Type, fingerprint or what is stored, comment; escaped.
    pub fn row(&self) -> Vec<String> {
        let (kind, print) = match &self.key {
            Some(key) => (key.kind().to_owned(), key.fingerprint().to_string()),
            None => ("-".into(), shown(&self.stored.base64).chars().take(60).collect()),
        };
        let note = match &self.dead {
            Some(reason) => format!("DEAD: {reason}"),
            None => shown(&self.stored.comment),
        };
        vec![kind, print, note]
    }

    /// The entry for programs.
    pub fn json(&self) -> Value {
        json!({
            "user": self.stored.user,
            "type": self.key.as_ref().map(PublicKey::kind),
            "fingerprint": self.key.as_ref().map(|key| key.fingerprint().to_string()),
            "comment": self.stored.comment,
            "base64": self.stored.base64,
            "dead": self.dead,
        })
    }
}
