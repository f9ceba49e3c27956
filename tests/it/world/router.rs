//! Our program as a process: started with nothing but the settings of its world, and held to what every session must leave behind.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::process::{LIMIT, Process, signal, until};

/// How long after its clients have gone the program may take to be as it was.
const TIDY: Duration = Duration::from_secs(15);

/// The running program.
pub struct Router {
    process: Process,
    /// Where it listens on 127.0.0.1.
    pub port: u16,
    environment: Vec<(String, String)>,
    baseline: Usage,
    /// What the descriptors were then.
    before: Vec<String>,
    stopped: bool,
}

/// What a process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Threads.
    pub threads: usize,
    /// Descriptors.
    pub descriptors: usize,
}

impl Usage {
    /// What the process holds now.
    pub fn of(pid: u32) -> Self {
        let count = |what: &str| std::fs::read_dir(format!("/proc/{pid}/{what}")).map_or(0, Iterator::count);
        Self { threads: count("task"), descriptors: count("fd") }
    }

    fn within(self, most: Self) -> bool {
        self.threads <= most.threads && self.descriptors <= most.descriptors
    }
}

impl Router {
    /// Starts the program with these variables; ready when it has said where it listens. `lazy` descriptors may come later.
    pub fn start(folder: &Path, settings: &[(String, String)], lazy: usize) -> Self {
        let mut environment = vec![
            ("PATH".to_owned(), std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".to_owned())),
            ("HOME".to_owned(), folder.join("home").display().to_string()),
            ("RUST_BACKTRACE".to_owned(), "1".to_owned()),
        ];
        environment.extend(settings.iter().filter(|(_, value)| !value.is_empty()).cloned());
        let further = words("ROUTER_EXTRA").into_iter().filter_map(|word| {
            let (name, value) = word.split_once('=')?;
            Some((name.to_owned(), value.to_owned()))
        });
        for (name, value) in further {
            if environment.iter().all(|(known, _)| *known != name) {
                environment.push((name, value));
            }
        }
        Self::start_in(environment, lazy)
    }

    /// The same, started by this shell command (`exec \"$0\"` is the program), with this as its standard input: for who gives it more.
    pub fn start_by(shell: &str, input: Stdio, environment: &[(String, String)], lazy: usize) -> Self {
        let mut command = Command::new("sh");
        command
            .args(["-c", shell, env!("CARGO_BIN_EXE_sftpproxy")])
            .env_clear()
            .envs(environment.iter().cloned())
            .current_dir("/");
        Self::ready(Process::start_given(&mut command, input), environment.to_vec(), lazy)
    }

    fn start_in(environment: Vec<(String, String)>, lazy: usize) -> Self {
        Self::ready(Process::start(&mut command(&environment)), environment, lazy)
    }

    fn ready(process: Process, environment: Vec<(String, String)>, lazy: usize) -> Self {
        let listening = process.wait_for("listening on ", 1, LIMIT);
        let line = listening.unwrap_or_else(|lines| panic!("the router does not start:\n{}", lines.join("\n"))).remove(0);
        let address = line.split("listening on ").nth(1).expect("the line that was waited for");
        let address = address.split([' ', ',']).next().expect("an address");
        let port = address.rsplit(':').next().and_then(|port| port.parse().ok());
        let port = port.unwrap_or_else(|| panic!("no port in: {line}"));
        let (mut baseline, before) = (Usage::of(process.pid()), held(process.pid()));
        baseline.descriptors += lazy;
        Self { process, port, environment, baseline, before, stopped: false }
    }

    /// Another one with the same variables, at another port.
    pub fn again(&self, lazy: usize) -> Self {
        Self::start_in(self.environment.clone(), lazy)
    }

    /// The program, with the same variables, to be given arguments.
    pub fn command(&self) -> Command {
        command(&self.environment)
    }

    /// Its variables.
    pub fn environment(&self) -> &[(String, String)] {
        &self.environment
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What it holds now, and what it held after its start.
    pub fn usage(&self) -> (Usage, Usage) {
        (Usage::of(self.pid()), self.baseline)
    }

    /// The exit code, when it has ended by itself.
    pub fn ended(&mut self) -> Option<i32> {
        self.process.ended()
    }

    /// Every line of its log so far.
    pub fn lines(&self) -> Vec<String> {
        self.process.lines()
    }

    /// The first line that matches, as soon as there is one. A pattern is pieces between `*` that follow each other.
    #[track_caller]
    pub fn wait_for_line(&self, pattern: &str) -> String {
        self.wait_for_lines(pattern, 1).remove(0)
    }

    /// All lines that match, as soon as there are `count`.
    #[track_caller]
    pub fn wait_for_lines(&self, pattern: &str, count: usize) -> Vec<String> {
        match self.process.wait_for(pattern, count, LIMIT) {
            Ok(lines) => lines,
            Err(lines) => panic!("the log lacks {count} of \"{pattern}\":\n{}", lines.join("\n")),
        }
    }

    /// How many lines its log has.
    pub fn count(&self) -> usize {
        self.process.count()
    }

    /// The first line that matches behind so many others, as soon as there is one; `None` = there is none within the limit.
    pub fn finds(&self, behind: usize, pattern: &str, limit: Duration) -> Option<String> {
        Some(self.process.wait_behind(behind, (pattern, 1), limit).ok()?.remove(0))
    }

    /// Sends a signal.
    pub fn signal(&self, number: Signal) {
        signal(self.pid(), number);
    }

    /// Waits for the end, which the test has brought about, and returns the exit code.
    #[track_caller]
    pub fn wait(&mut self) -> i32 {
        self.stopped = true;
        assert!(until(LIMIT, || self.process.ended().is_some()), "the router does not end:\n{}", self.lines().join("\n"));
        self.process.read_out();
        self.process.ended().expect("a process that has ended")
    }

    /// Kills it without further questions, for tests of what a crash leaves behind.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.wait();
    }

    /// What a router must be like when its clients have gone: `Err` says what it is not.
    fn check_tidy(&mut self) -> Result<(), String> {
        if !self.stopped {
            if let Some(code) = self.process.ended() {
                return Err(format!("ended by itself with code {code}"));
            }
            let pid = self.pid();
            let tidy = until(TIDY, || Usage::of(pid).within(self.baseline) && unended(&self.process.lines()).is_empty());
            let (now, baseline) = self.usage();
            // Once is enough: the next router's look at the control socket may be answered at this moment.
            if !tidy && !now.within(baseline) {
                let new: Vec<_> = held(pid).into_iter().filter(|line| !self.before.contains(line)).collect();
                return Err(format!("holds {now:?}, held {baseline:?} at the start; what is new:\n{}", new.join("\n")));
            }
        }
        let lines = self.lines();
        if let Some(panic) = lines.iter().find(|line| line.contains("panicked")) {
            return Err(format!("panicked: {panic}"));
        }
        // A program that was killed, or that a second signal ended, still owes the line: only SIGKILL excuses it.
        let killed = self.process.ended() == Some(128 + Signal::SIGKILL as i32);
        let unended = unended(&lines);
        if !killed && !unended.is_empty() {
            return Err(format!("sessions without exactly one accept and one end line: {unended:?}"));
        }
        if self.stopped {
            return Ok(());
        }
        self.signal(Signal::SIGTERM);
        match self.wait() {
            0 => Ok(()),
            code => Err(format!("ends with code {code} after SIGTERM without sessions")),
        }
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("-- log of the router\n{}\n--", self.lines().join("\n"));
            return;
        }
        if let Err(reason) = self.check_tidy() {
            panic!("the router {reason}\n-- its log\n{}", self.lines().join("\n"));
        }
    }
}

