//! libssh as a connection to an upstream. The channel's bytes go the same way as a client's: [`crate::pipe`].

use std::net::TcpStream;
use std::os::fd::RawFd;

use nix::poll::PollFlags;

use super::{Link, Wait};
use crate::config::{Algorithms, HOST_KEY_ALGORITHMS, KEX, MACS, PUBKEY_ALGORITHMS};
use crate::ffi::{self, Answer, ClientOptions, ClientSession, PrivateKey};
use crate::identity::{Negotiated, PublicKey};
use crate::leg::{Leg, Taken, Wants};
use crate::pipe::Pipe;
use crate::secret::Secret;

/// Ciphers when none are configured, the cheapest first: libssh leaves AES-GCM to OpenSSL whole.
const CIPHERS: &str =
    "aes128-gcm@openssh.com,aes256-gcm@openssh.com,chacha20-poly1305@openssh.com,aes256-ctr,aes192-ctr,aes128-ctr";

/// The same for a libssh that does not check AES-GCM's tags.
const CIPHERS_WITHOUT_GCM: &str = "chacha20-poly1305@openssh.com,aes256-ctr,aes192-ctr,aes128-ctr";

/// A connection before it has a channel.
pub(super) struct Libssh(ClientSession);

/// A channel that speaks SFTP.
struct LibsshChannel {
    session: ClientSession,
    pipe: Pipe,
}

impl Libssh {
    pub(super) fn new(stream: TcpStream, algorithms: &Algorithms) -> Result<Self, String> {
        let ciphers = if ffi::checks_gcm_tags() { CIPHERS } else { CIPHERS_WITHOUT_GCM };
        let options = ClientOptions {
            ciphers: or(&algorithms.ciphers, ciphers),
            macs: or(&algorithms.macs, MACS),
            kex: or(&algorithms.kex, KEX),
            host_key_algorithms: or(&algorithms.host_keys, HOST_KEY_ALGORITHMS),
            pubkey_algorithms: PUBKEY_ALGORITHMS,
        };
        ClientSession::new(stream, &options).map(Self)
    }

    fn until<T>(
        &mut self,
        wait: Wait<'_>,
        mut call: impl FnMut(&mut ClientSession) -> Result<Option<T>, String>,
    ) -> Result<T, String> {
        wait.until(&mut self.0, |session| call(session), blocked)
    }
}

fn or<'a>(given: &'a str, otherwise: &'a str) -> &'a str {
    if given.is_empty() { otherwise } else { given }
}

fn blocked(session: &ClientSession) -> (RawFd, PollFlags) {
    let events = if session.unsent() { PollFlags::POLLIN | PollFlags::POLLOUT } else { PollFlags::POLLIN };
    (session.fd(), events)
}

fn accepted(answer: Answer) -> Option<bool> {
    match answer {
        Answer::Yes => Some(true),
        Answer::No => Some(false),
        Answer::NotYet => None,
    }
}

impl Link for Libssh {
    fn exchange(&mut self, wait: Wait<'_>) -> Result<PublicKey, String> {
        self.until(wait, |session| Ok(session.connect()?.then_some(())))?;
        self.0.host_key()
    }

    fn negotiated(&self) -> Negotiated {
        self.0.negotiated(false)
    }

    fn log_in(&mut self, login: &str, key: &Secret, wait: Wait<'_>) -> Result<(), String> {
        let key = PrivateKey::parse(key)?;
        let let_in = self.until(wait, |session| session.log_in(login, &key).map(accepted))?;
        if let_in { Ok(()) } else { Err("the upstream does not accept it".into()) }
    }

    fn log_in_with_agent(&mut self, login: &str, wait: Wait<'_>) -> Result<(), String> {
        let let_in = self.until(wait, |session| session.log_in_with_agent(login).map(accepted))?;
        if let_in { Ok(()) } else { Err("holds no keys, or none fits".into()) }
    }

    fn open(mut self: Box<Self>, window: u32, wait: Wait<'_>) -> Result<Box<dyn super::Channel>, String> {
        self.until(wait, |session| Ok(session.open_channel()?.then_some(()))).map_err(|what| format!("channel: {what}"))?;
        self.until(wait, |session| Ok(session.request_sftp()?.then_some(())))
            .map_err(|what| format!("the upstream does not open its subsystem sftp: {what}"))?;
        Ok(Box::new(LibsshChannel { session: self.0, pipe: Pipe::new(window) }))
    }
}

impl super::Channel for LibsshChannel {
    fn ciphers(&self) -> (String, String) {
        let (from, to) = self.session.ciphers();
        (to, from)
    }

    fn into_link(mut self: Box<Self>, wait: Wait<'_>) -> Option<Box<dyn Link>> {
        if !self.session.is_closed() {
            return None;
        }
        self.session.close_channel().ok()?;
        let sent = |session: &mut ClientSession| {
            session.advance()?;
            Ok((!session.unsent()).then_some(()))
        };
        wait.until(&mut self.session, sent, blocked).ok()?;
        self.session.forget_channel();
        Some(Box::new(Libssh(self.session)))
    }
}

impl Leg for LibsshChannel {
    fn fd(&self) -> RawFd {
        self.session.fd()
    }

    fn advance(&mut self, ready: bool) -> Result<bool, String> {
        self.pipe.advance(&self.session, ready)
    }

    fn take(&mut self, buffer: &mut Vec<u8>) -> Result<Taken, String> {
        self.pipe.take(&self.session, buffer)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<usize, String> {
        self.pipe.put(&self.session, bytes)
    }

    fn put_eof(&mut self) -> Result<bool, String> {
        self.pipe.put_eof(&self.session)
    }

    fn put_exit(&mut self, _status: i32) -> Result<(), String> {
        // A client has no exit status; its close is our end.
        Ok(())
    }

    fn exit(&mut self) -> Result<Option<i32>, String> {
        Ok(self.session.is_closed().then(|| self.session.exit_status().unwrap_or(0)))
    }

    fn finished(&mut self) -> bool {
        true
    }

    fn exchanging(&mut self, _ask: bool) -> Option<u64> {
        self.session.exchanging()
    }

    fn interest(&self, _wants: Wants) -> PollFlags {
        self.pipe.interest(&self.session)
    }
}
