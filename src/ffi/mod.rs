//! The only room with `unsafe`: libssh as server and as client, wrapped so that nothing unsafe can be done from outside.
//!
//! libssh comes from the system, through the bindings that the crate libssh-rs re-exports (its safe API is client-only). One thread
//! at a time may use a session and everything below it; our types are therefore `!Send` and are made inside their thread.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::os::fd::{BorrowedFd, RawFd};

use libssh_rs::sys;

mod bind;
mod client;
mod connection;
mod key;
mod memory;
mod process;
mod server;
mod trial;

pub use bind::{Bind, BindOptions};
pub use client::{Answer, ClientOptions, ClientSession};
pub use connection::Connection;
pub use key::PrivateKey;
pub use memory::{Patient, end_thread, give_back, with_small_heaps};
pub use process::{forget_given, given_descriptors};
pub use server::{AuthRequest, Refused, ServerSession};
pub use trial::checks_gcm_tags;

/// Initialises libssh; to be called once, from the main thread, before anything else here.
pub fn init() -> Result<(), String> {
    // SAFETY: takes nothing, is reference counted and may be called again.
    check(unsafe { sys::ssh_init() }, || "libssh cannot be initialised".into())
}

/// The version of the libssh that is loaded, such as `0.10.6`.
pub fn version() -> String {
    // SAFETY: 0 asks for the version whatever it is; the answer is a static string.
    let full = unsafe { text(sys::ssh_version(0)) };
    full.split('/').next().unwrap_or_default().to_owned()
}

/// The one way from libssh's return codes to errors: 0 is good, everything else is `says`.
fn check(code: std::os::raw::c_int, says: impl FnOnce() -> String) -> Result<(), String> {
    if code == 0 { Ok(()) } else { Err(says()) }
}

/// A descriptor that a library session owns, for one poll(2); `None` when the session's socket is gone.
///
/// The caller's session must outlive the borrow: each leg's descriptor is open until the leg is dropped, and only the leg's own
/// thread polls it.
pub(crate) fn borrow_fd<'a>(fd: RawFd) -> Option<BorrowedFd<'a>> {
    // SAFETY: `fd` is open as said above and not -1.
    (fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(fd) })
}

/// Whether the other side's kernel has yet to confirm bytes that this socket was given (tcp(7), `SIOCOUTQ`). `false` also for what is no
/// TCP socket.
pub(crate) fn undelivered(fd: RawFd) -> bool {
    let mut count: std::os::raw::c_int = 0;
    // SAFETY: the call writes one int, whatever the descriptor is.
    let code = unsafe { nix::libc::ioctl(fd, nix::libc::TIOCOUTQ, &raw mut count) };
    code == 0 && count > 0
}

/// A C string that libssh owns, copied; empty for NULL.
///
/// # Safety
/// `pointer` is NULL or points to a NUL-terminated string that lives during the call.
unsafe fn text(pointer: *const std::os::raw::c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: as promised by the caller.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

/// libssh's last error of a session or a bind.
///
/// # Safety
/// `object` is a live `ssh_session` or `ssh_bind`, used by this thread only.
unsafe fn last_error(object: *mut std::ffi::c_void) -> String {
    // SAFETY: as promised by the caller; the string lives in the object and is copied.
    let said = unsafe { text(sys::ssh_get_error(object)) };
    if said.is_empty() { "no reason given by libssh".into() } else { crate::error::shown(&said) }
}

fn c_string(value: &str, what: &str) -> Result<CString, String> {
    CString::new(value).map_err(|_| format!("{what} contains a NUL byte"))
}
