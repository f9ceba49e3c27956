//! `key add|list|remove`: users' public keys, dead entries of old data included.

use std::collections::HashSet;

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::Value;

use super::print::Judged;
use super::{
    Console, Context, Trouble, confirm, json_option, key_lines, name_argument, print, refused, text, texts, user_name, yes_option,
};
use crate::error::shown;
use crate::identity::{PublicKey, UserName};
use crate::route::Record;
use crate::store::{Aim, StoredKey};

/// The commands under `key`.
pub fn commands() -> Vec<Command> {
    let files = Arg::new("key").value_name("FILE").required(true).action(ArgAction::Append).num_args(1..);
    vec![
        Command::new("add")
            .about("Give a user more public keys")
            .arg(name_argument())
            .arg(files.help("File with public key lines, such as id_ed25519.pub; - for standard input (ssh-add -L | … -)")),
        Command::new("list")
            .about("List keys; what nobody can log in with is marked DEAD")
            .arg(name_argument().required(false).help("Only this user's"))
            .arg(json_option()),
        Command::new("remove")
            .about("Remove keys of a user; dead entries too")
            .arg(name_argument())
            .arg(
                Arg::new("key")
                    .value_name("KEY")
                    .required(true)
                    .num_args(1..)
                    .help("SHA256:… fingerprint, base64 as stored, or a file with public key lines"),
            )
            .arg(yes_option("Remove without a question")),
    ]
}

/// `key add`.
pub fn add(matches: &ArgMatches, context: &Context<'_>, console: &mut Console<'_>) -> Result<(), Trouble> {
    let user = user_name(matches)?;
    let keys = key_lines::read(&texts(matches, "key"), console).map_err(Trouble::Refused)?;
    if context.store.record(&user)?.is_none() {
        return Err(refused(format!("there is no user \"{}\"; make it with: sftpproxy user add", shown(user.as_str()))));
    }
    let stored = context.store.keys()?;
    not_another_users(&user, &keys, &stored)?;
    context.store.put(&user, Aim::Update, &Record::new(), &keys)?;
    tell_added(console, &user, &keys, &stored)
}

/// `key list`.
pub fn list(matches: &ArgMatches, context: &Context<'_>, console: &mut Console<'_>) -> Result<(), Trouble> {
    let stored = context.store.keys()?;
    let users: HashSet<UserName> = context.store.users()?.into_iter().collect();
    let only = text(matches, "name");
    let judged: Vec<_> = stored
        .iter()
        .filter(|key| only.is_none_or(|only| only == key.user))
        .map(|key| Judged::new(key, &|user| users.contains(user)))
        .collect();
    if matches.get_flag("json") {
        let all = judged.iter().map(Judged::json).collect();
        return Ok(print::json(console.out, &Value::Array(all))?);
    }
    let rows: Vec<_> =
        judged.iter().map(|key| std::iter::once(key.stored.user.clone()).chain(key.row()).collect::<Vec<_>>()).collect();
    print::table(console.out, &["USER", "TYPE", "FINGERPRINT", "COMMENT"], &rows)?;
    let dead = judged.iter().filter(|key| key.dead.is_some()).count();
    if dead > 0 {
        writeln!(console.err, "{dead} dead: nobody can log in with them; remove them with: sftpproxy key remove USER KEY")?;
    }
    Ok(())
}

/// `key remove`.
pub fn remove(matches: &ArgMatches, context: &Context<'_>, console: &mut Console<'_>) -> Result<(), Trouble> {
    // Not a checked name: dead entries name whatever they name.
    let user = text(matches, "name").unwrap_or_default();
    let stored = context.store.keys()?;
    let users: HashSet<UserName> = context.store.users()?.into_iter().collect();
    let judged: Vec<_> =
        stored.iter().filter(|key| key.user == user).map(|key| Judged::new(key, &|user| users.contains(user))).collect();
    let (mut chosen, mut faults) = (Vec::new(), Vec::new());
    for given in texts(matches, "key") {
        match choose(given, &judged, console) {
            Ok(found) => chosen.extend(found),
            Err(reasons) => faults.extend(reasons),
        }
    }
    if !faults.is_empty() {
        let whose = format!("user \"{}\" has {} keys; see them with: sftpproxy key list", shown(user), judged.len());
        return Err(Trouble::Refused(faults.into_iter().chain([whose]).collect()));
    }
    chosen.sort_unstable();
    chosen.dedup();
    let rows: Vec<_> = chosen.iter().map(|&index| judged[index].row()).collect();
    print::table(console.out, &["TYPE", "FINGERPRINT", "COMMENT"], &rows)?;
    confirm(matches, console, &format!("remove {} of user \"{}\"?", count(chosen.len(), "key"), shown(user)))?;
    let mut removed = 0;
    for index in chosen {
        removed += usize::from(context.store.remove_key(user, &judged[index].stored.base64)?);
    }
    writeln!(console.out, "user {}: {} removed", shown(user), count(removed, "key"))?;
    Ok(())
}

/// The entries that `given` means: what is stored, literally; a fingerprint; or the keys of a file.
fn choose(given: &str, judged: &[Judged<'_>], console: &mut Console<'_>) -> Result<Vec<usize>, Vec<String>> {
    let all = |fits: &dyn Fn(&Judged<'_>) -> bool| -> Vec<usize> {
        judged.iter().enumerate().filter(|(_, entry)| fits(entry)).map(|(index, _)| index).collect()
    };
    let literal = all(&|entry| entry.stored.base64 == given);
    if !literal.is_empty() {
        return Ok(literal);
    }
    let none = || vec![format!("no such key: \"{}\"", shown(given))];
    if given.starts_with("SHA256:") {
        let given = given.trim_end_matches('=');
        let found = all(&|entry| entry.key.as_ref().is_some_and(|key| key.fingerprint().to_string() == given));
        return if found.is_empty() { Err(none()) } else { Ok(found) };
    }
    if given != "-" && !std::path::Path::new(given).is_file() {
        return Err(none());
    }
    let keys = key_lines::read(&[given], console)?;
    let found = all(&|entry| entry.key.as_ref().is_some_and(|key| keys.iter().any(|(wanted, _)| wanted == key)));
    if found.is_empty() { Err(vec![format!("none of the keys in {given} is there")]) } else { Ok(found) }
}

/// Refuses keys that another user has.
pub fn not_another_users(user: &UserName, keys: &[(PublicKey, String)], stored: &[StoredKey]) -> Result<(), Trouble> {
    let fault = |(key, _): &(PublicKey, String)| {
        let base64 = key.base64();
        let other = stored.iter().find(|entry| entry.base64 == base64 && entry.user != user.as_str())?;
        Some(format!("key {} belongs to user \"{}\"; one key names one user", key.fingerprint(), shown(&other.user)))
    };
    let faults: Vec<_> = keys.iter().filter_map(fault).collect();
    if faults.is_empty() { Ok(()) } else { Err(Trouble::Refused(faults)) }
}

/// Says which keys are new.
pub fn tell_added(
    console: &mut Console<'_>,
    user: &UserName,
    keys: &[(PublicKey, String)],
    stored: &[StoredKey],
) -> Result<(), Trouble> {
    for (key, comment) in keys {
        let there = stored.iter().any(|entry| entry.base64 == key.base64() && entry.user == user.as_str());
        let verb = if there { "was there already" } else { "added" };
        let line = format!("key {} {} {comment}", key.kind(), key.fingerprint());
        writeln!(console.out, "user {}: {}: {verb}", shown(user.as_str()), line.trim_end())?;
    }
    Ok(())
}

/// `1 key`, `2 keys`.
pub fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}
