//! What is left of a terminal in which the program has failed.

use std::process::{Command, Stdio};

use super::*;

/// Set where this test is the program in the terminal.
const IN_IT: &str = "SFTPPROXY_TEST_IN_A_TERMINAL";

#[test]
fn a_panic_is_told_on_a_terminal_that_was_given_back_before() {
    if std::env::var_os(IN_IT).is_some() {
        let mut screen = Screen::enter(false).unwrap();
        screen.draw(&[(Line::Total, "drawn".into())]).unwrap();
        panic!("a fault of ours");
    }
    let test = "admin::top::tests::a_panic_is_told_on_a_terminal_that_was_given_back_before";
    let run = format!(
        "before=$(stty -g); {IN_IT}=yes {} --exact {test} --nocapture; [ \"$before\" = \"$(stty -g)\" ] && echo as before",
        std::env::current_exe().unwrap().display()
    );
    let mut command = Command::new("script");
    command.args(["-qec", &run, "/dev/null"]).stdin(Stdio::null()).env("TERM", "xterm-256color").env("SHELL", "/bin/sh");
    let output = command.output().expect("script");
    let written = String::from_utf8_lossy(&output.stdout);
    let mut rest = &*written;
    // In this order: taken, drawn, given back, told, and nothing of the terminal is left otherwise.
    for next in ["\u{1b}[?1049h", "\u{1b}[?25l", "drawn", "\u{1b}[?25h", "\u{1b}[?1049l", "a fault of ours", "as before"] {
        rest = rest.split_once(next).unwrap_or_else(|| panic!("no {next:?} where it should be: {written:?}")).1;
    }
}
