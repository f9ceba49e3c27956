//! The upstream's channel as a leg. The traps of libssh2 1.11 that it walks around are said where it does.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};

use nix::poll::PollFlags;
use ssh2::{BlockDirections, Channel, ExtendedData};

use super::{AGAIN, Link};
use crate::leg::{Leg, Taken, Wants};

/// A channel that speaks SFTP.
pub struct Upstream {
    channel: Channel,
    link: Link,
    /// Something moved since the last [`Leg::advance`].
    moved: bool,
}

impl Upstream {
    pub(super) fn new(mut channel: Channel, link: Link) -> Self {
        // What the subsystem says on stderr has no reader here, but it takes from the window: let libssh2 drop it.
        let _ = channel.handle_extended_data(ExtendedData::Ignore);
        Self { channel, link, moved: true }
    }

    /// The ciphers to the upstream and from it.
    pub fn ciphers(&self) -> (String, String) {
        let name = |method| self.link.session.methods(method).unwrap_or_default().to_owned();
        (name(ssh2::MethodType::CryptCs), name(ssh2::MethodType::CryptSc))
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        // One try to say goodbye; then the socket, so that freeing the channel neither waits nor leaks.
        let _ = self.channel.close();
        let _ = self.link.session.disconnect(None, "", None);
        self.link.shut();
    }
}

impl Leg for Upstream {
    fn fd(&self) -> RawFd {
        self.link.session.as_raw_fd()
    }

    fn advance(&mut self) -> Result<bool, String> {
        // A key exchange that the sshd has begun can be half-sent while a write and a window adjustment both wait for it, and
        // libssh2 returns from both before it would go on with the exchange. `wait_eof` goes straight to the transport.
        let stuck =
            !self.moved && matches!(self.link.session.block_directions(), BlockDirections::Outbound | BlockDirections::Both);
        self.moved = false;
        if stuck {
            match self.channel.wait_eof() {
                Ok(()) => {}
                Err(error) if error.code() == AGAIN => {}
                Err(error) => return Err(crate::error::shown(error.message())),
            }
        }
        Ok(false)
    }

    fn take(&mut self, buffer: &mut Vec<u8>) -> Result<Taken, String> {
        let held = buffer.len();
        buffer.resize(buffer.capacity(), 0);
        let mut filled = held;
        let result = loop {
            match self.channel.read(&mut buffer[filled..]) {
                Ok(0) => break Ok(()),
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break Ok(()),
                Err(error) => break Err(crate::error::shown(&error.to_string())),
            }
            if filled == buffer.len() {
                break Ok(());
            }
        };
        buffer.truncate(filled);
        if filled > held {
            self.moved = true;
            // What came before an error is delivered; the error comes again.
            return Ok(Taken::Bytes(filled - held));
        }
        result.map(|()| if self.channel.eof() { Taken::Eof } else { Taken::Nothing })
    }

    fn put(&mut self, bytes: &[u8]) -> Result<usize, String> {
        let mut put = 0;
        // One call makes one packet. After "would block" libssh2 must see the same bytes again: the relay keeps them where they are.
        while put < bytes.len() {
            match self.channel.write(&bytes[put..]) {
                Ok(count) if count > bytes.len() - put => return Err("libssh2 wrote more than it was given".into()),
                Ok(0) => break,
                Ok(count) => put += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(crate::error::shown(&error.to_string())),
            }
        }
        self.moved |= put > 0;
        Ok(put)
    }

    fn put_eof(&mut self) -> Result<bool, String> {
        done(self.channel.send_eof())
    }

    fn put_exit(&mut self, _status: i32) -> Result<(), String> {
        // A client has no exit status; its close is our end.
        Ok(())
    }

    fn exit(&mut self) -> Result<Option<i32>, String> {
        if !done(self.channel.wait_close())? {
            return Ok(None);
        }
        self.channel.exit_status().map(Some).map_err(|error| error.to_string())
    }

    fn finished(&mut self) -> bool {
        true
    }

    fn interest(&self, wants: Wants) -> PollFlags {
        let (inward, outward) = match self.link.session.block_directions() {
            BlockDirections::None => (false, false),
            BlockDirections::Inbound => (true, false),
            BlockDirections::Outbound => (false, true),
            BlockDirections::Both => (true, true),
        };
        let mut events = PollFlags::empty();
        // With room for nothing the socket is not watched for input: it would stay readable and wake us for nothing.
        events.set(PollFlags::POLLIN, wants.take || (wants.put && (inward || !outward)));
        events.set(PollFlags::POLLOUT, outward);
        events
    }
}

/// `false` = would block.
fn done(result: Result<(), ssh2::Error>) -> Result<bool, String> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.code() == AGAIN => Ok(false),
        Err(error) => Err(crate::error::shown(error.message())),
    }
}
