//! A queue with two bounds, a number and a weight, whose sender never waits.
//!
//! Two, because events differ: a bound of their number alone would let long paths take any memory, one of their weight alone says
//! nothing of the slots.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

/// Most items: some seconds of what a busy router of 1,000 sessions does, at 16 bytes for a slot.
pub const MOST: usize = 8192;

/// Most bytes of events, by their own reckoning: twice what [`MOST`] events with usual paths weigh.
pub const MOST_BYTES: usize = 32 * 1024 * 1024;

/// The end that takes.
#[derive(Debug)]
pub struct Inlet<T> {
    sender: Sender<(usize, T)>,
    held: Arc<AtomicUsize>,
}

/// The end that gives. Its clones share the items.
#[derive(Debug)]
pub struct Outlet<T> {
    receiver: Receiver<(usize, T)>,
    held: Arc<AtomicUsize>,
}

/// What comes of waiting for an item.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<T> {
    /// This one.
    Item(T),
    /// None in that time.
    Nothing,
    /// There will be none.
    End,
}

/// An empty one.
pub fn queue<T>() -> (Inlet<T>, Outlet<T>) {
    let (sender, receiver) = bounded(MOST);
    let held = Arc::new(AtomicUsize::new(0));
    (Inlet { sender, held: Arc::clone(&held) }, Outlet { receiver, held })
}

impl<T> Inlet<T> {
    /// Puts an item in, or says at once that it has no room or nobody takes from it any more.
    pub fn push(&self, weight: usize, item: T) -> bool {
        if self.held.fetch_add(weight, Ordering::Relaxed) + weight <= MOST_BYTES && self.sender.try_send((weight, item)).is_ok() {
            return true;
        }
        self.held.fetch_sub(weight, Ordering::Relaxed);
        false
    }
}

impl<T> Outlet<T> {
    /// The next item within a time.
    pub fn next(&self, within: Duration) -> Next<T> {
        match self.receiver.recv_timeout(within) {
            Ok((weight, item)) => Next::Item(self.release(weight, item)),
            Err(RecvTimeoutError::Timeout) => Next::Nothing,
            Err(RecvTimeoutError::Disconnected) => Next::End,
        }
    }

    /// The same, and the end as soon as `end` is disconnected; items may be left then.
    pub fn next_unless(&self, end: &Receiver<()>, within: Duration) -> Next<T> {
        crossbeam_channel::select! {
            recv(self.receiver) -> item => item.map_or(Next::End, |(weight, item)| Next::Item(self.release(weight, item))),
            recv(end) -> _ => Next::End,
            default(within) => Next::Nothing,
        }
    }

    /// The next item, if there is one already.
    pub fn ready(&self) -> Option<T> {
        self.receiver.try_recv().ok().map(|(weight, item)| self.release(weight, item))
    }

    fn release(&self, weight: usize, item: T) -> T {
        self.held.fetch_sub(weight, Ordering::Relaxed);
        item
    }
}

impl<T> Clone for Outlet<T> {
    fn clone(&self) -> Self {
        Self { receiver: self.receiver.clone(), held: Arc::clone(&self.held) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_full_at_its_number_and_at_its_weight_and_has_room_again_for_what_is_taken() {
        let (inlet, outlet) = queue();
        assert_eq!((0..).take_while(|item| inlet.push(1, *item)).count(), MOST);
        assert_eq!(outlet.ready(), Some(0));
        assert!(inlet.push(1, 0) && !inlet.push(1, 0));

        let (inlet, outlet) = queue();
        assert!(inlet.push(MOST_BYTES - 1, 'a') && !inlet.push(2, 'b') && inlet.push(1, 'c') && !inlet.push(1, 'd'));
        assert_eq!((outlet.ready(), outlet.next(Duration::ZERO)), (Some('a'), Next::Item('c')));
        assert!(inlet.push(MOST_BYTES, 'e'));
        drop(outlet);
        assert!(!inlet.push(0, 'f'));
    }

    #[test]
    fn what_is_in_it_can_be_taken_after_the_sender_has_gone() {
        let (inlet, outlet) = queue();
        assert!(inlet.push(1, 'a'));
        drop(inlet);
        assert_eq!((outlet.next(Duration::ZERO), outlet.next(Duration::ZERO)), (Next::Item('a'), Next::End));
    }
}
