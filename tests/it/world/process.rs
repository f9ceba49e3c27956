//! Programs that tests start: short ones with their output and a time limit, long ones with their log in memory.

use std::io::{BufRead as _, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::{Duration, Instant};

/// How long anything may take that should be quick; far above what it takes on a busy machine, so that it only ends what hangs.
pub const LIMIT: Duration = Duration::from_secs(60);

/// What a short program did.
#[derive(Debug, Clone)]
pub struct Output {
    /// The exit code; 128 and the signal's number where a signal ended it, as shells have it.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Output {
    /// The standard output of a program that must have succeeded.
    #[track_caller]
    pub fn success(self) -> String {
        assert_eq!(self.code, 0, "exit code {}\n-- stdout\n{}\n-- stderr\n{}", self.code, self.stdout, self.stderr);
        self.stdout
    }
}

/// Runs a program to its end, within [`LIMIT`].
#[track_caller]
pub fn run(command: &mut Command) -> Output {
    run_within(LIMIT, command)
}

/// Runs a program to its end, within a limit.
#[track_caller]
pub fn run_within(limit: Duration, command: &mut Command) -> Output {
    if command.get_current_dir().is_none() {
        command.current_dir("/");
    }
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = spawned.unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let pid = child.id();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let Ok(output) = receiver.recv_timeout(limit) else {
        // With those that it has started: they hold its output open.
        for pid in std::iter::once(pid).chain(descendants(pid)) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), nix::sys::signal::Signal::SIGKILL);
        }
        let output = receiver.recv().expect("the waiting thread").expect("a killed child");
        panic!("{command:?} takes longer than {limit:?}\n{}", String::from_utf8_lossy(&output.stderr));
    };
    let output = output.expect("a child's output");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Output { code: code(output.status), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

/// The exit code as shells have it.
pub fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().or_else(|| status.signal().map(|number| 128 + number)).expect("a process that has ended")
}

/// Sends a signal to a process of ours.
pub fn signal(pid: u32, signal: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a process id"));
    nix::sys::signal::kill(pid, signal).expect("a child that has not been waited for");
}

/// The fields of `/proc/PID/stat` from the state on, which is the first; empty when there is no such process.
fn stat(pid: u32) -> Vec<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    text.rsplit(") ").next().unwrap_or_default().split(' ').map(str::to_owned).collect()
}

/// Clock ticks (of 10 ms) that a process has worked.
pub fn ticks(pid: u32) -> u64 {
    stat(pid).iter().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
}

/// Memory of a process in KiB.
pub fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or_default()
}

/// The processes that descend from this one, the nearest first.
pub fn descendants(pid: u32) -> Vec<u32> {
    let all = || std::fs::read_dir("/proc").expect("/proc").flatten();
    let known: Vec<(u32, u32)> = all()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|child| Some((child, stat(child).get(1)?.parse().ok()?)))
        .collect();
    let mut found = vec![pid];
    let mut at = 0;
    while let Some(&next) = found.get(at) {
        found.extend(known.iter().filter(|(_, parent)| *parent == next).map(|(child, _)| *child));
        at += 1;
    }
    found.remove(0);
    found
}

/// Waits until the condition holds; `false` when it does not within the limit.
pub fn until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    true
}

/// A port that nobody listens on at this moment. Somebody may soon: who uses it tries again with another.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// Lines as they come, for any number of readers.
#[derive(Default)]
struct Lines {
    seen: Mutex<(Vec<String>, bool)>,
    grown: Condvar,
}

/// A long-running program. Killed when dropped.
pub struct Process {
    child: Child,
    lines: Arc<Lines>,
}

impl Process {
    /// Starts a program whose log is its standard error.
    pub fn start(command: &mut Command) -> Self {
        Self::start_given(command, Stdio::null())
    }

    /// The same for one whose standard input is given.
    pub fn start_given(command: &mut Command, input: Stdio) -> Self {
        let spawned = command.stdin(input).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let log = child.stderr.take().expect("a piped standard error");
        Self { child, lines: collect(log) }
    }

