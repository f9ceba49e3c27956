//! The story of one session, a line a stage. Read this first.
//!
//! Two threads: this one owns the client's side, the other one the side of the user's sshd. Each stage takes what the stage before
//! has given and cannot be had otherwise. Whatever happens, the session has one end line.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::admission::{Admission, Came, Permit, Refusal, blame, seconds};
use crate::audit::Audit;
use crate::config::Config;
use crate::downstream::{Accepted, Downstream, Judge, Refused, Terms};
use crate::error::{Fault, Side, Stage, shown};
use crate::event::{Kind, Subject, What};
use crate::explain::explain;
use crate::ffi::Bind;
use crate::identity::{Offered, Proven, UserName};
use crate::limits::Limits;
use crate::live::{Live, Way, Who};
use crate::login;
use crate::metrics::labels::{KeyReason, Step};
use crate::metrics::{Metrics, Seen, recent};
use crate::origin::{self, Ends};
use crate::relay::{Control, Half, Patience, halves, late};
use crate::route::{Host, Route};
use crate::store::{self, RouteStore};
use crate::survive::{self, Surviving};
use crate::upstream::{Credential, Distrust, Kept, Quarantine, Trust, Trusted, Upstream, Waiting, dial, host};
use crate::watch::{Teller, Watched};

/// Stack of a session's threads, which ask the store. libssh handles packets by recursion: with 4 KiB received at a time some hundred frames.
pub const STACK: usize = store::STACK;

/// How much later than the upstream's thread the client's one ends a login that takes too long: the former knows in which stage, and
/// the client is told. The latter is there for a libssh2 that does not come back.
const GRACE: Duration = Duration::from_millis(500);

/// What the store may take for all keys of a client without being a reason why the login is late.
const SLOW: Duration = Duration::from_secs(1);

