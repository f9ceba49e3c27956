//! `upstream-key rotate`: a new key beside the old one, which upstreams take which, and the end of the old one.

use std::thread;

use clap::ArgMatches;
use serde_json::{Value, json};

use super::super::{Console, Context, Trouble, print, refused};
use super::make::{made, tell};
use super::{Owner, all_routes, credential, entry};
use crate::config;
use crate::error::{Stage, shown};
use crate::identity::UserName;
use crate::route::{Record, Route};
use crate::sealed::KeySource;
use crate::store::Shelf;
use crate::upstream::{Credential, Source, Trust, host, probe};

/// Upstreams that are asked at the same time.
const AT_ONCE: usize = 8;

/// `upstream-key rotate`.
pub fn rotate(matches: &ArgMatches, context: &Context<'_>, console: &mut Console<'_>) -> Result<(), Trouble> {
    match (matches.get_flag("check"), matches.get_flag("finish")) {
        (true, _) => check(matches, context, console),
        (_, true) => finish(matches, context, console),
        _ => begin(matches, context, console),
    }
}

fn begin(matches: &ArgMatches, context: &Context<'_>, console: &mut Console<'_>) -> Result<(), Trouble> {
    let owner = Owner::required(matches)?;
    let keys = owner.keys(context)?;
    let name = owner.argument();
    let Some(now) = keys.now else {
        return Err(refused(format!("{owner} has no key of its own: sftpproxy upstream-key new {name}")));
    };
    if let Some(old) = keys.old {
        return Err(refused(format!(
            "{owner} is in a rotation already (old: {old}): sftpproxy upstream-key rotate {name} --check, then --finish"
        )));
    }
    let (value, public) = made(matches, context, &keys.place)?;
    let old = match &now {
        KeySource::Agent => "agent".to_owned(),
        KeySource::File(path) => path.display().to_string(),
        KeySource::Sealed(sealed) => sealed.text(),
        KeySource::Common => "common".to_owned(),
    };
    owner.put(context, &Record::from([("key".to_owned(), value), ("key_old".to_owned(), old)]))?;
    tell(matches, console, (&owner, &public), Some(&now.to_string()))
}

/// What came of a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Took {
    Yes,
    No,
    /// The upstream could not be asked, or there is nothing to ask with.
    Unknown(String),
}

impl Took {
    fn word(&self) -> String {
        match self {
            Self::Yes => "accepted".into(),
            Self::No => "refused".into(),
            Self::Unknown(reason) => format!("not known: {reason}"),
        }
    }
}

/// What a route's upstream takes.
struct Checked {
    user: UserName,
    route: Route,
    new: Took,
    old: Took,
}

impl Checked {
    fn new(user: UserName, route: Route, context: (&Trust, &Credential, &config::Upstream)) -> Self {
        let (trust, credential, config) = context;
        let took = |sources: &[Source]| match probe(&route, trust, sources, config) {
            Ok(()) => Took::Yes,
            Err(fault) if fault.stage == Stage::LogIn => Took::No,
            Err(fault) => Took::Unknown(fault.what),
        };
        let new = took(credential.news());
        let old = if credential.old == 0 { Took::Unknown("there is none".into()) } else { took(credential.olds()) };
        Self { user, route, new, old }
    }
}

/// Everybody whose keys are being rotated.
fn rotating(context: &Context<'_>) -> Result<Vec<Owner>, Trouble> {
    let mut owners = Vec::new();
    for address in context.store.entries(Shelf::Hosts)?.into_keys() {
        if entry(context, &address)?.keys.old.is_some() {
            owners.push(Owner::Host(address));
        }
    }
    let routes = all_routes(context)?.into_iter().filter(|(_, route)| route.keys.old.is_some());
    owners.extend(routes.map(|(user, _)| Owner::User(user)));
    Ok(owners)
}

