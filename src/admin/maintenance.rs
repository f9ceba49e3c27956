//! `maintenance on|off|show`: whether users are let in, all of them or one, and what they are told.

use clap::{Arg, ArgMatches, Command};
use serde_json::json;

use super::{Console, Context, Trouble, json_option, print, refused, text};
use crate::error::shown;
use crate::identity::UserName;
use crate::route::{Record, check_message};
use crate::store::Aim;

/// The field of a record.
const FIELD: &str = "maintenance";

/// The commands under `maintenance`.
pub fn commands() -> Vec<Command> {
    let user = || Arg::new("user").long("user").value_name("USER").help("Only this user; without it everybody");
    vec![
        Command::new("on")
            .about("Refuse new logins and show users a message; running sessions go on")
            .arg(Arg::new("message").value_name("MESSAGE").required(true).help("What users are told, such as: back at 14:00"))
            .arg(user()),
        Command::new("off").about("Let users in again").arg(user()),
        Command::new("show").about("Show who is not let in, and why").arg(json_option()),
    ]
}

/// `maintenance on`.
pub fn on(matches: &ArgMatches, context: &Context<'_>, console: &mut Console<'_>) -> Result<(), Trouble> {
    let message = text(matches, "message").unwrap_or_default().trim();
    if message.is_empty() {
        return Err(refused("the message is empty: say what users shall read"));
    }
    check_message(message).map_err(refused)?;
    set(matches, context, message)?;
    Ok(writeln!(console.out, "{}: new logins are refused with: {}", whom(matches), shown(message))?)
}

/// `maintenance off`.
pub fn off(matches: &ArgMatches, context: &Context<'_>, console: &mut Console<'_>) -> Result<(), Trouble> {
    set(matches, context, "")?;
    writeln!(console.out, "{}: let in again", whom(matches))?;
    if text(matches, "user").is_some() && context.store.maintenance()?.is_some() {
        writeln!(console.err, "everybody is still refused: sftpproxy maintenance off")?;
    }
    Ok(())
}

/// `maintenance show`.
pub fn show(matches: &ArgMatches, context: &Context<'_>, console: &mut Console<'_>) -> Result<(), Trouble> {
    let everybody = context.store.maintenance()?;
    let mut users = Vec::new();
    for user in context.store.users()? {
        let record = context.store.record(&user)?.unwrap_or_default();
        users.extend(record.get(FIELD).filter(|message| !message.is_empty()).map(|message| (user, message.clone())));
    }
    if matches.get_flag("json") {
        let users: serde_json::Map<_, _> = users.into_iter().map(|(user, message)| (user.to_string(), json!(message))).collect();
        return Ok(print::json(console.out, &json!({ "everybody": everybody, "users": users }))?);
    }
    let everybody = everybody.map(|message| ("(everybody)".to_owned(), message));
    let users = users.into_iter().map(|(user, message)| (user.to_string(), message));
    let rows: Vec<_> = everybody.into_iter().chain(users).map(|(who, why)| vec![shown(&who), shown(&why)]).collect();
    if rows.is_empty() {
        return Ok(writeln!(console.out, "off")?);
    }
    Ok(print::table(console.out, &["USER", "MESSAGE"], &rows)?)
}

fn set(matches: &ArgMatches, context: &Context<'_>, message: &str) -> Result<(), Trouble> {
    let Some(user) = text(matches, "user") else { return Ok(context.store.set_maintenance(message)?) };
    let user = UserName::new(user).map_err(refused)?;
    if context.store.record(&user)?.is_none() {
        return Err(refused(format!("there is no user \"{}\"", shown(user.as_str()))));
    }
    Ok(context.store.put(&user, Aim::Update, &Record::from([(FIELD.to_owned(), message.to_owned())]), &[])?)
}

fn whom(matches: &ArgMatches) -> String {
    text(matches, "user").map_or_else(|| "everybody".to_owned(), |user| format!("user {}", shown(user)))
}
