//! `ban add|list|remove`: networks that are refused, for all routers at the same store.

use std::time::Duration;

use clap::{Arg, ArgMatches, Command};
use serde_json::json;

use super::{Console, Context, Trouble, json_option, print, refused, text};
use crate::admission::{Ban, MAX_WHY, seconds};
use crate::config::admission::duration;
use crate::error::shown;
use crate::network::parse_network;

/// The commands under `ban`.
pub fn commands() -> Vec<Command> {
    let network = || Arg::new("network").value_name("NETWORK").required(true).help("203.0.113.7, 203.0.113.0/24, 2001:db8::/32");
    vec![
        Command::new("add")
            .about("Refuse connections from a network; sessions that run go on")
            .arg(network())
            .arg(Arg::new("for").long("for").value_name("TIME").help("90s, 10m, 12h, 7d; unset = until it is removed"))
            .arg(Arg::new("reason").long("reason").value_name("TEXT").help("Why, for who lists bans")),
        Command::new("list").about("List the networks that are refused, by operators and for penalties").arg(json_option()),
        Command::new("remove").about("Let a network in again").arg(network()),
    ]
}

/// `ban add`.
pub fn add(matches: &ArgMatches, context: &Context<'_>, console: &mut Console<'_>) -> Result<(), Trouble> {
    let network = network(matches)?;
    let left = match text(matches, "for").map(|text| (text, duration(text))) {
        None => None,
        Some((_, Some(left))) if !left.is_zero() => Some(left),
        Some((text, _)) => return Err(refused(format!("--for: \"{}\" is no time such as 90s, 10m, 12h, 7d", shown(text)))),
    };
    let why = text(matches, "reason").unwrap_or("by hand").trim().to_owned();
    if why.is_empty() || why.len() > MAX_WHY || why.contains(char::is_control) {
        return Err(refused(format!("--reason: expected one line of at most {MAX_WHY} bytes")));
    }
    if network.prefix_len() == 0 {
        return Err(refused("that is everybody; to let nobody in: sftpproxy maintenance on MESSAGE"));
    }
    // One ban of a network by hand: the new one counts, be it shorter.
    context.store.remove_ban(&network)?;
    context.store.add_ban(&Ban { network, left, why })?;
    Ok(writeln!(console.out, "{network}: refused {}", until(left))?)
}

/// `ban list`.
pub fn list(matches: &ArgMatches, context: &Context<'_>, console: &mut Console<'_>) -> Result<(), Trouble> {
    let mut bans = context.store.bans()?;
    bans.sort_by_key(|ban| (ban.network, ban.left));
    if matches.get_flag("json") {
        let ban = |ban: &Ban| json!({ "network": ban.network.to_string(), "seconds": ban.left.map(seconds), "reason": ban.why });
        return Ok(print::json(console.out, &json!(bans.iter().map(ban).collect::<Vec<_>>()))?);
    }
    let row = |ban: &Ban| vec![ban.network.to_string(), until(ban.left), shown(&ban.why)];
    Ok(print::table(console.out, &["NETWORK", "REFUSED", "REASON"], &bans.iter().map(row).collect::<Vec<_>>())?)
}

/// `ban remove`.
pub fn remove(matches: &ArgMatches, context: &Context<'_>, console: &mut Console<'_>) -> Result<(), Trouble> {
    let network = network(matches)?;
    if !context.store.remove_ban(&network)? {
        return Err(refused(format!("there is no ban of {network}; see: sftpproxy ban list")));
    }
    Ok(writeln!(console.out, "{network}: let in again")?)
}

fn network(matches: &ArgMatches) -> Result<ipnet::IpNet, Trouble> {
    parse_network(text(matches, "network").unwrap_or_default()).map_err(refused)
}

fn until(left: Option<Duration>) -> String {
    left.map_or_else(|| "until removed".to_owned(), |left| format!("for {} s", seconds(left)))
}