/// The words of a variable. `scripts/valgrind` and `scripts/sanitize` have the routers of the tests run under a program (`ROUTER_UNDER`) and with
/// variables that a test has not set (`ROUTER_EXTRA`: `NAME=VALUE NAME=VALUE`).
fn words(variable: &str) -> Vec<String> {
    std::env::var(variable).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

fn command(environment: &[(String, String)]) -> Command {
    let program = env!("CARGO_BIN_EXE_sftpproxy");
    let mut command = match words("ROUTER_UNDER").split_first() {
        Some((under, options)) => {
            let mut command = Command::new(under);
            command.args(options).arg(program);
            command
        }
        None => Command::new(program),
    };
    command.env_clear().envs(environment.iter().cloned()).current_dir("/");
    command
}

/// Sessions that have not exactly one accept and one end line.
fn unended(lines: &[String]) -> Vec<String> {
    let mut counts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for line in lines {
        let message = line.split_once("] ").map_or(line.as_str(), |(_, message)| message);
        for (word, end) in [("accept session=", false), ("end session=", true)] {
            if let Some(rest) = message.strip_prefix(word) {
                let session = rest.split(' ').next().unwrap_or_default().to_owned();
                let count = counts.entry(session).or_default();
                *(if end { &mut count.1 } else { &mut count.0 }) += 1;
            }
        }
    }
    counts.into_iter().filter(|(_, count)| *count != (1, 1)).map(|(session, count)| format!("{session}: {count:?}")).collect()
}

/// What the descriptors of a process are and what its threads are called, one line each. Of a socket also what the kernel says of it: where it is
/// and where to, in hexadecimal, or its path.
fn held(pid: u32) -> Vec<String> {
    let entries = |of: &str| std::fs::read_dir(format!("/proc/{pid}/{of}")).into_iter().flatten().flatten();
    let tables = ["tcp", "tcp6", "udp", "unix", "netlink"].map(|table| format!("/proc/{pid}/net/{table}"));
    let sockets = tables.map(|table| std::fs::read_to_string(table).unwrap_or_default()).concat();
    let told = |target: &str| {
        let inode = target.strip_prefix("socket:[")?.strip_suffix(']')?;
        sockets.lines().find(|line| line.split_whitespace().any(|word| word == inode)).map(str::to_owned)
    };
    let descriptor = |entry: std::fs::DirEntry| {
        let target = std::fs::read_link(entry.path()).ok()?.display().to_string();
        Some(format!("{:?} {target} {}", entry.file_name(), told(&target).unwrap_or_default()))
    };
    let name = |entry: std::fs::DirEntry| {
        let name = std::fs::read_to_string(entry.path().join("comm")).ok()?;
        Some(format!("thread {:?} {}", entry.file_name(), name.trim()))
    };
    let mut lines: Vec<_> = entries("fd").filter_map(descriptor).chain(entries("task").filter_map(name)).collect();
    lines.sort();
    lines
}

#[test]
fn a_session_without_its_one_end_line_is_seen() {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    assert!(unended(&lines("T INFO x] accept session=1 a\nT INFO x] end session=1 b")).is_empty());
    assert_eq!(unended(&lines("T INFO x] accept session=1 a")), ["1: (1, 0)"]);
    assert_eq!(unended(&lines("T I x] accept session=1\nT I x] end session=1\nT I x] end session=1")), ["1: (1, 2)"]);
}
