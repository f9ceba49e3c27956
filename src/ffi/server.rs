//! libssh as the server of one client: key exchange, and the callbacks that answer "no" to everything that is not the one way in: a
//! signature that was verified, one channel of type `session`, the subsystem `sftp`.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem;
use std::net::TcpStream;
use std::ops::Deref;
use std::os::fd::RawFd;
use std::ptr;

use libssh_rs::sys;
use nix::errno::Errno;
use nix::libc;

use super::bind::Bind;
use super::connection::{Channel, Connection};
use super::key::public_half;
use super::{c_string, check, text};
use crate::identity::PublicKey;

/// A public key request as libssh hands it over.
pub struct AuthRequest {
    /// The user name in the request; `Err` when it is not UTF-8.
    pub user: Result<String, String>,
    /// The key in the request; `Err` says why it is none that a user may have (certificates among them).
    pub key: Result<PublicKey, String>,
    /// Whether the request carried a signature and libssh verified it over this session's identifier and this user name.
    /// `false` for a mere offer. Requests with a bad signature never come here.
    pub verified: bool,
}

/// Answers a public key request: whether an offered key is worth a signature, or a proven one lets in.
pub type Judge = Box<dyn FnMut(&AuthRequest) -> bool>;

/// What clients asked for and did not get, counted.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Channel opens and channel requests that were refused.
    pub requests: u32,
    /// The last one's name.
    pub last: &'static str,
}

/// What the callbacks of a server see besides the channel. libssh keeps a pointer to it, so it is boxed, never moved and freed after
/// the session.
struct Context {
    server: sys::ssh_server_callbacks_struct,
    requests: sys::ssh_channel_callbacks_struct,
    /// The connection's, which lives as long.
    channel: *const Channel,
    judge: RefCell<Judge>,
    banner: RefCell<Option<String>>,
    proven: Cell<bool>,
    sftp: Cell<bool>,
    refused: Cell<Refused>,
}

/// More bytes than a client can have sent before it has heard us, and few enough for the kernel to leave its buffers as they are.
const NOT_YET: c_int = 64 * 1024;

/// Below how many bytes poll(2) says that there is nothing to read; an end or an error it always says.
fn readable_from(fd: RawFd, bytes: c_int) -> Result<(), String> {
    let (value, size) = ((&raw const bytes).cast(), mem::size_of::<c_int>() as libc::socklen_t);
    // SAFETY: the value is an int that lives during the call; a descriptor that is none gives EBADF.
    let code = unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVLOWAT, value, size) };
    Errno::result(code).map(|_| ()).map_err(|error| format!("SO_RCVLOWAT: {error}"))
}

/// A session with a client. Not `Send`: made, used and dropped in one thread.
pub struct ServerSession {
    /// Dropped first: libssh looks at the context until then.
    connection: Connection,
    context: Held,
}

/// The box behind libssh's pointer.
struct Held(*mut Context);

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: made in `Context::new`, and the session that looked at it is gone.
        unsafe { drop(Box::from_raw(self.0)) }
    }
}

impl ServerSession {
    /// Hands an accepted, non-blocking connection to libssh. `judge` answers each public key request: for an offer, whether the key is
    /// worth a signature; for a verified one, whether the client is let in. `banner` is shown before the first answer.
    pub fn new(bind: &Bind, stream: TcpStream, banner: Option<String>, judge: Judge) -> Result<Self, String> {
        let connection = Connection::new("client")?;
        let context = Held(Context::new(connection.channel, judge, banner));
        let this = Self { connection, context };
        let session = this.connection.session;
        // SAFETY: the session is fresh; the callbacks live in the context, which is freed after the session.
        unsafe {
            let accepted = bind.accept(session, stream);
            this.connection.give(this.connection.fd());
            accepted?;
            sys::ssh_set_blocking(session, 0);
            check(sys::ssh_set_server_callbacks(session, &raw mut (*this.context.0).server), || this.connection.error())?;
            sys::ssh_set_auth_methods(session, sys::SSH_AUTH_METHOD_PUBLICKEY as c_int);
        }
        Ok(this)
    }

    /// Goes on with the key exchange as far as the socket allows. `Ok(false)` = wait for the socket and call again.
    pub fn exchange(&mut self) -> Result<bool, String> {
        // SAFETY: the session is live and non-blocking.
        let code = unsafe { sys::ssh_handle_key_exchange(self.connection.session) };
        self.connection.raise_panic();
        if code == sys::SSH_AGAIN {
            return Ok(false);
        }
        self.connection.mute.set(code != 0);
        check(code, || self.connection.error())?;
        self.connection.drive().map(|()| true)
    }

