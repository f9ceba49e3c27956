//! The side of the user's own sshd, in types that exist only when the stage before has succeeded:
//! [`Dialed`] → [`Trusted`] → [`LoggedIn`] → [`Upstream`].
//!
//! Through the crate ssh2 (libssh2), never blocking in it: each call is repeated until it is done, the stage's time is over, or the
//! session is cut. Only a [`Trusted`] connection takes credentials. libssh2's SFTP code is not used: the channel carries bytes.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use ssh2::{BlockDirections, ErrorCode, MethodType, Session};

use crate::config;
use crate::error::{Fault, Side, Stage, shown};
use crate::identity::{Fingerprint, PublicKey};
use crate::known_hosts::Known;
use crate::leg::tune;
use crate::relay::{Control, late};
use crate::route::{Pin, Route};

mod channel;
mod credential;
mod scan;

pub use channel::Upstream;
pub use credential::public_keys;
pub use scan::scan;

/// libssh2's "would block" (`LIBSSH2_ERROR_EAGAIN`).
const AGAIN: ErrorCode = ErrorCode::Session(-37);

/// What a connection needs to be waited for: until when, and who may end it.
#[derive(Clone, Copy)]
pub struct Waiting<'a> {
    /// The session's deadline.
    pub deadline: Instant,
    /// The session's control; the upstream's thread is the one that sleeps.
    pub control: &'a Control,
}

/// A connection to the upstream, of which nothing is known.
pub struct Dialed<'a> {
    link: Link,
    waiting: Waiting<'a>,
    config: &'a config::Upstream,
}

/// A connection whose host key is pinned or known.
pub struct Trusted<'a> {
    dialed: Dialed<'a>,
    host_key: PublicKey,
}

/// A connection that has accepted the login.
pub struct LoggedIn<'a> {
    trusted: Trusted<'a>,
}

/// What an operator has said about the host's keys.
pub struct Trust {
    /// Pins of the record; when there are any, nothing else counts.
    pub pins: Vec<Pin>,
    /// What `known_hosts` says.
    pub known: Known,
    /// Which file that is, for the log.
    pub file: String,
}

/// A libssh2 session with its socket. The socket is shut down before the session goes: libssh2 leaks a session that would block at
/// its end, and a blocking one may wait for the peer for ever.
struct Link {
    session: Session,
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = self.session.disconnect(None, "", None);
        self.shut();
    }
}

impl Link {
    fn shut(&self) {
        let _ = nix::sys::socket::shutdown(self.session.as_raw_fd(), nix::sys::socket::Shutdown::Both);
    }

    /// Repeats a call of libssh2 until it no longer says "would block"; `limit` and the session's deadline bound it.
    fn until<T>(
        &self,
        waiting: Waiting<'_>,
        limit: Duration,
        mut call: impl FnMut() -> Result<T, ssh2::Error>,
    ) -> Result<T, String> {
        let until = waiting.deadline.min(Instant::now() + limit);
        loop {
            match call() {
                Err(error) if error.code() == AGAIN => {}
                other => return other.map_err(|error| shown(error.message())),
            }
            if waiting.control.is_cut() {
                return Err("the session was ended".into());
            }
            if until <= Instant::now() {
                let within = format!("no answer within {} s", limit.as_secs_f32());
                return Err(if until == waiting.deadline { late() } else { within });
            }
            let events = match self.session.block_directions() {
                BlockDirections::Outbound => PollFlags::POLLOUT,
                BlockDirections::Both => PollFlags::POLLIN | PollFlags::POLLOUT,
                BlockDirections::Inbound | BlockDirections::None => PollFlags::POLLIN,
            };
            let wake = waiting.control.wake_of(Side::Upstream);
            wake.sleep(self.session.as_raw_fd(), events, Some(until), || !waiting.control.is_cut())?;
        }
    }
}

/// Connects to the first of the host's addresses that accepts.
pub fn dial<'a>(host: &str, port: u16, config: &'a config::Upstream, waiting: Waiting<'a>) -> Result<Dialed<'a>, Fault> {
    let fault = |what| Fault::new(Side::Upstream, Stage::Dial, what);
    let addresses: Vec<SocketAddr> = (host, port)
        .to_socket_addrs()
        .map_err(|error| fault(format!("the name \"{}\" cannot be resolved: {error}", shown(host))))?
        .collect();
    let mut reasons = Vec::new();
    for address in addresses {
        let left = waiting.deadline.saturating_duration_since(Instant::now()).min(config.connect_timeout);
        if left.is_zero() || waiting.control.is_cut() {
            reasons.push(late());
            break;
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(stream) => return Dialed::new(stream, config, waiting).map_err(fault),
            Err(error) => reasons.push(format!("{address}: {error}")),
        }
    }
    if reasons.is_empty() {
        reasons.push(format!("the name \"{}\" has no address", shown(host)));
    }
    Err(fault(reasons.join("; ")))
}

impl<'a> Dialed<'a> {
    fn new(stream: TcpStream, config: &'a config::Upstream, waiting: Waiting<'a>) -> Result<Self, String> {
        tune(&stream)?;
        stream.set_nonblocking(true).map_err(|error| error.to_string())?;
        let mut session = Session::new().map_err(|error| error.to_string())?;
        waiting.control.hold(stream.try_clone().map_err(|error| error.to_string())?);
        session.set_tcp_stream(stream);
        session.set_blocking(false);
        Ok(Self { link: Link { session }, waiting, config })
    }

