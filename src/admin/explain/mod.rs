//! `explain`: what a user's login would meet, step by step, with everything that is read on the way. Nobody logs in and no upstream is
//! asked: that is `doctor`'s.
//!
//! The steps are a login's own functions ([`login`], [`crate::upstream::Trust::find`], [`crate::upstream::Credential::find`]) in a login's order, over a store that notes what it is asked.
//! Private keys are read, because a login reads them, and only their public halves are shown.

use std::net::IpAddr;
use std::time::Instant;

use clap::{Arg, ArgMatches, Command};
use serde_json::{Value, json};

use super::print::State;
use super::{Console, Context, Trouble, json_option, key, key_lines, print, refused, text};
use crate::admission::{Admission, Refusal};
use crate::config;
use crate::error::{Fault, Side, shown};
use crate::identity::{Fingerprint, UserName};
use crate::login;
use crate::policy;
use crate::route::{Record, Route};
use crate::store::RouteStore as _;
use crate::store::noted::{Answer, Noted, Read};

mod keys;
mod upstream;

/// One step of a login.
struct Step {
    name: &'static str,
    state: State,
    text: String,
    /// What was read of the store for it.
    reads: Vec<Read>,
    /// What the operator can do.
    advice: Option<String>,
}

/// A login that is walked.
struct Walk<'a> {
    context: &'a Context<'a>,
    store: Noted<'a>,
    user: UserName,
    from: Option<IpAddr>,
    steps: Vec<Step>,
}

/// The command.
pub fn command() -> Command {
    Command::new("explain")
        .about("Walk a user's login without logging in, and say what is read, what it means and what to do")
        .arg(Arg::new("name").long("user").value_name("USER").required(true).help("The user's name, as they give it to ssh"))
        .arg(
            Arg::new("key")
                .long("key")
                .value_name("FILE")
                .conflicts_with("fingerprint")
                .help("The public key that the user offers, such as id_ed25519.pub; unset = those that the store has"),
        )
        .arg(
            Arg::new("fingerprint")
                .long("fingerprint")
                .value_name("SHA256:…")
                .help("The same by its fingerprint, as logs have it"),
        )
        .arg(Arg::new("from").long("from").value_name("ADDR").help("The address that the user comes from"))
        .arg(json_option())
        .after_help("Exit codes: 0 the user would be let in, 3 would be refused, 1 the store cannot say, 2 wrong arguments")
}

/// `explain`.
pub fn run(matches: &ArgMatches, context: &Context<'_>, console: &mut Console<'_>) -> Result<(), Trouble> {
    let user = super::user_name(matches)?;
    let from = text(matches, "from")
        .map(|from| from.parse::<IpAddr>().map_err(|_| format!("--from: \"{}\" is no address", shown(from))));
    let from = from.transpose().map_err(refused)?;
    let keys = text(matches, "key").map(|file| key_lines::read(&[file], console)).transpose().map_err(Trouble::Refused)?;
    let print = text(matches, "fingerprint").map(|print| Fingerprint::parse(print).ok_or_else(|| fingerprint_fault(print)));
    let print = print.transpose().map_err(refused)?;

    let mut walk = Walk { context, store: Noted::new(context.store), user, from, steps: Vec::new() };
    walk.connect();
    match (keys, print) {
        (Some(keys), _) => walk.offered(keys.into_iter().map(|(key, _)| key).collect()),
        (None, Some(print)) => walk.fingerprint(&print),
        (None, None) => walk.stored(),
    }
    if let Some(route) = walk.route() {
        walk.comes_from(&route);
        walk.limits(&route);
        if let Some(host) = walk.host(&route) {
            walk.host_key(&route, &host);
            walk.credential(&route, &host);
        }
        walk.upstream(&route);
    }
    walk.tell(matches.get_flag("json"), console)
}

fn fingerprint_fault(given: &str) -> String {
    format!("--fingerprint: \"{}\" is not a SHA256 fingerprint, such as ssh-keygen -lf FILE prints", shown(given))
}

