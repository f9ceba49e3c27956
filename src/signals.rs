//! What signals do: SIGTERM and SIGINT end, SIGHUP reads again what can be. One thread, no work in a handler.
//!
//! SIGUSR1, and of SIGHUP the files of log and audit, are flags that their writers look at.

use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Calls `end` for each signal that ends, `reload` for each that does not. An error is the lack of a thread or of descriptors.
pub fn watch(end: impl Fn() + Send + 'static, reload: impl Fn() + Send + 'static) -> Result<(), String> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(|error| format!("signals: {error}"))?;
    let run = move || {
        for signal in signals.forever() {
            if signal == SIGHUP { reload() } else { end() }
        }
    };
    thread::Builder::new().name("signals".into()).spawn(run).map(drop).map_err(|error| format!("no thread: {error}"))
}
