//! Changes of the text of a routes file by our own commands. What is not changed stays as the person wrote it: comments, order, spelling.

use ipnet::IpNet;
use toml_edit::{Array, Datetime, DocumentMut, InlineTable, Item, Table, TableLike, Value};

use super::table::{NUMBERS, field_text};
use crate::identity::{PublicKey, UserName};
use crate::network::parse_network;
use crate::route::{FIELDS, HOST_FIELDS, Record, address, parse_address};

/// Writes fields, removes those with an empty value, and adds keys.
pub fn put(document: &mut DocumentMut, user: &UserName, fields: &Record, keys: &[&(PublicKey, String)]) -> Result<(), String> {
    let entry = entry(document, "users", user.as_str())?;
    set_all(entry, &FIELDS, fields);
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
        append(list, line.trim_end());
    }
    Ok(())
}

/// Writes fields of an upstream's entry, however its address is spelt there; one that has no field left is removed.
pub fn put_host(document: &mut DocumentMut, named: &str, fields: &Record) -> Result<(), String> {
    let is_it = |name: &str| parse_address(name).is_ok_and(|(host, port)| address(&host, port) == named);
    let hosts = document.get("hosts").and_then(Item::as_table_like);
    let there = hosts.and_then(|hosts| hosts.iter().find(|(name, _)| is_it(name)).map(|(name, _)| name.to_owned()));
    let name = there.unwrap_or_else(|| named.to_owned());
    let entry = entry(document, "hosts", &name)?;
    set_all(entry, &HOST_FIELDS, fields);
    if entry.is_empty()
        && let Some(hosts) = document.get_mut("hosts").and_then(Item::as_table_like_mut)
    {
        hosts.remove(&name);
    }
    Ok(())
}

/// The table `[group.NAME]`, made if it is not there.
fn entry<'d>(document: &'d mut DocumentMut, group: &str, name: &str) -> Result<&'d mut dyn TableLike, String> {
    let tables = document.entry(group).or_insert_with(|| {
        let mut tables = Table::new();
        tables.set_implicit(true);
        Item::Table(tables)
    });
    let tables = tables.as_table_like_mut().ok_or_else(|| format!("{group} must be a table"))?;
    let entry = tables.entry(name).or_insert_with(|| Item::Table(Table::new()));
    entry.as_table_like_mut().ok_or_else(|| format!("{group}.NAME must be a table"))
}

/// Sets fields, and removes those with an empty value. In the fields' own order, not the alphabet's, for who reads the file.
fn set_all(entry: &mut dyn TableLike, order: &[&str], fields: &Record) {
    for field in order {
        match fields.get(*field).map(String::as_str) {
            None => {}
            Some("") => drop(entry.remove(field)),
            Some(value) => set(entry, field, value),
        }
    }
}

/// Appends a line to a list, on a line of its own. What stands behind the last one (its comment) stays there: TOML's text after a comma
/// belongs to what follows.
fn append(list: &mut Array, line: &str) {
    let mut behind = String::new();
    if let Some(last) = list.len().checked_sub(1).and_then(|last| list.get_mut(last)) {
        behind += last.decor().suffix().and_then(|suffix| suffix.as_str()).unwrap_or_default();
        last.decor_mut().set_suffix("");
    }
    behind += list.trailing().as_str().unwrap_or_default();
    list.push_formatted(Value::from(line).decorated(format!("{}\n    ", behind.trim_end()), ""));
    list.set_trailing_comma(true);
    list.set_trailing("\n");
}

/// Removes an element with the comments above and behind it; those behind the one before it stay.
fn remove_at(list: &mut Array, index: usize) {
    fn parted(text: &str) -> (&str, &str) {
        text.split_at(text.find('\n').unwrap_or_default())
    }
    let gone = list.remove(index);
    let before = gone.decor().prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default();
    let before = parted(before).0;
    match list.get_mut(index) {
        Some(next) => {
            let own = next.decor().prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default();
            let prefix = format!("{before}{}", parted(own).1);
            next.decor_mut().set_prefix(if index == 0 && !prefix.contains('\n') { String::new() } else { prefix });
        }
        None => {
            let trailing = format!("{before}{}", parted(list.trailing().as_str().unwrap_or_default()).1);
            // Without a comma a comment would have to stand before one; with it, all is well.
            list.set_trailing_comma(!list.is_empty());
            list.set_trailing(if trailing.contains('#') && !trailing.ends_with('\n') { trailing + "\n" } else { trailing });
        }
    }
}