impl Walk<'_> {
    fn step(&mut self, name: &'static str, state: State, text: impl Into<String>, advice: Option<String>) {
        let reads = self.store.take();
        self.steps.push(Step { name, state, text: text.into(), reads, advice });
    }

    /// What is decided before a key is offered. What a running router counts (connections, faults that it has not shared) is not known here.
    fn connect(&mut self) {
        let now = Instant::now();
        let admission = Admission::new(self.context.config.admission.clone());
        let learnt = self.store.bans().map(|bans| admission.learn(&bans, now));
        let Some(from) = self.from else {
            return self.step("connect", State::Note, "where the user comes from is not said", Some("--from ADDR".into()));
        };
        match (admission.check(from, now), learnt) {
            (Err(refusal), _) => {
                let advice = match &refusal {
                    Refusal::Banned(network) => format!("sftpproxy ban remove {network}"),
                    _ => "change the setting that is named".into(),
                };
                self.step("connect", State::Bad, format!("{from}: {refusal}"), Some(advice));
            }
            (Ok(()), Err(error)) => {
                let text = format!("{from} is let in by the settings; bans: {error}");
                self.step("connect", State::Unknown, text, Some("the bans that a router knows stay in force".into()));
            }
            (Ok(()), Ok(())) => {
                let terms = admission.terms();
                let text = format!(
                    "{from} may connect, while fewer than {} connections are open and {} of them unproven; of {} at most {} and {}",
                    terms.sessions,
                    terms.startups.full,
                    terms.blocks.source(from),
                    limit(terms.source_sessions),
                    limit(terms.source_startups)
                );
                self.step("connect", State::Good, text, None);
            }
        }
    }

    /// Whether the user's record lets the user come from there.
    fn comes_from(&mut self, route: &Route) {
        let Some(from) = self.from else { return };
        if let Err(refusal) = login::comes_from(route, from) {
            let advice = format!("sftpproxy user add {} --update --from NETWORKS", shown(self.user.as_str()));
            self.step("from", State::Bad, format!("{from}: {refusal}: {}", route.from), Some(advice));
        } else if !route.from.is_empty() {
            self.step("from", State::Good, format!("{from} is in {}", route.from), None);
        }
    }

    fn route(&mut self) -> Option<Route> {
        let found = login::find(&self.store, &self.user, self.context.defaults);
        match found {
            Ok(route) => {
                let home = route.home.as_deref().map_or_else(|| "where the upstream says".to_owned(), shown);
                let text = format!("{}@{}, starts in {home}", shown(&route.login), route.address());
                self.step("route", State::Good, text, None);
                self.policy(&route);
                Some(route)
            }
            Err(fault) => {
                self.no_route(fault);
                None
            }
        }
    }

    fn no_route(&mut self, fault: Fault) {
        let reads = self.store.take();
        let user = shown(self.user.as_str());
        let failed = reads.iter().any(|read| matches!(read.answer, Answer::Failed(_)));
        let everybody = matches!(reads.as_slice(), [Read { answer: Answer::Text(_), .. }]);
        let (state, advice) = match fault.side {
            _ if failed => (State::Unknown, Some(self.until_it_answers())),
            Side::Router if everybody => (State::Bad, Some("sftpproxy maintenance off".to_owned())),
            Side::Router => (State::Bad, Some(format!("sftpproxy maintenance off --user {user}"))),
            _ if fault.what.starts_with("bad record") => {
                (State::Bad, Some(format!("correct what is named: sftpproxy user add {user} --update --FIELD VALUE")))
            }
            _ => (State::Bad, None),
        };
        self.steps.push(Step { name: "route", state, text: fault.what, reads, advice });
    }

    /// What a store that does not answer means for logins. What a running router remembers is not known here.
    fn until_it_answers(&self) -> String {
        let grace = match &self.context.config.store {
            config::Store::Redis(redis) => redis.grace.as_secs(),
            config::Store::File(_) => 0,
        };
        match grace {
            0 => "logins are refused until the store answers".to_owned(),
            _ => format!(
                "until the store answers, a router lets in who has logged in there and was seen in it within {grace} s (SFTPPROXY_STORE_GRACE), and refuses others"
            ),
        }
    }

    fn policy(&mut self, route: &Route) {
        let record = self.record();
        let fields: Vec<_> = policy::FIELDS
            .iter()
            .filter_map(|name| Some((name, record.get(*name).filter(|value| !value.is_empty())?)))
            .map(|(name, value)| format!("{name} = {}", shown(value)))
            .collect();
        let text = if route.policy.is_none() { "everything is allowed".to_owned() } else { fields.join(", ") };
        self.step("policy", State::Note, text, None);
    }

    /// The record as the last step has read it.
    fn record(&self) -> Record {
        let fields = |read: &Read| match &read.answer {
            Answer::Fields(record) => Some(record.clone()),
            _ => None,
        };
        self.steps.iter().flat_map(|step| &step.reads).find_map(fields).unwrap_or_default()
    }

    fn limits(&mut self, route: &Route) {
        let speed = |speed: u32| if speed == 0 { "no limit".to_owned() } else { format!("{speed} KiB/s") };
        let sessions = route.max_sessions.unwrap_or(self.context.config.admission.user_sessions);
        let survive = route.survive.map(|time| format!(", a lost upstream is tried again for {} s", time.as_secs()));
        let text = format!(
            "upload: {}, download: {}, sessions at the same time: {}{}",
            speed(route.speed.up),
            speed(route.speed.down),
            limit(sessions),
            survive.unwrap_or_default()
        );
        self.step("limits", State::Note, text, None);
    }

    /// Prints the steps; the error is the outcome that is not good.
    fn tell(self, as_json: bool, console: &mut Console<'_>) -> Result<(), Trouble> {
        let first = |state| self.steps.iter().find(|step| step.state == state).map(|step| step.text.clone());
        let (unknown, bad) = (first(State::Unknown), first(State::Bad));
        let outcome = match (&unknown, &bad) {
            (Some(_), _) => "unknown",
            (None, Some(_)) => "refused",
            (None, None) => "let in",
        };
        let reason = unknown.clone().or_else(|| bad.clone());
        if as_json {
            let steps: Vec<_> = self.steps.iter().map(step_json).collect();
            let whole = json!({ "user": self.user.as_str(), "outcome": outcome, "reason": reason, "steps": steps });
            print::json(console.out, &whole)?;
        } else {
            for step in &self.steps {
                print_step(step, console)?;
            }
            let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
            writeln!(console.out, "\nuser {} would be {outcome}{reason}", shown(self.user.as_str()))?;
        }
        match (unknown, bad) {
            (Some(reason), _) => Err(Trouble::Failed(reason)),
            (None, Some(_)) => Err(Trouble::Negative),
            (None, None) => Ok(()),
        }
    }
}

