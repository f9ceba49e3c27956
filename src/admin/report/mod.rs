//! `report algorithms`: which users and clients still negotiate what will have to go, from the audit, and which stored keys will.

use std::collections::{BTreeMap, BTreeSet};

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::{Value, json};

use self::logins::{Group, Logins, Seen};
use super::print::{Judged, State};
use super::{Console, Context, Trouble, json_option, key, print, refused, text, texts};
use crate::config::audit::Sink;
use crate::error::shown;
use crate::identity::{Negotiated, PublicKey};

mod logins;

/// RSA keys of fewer bits are no longer recommended (NIST SP 800-57 part 1, table 2: 3072 bits for 128 bits of strength).
const GOOD_RSA: u64 = 3072;

/// Names of users that are shown in a row of the table of keys.
const MAX_NAMES: usize = 5;

/// The commands under `report`.
pub fn commands() -> Vec<Command> {
    vec![
        Command::new("algorithms")
            .about("Who still negotiates what: from the audit's files, and the types and sizes of stored keys")
            .arg(
                Arg::new("files")
                    .value_name("FILE")
                    .action(ArgAction::Append)
                    .num_args(0..)
                    .help("Files with audit events, - for standard input; unset = those of SFTPPROXY_AUDIT"),
            )
            .arg(Arg::new("since").long("since").value_name("DATE").help("Only logins from then on, such as 2026-11-01"))
            .arg(
                Arg::new("from-store")
                    .long("from-store")
                    .action(ArgAction::SetTrue)
                    .conflicts_with_all(["files", "since"])
                    .help("Only the stored keys"),
            )
            .arg(json_option()),
    ]
}

/// A stored key.
struct Stored {
    user: String,
    key: PublicKey,
}

/// `report algorithms`.
pub fn algorithms(matches: &ArgMatches, context: &Context<'_>, console: &mut Console<'_>) -> Result<(), Trouble> {
    let since = text(matches, "since").unwrap_or_default();
    if since.bytes().any(|byte| !byte.is_ascii_digit() && !b"-:.TZ".contains(&byte)) {
        return Err(refused(format!("--since: \"{}\" is no date, such as 2026-11-01", shown(since))));
    }
    let mut logins = None;
    if !matches.get_flag("from-store") {
        logins = read_audit(&texts(matches, "files"), since, context, console)?;
    }
    let stored = context.store.keys()?;
    let stored: Vec<_> = stored
        .iter()
        .filter_map(|entry| Some(Stored { user: entry.user.clone(), key: Judged::new(entry, &|_| true).key? }))
        .collect();
    if matches.get_flag("json") {
        return Ok(print::json(console.out, &as_json(logins.as_ref(), &stored))?);
    }
    match &logins {
        Some(logins) => tell_logins(logins, console)?,
        None => writeln!(console.out, "no audit to read (SFTPPROXY_AUDIT=file:/PATH, or name files): only the stored keys\n")?,
    }
    tell_keys(&stored, console)?;
    if context.config.downstream.pubkey_algorithms.split(',').any(|name| name == "ssh-rsa") {
        writeln!(console.err, "SFTPPROXY_PUBKEY_ALGORITHMS has ssh-rsa: clients with RSA keys may sign with SHA-1")?;
    }
    Ok(())
}

/// Reads the files that are named, else the configured one; `None` = there is none.
fn read_audit(named: &[&str], since: &str, context: &Context<'_>, console: &mut Console<'_>) -> Result<Option<Logins>, Trouble> {
    let audit = &context.config.audit;
    let configured = audit.sinks.iter().find_map(|sink| match sink {
        Sink::File(path) => Some(path),
        _ => None,
    });
    let mut logins = Logins::default();
    let says = |name: &str, error: std::io::Error| Trouble::Failed(format!("{name}: {error}"));
    match (named, configured) {
        ([], None) => return Ok(None),
        ([], Some(path)) => {
            for path in logins::rotated(path, audit.file_count) {
                let mut file = logins::open(&path).map_err(Trouble::Failed)?;
                logins.read(&mut file, since).map_err(|error| says(&path.display().to_string(), error))?;
            }
        }
        (named, _) => {
            for name in named {
                match *name {
                    "-" => logins.read(console.input, since).map_err(|error| says(name, error))?,
                    path => {
                        let mut file = logins::open(path.as_ref()).map_err(Trouble::Failed)?;
                        logins.read(&mut file, since).map_err(|error| says(path, error))?;
                    }
                }
            }
        }
    }
    Ok(Some(logins))
}

/// What will have to go, and how soon.
fn judge_key(kind: &str, bits: u64) -> (State, Vec<String>) {
    match kind {
        "ssh-rsa" if bits < GOOD_RSA => (State::Warning, vec![format!("RSA of {bits} bits, {GOOD_RSA} are recommended")]),
        "ssh-rsa" => (State::Note, vec!["RSA".into()]),
        _ => (State::Good, Vec::new()),
    }
}

