//! libssh as the client of an upstream: key exchange, login, channel, each step repeated by the caller until it is done.
//!
//! It decides nothing: no file of the account (configuration, known hosts, keys) is read, and whether the host key is trusted is for
//! the caller to say between [`ClientSession::connect`] and the first login.

use std::ffi::c_int;
use std::net::TcpStream;
use std::ops::Deref;
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};
use std::ptr;

use libssh_rs::sys;
use libssh_rs::sys::ssh_options_e as Set;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::connection::Connection;
use super::key::{PrivateKey, public_half};
use super::{borrow_fd, c_string, check};
use crate::identity::PublicKey;

/// What a [`ClientSession`] is set up with. Lists are name-lists as in RFC 4251; names that libssh does not know are left out by it.
pub struct ClientOptions<'a> {
    /// Ciphers, both directions, preferred first; likewise the others.
    pub ciphers: &'a str,
    /// MACs, both directions.
    pub macs: &'a str,
    /// Key exchange methods.
    pub kex: &'a str,
    /// Signatures of the upstream's host key.
    pub host_key_algorithms: &'a str,
    /// Signatures that we log in with.
    pub pubkey_algorithms: &'a str,
}

/// Largest descriptor that `SSH_OPTIONS_FD` takes: libssh cuts larger ones to 16 bits.
const MAX_FD: c_int = 0xffff;

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The upstream said yes.
    Yes,
    /// The upstream said no.
    No,
    /// It has not answered yet: wait for the socket and call again, with the same arguments.
    NotYet,
}

/// A session with an upstream.
pub struct ClientSession {
    connection: Connection,
    /// Until libssh has it.
    stream: Option<TcpStream>,
}

// SAFETY: libssh binds a session to no thread, only to one at a time (its doc/threading.dox); its thread-local state is the log level.
// The callbacks of a client's channel touch nothing but the cells of the box that moves along with the session.
unsafe impl Send for ClientSession {}

impl ClientSession {
    /// Prepares a session over a connected stream.
    pub fn new(stream: TcpStream, options: &ClientOptions<'_>) -> Result<Self, String> {
        let connection = Connection::new("upstream")?;
        for (option, value, name) in [
            // For libssh's messages only.
            (Set::SSH_OPTIONS_HOST, "upstream", "host"),
            // Whom to trust is not libssh's question.
            (Set::SSH_OPTIONS_KNOWNHOSTS, "/dev/null", "known hosts"),
            (Set::SSH_OPTIONS_GLOBAL_KNOWNHOSTS, "/dev/null", "known hosts"),
            (Set::SSH_OPTIONS_SSH_DIR, "/dev/null", "directory"),
            (Set::SSH_OPTIONS_CIPHERS_C_S, options.ciphers, "SFTPPROXY_UPSTREAM_CIPHERS"),
            (Set::SSH_OPTIONS_CIPHERS_S_C, options.ciphers, "SFTPPROXY_UPSTREAM_CIPHERS"),
            (Set::SSH_OPTIONS_HMAC_C_S, options.macs, "SFTPPROXY_UPSTREAM_MACS"),
            (Set::SSH_OPTIONS_HMAC_S_C, options.macs, "SFTPPROXY_UPSTREAM_MACS"),
            (Set::SSH_OPTIONS_KEY_EXCHANGE, options.kex, "SFTPPROXY_UPSTREAM_KEX"),
            (Set::SSH_OPTIONS_HOSTKEYS, options.host_key_algorithms, "SFTPPROXY_UPSTREAM_HOSTKEY_ALGORITHMS"),
            (Set::SSH_OPTIONS_PUBLICKEY_ACCEPTED_TYPES, options.pubkey_algorithms, "signatures"),
        ] {
            connection.set_text(option, value, name)?;
        }
        let fd: c_int = stream.as_raw_fd();
        if fd > MAX_FD {
            return Err(format!("more than {MAX_FD} descriptors are open, and libssh knows no more"));
        }
        // SAFETY: the option takes a descriptor.
        unsafe { connection.set(Set::SSH_OPTIONS_FD, (&raw const fd).cast(), "socket")? };
        Ok(Self { connection, stream: Some(stream) })
    }

