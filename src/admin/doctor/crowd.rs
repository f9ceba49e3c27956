//! Many routes at the same time, and no upstream too often: a bounded number of threads, and a bound for each address.
//!
//! An address that has failed [`PATIENCE`] times before its host key, and never worked, is not asked for its other routes: a dead machine
//! with hundreds of users would take hours. It knows nothing of SSH.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;

/// Failures after which an address that never worked is given up.
const PATIENCE: usize = 2;

/// How many at the same time.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Altogether.
    pub threads: usize,
    /// At one address.
    pub per_address: usize,
}

/// What came of one job.
pub struct Done<T> {
    /// Its number.
    pub job: usize,
    /// `Err` = it was not done, because of what an earlier job at the address has said.
    pub outcome: Result<T, String>,
}

/// What is to be said of an outcome.
pub struct Verdict {
    /// The address works.
    pub worked: bool,
    /// Why the address fails.
    pub fault: Option<String>,
}

#[derive(Default)]
struct Place {
    busy: usize,
    worked: bool,
    failures: usize,
    fault: String,
}

struct Queue {
    state: Mutex<State>,
    freed: Condvar,
    bounds: Bounds,
}

struct State {
    waiting: VecDeque<usize>,
    places: BTreeMap<String, Place>,
}

/// Does a job for each of `addresses` and hands out what came of it, in any order. `work` also says what that says of the address. An
/// error is the lack of a first thread.
pub fn run<T: Send>(
    addresses: &[String],
    bounds: Bounds,
    work: &(dyn Fn(usize) -> (T, Verdict) + Sync),
    mut done: impl FnMut(Done<T>),
) -> Result<(), String> {
    let waiting = (0..addresses.len()).collect();
    let queue = Queue { state: Mutex::new(State { waiting, places: BTreeMap::new() }), freed: Condvar::new(), bounds };
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        for number in 0..bounds.threads.min(addresses.len()) {
            let (queue, sender) = (&queue, sender.clone());
            let run = move || {
                while let Some((job, given_up)) = queue.next(addresses) {
                    let outcome = match given_up {
                        Some(reason) => Err(reason),
                        None => {
                            let held = Held { queue, address: &addresses[job] };
                            let (outcome, verdict) = work(job);
                            held.heard(verdict);
                            Ok(outcome)
                        }
                    };
                    if sender.send(Done { job, outcome }).is_err() {
                        return;
                    }
                }
            };
            match thread::Builder::new().name(format!("doctor-{number}")).spawn_scoped(scope, run) {
                Ok(_) => {}
                // Fewer do as well.
                Err(_) if number > 0 => break,
                Err(error) => return Err(format!("no thread: {error}")),
            }
        }
        drop(sender);
        receiver.iter().for_each(&mut done);
        Ok(())
    })
}

impl Queue {
    /// The next job, and why its address is given up if it is; `None` = there are no more.
    fn next(&self, addresses: &[String]) -> Option<(usize, Option<String>)> {
        let mut state = self.lock();
        loop {
            if state.waiting.is_empty() {
                return None;
            }
            let State { waiting, places } = &mut *state;
            let free = |job: &usize| {
                places.get(&addresses[*job]).is_none_or(|place| place.busy < self.bounds.per_address || place.given_up())
            };
            if let Some(at) = waiting.iter().position(free) {
                let job = waiting.remove(at)?;
                let place = places.entry(addresses[job].clone()).or_default();
                if place.given_up() {
                    return Some((job, Some(place.fault.clone())));
                }
                place.busy += 1;
                return Some((job, None));
            }
            state = self.freed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of the places at an address; given back on every path, or the others would wait for ever.
struct Held<'a> {
    queue: &'a Queue,
    address: &'a str,
}

impl Held<'_> {
    fn heard(&self, verdict: Verdict) {
        if let Some(place) = self.queue.lock().places.get_mut(self.address) {
            place.worked |= verdict.worked;
            if let Some(fault) = verdict.fault {
                place.failures += 1;
                place.fault = fault;
            }
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.queue.lock().places.get_mut(self.address) {
            place.busy -= 1;
        }
        self.queue.freed.notify_all();
    }
}

impl Place {
    fn given_up(&self) -> bool {
        !self.worked && self.failures >= PATIENCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn everything_is_done_once_and_no_address_is_asked_too_often_at_the_same_time() {
        let addresses: Vec<String> = (0..200).map(|number| format!("host-{}", number % 3)).collect();
        let (busy, most): ([AtomicUsize; 3], [AtomicUsize; 3]) = Default::default();
        let work = |job: usize| {
            let now = busy[job % 3].fetch_add(1, Ordering::SeqCst) + 1;
            most[job % 3].fetch_max(now, Ordering::SeqCst);
            thread::yield_now();
            busy[job % 3].fetch_sub(1, Ordering::SeqCst);
            (job, Verdict { worked: true, fault: None })
        };
        let mut seen = Vec::new();
        let bounds = Bounds { threads: 16, per_address: 2 };
        run(&addresses, bounds, &work, |done| seen.push((done.job, done.outcome))).unwrap();
        seen.sort_unstable();
        assert_eq!(seen, (0..200).map(|job| (job, Ok(job))).collect::<Vec<_>>());
        assert!(most.iter().all(|most| most.load(Ordering::SeqCst) <= 2), "{most:?}");
    }

    #[test]
    fn an_address_that_never_works_is_given_up_and_one_that_worked_once_is_not() {
        let addresses: Vec<String> = (0..100).map(|number| if number % 2 == 0 { "dead" } else { "flaky" }.to_owned()).collect();
        let asked = AtomicUsize::new(0);
        let work = |job: usize| match job {
            1 => (job, Verdict { worked: true, fault: None }),
            job => {
                asked.fetch_add(1 - job % 2, Ordering::SeqCst);
                (job, Verdict { worked: false, fault: Some(format!("refused {}", job % 2)) })
            }
        };
        let (mut done_flaky, mut given_up) = (0, 0);
        let bounds = Bounds { threads: 1, per_address: 1 };
        run(&addresses, bounds, &work, |done| match done.outcome {
            Ok(job) => done_flaky += job % 2,
            Err(reason) => given_up += usize::from(reason == "refused 0"),
        })
        .unwrap();
        assert_eq!((asked.load(Ordering::SeqCst), done_flaky, given_up), (PATIENCE, 50, 50 - PATIENCE));
    }
}