/// Sets one field unless it says the same already, however it is spelt. The comment behind it stays.
fn set(entry: &mut dyn TableLike, field: &str, value: &str) {
    let old = entry.get(field);
    if old.is_some_and(|old| field_text(field, old).is_ok_and(|old| old == value)) {
        return;
    }
    let decor = old.and_then(Item::as_value).map(|old| old.decor().clone());
    let mut new = match (field, value.parse::<i64>()) {
        (name, Ok(number)) if NUMBERS.contains(&name) => Value::from(number),
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

/// Writes the message of a maintenance, or removes it (an empty one). What a person has written above it stays.
pub fn set_maintenance(document: &mut DocumentMut, message: &str) {
    let commented =
        document.key("maintenance").and_then(|key| key.leaf_decor().prefix()?.as_str()).is_some_and(|text| text.contains('#'));
    if message.is_empty() && !commented {
        document.remove("maintenance");
    } else {
        set(document.as_table_mut(), "maintenance", message);
    }
}

/// Writes a ban, in place of one for the same network.
pub fn add_ban(document: &mut DocumentMut, network: &IpNet, until: Option<Datetime>, why: &str) -> Result<(), String> {
    let bans = document.entry("bans").or_insert_with(|| Item::Table(Table::new()));
    let bans = bans.as_table_like_mut().ok_or("bans must be a table")?;
    let value = match until {
        None => Value::from(why),
        Some(until) => {
            let mut fields = InlineTable::new();
            fields.insert("why", why.into());
            fields.insert("until", until.into());
            Value::InlineTable(fields)
        }
    };
    bans.insert(&network.to_string(), Item::Value(value));
    Ok(())
}

/// Removes the bans of a network, however it is spelt.
pub fn remove_ban(document: &mut DocumentMut, network: &IpNet) -> bool {
    let Some(bans) = document.get_mut("bans").and_then(Item::as_table_like_mut) else { return false };
    let spelt: Vec<_> = bans.iter().map(|(name, _)| name.to_owned()).collect();
    let theirs = spelt.iter().filter(|name| parse_network(name).is_ok_and(|one| one == *network));
    theirs.filter_map(|name| bans.remove(name)).count() > 0
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
    for index in (0..before).rev() {
        if list.get(index).is_some_and(is_it) {
            remove_at(list, index);
        }
    }
    list.len() < before
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_maintenance_is_written_above_all_tables_and_what_a_person_wrote_stays() {
        let after = |text: &str, message: &str| {
            let mut document = text.parse::<DocumentMut>().unwrap();
            set_maintenance(&mut document, message);
            document.to_string()
        };
        let file = "# ours\n\n# alice\n[users.alice]\nport = 1 # one\n";
        let on = after(file, "back at 14:00");
        assert_eq!(on, format!("maintenance = \"back at 14:00\"\n{file}"));
        assert_eq!(after(&on, ""), file);
        let commented = "# why\nmaintenance = \"x\" # since when\n[users.alice]\n";
        assert_eq!(after(commented, ""), commented.replace("\"x\"", "\"\""));
        assert_eq!(after(&after(commented, ""), "x"), commented);
    }

    #[test]
    fn a_ban_is_written_and_taken_away_and_comments_stay() {
        let mut document = "# ours\n[bans]\n\"192.0.2.7\" = \"old\" # by bob\n".parse::<DocumentMut>().unwrap();
        let network = parse_network("203.0.113.0/24").unwrap();
        add_ban(&mut document, &network, Some("2026-12-31T12:00:00Z".parse().unwrap()), "scans").unwrap();
        let text = document.to_string();
        assert!(text.contains("# by bob\n\"203.0.113.0/24\" = { why = \"scans\", until = 2026-12-31T12:00:00Z }"), "{text}");
        assert!(remove_ban(&mut document, &parse_network("192.0.2.7/32").unwrap()));
        assert!(remove_ban(&mut document, &network) && !remove_ban(&mut document, &network));
        assert_eq!(document.to_string(), "# ours\n[bans]\n");
    }

    #[test]
    fn an_upstreams_entry_is_written_under_the_name_that_it_has_and_goes_with_its_last_field() {
        let after = |text: &str, value: &str| {
            let mut document = text.parse::<DocumentMut>().unwrap();
            put_host(&mut document, "h:22", &Record::from([("hostkey".to_owned(), value.to_owned())])).unwrap();
            document.to_string()
        };
        let users = "# alice\n[users.alice]\nport = 1 # one\n";
        let with = after(users, "SHA256:x");
        assert_eq!(with, format!("{users}\n[hosts.\"h:22\"]\nhostkey = \"SHA256:x\"\n"));
        assert_eq!(after(&with, ""), users);
        let spelt = "[hosts.H] # here\nhostkey = \"SHA256:x\" # compared\n";
        assert_eq!(after(spelt, "SHA256:y"), spelt.replace('x', "y"));
    }

    #[test]
    fn comments_in_lists_stay_with_their_elements() {
        let list = |text: &str| text.parse::<DocumentMut>().unwrap();
        for (text, index, left) in [
            ("k = [\"a\", \"b\"]\n", 0, "k = [\"b\"]\n"),
            ("k = [\"a\"]\n", 0, "k = []\n"),
            ("k = [\n \"a\", # A\n # above\n \"b\", # B\n]\n", 1, "k = [\n \"a\", # A\n]\n"),
            ("k = [\n \"a\", # A\n \"b\", # B\n]\n", 0, "k = [\n \"b\", # B\n]\n"),
        ] {
            let mut document = list(text);
            remove_at(document["k"].as_array_mut().unwrap(), index);
            let got = document.to_string();
            list(&got);
            assert_eq!(got.replace("\",]", "\"]"), left, "{text}");
        }
        for (text, grown) in [
            ("k = []", "k = [\n    \"n\",\n]\n"),
            ("k = [\"a\"]", "k = [\"a\",\n    \"n\",\n]\n"),
            ("k = [\n \"a\" # A\n]", "k = [\n \"a\", # A\n    \"n\",\n]\n"),
            ("k = [\n \"a\", # A\n # end\n]", "k = [\n \"a\", # A\n # end\n    \"n\",\n]\n"),
        ] {
            let mut document = list(text);
            append(document["k"].as_array_mut().unwrap(), "n");
            assert_eq!(document.to_string(), grown);
        }
    }
}
