//! `host-key list`: every upstream that routes lead to, its approved keys and who approves them, and whether it is quarantined.

use std::collections::BTreeMap;

use clap::ArgMatches;
use serde_json::{Value, json};

use super::super::{Console, Context, Trouble, print};
use crate::error::shown;
use crate::identity::UserName;
use crate::route::{Host, Pin, Route, parse_address};
use crate::store::Shelf;
use crate::upstream::{Note, known};

/// Names of users that a row shows; the rest is a number.
const NAMED: usize = 3;

/// What is known of the keys of one upstream.
#[derive(Default)]
pub struct Upstream {
    /// Its pins in the store.
    pub pins: Vec<Pin>,
    /// The pins of records, by user.
    pub records: BTreeMap<UserName, Vec<Pin>>,
    /// Whether a record has none, so that the upstream's own or `known_hosts` count.
    pub bare: bool,
    /// What `known_hosts` approves.
    pub known: Vec<Pin>,
    /// The key that it has shown instead.
    pub note: Option<Note>,
}

impl Upstream {
    /// The pins that count for records without any.
    pub fn common(&self) -> (&[Pin], &'static str) {
        if self.pins.is_empty() { (&self.known, "known_hosts") } else { (&self.pins, "host") }
    }
}

/// Looks at all records and entries; a record with a fault leads nowhere (`user list` says so).
pub fn survey(context: &Context<'_>) -> Result<BTreeMap<String, Upstream>, Trouble> {
    let mut upstreams: BTreeMap<String, Upstream> = BTreeMap::new();
    for (address, entry) in context.store.entries(Shelf::Hosts)? {
        let host = Host::parse(&address, &entry)
            .map_err(|reason| Trouble::Failed(format!("entry of upstream {}: {reason}", shown(&address))))?;
        upstreams.entry(address).or_default().pins = host.pins;
    }
    for (address, entry) in context.store.entries(Shelf::Quarantine)? {
        upstreams.entry(address).or_default().note = Note::parse(&entry);
    }
    for user in context.store.users()? {
        let Some(record) = context.store.record(&user)? else { continue };
        let Ok(route) = Route::parse(&user, &record, context.defaults) else { continue };
        let upstream = upstreams.entry(route.address()).or_default();
        if route.pins.is_empty() {
            upstream.bare = true;
        } else {
            upstream.records.insert(user, route.pins);
        }
    }
    for (address, upstream) in &mut upstreams {
        let Ok((host, port)) = parse_address(address) else { continue };
        let (known, _) = known(&host, port, context.upstream).map_err(Trouble::Failed)?;
        upstream.known = known.keys.into_iter().map(Pin::Key).collect();
    }
    Ok(upstreams)
}

/// `host-key list`.
pub fn list(matches: &ArgMatches, context: &Context<'_>, console: &mut Console<'_>) -> Result<(), Trouble> {
    let upstreams = survey(context)?;
    if matches.get_flag("json") {
        let all = upstreams.iter().map(|(address, upstream)| as_json(address, upstream)).collect();
        return Ok(print::json(console.out, &Value::Array(all))?);
    }
    let rows: Vec<_> = upstreams.iter().flat_map(|(address, upstream)| rows(address, upstream)).collect();
    print::table(console.out, &["UPSTREAM", "TYPE", "FINGERPRINT", "APPROVED BY"], &rows)?;
    let quarantined: Vec<_> =
        upstreams.iter().filter(|(_, upstream)| upstream.note.is_some()).map(|(address, _)| address).collect();
    for address in quarantined {
        let address = shown(address);
        writeln!(console.err, "{address} is quarantined: compare its key, then: sftpproxy host-key approve {address}")?;
    }
    Ok(())
}

fn rows(address: &str, upstream: &Upstream) -> Vec<Vec<String>> {
    let row = |kind: Option<&str>, print: String, by: String| vec![shown(address), kind.unwrap_or("-").to_owned(), print, by];
    let mut rows = Vec::new();
    let (common, by) = upstream.common();
    if upstream.bare || !upstream.pins.is_empty() {
        rows.extend(common.iter().map(|pin| row(pin.kind(), pin.fingerprint().to_string(), by.into())));
        if common.is_empty() {
            rows.push(row(None, "-".into(), "nobody: logins without a pin are refused".into()));
        }
    }
    // Many records pin the same key.
    let mut records: BTreeMap<(Option<&str>, String), Vec<&UserName>> = BTreeMap::new();
    for (user, pins) in &upstream.records {
        for pin in pins {
            records.entry((pin.kind(), pin.fingerprint().to_string())).or_default().push(user);
        }
    }
    for ((kind, print), users) in records {
        rows.push(row(kind, print, format!("record of {}", names(&users))));
    }
    if let Some(note) = &upstream.note {
        let why = format!("QUARANTINED since {}, seen by a login of {}", shown(&note.since), shown(&note.user));
        rows.push(row(Some(note.key.kind()), note.key.fingerprint().to_string(), why));
    }
    rows
}

/// The first names, and how many more there are.
pub fn names(users: &[&UserName]) -> String {
    let first: Vec<_> = users.iter().take(NAMED).map(|user| shown(user.as_str())).collect();
    match users.len().saturating_sub(NAMED) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

fn as_json(address: &str, upstream: &Upstream) -> Value {
    let pins = |pins: &[Pin]| -> Value {
        pins.iter().map(|pin| json!({ "type": pin.kind(), "fingerprint": pin.fingerprint().to_string() })).collect()
    };
    let note = upstream.note.as_ref().map(|note| {
        json!({
            "type": note.key.kind(),
            "fingerprint": note.key.fingerprint().to_string(),
            "since": note.since,
            "user": note.user,
            "approved": note.approved.split(", ").collect::<Vec<_>>(),
            "basis": note.basis,
        })
    });
    let records: serde_json::Map<_, _> = upstream.records.iter().map(|(user, list)| (user.to_string(), pins(list))).collect();
    json!({
        "upstream": address,
        "host": pins(&upstream.pins),
        "records": records,
        // Only where it counts.
        "known_hosts": if upstream.bare && upstream.pins.is_empty() { pins(&upstream.known) } else { json!([]) },
        "quarantine": note,
    })
}
