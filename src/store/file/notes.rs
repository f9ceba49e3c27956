//! What the router itself has to remember beside a routes file: a small TOML file, `["ADDRESS"]` with texts, read and replaced whole.
//!
//! Nobody edits it; one that cannot be read is a fault, and no entry is ever taken for "there is none".

use std::collections::BTreeMap;
use std::path::Path;

use toml_edit::{DocumentMut, Item, Table, value};

use super::{lock, read_text, replace};
use crate::route::Record;
use crate::store::StoreError;

/// All entries, by address.
pub fn read(path: &Path) -> Result<BTreeMap<String, Record>, StoreError> {
    let text = match read_text(path) {
        Ok((_, text)) => text,
        Err(unread) if unread.missing => return Ok(BTreeMap::new()),
        Err(unread) => return Err(StoreError::new(unread.reason)),
    };
    let document: DocumentMut = text.parse().map_err(|_| {
        StoreError::new(format!("{}: not as the router has written it; remove it, logins write it again", path.display()))
    })?;
    let record = |item: &Item| -> Record {
        let fields = item.as_table_like().into_iter().flat_map(|table| table.iter());
        fields.filter_map(|(name, item)| Some((name.to_owned(), item.as_str()?.to_owned()))).collect()
    };
    Ok(document.iter().map(|(address, item)| (address.to_owned(), record(item))).collect())
}

/// Writes fields of an entry; see [`crate::store::RouteStore::put_entry`].
pub fn put(path: &Path, address: &str, fields: &Record) -> Result<bool, StoreError> {
    let says = |reason: &dyn std::fmt::Display| StoreError::new(format!("{}: {reason}", path.display()));
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    std::fs::create_dir_all(folder).map_err(|error| says(&error))?;
    let _lock = lock(folder).map_err(|reason| says(&reason))?;
    let mut entries = read(path)?;
    let entry = entries.entry(address.to_owned()).or_default();
    let before = entry.len();
    let added = fields.iter().filter(|(name, value)| !value.is_empty() && !entry.contains_key(*name)).count();
    entry.extend(fields.clone());
    entry.retain(|_, value| !value.is_empty());
    let removed = before + added - entry.len();
    entries.retain(|_, entry| !entry.is_empty());
    let mut document = DocumentMut::new();
    for (address, entry) in &entries {
        let table: Table = entry.iter().map(|(name, text)| (name.as_str(), value(text))).collect();
        document.insert(address, Item::Table(table));
    }
    replace(path, folder, &document.to_string()).map_err(|reason| says(&reason))?;
    Ok(added + removed > 0)
}
