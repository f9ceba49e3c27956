//! How bytes go through libssh's channel, in both roles: what [`crate::downstream`] and the libssh upstream have in common as legs.

use std::os::fd::RawFd;

use nix::poll::PollFlags;

use crate::ffi::Connection;
use crate::leg::{LEAST_WINDOW, Taken};

/// Calls of libssh in a row before others get their turn; each receives at most 4 KiB in Debian's libssh.
const ADVANCES: usize = 32;

/// Bytes that a call of libssh asks the socket for. One that got less has read it empty.
const CALL: u64 = 4096;

/// Calls of libssh that may receive while it cannot send: a peer that asks (each request has an answer) and never reads could
/// otherwise fill the memory with answers. With 4 KiB a call, 4 MiB.
const MAX_DEAF: u32 = 1024;

/// Bytes received before the window is opened wide for the first time: a session that only lists folders needs no more than libssh
/// gives by itself.
const FIRST_WIDE: usize = 256 * 1024;

/// A channel's bytes on their way in, and how they are waited for.
pub struct Pipe {
    spill: Spill,
    deaf: u32,
    /// The last [`Self::advance`] ended for others' sake: the socket may have more.
    more: bool,
    /// Bytes that the peer may be ahead.
    window: u32,
    /// Bytes that may still be received before the window is opened wide (again).
    before_wide: usize,
}

impl Pipe {
    /// For a peer that may be `window` bytes ahead, as [`crate::leg::window`] says.
    pub fn new(window: u32) -> Self {
        Self { spill: Spill::default(), deaf: 0, more: true, window, before_wide: FIRST_WIDE }
    }

    /// Lets libssh receive and send, a bounded number of times. `true` = it did. Each call of libssh asks the socket with a poll(2) of
    /// its own, so none is made without a reason: the socket is `ready`, or libssh waits to hear that the socket takes more, which it does
    /// after each packet. That call receives too, so that a thread which always has something to send still hears its peer.
    pub fn advance(&mut self, connection: &Connection, ready: bool) -> Result<bool, String> {
        if !ready && !self.more && !connection.unsent() {
            return Ok(false);
        }
        let mut moved = false;
        self.more = false;
        for turn in 1..=ADVANCES {
            if self.is_deaf(connection) && !writable(connection.fd())? {
                break;
            }
            let before = connection.received();
            if !connection.advance()? {
                break;
            }
            self.deaf = if connection.unsent() { self.deaf + 1 } else { 0 };
            moved = true;
            if connection.received() < before + CALL {
                break;
            }
            self.more = turn == ADVANCES || connection.readable() >= crate::relay::BUFFER / 2;
            if self.more {
                break;
            }
        }
        // Data beyond the window, for one, is an error that libssh 0.11 notes and goes on from.
        if moved && connection.failed() {
            return Err(connection.error());
        }
        Ok(moved)
    }

    /// As [`crate::leg::Leg::take`].
    pub fn take(&mut self, connection: &Connection, buffer: &mut Vec<u8>) -> Result<Taken, String> {
        let room = buffer.capacity() - buffer.len();
        let count = if !self.spill.is_empty() {
            self.spill.move_to(buffer, room)
        } else if self.before_wide == 0 && connection.readable() > 0 {
            self.before_wide = self.window as usize / 2;
            self.spill.widen(connection, self.window)?;
            self.spill.move_to(buffer, room)
        } else {
            let count = connection.read(buffer, room)?;
            if count == room {
                self.spill.fill(connection)?;
            }
            count
        };
        if count == 0 {
            return Ok(if connection.at_eof() || connection.is_closed() { Taken::Eof } else { Taken::Nothing });
        }
        if self.window > LEAST_WINDOW {
            self.before_wide = self.before_wide.saturating_sub(count);
        }
        Ok(Taken::Bytes(count))
    }

    /// As [`crate::leg::Leg::put`]. A peer that has closed takes nothing any more; what it said before is still taken.
    pub fn put(&mut self, connection: &Connection, bytes: &[u8]) -> Result<usize, String> {
        if connection.unsent() || connection.is_closed() {
            return Ok(0);
        }
        connection.write(bytes)
    }

    /// As [`crate::leg::Leg::put_eof`].
    pub fn put_eof(&mut self, connection: &Connection) -> Result<bool, String> {
        if connection.unsent() {
            return Ok(false);
        }
        connection.send_eof().map(|()| true)
    }

    /// As [`crate::leg::Leg::interest`]. Always in: window adjustments and key exchanges of the other direction come that way, and
    /// libssh's window bounds the data.
    pub fn interest(&self, connection: &Connection) -> PollFlags {
        match (connection.unsent(), self.is_deaf(connection)) {
            (true, true) => PollFlags::POLLOUT,
            (true, false) => PollFlags::POLLIN | PollFlags::POLLOUT,
            (false, _) => PollFlags::POLLIN,
        }
    }

    /// Whether libssh may not receive: while a peer that reads nothing makes answers pile up.
    fn is_deaf(&self, connection: &Connection) -> bool {
        self.deaf >= MAX_DEAF && connection.unsent()
    }
}

fn writable(fd: RawFd) -> Result<bool, String> {
    let Some(socket) = crate::ffi::borrow_fd(fd) else { return Ok(true) };
    let mut poll = [nix::poll::PollFd::new(socket, PollFlags::POLLOUT)];
    nix::poll::poll(&mut poll, nix::poll::PollTimeout::ZERO).map_err(|error| format!("poll: {error}"))?;
    Ok(poll[0].any().unwrap_or(true))
}

/// Data that libssh held beyond what a buffer could take.
///
/// libssh 0.10 opens its window at each read without regard to what it still holds, so a channel that is read a little at a time
/// while the socket is served grows without bound. Either it is read until it is empty, or it is not read at all: what does not
/// fit into the buffer is kept here, and the channel is read again only when this is empty. At most one window stands here.
#[derive(Default)]
struct Spill {
    bytes: Vec<u8>,
    from: usize,
}

impl Spill {
    fn is_empty(&self) -> bool {
        self.from == self.bytes.len()
    }

    /// Reads the channel until it is empty: in one call, for a second one would ask the socket for more.
    fn fill(&mut self, connection: &Connection) -> Result<(), String> {
        *self = Self::default();
        match connection.readable() {
            0 => Ok(()),
            held => connection.read(&mut self.bytes, held).map(drop),
        }
    }

    /// Reads all that the channel holds, with so much room that libssh opens its window wide.
    fn widen(&mut self, connection: &Connection, window: u32) -> Result<(), String> {
        *self = Self::default();
        connection.read_wide(&mut self.bytes, window).map(drop)
    }

    fn move_to(&mut self, buffer: &mut Vec<u8>, room: usize) -> usize {
        let count = room.min(self.bytes.len() - self.from);
        buffer.extend_from_slice(&self.bytes[self.from..self.from + count]);
        self.from += count;
        if self.is_empty() {
            *self = Self::default();
        }
        count
    }
}
