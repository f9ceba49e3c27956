//! How a user who has proven a key and cannot be served learns why: the [`Answerer`] stands where the upstream would, as a leg of the relay.
//!
//! Requests that the client has sent while the upstream was tried wait in the relay's channel and are answered like later ones. It ends
//! when the client leaves, and otherwise by [`TIME`] or [`crate::answerer::MOST`]; then the relay tells the reason on standard error too.
//! Only a client that leaves after the first answer is spared that: it has understood (as `sftp` has), and would show the reason twice.

use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

use crate::answerer::Answerer;
use crate::leg::{Leg, Taken, Wants};
use crate::relay::{Control, Half, Watch};

/// How long a client that says nothing, or goes on asking, is answered: many round trips, and not so long that somebody waits for nothing.
const TIME: Duration = Duration::from_secs(5);

/// Answers the client in the upstream's place; `watch` sees the answers as it would see the upstream's. Returns the number of requests
/// that were answered.
pub fn explain(control: &Control, half: Half, watch: &mut dyn Watch, message: &str) -> u32 {
    // The login is over: its deadline must not end what takes its place.
    control.open();
    let until = Instant::now() + TIME;
    let mut leg = Explaining { answerer: Answerer::new(message), out: Vec::new(), eof: false };
    half.run(&mut leg, watch, &|| Some(until));
    leg.answerer.answered()
}

struct Explaining {
    answerer: Answerer,
    /// Answers that the relay has not taken yet: at most [`crate::answerer::MOST`].
    out: Vec<u8>,
    eof: bool,
}

impl Leg for Explaining {
    fn fd(&self) -> RawFd {
        -1
    }

    fn advance(&mut self, _ready: bool) -> Result<bool, String> {
        Ok(false)
    }

    fn take(&mut self, buffer: &mut Vec<u8>) -> Result<Taken, String> {
        let count = self.out.len().min(buffer.capacity() - buffer.len());
        buffer.extend(self.out.drain(..count));
        match (count, self.eof) {
            (0, true) if self.answerer.answered() == 1 => Ok(Taken::Eof),
            // The relay ends and says why on standard error.
            (0, true) => Err("the client left without having shown the reason".into()),
            (0, false) if self.answerer.is_over() => Err("the client was answered often enough".into()),
            (0, false) => Ok(Taken::Nothing),
            _ => Ok(Taken::Bytes(count)),
        }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<usize, String> {
        self.answerer.hear(bytes, &mut self.out).map(|()| bytes.len())
    }

    fn put_eof(&mut self) -> Result<bool, String> {
        self.eof = true;
        Ok(true)
    }

    fn put_exit(&mut self, _status: i32) -> Result<(), String> {
        Ok(())
    }

    fn exit(&mut self) -> Result<Option<i32>, String> {
        Ok(Some(1))
    }

    fn finished(&mut self) -> bool {
        true
    }

    fn interest(&self, _wants: Wants) -> PollFlags {
        PollFlags::empty()
    }
}
