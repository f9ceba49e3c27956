//! Listens, gives each connection a permit and then a thread, and ends them all when told to.
//!
//! The accept thread never waits for a client. It sleeps in poll(2) on the listeners and on an eventfd that a signal writes.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::admission::Refusal;
use crate::error::{Fault, Side, Stage};
use crate::ffi;
use crate::leg::tune;
use crate::listeners::Listener;
use crate::live::Live;
use crate::metrics::recent;
use crate::order::AtomicU32;
use crate::registry::Registry;
use crate::relay::Control;
use crate::session::{self, Arrival, STACK, World};

/// How long sessions that were cut may take to end: each thread wakes at once, a name look-up may not.
const CUT_TIME: Duration = Duration::from_secs(5);

/// Longer than a process lives, and no overflow of a clock.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// How long the accept thread waits after accept(2) failed, for want of descriptors most likely.
const PAUSE: u16 = 100;

/// Counts the signals that ask for the end, and knows who has taken over.
pub struct Shutdown {
    signals: AtomicU32,
    /// The process; 0 = nobody.
    heir: AtomicU32,
    event: EventFd,
    registry: Arc<Registry>,
}

impl Shutdown {
    /// Makes one, for the registry of the sessions that a second signal cuts.
    pub fn new() -> Result<Arc<Self>, String> {
        let event =
            EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map_err(|error| format!("eventfd: {error}"))?;
        Ok(Arc::new(Self { signals: AtomicU32::new(0), heir: AtomicU32::new(0), event, registry: Arc::default() }))
    }

    /// One more signal: the first stops listening, the second cuts the sessions.
    pub fn signal(&self) {
        self.signals.fetch_add(1, Ordering::SeqCst);
        let _ = self.event.write(1);
        self.registry.nudge();
    }

    /// Another process accepts now.
    pub fn hand_over(&self, heir: u32) {
        self.heir.store(heir, Ordering::SeqCst);
        let _ = self.event.write(1);
    }

    /// The process that has taken over.
    pub fn heir(&self) -> Option<u32> {
        Some(self.heir.load(Ordering::SeqCst)).filter(|heir| *heir != 0)
    }

    /// The sessions that run.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    fn count(&self) -> u32 {
        self.signals.load(Ordering::SeqCst)
    }

    /// Waits for the sessions until `limit` is over or more than `signals` have come. Whether all have gone.
    fn finish(&self, limit: Duration, signals: u32) -> bool {
        self.registry.wait_empty(Instant::now() + limit, || self.count() > signals) == 0
    }

    /// Cuts the sessions that are left; `None` = the last one has just gone by itself. Who calls this is who has entered them, so that nobody
    /// comes in behind it.
    fn cut(&self, fault: &Fault) -> Option<Cut> {
        let cut = self.registry.cut(fault);
        let left = self.registry.wait_empty(Instant::now() + CUT_TIME, || false);
        (cut > 0).then_some(Cut { cut, left })
    }
}

/// Sessions that were cut at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cut {
    cut: usize,
    /// Those that did not end in time.
    left: usize,
}

/// How serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Every session had ended by itself.
    Clean,
    /// Sessions were cut.
    Cut,
}

