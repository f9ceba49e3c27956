//! The commands of the administrator: `user`, `key`, `host-key`, `upstream-key`, `ban`, `sessions`, `top`, `maintenance`, `explain`,
//! `doctor`, `report`. The same over either store.
//!
//! A command checks everything it is given before it writes anything, tells all faults at once, shows what it removes before it does,
//! and prints: results on standard output, complaints on standard error. It logs nothing. Exit codes: [`Outcome`].

use std::io::{self, BufRead, Write};
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::config::{self, Config};
use crate::identity::UserName;
use crate::route::Defaults;
use crate::store::{RouteStore, StoreError};

mod ban;
mod doctor;
mod explain;
mod host_key;
mod key;
mod key_lines;
mod maintenance;
mod print;
mod report;
mod sessions;
mod top;
mod upstream_key;
mod user;

/// What the commands work with.
pub struct Context<'a> {
    /// The routes.
    pub store: &'a dyn RouteStore,
    /// What a record without the field gets.
    pub defaults: &'a Defaults,
    /// For the router's own keys and to look at host keys.
    pub upstream: &'a config::Upstream,
    /// Where the router of this machine answers.
    pub control: &'a config::control::Control,
    /// Where clients connect, for the line that says how.
    pub port: u16,
    /// All settings, for who explains what they mean for a login.
    pub config: &'a Config,
}

/// Who runs a command: the program's standard streams, or a test's.
pub struct Console<'a> {
    /// For results.
    pub out: &'a mut dyn Write,
    /// For complaints and questions.
    pub err: &'a mut dyn Write,
    /// For keys (`-`) and answers.
    pub input: &'a mut dyn BufRead,
    /// Whether somebody sits there who can be asked.
    pub interactive: bool,
    /// Whether results may have colours.
    pub colour: bool,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Done: exit code 0.
    Done,
    /// It could not be done, for instance because the store does not answer: exit code 1.
    Failed,
    /// What was asked for is wrong or was not confirmed; nothing was written: exit code 2.
    Refused,
    /// Done, and the answer is no: a login would be refused, a route does not work. Exit code 3.
    Negative,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(match outcome {
            Outcome::Done => 0,
            Outcome::Failed => 1,
            Outcome::Refused => 2,
            Outcome::Negative => 3,
        })
    }
}

/// Why a command stopped, one line a reason.
enum Trouble {
    Failed(String),
    Refused(Vec<String>),
    /// Everything was said already, and it is not good.
    Negative,
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.what)
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Failed(format!("cannot print or read: {error}"))
    }
}

fn refused(reason: impl Into<String>) -> Trouble {
    Trouble::Refused(vec![reason.into()])
}

/// The commands, for the program's own command to take as subcommands.
pub fn commands() -> Vec<Command> {
    let group = |name: &'static str, about: &'static str| {
        Command::new(name).about(about).subcommand_required(true).arg_required_else_help(true)
    };
    vec![
        group("user", "Add, list, show and remove users and their routes").subcommands(user::commands()),
        group("key", "Add, list and remove users' public keys").subcommands(key::commands()),
        group("host-key", "Look at, approve and remove host keys of upstreams").subcommands(host_key::commands()),
        group("upstream-key", "Make, list and rotate the keys with which the router logs in at upstreams")
            .subcommands(upstream_key::commands()),
        group("ban", "Refuse connections from networks, and let them in again").subcommands(ban::commands()),
        group("sessions", "See and end the sessions that run, on all nodes").subcommands(sessions::commands()),
        group("maintenance", "Let nobody in, or not one user, and tell them why").subcommands(maintenance::commands()),
        top::command(),
        explain::command(),
        doctor::command(),
        group("report", "Say what users and their clients still use").subcommands(report::commands()),
    ]
}

