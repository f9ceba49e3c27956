//! What the text of a routes file means. Pure but for the warnings, which wait until somebody wants them.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use ipnet::IpNet;
use jiff::Timestamp;
use toml_edit::{Document, Item, TableLike, Value};

use crate::error::shown;
use crate::identity::{PublicKey, UserName};
use crate::network::parse_network;
use crate::route::{Defaults, FIELDS, HOST_FIELDS, Host, Record, Route, address, check_message, parse_address};

/// One user.
#[derive(Debug, Clone, Default)]
pub struct Entry {
    /// The record, as the trait wants it.
    pub record: Record,
    /// The keys with their comments.
    pub keys: Vec<(PublicKey, String)>,
}

/// A whole file: no key names two users, every record is a route, every key a key.
#[derive(Debug, Default)]
pub struct Table {
    /// The users.
    pub users: HashMap<UserName, Entry>,
    /// Whose each key is.
    pub owners: HashMap<PublicKey, UserName>,
    /// Why nobody is let in.
    pub maintenance: Option<String>,
    /// Networks that are refused, until when and why.
    pub bans: Vec<(IpNet, Option<Timestamp>, String)>,
    /// What is said of upstreams, by address.
    pub hosts: BTreeMap<String, Record>,
    warnings: Vec<String>,
}

impl Table {
    /// Logs what is odd but allowed.
    pub fn warn(&self) {
        for warning in &self.warnings {
            log::warn!("routes file: {warning}");
        }
    }
}

/// Reads a text; the error is `line N: reason`.
pub fn parse(text: &str) -> Result<Table, String> {
    let reader = Reader { text };
    let document = Document::parse(text).map_err(|error| reader.at(error.span(), one_line(error.message())))?;
    let mut table = Table::default();
    for (name, item) in document.as_table() {
        if name == "maintenance" {
            let text = item.as_str().ok_or_else(|| "maintenance: expected a text in quotes".to_owned());
            let message =
                text.and_then(|text| check_message(text).map(|()| text).map_err(|reason| format!("maintenance: {reason}")));
            let message = message.map_err(|reason| reader.at(item.span(), reason))?;
            table.maintenance = (!message.is_empty()).then(|| message.to_owned());
            continue;
        }
        if name == "bans" {
            let bans = item.as_table_like().ok_or_else(|| reader.at(item.span(), "bans must be a table: [bans]"))?;
            for (network, item) in bans.iter() {
                let span = bans.key(network).and_then(toml_edit::Key::span).or(item.span());
                table.bans.push(ban(network, item).map_err(|reason| reader.at(span, format!("bans: {reason}")))?);
            }
            continue;
        }
        if name == "hosts" {
            let hosts =
                item.as_table_like().ok_or_else(|| reader.at(item.span(), "hosts must be a table: [hosts.\"HOST:PORT\"]"))?;
            reader.hosts(hosts, &mut table)?;
            continue;
        }
        if name != "users" {
            let line = reader.line(document.as_table().key(name).and_then(toml_edit::Key::span).or(item.span()));
            table.warnings.push(format!(
                "line {line}: \"{}\" has no meaning here, only [users.NAME], [hosts.\"HOST:PORT\"], [bans] and maintenance have",
                shown(name)
            ));
            continue;
        }
        let users = item.as_table_like().ok_or_else(|| reader.at(item.span(), "users must be a table: [users.NAME]"))?;
        for (name, item) in users.iter() {
            let span = users.key(name).and_then(toml_edit::Key::span).or(item.span());
            let user = UserName::new(name).map_err(|reason| reader.at(span.clone(), reason))?;
            let fields = item.as_table_like().ok_or_else(|| reader.at(span, format!("users.{} must be a table", shown(name))))?;
            let entry = reader.entry(&user, fields, &mut table)?;
            table.users.insert(user, entry);
        }
    }
    Ok(table)
}

struct Reader<'a> {
    text: &'a str,
}

