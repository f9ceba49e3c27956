//! Changes of the text of a routes file by our own commands. What is not changed stays as the person wrote it: comments, order, spelling.

use toml_edit::{Array, DocumentMut, Item, Table, TableLike, Value};

use super::table::field_text;
use crate::identity::{PublicKey, UserName};
use crate::route::{FIELDS, Record};

/// Writes fields, removes those with an empty value, and adds keys.
pub fn put(document: &mut DocumentMut, user: &UserName, fields: &Record, keys: &[&(PublicKey, String)]) -> Result<(), String> {
    let users = document.entry("users").or_insert_with(|| {
        let mut users = Table::new();
        users.set_implicit(true);
        Item::Table(users)
    });
    let users = users.as_table_like_mut().ok_or("users must be a table")?;
    let entry = users.entry(user.as_str()).or_insert_with(|| Item::Table(Table::new()));
    let entry = entry.as_table_like_mut().ok_or("users.NAME must be a table")?;
    // The fields' own order, not the alphabet's, for who reads the file.
    for field in FIELDS {
        match fields.get(field).map(String::as_str) {
            None => {}
            Some("") => drop(entry.remove(field)),
            Some(value) => set(entry, field, value),
        }
    }
    if keys.is_empty() {
        return Ok(());
    }
    let list = entry.entry("keys").or_insert_with(|| Item::Value(Value::Array(Array::new())));
    if let Some(one) = list.as_str().map(str::to_owned) {
        *list = Item::Value(Value::Array(Array::from_iter([one])));
    }
    let list = list.as_array_mut().ok_or("keys must be a list")?;
    for (key, comment) in keys {
        let line = format!("{} {} {comment}", key.kind(), key.base64());
        list.push_formatted(Value::from(line.trim_end()).decorated("\n    ", ""));
    }
    list.set_trailing_comma(true);
    if !list.trailing().as_str().is_some_and(|trailing| trailing.contains('\n')) {
        list.set_trailing("\n");
    }
    Ok(())
}

/// Sets one field unless it says the same already, however it is spelt. The comment behind it stays.
fn set(entry: &mut dyn TableLike, field: &str, value: &str) {
    let old = entry.get(field);
    if old.is_some_and(|old| field_text(field, old).is_ok_and(|old| old == value)) {
        return;
    }
    let decor = old.and_then(Item::as_value).map(|old| old.decor().clone());
    let mut new = match (field, value.parse::<i64>()) {
        ("port", Ok(number)) => Value::from(number),
        ("hostkey", _) if value.contains([',', '\n']) => {
            Value::Array(value.split([',', '\n']).map(str::trim).filter(|pin| !pin.is_empty()).collect())
        }
        _ => Value::from(value),
    };
    if let Some(decor) = decor {
        *new.decor_mut() = decor;
    }
    match entry.get_mut(field) {
        Some(item) => *item = Item::Value(new),
        None => drop(entry.insert(field, Item::Value(new))),
    }
}

/// Removes a user. A comment above them that an empty line separates is not theirs: it moves to what follows.
pub fn remove_user(document: &mut DocumentMut, user: &UserName) -> bool {
    let Some(users) = document.get_mut("users").and_then(Item::as_table_like_mut) else { return false };
    let Some(gone) = users.remove(user.as_str()) else { return false };
    let Item::Table(gone) = gone else { return true };
    let above = gone.decor().prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default();
    let Some((kept, _)) = above.rsplit_once("\n\n").filter(|(kept, _)| kept.contains('#')) else { return true };
    let kept = format!("{kept}\n\n");
    let after = |table: &Table| table.position() > gone.position();
    let next = users.iter_mut().filter_map(|(_, item)| item.as_table_mut()).filter(|table| after(table));
    match next.min_by_key(|table| table.position()) {
        Some(next) => {
            let own =
                next.decor().prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default().trim_start_matches('\n').to_owned();
            next.decor_mut().set_prefix(kept + &own);
        }
        None => {
            let own = document.trailing().as_str().unwrap_or_default().to_owned();
            document.set_trailing(kept + &own);
        }
    }
    true
}

/// Removes one key of a user.
pub fn remove_key(document: &mut DocumentMut, user: &str, base64: &str) -> bool {
    let users = document.get_mut("users").and_then(Item::as_table_like_mut);
    let Some(entry) = users.and_then(|users| users.get_mut(user)).and_then(Item::as_table_like_mut) else { return false };
    let is_it = |value: &Value| {
        value.as_str().and_then(|line| PublicKey::from_line(line).ok()).is_some_and(|(key, _)| key.base64() == base64)
    };
    if entry.get("keys").and_then(Item::as_value).is_some_and(is_it) {
        return entry.remove("keys").is_some();
    }
    let Some(list) = entry.get_mut("keys").and_then(Item::as_array_mut) else { return false };
    let before = list.len();
    list.retain(|value| !is_it(value));
    list.len() < before
}
