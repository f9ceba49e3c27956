//! One end of a session, as the relay sees it: a byte stream over a library session that one thread owns and that never blocks.
//!
//! Also how a thread that owns a leg sleeps and is woken: in poll(2) on its socket and on an eventfd. It knows nothing of SSH.

use std::net::TcpStream;
use std::os::fd::{AsFd, RawFd};
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::order::{self, AtomicBool};

/// What a leg had to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// This many bytes, at least one.
    Bytes(usize),
    /// Nothing now.
    Nothing,
    /// Nothing any more.
    Eof,
}

/// Which directions a thread can act in, for [`Leg::interest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wants {
    /// There is room for what the leg receives.
    pub take: bool,
    /// There are bytes that the leg would not take.
    pub put: bool,
}

/// One end of a session. Errors are one line without leg and stage: the caller knows both.
pub trait Leg {
    /// The socket, for poll(2) only.
    fn fd(&self) -> RawFd;

    /// Lets the library send and receive what the socket allows. `true` = something may have changed. `ready` = poll(2) has just said
    /// that the socket has something for the library, or nobody has asked yet; without it a leg need not ask the socket.
    fn advance(&mut self, ready: bool) -> Result<bool, String>;

    /// Appends received bytes to `buffer`, at most what its capacity still holds.
    fn take(&mut self, buffer: &mut Vec<u8>) -> Result<Taken, String>;

    /// Gives bytes to the peer and says how many were taken. After 0 the same bytes must be offered again, from the same place.
    fn put(&mut self, bytes: &[u8]) -> Result<usize, String>;

    /// Tells the peer that no more bytes will come. `false` = not yet, call again.
    fn put_eof(&mut self) -> Result<bool, String>;

    /// Tells the peer the exit status, where the protocol has one in this direction, and closes. Called after [`Self::put_eof`].
    fn put_exit(&mut self, status: i32) -> Result<(), String>;

    /// The peer's exit status, once it has closed; asked after [`Taken::Eof`]. `None` = not closed yet.
    fn exit(&mut self) -> Result<Option<i32>, String>;

    /// Whether everything that was put has left, and the peer has closed too: nothing is lost by ending now.
    fn finished(&mut self) -> bool;

    /// What to poll the socket for before anything can change. Empty = the socket cannot help.
    fn interest(&self, wants: Wants) -> PollFlags;

    /// Which exchange of new keys is going on, as far as the library shows it: the peer has begun it, or answered, and has yet to end it. `ask`:
    /// nothing waits to be put; a leg that can tell only by putting something may put nothing, to see.
    fn exchanging(&mut self, _ask: bool) -> Option<u64> {
        None
    }

    /// Whether something that was put is on its way: the peer need not have seen it yet.
    fn is_underway(&self) -> bool {
        crate::ffi::undelivered(self.fd())
    }

    /// Tells the peer's user a reason, where the protocol can carry it; best effort.
    fn explain(&mut self, _reason: &str) {}
}

/// Wakes one sleeping thread; waking one that is awake costs an atomic load.
pub struct Wake {
    event: EventFd,
    asleep: AtomicBool,
}

impl Wake {
    /// Makes one; an error is the lack of descriptors.
    pub fn new() -> Result<Self, String> {
        let event =
            EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map_err(|error| format!("eventfd: {error}"))?;
        Ok(Self { event, asleep: AtomicBool::new(false) })
    }

