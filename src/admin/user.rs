//! `user add|list|show|remove`: users and their routes.

use std::collections::HashMap;

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::{Value, json};

use super::print::Judged;
use super::{
    Console, Context, Trouble, confirm, host_key, json_option, key, key_lines, name_argument, print, refused, text, texts,
    user_name, yes_option,
};
use crate::error::shown;
use crate::identity::{PublicKey, UserName};
use crate::route::{FIELDS, Pin, Record, Route, parse_pins};
use crate::sealed::shown_field;
use crate::store::{Aim, StoreError, StoredKey};
use crate::upstream::{Credential, host};

/// The options that are fields of the record: option, field, value, help.
const OPTIONS: [(&str, &str, &str, &str); 20] = [
    ("remote", "remote", "HOST", "Host name or address of the user's sshd; unset = localhost"),
    ("port", "port", "PORT", "Its port; unset = 22"),
    ("user", "user", "NAME", "The login there; unset = SFTPPROXY_CLIENT_USER, else the user's name"),
    ("home", "home", "PATH", "Start directory; unset = SFTPPROXY_HOME, else what the upstream says"),
    ("from", "from", "NETWORKS", "Where the user may log in from, such as '192.0.2.0/24, 2001:db8::/32'; unset = everywhere"),
    ("max-sessions", "max_sessions", "NUMBER", "Sessions of the user at the same time; unset = SFTPPROXY_MAX_USER_SESSIONS"),
    ("upload-limit", "upload_limit", "KIB", "How fast the user's uploads may be, in KiB a second; unset = no limit"),
    ("download-limit", "download_limit", "KIB", "The same of downloads"),
    (
        "survive",
        "survive",
        "SECONDS",
        "How long a lost upstream is tried again before the session ends, 1 to 600; unset = not at all",
    ),
    (
        "upstream-key",
        "key",
        "FILE",
        "Private key for this upstream, or agent; relative = in SFTPPROXY_UPSTREAM_KEYS_DIR; see upstream-key new",
    ),
    ("proxy-protocol", "proxy_protocol", "no|v2", "v2: tell the upstream the client's address in a PROXY header"),
    ("hash", "hash", "NAME", "Digest of transfers for the audit: sha256 or blake3; unset = none"),
    ("read-only", "read_only", "YES", "yes: list and read, change nothing"),
    ("upload-only", "upload_only", "YES", "yes: a drop box, new files and directories only"),
    ("root", "root", "PATH", "Directory of the upstream that the user sees as /"),
    ("rules", "rules", "RULES", "What is allowed where, such as '/in=create,list; /out=read,list'"),
    ("allow", "allow", "NAMES", "Patterns of file names that may be used, such as '*.csv, report-?'"),
    ("deny", "deny", "NAMES", "Patterns of names that may not be used, such as '.*, *.exe'"),
    ("max-file-size", "max_file_size", "SIZE", "Largest file in bytes, or with K, M, G, T"),
    ("extensions", "extensions", "NAMES", "SFTP extensions that may be used, such as 'posix-rename, fsync'; none"),
];

/// The commands under `user`.
pub fn commands() -> Vec<Command> {
    let fields = OPTIONS.map(|(option, _, value, help)| Arg::new(option).long(option).value_name(value).help(help));
    let add = Command::new("add")
        .about("Add a user with a route and keys, or change one with --update")
        .arg(name_argument())
        .arg(
            Arg::new("key")
                .long("key")
                .value_name("FILE")
                .action(ArgAction::Append)
                .help("File with the user's public key lines, such as id_ed25519.pub; - for standard input; may be repeated"),
        )
        .args(fields)
        .arg(
            Arg::new("host-key")
                .long("host-key")
                .value_name("PIN")
                .action(ArgAction::Append)
                .help("Host key of the upstream: SHA256:… or a public key line; may be repeated; unset = known_hosts decides"),
        )
        .arg(
            Arg::new("scan-host-key")
                .long("scan-host-key")
                .action(ArgAction::SetTrue)
                .conflicts_with("host-key")
                .help("Look at the upstream's host keys, show them and pin them"),
        )
        .arg(Arg::new("update").long("update").action(ArgAction::SetTrue).help("Change a user who is there; '' unsets a field"))
        .arg(yes_option("Pin scanned host keys without a question"));
    vec![
        add,
        Command::new("list").about("List users and their routes").arg(json_option()),
        Command::new("show").about("Show a user's record, route and keys").arg(name_argument()).arg(json_option()),
        Command::new("remove")
            .about("Remove a user, record and keys")
            .arg(name_argument())
            .arg(yes_option("Remove without a question")),
    ]
}

