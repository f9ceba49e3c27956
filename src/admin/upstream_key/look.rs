//! `upstream-key list` and `upstream-key show`: with which key the router logs in for whom.

use clap::ArgMatches;
use serde_json::{Value, json};

use super::super::{Console, Context, Trouble, print};
use super::{Owner, all_routes, credential, entry, names, say_lines, source_json};
use crate::error::shown;
use crate::route::Route;
use crate::store::Shelf;
use crate::upstream::{Credential, Source};

/// `upstream-key list`.
pub fn list(matches: &ArgMatches, context: &Context<'_>, console: &mut Console<'_>) -> Result<(), Trouble> {
    let (mut rows, mut objects) = (Vec::new(), Vec::new());
    for address in context.store.entries(Shelf::Hosts)?.into_keys() {
        let host = entry(context, &address)?;
        if host.keys.now.is_some() {
            let found = Credential::of_host(&host, context.upstream);
            rows.push(row("(all without a key)", &address, &found));
            objects.push(as_json(&Owner::Host(address), None, &found));
        }
    }
    for (user, route) in all_routes(context)? {
        let found = credential(context, &route)?;
        rows.push(row(user.as_str(), &format!("{}@{}", shown(&route.login), route.address()), &found));
        objects.push(as_json(&Owner::User(user), Some(&route), &found));
    }
    if matches.get_flag("json") {
        return Ok(print::json(console.out, &Value::Array(objects))?);
    }
    print::table(console.out, &["USER", "UPSTREAM", "KEY", "CHOSEN BY", "OLD"], &rows)?;
    if rows.iter().any(|row| row[4] != "-") {
        writeln!(console.err, "which upstreams take only an old key: sftpproxy upstream-key rotate --check")?;
    }
    Ok(())
}

fn row(user: &str, upstream: &str, found: &Result<Credential, String>) -> Vec<String> {
    let (key, chosen, old) = match found {
        Ok(found) => (names(found.news()), found.chosen.to_string(), names(found.olds())),
        Err(reason) => (format!("NONE: {reason}"), "-".into(), String::new()),
    };
    vec![shown(user), upstream.to_owned(), key, chosen, if old.is_empty() { "-".into() } else { old }]
}

fn as_json(owner: &Owner, route: Option<&Route>, found: &Result<Credential, String>) -> Value {
    let list = |sources: &[Source]| sources.iter().map(source_json).collect::<Vec<_>>();
    let found_or = found.as_ref().ok();
    let (upstream, user) = match owner {
        Owner::User(user) => (route.map(Route::address), Some(user.as_str())),
        Owner::Host(address) => (Some(address.clone()), None),
    };
    json!({
        "user": user,
        "upstream": upstream,
        "login": route.map(|route| &route.login),
        "chosen": found_or.map(|found| found.chosen.to_string()),
        "keys": found_or.map(|found| list(found.news())),
        "old": found_or.map(|found| list(found.olds())),
        "fault": found.as_ref().err(),
    })
}

/// `upstream-key show`.
pub fn show(matches: &ArgMatches, context: &Context<'_>, console: &mut Console<'_>) -> Result<(), Trouble> {
    let owner = Owner::required(matches)?;
    let (route, found) = match &owner {
        Owner::User(user) => {
            let route = super::route(context, user)?;
            let found = credential(context, &route)?;
            (Some(route), found)
        }
        Owner::Host(address) => (None, Credential::of_host(&entry(context, address)?, context.upstream)),
    };
    let lines = |sources: &[Source]| -> Vec<String> {
        let line = |source: &Source| source.public_lines(context.upstream).unwrap_or_else(|reason| vec![format!("# {reason}")]);
        sources.iter().flat_map(line).collect()
    };
    if matches.get_flag("json") {
        let mut object = as_json(&owner, route.as_ref(), &found);
        let sources = found.as_ref().map(|found| lines(&found.sources)).unwrap_or_default();
        object["authorized_keys"] = json!(sources.iter().filter(|line| !line.starts_with('#')).collect::<Vec<_>>());
        return Ok(print::json(console.out, &object)?);
    }
    let found = found.map_err(Trouble::Failed)?;
    writeln!(console.out, "{owner}: {}, chosen by: {}", names(found.news()), found.chosen)?;
    if found.old > 0 {
        let name = owner.argument();
        writeln!(console.out, "old, tried after it: {}; see: sftpproxy upstream-key rotate {name} --check", names(found.olds()))?;
    }
    say_lines(console, "\nauthorized_keys of the upstream's account must have:", &lines(found.news()))
}