/// Runs the command `name` of [`commands`] with its matches.
pub fn run(name: &str, matches: &ArgMatches, context: &Context<'_>, console: &mut Console<'_>) -> Outcome {
    let (verb, matches) = matches.subcommand().unwrap_or(("", matches));
    let done = match (name, verb) {
        ("user", "add") => user::add(matches, context, console),
        ("user", "list") => user::list(matches, context, console),
        ("user", "show") => user::show(matches, context, console),
        ("user", "remove") => user::remove(matches, context, console),
        ("key", "add") => key::add(matches, context, console),
        ("key", "list") => key::list(matches, context, console),
        ("key", "remove") => key::remove(matches, context, console),
        ("host-key", "scan") => host_key::scan(matches, context, console),
        ("host-key", "list") => host_key::list(matches, context, console),
        ("host-key", "approve") => host_key::approve(matches, context, console),
        ("host-key", "remove") => host_key::remove(matches, context, console),
        ("upstream-key", "new") => upstream_key::new(matches, context, console),
        ("upstream-key", "list") => upstream_key::list(matches, context, console),
        ("upstream-key", "show") => upstream_key::show(matches, context, console),
        ("upstream-key", "rotate") => upstream_key::rotate(matches, context, console),
        ("ban", "add") => ban::add(matches, context, console),
        ("ban", "list") => ban::list(matches, context, console),
        ("ban", "remove") => ban::remove(matches, context, console),
        ("sessions", "list") => sessions::list(matches, context, console),
        ("sessions", "show") => sessions::show(matches, context, console),
        ("sessions", "kick") => sessions::kick(matches, context, console),
        ("maintenance", "on") => maintenance::on(matches, context, console),
        ("maintenance", "off") => maintenance::off(matches, context, console),
        ("maintenance", "show") => maintenance::show(matches, context, console),
        ("doctor", _) => doctor::run(matches, context, console),
        ("report", "algorithms") => report::algorithms(matches, context, console),
        ("explain", _) => explain::run(matches, context, console),
        ("top", _) => top::run(matches, context, console),
        _ => Err(refused(format!("there is no command {name} {verb}"))),
    };
    let flushed = console.out.flush();
    let (outcome, reasons) = match done.and_then(|()| Ok(flushed?)) {
        Ok(()) => (Outcome::Done, Vec::new()),
        Err(Trouble::Failed(reason)) => (Outcome::Failed, vec![reason]),
        Err(Trouble::Refused(reasons)) => (Outcome::Refused, reasons),
        Err(Trouble::Negative) => (Outcome::Negative, Vec::new()),
    };
    let command = format!("{name} {verb}");
    for reason in reasons {
        // Nobody is left to tell when this fails.
        let _ = writeln!(console.err, "sftpproxy {}: {reason}", command.trim_end());
    }
    outcome
}

fn text<'a>(matches: &'a ArgMatches, id: &str) -> Option<&'a str> {
    matches.get_one::<String>(id).map(String::as_str)
}

fn texts<'a>(matches: &'a ArgMatches, id: &str) -> Vec<&'a str> {
    matches.get_many::<String>(id).into_iter().flatten().map(String::as_str).collect()
}

fn user_name(matches: &ArgMatches) -> Result<UserName, Trouble> {
    UserName::new(text(matches, "name").unwrap_or_default()).map_err(refused)
}

fn name_argument() -> Arg {
    Arg::new("name").value_name("USER").required(true).help("The user's name, as they give it to ssh")
}

fn yes_option(what: &'static str) -> Arg {
    Arg::new("yes").long("yes").short('y').action(ArgAction::SetTrue).help(what)
}

fn json_option() -> Arg {
    Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print JSON")
}

/// Asks before something that was just shown is done.
fn confirm(matches: &ArgMatches, console: &mut Console<'_>, question: &str) -> Result<(), Trouble> {
    if matches.get_flag("yes") {
        return Ok(());
    }
    if !console.interactive {
        return Err(refused("nothing was changed: nobody is here to confirm; give --yes to do it without a question"));
    }
    console.out.flush()?;
    write!(console.err, "{question} [y/N] ")?;
    console.err.flush()?;
    let mut answer = String::new();
    io::Read::take(&mut *console.input, 100).read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(refused("nothing was changed")),
    }
}
