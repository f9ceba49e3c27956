//! One client's libssh session, without blocking: callbacks, key exchange, channel.
//!
//! libssh calls back from within [`ServerSession::advance`] only. A callback never writes to the channel, never unwinds into C (a
//! panic is caught and raised again on the Rust side) and answers "no" to everything that is not the one way in: a signature that
//! was verified, one channel of type `session`, the subsystem `sftp`.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem;
use std::net::TcpStream;
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;

use libssh_rs::sys;

use super::bind::Bind;
use super::key::public_half;
use super::{c_string, check, last_error, text};
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

/// Received bytes that a channel may hold: twice libssh's largest window (2 MiB). libssh 0.10 takes whatever a client sends beyond
/// the window, as far as the memory goes.
const MAX_HELD: u32 = 4 * 1024 * 1024;

/// What the callbacks see. libssh keeps a pointer to it, so it is boxed, never moved and freed after the session.
struct Context {
    server: sys::ssh_server_callbacks_struct,
    channels: sys::ssh_channel_callbacks_struct,
    judge: RefCell<Judge>,
    banner: RefCell<Option<String>>,
    proven: Cell<bool>,
    channel: Cell<sys::ssh_channel>,
    sftp: Cell<bool>,
    closed: Cell<bool>,
    overrun: Cell<bool>,
    refused: Cell<Refused>,
    panic: RefCell<Option<Box<dyn Any + Send>>>,
}

/// A session with a client. Not `Send`: made, used and dropped in one thread.
pub struct ServerSession {
    session: sys::ssh_session,
    event: sys::ssh_event,
    context: *mut Context,
}

impl ServerSession {
    /// Hands an accepted, non-blocking connection to libssh. `judge` answers each public key request: for an offer, whether the key is
    /// worth a signature; for a verified one, whether the client is let in. `banner` is shown before the first answer.
    pub fn new(bind: &Bind, stream: TcpStream, banner: Option<String>, judge: Judge) -> Result<Self, String> {
        // SAFETY: makes an object or gives NULL.
        let session = unsafe { sys::ssh_new() };
        if session.is_null() {
            return Err("libssh: out of memory".into());
        }
        let context = Box::into_raw(Context::new(judge, banner));
        let this = Self { session, event: ptr::null_mut(), context };
        // SAFETY: the session is fresh; the callbacks live in `context`, which is freed after the session (see `drop`).
        unsafe {
            sys::ssh_set_blocking(session, 0);
            for option in [sys::ssh_options_e::SSH_OPTIONS_COMPRESSION_C_S, sys::ssh_options_e::SSH_OPTIONS_COMPRESSION_S_C] {
                let none = c_string("none", "compression")?;
                check(sys::ssh_options_set(session, option, none.as_ptr().cast()), || "compression".into())?;
            }
            bind.accept(session, stream)?;
            sys::ssh_set_blocking(session, 0);
            (*context).server.userdata = context.cast();
            (*context).channels.userdata = context.cast();
            check(sys::ssh_set_server_callbacks(session, &raw mut (*context).server), || this.error())?;
            sys::ssh_set_auth_methods(session, sys::SSH_AUTH_METHOD_PUBLICKEY as c_int);
        }
        Ok(this)
    }

    /// Goes on with the key exchange as far as the socket allows. `Ok(false)` = wait for the socket and call again.
    pub fn exchange(&mut self) -> Result<bool, String> {
        // SAFETY: the session is live and non-blocking.
        let code = unsafe { sys::ssh_handle_key_exchange(self.session) };
        self.raise_panic();
        if code == sys::SSH_AGAIN {
            return Ok(false);
        }
        check(code, || self.error())?;
        // SAFETY: the session is live; the event is freed before it.
        unsafe {
            self.event = sys::ssh_event_new();
            if self.event.is_null() {
                return Err("libssh: out of memory".into());
            }
            check(sys::ssh_event_add_session(self.event, self.session), || self.error())?;
        }
        Ok(true)
    }

    /// Receives and sends what the socket allows now, once: at most one recv(2) of 4 KiB in Debian's libssh. Callbacks run here.
    /// `Ok(false)` = nothing to do until the socket is ready.
    pub fn advance(&mut self) -> Result<bool, String> {
        // SAFETY: the event is live and holds this session only.
        let code = unsafe { sys::ssh_event_dopoll(self.event, 0) };
        self.raise_panic();
        // SAFETY: the session is live.
        if code == sys::SSH_ERROR || unsafe { sys::ssh_is_connected(self.session) } == 0 {
            return Err(self.error());
        }
        if self.context().overrun.get() {
            return Err("the client sends data beyond the window".into());
        }
        Ok(code != sys::SSH_AGAIN)
    }

    /// The socket, for poll(2) only.
    pub fn fd(&self) -> RawFd {
        // SAFETY: the session is live.
        unsafe { sys::ssh_get_fd(self.session) }
    }