    /// Goes on with identification lines and key exchange. `Ok(false)` = wait for the socket and call again.
    pub fn connect(&mut self) -> Result<bool, String> {
        // From the first call on the descriptor is libssh's, which may close it within.
        if let Some(stream) = self.stream.take() {
            self.connection.give(stream.into_raw_fd());
        }
        // SAFETY: the session is live and non-blocking.
        let code = unsafe { sys::ssh_connect(self.connection.session) };
        // 0.10 makes the socket blocking again when it finds it connected, and a blocking send(2) may wait for ever.
        unblock(self.connection.fd())?;
        if code == sys::SSH_AGAIN {
            return Ok(false);
        }
        self.connection.mute.set(code != 0);
        check(code, || self.connection.error()).map(|()| true)
    }

    /// The host key that the upstream has shown, and whose possession it has proven.
    pub fn host_key(&self) -> Result<PublicKey, String> {
        let mut key = ptr::null_mut();
        // SAFETY: the session is live; `key` is written on success only and freed here.
        unsafe {
            check(sys::ssh_get_server_publickey(self.connection.session, &mut key), || "the upstream shows no host key".into())?;
            let public = public_half(key);
            sys::ssh_key_free(key);
            public
        }
    }

    /// Logs in with a key.
    pub fn log_in(&mut self, login: &str, key: &PrivateKey) -> Result<Answer, String> {
        let login = c_string(login, "login")?;
        // SAFETY: session and key are live, the name lives during the call.
        self.answered(unsafe { sys::ssh_userauth_publickey(self.connection.session, login.as_ptr(), key.raw()) })
    }

    /// Logs in with one of the keys of the ssh-agent at `SSH_AUTH_SOCK`.
    pub fn log_in_with_agent(&mut self, login: &str) -> Result<Answer, String> {
        let login = c_string(login, "login")?;
        // SAFETY: the session is live, the name lives during the call.
        self.answered(unsafe { sys::ssh_userauth_agent(self.connection.session, login.as_ptr()) })
    }

    fn answered(&self, code: c_int) -> Result<Answer, String> {
        match code {
            sys::ssh_auth_e_SSH_AUTH_SUCCESS => Ok(Answer::Yes),
            sys::ssh_auth_e_SSH_AUTH_AGAIN => Ok(Answer::NotYet),
            sys::ssh_auth_e_SSH_AUTH_DENIED | sys::ssh_auth_e_SSH_AUTH_PARTIAL => Ok(Answer::No),
            _ => Err(self.connection.error()),
        }
    }

    /// Opens a channel of type `session` (RFC 4254 section 6.1). `Ok(false)` = wait for the socket and call again.
    pub fn open_channel(&mut self) -> Result<bool, String> {
        let mut channel = self.connection.channel().channel.get();
        if channel.is_null() {
            // SAFETY: the session is live, and its channel's place is empty.
            channel = unsafe { Connection::make_channel(self.connection.channel(), self.connection.session) };
        }
        if channel.is_null() {
            return Err("libssh: out of memory".into());
        }
        // SAFETY: the channel is live.
        self.done(unsafe { sys::ssh_channel_open_session(channel) })
    }

    /// Asks for the subsystem sftp (RFC 4254 section 6.5). `Ok(false)` = wait for the socket and call again.
    pub fn request_sftp(&mut self) -> Result<bool, String> {
        // SAFETY: the channel is live, the name is static.
        let done =
            self.done(unsafe { sys::ssh_channel_request_subsystem(self.connection.channel().channel.get(), c"sftp".as_ptr()) })?;
        if done {
            self.connection.drive()?;
        }
        Ok(done)
    }

    fn done(&self, code: c_int) -> Result<bool, String> {
        self.connection.raise_panic();
        if code == sys::SSH_AGAIN {
            return Ok(false);
        }
        self.connection.mute.set(code != 0);
        check(code, || self.connection.error()).map(|()| true)
    }

    /// Gives up the channel, which both sides have closed.
    pub fn forget_channel(&mut self) {
        self.connection.forget_channel();
    }
}

impl Deref for ClientSession {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

fn unblock(fd: RawFd) -> Result<(), String> {
    let Some(fd) = borrow_fd(fd) else { return Ok(()) };
    let flags = fcntl(fd, FcntlArg::F_GETFL).map_err(|error| format!("fcntl: {error}"))?;
    let flags = OFlag::from_bits_retain(flags);
    if !flags.contains(OFlag::O_NONBLOCK) {
        fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map_err(|error| format!("fcntl: {error}"))?;
    }
    Ok(())
}
