//! The client of scripts/load and scripts/soak: many SFTP sessions through the router, from few threads, and what its process holds meanwhile.
//!
//!     load hold ADDRESS USER KEY SESSIONS SECONDS EVERY ROUTER_PID
//!     load soak ADDRESS FOLDER SESSIONS ROUTER_PID STORE_PORT
//!
//! `hold` keeps sessions open, `soak` opens, uses and ends one after the other. The exit status is 1 when something was not as it should be.

use std::process::ExitCode;

mod client;
mod held;
mod hold;
mod soak;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<u64>().expect("a number");
    let fine = match words.as_slice() {
        ["hold", address, user, key, sessions, seconds, every, pid] => hold::run(&hold::Plan {
            door: client::Door { address, user, key },
            sessions: number(sessions) as usize,
            seconds: number(seconds),
            every: number(every),
            pid: number(pid),
        }),
        ["soak", address, folder, sessions, pid, store] => soak::run(&soak::Plan {
            address,
            folder,
            sessions: number(sessions) as usize,
            pid: number(pid),
            store: number(store) as u16,
        }),
        _ => {
            eprintln!(
                "load hold ADDRESS USER KEY SESSIONS SECONDS EVERY ROUTER_PID\nload soak ADDRESS FOLDER SESSIONS ROUTER_PID STORE_PORT"
            );
            return ExitCode::from(2);
        }
    };
    if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