/// A limit of which 0 is none.
fn limit(most: usize) -> String {
    if most == 0 { "any number".into() } else { most.to_string() }
}

fn print_step(step: &Step, console: &mut Console<'_>) -> Result<(), Trouble> {
    let word = step.state.painted(console.colour);
    writeln!(console.out, "{word} {:10} {}", step.name, step.text)?;
    for Read { place, answer } in &step.reads {
        let place = shown(place);
        match answer {
            Answer::Nothing => writeln!(console.out, "        read {place}: nothing")?,
            Answer::Text(value) => writeln!(console.out, "        read {place}: {}", shown(value))?,
            Answer::Failed(reason) => writeln!(console.out, "        read {place}: failed: {reason}")?,
            Answer::Fields(record) => {
                writeln!(console.out, "        read {place}: {}", key::count(record.len(), "field"))?;
                for (name, value) in print::fields(record) {
                    writeln!(console.out, "          {} = {}", shown(name), shown(&value))?;
                }
            }
        }
    }
    if let Some(advice) = &step.advice {
        writeln!(console.out, "        -> {advice}")?;
    }
    Ok(())
}

fn step_json(step: &Step) -> Value {
    let read = |Read { place, answer }: &Read| match answer {
        Answer::Nothing => json!({ "place": place, "value": null }),
        Answer::Text(value) => json!({ "place": place, "value": value }),
        Answer::Fields(record) => json!({ "place": place, "value": print::fields_json(record) }),
        Answer::Failed(reason) => json!({ "place": place, "failed": reason }),
    };
    json!({
        "step": step.name,
        "state": step.state.word(),
        "text": step.text,
        "advice": step.advice,
        "reads": step.reads.iter().map(read).collect::<Vec<_>>(),
    })
}
