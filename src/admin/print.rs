//! How results look: tables for people, JSON for programs. What a store holds is escaped where a row is made of it.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use crate::error::shown;
use crate::identity::{PublicKey, UserName};
use crate::route::{FIELDS, Record};
use crate::sealed::shown_field;
use crate::store::StoredKey;

/// Prints rows in columns under a heading.
pub fn table(out: &mut dyn Write, heading: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count()).chain([heading[column].len()]).max().unwrap_or_default()
    };
    let widths: Vec<_> = (0..heading.len()).map(width).collect();
    let heading: Vec<_> = heading.iter().map(|name| (*name).to_owned()).collect();
    for row in std::iter::once(&heading).chain(rows) {
        let line: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        writeln!(out, "{}", line.join("  ").trim_end())?;
    }
    Ok(())
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
