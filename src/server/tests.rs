//! The end in every order that shuttle makes of threads: signals, sessions that go and sessions that stay.

use nix::poll::PollFlags;
use shuttle::thread;

use super::*;
use crate::order::explored::{explore, patiently};

/// Orders of threads that are tried of each test.
const SCHEDULES: usize = 500;

const HOUR: Duration = Duration::from_secs(3600);

/// Enters a session and runs it in a thread of its own, as [`admit`] does; it ends when it is cut, or by itself unless it `stays`.
fn session(shutdown: &Arc<Shutdown>, id: u64, stays: bool) -> thread::JoinHandle<bool> {
    let live = Live::new(id, "127.0.0.1:9".parse().unwrap(), Control::new().unwrap());
    let entry = shutdown.registry.enter(Arc::clone(&live));
    thread::spawn(move || {
        let control = live.control();
        while stays && !control.is_cut() {
            control.wake_of(Side::Downstream).sleep(-1, PollFlags::empty(), None, || !control.is_cut()).unwrap();
        }
        drop(entry);
        control.is_cut()
    })
}

/// Accepts sessions until the first signal, as [`serve`] does, and then drains. Returns what came of it, and which sessions were cut.
fn serve_until(shutdown: &Arc<Shutdown>, stays: impl Fn(u64) -> bool) -> (Option<Cut>, Vec<bool>) {
    let mut sessions = Vec::new();
    while shutdown.count() == 0 {
        if sessions.len() < 4 {
            let id = sessions.len() as u64;
            sessions.push(session(shutdown, id, stays(id)));
        } else {
            patiently(|| (shutdown.count() > 0).then_some(()));
        }
    }
    let stopped = Fault::new(Side::Router, Stage::Relay, "stopped");
    let drained = if shutdown.finish(HOUR, 1) { None } else { shutdown.cut(&stopped) };
    assert_eq!(shutdown.registry.sessions().len(), 0);
    (drained, sessions.into_iter().map(|session| session.join().unwrap()).collect())
}

fn signals(shutdown: &Arc<Shutdown>, count: usize) -> thread::JoinHandle<()> {
    let shutdown = Arc::clone(shutdown);
    thread::spawn(move || (0..count).for_each(|_| shutdown.signal()))
}

#[test]
fn in_every_order_of_threads_sessions_that_end_by_themselves_are_waited_for_and_none_is_cut() {
    explore(SCHEDULES, || {
        let shutdown = Shutdown::new().unwrap();
        let signals = signals(&shutdown, 1);
        let (drained, cut) = serve_until(&shutdown, |_| false);
        assert_eq!(drained, None);
        assert!(cut.iter().all(|cut| !cut), "{cut:?}");
        signals.join().unwrap();
    });
}

#[test]
fn in_every_order_of_threads_the_second_signal_cuts_whoever_is_left_and_all_have_gone_at_the_end() {
    explore(SCHEDULES, || {
        let shutdown = Shutdown::new().unwrap();
        let signals = signals(&shutdown, 2);
        let (drained, cut) = serve_until(&shutdown, |id| id.is_multiple_of(2));
        let were_cut = cut.iter().filter(|cut| **cut).count();
        assert_eq!(drained.map_or(0, |drained| drained.cut), were_cut);
        assert!(drained.is_none_or(|drained| drained.cut > 0 && drained.left == 0), "{drained:?}");
        // Those that stay go only when they are cut; the others may be.
        assert!(cut.iter().step_by(2).all(|cut| *cut), "{cut:?}");
        signals.join().unwrap();
    });
}
