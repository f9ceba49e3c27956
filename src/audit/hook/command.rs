//! The hook that is a program: run for each event without a shell, with the line on its standard input. Exit code 0 takes the event.
//!
//! It runs as the router's account, in a process group of its own, with an environment of few variables: the router's own has
//! passwords in it. At its limit the whole group is killed. What it prints goes to the log, the first of it.

use std::ffi::OsStr;
use std::io::{self, ErrorKind, PipeReader, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{AccessFlags, Pid, access};

use super::Failure;
use crate::audit::bell::Bell;
use crate::audit::lane::Line;
use crate::error::shown_bytes;

/// How much of what a program prints is kept, in bytes; the rest is read and forgotten, so that it does not stop the program.
const MAX_OUTPUT: usize = 2048;

/// Longest value of a variable in bytes: the longest path of Linux. What is longer is in the line on standard input only.
const MAX_VARIABLE: usize = 4096;

/// How long the end of a program can go unnoticed, in milliseconds.
const STEP: u16 = 20;

/// Variables that are passed on from the router's own environment.
const PASSED: [&str; 5] = ["PATH", "HOME", "LANG", "TZ", "TMPDIR"];

/// A program.
pub struct Program {
    path: PathBuf,
}

impl Program {
    /// Checks that there is a program that this process may run.
    pub fn new(path: &Path) -> Result<Self, String> {
        let says = |reason: &str| format!("SFTPPROXY_HOOK = {}: {reason}", path.display());
        let meta = std::fs::metadata(path).map_err(|error| says(&error.to_string()))?;
        if !meta.is_file() {
            return Err(says("not a file"));
        }
        access(path, AccessFlags::X_OK).map_err(|error| says(&format!("{}; run: chmod +x", error.desc())))?;
        Ok(Self { path: path.to_owned() })
    }

    /// Runs it for a line, at most so long, and no longer than the bell allows: it must not outlive the router.
    pub fn run(&self, line: &Line, limit: Duration, bell: &Bell) -> Result<(), Failure> {
        let deadline = Instant::now() + limit;
        let failed = |error: io::Error| Failure::Again(format!("{}: {error}", self.path.display()));
        let (child, output) = self.start(line).map_err(failed)?;
        let mut running = Running { child, output: Some(output), printed: Vec::new() };
        let ended = running.watch(line.json.as_bytes(), &|| Instant::now() >= deadline || bell.is_over()).map_err(failed)?;
        let printed = shown_bytes(running.printed.trim_ascii());
        let printed = if printed.is_empty() { printed } else { format!(", printed \"{printed}\"") };
        match ended {
            Some(status) if status.success() => {
                log::debug!("audit: hook for {} has ended well{printed}", line.event.what.kind().name());
                Ok(())
            }
            Some(status) => Err(Failure::Again(format!("the program ended with {}{printed}", how(status)))),
            None => Err(Failure::Again(format!(
                "the program was killed after {} s (SFTPPROXY_HOOK_TIMEOUT){printed}",
                limit.as_secs_f32()
            ))),
        }
    }

    fn start(&self, line: &Line) -> io::Result<(Child, PipeReader)> {
        let (output, ours) = io::pipe()?;
        nonblocking(&output)?;
        let mut command = Command::new(&self.path);
        command.current_dir("/").process_group(0).env_clear();
        command.envs(PASSED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.envs(variables(line));
        let child = command.stdin(Stdio::piped()).stdout(ours.try_clone()?).stderr(ours).spawn()?;
        Ok((child, output))
    }
}

/// What a script wants to know without reading JSON.
fn variables(line: &Line) -> Vec<(&'static str, &OsStr)> {
    let what = &line.event.what;
    let subject = line.event.subject.as_deref();
    let paths = what.paths();
    let given = [
        ("SFTP_EVENT", Some(what.kind().name().as_bytes())),
        ("SFTP_USER", subject.map(|subject| subject.user.as_bytes())),
        ("SFTP_PATH", paths.map(|paths| paths.path.as_slice())),
        ("SFTP_TO", paths.and_then(|paths| paths.to.as_deref())),
    ];
    let fits = |value: &&[u8]| value.len() <= MAX_VARIABLE && !value.contains(&0);
    given.into_iter().filter_map(|(name, value)| Some((name, OsStr::from_bytes(value.filter(fits)?)))).collect()
}

/// A program that runs. Whatever happens, it and its group are gone when this is.
struct Running {
    child: Child,
    output: Option<PipeReader>,
    printed: Vec<u8>,
}

impl Running {
    /// Gives it its input and takes its output until it ends; `None` = it did not in time.
    fn watch(&mut self, input: &[u8], is_over: &dyn Fn() -> bool) -> io::Result<Option<ExitStatus>> {
        let mut stdin = self.child.stdin.take();
        if let Some(stdin) = &stdin {
            nonblocking(stdin)?;
        }
        let mut given = 0;
        loop {
            give(&mut stdin, input, &mut given)?;
            self.take()?;
            if let Some(status) = self.child.try_wait()? {
                self.take()?;
                return Ok(Some(status));
            }
            if is_over() {
                return Ok(None);
            }
            self.sleep(stdin.as_ref())?;
        }
    }

    /// Waits until it reads or prints, or for a moment: its end is no event of poll(2).
    fn sleep(&self, stdin: Option<&ChildStdin>) -> io::Result<()> {
        let mut fds = Vec::with_capacity(2);
        fds.extend(stdin.map(|stdin| PollFd::new(stdin.as_fd(), PollFlags::POLLOUT)));
        fds.extend(self.output.as_ref().map(|output| PollFd::new(output.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, PollTimeout::from(STEP)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes what it has printed; somebody whom it has left behind may hold the pipe open for ever.
    fn take(&mut self) -> io::Result<()> {
        let mut piece = [0; 4096];
        while let Some(output) = &mut self.output {
            match output.read(&mut piece) {
                Ok(0) => self.output = None,
                Ok(count) => {
                    let room = MAX_OUTPUT - self.printed.len();
                    self.printed.extend_from_slice(&piece[..count.min(room)]);
                    // One piece a round: a program that prints without end must still meet its limit.
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // Not waited for yet, so that the number is still its own.
            let _ = killpg(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

/// Gives the program more of its input, and closes it behind the end. A program need not read it.
fn give(stdin: &mut Option<ChildStdin>, input: &[u8], given: &mut usize) -> io::Result<()> {
    while let Some(pipe) = stdin {
        match pipe.write(&input[*given..]) {
            Ok(count) => *given += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::BrokenPipe => *given = input.len(),
            Err(error) => return Err(error),
        }
        if *given == input.len() {
            *stdin = None;
        }
    }
    Ok(())
}

fn nonblocking(pipe: &impl std::os::fd::AsFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(pipe, FcntlArg::F_GETFL)?);
    fcntl(pipe, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "neither code nor signal".into(),
    }
}