    /// Exchanges keys, the types in `kinds` preferred for the host key (empty = as configured), and returns the host key.
    fn exchange(&mut self, kinds: &[&str]) -> Result<PublicKey, Fault> {
        let fault = |what| Fault::new(Side::Upstream, Stage::Trust, what);
        let algorithms = &self.config.algorithms;
        let wanted = kinds.iter().flat_map(signatures_of).copied().collect::<Vec<_>>().join(",");
        for (method, list) in [
            (MethodType::Kex, algorithms.kex.as_str()),
            (MethodType::HostKey, if wanted.is_empty() { algorithms.host_keys.as_str() } else { &wanted }),
            (MethodType::CryptCs, &algorithms.ciphers),
            (MethodType::CryptSc, &algorithms.ciphers),
            (MethodType::MacCs, &algorithms.macs),
            (MethodType::MacSc, &algorithms.macs),
        ] {
            if !list.is_empty() {
                let set = self.link.session.method_pref(method, list);
                set.map_err(|error| fault(format!("algorithms \"{}\": {}", shown(list), error.message())))?;
            }
        }
        // `handshake` wants the session for itself, which `until` only borrows: a clone is another handle to the same session.
        let mut session = self.link.session.clone();
        let done = self.link.until(self.waiting, self.config.exchange_timeout, || session.handshake());
        done.map_err(|what| fault(format!("key exchange: {what}")))?;
        let (blob, _) = self.link.session.host_key().ok_or_else(|| fault("the upstream shows no host key".into()))?;
        PublicKey::from_blob(blob).map_err(|reason| fault(format!("host key: {reason}")))
    }

    /// Exchanges keys and checks the host key. No credential has been sent, and none will be unless this succeeds.
    pub fn trust(mut self, trust: &Trust) -> Result<Trusted<'a>, Fault> {
        let kinds = trust.kinds();
        let host_key = self.exchange(&kinds)?;
        trust.check(&host_key).map_err(|what| Fault::new(Side::Upstream, Stage::Trust, what))?;
        Ok(Trusted { dialed: self, host_key })
    }
}

/// The signature algorithms of a key type (RFC 8332 for RSA).
fn signatures_of<'k>(kind: &'k &'k str) -> &'k [&'k str] {
    if *kind == "ssh-rsa" { &["rsa-sha2-512", "rsa-sha2-256"] } else { std::slice::from_ref(kind) }
}

impl Trust {
    /// The key types that are pinned or known: only these are asked for, or a host with several keys might show another one.
    fn kinds(&self) -> Vec<&str> {
        let mut kinds = Vec::new();
        for pin in &self.pins {
            match pin {
                Pin::Key(key) => kinds.push(key.kind()),
                // A fingerprint does not tell the type.
                Pin::Fingerprint(_) => return Vec::new(),
            }
        }
        if self.pins.is_empty() {
            kinds.extend(self.known.keys.iter().map(PublicKey::kind));
        }
        kinds.dedup();
        kinds
    }

    /// Whether the host key is one that an operator has approved; the error says what to do.
    fn check(&self, shown: &PublicKey) -> Result<(), String> {
        let says = format!("host key {} {}", shown.kind(), shown.fingerprint());
        if self.known.revoked.contains(shown) {
            return Err(format!("{says} is revoked in {}", self.file));
        }
        if !self.pins.is_empty() {
            if self.pins.iter().any(|pin| pin.matches(shown.blob())) {
                return Ok(());
            }
            let pinned: Vec<String> = self.pins.iter().map(|pin| pin_name(pin).to_string()).collect();
            return Err(format!(
                "{says} is not the pinned one ({}); either the server was set up anew or somebody stands in between: compare, then \
                 change hostkey in the record",
                pinned.join(", ")
            ));
        }
        if self.known.keys.contains(shown) {
            return Ok(());
        }
        if self.known.keys.is_empty() {
            return Err(format!("{says} is not known; compare it, then set hostkey in the record or add it to {}", self.file));
        }
        Err(format!(
            "{says} is not the one in {}; either the server was set up anew or somebody stands in between: compare, then correct the file",
            self.file
        ))
    }
}

fn pin_name(pin: &Pin) -> Fingerprint {
    match pin {
        Pin::Fingerprint(fingerprint) => *fingerprint,
        Pin::Key(key) => key.fingerprint(),
    }
}

impl<'a> Trusted<'a> {
    /// The host key that was approved.
    pub fn host_key(&self) -> &PublicKey {
        &self.host_key
    }

    /// Logs in with the record's key, else the configured one, else the agent's, else the account's own.
    pub fn log_in(self, route: &Route) -> Result<LoggedIn<'a>, Fault> {
        credential::log_in(&self, route).map_err(|what| Fault::new(Side::Upstream, Stage::LogIn, what))?;
        Ok(LoggedIn { trusted: self })
    }
}

impl LoggedIn<'_> {
    /// Opens a channel with the subsystem sftp (RFC 4254 section 6.5).
    pub fn open(self) -> Result<Upstream, Fault> {
        let Dialed { link, waiting, config } = self.trusted.dialed;
        let limit = config.login_timeout;
        let fault = |what: String| Fault::new(Side::Upstream, Stage::Open, what);
        let mut channel =
            link.until(waiting, limit, || link.session.channel_session()).map_err(|what| fault(format!("channel: {what}")))?;
        let opened = link.until(waiting, limit, || channel.subsystem("sftp"));
        if let Err(what) = opened {
            link.shut();
            return Err(fault(format!("the upstream does not open its subsystem sftp: {what}")));
        }
        Ok(Upstream::new(channel, link))
    }
}