/// What all sessions share.
pub struct World {
    /// The settings.
    pub config: Config,
    /// The routes.
    pub store: Box<dyn RouteStore>,
    /// Host keys and algorithms.
    pub bind: Bind,
    /// Text shown before login; read again at SIGHUP.
    pub banner: Mutex<Option<String>>,
    /// Connections to upstreams for the next session of the same user.
    pub kept: Kept,
    /// Who is told what happens.
    pub audit: Audit,
    /// How fast the users who are connected may transfer.
    pub limits: Arc<Limits>,
    /// Who may come in.
    pub admission: Arc<Admission>,
    /// Upstreams whose host key has changed.
    pub quarantine: Quarantine,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// A connection that has a permit.
pub struct Arrival {
    /// The accepted socket.
    pub stream: TcpStream,
    /// Its place.
    pub permit: Permit,
    /// What others see of it, and what ends it: its number, where it is from, its control.
    pub live: Arc<Live>,
}

/// What is known for the end line.
#[derive(Default)]
struct Told {
    user: Option<String>,
    teller: Option<Arc<Teller>>,
    came: Rc<Cell<Came>>,
    /// Where the client is, once a balancer has said so.
    ends: Option<Ends>,
    up: u64,
    down: u64,
}

/// Lives one session and writes its end line.
pub fn run(world: &Arc<World>, arrival: Arrival) {
    let started = Instant::now();
    let (id, socket, control) = (arrival.live.id(), arrival.live.peer(), Arc::clone(arrival.live.control()));
    let mut told = Told::default();
    let seen = Seen::new(&world.metrics);
    let outcome = catch_unwind(AssertUnwindSafe(|| story(world, arrival, (&mut told, &seen, started))));
    let fault = match outcome {
        Ok(Err(fault)) => control.reason().unwrap_or(fault),
        Ok(Ok(())) => control.reason().unwrap_or(Fault::new(Side::Router, Stage::Relay, "ended")),
        Err(_) => own_fault(),
    };
    seen.ended(&fault);
    let peer = told.ends.map_or(socket, |ends| ends.client);
    if !seen.is_open() {
        let (user, from) = (told.user.as_deref().unwrap_or_default(), peer.ip().to_string());
        let kind = if user.is_empty() { recent::Kind::Client } else { recent::Kind::Login };
        world.metrics.recent.refused(kind, (user, &from), &fault.what, Instant::now());
    }
    tell_fault(world, (id, peer), &fault, Came { late: fault.what == late(), ..told.came.get() });
    let user = told.user.map(|user| format!(" user=\"{}\"", shown(&user))).unwrap_or_default();
    log::info!(
        "end session={id}{user} peer={peer} side={} stage=\"{}\" reason=\"{}\" up={} down={} seconds={:.3}",
        fault.side,
        fault.stage,
        fault.what.replace('"', "'"),
        told.up,
        told.down,
        started.elapsed().as_secs_f64()
    );
    if let Some(teller) = told.teller {
        let Fault { side, stage, what, .. } = fault;
        let (up, down, time) = (told.up, told.down, started.elapsed());
        teller.send(What::End { side, stage, reason: what, up, down, time });
    }
}

fn story(world: &Arc<World>, arrival: Arrival, (told, seen, started): (&mut Told, &Arc<Seen>, Instant)) -> Result<(), Fault> {
    let Arrival { stream, mut permit, live } = arrival;
    let (id, peer, control) = (live.id(), live.peer(), Arc::clone(live.control()));
    let deadline = started + world.config.limits.login_timeout;
    let ends = arrive(&permit, (id, peer), &stream, (&control, deadline))?;
    told.ends = Some(ends);
    if ends.client != peer {
        live.located(ends.client);
        permit.locate(ends.client.ip(), Instant::now()).map_err(not_let_in)?;
    }
    let peer = ends.client;
    let max_offered = world.config.downstream.max_offered_keys;
    let (banner, refused) = (
        world.banner.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        tell_refused(world, (id, peer), Rc::clone(&told.came)),
    );
    let terms = Terms { session: id, banner, deadline, control: Arc::clone(&control), max_offered, refused };

    let accepted = Accepted::new(&world.bind, stream, terms, judge(Arc::clone(world), Rc::clone(&told.came)))?;
    let keyed = accepted.exchange()?;
    let (proven, mut downstream) = keyed.prove()?;
    let since = Instant::now();

    permit.proven();
    told.came.set(Came { proven: true, ..told.came.get() });
    seen.proven(proven.user().as_str());
    told.user = Some(proven.user().to_string());
    log_proven(id, &proven, &downstream);
    let subject = subject(id, &proven, peer, &downstream);
    live.proven(Who { user: subject.user.clone(), key: subject.key.clone(), software: subject.software.clone() });
    let teller = Arc::new(Teller::new(world.audit.clone(), subject, Arc::clone(seen)));
    told.teller = Some(Arc::clone(&teller));
    teller.send(What::Login {
        key_type: proven.key().kind().to_owned(),
        key_bits: proven.key().bits(),
        negotiated: downstream.negotiated(),
    });
    let route = find(world, &proven).and_then(|route| let_in(&mut permit, &proven, peer.ip(), route));
    let route = route.inspect_err(|fault| control.end(fault.clone()));
    if let Ok(route) = &route {
        live.found(Way::new(proven.user().clone(), proven.key().clone(), route.clone()));
    }

    let rates = route.as_ref().ok().map(|route| world.limits.of(proven.user(), route.speed));
    let (ours, theirs) = halves(&control);
    let limits = &world.config.limits;
    let patience = Patience { idle: limits.idle, stall: limits.stall, rekey: Some(limits.login_timeout) };
    let (ours, theirs) = (ours.patient(patience), theirs.patient(patience));
    let ours = ours.limited(rates.as_ref().map(|rates| Arc::clone(&rates.up)));
    let theirs = theirs.limited(rates.as_ref().map(|rates| Arc::clone(&rates.down)));
    let announces = |route: &Route| route.proxy_header.unwrap_or(world.config.upstream.proxy_header);
    let announce = Some(ends).filter(|_| route.as_ref().is_ok_and(announces));
    let waiting = Waiting { deadline, control: &control, announce };
    let watched = Watched::new(&live, route.as_ref().ok(), &teller);
    thread::scope(|scope| {
        let (user, route, watched, live) = (proven.user(), &route, &watched, &*live);
        let upstream = thread::Builder::new().name(format!("upstream-{id}")).stack_size(STACK).spawn_scoped(scope, move || {
            let done = Done { control: waiting.control, side: Side::Upstream };
            let route = match route {
                Ok(route) => route,
                Err(fault) => {
                    tell(watched, fault, (live, waiting), theirs);
                    return 0;
                }
            };
            let (bytes, upstream) = relay_upstream(world, (live, user), route, waiting, theirs, (watched, since, started));
            drop(done);
            if let Some(upstream) = upstream
                && waiting.announce.is_none()
            {
                world.kept.keep(user, route, upstream, waiting);
            }
            bytes
        });
        let upstream = upstream.map_err(|error| Fault::new(Side::Router, Stage::Dial, format!("no thread: {error}")))?;
        let opened = relay_downstream(watched, &mut downstream, route.is_ok(), waiting, ours, &mut told.down);
        // The client's socket is closed before the other thread is waited for: that may take as long as a name look-up.
        drop(downstream);
        told.up = upstream.join().unwrap_or_else(|_| {
            control.end(own_fault());
            0
        });
        opened
    })
}

/// Where the client is, by its connection or by its balancer's word.
fn arrive(
    permit: &Permit,
    (id, peer): (u64, SocketAddr),
    stream: &TcpStream,
    (control, deadline): (&Control, Instant),
) -> Result<Ends, Fault> {
    let itself = Ends { client: peer, reached: stream.local_addr().unwrap_or(peer) };
    if !permit.terms().balancers.contains(peer.ip()) {
        return Ok(itself);
    }
    let read = origin::read(stream, deadline, control);
    let ends = read.map_err(|reason| not_let_in(permit.refuse(Refusal::ProxyHeader(reason))))?;
    if let Some(Ends { client, .. }) = ends {
        log::info!("proxied session={id} peer={client} by={peer}");
    }
    Ok(ends.unwrap_or(itself))
}

/// Somebody is refused who has already a session, but nothing has been said to.
fn not_let_in(refusal: Refusal) -> Fault {
    Fault::new(Side::Downstream, Stage::Accept, refusal.to_string())
}

/// Whose key it is, by the store; every refusal is a line in the log.
fn judge(world: Arc<World>, came: Rc<Cell<Came>>) -> Judge {
    let mut asked = Duration::ZERO;
    Box::new(move |offered: &Offered| {
        let start = Instant::now();
        let verdict = login::judge(&*world.store, offered);
        asked += start.elapsed();
        came.set(Came { slow: asked > SLOW, ..came.get() });
        verdict
    })
}

fn key_reason(reason: &str) -> KeyReason {
    match reason {
        login::ANOTHER_USERS => KeyReason::AnotherUsers,
        login::NOBODYS => KeyReason::Unknown,
        _ => KeyReason::Unusable,
    }
}

/// Finds the route of a user who has proven a key.
fn find(world: &World, proven: &Proven) -> Result<Route, Fault> {
    login::find(&*world.store, proven.user(), &world.config.defaults)
}

/// Whether the user may come from there, and have one session more.
fn let_in(permit: &mut Permit, proven: &Proven, from: IpAddr, route: Route) -> Result<Route, Fault> {
    let refused = |refusal: Refusal| {
        let fault = Fault::new(Side::Router, Stage::Find, refusal.to_string());
        Fault { told: refusal.told(), ..fault }
    };
    login::comes_from(&route, from).map_err(|refusal| refused(permit.refuse(refusal)))?;
    permit.count_user(proven.user(), route.max_sessions).map_err(refused)?;
    Ok(route)
}

/// The client's side, from the proven key to the end.
fn relay_downstream(
    watched: &Watched<'_>,
    downstream: &mut Downstream,
    has_route: bool,
    waiting: Waiting<'_>,
    half: Half,
    bytes: &mut u64,
) -> Result<(), Fault> {
    let _done = Done { control: waiting.control, side: Side::Downstream };
    if let Err(fault) = downstream.open() {
        dismiss(downstream, waiting.control);
        waiting.control.cut(fault.clone());
        return Err(fault);
    }
    let login = || (!waiting.control.is_open() && has_route).then_some(waiting.deadline + GRACE);
    *bytes = half.run(downstream, &mut watched.requests(), &login);
    dismiss(downstream, waiting.control);
    downstream.part();
    if !waiting.control.is_open() {
        // Nobody is left to log in for.
        waiting.control.cut(Fault::new(Side::Downstream, Stage::Open, "the client left before the upstream was open"));
    }
    Ok(())
}

/// Tells a client that is cut off why.
fn dismiss(downstream: &mut Downstream, control: &Control) {
    if let Some(fault) = control.reason().filter(|_| control.is_cut()) {
        downstream.dismiss(&fault.said_to_user());
    }
}

/// The side of the user's sshd, from the route to the end; returns the bytes that it was given by `relay`, and what is left of the
/// connection.
fn relay_upstream(
    world: &World,
    (live, user): (&Live, &UserName),
    route: &Route,
    waiting: Waiting<'_>,
    half: Half,
    (watched, proven, accepted): (&Watched<'_>, Instant, Instant),
) -> (u64, Option<Upstream>) {
    let mut upstream = match open_upstream(world, (live, user), route, waiting) {
        Ok(upstream) => upstream,
        Err(fault) => {
            if fault.side == Side::Upstream {
                world.metrics.recent.upstream(&route.address(), Some(&fault.what), Instant::now());
            }
            waiting.control.end(fault.clone());
            tell(watched, &fault, (live, waiting), half);
            return (0, None);
        }
    };
    live.opened(route.address(), route.login.clone());
    if let Some(way) = live.way() {
        world.store.served(&login::asked(user, &way.key, &route.address()));
    }
    tell_opened(watched.teller(), route, &upstream);
    watched.teller().seen().opened(accepted.elapsed());
    world.metrics.recent.upstream(&route.address(), None, Instant::now());
    waiting.control.open();
    let mut replies = watched.replies(Some(proven));
    let Some(limit) = route.survive else {
        let bytes = half.run(upstream.leg(), &mut replies, &|| None);
        return (bytes, Some(upstream));
    };
    let redial = |waiting: Waiting<'_>| open_again(world, user, route, waiting);
    let terms = survive::Terms {
        session: live.id(),
        user: shown(user.as_str()),
        upstream: route.address(),
        limit,
        metrics: &world.metrics,
        waiting,
        redial: &redial,
    };
    (half.run(&mut Surviving::new(upstream, terms), &mut replies, &|| None), None)
}

/// Another connection to an upstream that was lost, by the same steps as at the login.
fn open_again(world: &World, user: &UserName, route: &Route, waiting: Waiting<'_>) -> Result<Upstream, Distrust> {
    let again = || {
        let host = host(world.store.as_ref(), route)?;
        let trust = Trust::find(route, &host, &world.config.upstream)?;
        open_new(world, user, (route, &host, &trust), waiting)
    };
    let opened = again();
    let failed = opened.as_ref().err().map(|distrust| distrust.fault.what.as_str());
    world.metrics.recent.upstream(&route.address(), failed, Instant::now());
    opened
}

/// Tells a user why there is no upstream, in the upstream's place.
fn tell(watched: &Watched<'_>, fault: &Fault, (live, waiting): (&Live, Waiting<'_>), half: Half) {
    if waiting.control.is_cut() {
        // The client is gone, or the router ends.
        return;
    }
    live.explains();
    let text = fault.said_to_user();
    let requests = explain(waiting.control, half, &mut watched.replies(None), &text);
    let (id, user) = watched.who();
    log::info!("told session={id} user=\"{user}\" requests={requests} text=\"{}\"", shown(&text));
}

fn open_upstream(
    world: &World,
    (live, user): (&Live, &UserName),
    route: &Route,
    waiting: Waiting<'_>,
) -> Result<Upstream, Fault> {
    let config = &world.config.upstream;
    let host = host(world.store.as_ref(), route)?;
    tell_grace(world, live, route);
    let trust = Trust::find(route, &host, config)?;

    let kept = if waiting.announce.is_some() { None } else { world.kept.open(user, route, &trust, config, waiting) };
    let again = if kept.is_some() { " kept=yes" } else { "" };
    let upstream = match kept {
        Some(upstream) => {
            world.metrics.reused();
            upstream
        }
        None => open_new(world, user, (route, &host, &trust), waiting).map_err(|distrust| distrust.fault)?,
    };

    let (address, login, cipher) = (route.address(), shown(&route.login), upstream.cipher());
    let host_key = format!("{} {}", upstream.host_key().kind(), upstream.host_key().fingerprint());
    let user = shown(user.as_str());
    log::info!(
        "open session={} user=\"{user}\" upstream={address} login=\"{login}\" host-key=\"{host_key}\" key=\"{}\" cipher={cipher}{again}",
        live.id(),
        upstream.key()
    );
    Ok(upstream)
}

/// Tells of a user who goes on although the store is away: each time.
fn tell_grace(world: &World, live: &Live, route: &Route) {
    let Some(way) = live.way() else { return };
    let Some(age) = world.store.lent(&login::asked(&way.user, &way.key, &route.address())) else { return };
    world.metrics.graced();
    log::warn!(
        "grace session={} user=\"{}\" key=\"{} {}\" seen={:.0}",
        live.id(),
        shown(way.user.as_str()),
        way.key.kind(),
        way.key.fingerprint(),
        age.as_secs_f64()
    );
}

/// A channel on a new connection, and how long each step took.
fn open_new(
    world: &World,
    user: &UserName,
    (route, host, trust): (&Route, &Host, &Trust),
    waiting: Waiting<'_>,
) -> Result<Upstream, Distrust> {
    let trusted = trusted(world, user, (route, trust), waiting)?;
    let started = Instant::now();
    let credential = Credential::find(route, host, &world.config.upstream);
    let credential = credential.map_err(|what| Fault::new(Side::Upstream, Stage::LogIn, what))?;
    let logged_in = trusted.log_in(route, &credential.sources)?;
    world.metrics.step(Step::LogIn, started.elapsed());
    let started = Instant::now();
    let upstream = logged_in.open()?;
    world.metrics.step(Step::Open, started.elapsed());
    Ok(upstream)
}

/// A connection to the upstream whose host key is approved. One that shows another key is quarantined, until it shows the approved one.
fn trusted<'a>(
    world: &'a World,
    user: &UserName,
    (route, trust): (&Route, &Trust),
    waiting: Waiting<'a>,
) -> Result<Trusted<'a>, Distrust> {
    let (store, address) = (world.store.as_ref(), route.address());
    let started = Instant::now();
    let dialed = dial(&route.remote, route.port, &world.config.upstream, waiting)?;
    world.metrics.step(Step::Dial, started.elapsed());
    let started = Instant::now();
    match dialed.trust(trust) {
        Ok(trusted) => {
            world.metrics.step(Step::Trust, started.elapsed());
            world.quarantine.end(store, &address, (trusted.host_key(), user.as_str()), trust);
            Ok(trusted)
        }
        Err(distrust) => {
            if let Some(key) = &distrust.changed {
                world.quarantine.begin(store, &address, (key, user.as_str()), trust);
            }
            Err(distrust)
        }
    }
}

