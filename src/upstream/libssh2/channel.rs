//! The upstream's channel as a leg. The traps of libssh2 1.11 that it walks around are said where it does.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};

use nix::poll::PollFlags;
use ssh2::{BlockDirections, Channel, ExtendedData, MethodType, Session};

use super::super::{Link, Wait};
use super::{Libssh2, again, blocked};
use crate::leg::{Leg, Taken, Wants};

/// A channel that speaks SFTP.
pub(super) struct Libssh2Channel {
    channel: Channel,
    session: Session,
    /// The same session; taken when it shall outlive the channel.
    link: Option<Libssh2>,
    /// Something moved since the last [`Leg::advance`].
    moved: bool,
    /// A call since the last [`Leg::advance`] could not send. Kept here, because libssh2 forgets it in a later call.
    unsent: bool,
    /// [`Leg::take`] has read the socket empty, and nothing has read from it since: libssh2 holds nothing.
    dry: bool,
    /// The last write ended for want of window, and then [`Leg::take`] has read the socket empty.
    drained: bool,
    /// The last write found window and room, and yet was not taken: a key exchange is going on.
    refused: bool,
    /// What has moved so far, to tell one key exchange from the next.
    moves: u64,
}

/// Bytes of a buffer that are made ready at first: most replies are short, and zeroing the whole buffer for each would cost more than
/// the reply.
const FIRST: usize = 16 * 1024;

/// Calls in a row that libssh2 may answer with "nothing" instead of "would block": it does so after each packet that is no data.
const MAX_NOTHINGS: usize = 1000;

impl Libssh2Channel {
    pub(super) fn new(mut channel: Channel, link: Libssh2) -> Self {
        // What the subsystem says on stderr has no reader here, but it takes from the window: let libssh2 drop it.
        let _ = channel.handle_extended_data(ExtendedData::Ignore);
        let session = link.session.clone();
        Self {
            channel,
            session,
            link: Some(link),
            moved: true,
            unsent: false,
            dry: false,
            drained: false,
            refused: false,
            moves: 0,
        }
    }

    /// Notes that bytes have moved: no key exchange that was going on still is.
    fn note_moved(&mut self) {
        self.moved = true;
        self.refused = false;
        self.moves += 1;
    }

    /// Notes that a write was not taken.
    fn note_refused(&mut self) {
        self.refused = !self.unsent && self.channel.write_window().remaining > 0;
    }

    fn note_unsent(&mut self) {
        self.unsent |= matches!(self.session.block_directions(), BlockDirections::Outbound | BlockDirections::Both);
    }
}

impl Drop for Libssh2Channel {
    fn drop(&mut self) {
        // One try to say goodbye; then the socket, so that freeing the channel neither waits nor leaks.
        if let Some(link) = self.link.take() {
            let _ = self.channel.close();
            drop(link);
        }
    }
}

impl super::super::Channel for Libssh2Channel {
    fn ciphers(&self) -> (String, String) {
        let name = |method| self.session.methods(method).unwrap_or_default().to_owned();
        (name(MethodType::CryptCs), name(MethodType::CryptSc))
    }

    fn into_link(mut self: Box<Self>, wait: Wait<'_>) -> Option<Box<dyn Link>> {
        let mut close = |session: &mut Session| {
            let _ = session;
            again(self.channel.close().and_then(|()| self.channel.wait_close()))
        };
        wait.until(&mut self.session, &mut close, blocked).ok()?;
        self.link.take().map(|link| Box::new(link) as Box<dyn Link>)
    }
}

impl Leg for Libssh2Channel {
    fn fd(&self) -> RawFd {
        self.session.as_raw_fd()
    }

    fn advance(&mut self, ready: bool) -> Result<bool, String> {
        self.dry &= !ready;
        // A key exchange that the sshd has begun can be half-sent while a write and a window adjustment both wait for it, and
        // libssh2 returns from both before it would go on with the exchange. `wait_eof` goes straight to the transport.
        let stuck = !self.moved && matches!(self.session.block_directions(), BlockDirections::Outbound | BlockDirections::Both);
        self.moved = false;
        if stuck {
            self.dry = false;
            again(self.channel.wait_eof())?;
        }
        Ok(false)
    }

