//! The upstream: OpenSSH's sshd with a configuration, a host key and a folder of its own, run by whoever runs the tests.

use std::fmt::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use nix::sys::signal::Signal;

use super::keys::{self, Key};
use super::process::{LIMIT, Process, descendants, free_port, run, signal};

/// A running sshd.
pub struct Sshd {
    /// Its process and its log.
    pub process: Process,
    /// Where it listens on 127.0.0.1.
    pub port: u16,
    /// The folder in which its sessions start.
    pub files: PathBuf,
    /// Its only host key.
    pub host_key: Key,
}

impl Sshd {
    /// Starts one whose files are in `folder`, with the host key of this name and lines of the caller at the end of its
    /// configuration. The router's key and that of the world's user may log in.
    pub fn start(folder: &Path, host_key: &str, extra: &[&str]) -> Self {
        Self::start_with(folder, keys::ed25519(&format!("{host_key}-host")), extra)
    }

    /// The same with this host key.
    pub fn start_with(folder: &Path, host_key: Key, extra: &[&str]) -> Self {
        let files = folder.join("files");
        std::fs::create_dir_all(&files).expect("a folder for the upstream's files");
        let allowed = [keys::ed25519("router-user"), keys::ed25519(super::USER)].map(|key| key.line() + "\n").concat();
        std::fs::write(folder.join("authorized_keys"), allowed).expect("the upstream's authorized_keys");
        prepare_privilege_separation();
        for _ in 0..10 {
            let port = free_port();
            if let Some(process) = try_start(folder, &config(folder, &host_key, port, extra)) {
                return Self { process, port, files, host_key };
            }
        }
        panic!("sshd finds no free port in ten attempts");
    }

    /// Goes on at the same port with this host key instead; sessions that are open stay.
    pub fn show(&mut self, host_key: Key) {
        let path = self.files.with_file_name("sshd_config");
        let config = std::fs::read_to_string(&path).expect("its configuration");
        let line = |key: &Key| format!("HostKey {}\n", key.private.display());
        std::fs::write(&path, config.replace(&line(&self.host_key), &line(&host_key))).expect("its configuration");
        let ready = "Server listening on";
        let before = self.process.lines().iter().filter(|line| line.contains(ready)).count();
        super::process::signal(self.process.pid(), nix::sys::signal::Signal::SIGHUP);
        self.process.wait_for(ready, before + 1, LIMIT).unwrap_or_else(|lines| panic!("sshd stays away:\n{}", lines.join("\n")));
        self.host_key = host_key;
    }

    /// Kills every connection that it has, as a crash would.
    pub fn kill_sessions(&self) {
        descendants(self.process.pid()).into_iter().for_each(kill);
    }

    /// Kills it with every connection that it has, and starts it again; the port may be another one.
    pub fn restart(&mut self) {
        let old = self.process.pid();
        // A listener that stands still makes no new ones meanwhile.
        signal(old, Signal::SIGSTOP);
        descendants(old).into_iter().chain([old]).for_each(kill);
        let folder = self.files.parent().expect("a folder around the files");
        let config = std::fs::read_to_string(folder.join("sshd_config")).expect("its configuration");
        for _ in 0..10 {
            let port = free_port();
            let line = |port: u16| format!("Port {port}\n");
            if let Some(process) = try_start(folder, &config.replace(&line(self.port), &line(port))) {
                (self.process, self.port) = (process, port);
                return;
            }
        }
        panic!("sshd finds no free port in ten attempts");
    }

    /// Removes everything from the folder of files.
    pub fn wipe(&self) {
        std::fs::remove_dir_all(&self.files).expect("the upstream's files");
        std::fs::create_dir(&self.files).expect("a new folder");
    }
}

/// Kills a process that may have ended meanwhile.
fn kill(pid: u32) {
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
}

/// The account that runs the tests: who else could log in at an sshd without privileges?
pub fn login() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid());
    user.expect("the account database").expect("an account that has a name").name
}

/// `None` = the port was taken between its choice and its use.
fn try_start(folder: &Path, config: &str) -> Option<Process> {
    let path = folder.join("sshd_config");
    std::fs::write(&path, config).expect("sshd_config");
    let process = Process::start(Command::new("/usr/sbin/sshd").args(["-D", "-e", "-f"]).arg(&path));
    match process.wait_for("Server listening on", 1, LIMIT) {
        Ok(_) => Some(process),
        Err(lines) if lines.iter().any(|line| line.contains("Address already in use")) => None,
        Err(lines) => panic!("sshd does not start:\n{}", lines.join("\n")),
    }
}

fn config(folder: &Path, host_key: &Key, port: u16, extra: &[&str]) -> String {
    // First come, first served in sshd_config: the test's lines stand before those that they may replace.
    let mut config: String = extra.iter().map(|line| format!("{line}\n")).collect();
    write!(
        config,
        "ListenAddress 127.0.0.1\nPort {port}\nHostKey {host_key}\nPidFile none\nStrictModes no\nUseDNS no\nLogLevel VERBOSE\n\
         UsePAM {pam}\nPermitRootLogin prohibit-password\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
         AuthorizedKeysFile {folder}/authorized_keys\nMaxStartups 1000\n",
        host_key = host_key.private.display(),
        pam = if *LOCKED { "yes" } else { "no" },
        folder = folder.display(),
    )
    .expect("a line of text");
    if !extra.iter().any(|line| line.starts_with("Subsystem") || line.starts_with("# no subsystem")) {
        writeln!(config, "Subsystem sftp internal-sftp -d {}", folder.join("files").display()).expect("a line of text");
    }
    config.push_str(*PENALTIES);
    config
}

/// sshd without PAM refuses an account whose password is locked with "!", as root's is on some distributions.
static LOCKED: LazyLock<bool> = LazyLock::new(|| {
    let shadow = std::fs::read_to_string("/etc/shadow").unwrap_or_default();
    shadow.lines().any(|line| line.starts_with(&format!("{}:!", login())))
});

/// sshd of OpenSSH 9.8 and newer shuts out addresses whose logins fail, which here is everybody's address. Older ones do not know
/// the word.
static PENALTIES: LazyLock<&str> = LazyLock::new(|| {
    prepare_privilege_separation();
    let mut command = Command::new("/usr/sbin/sshd");
    command.args(["-t", "-f", "/dev/null", "-o", "PerSourcePenalties=no", "-h"]).arg(keys::ed25519("upstream-host").private);
    if run(&mut command).code == 0 { "PerSourcePenalties no\n" } else { "" }
});

/// sshd run by root wants this folder, which the service's start would make.
fn prepare_privilege_separation() {
    if nix::unistd::geteuid().is_root() {
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create("/run/sshd").expect("/run/sshd");
    }
}