/// Counts a fault of the client, if the end of its session proves one; the line is what fail2ban reads.
fn tell_fault(world: &World, (id, peer): (u64, SocketAddr), fault: &Fault, came: Came) {
    let balancer = world.admission.terms().balancers.contains(peer.ip());
    let Some(class) = blame(fault, came).filter(|_| !balancer) else { return };
    world.metrics.fault(class);
    let sentence = world.admission.penalise(peer.ip(), class, Instant::now());
    let owed = sentence.map_or(0, |sentence| seconds(sentence.owed));
    let refused = if sentence.is_some_and(|sentence| sentence.refused) { "yes" } else { "no" };
    log::info!("fault session={id} peer={peer} class={} keys={} owed={owed} refused={refused}", class.name(), came.refused);
}

/// Tells the audit of keys that are refused, and counts them.
fn tell_refused(world: &Arc<World>, (id, peer): (u64, SocketAddr), came: Rc<Cell<Came>>) -> Box<dyn FnMut(Refused)> {
    let (audit, metrics) = (world.audit.clone(), Arc::clone(&world.metrics));
    Box::new(move |Refused { user, key, software, reason }| {
        metrics.key_refused(key_reason(&reason));
        let from = peer.ip().to_string();
        metrics.recent.refused(recent::Kind::Key, (&user, &from), &shown(&reason), Instant::now());
        came.set(Came { refused: came.get().refused + 1, ..came.get() });
        if audit.wants(Kind::Refused) {
            let subject = Subject { session: id, user, client: peer, key, software, upstream: None };
            audit.send(Some(&Arc::new(subject)), What::Refused { reason });
        }
    })
}

