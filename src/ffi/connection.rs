//! What both ends of libssh have in common: a session without blocking, the event that drives it, and its one channel.
//!
//! A channel's callbacks run from within [`Connection::advance`] and the calls that a [`super::ClientSession`] makes before it. They
//! never write to the channel and never unwind into C: a panic is caught and raised again on the Rust side.

use std::any::Any;
use std::cell::{Cell, RefCell, UnsafeCell};
use std::ffi::{c_int, c_void};
use std::mem;
use std::os::fd::{BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::time::Duration;

use libssh_rs::sys;
use nix::sys::stat::fstat;

use super::{c_string, check, last_error, text};
use crate::identity::Negotiated;

/// Received bytes that a channel may hold before its window was opened wide: twice what libssh opens by itself (2 MiB). libssh 0.10
/// takes whatever a peer sends beyond the window, as far as the memory goes.
const MAX_HELD: u32 = 4 * 1024 * 1024;

/// What the callbacks see of the channel. libssh keeps a pointer to it, so it is boxed, never moved and freed after the session.
pub(super) struct Channel {
    callbacks: sys::ssh_channel_callbacks_struct,
    /// The session's own.
    of_session: sys::ssh_callbacks_struct,
    pub(super) channel: Cell<sys::ssh_channel>,
    closed: Cell<bool>,
    /// Received bytes that it holds, as the callback was told: libssh itself asks the socket for more before it says "none".
    held: Cell<usize>,
    /// What libssh counts of the socket.
    counter: UnsafeCell<sys::ssh_counter_struct>,
    /// Received bytes that it may hold.
    most: Cell<u32>,
    overrun: Cell<bool>,
    exit_status: Cell<Option<i32>>,
    /// How many key exchanges the peer has begun, or answered, and whether the last one is still going on.
    exchanges: Cell<(u64, bool)>,
    pub(super) panic: RefCell<Option<Box<dyn Any + Send>>>,
}

/// A libssh session and its channel. Neither `Send` nor `Sync`: one thread at a time, which is whoever owns it. All of it goes through
/// `&self`, so that nobody can take it out of the session that its callbacks belong to.
pub struct Connection {
    pub(super) session: sys::ssh_session,
    event: Cell<sys::ssh_event>,
    pub(super) channel: *mut Channel,
    /// The first key exchange has failed: the connection ends without a word.
    pub(super) mute: Cell<bool>,
    /// The socket that libssh was given: the descriptor, and which one it is.
    given: Cell<Option<(RawFd, Number)>>,
    /// Who is on the other side, for messages.
    peer: &'static str,
}

impl Connection {
    /// A session that does not block, reads no configuration file and offers no compression.
    pub(super) fn new(peer: &'static str) -> Result<Self, String> {
        // SAFETY: makes an object or gives NULL.
        let session = unsafe { sys::ssh_new() };
        if session.is_null() {
            return Err("libssh: out of memory".into());
        }
        let this = Self {
            session,
            event: Cell::new(ptr::null_mut()),
            channel: Channel::new(),
            mute: Cell::new(false),
            given: Cell::new(None),
            peer,
        };
        // SAFETY: the session is fresh; the counter is freed after it.
        unsafe {
            sys::ssh_set_blocking(session, 0);
            sys::ssh_set_counters(session, this.channel().counter.get(), ptr::null_mut());
            sys::ssh_set_callbacks(session, (&raw const this.channel().of_session).cast_mut());
        }
        let no = false;
        // SAFETY: the option takes a bool.
        unsafe { this.set(sys::ssh_options_e::SSH_OPTIONS_PROCESS_CONFIG, (&raw const no).cast(), "configuration files")? };
        this.set_text(sys::ssh_options_e::SSH_OPTIONS_COMPRESSION_C_S, "none", "compression")?;
        this.set_text(sys::ssh_options_e::SSH_OPTIONS_COMPRESSION_S_C, "none", "compression")?;
        Ok(this)
    }

    /// Sets an option that is a text; `name` is what an error calls it.
    pub(super) fn set_text(&self, option: sys::ssh_options_e, value: &str, name: &str) -> Result<(), String> {
        let value = c_string(value, name)?;
        // SAFETY: the caller names an option that takes a string, which libssh copies.
        unsafe { self.set(option, value.as_ptr().cast(), name) }
    }

    /// # Safety
    /// `value` points to what the option takes.
    pub(super) unsafe fn set(&self, option: sys::ssh_options_e, value: *const c_void, name: &str) -> Result<(), String> {
        // SAFETY: the session is live; the rest is as promised.
        check(unsafe { sys::ssh_options_set(self.session, option, value) }, || format!("{name}: {}", self.error()))
    }

    /// Makes the event that [`Self::advance`] drives; to be called when nothing else drives the session any more.
    pub(super) fn drive(&self) -> Result<(), String> {
        if !self.event.get().is_null() {
            return Ok(());
        }
        // SAFETY: the session is live; the event is freed before it.
        unsafe {
            let event = sys::ssh_event_new();
            if event.is_null() {
                return Err("libssh: out of memory".into());
            }
            self.event.set(event);
            check(sys::ssh_event_add_session(event, self.session), || self.error())
        }
    }

    /// Makes the channel, with its callbacks; NULL when there is no memory.
    ///
    /// # Safety
    /// `channel` and `session` belong together, and `channel` has no channel yet or one that is freed.
    pub(super) unsafe fn make_channel(channel: &Channel, session: sys::ssh_session) -> sys::ssh_channel {
        // SAFETY: the session is live; the callbacks live in `channel`, which is freed after the session.
        unsafe {
            let made = sys::ssh_channel_new(session);
            if made.is_null() {
                return made;
            }
            if sys::ssh_set_channel_callbacks(made, (&raw const channel.callbacks).cast_mut()) != 0 {
                sys::ssh_channel_free(made);
                return ptr::null_mut();
            }
            channel.channel.set(made);
            made
        }
    }

    /// Frees the channel, which both sides have closed, so that another one can be made.
    pub(super) fn forget_channel(&self) {
        let state = self.channel();
        let channel = state.channel.replace(ptr::null_mut());
        state.closed.set(false);
        state.held.set(0);
        state.most.set(MAX_HELD);
        state.overrun.set(false);
        state.exit_status.set(None);
        if !channel.is_null() {
            // SAFETY: the channel is live, and nobody has it any more.
            unsafe { sys::ssh_channel_free(channel) };
        }
    }

    /// Receives and sends what the socket allows now, once: at most one recv(2) of 4 KiB in Debian's libssh. Callbacks run here.
    /// `Ok(false)` = nothing to do until the socket is ready.
    pub fn advance(&self) -> Result<bool, String> {
        // SAFETY: the event is live and holds this session only.
        let code = unsafe { sys::ssh_event_dopoll(self.event.get(), 0) };
        self.raise_panic();
        // SAFETY: the session is live.
        if code == sys::SSH_ERROR || unsafe { sys::ssh_is_connected(self.session) } == 0 {
            return Err(self.error());
        }
        if self.channel().overrun.get() {
            return Err(format!("the {} sends data beyond the window", self.peer));
        }
        Ok(code != sys::SSH_AGAIN)
    }

    /// Bytes that came from the socket so far, what they are made of included.
    pub fn received(&self) -> u64 {
        // SAFETY: libssh writes here only within its own calls, none of which is under way.
        unsafe { (*self.channel().counter.get()).in_bytes }
    }

    /// The socket, for poll(2) only.
    pub fn fd(&self) -> RawFd {
        // SAFETY: the session is live.
        unsafe { sys::ssh_get_fd(self.session) }
    }

    /// From now on this descriptor is libssh's to close.
    pub(super) fn give(&self, fd: RawFd) {
        self.given.set(number(fd).map(|socket| (fd, socket)));
    }

    /// Whether libssh holds bytes that the socket has not taken yet.
    pub fn unsent(&self) -> bool {
        // SAFETY: the session is live.
        let status = unsafe { sys::ssh_get_status(self.session) };
        status & sys::SSH_WRITE_PENDING as c_int != 0
    }

    /// Whether libssh has met an error that it may not have answered: the peer would wait for ever.
    pub fn failed(&self) -> bool {
        // SAFETY: the session is live.
        unsafe { sys::ssh_get_error_code(self.session.cast()) == sys::ssh_error_types_e_SSH_FATAL as c_int }
    }

    /// libssh's last error, fit for a log line. What it says of a peer that went is said in words.
    pub fn error(&self) -> String {
        // SAFETY: the session is live.
        let said = unsafe { last_error(self.session.cast()) };
        match said.strip_prefix("Received SSH_MSG_DISCONNECT: ") {
            Some(reason) => format!("the {} disconnected ({reason})", self.peer),
            None if said.starts_with("Socket error: ") => format!("the {} disconnected", self.peer),
            None => said,
        }
    }

    /// Lets what libssh holds leave, for at most this long: a last word to a peer with whom nothing can be agreed.
    pub fn flush(&self, limit: Duration) {
        // SAFETY: the session is live.
        unsafe { sys::ssh_blocking_flush(self.session, c_int::try_from(limit.as_millis()).unwrap_or(c_int::MAX)) };
        self.raise_panic();
    }

    /// Gives the reason with which the connection ends when this is dropped, and lets what libssh holds leave before, for at most this long.
    pub fn disconnect_with(&self, reason: &str, limit: Duration) {
        let Ok(reason) = c_string(reason, "reason") else { return };
        // SAFETY: the session is live; libssh copies the string.
        unsafe { sys::ssh_session_set_disconnect_message(self.session, reason.as_ptr()) };
        self.flush(limit);
        // libssh sends at once only what comes after poll(2) has said that it can.
        let _ = self.advance();
    }

    /// The cipher from the peer and the one towards it.
    pub fn ciphers(&self) -> (String, String) {
        // SAFETY: the session is live; the strings are static.
        unsafe { (text(sys::ssh_get_cipher_in(self.session)), text(sys::ssh_get_cipher_out(self.session))) }
    }

    /// What the key exchange has agreed on; cipher and MAC are those of the packets that come in, or of those that go out.
    pub fn negotiated(&self, incoming: bool) -> Negotiated {
        let session = self.session;
        // SAFETY: the session is live; the strings are static.
        unsafe {
            let (cipher, mac) = if incoming {
                (sys::ssh_get_cipher_in(session), sys::ssh_get_hmac_in(session))
            } else {
                (sys::ssh_get_cipher_out(session), sys::ssh_get_hmac_out(session))
            };
            Negotiated { kex: text(sys::ssh_get_kex_algo(session)), cipher: text(cipher), mac: text(mac) }
        }
    }

    /// Which key exchange is going on, if the peer's part of one has come (its KEXINIT, RFC 4253 section 7.1) and the end has not.
    pub fn exchanging(&self) -> Option<u64> {
        let (number, under_way) = self.channel().exchanges.get();
        under_way.then_some(number)
    }

    /// Bytes that can be read from the channel.
    pub fn readable(&self) -> usize {
        self.channel().held.get()
    }

    /// Appends at most `most` received bytes of the channel to `buffer` and says how many. The socket is not asked.
    pub fn read(&self, buffer: &mut Vec<u8>, most: usize) -> Result<usize, String> {
        let channel = self.channel().channel.get();
        if channel.is_null() || self.readable() == 0 {
            return Ok(0);
        }
        buffer.try_reserve(most).map_err(|_| "no memory for what is received")?;
        let room = u32::try_from(most).unwrap_or(u32::MAX);
        // SAFETY: at least `most` bytes of spare capacity follow the vector's end; libssh writes at most `room` of them.
        let code = unsafe {
            let end = buffer.as_mut_ptr().add(buffer.len());
            sys::ssh_channel_read_nonblocking(channel, end.cast(), room, 0)
        };
        self.took(buffer, code)
    }

    /// Reads all that the channel holds into an empty `buffer` with room for `window` bytes, which makes libssh 0.10 open the window
    /// that far; later ones keep to their 2 MiB. To be called only when something is [`Self::readable`].
    pub fn read_wide(&self, buffer: &mut Vec<u8>, window: u32) -> Result<usize, String> {
        let channel = self.channel().channel.get();
        if channel.is_null() {
            return Ok(0);
        }
        buffer.try_reserve(window as usize).map_err(|_| "no memory for what is received")?;
        self.channel().most.set(MAX_HELD.saturating_add(window));
        // SAFETY: as in `read`; the timeout of 0 is "do not wait".
        let code = unsafe {
            let end = buffer.as_mut_ptr().add(buffer.len());
            sys::ssh_channel_read_timeout(channel, end.cast(), window, 0, 0)
        };
        self.took(buffer, code)
    }

    fn took(&self, buffer: &mut Vec<u8>, code: c_int) -> Result<usize, String> {
        self.raise_panic();
        if code == sys::SSH_EOF || code == sys::SSH_AGAIN {
            return Ok(0);
        }
        let count = usize::try_from(code).map_err(|_| self.error())?;
        let held = &self.channel().held;
        held.set(held.get().saturating_sub(count));
        // SAFETY: libssh has written `count` bytes behind the vector's end.
        unsafe { buffer.set_len(buffer.len() + count) };
        Ok(count)
    }

    /// Gives bytes to the channel and says how many it took: fewer when the window is full, none while keys are exchanged.
    /// To be called only while [`Self::unsent`] is false, or libssh's buffer grows without bound.
    pub fn write(&self, bytes: &[u8]) -> Result<usize, String> {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        // SAFETY: the channel is live; libssh reads `length` bytes, which are there.
        let code = unsafe { sys::ssh_channel_write(self.channel().channel.get(), bytes.as_ptr().cast(), length) };
        self.raise_panic();
        usize::try_from(code).map_err(|_| self.error())
    }

    /// Gives bytes to the channel's stderr; as [`Self::write`].
    pub fn write_stderr(&self, bytes: &[u8]) -> Result<usize, String> {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        // SAFETY: as in `write`.
        let code = unsafe { sys::ssh_channel_write_stderr(self.channel().channel.get(), bytes.as_ptr().cast(), length) };
        self.raise_panic();
        usize::try_from(code).map_err(|_| self.error())
    }

    /// Whether the peer will send no more data and all of it has been read.
    pub fn at_eof(&self) -> bool {
        let channel = self.channel().channel.get();
        // SAFETY: the channel is live.
        !channel.is_null() && unsafe { sys::ssh_channel_is_eof(channel) } != 0
    }

    /// Whether the peer has closed the channel. (`ssh_channel_is_closed` is also true when only we have.)
    pub fn is_closed(&self) -> bool {
        self.channel().closed.get()
    }

    /// The exit status that the peer has told, if it has (RFC 4254 section 6.10).
    pub fn exit_status(&self) -> Option<i32> {
        self.channel().exit_status.get()
    }

    /// Says that no more data will come.
    pub fn send_eof(&self) -> Result<(), String> {
        // SAFETY: the channel is live.
        self.sent(unsafe { sys::ssh_channel_send_eof(self.channel().channel.get()) })
    }

    /// Tells the exit status of the subsystem (RFC 4254 section 6.10).
    pub fn send_exit_status(&self, status: i32) -> Result<(), String> {
        // SAFETY: the channel is live.
        self.sent(unsafe { sys::ssh_channel_request_send_exit_status(self.channel().channel.get(), status) })
    }

    /// Closes our side of the channel.
    pub fn close_channel(&self) -> Result<(), String> {
        // SAFETY: the channel is live; it is freed with the session.
        self.sent(unsafe { sys::ssh_channel_close(self.channel().channel.get()) })
    }

    /// A packet was made: "again" only says that the socket has not taken it yet.
    fn sent(&self, code: c_int) -> Result<(), String> {
        check(if code == sys::SSH_AGAIN { 0 } else { code }, || self.error())
    }

    pub(super) fn channel(&self) -> &Channel {
        // SAFETY: made in `new`, freed in `drop`; all that changes is in cells, and no `&mut` to it is ever made.
        unsafe { &*self.channel }
    }

    /// Raises a callback's panic on this side.
    pub(super) fn raise_panic(&self) {
        let panic = self.channel().panic.borrow_mut().take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: in libssh's order: the event looks at the session, the session (and its channels) at the callbacks. What is closed at the end
        // is nobody else's: it is the session's socket still, and the session has gone.
        unsafe {
            let event = self.event.get();
            if !event.is_null() {
                sys::ssh_event_remove_session(event, self.session);
                sys::ssh_event_free(event);
            }
            // libssh does not close a socket that was set by this option, as a client's is.
            sys::ssh_options_set(self.session, sys::ssh_options_e::SSH_OPTIONS_FD, ptr::null());
            if self.mute.get() {
                // A key exchange that fails for want of memory leaves ciphers half made, and a last word would go through them.
                sys::ssh_silent_disconnect(self.session);
            } else {
                sys::ssh_disconnect(self.session);
            }
            sys::ssh_free(self.session);
            drop(Box::from_raw(self.channel));
            // Where it finds no memory libssh forgets the socket, which stays open.
            if let Some((fd, socket)) = self.given.get()
                && number(fd) == Some(socket)
            {
                drop(OwnedFd::from_raw_fd(fd));
            }
        }
    }
}

/// Device and inode. The kernel gives each socket another one, while a descriptor that was closed is soon another thread's.
type Number = (u64, u64);

/// Which socket a descriptor is.
fn number(fd: RawFd) -> Option<Number> {
    if fd < 0 {
        return None;
    }
    // SAFETY: it is looked at only, whatever it is by now.
    let stat = fstat(unsafe { BorrowedFd::borrow_raw(fd) }).ok()?;
    Some((stat.st_dev, stat.st_ino))
}

impl Channel {
    fn new() -> *mut Self {
        // SAFETY: a plain C structure: integers, pointers and optional functions, for which all zeroes is "none".
        let mut callbacks = unsafe { mem::zeroed::<sys::ssh_channel_callbacks_struct>() };
        callbacks.size = mem::size_of_val(&callbacks);
        callbacks.channel_data_function = Some(on_data);
        callbacks.channel_close_function = Some(on_close);
        callbacks.channel_exit_status_function = Some(on_exit_status);
        // SAFETY: likewise.
        let mut of_session = unsafe { mem::zeroed::<sys::ssh_callbacks_struct>() };
        of_session.size = mem::size_of_val(&of_session);
        of_session.connect_status_function = Some(on_status);
        let this = Box::into_raw(Box::new(Self {
            callbacks,
            of_session,
            channel: Cell::new(ptr::null_mut()),
            closed: Cell::new(false),
            held: Cell::new(0),
            counter: UnsafeCell::new(sys::ssh_counter_struct { in_bytes: 0, out_bytes: 0, in_packets: 0, out_packets: 0 }),
            most: Cell::new(MAX_HELD),
            overrun: Cell::new(false),
            exit_status: Cell::new(None),
            exchanges: Cell::new((0, false)),
            panic: RefCell::new(None),
        }));
        // SAFETY: just made, and nobody else has it yet.
        unsafe {
            (*this).callbacks.userdata = this.cast();
            (*this).of_session.userdata = this.cast();
        }
        this
    }

    /// Runs a callback's body, never unwinding, `otherwise` being the answer after a panic.
    pub(super) fn guard<T>(&self, otherwise: T, body: impl FnOnce() -> T) -> T {
        catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
            *self.panic.borrow_mut() = Some(panic);
            otherwise
        })
    }
}