/// `user add`.
pub fn add(matches: &ArgMatches, context: &Context<'_>, console: &mut Console<'_>) -> Result<(), Trouble> {
    let user = user_name(matches)?;
    let (aim, old) = aim(matches, context, &user)?;
    let (fields, keys) = match (given_fields(matches), key_lines::read(&texts(matches, "key"), console)) {
        (Ok(fields), Ok(keys)) => (fields, keys),
        (fields, keys) => return Err(Trouble::Refused([fields.err(), keys.err()].into_iter().flatten().flatten().collect())),
    };
    let mut fields = fields;
    let route = resulting(&user, &old, &fields, context).map_err(refused)?;
    let stored = context.store.keys()?;
    key::not_another_users(&user, &keys, &stored)?;
    if matches.get_flag("scan-host-key") {
        fields.insert("hostkey".into(), scanned(matches, context, console, &route)?);
    }
    if aim == Aim::Create {
        fields.retain(|_, value| !value.is_empty());
    }
    context.store.put(&user, aim, &fields, &keys)?;
    tell_changes(console, &user, aim, &old, &fields)?;
    key::tell_added(console, &user, &keys, &stored)?;
    if aim == Aim::Create {
        tell_revived(console, &user, &keys, &stored)?;
    }
    if keys.is_empty() && stored.iter().all(|key| key.user != user.as_str()) {
        writeln!(console.err, "the user has no key yet: sftpproxy key add {} FILE", shown(user.as_str()))?;
    }
    let route = resulting(&user, &old, &fields, context).map_err(Trouble::Failed)?;
    tell_next(context, console, &user, &route)
}

fn aim(matches: &ArgMatches, context: &Context<'_>, user: &UserName) -> Result<(Aim, Record), Trouble> {
    let name = shown(user.as_str());
    match (context.store.record(user)?, matches.get_flag("update")) {
        (None, false) => Ok((Aim::Create, Record::new())),
        (Some(old), true) => Ok((Aim::Update, old)),
        (Some(_), false) => Err(refused(format!(
            "there is a user \"{name}\" already: give --update to change it, or see: sftpproxy user show {name}"
        ))),
        (None, true) => Err(refused(format!("there is no user \"{name}\" to update: leave out --update to add it"))),
    }
}

/// The fields on the command line; an empty one unsets.
fn given_fields(matches: &ArgMatches) -> Result<Record, Vec<String>> {
    let mut fields = Record::new();
    for (option, field, ..) in OPTIONS {
        if let Some(value) = text(matches, option) {
            fields.insert(field.to_owned(), value.trim().to_owned());
        }
    }
    let given = texts(matches, "host-key");
    if !given.is_empty() {
        let pins: Vec<_> = given.iter().map(|pins| parse_pins(pins)).collect();
        let faults: Vec<_> =
            pins.iter().filter_map(|pins| pins.as_ref().err()).map(|fault| format!("--host-key: {fault}")).collect();
        if !faults.is_empty() {
            return Err(faults);
        }
        let pins: Vec<_> = pins.into_iter().flatten().flatten().map(|pin| pin.to_string()).collect();
        fields.insert("hostkey".into(), pins.join(","));
    }
    Ok(fields)
}

/// The route that the user would have.
fn resulting(user: &UserName, old: &Record, fields: &Record, context: &Context<'_>) -> Result<Route, String> {
    let mut record = old.clone();
    record.extend(fields.clone());
    Route::parse(user, &record, context.defaults)
}

/// Shows the upstream's host keys and returns them as pins when that is wanted.
fn scanned(matches: &ArgMatches, context: &Context<'_>, console: &mut Console<'_>, route: &Route) -> Result<String, Trouble> {
    let keys = crate::upstream::scan(&route.remote, route.port, context.upstream).map_err(Trouble::Failed)?;
    if keys.is_empty() {
        return Err(Trouble::Failed(format!("{} showed no host key", route.address())));
    }
    writeln!(console.out, "host keys of {}:", route.address())?;
    host_key::fingerprints(console, &keys)?;
    confirm(matches, console, "are these the right ones, and shall they be pinned?")?;
    Ok(keys.iter().map(|key| Pin::of(key).to_string()).collect::<Vec<_>>().join(","))
}

