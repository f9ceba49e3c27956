//! `host-key approve` and `host-key remove`: pins of an upstream, for all its users.

use std::collections::BTreeMap;

use clap::ArgMatches;

use super::super::{Console, Context, Trouble, confirm, key::count, print, refused, text};
use super::survey::{Upstream, names, survey};
use crate::error::shown;
use crate::identity::{Fingerprint, PublicKey, UserName};
use crate::route::{Pin, Record, address, parse_address};
use crate::store::{Aim, Shelf};
use crate::upstream::{known, lift};

/// An upstream on the command line.
struct Target {
    host: String,
    port: u16,
    address: String,
}

fn target(matches: &ArgMatches) -> Result<Target, Trouble> {
    let (host, port) = parse_address(text(matches, "address").unwrap_or_default()).map_err(refused)?;
    let address = address(&host, port);
    Ok(Target { host, port, address })
}

fn wanted(matches: &ArgMatches) -> Result<Option<Fingerprint>, Trouble> {
    let read = |text| Fingerprint::parse(text).ok_or_else(|| refused(format!("\"{}\" is not a SHA256 fingerprint", shown(text))));
    text(matches, "key").map(read).transpose()
}

/// `host-key approve`.
pub fn approve(matches: &ArgMatches, context: &Context<'_>, console: &mut Console<'_>) -> Result<(), Trouble> {
    let target = target(matches)?;
    let wanted = wanted(matches)?;
    let upstream = survey(context)?.remove(&target.address).unwrap_or_default();
    let keys = shown_keys(&target, &upstream, wanted, (context, console))?;
    let (known, file) = known(&target.host, target.port, context.upstream).map_err(Trouble::Failed)?;
    if let Some(key) = keys.iter().find(|key| known.revoked.contains(key)) {
        return Err(refused(format!("{} {} is revoked in {file}; nothing was pinned", key.kind(), key.fingerprint())));
    }
    let add = matches.get_flag("add");
    let new = |old: &[Pin]| -> Vec<Pin> {
        let kept = old.iter().filter(|pin| add && !keys.iter().any(|key| pin.matches(key)));
        kept.cloned().chain(keys.iter().map(Pin::of)).collect()
    };
    // A record's own pins stand above the upstream's: those that approve none of these keys would go on refusing it.
    let stale: BTreeMap<&UserName, Vec<Pin>> =
        upstream.records.iter().filter(|(_, pins)| !approves(pins, &keys)).map(|(user, pins)| (user, new(pins))).collect();
    let pins = new(&upstream.pins);
    if pins == upstream.pins && stale.is_empty() && upstream.note.is_none() {
        return Ok(writeln!(console.out, "upstream {}: approved already", target.address)?);
    }
    tell_old_and_new(console, &target, &upstream, &pins)?;
    if !stale.is_empty() {
        let users: Vec<_> = stale.keys().copied().collect();
        let whose = if users.len() == 1 { "the pin in the record" } else { "the pins in the records" };
        writeln!(console.out, "{whose} of {} become these too", names(&users))?;
    }
    confirm(
        matches,
        console,
        "have you compared the new ones with what the server's own console says, and shall they be pinned?",
    )?;
    for (user, pins) in &stale {
        context.store.put(user, Aim::Update, &field(pins), &[])?;
    }
    context.store.put_entry(Shelf::Hosts, &target.address, &field(&pins))?;
    lift(context.store, &target.address)?;
    Ok(writeln!(console.out, "upstream {}: {} pinned", target.address, count(pins.len(), "key"))?)
}

