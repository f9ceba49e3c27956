//! Holds many sessions open and does an operation in each of them every so often.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::client::{Client, Door, Outcome, string};
use crate::held::Held;

/// Each owns its share of the sessions; one operation at a time.
const THREADS: usize = 8;

const STAT: u8 = 17;
const ATTRS: u8 = 105;

pub struct Plan<'a> {
    pub door: Door<'a>,
    pub sessions: usize,
    /// How long, and how often in each session.
    pub seconds: u64,
    pub every: u64,
    pub pid: u64,
}

/// Prints what the router's process holds a session, and how long operations took. Whether all went well.
pub fn run(plan: &Plan<'_>) -> bool {
    let before = Held::of(plan.pid);
    let (opened, errors) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let start = Instant::now();
    let mut took = std::thread::scope(|scope| {
        let (opened, errors) = (&opened, &errors);
        let threads: Vec<_> = (0..THREADS).map(|number| scope.spawn(move || work(plan, number, (opened, errors)))).collect();
        while opened.load(Ordering::SeqCst) + errors.load(Ordering::SeqCst) < plan.sessions {
            std::thread::sleep(Duration::from_millis(100));
        }
        println!("{} sessions open after {:.1} s", opened.load(Ordering::SeqCst), start.elapsed().as_secs_f64());
        // In the middle, when everything has settled.
        std::thread::sleep(Duration::from_secs(plan.seconds) / 2);
        tell(&Held::of(plan.pid), &before, opened.load(Ordering::SeqCst));
        threads.into_iter().flat_map(|thread| thread.join().expect("a thread of the client")).collect::<Vec<_>>()
    });
    took.sort_unstable();
    let (errors, at) =
        (errors.into_inner(), |share: f64| took.get((took.len() as f64 * share) as usize).copied().unwrap_or_default());
    let [half, most, last] =
        [at(0.5), at(0.99), took.last().copied().unwrap_or_default()].map(|time| time.as_secs_f64() * 1000.0);
    println!(
        "{} operations in {} s: p50 {half:.1} ms, p99 {most:.1} ms, longest {last:.1} ms; {errors} errors",
        took.len(),
        plan.seconds
    );
    errors == 0 && !took.is_empty()
}

/// Opens this thread's sessions, waits for the others', and lets each do its work in its turn. Returns how long operations took.
fn work(plan: &Plan<'_>, number: usize, (opened, errors): (&AtomicUsize, &AtomicUsize)) -> Vec<Duration> {
    let failed = |what: &str| {
        eprintln!("{what}");
        errors.fetch_add(1, Ordering::SeqCst);
    };
    let mut sessions = Vec::new();
    for _ in (number..plan.sessions).step_by(THREADS) {
        match Client::open(plan.door) {
            Ok(session) => {
                sessions.push(session);
                opened.fetch_add(1, Ordering::SeqCst);
            }
            Err(error) => failed(&format!("login: {error}")),
        }
    }
    while opened.load(Ordering::SeqCst) + errors.load(Ordering::SeqCst) < plan.sessions {
        std::thread::sleep(Duration::from_millis(50));
    }
    let (start, every, mut took, mut turn) = (Instant::now(), Duration::from_secs(plan.every), Vec::new(), 0);
    while !sessions.is_empty() {
        let at = every.mul_f64(turn as f64 / sessions.len() as f64);
        if at >= Duration::from_secs(plan.seconds) {
            break;
        }
        std::thread::sleep((start + at).saturating_duration_since(Instant::now()));
        let (index, asked) = (turn % sessions.len(), Instant::now());
        match stat(&mut sessions[index]) {
            Ok(()) => took.push(asked.elapsed()),
            Err(error) => failed(&format!("operation: {error}")),
        }
        turn += 1;
    }
    took
}

/// STAT of the start directory.
fn stat(client: &mut Client) -> Outcome<()> {
    match client.ask(STAT, &string(b"."))? {
        (ATTRS, _) => Ok(()),
        other => Err(format!("STAT is answered with {other:?}").into()),
    }
}

fn tell(now: &Held, before: &Held, sessions: usize) {
    let each = |now: u64, before: u64| now.saturating_sub(before) as f64 / sessions.max(1) as f64;
    println!(
        "the router holds {} MiB; a session {:.1} KiB, {:.2} threads, {:.2} descriptors, {:.2} mappings",
        now.kib / 1024,
        each(now.kib, before.kib),
        each(now.threads, before.threads),
        each(now.files as u64, before.files as u64),
        each(now.maps as u64, before.maps as u64)
    );
}
