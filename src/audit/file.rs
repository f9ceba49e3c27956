//! The sink that is a file: appended to, rotated at a size, opened anew when it is told that somebody else has moved it.
//!
//! Not by the crate that rotates the log: that one goes on in silence when it can open nothing, and an audit must not. Here whatever
//! fails is an error, the line stays, and is written when it can be. A file belongs to one router.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::lane::{Line, Sink};

/// Mode of a file that is made: who did what is not for everybody, but a group may be let in by the folder.
const MODE: u32 = 0o640;

/// The file.
pub struct Rotated {
    path: PathBuf,
    /// `None` after it could not be opened again.
    file: Option<File>,
    part: Part,
    size: u64,
    count: u32,
    reopen: Arc<AtomicBool>,
}

impl Rotated {
    /// Opens the file. `size` in bytes (0 = any), `count` of rotated ones; `reopen` is set when it has been moved.
    pub fn open(path: &Path, size: u64, count: u32, reopen: Arc<AtomicBool>) -> Result<Self, String> {
        let file = Some(open(path)?);
        Ok(Self { path: path.to_owned(), file, part: Part::default(), size, count, reopen })
    }

    /// Has the file open: anew if it was moved, or if the line would make it too large.
    fn ready(&mut self, line: &Line) -> Result<(), String> {
        if self.reopen.swap(false, Ordering::Relaxed) {
            self.file = None;
        }
        if let Some(file) = &self.file
            && self.size > 0
            && self.part.is_none()
        {
            // Asked and not counted: somebody may have truncated it.
            let now = file.metadata().map_err(|error| self.says(&error))?.len();
            if now > 0 && now + line.json.len() as u64 >= self.size {
                // While one router takes over from another both write here: what one has moved the other only leaves.
                if same(file, &self.path) {
                    self.rotate()?;
                }
                self.file = None;
            }
        }
        if self.file.is_none() {
            self.part = Part::default();
            self.file = Some(open(&self.path)?);
        }
        Ok(())
    }

    /// Moves `audit` to `audit.1`, that one to `audit.2`, and so on; the last one is overwritten.
    fn rotate(&self) -> Result<(), String> {
        let numbered = |number: u32| {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        let from = |number: u32| if number == 0 { self.path.clone() } else { numbered(number) };
        for number in (0..self.count).rev() {
            match std::fs::rename(from(number), numbered(number + 1)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(self.says(&error)),
                _ => {}
            }
        }
        Ok(())
    }

    fn says(&self, error: &std::io::Error) -> String {
        format!("{}: {error}", self.path.display())
    }
}

/// Whether a name is still that of an open file.
fn same(file: &File, path: &Path) -> bool {
    let inode = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
    file.metadata().map(inode).ok() == std::fs::metadata(path).map(inode).ok()
}

fn open(path: &Path) -> Result<File, String> {
    // O_NONBLOCK: a FIFO in place of the file must not hold the start; it has no effect on a regular file.
    let nonblock = nix::fcntl::OFlag::O_NONBLOCK.bits();
    let says = |reason: &dyn std::fmt::Display| format!("SFTPPROXY_AUDIT = file:{}: {reason}", path.display());
    let opened = OpenOptions::new().read(true).append(true).create(true).mode(MODE).custom_flags(nonblock).open(path);
    let file = opened.map_err(|error| says(&error))?;
    let meta = file.metadata().map_err(|error| says(&error))?;
    if !meta.is_file() {
        return Err(says(&"not a regular file"));
    }
    end_line(&file, meta.len()).map_err(|error| says(&error))?;
    Ok(file)
}

/// Ends a line that a crash or a full disk has left without its end: the next one must not become a part of it.
fn end_line(file: &File, size: u64) -> std::io::Result<()> {
    let mut last = [b'\n'];
    if size > 0 {
        file.read_exact_at(&mut last, size - 1)?;
    }
    if last == [b'\n'] { Ok(()) } else { (&*file).write_all(b"\n") }
}

/// How much of a line is written: a full disk or pipe may take a part of it, and the rest must follow.
#[derive(Debug, Default)]
pub struct Part(usize);

impl Part {
    fn is_none(&self) -> bool {
        self.0 == 0
    }

