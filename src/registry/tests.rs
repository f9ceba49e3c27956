//! The registry in every order that shuttle makes of threads: who enters, goes, cuts and waits at the same time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use shuttle::thread;

use super::*;
use crate::error::{Side, Stage};
use crate::order::explored::explore;
use crate::relay::Control;

/// Orders of threads that are tried of each test.
const SCHEDULES: usize = 500;

fn live(id: u64) -> Arc<Live> {
    Live::new(id, "127.0.0.1:9".parse().unwrap(), Control::new().unwrap())
}

fn fault() -> Fault {
    Fault::new(Side::Router, Stage::Relay, "stopped")
}

fn never() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

/// Sleeps as a session's thread does, until it is cut.
fn until_cut(live: &Live) {
    while !live.control().is_cut() {
        let control = live.control();
        control.wake_of(Side::Downstream).sleep(-1, nix::poll::PollFlags::empty(), None, || !control.is_cut()).unwrap();
    }
}

#[test]
fn in_every_order_of_threads_the_last_one_to_go_wakes_who_waits_for_it() {
    explore(SCHEDULES, || {
        let registry: Arc<Registry> = Arc::default();
        let threads: Vec<_> = (0..4)
            .map(|id| {
                let entry = registry.enter(live(id));
                thread::spawn(move || drop(entry))
            })
            .collect();
        assert_eq!(registry.wait_empty(never(), || false), 0);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn in_every_order_of_threads_a_nudge_is_heard_by_who_waits() {
    explore(SCHEDULES, || {
        let registry: Arc<Registry> = Arc::default();
        let _stays = registry.enter(live(1));
        let asked = Arc::new(crate::order::AtomicBool::new(false));
        let (ours, theirs) = (Arc::clone(&registry), Arc::clone(&asked));
        let nudge = thread::spawn(move || {
            theirs.store(true, Ordering::SeqCst);
            ours.nudge();
        });
        assert_eq!(registry.wait_empty(never(), || asked.load(Ordering::SeqCst)), 1);
        nudge.join().unwrap();
    });
}

#[test]
fn in_every_order_of_threads_a_cut_ends_whoever_is_in_and_counts_whom_it_has_reached() {
    explore(SCHEDULES, || {
        let registry: Arc<Registry> = Arc::default();
        let reached = Arc::new(AtomicUsize::new(0));
        // Some wait until they are cut, some go by themselves, and some of those come while the cut is under way.
        let session = |id: u64| {
            let (registry, reached) = (Arc::clone(&registry), Arc::clone(&reached));
            let entered = (id < 4).then(|| registry.enter(live(id)));
            thread::spawn(move || {
                let entry = entered.unwrap_or_else(|| registry.enter(live(id)));
                let mine = registry.find(id).unwrap();
                if id.is_multiple_of(2) && id < 4 {
                    until_cut(&mine);
                }
                drop(entry);
                assert!(registry.find(id).is_none());
                reached.fetch_add(usize::from(mine.control().is_cut()), Ordering::SeqCst);
            })
        };
        let threads: Vec<_> = (0..6).map(session).collect();
        let cut = registry.cut(&fault());
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!((2..=6).contains(&cut), "{cut}");
        assert_eq!(reached.load(Ordering::SeqCst), cut);
        assert_eq!(registry.wait_empty(never(), || false), 0);
    });
}
