//! `sessions list|show|kick`: what runs now on this machine's router, and on every other node at the same store.
//!
//! This machine's router is asked at its control socket; of the others one reads what they have written into the store. A session of another
//! node is named `NODE/NUMBER`.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::{Value, json};

use super::{Console, Context, Trouble, confirm, json_option, print, refused, text, yes_option};
use crate::control::{Ask, Client, Kick, Order, Whom, older};
use crate::error::shown;
use crate::event::json;
use crate::live::{Direction, Slow, Snapshot, Transfer};
use crate::nodes;
use crate::route::check_message;

/// The commands under `sessions`.
pub fn commands() -> Vec<Command> {
    let session = || Arg::new("session").value_name("SESSION").help("Its number, or NODE/NUMBER, as sessions list has it");
    vec![
        Command::new("list").about("List the sessions that run").arg(json_option()),
        Command::new("show").about("Show one session with its open files").arg(session().required(true)).arg(json_option()),
        Command::new("kick")
            .about("End sessions; their users are shown the reason")
            .arg(session().required_unless_present_any(["user", "all"]).conflicts_with_all(["user", "all"]))
            .arg(Arg::new("user").long("user").value_name("USER").help("All sessions of this user").conflicts_with("all"))
            .arg(Arg::new("all").long("all").action(ArgAction::SetTrue).help("All sessions"))
            .arg(Arg::new("reason").long("reason").value_name("TEXT").help("Why, for the user and the log; one line"))
            .arg(yes_option("End everybody's without a question"))
            .arg(json_option()),
    ]
}

/// A session and where it runs.
pub struct Seen {
    /// The node; `None` = this machine's.
    pub elsewhere: Option<String>,
    /// The session.
    pub session: Snapshot,
}

impl Seen {
    /// How commands call it.
    pub fn name(&self) -> String {
        let number = self.session.session;
        self.elsewhere.as_ref().map_or_else(|| number.to_string(), |node| format!("{}/{number}", shown(node)))
    }

    /// The user, fit for a table.
    pub fn user(&self) -> String {
        self.session.user.as_deref().map_or_else(|| "-".into(), shown)
    }

    fn json(&self, here: Option<&str>) -> Value {
        let mut value = json!({ "node": self.elsewhere.as_deref().or(here), "here": self.elsewhere.is_none() });
        if let (Value::Object(fields), Ok(Value::Object(more))) = (&mut value, serde_json::to_value(&self.session)) {
            fields.extend(more);
        }
        value
    }
}

/// What runs everywhere.
pub struct Everywhere {
    /// This machine's router.
    pub client: Option<Client>,
    /// Those of this machine that have handed over, by their names.
    pub older: Vec<(String, Client)>,
    /// Its name.
    pub here: Option<String>,
    /// The sessions, this machine's first.
    pub sessions: Vec<Seen>,
    /// What could not be seen, a line each.
    pub missing: Vec<String>,
}

/// Asks this machine's router, and reads what others have written. An error: there is nobody to ask.
pub fn everywhere(context: &Context<'_>) -> Result<Everywhere, Trouble> {
    let mut all = Everywhere { client: None, older: Vec::new(), here: None, sessions: Vec::new(), missing: Vec::new() };
    let local =
        Client::connect(&context.control.places).and_then(|mut client| client.ask(&Ask::List).map(|answer| (client, answer)));
    match local {
        Ok((client, (sessions, node))) => {
            (all.client, all.here) = (Some(client), Some(node));
            all.sessions = sessions.into_iter().map(|session| Seen { elsewhere: None, session }).collect();
        }
        Err(reason) => all.missing.push(reason),
    }
    for (node, client, sessions) in older_ones(context) {
        all.sessions.extend(sessions.into_iter().map(|session| Seen { elsewhere: Some(node.clone()), session }));
        all.older.push((node, client));
    }
    if context.store.is_shared() {
        match nodes::all(context.store) {
            Ok(nodes) => {
                let asked: Vec<_> = all.older.iter().map(|(node, _)| node.clone()).chain(all.here.clone()).collect();
                for node in nodes.into_iter().filter(|node| !asked.contains(&node.node)) {
                    if node.more > 0 {
                        all.missing.push(format!("{} has {} sessions more", shown(&node.node), node.more));
                    }
                    let seen = |session| Seen { elsewhere: Some(node.node.clone()), session };
                    all.sessions.extend(node.sessions.into_iter().map(seen));
                }
            }
            Err(error) => all.missing.push(format!("the sessions of other nodes are not seen: {error}")),
        }
    }
    if all.client.is_none() && all.sessions.is_empty() {
        return Err(Trouble::Failed(all.missing.join("; ")));
    }
    Ok(all)
}

