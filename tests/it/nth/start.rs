//! The n-th failure from the first moment of the process on: whatever call fails while it starts, it serves as it should or ends soon with a code and
//! a line that says why. `scripts/nth` runs all of it.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::lever::Callers;
use super::{CAUGHT, KNOWN, Series, Stage, TAKEN_FOR_GRANTED, Tally, chosen, known, store};
use crate::world::process::{Process, matches, signal, until};

/// How long a start may take until it is one that stands still.
const STARTED: Duration = Duration::from_secs(60);

/// What a start has come to.
enum Came {
    /// It listens at this port.
    Listening(u16),
    /// It has ended with this code.
    Ended(i32),
    /// Neither.
    Nothing,
}

impl Stage {
    /// One start in which one call fails; `false` = there was no such call.
    fn start(&self, series: &Series, error: (&str, i32), nth: u64, tally: &mut Tally) -> bool {
        self.lever.arm(series.order(error, nth, true));
        let mut process = Process::start(&mut self.world.router.command());
        let came = came(&mut process);
        self.lever.disarm();
        if matches!(came, Came::Ended(_)) {
            process.read_out();
        }
        let (_, failed) = self.lever.counted();
        tally.reached += failed.min(1);
        let (lines, caller, end) = (process.lines(), self.lever.caller(), self.lever.end());
        let wrong = match came {
            Came::Nothing => Err("a start that stands still".to_owned()),
            Came::Listening(port) => {
                tally.whole += failed.min(1);
                self.serves_and_stops(&mut process, port)
            }
            Came::Ended(0) => Err("it ended with 0".to_owned()),
            Came::Ended(code) if code >= 128 => Err(format!("it ended with {code} in {}", end.join("\n        < "))),
            Came::Ended(_) if lines.iter().any(|line| says_why(line)) => Ok(()),
            Came::Ended(_) => Err("it ended and did not say why".to_owned()),
        };
        let lines = process.lines();
        let (excused, wrong) = match wrong {
            Ok(()) if lines.iter().any(|line| line.contains("panicked")) => (known(CAUGHT, &caller), Err("a panic".to_owned())),
            other => (known(KNOWN, &end).or_else(|| known(TAKEN_FOR_GRANTED, &caller)), other),
        };
        if let Err(wrong) = wrong {
            match excused {
                Some(known) => *tally.known.entry(known).or_default() += 1,
                None => {
                    let (caller, lines) = (caller.join("\n        < "), lines.join("\n      "));
                    tally.bad(wrong, format!("n={nth}\n      called by {caller}\n      {lines}"));
                }
            }
        }
        failed > 0
    }

    fn serves_and_stops(&self, process: &mut Process, port: u16) -> Result<(), String> {
        self.place.visit(port).map_err(|error| format!("it listens and does not serve: {error:?}"))?;
        signal(process.pid(), Signal::SIGTERM);
        until(STARTED, || process.ended().is_some());
        if process.ended() == Some(0) { Ok(()) } else { Err(format!("it does not stop well: {:?}", process.ended())) }
    }

    /// Starts with one call after the other failing with this error.
    fn starts(&self, series: &Series, error: (&str, i32), every: u64) -> Tally {
        let mut tally = Tally::default();
        let mut nth = every;
        while self.start(series, error, nth, &mut tally) {
            nth += every;
        }
        tally.print(&format!("{} {} at the start", series.name, error.0), "");
        tally
    }
}

/// Whether that line of a log tells of what has ended it.
fn says_why(line: &str) -> bool {
    line.contains("ERROR") || matches(line, "sftpproxy: ")
}

/// Waits until a process listens or has ended.
fn came(process: &mut Process) -> Came {
    let listening = |process: &Process| {
        let lines = process.lines();
        let address = lines.iter().find_map(|line| line.split("listening on ").nth(1))?;
        address.split([' ', ',']).next()?.rsplit(':').next()?.parse().ok()
    };
    let mut port = None;
    until(STARTED, || {
        port = listening(process);
        port.is_some() || process.ended().is_some()
    });
    match (port, process.ended()) {
        (Some(port), None) => Came::Listening(port),
        (_, Some(code)) => Came::Ended(code),
        (None, None) => Came::Nothing,
    }
}

#[test]
fn whatever_call_fails_at_the_start_it_serves_or_ends_with_a_line_that_says_why() {
    let stage = Stage::new(store());
    let mut bad = 0;
    // A line of the log that cannot be written would be the one that is waited for, and what OpenSSL could not make at its start it never has
    // (ARCHITECTURE.md, "What fails for want of memory").
    let is_ours = |series: &Series| !series.is_log() && series.callers != Callers::C;
    for (series, errors, every) in chosen(1).into_iter().filter(|(series, ..)| is_ours(series)) {
        for error in errors {
            bad += stage.starts(series, *error, every).bad.len();
        }
    }
    assert_eq!(bad, 0, "what was wrong is above");
}