/// Asks the upstreams of these owners, some at a time.
fn ask(owners: &[Owner], context: &Context<'_>) -> Result<Vec<Checked>, Trouble> {
    let mut work = Vec::new();
    for owner in owners {
        for (user, route) in owner.routes(context)? {
            let host = host(context.store, &route).map_err(|fault| Trouble::Failed(fault.what))?;
            let trust = Trust::find(&route, &host, context.upstream).map_err(|fault| Trouble::Failed(fault.what))?;
            let credential = credential(context, &route)?.map_err(Trouble::Failed)?;
            work.push((user, route, trust, credential));
        }
    }
    let config = context.upstream;
    let mut checked = Vec::with_capacity(work.len());
    let mut work = work.into_iter().peekable();
    while work.peek().is_some() {
        let some: Vec<_> = work.by_ref().take(AT_ONCE).collect();
        thread::scope(|scope| {
            let ask =
                |(user, route, trust, credential)| scope.spawn(move || Checked::new(user, route, (&trust, &credential, config)));
            let asked: Vec<_> = some.into_iter().map(ask).collect();
            // A thread that has panicked has said so; its upstream counts as one that was not asked.
            checked.extend(asked.into_iter().filter_map(|thread| thread.join().ok()));
        });
    }
    Ok(checked)
}

fn check(matches: &ArgMatches, context: &Context<'_>, console: &mut Console<'_>) -> Result<(), Trouble> {
    let owners = match Owner::given(matches)? {
        Some(owner) => vec![owner],
        None => rotating(context)?,
    };
    let checked = ask(&owners, context)?;
    if matches.get_flag("json") {
        let one = |checked: &Checked| {
            json!({
                "user": checked.user.as_str(),
                "upstream": checked.route.address(),
                "login": checked.route.login,
                "new": checked.new.word(),
                "old": checked.old.word(),
                "only_old": checked.new != Took::Yes && checked.old == Took::Yes,
            })
        };
        print::json(console.out, &Value::Array(checked.iter().map(one).collect()))?;
    } else {
        let row = |checked: &Checked| {
            let upstream = format!("{}@{}", shown(&checked.route.login), checked.route.address());
            vec![shown(checked.user.as_str()), upstream, checked.new.word(), checked.old.word()]
        };
        print::table(console.out, &["USER", "UPSTREAM", "NEW", "OLD"], &checked.iter().map(row).collect::<Vec<_>>())?;
    }
    lacking(&checked).map_or(Ok(()), |reason| Err(Trouble::Failed(reason)))
}

/// Which upstreams do not take the new key; `None` = all do.
fn lacking(checked: &[Checked]) -> Option<String> {
    let number = checked.iter().filter(|checked| checked.new != Took::Yes).count();
    let only_old = checked.iter().filter(|checked| checked.new == Took::No && checked.old == Took::Yes).count();
    (number > 0).then(|| format!("{number} of {} do not take the new key, {only_old} of them only the old one", checked.len()))
}

fn finish(matches: &ArgMatches, context: &Context<'_>, console: &mut Console<'_>) -> Result<(), Trouble> {
    let owner = Owner::required(matches)?;
    let keys = owner.keys(context)?;
    let Some(old) = keys.old else {
        return Err(refused(format!("{owner} is in no rotation; there is no old key to drop")));
    };
    if !matches.get_flag("force")
        && let Some(reason) = lacking(&ask(std::slice::from_ref(&owner), context)?)
    {
        let name = owner.argument();
        return Err(Trouble::Failed(format!(
            "{reason}; nothing was dropped. See: sftpproxy upstream-key rotate {name} --check; --force drops it all the same"
        )));
    }
    owner.put(context, &Record::from([("key_old".to_owned(), String::new())]))?;
    if matches.get_flag("json") {
        let (name, value) = owner.json();
        return Ok(print::json(console.out, &json!({ name: value, "dropped": old.to_string() }))?);
    }
    let now = owner.keys(context)?.now.map(|now| now.to_string()).unwrap_or_default();
    writeln!(console.out, "{owner}: {now} alone is used from now on; dropped: {old}")?;
    if let KeySource::File(path) = &old {
        writeln!(
            console.out,
            "the file stays, in case something else uses it: {}",
            context.upstream.keys_dir.join(path).display()
        )?;
    }
    Ok(())
}