fn judge(group: &Group) -> (State, Vec<String>) {
    let Negotiated { kex, cipher, mac } = group.negotiated();
    let (mut state, mut reasons) = judge_key(&group.key_type, group.key_bits);
    if kex.is_empty() {
        reasons.push("written by a router that did not tell algorithms yet".into());
        return (State::Unknown, reasons);
    }
    let sha1 = |name: &str| name.contains("sha1") || name.contains("md5");
    for (name, what) in [(&kex, "key exchange"), (&mac, "MAC")] {
        if sha1(name) {
            state = State::Warning;
            reasons.push(format!("SHA-1 or MD5 as {what}"));
        }
    }
    if ["cbc", "3des", "arcfour"].iter().any(|old| cipher.contains(old)) {
        state = State::Warning;
        reasons.push("an old cipher".into());
    }
    if !group.negotiated().is_post_quantum() {
        state = if state == State::Good { State::Note } else { state };
        reasons.push("no post-quantum key exchange".into());
    }
    (state, reasons)
}

fn tell_logins(logins: &Logins, console: &mut Console<'_>) -> Result<(), Trouble> {
    let row = |(group, seen): (&Group, &Seen)| {
        let (state, reasons) = judge(group);
        let key = if group.key_bits > 0 { format!("{} {}", group.key_type, group.key_bits) } else { group.key_type.clone() };
        let day = seen.last.split('T').next().unwrap_or_default();
        let cells = [&group.user, &group.software, &key, &group.kex, &group.cipher, &group.mac].map(|cell| shown(cell));
        let end = [seen.count.to_string(), shown(day), reasons.join("; ")];
        (state, cells.into_iter().chain(end).collect())
    };
    let rows: Vec<_> = logins.groups.iter().map(row).collect();
    let heading = ["USER", "CLIENT", "KEY", "KEY EXCHANGE", "CIPHER", "MAC", "LOGINS", "LAST", "NOTE"];
    print::states(console, &heading, &rows)?;
    let (all, without) = counts(logins);
    writeln!(console.out, "{all} logins, {without} of them without a post-quantum key exchange\n")?;
    if logins.beyond > 0 {
        writeln!(console.err, "{} more logins, of more users and clients than are kept apart", logins.beyond)?;
    }
    if logins.unread > 0 {
        writeln!(console.err, "{} are no events", key::count(logins.unread as usize, "line"))?;
    }
    Ok(())
}

/// Logins, and those without a post-quantum key exchange.
fn counts(logins: &Logins) -> (u64, u64) {
    let count = |wanted: &dyn Fn(&Group) -> bool| -> u64 {
        logins.groups.iter().filter(|(group, _)| wanted(group)).map(|(_, seen)| seen.count).sum()
    };
    (count(&|_| true), count(&|group| !group.kex.is_empty() && !group.negotiated().is_post_quantum()))
}

fn tell_keys(stored: &[Stored], console: &mut Console<'_>) -> Result<(), Trouble> {
    let mut types: BTreeMap<(&str, usize), (usize, BTreeSet<&str>)> = BTreeMap::new();
    for Stored { user, key } in stored {
        let (count, users) = types.entry((key.kind(), key.bits())).or_default();
        *count += 1;
        users.insert(user);
    }
    let row = |((kind, bits), (count, users)): (&(&str, usize), &(usize, BTreeSet<&str>))| {
        let (state, reasons) = judge_key(kind, *bits as u64);
        let mut names: Vec<_> = users.iter().take(MAX_NAMES).map(|user| shown(user)).collect();
        if users.len() > MAX_NAMES {
            names.push(format!("and {} more", users.len() - MAX_NAMES));
        }
        (state, vec![(*kind).to_owned(), bits.to_string(), count.to_string(), names.join(", "), reasons.join("; ")])
    };
    let rows: Vec<_> = types.iter().map(row).collect();
    Ok(print::states(console, &["STORED KEYS", "BITS", "KEYS", "USERS", "NOTE"], &rows)?)
}

fn as_json(logins: Option<&Logins>, stored: &[Stored]) -> Value {
    let login = |(group, seen): (&Group, &Seen)| {
        let (state, notes) = judge(group);
        json!({
            "user": group.user, "software": group.software, "key_type": group.key_type, "key_bits": group.key_bits,
            "kex": group.kex, "cipher": group.cipher, "mac": group.mac, "logins": seen.count, "last": seen.last,
            "post_quantum": group.negotiated().is_post_quantum(), "state": state.word(), "notes": notes,
        })
    };
    let key = |Stored { user, key }: &Stored| {
        let (state, notes) = judge_key(key.kind(), key.bits() as u64);
        let print = key.fingerprint().to_string();
        json!({ "user": user, "type": key.kind(), "bits": key.bits(), "fingerprint": print, "state": state.word(), "notes": notes })
    };
    let summed = |logins: &Logins| {
        let (all, without) = counts(logins);
        json!({ "logins": all, "without_post_quantum": without, "beyond": logins.beyond, "unread": logins.unread })
    };
    json!({
        "summary": logins.map(summed),
        "logins": logins.map(|logins| logins.groups.iter().map(login).collect::<Vec<_>>()),
        "keys": stored.iter().map(key).collect::<Vec<_>>(),
    })
}
