//! What all sessions of the server share: host keys and algorithms. It never listens; we own accept(2).

use std::ffi::c_void;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::sync::{Mutex, PoisonError};

use libssh_rs::sys;
use libssh_rs::sys::ssh_bind_options_e as Bound;

use super::key::PrivateKey;
use super::{c_string, check, last_error};

/// What a [`Bind`] is made of. Lists are name-lists as in RFC 4251; names that libssh does not know are left out by it.
pub struct BindOptions<'a> {
    /// Ciphers, both directions.
    pub ciphers: &'a str,
    /// MACs, both directions.
    pub macs: &'a str,
    /// Key exchange methods.
    pub kex: &'a str,
    /// Signatures of our host keys.
    pub host_key_algorithms: &'a str,
    /// Accepted signatures of users' keys; also what `server-sig-algs` (RFC 8308) announces.
    pub pubkey_algorithms: &'a str,
    /// Smallest RSA key in bits.
    pub rsa_min_bits: u32,
    /// Software version in our identification line, without `SSH-2.0-`.
    pub software: &'a str,
}

/// Host keys and options, shared by all threads.
pub struct Bind(Mutex<Raw>);

struct Raw(sys::ssh_bind);

// SAFETY: an ssh_bind has no thread of its own; it is only touched under the mutex.
unsafe impl Send for Raw {}

impl Bind {
    /// Takes the host keys, at most one of each type, and sets every option; an error names the option.
    pub fn new(keys: Vec<PrivateKey>, options: &BindOptions<'_>) -> Result<Self, String> {
        // SAFETY: makes an object or gives NULL.
        let raw = Raw(unsafe { sys::ssh_bind_new() });
        if raw.0.is_null() {
            return Err("libssh: out of memory".into());
        }
        // 0.10 reads /etc/ssh/libssh_server_config in ssh_bind_accept_fd unless told not to: before everything else.
        let no = false;
        raw.set(Bound::SSH_BIND_OPTIONS_PROCESS_CONFIG, (&raw const no).cast(), "configuration files")?;
        let rsa_min = i32::try_from(options.rsa_min_bits).unwrap_or(i32::MAX);
        raw.set(Bound::SSH_BIND_OPTIONS_RSA_MIN_SIZE, (&raw const rsa_min).cast(), "SFTPPROXY_RSA_MIN_SIZE")?;
        for (option, value, name) in [
            (Bound::SSH_BIND_OPTIONS_CIPHERS_C_S, options.ciphers, "SFTPPROXY_CIPHERS"),
            (Bound::SSH_BIND_OPTIONS_CIPHERS_S_C, options.ciphers, "SFTPPROXY_CIPHERS"),
            (Bound::SSH_BIND_OPTIONS_HMAC_C_S, options.macs, "SFTPPROXY_MACS"),
            (Bound::SSH_BIND_OPTIONS_HMAC_S_C, options.macs, "SFTPPROXY_MACS"),
            (Bound::SSH_BIND_OPTIONS_KEY_EXCHANGE, options.kex, "SFTPPROXY_KEX"),
            (Bound::SSH_BIND_OPTIONS_HOSTKEY_ALGORITHMS, options.host_key_algorithms, "SFTPPROXY_HOSTKEY_ALGORITHMS"),
            (Bound::SSH_BIND_OPTIONS_PUBKEY_ACCEPTED_KEY_TYPES, options.pubkey_algorithms, "SFTPPROXY_PUBKEY_ALGORITHMS"),
            (Bound::SSH_BIND_OPTIONS_BANNER, options.software, "software version"),
        ] {
            let value = c_string(value, name)?;
            raw.set(option, value.as_ptr().cast(), name)?;
        }
        for key in keys {
            raw.import(key)?;
        }
        Ok(Self(Mutex::new(raw)))
    }

    /// Gives an accepted connection to a new libssh session. On success libssh owns the descriptor.
    ///
    /// # Safety
    /// `session` is a fresh session of this thread.
    pub(super) unsafe fn accept(&self, session: sys::ssh_session, stream: TcpStream) -> Result<(), String> {
        let raw = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fd = stream.as_raw_fd();
        // SAFETY: bind and session are live, the bind is locked, the descriptor is ours and open.
        let code = unsafe { sys::ssh_bind_accept_fd(raw.0, session, fd) };
        // libssh may have taken the descriptor before it failed: then freeing the session closes it, and we must not.
        // SAFETY: the session is live.
        if code == 0 || unsafe { sys::ssh_get_fd(session) } == fd {
            let _ = stream.into_raw_fd();
        }
        // SAFETY: the bind is live and locked.
        check(code, || unsafe { last_error(raw.0.cast()) })
    }
}

impl Raw {
    fn set(&self, option: Bound, value: *const c_void, name: &str) -> Result<(), String> {
        // SAFETY: the bind is live; each caller passes the type that the option takes, alive during the call (libssh copies it).
        let code = unsafe { sys::ssh_bind_options_set(self.0, option, value) };
        // SAFETY: the bind is live.
        check(code, || format!("{name}: {}", unsafe { last_error(self.0.cast()) }))
    }

    fn import(&self, key: PrivateKey) -> Result<(), String> {
        let key = key.into_raw();
        // SAFETY: the bind is live; on success it owns the key.
        let code = unsafe { sys::ssh_bind_options_set(self.0, Bound::SSH_BIND_OPTIONS_IMPORT_KEY, key.cast()) };
        if code != 0 {
            // SAFETY: on failure the key is still ours.
            unsafe { sys::ssh_key_free(key) };
        }
        // SAFETY: the bind is live.
        check(code, || format!("host key: {}", unsafe { last_error(self.0.cast()) }))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // SAFETY: the bind is ours and is not used again; it frees the keys.
        unsafe { sys::ssh_bind_free(self.0) }
    }
}