    fn take(&mut self, buffer: &mut Vec<u8>) -> Result<Taken, String> {
        if self.dry {
            return Ok(Taken::Nothing);
        }
        let held = buffer.len();
        buffer.resize(buffer.capacity().min(held + FIRST), 0);
        let mut filled = held;
        let mut nothings = 0;
        let result = loop {
            match self.channel.read(&mut buffer[filled..]) {
                Ok(0) if self.channel.eof() || nothings == MAX_NOTHINGS => break Ok(()),
                Ok(0) => nothings += 1,
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.drained = true;
                    self.dry = true;
                    break Ok(());
                }
                Err(error) => break Err(crate::error::shown(&error.to_string())),
            }
            if filled == buffer.len() {
                if filled == buffer.capacity() {
                    break Ok(());
                }
                buffer.resize(buffer.capacity(), 0);
            }
        };
        buffer.truncate(filled);
        self.note_unsent();
        if filled > held {
            self.note_moved();
            // What came before an error is delivered; the error comes again.
            return Ok(Taken::Bytes(filled - held));
        }
        result.map(|()| if self.channel.eof() { Taken::Eof } else { Taken::Nothing })
    }

    fn put(&mut self, bytes: &[u8]) -> Result<usize, String> {
        // `take` and `write` both read the socket empty, and what one reads may be what the other waits for: data for the one, window
        // for the other. The relay puts once more after it has taken; with the window still closed, the socket must not be read here
        // again, or data would lie in libssh2 while the thread sleeps on the socket.
        if std::mem::take(&mut self.drained) && self.channel.write_window().remaining == 0 {
            self.refused = false;
            return Ok(0);
        }
        self.dry = false;
        let mut put = 0;
        let mut nothings = 0;
        // One call makes one packet. After "would block" libssh2 must see the same bytes again: the relay keeps them where they are.
        while put < bytes.len() {
            match self.channel.write(&bytes[put..]) {
                Ok(count) if count > bytes.len() - put => return Err("libssh2 wrote more than it was given".into()),
                Ok(0) if nothings == MAX_NOTHINGS => break,
                Ok(0) => nothings += 1,
                Ok(count) => put += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(crate::error::shown(&error.to_string())),
            }
        }
        self.note_unsent();
        if put > 0 {
            self.note_moved();
        } else {
            self.note_refused();
        }
        Ok(put)
    }

    fn put_eof(&mut self) -> Result<bool, String> {
        self.dry = false;
        let sent = again(self.channel.send_eof());
        self.note_unsent();
        Ok(sent?.is_some())
    }

    fn put_exit(&mut self, _status: i32) -> Result<(), String> {
        // A client has no exit status; its close is our end.
        Ok(())
    }

    fn exit(&mut self) -> Result<Option<i32>, String> {
        self.dry = false;
        if again(self.channel.wait_close())?.is_none() {
            return Ok(None);
        }
        self.channel.exit_status().map(Some).map_err(|error| error.to_string())
    }

    fn finished(&mut self) -> bool {
        true
    }

    fn exchanging(&mut self, ask: bool) -> Option<u64> {
        if ask && self.channel.write_window().remaining > 0 {
            // libssh2 says nowhere that keys are being exchanged; but it puts nothing then, data of no bytes (RFC 4254 section 5.2) included.
            self.dry = false;
            let put = self.channel.write(&[]);
            self.note_unsent();
            match put {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.note_refused(),
                _ => self.refused = false,
            }
        }
        self.refused.then_some(self.moves)
    }

    fn interest(&self, wants: Wants) -> PollFlags {
        let mut events = PollFlags::empty();
        // With room for nothing the socket is not watched for input: it would stay readable and wake us for nothing. A put that is
        // not half-sent waits for input: for window, or for a key exchange.
        events.set(PollFlags::POLLIN, wants.take || (wants.put && !self.unsent));
        events.set(PollFlags::POLLOUT, self.unsent);
        events
    }
}