fn tell_changes(console: &mut Console<'_>, user: &UserName, aim: Aim, old: &Record, new: &Record) -> Result<(), Trouble> {
    let name = shown(user.as_str());
    if aim == Aim::Create {
        writeln!(console.out, "user {name}: added")?;
    }
    for field in FIELDS {
        let Some(new) = new.get(field) else { continue };
        let word = |value: &str| if value.is_empty() { "(unset)".to_owned() } else { shown(&shown_field(field, value)) };
        let old = old.get(field).map_or("", String::as_str);
        match aim {
            Aim::Create => writeln!(console.out, "  {field} = {}", word(new))?,
            Aim::Update if old == new => writeln!(console.out, "user {name}: {field} is {} already", word(new))?,
            Aim::Update => writeln!(console.out, "user {name}: {field}: {} -> {}", word(old), word(new))?,
        }
    }
    Ok(())
}

/// Keys that named the user while there was no record were dead; the new record makes them good, which nobody may have meant.
fn tell_revived(
    console: &mut Console<'_>,
    user: &UserName,
    keys: &[(PublicKey, String)],
    stored: &[StoredKey],
) -> Result<(), Trouble> {
    let given = |entry: &StoredKey| keys.iter().any(|(key, _)| key.base64() == entry.base64);
    for entry in stored.iter().filter(|entry| entry.user == user.as_str() && !given(entry)) {
        let row = Judged::new(entry, &|_| true).row().join(" ");
        let name = shown(user.as_str());
        writeln!(
            console.err,
            "an old key of this name was left in the store, look whether {name} shall have it: {}",
            row.trim_end()
        )?;
    }
    Ok(())
}

/// What is left to do: the upstream must let the router in and its host key must be known; then the user can connect.
fn tell_next(context: &Context<'_>, console: &mut Console<'_>, user: &UserName, route: &Route) -> Result<(), Trouble> {
    let host = host(context.store, route).map_err(|fault| Trouble::Failed(fault.what))?;
    let lines = Credential::find(route, &host, context.upstream).and_then(|credential| {
        let lines: Result<Vec<_>, _> = credential.sources.iter().map(|source| source.public_lines(context.upstream)).collect();
        lines.map(|lines| lines.concat())
    });
    match lines {
        Ok(lines) => {
            let account = format!("{} at {}", shown(&route.login), route.address());
            writeln!(console.out, "\nauthorized_keys of {account} must have (one line is enough):")?;
            for line in lines {
                // Our own key's comment; not through `shown`, which would cut a long RSA key.
                writeln!(console.out, "{}", line.replace(char::is_control, " ").trim_end())?;
            }
        }
        Err(reason) => writeln!(console.err, "the router has no key for this upstream yet: {reason}")?,
    }
    if route.pins.is_empty() && host.pins.is_empty() {
        let name = shown(user.as_str());
        writeln!(
            console.out,
            "\nno host key is pinned: known_hosts decides; to pin it: sftpproxy user add {name} --update --scan-host-key"
        )?;
    }
    let host = nix::unistd::gethostname().ok().and_then(|host| host.into_string().ok());
    let host = host.filter(|host| !host.is_empty()).unwrap_or_else(|| "THIS-HOST".into());
    writeln!(console.out, "\nthe user connects with:\nsftp -P {} {}@{host}", context.port, shown(user.as_str()))?;
    Ok(())
}

