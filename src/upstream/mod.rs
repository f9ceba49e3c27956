//! The side of the user's own sshd, in types that exist only when the stage before has succeeded:
//! [`Dialed`] → [`Trusted`] → [`LoggedIn`] → [`Upstream`].
//!
//! Each stage is a few calls of a library ([`Link`]), which never block: each call is repeated until it is done, the stage's time is
//! over, or the session is cut. Only a [`Trusted`] connection takes credentials. The libraries' SFTP code is not used: the channel
//! carries bytes.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

use crate::config::{self, Algorithms, Library};
use crate::error::{Fault, Side, Stage, shown};
use crate::identity::{Negotiated, PublicKey};
use crate::leg::{Leg, tune, window};
use crate::origin::Ends;
use crate::relay::{Control, late};
use crate::route::Route;
use crate::secret::Secret;

mod ask;
mod credential;
mod kept;
mod libssh;
mod libssh2;
mod probe;
mod quarantine;
mod reopen;
mod scan;
mod trust;

pub use ask::{Asking, Greeting, No};
pub use credential::{Chosen, Credential, Source, has_master, master};
pub use kept::Kept;
pub use probe::probe;
pub use quarantine::{Note, Quarantine, lift};
pub use scan::scan;
pub use trust::{Basis, Trust, host, known};

/// What a connection needs to be waited for: until when, and who may end it.
#[derive(Clone, Copy)]
pub struct Waiting<'a> {
    /// The session's deadline.
    pub deadline: Instant,
    /// The session's control; the upstream's thread is the one that sleeps.
    pub control: &'a Control,
    /// What the upstream is told of the client before the first byte of SSH. Such a connection is good for one client only.
    pub announce: Option<Ends>,
}

/// A connection to the upstream, of which nothing is known.
pub struct Dialed<'a> {
    stream: TcpStream,
    waiting: Waiting<'a>,
    config: &'a config::Upstream,
}

/// A connection whose host key is pinned or known.
pub struct Trusted<'a> {
    link: Box<dyn Link>,
    waiting: Waiting<'a>,
    config: &'a config::Upstream,
    shown: Shown,
}

/// What key exchange and login have shown.
#[derive(Debug, Clone)]
struct Shown {
    host_key: PublicKey,
    /// The name of the key that was accepted; empty before the login.
    key: String,
    /// Bytes that the upstream may be ahead.
    window: u32,
}

/// A connection that has accepted the login.
pub struct LoggedIn<'a>(Trusted<'a>);

/// A channel that speaks SFTP.
pub struct Upstream {
    channel: Box<dyn Channel>,
    shown: Shown,
}

