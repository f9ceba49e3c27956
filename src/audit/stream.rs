//! The sinks that are streams of somebody else: standard output and systemd's journal.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::file::Part;
use super::lane::{Line, Sink};

/// Where journald takes entries (systemd, "Native Journal Protocol").
pub const JOURNAL: &str = "/run/systemd/journal/socket";

/// How long journald may take to take an entry, before it counts as gone for the moment.
const PATIENCE: Duration = Duration::from_secs(1);

/// Standard output.
pub struct Stdout {
    file: File,
    part: Part,
}

impl Stdout {
    /// Takes it without the standard library's buffer, which loses count of what is written when something fails.
    pub fn new() -> Result<Self, String> {
        let owned = std::io::stdout().as_fd().try_clone_to_owned();
        let file = owned.map_err(|error| format!("SFTPPROXY_AUDIT = stdout: {error}"))?.into();
        Ok(Self { file, part: Part::default() })
    }
}

impl Sink for Stdout {
    fn name(&self) -> &'static str {
        "stdout"
    }

    fn write(&mut self, lines: &mut VecDeque<Arc<Line>>) -> Result<u64, String> {
        while let Some(line) = lines.front() {
            self.part.write(&self.file, line).map_err(|error| error.to_string())?;
            lines.pop_front();
        }
        Ok(0)
    }
}

/// The journal, through its own protocol: entries have their own identifier and can be told from the log.
pub struct Journald {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Journald {
    /// Prepares a socket towards journald's at that path.
    pub fn new(path: &Path) -> Result<Self, String> {
        check(path)?;
        let socket = UnixDatagram::unbound().and_then(|socket| {
            socket.set_write_timeout(Some(PATIENCE))?;
            Ok(socket)
        });
        Ok(Self { socket: socket.map_err(|error| format!("SFTPPROXY_AUDIT = journald: {error}"))?, path: path.to_owned() })
    }
}

/// Whether there is a journald.
pub fn check(path: &Path) -> Result<(), String> {
    let said = std::fs::metadata(path).map(drop);
    said.map_err(|error| format!("SFTPPROXY_AUDIT = journald: {}: {error}; is systemd-journald running?", path.display()))
}

impl Sink for Journald {
    fn name(&self) -> &'static str {
        "journald"
    }

    fn write(&mut self, lines: &mut VecDeque<Arc<Line>>) -> Result<u64, String> {
        let mut never = 0;
        while let Some(line) = lines.front() {
            // A field is a line; ours has no line end within.
            let kind = line.event.what.kind().name();
            let entry = format!("MESSAGE={}\nPRIORITY=6\nSYSLOG_IDENTIFIER=sftpproxy-audit\nSFTPPROXY_KIND={kind}\n", line.json);
            match self.socket.send_to(entry.as_bytes(), &self.path) {
                Ok(_) => {}
                // Longer than a datagram may be (net.core.wmem_max, 208 KiB): only a path of 30,000 bytes makes such a line.
                Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EMSGSIZE as i32) => never += 1,
                Err(error) => return Err(format!("{}: {error}", self.path.display())),
            }
            lines.pop_front();
        }
        Ok(never)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, What};

    fn line(json: &str) -> Arc<Line> {
        let event = Event { at: std::time::UNIX_EPOCH, subject: None, what: What::Stop {} };
        Arc::new(Line { event, json: json.to_owned() })
    }

    #[test]
    fn the_journal_gets_fields_a_datagram_an_entry_and_what_is_too_long_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        assert!(Journald::new(&path).is_err_and(|reason| reason.contains("is systemd-journald running?")));
        let journal = UnixDatagram::bind(&path).unwrap();
        let mut sink = Journald::new(&path).unwrap();
        let mut lines = VecDeque::from([line("1"), line(&"x".repeat(4 << 20)), line("2")]);
        assert_eq!((sink.write(&mut lines), lines.len()), (Ok(1), 0));
        let mut entry = [0; 200];
        for json in ["1", "2"] {
            let count = journal.recv(&mut entry).unwrap();
            let expected = format!("MESSAGE={json}\nPRIORITY=6\nSYSLOG_IDENTIFIER=sftpproxy-audit\nSFTPPROXY_KIND=stop\n");
            assert_eq!(String::from_utf8_lossy(&entry[..count]), expected);
        }
        // It goes away, and what it cannot take stays.
        drop(journal);
        lines.push_back(line("3"));
        assert!(sink.write(&mut lines).is_err() && lines.len() == 1);
        std::fs::remove_file(&path).unwrap();
        let journal = UnixDatagram::bind(&path).unwrap();
        assert_eq!((sink.write(&mut lines), lines.len()), (Ok(0), 0));
        assert!(journal.recv(&mut entry).is_ok());
    }

    #[test]
    fn a_journal_that_hangs_is_left_after_a_while_and_the_line_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let _deaf = UnixDatagram::bind(&path).unwrap();
        let mut sink = Journald::new(&path).unwrap();
        // The kernel holds some datagrams for who does not read.
        let mut lines: VecDeque<_> = (0..10_000).map(|_| line("x")).collect();
        assert!(sink.write(&mut lines).is_err() && !lines.is_empty());
    }
}