/// The channel behind a callback's userdata.
///
/// # Safety
/// `userdata` is what [`Channel::new`] has set; it outlives the session that calls back.
unsafe fn channel_of<'a>(userdata: *mut c_void) -> &'a Channel {
    // SAFETY: as promised.
    unsafe { &*userdata.cast::<Channel>() }
}

/// Sees what the channel holds. Data stay there until they are read; extended data have no reader here and are dropped, so that they do
/// not fill the window.
extern "C" fn on_data(
    _: sys::ssh_session,
    _: sys::ssh_channel,
    _: *mut c_void,
    held: u32,
    is_stderr: c_int,
    userdata: *mut c_void,
) -> c_int {
    // SAFETY: libssh passes the userdata that `Channel::new` has set.
    let channel = unsafe { channel_of(userdata) };
    channel.guard(0, || {
        if is_stderr != 0 {
            return c_int::try_from(held).unwrap_or(c_int::MAX);
        }
        channel.held.set(held as usize);
        channel.overrun.set(channel.overrun.get() || held > channel.most.get());
        0
    })
}

/// How far a key exchange is, the first one and later ones: 0.6 when the peer's KEXINIT has come, 1 when both have new keys
/// (L/server.c:378-438, L/client.c:447-476).
extern "C" fn on_status(userdata: *mut c_void, status: f32) {
    // SAFETY: as in `on_data`.
    let channel = unsafe { channel_of(userdata) };
    channel.guard((), || {
        let (number, under_way) = channel.exchanges.get();
        let now = (0.55..0.95).contains(&status);
        channel.exchanges.set((number + u64::from(now && !under_way), now));
    });
}

extern "C" fn on_close(_: sys::ssh_session, _: sys::ssh_channel, userdata: *mut c_void) {
    // SAFETY: as in `on_data`. The channel is not touched: libssh still uses it after this call.
    let channel = unsafe { channel_of(userdata) };
    channel.guard((), || channel.closed.set(true));
}

extern "C" fn on_exit_status(_: sys::ssh_session, _: sys::ssh_channel, status: c_int, userdata: *mut c_void) {
    // SAFETY: as in `on_data`.
    let channel = unsafe { channel_of(userdata) };
    channel.guard((), || channel.exit_status.set(Some(status)));
}
