//! The benchmark's own tests: what of `scripts/bench` can be wrong without a measurement.

use std::path::PathBuf;
use std::process::Command;

use crate::world::process::run;

#[test]
fn the_benchmarks_arithmetic_bars_and_accounting_are_right() {
    let top = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let output = run(Command::new(top.join("scripts/bench")).arg("--self-test"));
    assert_eq!(output.code, 0, "{}{}", output.stdout, output.stderr);
    assert!(output.stderr.contains("\nOK\n"), "{}", output.stderr);
}

#[test]
fn the_benchmark_refuses_what_it_cannot_do() {
    let top = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    for (words, said) in [
        (["--rows", "nothing"], "no such rows: nothing"),
        (["--only", "nobody"], "no such peers: nobody"),
        (["--rounds", "0"], "--rounds is at least 1"),
        (["--sessions", "0"], "invalid"),
    ] {
        let output = run(Command::new(top.join("scripts/bench")).args(words).arg("--packages"));
        assert_eq!(output.code, 2, "{words:?}: {}", output.stderr);
        assert!(output.stderr.contains(said), "{words:?}: {}", output.stderr);
    }
}
