//! The clients that people use, as they are installed: OpenSSH's sftp and scp, lftp, rclone, psftp. Each runs with nothing of the
//! account's own configuration, with one key and one known host key, in the folder of its target.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::keys::Key;
use super::process::{LIMIT, Output, Process, descendants, matches, run, run_within, signal, until};

/// Where a client goes, as whom, and what it trusts.
#[derive(Debug, Clone)]
pub struct Target {
    /// Port on 127.0.0.1.
    pub port: u16,
    /// User name.
    pub user: String,
    /// The only key that is offered.
    pub key: Key,
    /// The only host keys that are trusted: one of each type that the target shows, since clients differ in what they ask for and
    /// some (those made with Go) do not prefer the type that they know.
    pub host_keys: Vec<Key>,
    /// Where the client runs.
    pub folder: PathBuf,
    /// Options of OpenSSH's programs, in front of all others.
    pub options: Vec<String>,
}

/// Whether a client is installed; scripts/test installs all, a stranger's `cargo test` may go without.
pub fn installed(program: &str) -> bool {
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|folder| folder.join(program).exists());
    if !found {
        eprintln!("{program} is not installed: this test tells nothing (scripts/test installs it)");
    }
    found
}

impl Target {
    /// A target on loopback whose client runs in `folder`.
    pub fn new(port: u16, user: &str, key: &Key, host_keys: &[Key], folder: &Path) -> Self {
        let (user, key, host_keys) = (user.to_owned(), key.clone(), host_keys.to_vec());
        Self { port, user, key, host_keys, folder: folder.to_owned(), options: Vec::new() }
    }

    /// The same with an option of OpenSSH's programs in front of all others, such as `RekeyLimit=1M`.
    pub fn with_option(mut self, option: &str) -> Self {
        self.options.push(option.to_owned());
        self
    }

    /// `sftp -b` with these commands.
    #[track_caller]
    pub fn sftp(&self, batch: &str) -> Output {
        self.sftp_within(LIMIT, batch)
    }

    /// `sftp -b` with these commands, within a limit.
    #[track_caller]
    pub fn sftp_within(&self, limit: Duration, batch: &str) -> Output {
        let script = self.script("batch", batch);
        run_within(limit, self.command("sftp").arg("-P").arg(self.port.to_string()).arg("-b").arg(script).arg(self.at()))
    }

    /// `scp` with these arguments, in which `@:` stands for the target.
    #[track_caller]
    pub fn scp(&self, arguments: &[&str]) -> Output {
        let at = format!("{}:", self.at());
        let mut command = self.command("scp");
        run(command.arg("-P").arg(self.port.to_string()).args(arguments.iter().map(|argument| argument.replace("@:", &at))))
    }

    /// `ssh` with these arguments after the host: for what must be refused.
    #[track_caller]
    pub fn ssh(&self, arguments: &[&str]) -> Output {
        run(self.command("ssh").arg("-p").arg(self.port.to_string()).arg(self.at()).args(arguments))
    }

    /// `lftp` with these commands.
    #[track_caller]
    pub fn lftp(&self, commands: &str) -> Output {
        let ssh = format!("ssh -a -x {}", self.ssh_options().join(" "));
        let script = format!(
            "set cmd:fail-exit true\nset net:max-retries 1\nset net:timeout 20\nset sftp:auto-confirm no\n\
             set sftp:connect-program \"{ssh}\"\nopen -u {},none sftp://127.0.0.1:{}\n{commands}\n",
            self.user, self.port
        );
        let script = self.script("lftp", &script);
        run(self.bare("lftp").arg("-f").arg(script))
    }

    /// `rclone` with these arguments, in which `@:` stands for the target.
    #[track_caller]
    pub fn rclone(&self, arguments: &[&str]) -> Output {
        let config = format!(
            "[target]\ntype = sftp\nhost = 127.0.0.1\nport = {}\nuser = {}\nkey_file = {}\nknown_hosts_file = {}\n\
             shell_type = none\nmd5sum_command = none\nsha1sum_command = none\n",
            self.port,
            self.user,
            self.key.private.display(),
            self.known_hosts().display()
        );
        let config = self.script("rclone.conf", &config);
        let mut command = self.bare("rclone");
        command.arg("--config").arg(config).args(["--retries", "1", "--low-level-retries", "1"]);
        run(command.args(arguments.iter().map(|argument| argument.replace("@:", "target:"))))
    }

    /// `psftp -b` with these commands.
    #[track_caller]
    pub fn psftp(&self, batch: &str) -> Output {
        let script = self.script("psftp", batch);
        let mut command = self.bare("psftp");
        command.args(["-batch", "-noagent", "-i"]).arg(self.key.ppk());
        for host_key in &self.host_keys {
            command.args(["-hostkey", &host_key.fingerprint()]);
        }
        run(command.arg("-P").arg(self.port.to_string()).arg("-b").arg(script).arg(self.at()))
    }