    /// Sends our identification before anything of the client's is read. libssh sends at once only when poll(2) has said that it can, and
    /// looks at what came first: it would hold our offer of algorithms back, find the client's behind its identification, and close without
    /// a word when nothing fits. `a_pem_host_key_of_the_predecessor_is_shown_to_clients_with_sha_2_only`
    pub fn speak_first(&mut self) -> Result<(), String> {
        let fd = self.connection.fd();
        readable_from(fd, NOT_YET)?;
        // Once to send it, once more to hear that more could be sent.
        self.exchange()?;
        self.exchange()?;
        readable_from(fd, 1)
    }

    /// The client's identification line (RFC 4253 section 4.2), as it came.
    pub fn client_version(&self) -> String {
        // SAFETY: the session is live; the string is copied.
        unsafe { text(sys::ssh_get_clientbanner(self.connection.session)) }
    }

    /// Whether the client has opened its channel and asked for sftp on it.
    pub fn sftp_requested(&self) -> bool {
        self.context().sftp.get()
    }

    /// What was refused so far.
    pub fn refused(&self) -> Refused {
        self.context().refused.get()
    }

    fn context(&self) -> &Context {
        // SAFETY: freed in `drop` only; all that changes is in cells, and no `&mut` to it is ever made after `new`.
        unsafe { &*self.context.0 }
    }
}

impl Deref for ServerSession {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl Context {
    fn new(channel: *const Channel, judge: Judge, banner: Option<String>) -> *mut Self {
        // SAFETY: both structures are plain C: integers, pointers and optional functions, for which all zeroes is "none".
        let (mut server, mut requests) =
            unsafe { (mem::zeroed::<sys::ssh_server_callbacks_struct>(), mem::zeroed::<sys::ssh_channel_callbacks_struct>()) };
        server.size = mem::size_of_val(&server);
        server.auth_none_function = Some(on_none);
        server.auth_pubkey_function = Some(on_pubkey);
        server.channel_open_request_session_function = Some(on_open);
        requests.size = mem::size_of_val(&requests);
        requests.channel_subsystem_request_function = Some(on_subsystem);
        requests.channel_pty_request_function = Some(on_pty);
        requests.channel_shell_request_function = Some(on_shell);
        requests.channel_exec_request_function = Some(on_exec);
        requests.channel_env_request_function = Some(on_env);
        let this = Box::into_raw(Box::new(Self {
            server,
            requests,
            channel,
            judge: RefCell::new(judge),
            banner: RefCell::new(banner),
            proven: Cell::new(false),
            sftp: Cell::new(false),
            refused: Cell::new(Refused::default()),
        }));
        // SAFETY: just made, and nobody else has it yet.
        unsafe {
            (*this).server.userdata = this.cast();
            (*this).requests.userdata = this.cast();
        }
        this
    }

    fn channel(&self) -> &Channel {
        // SAFETY: the connection frees it after the session, and only a session calls back.
        unsafe { &*self.channel }
    }

    fn refuse(&self, what: &'static str) -> c_int {
        let before = self.refused.get();
        self.refused.set(Refused { requests: before.requests.saturating_add(1), last: what });
        REFUSE
    }