/// `user list`.
pub fn list(matches: &ArgMatches, context: &Context<'_>, console: &mut Console<'_>) -> Result<(), Trouble> {
    let mut keys: HashMap<String, usize> = HashMap::new();
    for key in context.store.keys()? {
        *keys.entry(key.user).or_default() += 1;
    }
    let (mut rows, mut objects) = (Vec::new(), Vec::new());
    for user in context.store.users()? {
        let number = keys.get(user.as_str()).copied().unwrap_or_default();
        // One user's bad record must not hide the others.
        let record = match context.store.record(&user) {
            Ok(None) => continue,
            Ok(Some(record)) => Ok(record),
            Err(StoreError { what, .. }) => Err(what),
        };
        let route = record.as_ref().map_err(Clone::clone).and_then(|record| Route::parse(&user, record, context.defaults));
        objects.push(json!({
            "name": user.as_str(),
            "record": record.as_ref().ok().map(print::fields_json),
            "route": route.as_ref().ok().map(route_json),
            "keys": number,
            "fault": route.as_ref().err(),
        }));
        rows.push(match route {
            Ok(route) => vec![
                shown(user.as_str()),
                format!("{}@{}", shown(&route.login), route.address()),
                route.home.map_or_else(|| "-".into(), |home| shown(&home)),
                number.to_string(),
                if number == 0 { "no key" } else { "" }.to_owned(),
            ],
            Err(reason) => vec![shown(user.as_str()), "-".into(), "-".into(), number.to_string(), format!("FAULT: {reason}")],
        });
    }
    if matches.get_flag("json") {
        return Ok(print::json(console.out, &Value::Array(objects))?);
    }
    Ok(print::table(console.out, &["USER", "UPSTREAM", "HOME", "KEYS", "NOTE"], &rows)?)
}

fn route_json(route: &Route) -> Value {
    json!({
        "remote": route.remote,
        "port": route.port,
        "user": route.login,
        "home": route.home,
        "key": route.keys.now.as_ref().map(ToString::to_string),
        "hostkey": route.pins.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

/// `user show`.
pub fn show(matches: &ArgMatches, context: &Context<'_>, console: &mut Console<'_>) -> Result<(), Trouble> {
    let user = user_name(matches)?;
    let record = context.store.record(&user)?;
    let stored: Vec<_> = context.store.keys()?.into_iter().filter(|key| key.user == user.as_str()).collect();
    let judged: Vec<_> = stored.iter().map(|key| Judged::new(key, &|_| record.is_some())).collect();
    let Some(record) = &record else {
        return Err(refused(match judged.len() {
            0 => format!("there is no user \"{}\"", shown(user.as_str())),
            number => format!("user \"{}\" has no record, only {}", shown(user.as_str()), key::count(number, "dead key")),
        }));
    };
    let route = Route::parse(&user, record, context.defaults);
    if matches.get_flag("json") {
        let object = json!({
            "name": user.as_str(),
            "record": print::fields_json(record),
            "route": route.as_ref().ok().map(route_json),
            "fault": route.as_ref().err(),
            "keys": judged.iter().map(Judged::json).collect::<Vec<_>>(),
        });
        return Ok(print::json(console.out, &object)?);
    }
    describe(console, &user, Some(record), &judged)?;
    match route {
        Ok(route) => writeln!(console.out, "route: {}@{}", shown(&route.login), route.address())?,
        Err(reason) => writeln!(console.err, "this record is refused at login: {reason}")?,
    }
    Ok(())
}

/// `user remove`.
pub fn remove(matches: &ArgMatches, context: &Context<'_>, console: &mut Console<'_>) -> Result<(), Trouble> {
    let user = user_name(matches)?;
    let record = context.store.record(&user)?;
    let stored: Vec<_> = context.store.keys()?.into_iter().filter(|key| key.user == user.as_str()).collect();
    if record.is_none() && stored.is_empty() {
        return Err(refused(format!("there is no user \"{}\"", shown(user.as_str()))));
    }
    let judged: Vec<_> = stored.iter().map(|key| Judged::new(key, &|_| record.is_some())).collect();
    describe(console, &user, record.as_ref(), &judged)?;
    let name = shown(user.as_str());
    confirm(matches, console, &format!("remove user \"{name}\" and {}?", key::count(stored.len(), "key")))?;
    if !context.store.remove_user(&user)? {
        return Err(refused(format!("somebody else has removed user \"{name}\" meanwhile")));
    }
    writeln!(console.out, "user {name}: removed; sessions that are open end within 2 seconds")?;
    Ok(())
}

fn describe(console: &mut Console<'_>, user: &UserName, record: Option<&Record>, keys: &[Judged<'_>]) -> Result<(), Trouble> {
    writeln!(console.out, "user {}", shown(user.as_str()))?;
    match record {
        None => writeln!(console.out, "  (no record)")?,
        Some(record) => {
            for (name, value) in print::fields(record) {
                writeln!(console.out, "  {} = {}", shown(name), shown(&value))?;
            }
        }
    }
    for key in keys {
        writeln!(console.out, "  key {}", key.row().join(" ").trim_end())?;
    }
    Ok(())
}