/// Whose session it is, for the audit.
fn subject(id: u64, proven: &Proven, peer: SocketAddr, downstream: &Downstream) -> Subject {
    Subject {
        session: id,
        user: proven.user().to_string(),
        client: peer,
        key: proven.key().fingerprint().to_string(),
        software: downstream.client_version(),
        upstream: None,
    }
}

fn tell_opened(teller: &Teller, route: &Route, upstream: &Upstream) {
    let host_key = format!("{} {}", upstream.host_key().kind(), upstream.host_key().fingerprint());
    teller.opened(route.address(), route.login.clone(), host_key);
}

fn log_proven(id: u64, proven: &Proven, downstream: &Downstream) {
    log::info!(
        "proven session={id} user=\"{}\" key=\"{} {}\" client=\"{}\" cipher={}",
        shown(proven.user().as_str()),
        proven.key().kind(),
        proven.key().fingerprint(),
        shown(&downstream.client_version()),
        downstream.ciphers().0
    );
}

/// A panic of ours; the log has it in the lines before.
fn own_fault() -> Fault {
    Fault::new(Side::Router, Stage::Relay, "a fault of the router itself; please report the lines above")
}

/// Marks a side as done on every path, a panic included.
struct Done<'a> {
    control: &'a Control,
    side: Side,
}

impl Drop for Done<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.control.cut(own_fault());
        }
        self.control.done(self.side);
    }
}
