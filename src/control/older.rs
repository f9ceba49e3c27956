//! Routers that have handed over and finish their sessions: where they answer, and how the one that serves now ends and awaits them.
//!
//! Each answers at the usual name with its process id behind it, `control.sock.4711`. What a killed one has left is swept away.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The name at which the process of this number answers once it is an older one.
pub fn name(path: &Path, pid: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{pid}"));
    name.into()
}

/// The names of older routers beside the usual one.
pub fn places(path: &Path) -> Vec<PathBuf> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Some(own) = path.file_name().and_then(|name| name.to_str()) else { return Vec::new() };
    let is_older = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(own)?.strip_prefix('.')?.parse::<u32>().ok());
        pid.is_some()
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut places: Vec<_> = entries.filter(is_older).map(|entry| entry.path()).collect();
    places.sort();
    places
}

/// Removes what killed ones have left.
pub(super) fn sweep(path: &Path) {
    for place in places(path) {
        if UnixStream::connect(&place).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused) {
            let _ = fs::remove_file(place);
        }
    }
}

/// Those that there are when the first signal comes, and when that was.
#[derive(Default)]
pub struct Older(Mutex<Option<(Instant, Vec<OwnedFd>)>>);

impl Older {
    /// Sends them SIGTERM: the first lets their sessions finish within the limit, the second cuts them.
    pub fn stop(&self, path: &Path) {
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let find = || (Instant::now(), places(path).iter().filter_map(|place| process(place)).collect());
        for process in &found.get_or_insert_with(find).1 {
            let _ = pidfd_send_signal(process, Signal::TERM);
        }
    }

    /// Waits until the last one has ended, at most so long after the first signal.
    pub fn wait(&self, limit: Duration) {
        let Some((since, found)) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let until = since + limit;
        for process in found {
            // It is readable when the process has ended (pidfd_open(2)).
            let left = PollTimeout::try_from(until.saturating_duration_since(Instant::now())).unwrap_or(PollTimeout::MAX);
            let _ = poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], left);
        }
    }
}

/// The process that listens there.
fn process(place: &Path) -> Option<OwnedFd> {
    let stream = UnixStream::connect(place).ok()?;
    let pid = getsockopt(&stream, PeerCredentials).ok()?.pid();
    pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn older_ones_are_found_by_their_name_and_what_a_killed_one_left_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.sock");
        let _alive = UnixListener::bind(name(&path, 7)).unwrap();
        drop(UnixListener::bind(name(&path, 8)).unwrap());
        for other in ["c.sock", "c.sock.x", "d.sock.9", "c.sock9"] {
            fs::write(folder.path().join(other), "").unwrap();
        }
        assert_eq!(places(&path), [name(&path, 7), name(&path, 8)]);
        sweep(&path);
        assert_eq!(places(&path), [name(&path, 7)]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 5);
    }
}