/// The routers of this machine that finish their sessions, with their names and those. Who has just ended is none.
fn older_ones(context: &Context<'_>) -> Vec<(String, Client, Vec<Snapshot>)> {
    let places = context.control.places.iter().flat_map(|place| older::places(place));
    let ask = |place| {
        let mut client = Client::connect(&[place]).ok()?;
        let (sessions, node) = client.ask(&Ask::List).ok()?;
        Some((node, client, sessions))
    };
    places.filter_map(ask).collect()
}

/// `sessions list`.
pub fn list(matches: &ArgMatches, context: &Context<'_>, console: &mut Console<'_>) -> Result<(), Trouble> {
    let all = everywhere(context)?;
    for line in &all.missing {
        writeln!(console.err, "{line}")?;
    }
    if matches.get_flag("json") {
        let sessions = all.sessions.iter().map(|seen| seen.json(all.here.as_deref())).collect();
        return Ok(print::json(console.out, &Value::Array(sessions))?);
    }
    let row = |seen: &Seen| {
        let session = &seen.session;
        vec![
            seen.name(),
            seen.user(),
            session.peer.to_string(),
            age(session.seconds),
            session.upstream.as_deref().map_or_else(|| session.state.name().into(), shown),
            size(session.up),
            size(session.down),
            (session.transfers.len() + session.more_transfers).to_string(),
            session.slow.map_or("", Slow::name).into(),
        ]
    };
    let rows: Vec<_> = all.sessions.iter().map(row).collect();
    let heading = ["SESSION", "USER", "CLIENT", "AGE", "UPSTREAM", "UP", "DOWN", "FILES", "SLOW"];
    Ok(print::table(console.out, &heading, &rows)?)
}

/// `sessions show`.
pub fn show(matches: &ArgMatches, context: &Context<'_>, console: &mut Console<'_>) -> Result<(), Trouble> {
    let all = everywhere(context)?;
    let seen = find(&all, text(matches, "session").unwrap_or_default())?;
    if matches.get_flag("json") {
        return Ok(print::json(console.out, &seen.json(all.here.as_deref()))?);
    }
    let session = &seen.session;
    let optional = |text: &Option<String>| text.as_deref().map_or_else(|| "-".into(), shown);
    let (login, upstream) = (optional(&session.login), optional(&session.upstream));
    for (name, value) in [
        ("session", seen.name()),
        ("state", session.state.name().into()),
        ("user", seen.user()),
        ("key", optional(&session.key)),
        ("client", format!("{} {}", session.peer, optional(&session.software))),
        ("since", format!("{} ({})", shown(&session.since), age(session.seconds))),
        ("upstream", format!("{login}@{upstream}")),
        ("up", format!("{} bytes, {}/s", session.up, size(session.up_rate))),
        ("down", format!("{} bytes, {}/s", session.down, size(session.down_rate))),
        ("unanswered", session.in_flight.map_or_else(|| "-".into(), |count| count.to_string())),
        ("slow", session.slow.map_or("-", Slow::name).into()),
    ] {
        writeln!(console.out, "{name:10}  {value}")?;
    }
    let rows: Vec<_> = session.transfers.iter().map(|file| vec![arrow(file).into(), progress(file), shown(&file.path)]).collect();
    if !rows.is_empty() {
        writeln!(console.out)?;
        print::table(console.out, &["", "PROGRESS", "FILE"], &rows)?;
    }
    if session.more_transfers > 0 {
        writeln!(console.out, "and {} files more", session.more_transfers)?;
    }
    Ok(())
}

