//! One route from end to end: name, TCP, key exchange, host key, login, SFTP, start directory, and on request a file that is made and
//! removed. The stages are a session's own ([`upstream`]), within one time limit.

use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::admin::print::State;
use crate::config;
use crate::error::{Fault, shown, shown_bytes};
use crate::identity::{Negotiated, PublicKey};
use crate::origin::Ends;
use crate::policy::Act;
use crate::relay::Control;
use crate::route::Route;
use crate::sftp::attributes::Attributes;
use crate::sftp::reply::PERMISSION_DENIED;
use crate::sftp::request::Request;
use crate::sftp::{Kind, OpenFlags, kind};
use crate::store::RouteStore;
use crate::stream::view::View;
use crate::upstream::{self, Asking, Credential, Greeting, Trust, Waiting};
use crate::wire::{put_string, put_u32};

/// What the file of the write probe holds.
const CONTENT: &[u8] = b"sftpproxy doctor --write made this file and removes it\n";

/// Whom an upstream that wants a PROXY header is told of: nobody but this machine asks.
const ITSELF: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 22);

/// How routes are examined.
pub struct Terms<'a> {
    /// Where pins of upstreams are.
    pub store: &'a dyn RouteStore,
    /// Towards upstreams.
    pub config: &'a config::Upstream,
    /// How long one route may take altogether.
    pub limit: Duration,
    /// Whether a file is made and removed.
    pub write: bool,
}

/// A stage.
pub struct Step {
    /// Its name.
    pub name: &'static str,
    /// How it stands.
    pub state: State,
    /// One line.
    pub text: String,
    /// How long it took.
    pub time: Duration,
}

/// What was found.
#[derive(Default)]
pub struct Found {
    /// The stages as far as they went.
    pub steps: Vec<Step>,
    /// What the key exchange has agreed on.
    pub negotiated: Option<Negotiated>,
    /// The host key that was shown.
    pub host_key: Option<PublicKey>,
    /// What the server says of itself.
    pub greeting: Option<Greeting>,
    /// The start directory, as the upstream calls it.
    pub start: Option<String>,
}

/// The stage that failed was told already.
struct Stop;

impl Found {
    /// What was found of a record that is no route.
    pub fn no_route(reason: String) -> Self {
        let mut found = Self::default();
        found.note("record", State::Bad, reason, Duration::ZERO);
        found
    }

    /// How it stands altogether.
    pub fn state(&self) -> State {
        let any = |state| self.steps.iter().any(|step| step.state == state);
        [State::Bad, State::Warning].into_iter().find(|&state| any(state)).unwrap_or(State::Good)
    }

    /// The first stage that is not as it should be.
    pub fn fault(&self) -> Option<&Step> {
        let state = self.state();
        self.steps.iter().find(|step| step.state == state && state != State::Good)
    }

    /// Whether the address itself is what fails: its other users would meet the same.
    pub fn is_of_the_address(&self) -> bool {
        self.fault().is_some_and(|step| step.state == State::Bad && ["resolve", "connect", "key exchange"].contains(&step.name))
    }

    /// All of it for programs.
    pub fn json(&self) -> Value {
        let step = |step: &Step| json!({ "step": step.name, "state": step.state.word(), "text": step.text, "seconds": seconds(step.time) });
        let negotiated = |it: &Negotiated| json!({ "kex": it.kex, "cipher": it.cipher, "mac": it.mac });
        let host_key = |key: &PublicKey| json!({ "type": key.kind(), "fingerprint": key.fingerprint().to_string() });
        json!({
            "state": self.state().word(),
            "seconds": seconds(self.time()),
            "steps": self.steps.iter().map(step).collect::<Vec<_>>(),
            "negotiated": self.negotiated.as_ref().map(negotiated),
            "host_key": self.host_key.as_ref().map(host_key),
            "sftp_version": self.greeting.as_ref().map(|greeting| greeting.version),
            "extensions": self.greeting.as_ref().map(|greeting| greeting.extensions.clone()),
            "start": self.start,
        })
    }

    /// How long it took.
    pub fn time(&self) -> Duration {
        self.steps.iter().map(|step| step.time).sum()
    }

    fn note(&mut self, name: &'static str, state: State, text: String, time: Duration) {
        self.steps.push(Step { name, state, text, time });
    }

