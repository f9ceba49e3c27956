//! `top`: a real transfer of 1 GiB watched in a real terminal, which is given back as it was; without one, a table or JSON.

use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::world::clients::Session;
use crate::world::process::{LIMIT, code, descendants, matches, signal, until};
use crate::world::{USER, World, keys};

/// A name with which a peer would like to write to the terminal.
const HOSTILE: &str = "big\u{1b}[31mred.iso";

/// How it may be shown.
const SHOWN: &str = r"big\u{1b}[31mred.iso";

/// A session that fetches 1 GiB of nothing at 6 MiB a second, which a busy machine can too.
fn fetching(world: &World) -> Session {
    world.store.put(USER, &[&keys::ed25519(USER)], &[&world.route()[..], &[("download_limit", "6144".to_owned())]].concat());
    std::fs::File::create(world.sshd.files.join(HOSTILE)).unwrap().set_len(1 << 30).unwrap();
    let mut session = world.proxied(USER).session();
    session.ask("pwd", "Remote working directory");
    session.say("get big* /dev/null");
    session
}

/// A pty of `script`, in which `top` runs. What stands in it afterwards says whether the terminal is as before, and the exit code.
struct Terminal {
    script: Child,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn start(world: &World) -> Self {
        let run = format!(
            "stty cols 120 rows 24; before=$(stty -g); {} top; code=$?; [ \"$before\" = \"$(stty -g)\" ] && echo \"as before, code $code\"",
            env!("CARGO_BIN_EXE_sftpproxy")
        );
        let mut command = Command::new("script");
        command
            .env_clear()
            .envs(world.router.environment().iter().cloned())
            .env("TERM", "xterm-256color")
            .env("SHELL", "/bin/sh");
        command.args(["-qec", &run, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped()).current_dir("/");
        let mut script = command.spawn().expect("script");
        let (mut output, written) = (script.stdout.take().expect("a pipe"), Arc::<Mutex<Vec<u8>>>::default());
        let into = Arc::clone(&written);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Some(read) = output.read(&mut buffer).ok().filter(|read| *read > 0) {
                into.lock().unwrap().extend(&buffer[..read]);
            }
        });
        Self { script, written }
    }

    /// Every byte so far.
    fn raw(&self) -> String {
        String::from_utf8_lossy(&self.written.lock().unwrap()).into_owned()
    }

    /// The lines that were drawn, one after the other: each begins where the cursor is put.
    fn drawn(&self) -> Vec<String> {
        self.raw().split("\u{1b}[2K").map(|line| line.split("\u{1b}[0m").next().unwrap_or_default().to_owned()).collect()
    }

    /// The percentages of the file that were drawn.
    fn percents(&self) -> Vec<u32> {
        let pattern = format!("alice*down*M of 1.0G *%*M/s*limit*{SHOWN}");
        let percent = |line: String| line.split("1.0G ").nth(1)?.split('%').next()?.trim().parse().ok();
        self.drawn().into_iter().filter(|line| matches(line, &pattern)).filter_map(percent).collect()
    }

    /// Waits for the end, after which the terminal is what it was.
    #[track_caller]
    fn gives_back(mut self) {
        let ended = until(LIMIT, || self.script.try_wait().expect("a child").is_some());
        assert!(ended, "it does not end: {:?}", self.raw());
        let status = self.script.wait().unwrap();
        assert!(until(LIMIT, || self.raw().contains("as before, code 0")), "{:?}", self.raw());
        let raw = self.raw();
        assert!(matches(&raw, "\u{1b}[?1049h*\u{1b}[?7l*\u{1b}[?25l*\u{1b}[?25h*\u{1b}[?7h*\u{1b}[?1049l*as before"), "{raw:?}");
        assert_eq!(code(status), 0);
    }
}

impl Drop for Terminal {
    /// A test that fails leaves no terminal behind.
    fn drop(&mut self) {
        if matches!(self.script.try_wait(), Ok(None)) {
            descendants(self.script.id()).into_iter().for_each(|pid| signal(pid, Signal::SIGKILL));
            let _ = self.script.kill();
            let _ = self.script.wait();
        }
    }
}

#[test]
fn a_transfer_of_one_gibibyte_is_watched_in_a_terminal_that_is_given_back() {
    let world = World::start();
    let session = fetching(&world);
    let [mut keyed, ended, hung_up] = [(); 3].map(|()| Terminal::start(&world));
    let moved = |terminal: &Terminal| {
        let percents = terminal.percents();
        percents.last().is_some_and(|last| *last > percents[0])
    };
    assert!(until(LIMIT, || [&keyed, &ended, &hung_up].into_iter().all(moved)), "{:#?}", keyed.drawn());
    let raw = keyed.raw();
    assert!(!raw.contains("\u{1b}[31m"), "a peer has written to the terminal: {raw:?}");
    assert!(keyed.drawn().iter().any(|line| matches(line, ": 1 sessions, 1 files, up *down *MiB/s*q ends")), "{raw:?}");
    // One is ended by a key, the others by signals.
    keyed.script.stdin.as_mut().unwrap().write_all(b"xq").unwrap();
    keyed.gives_back();
    for (terminal, number) in [(ended, Signal::SIGTERM), (hung_up, Signal::SIGHUP)] {
        signal(descendants(terminal.script.id()).pop().expect("top"), number);
        terminal.gives_back();
    }

    // On a busy machine it may for a moment be the router that is slow, and not the limit.
    let (mut once, pattern) = (String::new(), format!("alice*down*M of 1.0G *%*M/s*limit*{SHOWN}"));
    let is_limited = || {
        once = world.command(&["top"]).success();
        matches(&once, &pattern)
    };
    assert!(until(Duration::from_secs(20), is_limited), "{once}");
    assert!(once.starts_with("SESSION  USER") && once.lines().count() == 2, "{once}");
    assert_eq!(world.command(&["top", "--once"]).success().lines().count(), 2);
    let json: Value = serde_json::from_str(&world.command(&["top", "--json"]).success()).expect("JSON");
    assert_eq!((&json[0]["user"], &json[0]["transfers"][0]["size"]), (&USER.into(), &(1 << 30).into()), "{json}");
    session.signal(Signal::SIGKILL);
}

#[test]
fn nothing_is_drawn_where_no_router_answers_or_the_arguments_are_wrong() {
    let mut world = World::start();
    assert_eq!(world.command(&["top", "--once"]).success().lines().count(), 1, "a heading and no session");
    for interval in ["0", "61", "x"] {
        assert_eq!(world.command(&["top", "--interval", interval]).code, 2);
    }
    world.router.kill();
    for arguments in [&["top"][..], &["top", "--json"]] {
        let output = world.command(arguments);
        assert!(output.code == 1 && output.stderr.contains("no router of this machine answers"), "{output:?}");
        assert_eq!(output.stdout, "");
    }
}
