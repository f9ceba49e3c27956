//! `doctor`: whether every route works, asked of every upstream, and what in the store is dead.
//!
//! [`examine`] looks at one route, [`crowd`] sees to it that many are looked at at the same time and no upstream too often, [`entries`] looks at
//! the store alone. Routes that are alike in everything that is asked are asked once.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use clap::{Arg, ArgAction, ArgMatches, Command};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use self::crowd::{Bounds, Verdict};
use self::examine::{Found, Terms};
use super::print::State;
use super::{Console, Context, Trouble, json_option, key, print, refused, text, texts};
use crate::error::shown;
use crate::identity::UserName;
use crate::route::Route;

mod crowd;
mod entries;
mod examine;

/// Routes looked at at the same time, unless it is said: most of the time is waiting, and an upstream is often the same machine.
const THREADS: usize = 16;

/// The same at one address: sshd's MaxStartups drops connections beyond 10 that have not logged in.
const PER_ADDRESS: usize = 4;

/// Seconds that a route may take: a login that takes longer is one that users complain of.
const LIMIT: usize = 20;

/// The command.
pub fn command() -> Command {
    let number = |name: &'static str, value: &'static str| Arg::new(name).long(name).value_name(value);
    Command::new("doctor")
        .about("Ask every upstream whether its routes work, and find dead entries of the store")
        .arg(
            Arg::new("users")
                .value_name("USER")
                .action(ArgAction::Append)
                .num_args(0..)
                .help("Only these users, each stage told"),
        )
        .arg(
            Arg::new("write")
                .long("write")
                .action(ArgAction::SetTrue)
                .help("Also make a file with a random name in the start directory and remove it"),
        )
        .arg(number("parallel", "N").help(format!("Routes at the same time, 1 to 256 [default: {THREADS}]")))
        .arg(number("per-address", "N").help(format!("The same at one address, 1 to 64 [default: {PER_ADDRESS}]")))
        .arg(number("timeout", "SECONDS").help(format!("How long one route may take, 1 to 600 [default: {LIMIT}]")))
        .arg(json_option())
        .after_help(
            "Exit codes: 0 everything works, 3 something does not or is dead, 1 the store cannot be read, 2 wrong arguments",
        )
}

/// A user with a record.
struct Case {
    user: UserName,
    /// The route, or why the record is none.
    route: Result<Route, String>,
    /// What is there of it in the list of outcomes.
    outcome: usize,
}

/// `doctor`.
pub fn run(matches: &ArgMatches, context: &Context<'_>, console: &mut Console<'_>) -> Result<(), Trouble> {
    let number = |name: &str, default: usize, range: RangeInclusive<usize>| match text(matches, name).map(str::parse) {
        None => Ok(default),
        Some(Ok(number)) if range.contains(&number) => Ok(number),
        Some(_) => Err(refused(format!("--{name}: a number from {} to {} is wanted", range.start(), range.end()))),
    };
    let threads = number("parallel", THREADS, 1..=256)?;
    let per_address = number("per-address", PER_ADDRESS, 1..=64)?;
    let limit = Duration::from_secs(number("timeout", LIMIT, 1..=600)? as u64);
    let terms = Terms { store: context.store, config: context.upstream, limit, write: matches.get_flag("write") };

    let started = Instant::now();
    let named = texts(matches, "users").into_iter().map(UserName::new).collect::<Result<Vec<_>, _>>().map_err(refused)?;
    let dead = entries::look(context.store, &named)?;
    let (mut cases, asked) = cases(context, &named)?;
    let found = examine_all(&asked, &terms, Bounds { threads, per_address }, console)?;
    cases.sort_by(|a, b| a.user.cmp(&b.user));
    let report = Report { cases: &cases, found: &found, dead: &dead, time: started.elapsed() };
    if matches.get_flag("json") {
        print::json(console.out, &report.json())?;
    } else if named.is_empty() {
        report.table(console)?;
    } else {
        report.stages(console)?;
    }
    if report.is_good() { Ok(()) } else { Err(Trouble::Negative) }
}

/// The users' records, and the routes that are to be asked, each once.
fn cases(context: &Context<'_>, named: &[UserName]) -> Result<(Vec<Case>, Vec<Route>), Trouble> {
    let users = if named.is_empty() { context.store.users()? } else { named.to_vec() };
    let (mut cases, mut asked, mut numbers) = (Vec::new(), Vec::new(), BTreeMap::new());
    for user in users {
        let Some(record) = context.store.record(&user)? else { continue };
        let route = Route::parse(&user, &record, context.defaults);
        let outcome = route.as_ref().map_or(0, |route| {
            *numbers.entry(likeness(route)).or_insert_with(|| {
                asked.push(route.clone());
                asked.len() - 1
            })
        });
        cases.push(Case { user, route, outcome });
    }
    Ok((cases, asked))
}

/// What is asked of a route: two that are alike in this are answered alike.
fn likeness(route: &Route) -> String {
    let Route { remote, port, login, keys, pins, home, policy, proxy_header, .. } = route;
    format!("{:?}", (remote, port, login, &keys.now, &keys.old, pins, home, policy, proxy_header))
}

