//! Metrics, health and a page for people over HTTP, for who watches the router. Read-only.
//!
//! A few threads, each with one connection at a time and a time limit for it, hold no session up and cannot be made more: connections
//! beyond them wait with the kernel, which keeps no more than its queue. Whoever is not on this machine must show a token. What is counted is
//! `metrics`' business.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use sha2::{Digest as _, Sha256};

use crate::listeners::Listener;
use crate::metrics::CONTENT_TYPE;
use crate::registry::Registry;
use crate::secret::Secret;
use crate::session::World;
use crate::store;

mod request;
mod state;

use request::{Answer, Request};
use state::Throughput;

/// Connections that are answered at the same time.
const THREADS: usize = 4;

/// Stack of the thread that notes throughput, which asks nobody.
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

/// The listener while it runs.
pub struct Monitor {
    over: Arc<EventFd>,
}

/// What the threads share.
struct Desk {
    token: Option<Secret>,
    world: Arc<World>,
    registry: Arc<Registry>,
    throughput: Throughput,
    /// When the store was asked last, and whether it answered.
    store: Mutex<Option<(Instant, bool)>>,
}

impl Monitor {
    /// Starts the threads. An error is the lack of one.
    pub fn start(listener: &Arc<Listener>, world: &Arc<World>, registry: &Arc<Registry>) -> Result<Self, String> {
        let (world, registry, throughput) = (Arc::clone(world), Arc::clone(registry), Throughput::new(Instant::now()));
        let token = world.config.monitor.token.clone();
        let desk = Arc::new(Desk { token, world, registry, throughput, store: Mutex::new(None) });
        let over = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        let over = Arc::new(over.map_err(|error| format!("eventfd: {error}"))?);
        let noting = Arc::clone(&desk);
        let made = thread::Builder::new().name("throughput".into()).stack_size(STACK).spawn(move || {
            loop {
                thread::sleep(state::STEP);
                noting.throughput.note(noting.world.metrics.bytes(), Instant::now());
            }
        });
        made.map_err(|error| format!("no thread: {error}"))?;
        for number in 0..THREADS {
            let (desk, listener, over) = (Arc::clone(&desk), Arc::clone(listener), Arc::clone(&over));
            let run = move || desk.run(&listener, &over);
            let made = thread::Builder::new().name(format!("monitor-{number}")).stack_size(store::STACK).spawn(run);
            made.map_err(|error| format!("no thread: {error}"))?;
        }
        let (address, socket) = (listener.address, listener.origin.name());
        log::info!("metrics at http://{address}/metrics, a page at http://{address}/ socket={socket}");
        Ok(Self { over })
    }

    /// Takes no more requests and closes the socket, once those that were begun have their answers.
    pub fn stop(&self) {
        let _ = self.over.write(1);
    }
}

impl Desk {
    fn run(&self, listener: &Listener, over: &EventFd) {
        loop {
            let mut fds = [PollFd::new(over.as_fd(), PollFlags::POLLIN), PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut fds, PollTimeout::NONE);
            if fds[0].any().unwrap_or(false) {
                return;
            }
            match listener.accept() {
                Ok((stream, _)) => drop(self.serve(stream)),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted) => {}
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
        } else if self.world.store.stands_in() {
            Answer::text((200, "OK"), "by grace: the store does not answer, users seen lately are let in")
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
