//! `explain`: what a user's login would meet, step by step, with everything that is read on the way. Nobody logs in and no upstream is
//! asked: that is `doctor`'s.
//!
//! The steps are a login's own functions ([`login`], [`Trust::find`], [`Credential::find`]) in a login's order, over a store that notes what it is asked.
//! Private keys are read, because a login reads them, and only their public halves are shown.

use std::net::IpAddr;
use std::time::Instant;

use clap::{Arg, ArgMatches, Command};
use serde_json::{Value, json};

use super::print::{Judged, State};
use super::{Console, Context, Trouble, json_option, key, key_lines, print, refused, text};
use crate::admission::{Admission, Refusal};
use crate::downstream::Verdict;
use crate::error::{Fault, Side, shown};
use crate::identity::{Fingerprint, Offered, PublicKey, UserName};
use crate::login;
use crate::policy;
use crate::route::{Host, Pin, Record, Route};
use crate::store::noted::{Answer, Noted, Read};
use crate::store::{RouteStore as _, Shelf, StoredKey};
use crate::upstream::{self, Basis, Credential, Note, Trust};

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

    /// The keys that a client offers.
    fn offered(&mut self, keys: Vec<PublicKey>) {
        let most = self.context.config.downstream.max_offered_keys as usize;
        let mut let_in = false;
        for (number, key) in keys.iter().enumerate() {
            if number == most {
                let text = format!("the client is disconnected after {most} keys (SFTPPROXY_MAX_OFFERED_KEYS)");
                return self.step("key", State::Bad, text, Some("offer the right one first".into()));
            }
            // The first that fits wins.
            let_in = let_in || self.judge(key);
        }
    }

    /// Every key that the store has of the user.
    fn stored(&mut self) {
        let stored = match self.keys() {
            Some(stored) => stored,
            None => return,
        };
        let theirs: Vec<_> = stored.into_iter().filter(|entry| entry.user == self.user.as_str()).collect();
        if theirs.is_empty() {
            let user = shown(self.user.as_str());
            let text = format!("the store has no key of user \"{user}\"");
            return self.step("key", State::Bad, text, Some(format!("sftpproxy key add {user} FILE")));
        }
        for entry in &theirs {
            let judged = Judged::new(entry, &|_| true);
            match (&judged.dead, &judged.key) {
                (None, Some(key)) => drop(self.judge(key)),
                (reason, _) => {
                    let reason = reason.as_deref().unwrap_or_default();
                    let [kind, print, _] = &judged.row()[..] else { continue };
                    let text = format!("dead entry {kind} {print}: {reason}");
                    self.step("key", State::Bad, text, Some(self.replace(&judged)));
                }
            }
        }
        // One that fits is enough: the others are what else there is.
        if self.steps.iter().any(|step| step.name == "key" && step.state == State::Good) {
            self.steps
                .iter_mut()
                .filter(|step| step.name == "key" && step.state == State::Bad)
                .for_each(|step| step.state = State::Note);
        }
    }

    /// A key of which only the fingerprint is known: logins are not asked by that, so the store's list is searched.
    fn fingerprint(&mut self, print: &Fingerprint) {
        let Some(stored) = self.keys() else { return };
        let key = |entry: &StoredKey| Judged::new(entry, &|_| true).key.filter(|key| key.fingerprint() == *print);
        match stored.iter().find_map(key) {
            Some(key) => drop(self.judge(&key)),
            None => {
                let text = format!("nobody has a key with the fingerprint {print}");
                let advice = format!("sftpproxy key add {} FILE", shown(self.user.as_str()));
                self.step("key", State::Bad, text, Some(advice));
            }
        }
    }

    fn keys(&mut self) -> Option<Vec<StoredKey>> {
        match self.store.keys() {
            Ok(keys) => Some(keys),
            Err(error) => {
                self.step("key", State::Unknown, error.0, Some("logins are refused until the store answers".into()));
                None
            }
        }
    }

    /// Asks what a login asks of one key. `true` = the user would be let in with it.
    fn judge(&mut self, key: &PublicKey) -> bool {
        let name = format!("{} {}", key.kind(), key.fingerprint());
        if let Err(reason) = login::accepts(key, &self.context.config.downstream) {
            self.step("key", State::Bad, format!("{name}: {reason}"), Some("make an ed25519 key: ssh-keygen -t ed25519".into()));
            return false;
        }
        let offered = Offered { user: self.user.clone(), key: key.clone() };
        let user = shown(self.user.as_str());
        match login::judge(&self.store, &offered) {
            Verdict::Theirs => {
                self.step("key", State::Good, format!("{name} is {user}'s, if the client proves it"), None);
                return true;
            }
            Verdict::Unknown(reason) => {
                let advice = "the session ends; logins are refused until the store answers";
                self.step("key", State::Unknown, format!("{name}: {reason}"), Some(advice.into()));
            }
            Verdict::Refused(reason) => {
                let advice = self.refused_key(key);
                self.step("key", State::Bad, format!("{name}: {reason}"), Some(advice));
            }
        }
        false
    }

    /// What to do about a key that is not the user's.
    fn refused_key(&self, key: &PublicKey) -> String {
        let (user, print) = (shown(self.user.as_str()), key.fingerprint());
        let stored = self.store.keys().unwrap_or_default();
        let mut judged =
            stored.iter().map(|entry| Judged::new(entry, &|_| true)).filter(|judged| judged.key.as_ref() == Some(key));
        match judged.next() {
            Some(judged) if judged.dead.is_some() => self.replace(&judged),
            Some(judged) => {
                let owner = shown(&judged.stored.user);
                format!("log in as {owner}, or: sftpproxy key remove {owner} {print}, then: sftpproxy key add {user} FILE")
            }
            None => format!("sftpproxy key add {user} FILE"),
        }
    }

    fn replace(&self, judged: &Judged<'_>) -> String {
        let owner = shown(&judged.stored.user);
        let what = judged.key.as_ref().map_or_else(|| "BASE64".to_owned(), |key| key.fingerprint().to_string());
        format!("sftpproxy key remove {owner} {what}, then: sftpproxy key add {} FILE", shown(self.user.as_str()))
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
            _ if failed => (State::Unknown, Some("logins are refused until the store answers".to_owned())),
            Side::Router if everybody => (State::Bad, Some("sftpproxy maintenance off".to_owned())),
            Side::Router => (State::Bad, Some(format!("sftpproxy maintenance off --user {user}"))),
            _ if fault.what.starts_with("bad record") => {
                (State::Bad, Some(format!("correct what is named: sftpproxy user add {user} --update --FIELD VALUE")))
            }
            _ => (State::Bad, None),
        };
        self.steps.push(Step { name: "route", state, text: fault.what, reads, advice });
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
        let text = format!(
            "upload: {}, download: {}, sessions at the same time: {}",
            speed(route.speed.up),
            speed(route.speed.down),
            limit(sessions)
        );
        self.step("limits", State::Note, text, None);
    }

    /// The upstream's entry in the store: pins and a key for all its users.
    fn host(&mut self, route: &Route) -> Option<Host> {
        upstream::host(&self.store, route).map_err(|fault| self.no_host(route, fault)).ok()
    }

    fn host_key(&mut self, route: &Route, host: &Host) {
        let trust = match Trust::find(route, host, self.context.upstream) {
            Ok(trust) => trust,
            Err(fault) => {
                return self.step("host key", State::Bad, fault.what, Some("let the router's account read the file".into()));
            }
        };
        let address = route.address();
        if trust.pins.is_empty() {
            let text = format!("none is approved: no pin in the record or of {address}, and not in {}", trust.basis);
            let advice = format!("sftpproxy host-key scan {address}, compare, then: sftpproxy host-key approve {address}");
            return self.step("host key", State::Bad, text, Some(advice));
        }
        let pins: Vec<_> = trust.pins.iter().map(Pin::shown).collect();
        let basis = match &trust.basis {
            Basis::Record => "the record (hostkey)".to_owned(),
            Basis::Host => format!("the entry of {address}"),
            Basis::KnownHosts(file) => file.clone(),
        };
        self.step("host key", State::Good, format!("must be {}, by {basis}", pins.join(" or ")), None);
        self.quarantine(&address);
    }

    /// What the upstream has shown to somebody else in the place of an approved key; each login is judged by what it is shown.
    fn quarantine(&mut self, address: &str) {
        if let Ok(entry) = self.store.entry(Shelf::Quarantine, address)
            && let Some(note) = Note::parse(&entry)
        {
            let text = format!("since {} {address} shows another key than the approved one: {:?}", shown(&note.since), note.key);
            self.step("quarantine", State::Warning, text, Some(format!("compare, then: sftpproxy host-key approve {address}")));
        } else {
            self.store.take();
        }
    }

    fn no_host(&mut self, route: &Route, fault: Fault) {
        let reads = self.store.take();
        let failed = reads.iter().any(|read| matches!(read.answer, Answer::Failed(_)));
        let (state, advice) = match failed {
            true => (State::Unknown, "logins are refused until the store answers".to_owned()),
            false => (State::Bad, format!("correct it: sftpproxy host-key approve {}", route.address())),
        };
        self.steps.push(Step { name: "host key", state, text: fault.what, reads, advice: Some(advice) });
    }

    fn credential(&mut self, route: &Route, host: &Host) {
        let config = self.context.upstream;
        let credential = match Credential::find(route, host, config) {
            Ok(credential) => credential,
            Err(reason) => return self.step("credential", State::Bad, reason, None),
        };
        let mut found = Vec::new();
        for source in &credential.sources {
            match source.usable(config) {
                Ok(lines) if lines.is_empty() => found.push((false, format!("{source}: holds no keys"))),
                Ok(lines) => {
                    let name = |line: &String| PublicKey::from_line(line).map(|(key, _)| format!("{key:?}")).unwrap_or_default();
                    let names: Vec<_> = lines.iter().map(name).collect();
                    found.push((true, format!("{source}: {}, by the {}", names.join(", "), credential.chosen)));
                }
                Err(reason) => found.push((false, format!("{source}: {reason}"))),
            }
        }
        // They are tried one after the other; one that works is enough.
        let any = found.iter().any(|(good, _)| *good);
        for (good, text) in found {
            let state = match (good, any) {
                (true, _) => State::Good,
                (false, true) => State::Note,
                (false, false) => State::Bad,
            };
            let advice =
                (state == State::Bad).then(|| "a private key without passphrase, mode 0600, of the router's account".into());
            self.step("credential", state, text, advice);
        }
    }

    fn upstream(&mut self, route: &Route) {
        let text = format!("{} was not asked", route.address());
        self.step("upstream", State::Note, text, Some(format!("sftpproxy doctor {} asks it", shown(self.user.as_str()))));
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