/// `sessions kick`.
pub fn kick(matches: &ArgMatches, context: &Context<'_>, console: &mut Console<'_>) -> Result<(), Trouble> {
    let reason = text(matches, "reason").unwrap_or_default().trim().to_owned();
    check_message(&reason).map_err(refused)?;
    let mut all = everywhere(context)?;
    let chosen: Vec<&Seen> = match (text(matches, "session"), text(matches, "user")) {
        (Some(name), _) => vec![find(&all, name)?],
        (_, Some(user)) => all.sessions.iter().filter(|seen| seen.session.user.as_deref() == Some(user)).collect(),
        _ => all.sessions.iter().collect(),
    };
    if chosen.is_empty() {
        return Err(refused("there is no such session"));
    }
    if matches.get_flag("all") {
        confirm(matches, console, &format!("end all {} sessions?", chosen.len()))?;
    }
    let (here, there): (Vec<&Seen>, Vec<&Seen>) = chosen.into_iter().partition(|seen| seen.elsewhere.is_none());
    let whom = match (text(matches, "session"), text(matches, "user")) {
        (Some(_), _) => Whom::Session(here.iter().chain(&there).next().map_or(0, |seen| seen.session.session)),
        (_, Some(user)) => Whom::User(user.to_owned()),
        _ => Whom::All,
    };
    let told: Vec<Value> = here.iter().chain(&there).map(|seen| seen.json(all.here.as_deref())).collect();
    let lines: Vec<_> = here.iter().chain(&there).map(|seen| line(seen)).collect();
    let mut elsewhere: Vec<_> = there.iter().filter_map(|seen| Some((seen.elsewhere.clone()?, seen.session.session))).collect();
    let beside: BTreeSet<_> = elsewhere.iter().map(|(node, _)| node.clone()).collect();
    elsewhere.retain(|(node, _)| all.older.iter().all(|(older, _)| older != node));
    let order = |node| Order { node, except: all.here.clone(), kick: Kick { whom: whom.clone(), reason: reason.clone() } };
    if !elsewhere.is_empty() {
        let node = text(matches, "session").and(elsewhere.first()).map(|(node, _)| node.clone());
        context.store.say(&json::line(&order(node)))?;
    }
    let any_here = !here.is_empty();
    let here = all.client.iter_mut().filter(|_| any_here);
    let older = all.older.iter_mut().filter(|(node, _)| beside.contains(node)).map(|(_, client)| client);
    for client in here.chain(older) {
        let kick = Kick { whom: whom.clone(), reason: reason.clone() };
        client.ask(&Ask::Kick(kick)).map_err(Trouble::Failed)?;
    }
    wait_until_gone(context, &elsewhere)?;
    if matches.get_flag("json") {
        return Ok(print::json(console.out, &Value::Array(told))?);
    }
    lines.iter().try_for_each(|line| writeln!(console.out, "{line}"))?;
    Ok(())
}

fn line(seen: &Seen) -> String {
    format!("session {} of {} from {}: ended", seen.name(), seen.user(), seen.session.peer)
}

/// Other nodes write when they have done it.
fn wait_until_gone(context: &Context<'_>, sessions: &[(String, u64)]) -> Result<(), Trouble> {
    let until = Instant::now() + nodes::patience(context.control.interval);
    loop {
        let left: Vec<_> = match sessions {
            [] => Vec::new(),
            _ => nodes::all(context.store)?
                .into_iter()
                .flat_map(|node| node.sessions.into_iter().map(move |session| (node.node.clone(), session.session)))
                .filter(|session| sessions.contains(session))
                .collect(),
        };
        match left.first() {
            None => return Ok(()),
            Some((node, session)) if Instant::now() > until => {
                let fault = format!("{}/{session} has not ended; does that node hear the store's messages?", shown(node));
                return Err(Trouble::Failed(fault));
            }
            Some(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

fn find<'a>(all: &'a Everywhere, name: &str) -> Result<&'a Seen, Trouble> {
    let (node, number) = name.rsplit_once('/').map_or((None, name), |(node, number)| (Some(node), number));
    let number: u64 = number.parse().map_err(|_| refused(format!("\"{}\" is not a session's number", shown(name))))?;
    let is_there = |seen: &&Seen| match node {
        None => seen.elsewhere.is_none(),
        Some(node) => seen.elsewhere.as_deref().or(all.here.as_deref()) == Some(node),
    };
    let found = all.sessions.iter().filter(is_there).find(|seen| seen.session.session == number);
    found.ok_or_else(|| refused(format!("there is no session {}", shown(name))))
}

/// Which way a file goes.
pub fn arrow(file: &Transfer) -> &'static str {
    match file.direction {
        Direction::Up => "up",
        Direction::Down => "down",
    }
}

/// How far a file has come.
pub fn progress(file: &Transfer) -> String {
    match file.size {
        Some(whole) if whole > 0 => {
            let percent = (file.offset.min(whole) as f64 / whole as f64 * 100.0) as u32;
            format!("{} of {} ({percent} %)", size(file.offset), size(whole))
        }
        _ => size(file.offset),
    }
}

/// Bytes in the unit that leaves three digits or so.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    if value < 10.0 { format!("{value:.1} {}", UNITS[unit]) } else { format!("{value:.0} {}", UNITS[unit]) }
}

/// Seconds in the units that matter.
pub fn age(seconds: f64) -> String {
    let whole = seconds as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{}:{:02} min", whole / 60, whole % 60),
        3600..86_400 => format!("{}:{:02} h", whole / 3600, whole / 60 % 60),
        _ => format!("{} d {} h", whole / 86_400, whole / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_have_few_digits() {
        for (bytes, text) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (1 << 20, "1.0 MiB"), (1_000 << 20, "1.0 GiB")] {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(size(u64::MAX), "16384 PiB");
        for (seconds, text) in [(59.9, "59 s"), (61.0, "1:01 min"), (7_260.0, "2:01 h"), (90_000.0, "1 d 1 h")] {
            assert_eq!(age(seconds), text);
        }
    }
}