impl Reader<'_> {
    fn line(&self, span: Option<Range<usize>>) -> usize {
        let start = span.map_or(0, |span| span.start).min(self.text.len());
        self.text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count() + 1
    }

    fn at(&self, span: Option<Range<usize>>, reason: impl std::fmt::Display) -> String {
        format!("line {}: {reason}", self.line(span))
    }

    fn entry(&self, user: &UserName, fields: &dyn TableLike, table: &mut Table) -> Result<Entry, String> {
        let mut entry = Entry::default();
        for (name, item) in fields.iter() {
            let span = fields.key(name).and_then(toml_edit::Key::span).or(item.span());
            if name == "keys" {
                entry.keys = self.keys(user, item, table)?;
            } else if FIELDS.contains(&name) {
                let value = field_text(name, item).map_err(|reason| self.at(span.clone(), reason))?;
                let alone = Record::from([(name.to_owned(), value.clone())]);
                Route::parse(user, &alone, &Defaults::default()).map_err(|reason| self.at(span, reason))?;
                entry.record.insert(name.to_owned(), value);
            } else {
                let line = self.line(span);
                let (name, user) = (shown(name), shown(user.as_str()));
                table.warnings.push(format!("line {line}: field \"{name}\" of user \"{user}\" is not known and has no effect"));
            }
        }
        Ok(entry)
    }

    fn hosts(&self, hosts: &dyn TableLike, table: &mut Table) -> Result<(), String> {
        for (name, item) in hosts.iter() {
            let span = hosts.key(name).and_then(toml_edit::Key::span).or(item.span());
            let (host, port) = parse_address(name).map_err(|reason| self.at(span.clone(), reason))?;
            let address = address(&host, port);
            let fields =
                item.as_table_like().ok_or_else(|| self.at(span.clone(), format!("hosts.{} must be a table", shown(name))))?;
            let mut entry = Record::new();
            for (field, item) in fields.iter() {
                let span = fields.key(field).and_then(toml_edit::Key::span).or(item.span());
                if HOST_FIELDS.contains(&field) {
                    let value = field_text(field, item).map_err(|reason| self.at(span.clone(), reason))?;
                    let alone = Record::from([(field.to_owned(), value.clone())]);
                    Host::parse(&address, &alone).map_err(|reason| self.at(span, reason))?;
                    entry.insert(field.to_owned(), value);
                } else {
                    let (field, address) = (shown(field), shown(&address));
                    table
                        .warnings
                        .push(self.at(span, format!("field \"{field}\" of upstream {address} is not known and has no effect")));
                }
            }
            if table.hosts.insert(address.clone(), entry).is_some() {
                return Err(self.at(span, format!("upstream {} stands here twice", shown(&address))));
            }
        }
        Ok(())
    }

    fn keys(&self, user: &UserName, item: &Item, table: &mut Table) -> Result<Vec<(PublicKey, String)>, String> {
        let values: Vec<&Value> = match item.as_value() {
            Some(Value::Array(array)) => array.iter().collect(),
            Some(one @ Value::String(_)) => vec![one],
            _ => return Err(self.at(item.span(), "keys: expected a list of public key lines")),
        };
        let mut keys = Vec::new();
        for value in values {
            let line = value.as_str().ok_or_else(|| self.at(value.span(), "keys: expected a public key line in quotes"))?;
            let (key, comment) = PublicKey::from_line(line).map_err(|reason| self.at(value.span(), format!("keys: {reason}")))?;
            match table.owners.insert(key.clone(), user.clone()) {
                Some(other) if other != *user => {
                    let (key, other) = (key.fingerprint(), shown(other.as_str()));
                    return Err(self.at(value.span(), format!("key {key} is also user \"{other}\"'s; one key names one user")));
                }
                Some(_) => table.warnings.push(self.at(value.span(), format!("key {} stands here twice", key.fingerprint()))),
                None => keys.push((key, comment)),
            }
        }
        Ok(keys)
    }
}

/// Fields that may be written without quotes.
pub const NUMBERS: [&str; 5] = ["port", "upload_limit", "download_limit", "max_sessions", "survive"];

/// The fields that may also be lists of texts.
const LISTS: [&str; 5] = ["rules", "allow", "deny", "extensions", "from"];

/// A field as the record has it: numbers, `true` and `false`, and lists of texts become text where they mean something.
pub fn field_text(name: &str, item: &Item) -> Result<String, String> {
    match item.as_value() {
        Some(Value::String(text)) => Ok(text.value().clone()),
        Some(Value::Integer(number)) if NUMBERS.contains(&name) => Ok(number.value().to_string()),
        Some(Value::Array(list)) if name == "hostkey" => {
            let texts: Option<Vec<_>> = list.iter().map(Value::as_str).collect();
            texts.map(|texts| texts.join(",")).ok_or_else(|| "hostkey: expected a list of texts".into())
        }
        Some(Value::Integer(number)) if name == "max_file_size" => Ok(number.value().to_string()),
        Some(Value::Boolean(yes)) if matches!(name, "read_only" | "upload_only") => {
            Ok(if *yes.value() { "yes" } else { "no" }.to_owned())
        }
        Some(Value::Array(list)) if LISTS.contains(&name) => {
            let texts: Option<Vec<_>> = list.iter().map(Value::as_str).collect();
            let between = if name == "rules" { "; " } else { ", " };
            texts.map(|texts| texts.join(between)).ok_or_else(|| format!("{name}: expected a list of texts"))
        }
        _ if NUMBERS.contains(&name) => Err(format!("{name}: expected a number")),
        _ if name == "hostkey" => Err("hostkey: expected a text or a list of texts".into()),
        _ => Err(format!("{name}: expected a text in quotes")),
    }
}

/// One line of `[bans]`: `"203.0.113.0/24" = "why"`, or `{ why = "…", until = 2026-12-31T12:00:00Z }`.
fn ban(network: &str, item: &Item) -> Result<(IpNet, Option<Timestamp>, String), String> {
    let network = parse_network(network)?;
    if let Some(why) = item.as_str() {
        return Ok((network, None, why.to_owned()));
    }
    let expected = || format!("{network}: expected a reason in quotes, or {{ why = \"…\", until = 2026-12-31T12:00:00Z }}");
    let fields = item.as_table_like().ok_or_else(expected)?;
    let why = fields.get("why").map_or(Some(""), Item::as_str).ok_or_else(expected)?;
    let until = fields.get("until").map(|until| until.as_datetime().and_then(|until| until.to_string().parse().ok()));
    let until = until.map(|until| until.ok_or_else(expected)).transpose()?;
    Ok((network, until, why.to_owned()))
}

fn one_line(text: &str) -> String {
    text.lines().collect::<Vec<_>>().join(", ")
}