    /// Starts a program whose log is its standard output.
    pub fn start_stdout(command: &mut Command) -> Self {
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let log = child.stdout.take().expect("a piped standard output");
        Self { child, lines: collect(log) }
    }

    /// Takes over a client whose both outputs are piped, as one log.
    pub fn of_client(mut child: Child) -> Self {
        let output = child.stdout.take().expect("a piped standard output");
        let errors = child.stderr.take().expect("a piped standard error");
        let lines = collect(output);
        collect_into(errors, Arc::clone(&lines), false);
        Self { child, lines }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The exit code, when it has ended.
    pub fn ended(&mut self) -> Option<i32> {
        self.child.try_wait().expect("the state of a child").map(code)
    }

    /// Waits until the log of a program that has ended is read to its end; a program that it has left behind may hold that open.
    pub fn read_out(&self) {
        let seen = self.lines.seen.lock().unwrap();
        drop(self.lines.grown.wait_timeout_while(seen, Duration::from_secs(2), |seen| !seen.1).unwrap());
    }

    /// Every line so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.seen.lock().unwrap().0.clone()
    }

    /// How many lines there are.
    pub fn count(&self) -> usize {
        self.lines.seen.lock().unwrap().0.len()
    }

    /// Waits for `count` lines that match the pattern and returns them; `Err` has what there was when the limit passed or the
    /// program ended. A pattern is pieces between `*` that follow each other.
    pub fn wait_for(&self, pattern: &str, count: usize, limit: Duration) -> Result<Vec<String>, Vec<String>> {
        self.wait_behind(0, (pattern, count), limit)
    }

    /// The same among the lines behind the first `behind` ones.
    pub fn wait_behind(
        &self,
        behind: usize,
        (pattern, count): (&str, usize),
        limit: Duration,
    ) -> Result<Vec<String>, Vec<String>> {
        let deadline = Instant::now() + limit;
        let mut seen = self.lines.seen.lock().unwrap();
        // Many may wait while a log grows long: each looks at each line once.
        let (mut found, mut looked_at) = (Vec::new(), behind);
        loop {
            found.extend(seen.0[looked_at..].iter().filter(|line| matches(line, pattern)).cloned());
            looked_at = seen.0.len();
            if found.len() >= count {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if seen.1 || left.is_zero() {
                return Err(seen.0.clone());
            }
            seen = self.lines.grown.wait_timeout(seen, left).unwrap().0;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether the pieces of the pattern, which stand between `*`, are in the line one after the other.
pub fn matches(line: &str, pattern: &str) -> bool {
    let step = |rest: &str, piece: &str| rest.find(piece).map(|at| at + piece.len());
    let mut rest = line;
    pattern.split('*').all(|piece| step(rest, piece).map(|at| rest = &rest[at..]).is_some())
}

/// Reads lines into memory until the program closes its end.
fn collect(log: impl Read + Send + 'static) -> Arc<Lines> {
    let lines = Arc::new(Lines::default());
    collect_into(log, Arc::clone(&lines), true);
    lines
}

/// The same into lines that others write too; `last` = nothing comes after this one's end.
fn collect_into(log: impl Read + Send + 'static, into: Arc<Lines>, last: bool) {
    std::thread::spawn(move || {
        for line in BufReader::new(log).split(b'\n').map_while(Result::ok) {
            into.seen.lock().unwrap().0.push(String::from_utf8_lossy(&line).into_owned());
            into.grown.notify_all();
        }
        into.seen.lock().unwrap().1 |= last;
        into.grown.notify_all();
    });
}

#[test]
fn a_pattern_is_pieces_in_their_order() {
    assert!(matches("accept session=7 peer=1", "accept *peer=1"));
    assert!(!matches("accept session=7 peer=1", "peer=*accept"));
    assert!(!matches("accept", "accept*accept"));
}
