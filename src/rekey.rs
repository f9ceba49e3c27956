//! How long a peer may take to end a key exchange that it has begun. Until then SSH lets nothing else pass on its leg (RFC 4253 section 7.1),
//! and no standard says how long that may be.
//!
//! Not counted is time in which something of ours is on its way to the peer: one on a slow line gets first what was sent before, and
//! one that is paused and reads nothing is for `SFTPPROXY_STALL_TIMEOUT`. Time is a parameter.

use std::time::{Duration, Instant};

use crate::leg::Leg;

/// Looks within the limit, after the first one. Each must find the same key exchange going on, and a peer that has nothing to wait for.
const LOOKS: u32 = 4;

/// What is known of one leg's key exchanges.
#[derive(Debug)]
pub struct Rekey {
    limit: Duration,
    /// Which one was found last.
    which: Option<u64>,
    /// How many looks in a row have found it.
    found: u32,
    next: Option<Instant>,
}

impl Rekey {
    /// For key exchanges that may take so long.
    pub fn new(limit: Duration) -> Self {
        Self { limit, which: None, found: 0, next: None }
    }

    /// Looks at the leg, when it is time for it. `silent` = the peer owes something and nothing waits to be put: the leg may have to ask.
    /// Returns when to look again, if so; an error is that the limit has passed.
    pub fn look(&mut self, leg: &mut dyn Leg, silent: bool, now: Instant) -> Result<Option<Instant>, String> {
        let seen = leg.exchanging(false);
        if seen.is_none() && !silent {
            (self.found, self.next) = (0, None);
            return Ok(None);
        }
        let next = *self.next.get_or_insert(now + self.limit / LOOKS);
        if now >= next {
            let waits = !leg.is_underway();
            let which = if waits && silent { leg.exchanging(true) } else { seen };
            let before = if which == self.which { self.found } else { 0 };
            self.found = if waits && which.is_some() { before + 1 } else { 0 };
            self.which = which;
            self.next = Some(now + self.limit / LOOKS);
        }
        if self.found > LOOKS {
            return Err(format!("did not end a rekey within {} s (SFTPPROXY_LOGIN_TIMEOUT)", self.limit.as_secs_f32()));
        }
        Ok(self.next)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::RawFd;

    use nix::poll::PollFlags;

    use super::*;
    use crate::leg::{Taken, Wants};

    /// A peer that exchanges keys.
    #[derive(Default)]
    struct Peer {
        which: Option<u64>,
        is_underway: bool,
        /// It shows it only when it is asked.
        hidden: bool,
    }

    impl Leg for Peer {
        fn fd(&self) -> RawFd {
            -1
        }

        fn advance(&mut self, _: bool) -> Result<bool, String> {
            Ok(false)
        }

        fn take(&mut self, _: &mut Vec<u8>) -> Result<Taken, String> {
            Ok(Taken::Nothing)
        }

        fn put(&mut self, _: &[u8]) -> Result<usize, String> {
            Ok(0)
        }

        fn put_eof(&mut self) -> Result<bool, String> {
            Ok(true)
        }

        fn put_exit(&mut self, _: i32) -> Result<(), String> {
            Ok(())
        }

        fn exit(&mut self) -> Result<Option<i32>, String> {
            Ok(None)
        }

        fn finished(&mut self) -> bool {
            true
        }

        fn exchanging(&mut self, ask: bool) -> Option<u64> {
            self.which.filter(|_| ask || !self.hidden)
        }

        fn is_underway(&self) -> bool {
            self.is_underway
        }

        fn interest(&self, _: Wants) -> PollFlags {
            PollFlags::empty()
        }
    }

    /// After how many seconds the limit of 60 has passed, if it has within ten minutes; `change` is given each second before.
    fn ends(silent: bool, change: impl Fn(u64, &mut Peer)) -> Option<u64> {
        let (start, mut peer, mut rekey) = (Instant::now(), Peer::default(), Rekey::new(Duration::from_secs(60)));
        (0..600).find(|&second| {
            change(second, &mut peer);
            rekey.look(&mut peer, silent, start + Duration::from_secs(second)).is_err()
        })
    }

    #[test]
    fn a_key_exchange_that_goes_on_ends_after_the_limit() {
        let passed = ends(false, |_, peer| peer.which = Some(1)).expect("an end");
        assert!((60..=90).contains(&passed), "{passed}");
        // It begins amid the time, or is seen only when the leg asks.
        let passed = ends(false, |second, peer| peer.which = (second >= 100).then_some(1)).expect("an end");
        assert!((160..=190).contains(&passed), "{passed}");
        let hidden = |second, peer: &mut Peer| (peer.hidden, peer.which) = (true, (second >= 100).then_some(7));
        let passed = ends(true, hidden).expect("an end");
        assert!((160..=190).contains(&passed), "{passed}");
    }

    #[test]
    fn no_other_peer_is_ended() {
        assert_eq!(ends(false, |_, _| ()), None, "no key exchange");
        assert_eq!(ends(true, |_, _| ()), None, "a slow answer");
        assert_eq!(ends(false, |second, peer| peer.which = Some(second / 50)), None, "one key exchange after the other");
        assert_eq!(ends(false, |second, peer| peer.which = (second % 60 < 59).then_some(1)), None, "each ends in time");
        let paused = |_, peer: &mut Peer| (peer.which, peer.is_underway) = (Some(1), true);
        assert_eq!(ends(false, paused), None, "a peer that is paused");
        assert_eq!(ends(true, paused), None, "the same when it owes something");
    }

    #[test]
    fn a_slow_peer_has_the_whole_limit_from_when_it_has_everything() {
        let passed = ends(false, |second, peer| (peer.which, peer.is_underway) = (Some(1), second < 300)).expect("an end");
        assert!((360..=390).contains(&passed), "{passed}");
    }
}