    /// Whether libssh holds bytes that the socket has not taken yet.
    pub fn unsent(&self) -> bool {
        // SAFETY: the session is live.
        let status = unsafe { sys::ssh_get_status(self.session) };
        status & sys::SSH_WRITE_PENDING as c_int != 0
    }

    /// Whether libssh has met an error that it may not have answered: the client would wait for ever.
    pub fn failed(&self) -> bool {
        // SAFETY: the session is live.
        unsafe { sys::ssh_get_error_code(self.session.cast()) == sys::ssh_error_types_e_SSH_FATAL as c_int }
    }

    /// libssh's last error, fit for a log line. What it says of a client that went is said in words.
    pub fn error(&self) -> String {
        // SAFETY: the session is live.
        let said = unsafe { last_error(self.session.cast()) };
        match said.strip_prefix("Received SSH_MSG_DISCONNECT: ") {
            Some(reason) => format!("the client disconnected ({reason})"),
            None if said.starts_with("Socket error: ") => "the client disconnected".into(),
            None => said,
        }
    }

    /// The client's identification line (RFC 4253 section 4.2), as it came.
    pub fn client_version(&self) -> String {
        // SAFETY: the session is live; the string is copied.
        unsafe { text(sys::ssh_get_clientbanner(self.session)) }
    }

    /// The cipher from the client and the one towards it.
    pub fn ciphers(&self) -> (String, String) {
        // SAFETY: the session is live; the strings are static.
        unsafe { (text(sys::ssh_get_cipher_in(self.session)), text(sys::ssh_get_cipher_out(self.session))) }
    }

    /// Whether the client has opened its channel and asked for sftp on it.
    pub fn sftp_requested(&self) -> bool {
        self.context().sftp.get()
    }

    /// What was refused so far.
    pub fn refused(&self) -> Refused {
        self.context().refused.get()
    }

    /// Bytes that can be read from the channel without asking the socket.
    pub fn readable(&self) -> usize {
        let channel = self.context().channel.get();
        if channel.is_null() {
            return 0;
        }
        // SAFETY: the channel lives as long as the session.
        usize::try_from(unsafe { sys::ssh_channel_poll(channel, 0) }).unwrap_or(0)
    }

    /// Appends at most `most` received bytes of the channel to `buffer` and says how many.
    pub fn read(&mut self, buffer: &mut Vec<u8>, most: usize) -> Result<usize, String> {
        let channel = self.context().channel.get();
        if channel.is_null() {
            return Ok(0);
        }
        buffer.reserve(most);
        let room = u32::try_from(most).unwrap_or(u32::MAX);
        // SAFETY: at least `most` bytes of spare capacity follow the vector's end; libssh writes at most `room` of them.
        let code = unsafe {
            let end = buffer.as_mut_ptr().add(buffer.len());
            sys::ssh_channel_read_nonblocking(channel, end.cast(), room, 0)
        };
        self.raise_panic();
        if code == sys::SSH_EOF || code == sys::SSH_AGAIN {
            return Ok(0);
        }
        let count = usize::try_from(code).map_err(|_| self.error())?;
        // SAFETY: libssh has written `count` bytes there.
        unsafe { buffer.set_len(buffer.len() + count) };
        Ok(count)
    }

    /// Gives bytes to the channel and says how many it took: fewer when the window is full, none while keys are exchanged.
    /// To be called only while [`Self::unsent`] is false, or libssh's buffer grows without bound.
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, String> {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        // SAFETY: the channel is live; libssh reads `length` bytes, which are there.
        let code = unsafe { sys::ssh_channel_write(self.context().channel.get(), bytes.as_ptr().cast(), length) };
        self.raise_panic();
        usize::try_from(code).map_err(|_| self.error())
    }

    /// Gives bytes to the channel's stderr; as [`Self::write`].
    pub fn write_stderr(&mut self, bytes: &[u8]) -> Result<usize, String> {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        // SAFETY: as in `write`.
        let code = unsafe { sys::ssh_channel_write_stderr(self.context().channel.get(), bytes.as_ptr().cast(), length) };
        self.raise_panic();
        usize::try_from(code).map_err(|_| self.error())
    }

    /// Whether the client will send no more data and all of it has been read.
    pub fn at_eof(&self) -> bool {
        let channel = self.context().channel.get();
        // SAFETY: the channel is live.
        !channel.is_null() && unsafe { sys::ssh_channel_is_eof(channel) } != 0
    }

    /// Whether the client has closed the channel. (`ssh_channel_is_closed` is also true when only we have.)
    pub fn is_closed(&self) -> bool {
        self.context().closed.get()
    }