/// Serves until a signal, then lets sessions finish up to the limit or a second signal; or until another process has taken over, then lets
/// them finish up to the limit for that.
pub fn serve(world: &Arc<World>, listeners: Vec<Arc<Listener>>, shutdown: &Arc<Shutdown>) -> Result<Ended, String> {
    let registry = &shutdown.registry;
    let mut next_id = 1;
    let mut refusals = Refusals::default();
    while shutdown.count() == 0 && shutdown.heir().is_none() {
        let mut fds = vec![PollFd::new(shutdown.event.as_fd(), PollFlags::POLLIN)];
        fds.extend(listeners.iter().map(|listener| PollFd::new(listener.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            // Want of memory passes, and the sessions that run have nothing to do with it.
            Err(error) => {
                world.metrics.out_of_resources();
                refusals.log("nobody", "error", &format!("poll: {error}"));
                thread::sleep(Duration::from_millis(PAUSE.into()));
            }
        }
        for listener in &listeners {
            match listener.accept() {
                Ok((stream, peer)) => {
                    admit(world, registry, (next_id, stream, peer), &mut refusals);
                    next_id += 1;
                }
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(error) => {
                    world.metrics.out_of_resources();
                    let reason = format!("accept: {error}; raise the limit of open files (LimitNOFILE)");
                    refusals.log("nobody", "error", &reason);
                    pause(&shutdown.event);
                }
            }
        }
    }
    drop(listeners);
    world.metrics.drain();
    if let Some(heir) = shutdown.heir() {
        let limit = world.config.limits.hand_over;
        let until = limit.map_or_else(|| "until they end".into(), |limit| format!("within {} s", limit.as_secs_f32()));
        let sessions = registry.sessions().len();
        log::info!("handed over: to={heir} sessions={sessions}; no new connections here, sessions may finish {until}");
        if shutdown.finish(limit.unwrap_or(FOR_EVER), 0) {
            return Ok(Ended::Clean);
        }
        if shutdown.count() == 0 {
            let told = "the server was replaced; please connect again".to_owned();
            return Ok(cut(shutdown, &Fault::new(Side::Router, Stage::Relay, "the router was replaced").told(told)));
        }
    }
    Ok(drain(world.config.limits.drain_timeout, shutdown))
}

/// Waits without the listeners, which would stay readable.
fn pause(event: &EventFd) {
    let _ = poll(&mut [PollFd::new(event.as_fd(), PollFlags::POLLIN)], PollTimeout::from(PAUSE));
}

fn admit(
    world: &Arc<World>,
    registry: &Arc<Registry>,
    (id, stream, peer): (u64, TcpStream, SocketAddr),
    refusals: &mut Refusals,
) {
    let limit = world.config.admission.sessions;
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    // Where a balancer's connection comes from is known when its header has been read.
    let from = Some(peer.ip()).filter(|address| !world.admission.terms().balancers.contains(*address));
    let permit = match world.admission.admit(from, Instant::now(), fastrand::u32(0..100)) {
        Ok(permit) => permit,
        Err(refusal) => return refusals.refuse(world, peer, &refusal),
    };
    let prepared = || -> Result<_, String> {
        stream.set_nonblocking(true).map_err(|error| error.to_string())?;
        tune(&stream, world.config.upstream.keepalive)?;
        Control::new()
    };
    let control = match prepared() {
        Ok(control) => control,
        Err(reason) => {
            world.metrics.out_of_resources();
            refusals.log(&peer.to_string(), "error", &reason);
            return;
        }
    };
    world.metrics.connected();
    log::info!("accept session={id} peer={peer} sessions={}/{limit}", permit.sessions);
    let metrics = Arc::clone(&world.metrics);
    let live = Live::new(id, peer, control);
    let entry = registry.enter(Arc::clone(&live));
    let world = Arc::clone(world);
    let arrival = Arrival { stream, permit, live };
    let made = thread::Builder::new().name(format!("session-{id}")).stack_size(STACK).spawn(move || {
        session::run(&world, arrival);
        // Who waits for the last entry ends the process next, and libcrypto with it: nothing of this thread may need it from here on.
        drop(world);
        ffi::end_thread();
        drop(entry);
    });
    if let Err(error) = made {
        metrics.out_of_resources();
        end_without_thread(id, peer, &error);
    }
}

fn end_without_thread(id: u64, peer: SocketAddr, error: &io::Error) {
    let fault = Fault::new(Side::Router, Stage::Accept, format!("no thread: {error}; raise the limit of tasks (TasksMax)"));
    log::info!(
        "end session={id} peer={peer} side={} stage=\"{}\" reason=\"{}\" up=0 down=0 seconds=0.000",
        fault.side,
        fault.stage,
        fault.what
    );
}

fn drain(limit: Duration, shutdown: &Shutdown) -> Ended {
    log::info!("stopping: no new connections; sessions may finish within {} s", limit.as_secs_f32());
    if shutdown.finish(limit, 1) {
        return Ended::Clean;
    }
    let told = "the server is stopped; please connect again later".to_owned();
    cut(shutdown, &Fault::new(Side::Router, Stage::Relay, "the router was stopped").told(told))
}

fn cut(shutdown: &Shutdown, fault: &Fault) -> Ended {
    let Some(Cut { cut, left }) = shutdown.cut(fault) else { return Ended::Clean };
    log::warn!("stopped: {cut} sessions were cut, {left} threads did not end in time");
    Ended::Cut
}

/// Refusals before a session exists: a flood of connections must not become a flood of lines.
#[derive(Default)]
struct Refusals {
    last: Option<Instant>,
    unsaid: u64,
}

impl Refusals {
    fn refuse(&mut self, world: &World, peer: SocketAddr, refusal: &Refusal) {
        if self.log(&peer.to_string(), refusal.name(), &refusal.to_string()) {
            let from = peer.ip().to_string();
            world.metrics.recent.refused(recent::Kind::Connection, ("", &from), &refusal.to_string(), Instant::now());
        }
    }

    /// Whether it was said.
    fn log(&mut self, peer: &str, why: &str, reason: &str) -> bool {
        if self.last.is_some_and(|last| last.elapsed() < Duration::from_secs(1)) {
            self.unsaid += 1;
            return false;
        }
        log::warn!("refuse peer={peer} why={why} reason=\"{reason}\" unsaid={}", std::mem::take(&mut self.unsaid));
        self.last = Some(Instant::now());
        true
    }
}

#[cfg(test)]
mod tests;
