//! What signals do: SIGTERM and SIGINT end, SIGHUP reads again what can be. Threads do it, no handler.
//!
//! SIGUSR1, and of SIGHUP the files of log and audit, are flags that their writers look at.

use std::sync::Arc;
use std::thread;

use signal_hook::consts::{SIGHUP, SIGTERM};
use signal_hook::iterator::Signals;

/// Calls `end` for each signal that ends, `reload` for each that does not. An error is the lack of a thread or of descriptors.
///
/// SIGINT is ctrlc's. The others are not: it has one call for all three, and SIGHUP ends nothing here.
pub fn watch(end: impl Fn() + Send + Sync + 'static, reload: impl Fn() + Send + 'static) -> Result<(), String> {
    let end = Arc::new(end);
    let interrupted = Arc::clone(&end);
    ctrlc::set_handler(move || interrupted()).map_err(|error| format!("signals: {error}"))?;
    let mut signals = Signals::new([SIGTERM, SIGHUP]).map_err(|error| format!("signals: {error}"))?;
    let run = move || {
        for signal in signals.forever() {
            if signal == SIGHUP { reload() } else { end() }
        }
    };
    thread::Builder::new().name("signals".into()).spawn(run).map(drop).map_err(|error| format!("no thread: {error}"))
}
