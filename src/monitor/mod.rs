//! Metrics, health and a page for people over HTTP, for who watches the router. Read-only.
//!
//! A few threads, each with one connection at a time and a time limit for it, hold no session up and cannot be made more: connections
//! beyond them wait with the kernel, which keeps no more than its queue. Whoever is not on this machine must show a token. What is counted is
//! `metrics`' business.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use crate::config::monitor as config;
use crate::metrics::CONTENT_TYPE;
use crate::registry::Registry;
use crate::secret::Secret;
use crate::session::World;

mod request;
mod state;

use request::{Answer, Request};
use state::Throughput;

/// Connections that are answered at the same time.
const THREADS: usize = 4;

/// Stack of a thread: a request's head and little else.
const STACK: usize = 256 * 1024;

/// How long a request and its answer may take together. Nobody needs more who asks for a page of some 100 KiB.
const LIMIT: Duration = Duration::from_secs(5);

/// How long a store's answer is good for: probes of many watchers ask it no more often.
const FRESH: Duration = Duration::from_secs(1);

/// How long a thread waits after accept(2) failed, for want of descriptors most likely.
const PAUSE: Duration = Duration::from_millis(200);

/// The page, whole: nothing else is asked for, neither here nor elsewhere.
const PAGE: [(&str, &str, &str); 4] = [
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/page.css", "text/css; charset=utf-8", include_str!("page/page.css")),
    ("/page.js", "text/javascript; charset=utf-8", include_str!("page/page.js")),
    ("/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
];

/// Where it listens, and for whom.
pub struct Monitor {
    listener: TcpListener,
    token: Option<Secret>,
}

/// What the threads share.
struct Desk {
    listener: TcpListener,
    token: Option<Secret>,
    world: Arc<World>,
    registry: Arc<Registry>,
    throughput: Throughput,
    /// When the store was asked last, and whether it answered.
    store: Mutex<Option<(Instant, bool)>>,
}

impl Monitor {
    /// Binds the configured address; `None` = there is none.
    pub fn bind(config: &config::Monitor) -> Result<Option<Self>, String> {
        let Some(address) = config.address else { return Ok(None) };
        let listener = TcpListener::bind(address).map_err(|error| format!("SFTPPROXY_METRICS_ADDRESS = {address}: {error}"))?;
        Ok(Some(Self { listener, token: config.token.clone() }))
    }

    /// Starts the threads, which serve until the program ends. An error is the lack of a thread.
    pub fn start(self, world: &Arc<World>, registry: &Arc<Registry>) -> Result<(), String> {
        let Self { listener, token } = self;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let (world, registry, throughput) = (Arc::clone(world), Arc::clone(registry), Throughput::new(Instant::now()));
        let desk = Arc::new(Desk { listener, token, world, registry, throughput, store: Mutex::new(None) });
        let noting = Arc::clone(&desk);
        let made = thread::Builder::new().name("throughput".into()).stack_size(STACK).spawn(move || {
            loop {
                thread::sleep(state::STEP);
                noting.throughput.note(noting.world.metrics.bytes(), Instant::now());
            }
        });
        made.map_err(|error| format!("no thread: {error}"))?;
        for number in 0..THREADS {
            let desk = Arc::clone(&desk);
            let made = thread::Builder::new().name(format!("monitor-{number}")).stack_size(STACK).spawn(move || desk.run());
            made.map_err(|error| format!("no thread: {error}"))?;
        }
        log::info!("metrics at http://{address}/metrics, a page at http://{address}/");
        Ok(())
    }
}

impl Desk {
    fn run(&self) {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => drop(self.serve(stream)),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(_) => thread::sleep(PAUSE),
            }
        }
    }

    /// One connection, within the limit.
    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        let deadline = Instant::now() + LIMIT;
        let Some(request) = request::read(&mut stream, deadline) else { return Ok(()) };
        let (answer, head_only) = match request {
            Ok(request) => (self.answer(&request), request.head_only),
            Err(answer) => (answer, false),
        };
        request::write(&mut stream, &answer, head_only, deadline)
    }

    fn answer(&self, request: &Request) -> Answer {
        match request.path.as_str() {
            // Nothing is told that who can connect does not see anyway.
            "/healthz" => return Answer::text((200, "OK"), "alive"),
            "/readyz" => return self.ready(),
            _ => {}
        }
        if let Some(refusal) = self.refuse(request) {
            return refusal;
        }
        match request.path.as_str() {
            "/metrics" => {
                Answer::ok(CONTENT_TYPE, self.world.metrics.text(&self.world.admission.figures(), self.world.quarantine.count()))
            }
            "/state.json" => {
                let state = state::json(&self.world, &self.registry, &self.throughput, self.store_answers());
                Answer::ok("application/json", state)
            }
            path => match PAGE.iter().find(|(known, ..)| *known == path) {
                Some((_, kind, text)) => Answer::ok(kind, *text),
                None => Answer::text((404, "Not Found"), "there are /, /metrics, /healthz and /readyz"),
            },
        }
    }

    /// Why the request is not for this client, if it is not.
    fn refuse(&self, request: &Request) -> Option<Answer> {
        let Some(token) = &self.token else {
            let text = "without a token only an address or localhost is answered as the name of this machine";
            return (!request::is_local(&request.host)).then(|| Answer::text((403, "Forbidden"), text));
        };
        // Digests, whose comparison tells nothing by the time it takes.
        let shown = request.token.as_ref().map(Sha256::digest);
        let good = shown.is_some_and(|shown| shown == Sha256::digest(token.expose()));
        (!good).then(|| Answer::text((401, "Unauthorized"), "show the token: as a bearer, or as the password of any user"))
    }

    fn ready(&self) -> Answer {
        if self.world.metrics.is_draining() {
            return Answer::text((503, "Service Unavailable"), "draining");
        }
        if self.store_answers() {
            Answer::text((200, "OK"), "ready")
        } else {
            Answer::text((503, "Service Unavailable"), "the store does not answer")
        }
    }

    /// Whether the store answers, asked now or a moment ago.
    fn store_answers(&self) -> bool {
        let mut asked = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, answered)) = *asked
            && at.elapsed() < FRESH
        {
            return answered;
        }
        let answered = self.world.store.check().is_ok();
        *asked = Some((Instant::now(), answered));
        answered
    }
}