/// The keys to approve: those that the upstream shows now, or the one that a login has seen; with a fingerprint only that one.
fn shown_keys(
    target: &Target,
    upstream: &Upstream,
    wanted: Option<Fingerprint>,
    (context, console): (&Context<'_>, &mut Console<'_>),
) -> Result<Vec<PublicKey>, Trouble> {
    let seen = upstream.note.as_ref().map(|note| note.key.clone());
    let mut keys = match (crate::upstream::scan(&target.host, target.port, context.upstream), &seen) {
        (Ok(keys), _) => keys,
        (Err(reason), None) => return Err(Trouble::Failed(reason)),
        (Err(reason), Some(_)) => {
            writeln!(console.err, "it shows no key at present ({reason}); this is the one that a login has seen")?;
            Vec::new()
        }
    };
    if let Some(seen) = seen
        && !keys.contains(&seen)
    {
        match (keys.is_empty(), wanted) {
            (false, None) => {
                writeln!(console.err, "the key that was quarantined, {}, is not shown any more", seen.fingerprint())?
            }
            _ => keys.push(seen),
        }
    }
    let Some(wanted) = wanted else { return Ok(keys) };
    let all: Vec<_> = keys.iter().map(|key| key.fingerprint().to_string()).collect();
    keys.retain(|key| key.fingerprint() == wanted);
    if keys.is_empty() {
        return Err(refused(format!("{} shows no key {wanted}, only {}; nothing was pinned", target.address, all.join(", "))));
    }
    Ok(keys)
}

fn approves(pins: &[Pin], keys: &[PublicKey]) -> bool {
    pins.iter().any(|pin| keys.iter().any(|key| pin.matches(key)))
}

/// The field `hostkey`; no pins unset it.
fn field(pins: &[Pin]) -> Record {
    let text = pins.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    Record::from([("hostkey".to_owned(), text)])
}

fn tell_old_and_new(console: &mut Console<'_>, target: &Target, upstream: &Upstream, pins: &[Pin]) -> Result<(), Trouble> {
    let row = |which: &str, pin: &Pin, by: &str| {
        vec![which.to_owned(), pin.kind().unwrap_or("-").to_owned(), pin.fingerprint().to_string(), by.to_owned()]
    };
    let (common, by) = upstream.common();
    let mut rows: Vec<_> = common.iter().map(|pin| row("old", pin, by)).collect();
    for pin in upstream.records.values().flatten() {
        let one = row("old", pin, "record");
        if !rows.contains(&one) {
            rows.push(one);
        }
    }
    rows.extend(pins.iter().map(|pin| row("new", pin, "")));
    writeln!(console.out, "host keys of {}:", target.address)?;
    Ok(print::table(console.out, &["", "TYPE", "FINGERPRINT", "APPROVED BY"], &rows)?)
}

/// `host-key remove`.
pub fn remove(matches: &ArgMatches, context: &Context<'_>, console: &mut Console<'_>) -> Result<(), Trouble> {
    let target = target(matches)?;
    let wanted = wanted(matches)?;
    let upstream = survey(context)?.remove(&target.address).unwrap_or_default();
    let is_gone = |pin: &&Pin| wanted.is_none_or(|wanted| pin.fingerprint() == wanted);
    let (gone, left): (Vec<_>, Vec<_>) = upstream.pins.iter().partition(is_gone);
    if !upstream.records.is_empty() {
        let users: Vec<_> = upstream.records.keys().collect();
        writeln!(console.err, "pins in records stay (user add NAME --update --host-key ''): {}", names(&users))?;
    }
    if gone.is_empty() && (upstream.note.is_none() || wanted.is_some()) {
        return Err(refused(format!("upstream {} has no such pin; see: sftpproxy host-key list", target.address)));
    }
    let rows: Vec<_> = gone.iter().map(|pin| vec![pin.kind().unwrap_or("-").to_owned(), pin.fingerprint().to_string()]).collect();
    print::table(console.out, &["TYPE", "FINGERPRINT"], &rows)?;
    confirm(matches, console, &format!("remove {} of upstream {}?", count(gone.len(), "pin"), target.address))?;
    let left: Vec<_> = left.into_iter().cloned().collect();
    context.store.put_entry(Shelf::Hosts, &target.address, &field(&left))?;
    if left.is_empty() {
        // What was missed is not approved any more: the next login says what it finds.
        lift(context.store, &target.address)?;
    }
    Ok(writeln!(console.out, "upstream {}: {} removed", target.address, count(gone.len(), "pin"))?)
}
