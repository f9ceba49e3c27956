//! libssh2, through the crate ssh2, as a connection to an upstream.

use std::net::TcpStream;
use std::os::fd::{AsRawFd, RawFd};

use nix::poll::PollFlags;
use ssh2::{BlockDirections, ErrorCode, MethodType, Session};

use super::{Link, Wait};
use crate::config::Algorithms;
use crate::error::shown;
use crate::identity::{Negotiated, PublicKey};
use crate::secret::Secret;

mod channel;

/// libssh2's "would block" (`LIBSSH2_ERROR_EAGAIN`).
const AGAIN: ErrorCode = ErrorCode::Session(-37);

/// Largest packet of data that we take, in bytes: OpenSSH sends none larger, and libssh2 wants no more than this.
const PACKET: u32 = 32 * 1024;

/// Ciphers when none are configured, the cheapest first: libssh2 feeds AES to OpenSSL 16 bytes at a time.
const CIPHERS: &str =
    "chacha20-poly1305@openssh.com,aes256-gcm@openssh.com,aes128-gcm@openssh.com,aes256-ctr,aes192-ctr,aes128-ctr";

/// Keys of an agent tried at one upstream: sshd's MaxAuthTries is 6 unless set, and each one counts.
pub(super) const MAX_AGENT_KEYS: usize = 5;

/// A libssh2 session with its socket. The socket is shut down before the session goes: libssh2 leaks a session that would block at
/// its end, and a blocking one may wait for the peer for ever.
pub(super) struct Libssh2 {
    session: Session,
}

impl Drop for Libssh2 {
    fn drop(&mut self) {
        let _ = self.session.disconnect(None, "", None);
        self.shut();
    }
}

impl Libssh2 {
    pub(super) fn new(stream: TcpStream, algorithms: &Algorithms) -> Result<Self, String> {
        let mut session = Session::new().map_err(|error| error.to_string())?;
        session.set_tcp_stream(stream);
        session.set_blocking(false);
        let ciphers = if algorithms.ciphers.is_empty() { CIPHERS } else { &algorithms.ciphers };
        for (method, list) in [
            (MethodType::Kex, algorithms.kex.as_str()),
            (MethodType::HostKey, &algorithms.host_keys),
            (MethodType::CryptCs, ciphers),
            (MethodType::CryptSc, ciphers),
            (MethodType::MacCs, &algorithms.macs),
            (MethodType::MacSc, &algorithms.macs),
        ] {
            if !list.is_empty() {
                let set = session.method_pref(method, list);
                set.map_err(|error| format!("algorithms \"{}\": {}", shown(list), error.message()))?;
            }
        }
        Ok(Self { session })
    }

    fn shut(&self) {
        let _ = nix::sys::socket::shutdown(self.session.as_raw_fd(), nix::sys::socket::Shutdown::Both);
    }

    /// Repeats a call until it no longer says "would block".
    fn until<T>(&mut self, wait: Wait<'_>, mut call: impl FnMut(&mut Session) -> Result<T, ssh2::Error>) -> Result<T, String> {
        wait.until(&mut self.session, |session| again(call(session)), blocked)
    }
}

/// `None` = would block.
fn again<T>(result: Result<T, ssh2::Error>) -> Result<Option<T>, String> {
    match result {
        Ok(done) => Ok(Some(done)),
        Err(error) if error.code() == AGAIN => Ok(None),
        Err(error) => Err(shown(error.message())),
    }
}

fn blocked(session: &Session) -> (RawFd, PollFlags) {
    let events = match session.block_directions() {
        BlockDirections::Outbound => PollFlags::POLLOUT,
        BlockDirections::Both => PollFlags::POLLIN | PollFlags::POLLOUT,
        BlockDirections::Inbound | BlockDirections::None => PollFlags::POLLIN,
    };
    (session.as_raw_fd(), events)
}

impl Link for Libssh2 {
    fn exchange(&mut self, wait: Wait<'_>) -> Result<PublicKey, String> {
        self.until(wait, Session::handshake)?;
        let (blob, _) = self.session.host_key().ok_or("the upstream shows no host key")?;
        PublicKey::from_blob(blob).map_err(|reason| format!("host key: {reason}"))
    }

    fn negotiated(&self) -> Negotiated {
        let agreed = |method| self.session.methods(method).map(shown).unwrap_or_default();
        Negotiated { kex: agreed(MethodType::Kex), cipher: agreed(MethodType::CryptCs), mac: agreed(MethodType::MacCs) }
    }

    fn log_in(&mut self, login: &str, key: &Secret, wait: Wait<'_>) -> Result<(), String> {
        let text = key.expose_str().ok_or("not a private key: not text")?;
        self.until(wait, |session| session.userauth_pubkey_memory(login, None, text, None))
    }

    fn log_in_with_agent(&mut self, login: &str, wait: Wait<'_>) -> Result<(), String> {
        let mut agent = self.session.agent().map_err(|error| error.to_string())?;
        agent.connect().map_err(|error| error.to_string())?;
        agent.list_identities().map_err(|error| error.to_string())?;
        let keys = agent.identities().map_err(|error| error.to_string())?;
        if keys.is_empty() {
            return Err("holds no keys".into());
        }
        let mut last = String::new();
        for key in keys.iter().take(MAX_AGENT_KEYS) {
            match self.until(wait, |_| agent.userauth(login, key)) {
                Ok(()) => return Ok(()),
                Err(reason) => last = reason,
            }
        }
        Err(format!("none of {} keys fits: {last}", keys.len().min(MAX_AGENT_KEYS)))
    }

    fn open(mut self: Box<Self>, window: u32, wait: Wait<'_>) -> Result<Box<dyn super::Channel>, String> {
        let mut channel = self
            .until(wait, |session| session.channel_open("session", window, PACKET, None))
            .map_err(|what| format!("channel: {what}"))?;
        let opened = self.until(wait, |_| channel.subsystem("sftp"));
        if let Err(what) = opened {
            self.shut();
            return Err(format!("the upstream does not open its subsystem sftp: {what}"));
        }
        Ok(Box::new(channel::Libssh2Channel::new(channel, *self)))
    }
}