/// Examines every route; the progress is seen by who sits there.
fn examine_all(
    asked: &[Route],
    terms: &Terms<'_>,
    bounds: Bounds,
    console: &mut Console<'_>,
) -> Result<Vec<Option<Found>>, Trouble> {
    let target = if console.interactive { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(asked.len() as u64), target);
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} routes, {elapsed}, {eta} left, bad: {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let addresses: Vec<_> = asked.iter().map(Route::address).collect();
    let mut found: Vec<Option<Found>> = asked.iter().map(|_| None).collect();
    let mut bad = 0;
    bar.set_message("0");
    let work = |job: usize| {
        let found = examine::examine(&asked[job], terms);
        let fault = found.fault().filter(|_| found.is_of_the_address()).map(|step| step.text.clone());
        let verdict = Verdict { worked: found.host_key.is_some(), fault };
        (found, verdict)
    };
    // Drawn by this thread alone: it holds the lock of standard error.
    let done = |done: crowd::Done<Found>| {
        let outcome = done.outcome.unwrap_or_else(|reason| Found::no_route(format!("not asked again: {reason}")));
        bad += usize::from(outcome.state() == State::Bad);
        bar.set_message(bad.to_string());
        bar.inc(1);
        found[done.job] = Some(outcome);
    };
    let ran = crowd::run(&addresses, bounds, &work, done);
    bar.finish_and_clear();
    ran.map_err(Trouble::Failed)?;
    Ok(found)
}

/// Everything that was found.
struct Report<'a> {
    cases: &'a [Case],
    found: &'a [Option<Found>],
    dead: &'a [entries::Dead],
    time: Duration,
}

impl Report<'_> {
    fn of(&self, case: &Case) -> Option<&Found> {
        case.route.as_ref().ok().and_then(|_| self.found[case.outcome].as_ref())
    }

    fn state(&self, case: &Case) -> State {
        self.of(case).map_or(State::Bad, Found::state)
    }

    fn count(&self, state: State) -> usize {
        self.cases.iter().filter(|case| self.state(case) == state).count()
    }

    fn is_good(&self) -> bool {
        self.count(State::Bad) == 0 && self.dead.is_empty()
    }

    /// What is wrong, in a line.
    fn fault(&self, case: &Case) -> String {
        match (&case.route, self.of(case).and_then(Found::fault)) {
            (Err(reason), _) => format!("record: {reason}"),
            (_, Some(step)) => format!("{}: {}", step.name, step.text),
            (Ok(route), None) => route.maintenance.as_ref().map(|why| format!("maintenance: {}", shown(why))).unwrap_or_default(),
        }
    }

    fn table(&self, console: &mut Console<'_>) -> Result<(), Trouble> {
        let row = |case: &Case| {
            let found = self.of(case);
            let address = case.route.as_ref().map(Route::address).unwrap_or_default();
            let kex = found.and_then(|found| Some(found.negotiated.as_ref()?.kex.clone())).unwrap_or_default();
            let key = found.and_then(|found| Some(found.host_key.as_ref()?.kind().to_owned())).unwrap_or_default();
            let start = found.and_then(|found| found.start.clone()).unwrap_or_default();
            let time = found.map(|found| format!("{:.1}", found.time().as_secs_f64())).unwrap_or_default();
            let cells = vec![shown(case.user.as_str()), address, kex, key, start, time, self.fault(case)];
            (self.state(case), cells)
        };
        let rows: Vec<_> = self.cases.iter().map(row).collect();
        let heading = ["USER", "UPSTREAM", "KEY EXCHANGE", "HOST KEY", "START", "SECONDS", "FAULT"];
        print::states(console, &heading, &rows)?;
        self.end(console)
    }

    fn stages(&self, console: &mut Console<'_>) -> Result<(), Trouble> {
        for case in self.cases {
            let address = case.route.as_ref().map(Route::address).unwrap_or_default();
            writeln!(console.out, "user {} {address}", shown(case.user.as_str()))?;
            if let Err(reason) = &case.route {
                writeln!(console.out, "{} {:14} {reason}", State::Bad.painted(console.colour), "record")?;
            }
            for step in self.of(case).map_or(&[][..], |found| &found.steps) {
                let word = step.state.painted(console.colour);
                writeln!(console.out, "{word} {:14} {} ({} ms)", step.name, step.text, step.time.as_millis())?;
            }
            if let Some(greeting) = self.of(case).and_then(|found| found.greeting.as_ref()) {
                let extensions = greeting.extensions.join(", ");
                writeln!(console.out, "{} {:14} {extensions}", State::Note.painted(console.colour), "extensions")?;
            }
        }
        self.end(console)
    }

    /// The dead entries, and a line that sums it up.
    fn end(&self, console: &mut Console<'_>) -> Result<(), Trouble> {
        if !self.dead.is_empty() {
            writeln!(console.out)?;
            let rows: Vec<_> = self.dead.iter().map(|dead| (State::Bad, dead.row())).collect();
            print::states(console, &["USER", "ENTRY", "WHY NOBODY CAN LOG IN WITH IT"], &rows)?;
        }
        let (good, warned, bad) = (self.count(State::Good), self.count(State::Warning), self.count(State::Bad));
        let routes = key::count(self.cases.len(), "route");
        let entries = self.dead.len();
        writeln!(
            console.out,
            "\n{routes}: {good} ok, {warned} with a warning, {bad} bad; dead entries: {entries}; {:.1} s",
            self.time.as_secs_f64()
        )?;
        Ok(())
    }

    fn json(&self) -> Value {
        let case = |case: &Case| {
            let mut object = self.of(case).map_or_else(|| Found::no_route(self.fault(case)).json(), Found::json);
            object["user"] = json!(case.user.as_str());
            object["upstream"] = json!(case.route.as_ref().ok().map(Route::address));
            object["fault"] = json!(Some(self.fault(case)).filter(|fault| !fault.is_empty()));
            object
        };
        json!({
            "good": self.is_good(),
            "routes": self.cases.iter().map(case).collect::<Vec<_>>(),
            "dead": self.dead.iter().map(entries::Dead::json).collect::<Vec<_>>(),
            "seconds": (self.time.as_secs_f64() * 1000.0).round() / 1000.0,
        })
    }
}