    /// An sftp session that goes on until it is told to end.
    #[track_caller]
    pub fn session(&self) -> Session {
        let mut command = self.command("sftp");
        command.arg("-P").arg(self.port.to_string()).args(["-b", "-"]).arg(self.at());
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.expect("sftp");
        let input = child.stdin.take();
        Session { input, output: Process::of_client(child) }
    }

    /// `ssh -s … sftp`, to be given pipes.
    pub fn subsystem(&self) -> Command {
        let mut command = self.command("ssh");
        command.arg("-p").arg(self.port.to_string()).args(["-s", &self.at(), "sftp"]);
        command
    }

    fn at(&self) -> String {
        format!("{}@127.0.0.1", self.user)
    }

    /// The options that make OpenSSH's programs forget the account's own configuration.
    fn ssh_options(&self) -> Vec<String> {
        let own = [
            "BatchMode=yes".to_owned(),
            "IdentitiesOnly=yes".to_owned(),
            "IdentityAgent=none".to_owned(),
            "StrictHostKeyChecking=yes".to_owned(),
            "GlobalKnownHostsFile=/dev/null".to_owned(),
            "ConnectTimeout=20".to_owned(),
            format!("UserKnownHostsFile={}", self.known_hosts().display()),
        ];
        let mut options = vec!["-F".to_owned(), "none".to_owned(), "-i".to_owned(), self.key.private.display().to_string()];
        options.extend(self.options.iter().chain(&own).flat_map(|option| ["-o".to_owned(), option.clone()]));
        options
    }

    fn command(&self, program: &str) -> Command {
        let mut command = self.bare(program);
        command.args(self.ssh_options());
        command
    }

    fn bare(&self, program: &str) -> Command {
        let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".to_owned());
        let mut command = Command::new(program);
        command.env_clear().env("PATH", path).env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
        command.env("HOME", self.scratch()).current_dir(&self.folder);
        command
    }

    fn known_hosts(&self) -> PathBuf {
        let line = |key: &Key| format!("[127.0.0.1]:{} {}\n", self.port, key.line());
        self.script(&format!("known_hosts-{}", self.port), &self.host_keys.iter().map(line).collect::<String>())
    }

    /// Writes a file for the client, outside the folder in which it runs.
    fn script(&self, name: &str, text: &str) -> PathBuf {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = self.scratch().join(format!("{number}-{name}"));
        std::fs::write(&path, text).expect("a file for a client");
        path
    }

    fn scratch(&self) -> PathBuf {
        let folder = self.folder.with_extension("scratch");
        std::fs::create_dir_all(&folder).expect("a folder for the clients' files");
        folder
    }
}

/// An sftp session in progress.
pub struct Session {
    input: Option<ChildStdin>,
    output: Process,
}

impl Session {
    /// Gives a command and waits until its output has a line that matches.
    #[track_caller]
    pub fn ask(&mut self, command: &str, pattern: &str) -> String {
        self.say(command);
        match self.output.wait_for(pattern, 1, LIMIT) {
            Ok(mut lines) => lines.remove(0),
            Err(lines) => panic!("no \"{pattern}\" after {command}:\n{}", lines.join("\n")),
        }
    }

    /// Sends a signal to sftp and to the ssh that it has started.
    pub fn signal(&self, number: Signal) {
        for pid in descendants(self.output.pid()).into_iter().chain([self.output.pid()]) {
            signal(pid, number);
        }
    }

    /// Gives a command.
    pub fn say(&mut self, command: &str) {
        let input = self.input.as_mut().expect("a session that was not ended");
        writeln!(input, "{command}").expect("a session that takes commands");
    }

    /// Waits until its output has a line that matches.
    #[track_caller]
    pub fn shows(&self, pattern: &str) -> String {
        let found = || self.output.lines().into_iter().find(|line| matches(line, pattern));
        // What it says on standard error may be read after the end of its output.
        let _ = self.output.wait_for(pattern, 1, LIMIT);
        until(Duration::from_secs(5), || found().is_some());
        match found().ok_or_else(|| self.output.lines()) {
            Ok(line) => line,
            Err(lines) => panic!("sftp does not show \"{pattern}\":\n{}", lines.join("\n")),
        }
    }

    /// Ends the commands, waits for the end of the program and returns its exit code.
    #[track_caller]
    pub fn end(mut self) -> i32 {
        self.input = None;
        assert!(until(LIMIT, || self.output.ended().is_some()), "sftp does not end:\n{}", self.output.lines().join("\n"));
        self.output.ended().expect("a process that has ended")
    }

    /// Kills the program as if its machine had gone.
    pub fn kill(&self) {
        super::process::signal(self.output.pid(), nix::sys::signal::Signal::SIGKILL);
    }

    /// Whether the connection is gone: sftp notices at its next command, and fails.
    #[track_caller]
    pub fn was_cut(mut self) -> bool {
        let _ = self.input.as_mut().map(|input| writeln!(input, "pwd\nls"));
        self.end() != 0
    }
}