/// A library's connection to an upstream. Dropping it says goodbye, without waiting, and closes the socket. Errors are one line.
trait Link: Send {
    /// Exchanges identification lines and keys and returns the host key that was shown and proven.
    fn exchange(&mut self, wait: Wait<'_>) -> Result<PublicKey, String>;

    /// What the exchange has agreed on.
    fn negotiated(&self) -> Negotiated;

    /// Logs in with a private key in PEM or OpenSSH format.
    fn log_in(&mut self, login: &str, key: &Secret, wait: Wait<'_>) -> Result<(), String>;

    /// Logs in with a key of the ssh-agent at `SSH_AUTH_SOCK`.
    fn log_in_with_agent(&mut self, login: &str, wait: Wait<'_>) -> Result<(), String>;

    /// Opens a channel with the subsystem sftp (RFC 4254 section 6.5), on which the upstream may be `window` bytes ahead of us.
    fn open(self: Box<Self>, window: u32, wait: Wait<'_>) -> Result<Box<dyn Channel>, String>;
}

/// A library's channel, once it speaks SFTP.
trait Channel: Leg {
    /// The ciphers to the upstream and from it.
    fn ciphers(&self) -> (String, String);

    /// The connection, once the upstream has closed the channel: another one can be opened on it. `None` = it cannot.
    fn into_link(self: Box<Self>, wait: Wait<'_>) -> Option<Box<dyn Link>>;
}

/// A stage's share of the time that is left.
#[derive(Clone, Copy)]
struct Wait<'a> {
    waiting: Waiting<'a>,
    limit: Duration,
}

impl Wait<'_> {
    /// Repeats a library's call until it is done; in between this thread sleeps on what `blocked` says.
    fn until<T, L: ?Sized>(
        self,
        library: &mut L,
        mut call: impl FnMut(&mut L) -> Result<Option<T>, String>,
        blocked: impl Fn(&L) -> (RawFd, PollFlags),
    ) -> Result<T, String> {
        let Waiting { deadline, control, .. } = self.waiting;
        let until = deadline.min(Instant::now() + self.limit);
        loop {
            if let Some(done) = call(library)? {
                return Ok(done);
            }
            if control.is_cut() {
                return Err("the session was ended".into());
            }
            if until <= Instant::now() {
                let within = format!("no answer within {} s", self.limit.as_secs_f32());
                return Err(if until == deadline { late() } else { within });
            }
            let (fd, events) = blocked(library);
            control.wake_of(Side::Upstream).sleep(fd, events, Some(until), || !control.is_cut())?;
        }
    }
}

/// The addresses of a host, at least one. It takes as long as the system's resolver takes.
pub fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, Fault> {
    let fault = |what| Fault::new(Side::Upstream, Stage::Dial, what);
    let found = (host, port).to_socket_addrs();
    let found = found.map_err(|error| fault(format!("the name \"{}\" cannot be resolved: {error}", shown(host))))?;
    let addresses: Vec<SocketAddr> = found.collect();
    if addresses.is_empty() { Err(fault(format!("the name \"{}\" has no address", shown(host)))) } else { Ok(addresses) }
}

/// Connects to the first of the host's addresses that accepts.
pub fn dial<'a>(host: &str, port: u16, config: &'a config::Upstream, waiting: Waiting<'a>) -> Result<Dialed<'a>, Fault> {
    connect(&resolve(host, port)?, config, waiting)
}

/// Connects to the first of these addresses that accepts.
pub fn connect<'a>(addresses: &[SocketAddr], config: &'a config::Upstream, waiting: Waiting<'a>) -> Result<Dialed<'a>, Fault> {
    let fault = |what| Fault::new(Side::Upstream, Stage::Dial, what);
    let mut reasons = Vec::new();
    for address in addresses {
        let left = waiting.deadline.saturating_duration_since(Instant::now()).min(config.connect_timeout);
        if left.is_zero() || waiting.control.is_cut() {
            reasons.push(late());
            break;
        }
        match TcpStream::connect_timeout(address, left) {
            Ok(stream) => return Dialed::new(stream, config, waiting).map_err(fault),
            Err(error) => reasons.push(format!("{address}: {error}")),
        }
    }
    Err(fault(reasons.join("; ")))
}

impl<'a> Dialed<'a> {
    fn new(stream: TcpStream, config: &'a config::Upstream, waiting: Waiting<'a>) -> Result<Self, String> {
        tune(&stream, config.keepalive)?;
        stream.set_nonblocking(true).map_err(|error| error.to_string())?;
        waiting.control.hold(stream.try_clone().map_err(|error| error.to_string())?);
        if let Some(ends) = waiting.announce {
            let header = crate::proxy::header(ends.client, ends.reached);
            let header = header.ok_or("a PROXY header needs two addresses of one family")?;
            // A new connection has room for some dozen bytes.
            (&stream).write_all(&header).map_err(|error| format!("PROXY header: {error}"))?;
        }
        Ok(Self { stream, waiting, config })
    }

    /// Exchanges keys, asks for a host key with these signature algorithms, and returns it.
    fn exchange(self, host_keys: String) -> Result<Trusted<'a>, Fault> {
        let fault = |what| Fault::new(Side::Upstream, Stage::Trust, what);
        let Self { stream, waiting, config } = self;
        let algorithms = Algorithms { host_keys, ..config.algorithms.clone() };
        let mut link = link(stream, &algorithms, config.library).map_err(fault)?;
        let wait = Wait { waiting, limit: config.exchange_timeout };
        let started = Instant::now();
        let host_key = link.exchange(wait).map_err(|what| fault(format!("key exchange: {what}")))?;
        Ok(Trusted { link, waiting, config, shown: Shown { host_key, key: String::new(), window: window(started.elapsed()) } })
    }

    /// Exchanges keys and checks the host key. No credential has been sent, and none will be unless this succeeds.
    ///
    /// A host with several keys shows one of them. When that is not approved and an approved one may be of another type, the same
    /// address is asked again, for other types than it has shown: at most once for each type, within the session's deadline.
    pub fn trust(self, trust: &Trust) -> Result<Trusted<'a>, Distrust> {
        let (waiting, config) = (self.waiting, self.config);
        let peer = self.stream.peer_addr();
        let mut unchecked = self.exchange(trust.algorithms(&[], &config.algorithms.host_keys))?;
        let Err(mistrust) = trust.check(&unchecked.shown.host_key) else { return Ok(unchecked) };
        let first = Box::new((unchecked.shown.host_key.clone(), unchecked.negotiated()));
        let mut seen: Vec<String> = Vec::new();
        while let Ok(peer) = peer {
            let kind = unchecked.shown.host_key.kind().to_owned();
            // Whoever shows a type that was not asked for is not asked again.
            if seen.contains(&kind) {
                break;
            }
            seen.push(kind);
            let left = trust.algorithms(&seen, &config.algorithms.host_keys);
            if left.is_empty() {
                break;
            }
            drop(unchecked);
            unchecked = match redial(peer, config, waiting)?.exchange(left) {
                Ok(other) => other,
                // It has no key of these types.
                Err(_) if Instant::now() < waiting.deadline && !waiting.control.is_cut() => break,
                Err(fault) => return Err(fault.into()),
            };
            if trust.check(&unchecked.shown.host_key).is_ok() {
                return Ok(unchecked);
            }
        }
        let fault = Fault::new(Side::Upstream, Stage::Trust, mistrust.reason);
        if !mistrust.changed {
            return Err(Distrust { fault, shown: Some(first), changed: None });
        }
        let told = "your server shows another identity than the one that is approved for it, nothing was sent to it; please tell your administrator";
        Err(Distrust { fault: fault.told(told.to_owned()), changed: Some(first.0.clone()), shown: Some(first) })
    }
}

/// Why a connection is not trusted.
pub struct Distrust {
    /// For the end line.
    pub fault: Fault,
    /// The host key that was shown first, and what was negotiated then; `None` = keys were not exchanged.
    pub shown: Option<Box<(PublicKey, Negotiated)>>,
    /// The same key, where it was shown in the place of an approved one: the upstream is quarantined.
    pub changed: Option<PublicKey>,
}

impl From<Fault> for Distrust {
    fn from(fault: Fault) -> Self {
        Self { fault, shown: None, changed: None }
    }
}

/// Connects once more to the same address.
fn redial<'a>(peer: SocketAddr, config: &'a config::Upstream, waiting: Waiting<'a>) -> Result<Dialed<'a>, Fault> {
    let fault = |what| Fault::new(Side::Upstream, Stage::Dial, what);
    let left = waiting.deadline.saturating_duration_since(Instant::now()).min(config.connect_timeout);
    if left.is_zero() || waiting.control.is_cut() {
        return Err(fault(late()));
    }
    let stream = TcpStream::connect_timeout(&peer, left).map_err(|error| fault(format!("{peer}: {error}")))?;
    Dialed::new(stream, config, waiting).map_err(fault)
}

fn link(stream: TcpStream, algorithms: &Algorithms, library: Library) -> Result<Box<dyn Link>, String> {
    Ok(match library {
        Library::Ssh2 => Box::new(libssh2::Libssh2::new(stream, algorithms)?),
        Library::Libssh => Box::new(libssh::Libssh::new(stream, algorithms)?),
    })
}

impl<'a> Trusted<'a> {
    /// The host key that was approved.
    pub fn host_key(&self) -> &PublicKey {
        &self.shown.host_key
    }