    /// Goes through a stage; `said` says what came of it.
    fn stage<T, E: ToString>(
        &mut self,
        name: &'static str,
        stage: impl FnOnce() -> Result<T, E>,
        said: impl FnOnce(&T) -> String,
    ) -> Result<T, Stop> {
        let started = Instant::now();
        let outcome = stage();
        let time = started.elapsed();
        match outcome {
            Ok(value) => {
                self.note(name, State::Good, said(&value), time);
                Ok(value)
            }
            Err(error) => {
                self.note(name, State::Bad, error.to_string(), time);
                Err(Stop)
            }
        }
    }
}

/// Milliseconds are enough.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}

/// Examines a route.
pub fn examine(route: &Route, terms: &Terms<'_>) -> Found {
    let mut found = Found::default();
    let control = match Control::new() {
        Ok(control) => control,
        Err(reason) => return Found::no_route(reason),
    };
    let announces = route.proxy_header.unwrap_or(terms.config.proxy_header);
    let announce = announces.then_some(Ends { client: ITSELF, reached: ITSELF });
    let waiting = Waiting { deadline: Instant::now() + terms.limit, control: &control, announce };
    if let Ok(mut asking) = reach(route, terms, waiting, &mut found) {
        let _ = ask(route, terms, &mut asking, &mut found);
    }
    found
}

/// From the name to the channel that speaks SFTP.
fn reach<'a>(route: &Route, terms: &'a Terms<'_>, waiting: Waiting<'a>, found: &mut Found) -> Result<Asking<'a>, Stop> {
    let fault = |fault: Fault| fault.what;
    let resolve = || resolve(&route.remote, route.port, terms.limit.min(terms.config.connect_timeout));
    let addresses = found.stage("resolve", resolve, |addresses| names(addresses))?;
    let dial = || upstream::connect(&addresses, terms.config, waiting).map_err(fault);
    let dialed = found.stage("connect", dial, |_| "TCP connection accepted".to_owned())?;
    let find = || {
        let host = upstream::host(terms.store, route)?;
        Trust::find(route, &host, terms.config).map(|trust| (host, trust))
    };
    let (host, trust) = found.stage(
        "approved keys",
        || find().map_err(fault),
        |(_, trust)| format!("{} by {}", trust.pins.len(), trust.basis),
    )?;
    let started = Instant::now();
    let trusted = dialed.trust(&trust);
    let (time, exchanged) = (
        started.elapsed(),
        match &trusted {
            Ok(trusted) => Some((trusted.host_key().clone(), trusted.negotiated())),
            Err(distrust) => distrust.shown.as_deref().cloned(),
        },
    );
    let Some((host_key, negotiated)) = exchanged else {
        // The stage's name is said by the table.
        let what = trusted.err().map(|distrust| distrust.fault.what).unwrap_or_default();
        found.note("key exchange", State::Bad, what.trim_start_matches("key exchange: ").to_owned(), time);
        return Err(Stop);
    };
    let Negotiated { kex, cipher, mac } = &negotiated;
    found.note("key exchange", State::Good, format!("{kex}, {cipher}, {mac}"), time);
    if !negotiated.is_post_quantum() {
        found.note("algorithms", State::Note, format!("{kex} is not safe from a later quantum computer"), Duration::ZERO);
    }
    found.negotiated = Some(negotiated);
    found.host_key = Some(host_key.clone());
    let approve = || trusted.map_err(|distrust| distrust.fault.what);
    let trusted = found.stage("host key", approve, |trusted| format!("{:?} is approved", trusted.host_key()))?;
    let credential = || Credential::find(route, &host, terms.config);
    let credential = found.stage("credential", credential, |credential| names(&credential.sources))?;
    let logged_in = found.stage(
        "log in",
        || trusted.log_in(route, &credential.sources).map_err(fault),
        |_| format!("as {}", shown(&route.login)),
    )?;
    let opened =
        found.stage("open", || logged_in.open().map_err(fault), |upstream| format!("subsystem sftp; with {}", upstream.key()))?;
    Ok(opened.ask(waiting))
}