    /// Says that no more data will come.
    pub fn send_eof(&mut self) -> Result<(), String> {
        // SAFETY: the channel is live.
        self.sent(unsafe { sys::ssh_channel_send_eof(self.context().channel.get()) })
    }

    /// Tells the exit status of the subsystem (RFC 4254 section 6.10).
    pub fn send_exit_status(&mut self, status: i32) -> Result<(), String> {
        // SAFETY: the channel is live.
        self.sent(unsafe { sys::ssh_channel_request_send_exit_status(self.context().channel.get(), status) })
    }

    /// Closes our side of the channel.
    pub fn close_channel(&mut self) -> Result<(), String> {
        // SAFETY: the channel is live; it is freed with the session.
        self.sent(unsafe { sys::ssh_channel_close(self.context().channel.get()) })
    }

    /// A packet was made: "again" only says that the socket has not taken it yet.
    fn sent(&self, code: c_int) -> Result<(), String> {
        check(if code == sys::SSH_AGAIN { 0 } else { code }, || self.error())
    }

    fn context(&self) -> &Context {
        // SAFETY: made in `new`, freed in `drop`; all that changes is in cells, and no `&mut` to it is ever made after `new`.
        unsafe { &*self.context }
    }

    /// Raises a callback's panic on this side.
    fn raise_panic(&self) {
        let panic = self.context().panic.borrow_mut().take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

impl Drop for ServerSession {
    fn drop(&mut self) {
        // SAFETY: in libssh's order: the event looks at the session, the session (and its channels) at the callbacks.
        unsafe {
            if !self.event.is_null() {
                sys::ssh_event_remove_session(self.event, self.session);
                sys::ssh_event_free(self.event);
            }
            sys::ssh_disconnect(self.session);
            sys::ssh_free(self.session);
            drop(Box::from_raw(self.context));
        }
    }
}

impl Context {
    fn new(judge: Judge, banner: Option<String>) -> Box<Self> {
        // SAFETY: both structures are plain C: integers, pointers and optional functions, for which all zeroes is "none".
        let (mut server, mut channels) =
            unsafe { (mem::zeroed::<sys::ssh_server_callbacks_struct>(), mem::zeroed::<sys::ssh_channel_callbacks_struct>()) };
        server.size = mem::size_of_val(&server);
        server.auth_none_function = Some(on_none);
        server.auth_pubkey_function = Some(on_pubkey);
        server.channel_open_request_session_function = Some(on_open);
        channels.size = mem::size_of_val(&channels);
        channels.channel_data_function = Some(on_data);
        channels.channel_close_function = Some(on_close);
        channels.channel_subsystem_request_function = Some(on_subsystem);
        channels.channel_pty_request_function = Some(on_pty);
        channels.channel_shell_request_function = Some(on_shell);
        channels.channel_exec_request_function = Some(on_exec);
        channels.channel_env_request_function = Some(on_env);
        Box::new(Self {
            server,
            channels,
            judge: RefCell::new(judge),
            banner: RefCell::new(banner),
            proven: Cell::new(false),
            channel: Cell::new(ptr::null_mut()),
            sftp: Cell::new(false),
            closed: Cell::new(false),
            overrun: Cell::new(false),
            refused: Cell::new(Refused::default()),
            panic: RefCell::new(None),
        })
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
    catch_unwind(AssertUnwindSafe(|| body(context))).unwrap_or_else(|panic| {
        *context.panic.borrow_mut() = Some(panic);
        otherwise
    })
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
            if !context.proven.get() || !context.channel.get().is_null() {
                context.refuse("a second channel");
                return ptr::null_mut();
            }
            let channel = sys::ssh_channel_new(session);
            if channel.is_null() {
                return channel;
            }
            let callbacks = (&raw const context.channels).cast_mut();
            if sys::ssh_set_channel_callbacks(channel, callbacks) != 0 {
                sys::ssh_channel_free(channel);
                return ptr::null_mut();
            }
            context.channel.set(channel);
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

/// Sees what the channel holds. Requests stay there until they are read; extended data, which mean nothing from a client, are dropped.
extern "C" fn on_data(
    _: sys::ssh_session,
    _: sys::ssh_channel,
    _: *mut c_void,
    held: u32,
    is_stderr: c_int,
    userdata: *mut c_void,
) -> c_int {
    // SAFETY: as in `on_none`. The data are not touched.
    unsafe {
        guard(userdata, 0, |context| {
            if is_stderr != 0 {
                return c_int::try_from(held).unwrap_or(c_int::MAX);
            }
            context.overrun.set(context.overrun.get() || held > MAX_HELD);
            0
        })
    }
}

extern "C" fn on_close(_: sys::ssh_session, _: sys::ssh_channel, userdata: *mut c_void) {
    // SAFETY: as in `on_none`. The channel is not touched: libssh still uses it after this call.
    unsafe { guard(userdata, (), |context| context.closed.set(true)) }
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
