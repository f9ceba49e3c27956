//! `upstream-key new|list|show|rotate`: the private keys with which the router logs in at upstreams, one for each user or each upstream.
//!
//! Keys are made here and never shown: they lie encrypted in the store, or in a file of the keys directory. What an upstream's
//! `authorized_keys` must have is printed.

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::{Value, json};

use super::{Console, Context, Trouble, json_option, refused, text};
use crate::error::shown;
use crate::identity::UserName;
use crate::route::{Host, Record, Route, address, parse_address};
use crate::sealed::Keys;
use crate::store::{Aim, Shelf};
use crate::upstream::{Credential, Source, host};

mod look;
mod make;
mod rotate;

pub use look::{list, show};
pub use make::new;
pub use rotate::rotate;

/// The commands under `upstream-key`.
pub fn commands() -> Vec<Command> {
    let whose = |command: Command| {
        command
            .arg(Arg::new("name").value_name("USER").help("The user whose record has the key"))
            .arg(
                Arg::new("host")
                    .long("host")
                    .value_name("HOST[:PORT]")
                    .conflicts_with("name")
                    .help("The upstream instead, for all its users whose records have no key"),
            )
            .arg(json_option())
    };
    let made =
        |command: Command| {
            command
                .arg(
                    Arg::new("type")
                        .long("type")
                        .value_name("TYPE")
                        .default_value("ed25519")
                        .value_parser(["ed25519", "rsa"])
                        .help("Type of the new key; rsa has 3072 bits"),
                )
                .arg(Arg::new("file").long("file").action(ArgAction::SetTrue).help(
                    "Keep the key in a file of SFTPPROXY_UPSTREAM_KEYS_DIR on this machine instead of encrypted in the store",
                ))
        };
    let flag = |name: &'static str, help: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    vec![
        made(whose(Command::new("new").about("Make a key and print the line for authorized_keys; until the rotation is finished what was used before is tried after it"))),
        Command::new("list").about("List with which key the router logs in for whom").arg(json_option()),
        whose(Command::new("show").about("Show the keys of a user or an upstream, and the lines for authorized_keys")),
        made(whose(Command::new("rotate").about(
            "Make a new key beside the old one, which is tried after it; --check says which upstreams take which, --finish drops the old one",
        )))
        .arg(flag("check", "Log in with the new key and with the old one; without USER and --host for every rotation").conflicts_with("finish"))
        .arg(flag("finish", "Drop the old key, if every upstream takes the new one"))
        .arg(flag("force", "Drop it whatever upstreams take").requires("finish")),
    ]
}

/// Whose key it is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Owner {
    /// In a user's record.
    User(UserName),
    /// In the entry of the upstream at this address.
    Host(String),
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::User(user) => write!(f, "user {}", shown(user.as_str())),
            Self::Host(address) => write!(f, "upstream {}", shown(address)),
        }
    }
}

impl Owner {
    fn given(matches: &ArgMatches) -> Result<Option<Self>, Trouble> {
        if let Some(given) = text(matches, "host") {
            let (host, port) = parse_address(given).map_err(refused)?;
            return Ok(Some(Self::Host(address(&host, port))));
        }
        text(matches, "name").map(|name| UserName::new(name).map(Self::User).map_err(refused)).transpose()
    }

    fn required(matches: &ArgMatches) -> Result<Self, Trouble> {
        Self::given(matches)?.ok_or_else(|| refused("whose key? give USER or --host HOST[:PORT]"))
    }

    /// How the command names it.
    fn argument(&self) -> String {
        match self {
            Self::User(user) => shown(user.as_str()),
            Self::Host(address) => format!("--host {}", shown(address)),
        }
    }

    /// The keys that are there now.
    fn keys(&self, context: &Context<'_>) -> Result<Keys, Trouble> {
        match self {
            Self::User(user) => Ok(route(context, user)?.keys),
            Self::Host(address) => Ok(entry(context, address)?.keys),
        }
    }

    /// Writes fields.
    fn put(&self, context: &Context<'_>, fields: &Record) -> Result<(), Trouble> {
        match self {
            Self::User(user) => context.store.put(user, Aim::Update, fields, &[])?,
            Self::Host(address) => drop(context.store.put_entry(Shelf::Hosts, address, fields)?),
        }
        Ok(())
    }

    /// The routes that use it.
    fn routes(&self, context: &Context<'_>) -> Result<Vec<(UserName, Route)>, Trouble> {
        match self {
            Self::User(user) => Ok(vec![(user.clone(), route(context, user)?)]),
            Self::Host(address) => {
                let mut routes = all_routes(context)?;
                routes.retain(|(_, route)| route.address() == *address && route.keys.now.is_none());
                Ok(routes)
            }
        }
    }

    /// Name and value for JSON.
    fn json(&self) -> (&'static str, Value) {
        match self {
            Self::User(user) => ("user", json!(user.as_str())),
            Self::Host(address) => ("upstream", json!(address)),
        }
    }
}

fn route(context: &Context<'_>, user: &UserName) -> Result<Route, Trouble> {
    let name = shown(user.as_str());
    let record = context.store.record(user)?.ok_or_else(|| refused(format!("there is no user \"{name}\"")))?;
    Route::parse(user, &record, context.defaults)
        .map_err(|reason| refused(format!("the record of user \"{name}\" has faults: {reason}")))
}

fn entry(context: &Context<'_>, address: &str) -> Result<Host, Trouble> {
    let entry = context.store.entry(Shelf::Hosts, address)?;
    Host::parse(address, &entry).map_err(|reason| refused(format!("the entry of upstream {address} has faults: {reason}")))
}

/// All routes; a record with a fault has none (`user list` says so).
fn all_routes(context: &Context<'_>) -> Result<Vec<(UserName, Route)>, Trouble> {
    let mut routes = Vec::new();
    for user in context.store.users()? {
        let record = context.store.record(&user)?.unwrap_or_default();
        routes.extend(Route::parse(&user, &record, context.defaults).ok().map(|route| (user, route)));
    }
    Ok(routes)
}

/// What is used for a route, or why nothing can be.
fn credential(context: &Context<'_>, route: &Route) -> Result<Result<Credential, String>, Trouble> {
    let host = host(context.store, route).map_err(|fault| Trouble::Failed(fault.what))?;
    Ok(Credential::find(route, &host, context.upstream))
}

/// A key by name, and its public half where that is known without opening anything.
fn source_json(source: &Source) -> Value {
    let public = match source {
        Source::Sealed(sealed, _) => Some(sealed.public()),
        _ => None,
    };
    json!({
        "key": source.to_string(),
        "type": public.map(|key| key.kind()),
        "fingerprint": public.map(|key| key.fingerprint().to_string()),
    })
}

fn names(sources: &[Source]) -> String {
    sources.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn say_lines(console: &mut Console<'_>, heading: &str, lines: &[String]) -> Result<(), Trouble> {
    writeln!(console.out, "{heading}")?;
    for line in lines {
        // Not through `shown`, which would cut a long RSA key.
        writeln!(console.out, "{}", line.replace(char::is_control, " ").trim_end())?;
    }
    Ok(())
}