    /// Sends the banner, once: RFC 4252 section 5.4 allows it at any time before the success of authentication.
    fn send_banner(&self, session: sys::ssh_session) {
        let Some(banner) = self.banner.borrow_mut().take() else { return };
        let Ok(banner) = c_string(&banner, "banner") else { return };
        // SAFETY: the session is live and calling back; the string is made and freed here.
        unsafe {
            let string = sys::ssh_string_from_char(banner.as_ptr());
            sys::ssh_send_issue_banner(session, string);
            sys::ssh_string_free(string);
        }
    }
}

/// "No" to a channel request (Linc/callbacks.h: 0 = accepted, 1 = denied).
const REFUSE: c_int = 1;

/// Runs a callback's body: with the context behind `userdata`, never unwinding, `otherwise` being the answer after a panic.
///
/// # Safety
/// `userdata` is the `Context` of the session that calls back.
unsafe fn guard<T>(userdata: *mut c_void, otherwise: T, body: impl FnOnce(&Context) -> T) -> T {
    // SAFETY: as promised; the context outlives the session.
    let context = unsafe { &*userdata.cast::<Context>() };
    context.channel().guard(otherwise, || body(context))
}

/// Authentication methods' answers (Linc/libssh.h: `ssh_auth_e`).
const DENIED: c_int = sys::ssh_auth_e_SSH_AUTH_DENIED;

extern "C" fn on_none(session: sys::ssh_session, _user: *const c_char, userdata: *mut c_void) -> c_int {
    // SAFETY: libssh passes the userdata that `new` has set.
    unsafe {
        guard(userdata, DENIED, |context| {
            context.send_banner(session);
            DENIED
        })
    }
}

extern "C" fn on_pubkey(
    session: sys::ssh_session,
    user: *const c_char,
    key: *mut sys::ssh_key_struct,
    state: c_char,
    userdata: *mut c_void,
) -> c_int {
    // SAFETY: libssh passes the userdata that `new` has set, a key of its own that lives during the call, and a string or NULL.
    unsafe {
        guard(userdata, DENIED, |context| {
            context.send_banner(session);
            // The state is a C char with the values -1, 0, 1, 2, and char's sign differs between machines: only 1 is "verified".
            let verified = state == sys::ssh_publickey_state_e::SSH_PUBLICKEY_STATE_VALID as c_char;
            let offered = state == sys::ssh_publickey_state_e::SSH_PUBLICKEY_STATE_NONE as c_char;
            if user.is_null() || !(verified || offered) || context.proven.get() {
                return DENIED;
            }
            let user = CStr::from_ptr(user).to_str().map(str::to_owned).map_err(|_| "the user name is not UTF-8".to_owned());
            let request = AuthRequest { user, key: public_half(key), verified };
            if !(context.judge.borrow_mut())(&request) {
                return DENIED;
            }
            context.proven.set(verified);
            sys::ssh_auth_e_SSH_AUTH_SUCCESS
        })
    }
}

extern "C" fn on_open(session: sys::ssh_session, userdata: *mut c_void) -> sys::ssh_channel {
    // SAFETY: as in `on_none`; the channel's callbacks live in the context, and are set here because a subsystem request may
    // already be in the same segment.
    unsafe {
        guard(userdata, ptr::null_mut(), |context| {
            if !context.proven.get() || !context.channel().channel.get().is_null() {
                context.refuse("a second channel");
                return ptr::null_mut();
            }
            let channel = Connection::make_channel(context.channel(), session);
            if !channel.is_null() && sys::ssh_add_channel_callbacks(channel, (&raw const context.requests).cast_mut()) != 0 {
                sys::ssh_channel_free(channel);
                context.channel().channel.set(ptr::null_mut());
                return ptr::null_mut();
            }
            channel
        })
    }
}

extern "C" fn on_subsystem(_: sys::ssh_session, _: sys::ssh_channel, name: *const c_char, userdata: *mut c_void) -> c_int {
    // SAFETY: as in `on_none`; the name is a C string or NULL.
    unsafe {
        guard(userdata, REFUSE, |context| {
            if !context.proven.get() || context.sftp.get() || name.is_null() || CStr::from_ptr(name) != c"sftp" {
                return context.refuse("a subsystem other than sftp");
            }
            context.sftp.set(true);
            0
        })
    }
}

extern "C" fn on_pty(
    _: sys::ssh_session,
    _: sys::ssh_channel,
    _: *const c_char,
    _: c_int,
    _: c_int,
    _: c_int,
    _: c_int,
    userdata: *mut c_void,
) -> c_int {
    // SAFETY: as in `on_none`.
    unsafe { guard(userdata, REFUSE, |context| context.refuse("a terminal")) }
}

extern "C" fn on_shell(_: sys::ssh_session, _: sys::ssh_channel, userdata: *mut c_void) -> c_int {
    // SAFETY: as in `on_none`.
    unsafe { guard(userdata, REFUSE, |context| context.refuse("a shell")) }
}

extern "C" fn on_exec(_: sys::ssh_session, _: sys::ssh_channel, _: *const c_char, userdata: *mut c_void) -> c_int {
    // SAFETY: as in `on_none`.
    unsafe { guard(userdata, REFUSE, |context| context.refuse("a command")) }
}

extern "C" fn on_env(
    _: sys::ssh_session,
    _: sys::ssh_channel,
    _: *const c_char,
    _: *const c_char,
    userdata: *mut c_void,
) -> c_int {
    // SAFETY: as in `on_none`.
    unsafe { guard(userdata, REFUSE, |context| context.refuse("an environment variable")) }
}