    /// What both sides have agreed on.
    pub fn negotiated(&self) -> Negotiated {
        self.link.negotiated()
    }

    /// Logs in with the first of these keys that is accepted.
    pub fn log_in(mut self, route: &Route, sources: &[Source]) -> Result<LoggedIn<'a>, Fault> {
        let source = credential::log_in(&mut self, &route.login, sources);
        self.shown.key = source.map_err(|what| Fault::new(Side::Upstream, Stage::LogIn, what))?.to_string();
        Ok(LoggedIn(self))
    }
}

impl LoggedIn<'_> {
    /// Opens a channel with the subsystem sftp.
    pub fn open(self) -> Result<Upstream, Fault> {
        let limit = self.0.config.login_timeout;
        self.open_within(limit)
    }

    fn open_within(self, limit: Duration) -> Result<Upstream, Fault> {
        let Trusted { link, waiting, shown, .. } = self.0;
        let opened = link.open(shown.window, Wait { waiting, limit });
        let channel = opened.map_err(|what| Fault::new(Side::Upstream, Stage::Open, what))?;
        Ok(Upstream { channel, shown })
    }
}

impl Upstream {
    /// The cipher to the upstream.
    pub fn cipher(&self) -> String {
        self.channel.ciphers().0
    }

    /// The host key that was approved.
    pub fn host_key(&self) -> &PublicKey {
        &self.shown.host_key
    }

    /// The name of the key that was accepted, such as `ssh-agent` or `key /path`.
    pub fn key(&self) -> &str {
        &self.shown.key
    }

    /// The same to look at.
    pub fn as_leg(&self) -> &dyn Leg {
        &*self.channel
    }

    /// The channel as the relay wants it.
    pub fn leg(&mut self) -> &mut dyn Leg {
        &mut *self.channel
    }
}