    /// Wakes the thread if it sleeps or is about to. What it shall see must have been written before.
    pub fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.swap(false, Ordering::SeqCst) {
            let _ = self.event.write(1);
        }
    }

    /// Sleeps until `fd` has one of `events` (or an error), somebody wakes this thread, or `until` has come. `idle` is asked once
    /// more after this thread has announced its sleep: `false` = there is something to do after all.
    pub fn sleep(
        &self,
        fd: RawFd,
        events: PollFlags,
        until: Option<Instant>,
        idle: impl FnOnce() -> bool,
    ) -> Result<PollFlags, String> {
        self.asleep.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let result = if idle() { self.poll(fd, events, until) } else { Ok(PollFlags::empty()) };
        if !self.asleep.swap(false, Ordering::SeqCst) {
            let _ = self.event.read();
        }
        result
    }

    fn poll(&self, fd: RawFd, events: PollFlags, until: Option<Instant>) -> Result<PollFlags, String> {
        let timeout = until.map_or(PollTimeout::NONE, |until| milliseconds(until.saturating_duration_since(Instant::now())));
        let socket = crate::ffi::borrow_fd(fd).filter(|_| !events.is_empty());
        let ask = |timeout| {
            let waker = PollFd::new(self.event.as_fd(), PollFlags::POLLIN);
            let said = match socket {
                None => poll(&mut [waker], timeout).map(|count| (count, PollFlags::empty())),
                Some(socket) => {
                    let mut both = [waker, PollFd::new(socket, events)];
                    poll(&mut both, timeout).map(|count| (count, both[1].revents().unwrap_or(PollFlags::empty())))
                }
            };
            Some(said).filter(|said| !matches!(said, Ok((0, _))))
        };
        match order::sleep(timeout, ask) {
            None | Some(Err(Errno::EINTR)) => Ok(PollFlags::empty()),
            Some(Ok((_, events))) => Ok(events),
            Some(Err(error)) => Err(format!("poll: {error}")),
        }
    }
}

/// What every socket of ours gets: no waiting for full segments, and probes that find a peer which is gone after about `keepalive`. While
/// bytes are on their way to it the kernel's own limit holds instead (`net.ipv4.tcp_retries2`, some 15 minutes).
///
/// Not `TCP_USER_TIMEOUT`: Linux also counts a peer that is there and does not read, and a paused transfer must survive.
pub fn tune(stream: &TcpStream, keepalive: Duration) -> Result<(), String> {
    let seconds = keepalive.as_secs() as u32;
    use nix::sys::socket::{setsockopt, sockopt};
    stream.set_nodelay(true).map_err(|error| format!("TCP_NODELAY: {error}"))?;
    setsockopt(stream, sockopt::KeepAlive, &true)
        .and_then(|()| setsockopt(stream, sockopt::TcpKeepIdle, &(seconds / 3).max(1)))
        .and_then(|()| setsockopt(stream, sockopt::TcpKeepInterval, &(seconds / 6).max(1)))
        .and_then(|()| setsockopt(stream, sockopt::TcpKeepCount, &4))
        .map_err(|error| format!("SO_KEEPALIVE: {error}"))
}

/// Bytes that a peer may send before we have read any (RFC 4254 section 5.2): what 1 Gbit/s needs at the distance that the key exchange
/// has shown, from [`LEAST_WINDOW`] to [`MOST_WINDOW`].
///
/// Of the time a key exchange takes, two round trips at least are distance; the rest makes the window larger than it need be. A peer
/// nearby gets no large window, because a transfer that stands still may fill it, and that is memory.
pub fn window(exchange: Duration) -> u32 {
    let bytes = exchange.as_secs_f64() / 2.0 * 125e6;
    bytes.clamp(LEAST_WINDOW.into(), MOST_WINDOW.into()) as u32
}

/// What OpenSSH gives, wherever the peer is.
pub const LEAST_WINDOW: u32 = 2 * 1024 * 1024;

/// 1 Gbit/s at 134 ms.
pub const MOST_WINDOW: u32 = 16 * 1024 * 1024;

/// Rounded up, so that a deadline is over when poll(2) comes back.
fn milliseconds(left: Duration) -> PollTimeout {
    PollTimeout::try_from(left.as_micros().div_ceil(1000).min(i32::MAX as u128) as i32).unwrap_or(PollTimeout::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_grows_with_the_distance_within_bounds() {
        assert_eq!(window(Duration::ZERO), LEAST_WINDOW);
        assert_eq!(window(Duration::from_millis(200)), 12_500_000);
        assert_eq!(window(Duration::from_secs(10)), MOST_WINDOW);
    }
}