/// What the server says, where the user starts, and whether something can be written there.
fn ask(route: &Route, terms: &Terms<'_>, asking: &mut Asking<'_>, found: &mut Found) -> Result<(), Stop> {
    let no = |no: upstream::No| no.text;
    let greeting = found.stage(
        "sftp",
        || asking.begin().map_err(no),
        |greeting| format!("version {}, {} extensions", greeting.version, greeting.extensions.len()),
    )?;
    found.greeting = Some(greeting);
    let begin = start_of(route);
    let called = shown_bytes(&begin);
    let real = || asking.real_path(&begin).map_err(|no| format!("{called}: {}", no.text));
    let start = found.stage("start", real, |path| shown_bytes(path))?;
    found.start = Some(shown_bytes(&start));
    let started = Instant::now();
    match asking.look_into(&begin) {
        Ok(()) => {}
        Err(no) if no.code == Some(PERMISSION_DENIED) => {
            found.note("list", State::Warning, format!("{called} cannot be listed: {}", no.text), started.elapsed());
        }
        Err(no) => {
            found.note("list", State::Bad, format!("{called} is no directory to start in: {}", no.text), started.elapsed());
            return Err(Stop);
        }
    }
    if terms.write { write(route, &start, asking, found) } else { Ok(()) }
}

/// Makes a file that nobody else has and removes it, unless the user could not.
fn write(route: &Route, start: &[u8], asking: &mut Asking<'_>, found: &mut Found) -> Result<(), Stop> {
    let name = format!(".sftpproxy-doctor-{:016x}", RandomState::new().hash_one(std::process::id()));
    if let Some(reason) = forbidden(route, &name) {
        found.note("write", State::Note, format!("not tried: {reason}"), Duration::ZERO);
        return Ok(());
    }
    let path = [start.strip_suffix(b"/").unwrap_or(start), b"/", name.as_bytes()].concat();
    let shown = shown_bytes(&path);
    found.stage(
        "write",
        || asking.make_file(&path, CONTENT).map_err(|no| format!("{shown}: {}", no.text)),
        |()| format!("{} bytes into {shown}", CONTENT.len()),
    )?;
    found.stage(
        "remove",
        || asking.remove(&path).map_err(|no| format!("{shown} is left behind: {}", no.text)),
        |()| shown.clone(),
    )
}

/// Why the user's policy does not let such a file be made.
fn forbidden(route: &Route, name: &str) -> Option<String> {
    let policy = route.policy.as_ref()?;
    let path = crate::path::normal(
        crate::path::normal(b"/", route.home.as_deref().unwrap_or("/").as_bytes()).as_slice(),
        name.as_bytes(),
    );
    let flags = Some(OpenFlags(OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::EXCLUSIVE));
    let act = Act { kind: kind_named("open")?, path: &path, second: None, flags, attributes: Attributes::default() };
    policy.judge(&act).err().map(|refusal| refusal.text.into_owned())
}

fn kind_named(name: &str) -> Option<&'static Kind> {
    crate::sftp::KINDS.iter().find(|kind| kind.name == name)
}

/// Where the user starts, as a session would ask the upstream for it.
fn start_of(route: &Route) -> Vec<u8> {
    const REALPATH: u8 = 16;
    let mut body = vec![REALPATH];
    put_u32(&mut body, 1);
    put_string(&mut body, b".");
    let request = kind(REALPATH).and_then(|kind| Request::read(kind, &body).ok());
    let view = View::new(route.home.as_deref(), route.policy.as_deref());
    let place = request.and_then(|request| view.places(&request).ok()?.0.map(|place| place.sent.into_owned()));
    place.unwrap_or_else(|| b".".to_vec())
}

/// The addresses of a host within a limit. The system's resolver cannot be interrupted: its thread ends when it does.
fn resolve(host: &str, port: u16, limit: Duration) -> Result<Vec<SocketAddr>, String> {
    let (sender, receiver) = mpsc::channel();
    let name = host.to_owned();
    let run = move || drop(sender.send(upstream::resolve(&name, port)));
    thread::Builder::new().name("resolve".into()).spawn(run).map_err(|error| format!("no thread: {error}"))?;
    match receiver.recv_timeout(limit) {
        Ok(addresses) => addresses.map_err(|fault| fault.what),
        Err(_) => Err(format!("the name \"{}\" was not resolved within {} s", shown(host), limit.as_secs_f32())),
    }
}

fn names<T: ToString>(all: &[T]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