    /// Writes what is left of the line and its end. After an error the same line must come again, at the same file.
    pub fn write(&mut self, mut file: &File, line: &Line) -> std::io::Result<()> {
        let mut bytes = Vec::with_capacity(line.json.len() + 1);
        bytes.extend_from_slice(line.json.as_bytes());
        bytes.push(b'\n');
        while self.0 < bytes.len() {
            match file.write(&bytes[self.0..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.0 += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.0 = 0;
        Ok(())
    }
}

/// Whether the file could be opened, without making it: who checks may be somebody else than who will write.
pub fn check(path: &Path) -> Result<(), String> {
    if path.exists() {
        return open(path).map(drop);
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    let access = nix::unistd::AccessFlags::W_OK | nix::unistd::AccessFlags::X_OK;
    nix::unistd::access(folder, access)
        .map_err(|error| format!("SFTPPROXY_AUDIT = file:{}: cannot be made in its folder: {}", path.display(), error.desc()))
}

impl Sink for Rotated {
    fn name(&self) -> &'static str {
        "file"
    }

    fn write(&mut self, lines: &mut VecDeque<Arc<Line>>) -> Result<u64, String> {
        while let Some(line) = lines.front() {
            self.ready(line)?;
            if let Some(file) = &self.file {
                self.part.write(file, line).map_err(|error| format!("{}: {error}", self.path.display()))?;
            }
            lines.pop_front();
        }
        Ok(0)
    }

    fn idle(&mut self) {
        if self.reopen.swap(false, Ordering::Relaxed) {
            // What fails here is said when there is something to write.
            self.part = Part::default();
            self.file = open(&self.path).ok();
        }
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

    fn write(file: &mut Rotated, lines: &[&str]) -> (usize, Result<u64, String>) {
        let mut lines = lines.iter().map(|json| line(json)).collect();
        let said = file.write(&mut lines);
        (lines.len(), said)
    }

    #[test]
    fn it_is_rotated_before_the_line_that_would_make_it_too_large_and_no_line_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit");
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap_or_else(|_| "(none)".into());
        let mut file = Rotated::open(&path, 10, 2, Arc::default()).unwrap();
        assert_eq!(write(&mut file, &["1111", "2222", "3", "a line that is longer than a file", "4", "5"]), (0, Ok(0)));
        assert_eq!(read("audit"), "4\n5\n");
        assert_eq!(read("audit.1"), "a line that is longer than a file\n");
        assert_eq!(read("audit.2"), "3\n");
        assert_eq!(read("audit.3"), "(none)");
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions()) & 0o027, 0);
    }

    #[test]
    fn of_two_that_write_one_file_each_goes_on_in_the_new_one_and_nothing_is_moved_twice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit");
        let mut both = [(); 2].map(|()| Rotated::open(&path, 10, 3, Arc::default()).unwrap());
        for (turn, json) in ["1111", "2222", "3333", "4444"].into_iter().enumerate() {
            write(&mut both[turn % 2], &[json]).1.unwrap();
        }
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap_or_else(|_| "(none)".into());
        assert_eq!(
            (read("audit.1"), read("audit"), read("audit.2")),
            ("1111\n2222\n".into(), "3333\n4444\n".into(), "(none)".into())
        );
    }

    #[test]
    fn a_line_without_its_end_stays_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit");
        std::fs::write(&path, "{\"cut").unwrap();
        write(&mut Rotated::open(&path, 0, 1, Arc::default()).unwrap(), &["{}"]).1.unwrap();
        write(&mut Rotated::open(&path, 0, 1, Arc::default()).unwrap(), &["{}"]).1.unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"cut\n{}\n{}\n");
    }

    #[test]
    fn what_takes_nothing_keeps_the_lines_and_says_why() {
        // A device that is always full: no file, so it is opened here.
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut file = Rotated {
            path: "/dev/full".into(),
            file: Some(full),
            part: Part::default(),
            size: 0,
            count: 1,
            reopen: Arc::default(),
        };
        let (left, said) = write(&mut file, &["1", "2"]);
        assert!(left == 2 && said.as_ref().is_err_and(|reason| reason.contains("/dev/full: No space left")), "{said:?}");
    }

    #[test]
    fn a_place_that_cannot_take_a_file_is_told_of_and_nothing_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        check(&at("new")).unwrap();
        assert!(!at("new").exists());
        for (path, reason) in
            [(at("no/such"), "No such file"), (folder.path().into(), "directory"), ("/dev/null".into(), "not a regular")]
        {
            let said = check(&path).unwrap_err();
            assert!(said.starts_with("SFTPPROXY_AUDIT = file:/") && said.contains(reason), "{said}");
        }
    }
}
