//! What it costs to hand something from thread to thread, as the two threads of a session do: a wake-up by eventfd and poll(2), there and
//! back, without anything else. Beside the round trip of a STAT (BENCHMARKS.md) it says how much of that is no work of the router's.
//!
//! `cargo run --release --example wake_cost`

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use sftpproxy::leg::Wake;

/// Round trips that are measured.
const TRIPS: u32 = 20_000;

fn main() -> Result<(), String> {
    let (here, there) = (Arc::new(Wake::new()?), Arc::new(Wake::new()?));
    let turn = Arc::new(AtomicU32::new(0));
    let echo = {
        let (here, there, turn) = (Arc::clone(&here), Arc::clone(&there), Arc::clone(&turn));
        thread::spawn(move || {
            for trip in 0..TRIPS {
                wait(&there, &turn, 2 * trip + 1)?;
                turn.store(2 * trip + 2, Ordering::SeqCst);
                here.wake();
            }
            Ok::<_, String>(())
        })
    };
    let mut times = Vec::with_capacity(TRIPS as usize);
    for trip in 0..TRIPS {
        let started = Instant::now();
        turn.store(2 * trip + 1, Ordering::SeqCst);
        there.wake();
        wait(&here, &turn, 2 * trip + 2)?;
        times.push(started.elapsed());
    }
    echo.join().map_err(|_| "the other thread failed")??;
    times.sort();
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    let (median, late) = (micros(times[times.len() / 2]), micros(times[times.len() * 99 / 100]));
    println!("there and back: {median:.1} µs (99 %: {late:.1} µs); a hand-over: {:.1} µs", median / 2.0);
    Ok(())
}

/// Sleeps until it is this turn.
fn wait(wake: &Wake, turn: &AtomicU32, wanted: u32) -> Result<(), String> {
    while turn.load(Ordering::SeqCst) != wanted {
        wake.sleep(-1, PollFlags::empty(), None, || turn.load(Ordering::SeqCst) != wanted)?;
    }
    Ok(())
}
