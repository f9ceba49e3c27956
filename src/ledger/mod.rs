//! The ledger of a session: requests in flight by their id and open handles. Requests are entered by the thread that reads them,
//! replies are matched by the thread that reads those, and what is finished is told.
//!
//! Pure: no clock, no lock. Both threads share it behind a mutex that is taken once a buffer. A READ or WRITE and its answer cost an
//! insertion and a removal in a table and no allocation.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::time::{Duration, Instant};

use crate::path::MAX_PATH;
use crate::policy::Grant;
use crate::sftp::attributes::Attributes;
use crate::sftp::reply::{EOF, FAILURE, OK, Status};
use crate::sftp::{Effect, Kind, OpenFlags, Then};

mod ranges;
mod transfer;

pub use ranges::{MAX_RANGES, Ranges};
pub use transfer::{Failure, Outcome, Share, Transfer};

/// Most requests in flight. An sshd gives the channel of its sftp-server a window of 2 MiB, which holds 72,000 READs of 29 bytes;
/// with what our own buffers and sftp-server's queue hold it is 100,000. paramiko fills all that when it fetches a large file, other
/// clients have some dozens. At most 6.5 MiB: one more would double the table.
pub const MAX_IN_FLIGHT: usize = 112 * 1024;

/// Most files and directories open at a time, those being opened included: as many descriptors as Linux gives an sftp-server. At
/// most 9 MiB with the longest paths and as many ranges as are kept.
pub const MAX_OPEN: usize = 1024;

/// Most bytes that requests with paths in flight may take: four times the window of an sshd.
pub const MAX_NAMED: usize = 8 * 1024 * 1024;

/// What a request with a path takes besides it, about.
const NAMED_BASE: usize = 128;

/// The row of the table that STAT has; the size that it tells may be that of a download to come.
const STAT: u8 = 17;
const CLOSE: u8 = 4;

/// An open file or directory of the ledger; valid until its [`Transfer`] has been told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct File(u32);

/// What a request is about, for who is told of its end.
#[derive(Debug, Clone)]
pub struct Subject {
    path: Box<[u8]>,
    second: Option<Box<[u8]>>,
    flags: Option<OpenFlags>,
    grant: Grant,
    asked: Instant,
}

impl Subject {
    /// Of paths as the upstream gets them; beyond [`MAX_PATH`] bytes they are cut.
    pub fn new(path: &[u8], second: Option<&[u8]>, flags: Option<OpenFlags>, asked: Instant) -> Self {
        let kept = |path: &[u8]| Box::from(&path[..path.len().min(MAX_PATH)]);
        Self { path: kept(path), second: second.map(kept), flags, grant: Grant::default(), asked }
    }

    /// The same for OPEN and OPENDIR, with what the handle to come may be used for.
    pub fn granted(self, grant: Grant) -> Self {
        Self { grant, ..self }
    }

    fn size(&self) -> usize {
        NAMED_BASE + self.path.len() + self.second.as_ref().map_or(0, |path| path.len())
    }
}

/// A request as it is entered.
#[derive(Debug)]
pub struct Asked {
    /// Its row in the table; `None` = unknown.
    pub kind: Option<&'static Kind>,
    /// The file that its handle stands for, if that is known.
    pub file: Option<File>,
    /// Of READ and WRITE the offset in bytes.
    pub offset: u64,
    /// Of READ and WRITE the length in bytes.
    pub length: u32,
    /// What it is about; not for READ, WRITE, READDIR and CLOSE.
    pub subject: Option<Box<Subject>>,
    /// When it came.
    pub at: Instant,
}

/// Why a request was not entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotEntered {
    /// A request with this id is in flight. No client known does that, and its replies could not be told apart.
    Twice(u32),
    /// There is no room; the text says of what there is too much. It is answered with FAILURE.
    Full(&'static str),
}

impl fmt::Display for NotEntered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Twice(id) => write!(f, "sftp request with the id {id}, which is in flight already"),
            Self::Full(what) => f.write_str(what),
        }
    }
}

/// What the upstream has answered.
#[derive(Debug, Clone, Copy)]
pub enum Answer<'a> {
    /// STATUS.
    Status(Status<'a>),
    /// HANDLE with these bytes.
    Handle(&'a [u8]),
    /// DATA of so many bytes.
    Data(u32),
    /// ATTRS.
    Attributes(Attributes),
    /// NAME, or the answer to an extension.
    Other,
}

/// An operation that has ended. READ, WRITE and CLOSE are told as a [`Transfer`], READDIR not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Its row in the table.
    pub kind: &'static Kind,
    /// Its first path as the upstream was given it, at most [`MAX_PATH`] bytes; of a request with a handle that of the file. Empty if
    /// there is none. Of a refused one as it came.
    pub path: Box<[u8]>,
    /// Its second path.
    pub second: Option<Box<[u8]>>,
    /// The flags of OPEN, as they were sent.
    pub flags: Option<OpenFlags>,
    /// The code of its STATUS, OK for every other answer; `None` = it was never answered.
    pub code: Option<u32>,
    /// The text of its STATUS, at most [`crate::sftp::reply::MAX_MESSAGE`] bytes, not escaped.
    pub message: Box<[u8]>,
    /// Whether the router has refused it and the upstream has never seen it.
    pub refused: bool,
    /// When it was asked for.
    pub asked: Instant,
    /// When it was answered.
    pub answered: Instant,
}

impl Finished {
    /// A request that the router has refused.
    pub fn refused(kind: &'static Kind, subject: Subject, (code, text): (u32, &str)) -> Self {
        let asked = subject.asked;
        Self { refused: true, ..Self::of(kind, subject, Some(code), text.as_bytes(), asked) }
    }

    fn of(kind: &'static Kind, subject: Subject, code: Option<u32>, message: &[u8], answered: Instant) -> Self {
        let Subject { path, second, flags, asked, .. } = subject;
        Self { kind, path, second, flags, code, message: message.into(), refused: false, asked, answered }
    }
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    /// The upstream did it. The end of a file or of a directory is no failure.
    Ok,
    /// The upstream did not.
    Failed,
    /// The router refused it.
    Refused,
    /// The session ended before.
    Never,
}

/// What the ledger tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A request has its answer, of whatever kind. Only where that is asked for.
    Answered {
        /// Its row in the table; `None` = unknown.
        kind: Option<&'static Kind>,
        /// What became of it.
        outcome: Answered,
        /// From the request to the upstream's answer, if there is one; beyond 71 minutes it begins again at 0.
        time: Option<Duration>,
    },
    /// An operation has ended.
    Finished(Box<Finished>),
    /// A file that was opened is closed, and every request with its handle answered; or the session has ended.
    Transfer(Box<Transfer>),
}

/// A request in flight.
#[derive(Debug)]
struct Pending {
    kind: Option<&'static Kind>,
    subject: Option<Box<Subject>>,
    offset: u64,
    length: u32,
    /// When it came, in microseconds since the ledger's first request. They wrap; what lies between two is right for 71 minutes.
    at: u32,
    file: Option<File>,
}

/// An open file or directory.
#[derive(Debug)]
struct Open {
    handle: Box<[u8]>,
    grant: Grant,
    /// A directory's is never told.
    is_directory: bool,
    transfer: Transfer,
    /// Requests in flight with its handle.
    pending: u32,
    /// CLOSE is in flight: the handle may be another file's as soon as it is answered.
    closing: bool,
    /// The handle is closed, or another file's.
    gone: bool,
}

/// The ledger. Its bounds: [`MAX_IN_FLIGHT`], [`MAX_OPEN`], [`MAX_NAMED`].
#[derive(Debug, Default)]
pub struct Ledger {
    pending: HashMap<u32, Pending>,
    /// Bytes of all subjects in flight.
    named: usize,
    files: Vec<Option<Open>>,
    free: Vec<u32>,
    handles: HashMap<Box<[u8]>, File>,
    /// Of OPEN and OPENDIR in flight.
    opening: usize,
    /// The file that was asked for last; most requests are for the same.
    last: Option<File>,
    /// The answer to the last STAT.
    sized: Option<(Box<[u8]>, u64)>,
    /// Nobody depends on it: what it cannot hold it does not know, instead of refusing it.
    looks_on: bool,
    /// Whether each answer is told.
    telling: bool,
    /// When the first request came.
    begun: Option<Instant>,
}

impl Ledger {
    /// One for who only wants to see what goes on: it refuses nothing and ends no session.
    pub fn looking_on() -> Self {
        Self { looks_on: true, ..Self::default() }
    }

    /// The same, and each request's answer is told as [`Event::Answered`].
    pub fn telling_answers(self, telling: bool) -> Self {
        Self { telling, ..self }
    }

    /// Whether that is so.
    pub fn tells_answers(&self) -> bool {
        self.telling
    }

    /// Whether it is one of those.
    pub fn looks_on(&self) -> bool {
        self.looks_on
    }

    /// The file of a handle.
    pub fn find(&mut self, handle: &[u8]) -> Option<File> {
        if let Some(last) = self.last
            && self.open(last).is_some_and(|open| !open.gone && *open.handle == *handle)
        {
            return Some(last);
        }
        self.last = self.handles.get(handle).copied();
        self.last
    }

    /// What a handle may be used for; `None` = no longer for anything, because its CLOSE is on the way.
    pub fn grant(&self, file: File) -> Option<Grant> {
        self.open(file).filter(|open| !open.closing).map(|open| open.grant)
    }

    /// The path that a handle was opened by, as the upstream was given it.
    pub fn path(&self, file: File) -> &[u8] {
        self.open(file).map_or(&[], |open| &open.transfer.path)
    }

    /// Requests in flight and open handles.
    pub fn counts(&self) -> (usize, usize) {
        (self.pending.len(), self.files.len() - self.free.len())
    }

    /// The open files, as far as they have come.
    pub fn transfers(&self) -> impl Iterator<Item = &Transfer> {
        self.files.iter().flatten().filter(|open| !open.is_directory && !open.gone).map(|open| &open.transfer)
    }

    /// Enters a request that goes to the upstream.
    pub fn enter(&mut self, id: u32, asked: Asked) -> Result<(), NotEntered> {
        match self.try_enter(id, asked) {
            Err(_) if self.looks_on => Ok(()),
            entered => entered,
        }
    }

    fn try_enter(&mut self, id: u32, asked: Asked) -> Result<(), NotEntered> {
        let Asked { kind, file, offset, length, subject, at } = asked;
        let at = self.microseconds(at);
        let opens = kind.is_some_and(opens);
        let size = subject.as_ref().map_or(0, |subject| subject.size());
        if self.pending.len() >= MAX_IN_FLIGHT {
            return Err(NotEntered::Full("too many requests in flight"));
        }
        if opens && self.files.len() - self.free.len() + self.opening >= MAX_OPEN {
            return Err(NotEntered::Full("too many open handles"));
        }
        if self.named + size > MAX_NAMED {
            return Err(NotEntered::Full("too many paths in flight"));
        }
        match self.pending.entry(id) {
            // A request that nobody knows may never be answered: sftp-server is silent about types that it does not have.
            Entry::Occupied(mut entry) if entry.get().kind.is_none() => {
                entry.insert(Pending { kind, subject, offset, length, at, file });
            }
            Entry::Occupied(_) => return Err(NotEntered::Twice(id)),
            Entry::Vacant(entry) => {
                entry.insert(Pending { kind, subject, offset, length, at, file });
            }
        }
        self.named += size;
        self.opening += usize::from(opens);
        if let Some(open) = file.and_then(|file| self.files[file.0 as usize].as_mut()) {
            open.pending += 1;
            match kind.map(|kind| (kind.then, kind.number)) {
                Some((Then::Content | Then::Copy, _)) => open.transfer.written.requests += 1,
                Some((Then::Range, _)) => open.transfer.read.requests += 1,
                Some((_, CLOSE)) => open.closing = true,
                _ => {}
            }
        }
        Ok(())
    }

    /// Notes that a request with this handle was refused and has not gone to the upstream: the transfer is not what was asked for.
    pub fn refused(&mut self, file: File, kind: &'static Kind, (code, text): (u32, &str)) {
        let Some(open) = self.files[file.0 as usize].as_mut() else { return };
        let share = match kind.then {
            Then::Content | Then::Copy => &mut open.transfer.written,
            Then::Range => &mut open.transfer.read,
            _ => return,
        };
        (share.requests, share.answered, share.failed) = (share.requests + 1, share.answered + 1, share.failed + 1);
        let failure = || Failure { operation: kind.short(), code, message: text.as_bytes().into() };
        open.transfer.failure.get_or_insert_with(failure);
    }

    /// The row and the first path of a request in flight; `None` = there is none with this id.
    pub fn asked(&self, id: u32) -> Option<(Option<&'static Kind>, &[u8])> {
        let pending = self.pending.get(&id)?;
        Some((pending.kind, pending.subject.as_ref().map_or(&[], |subject| &subject.path)))
    }

    /// The file and the offset of a READ in flight.
    pub fn reading(&self, id: u32) -> Option<(File, u64)> {
        let pending = self.pending.get(&id).filter(|pending| pending.kind.is_some_and(|kind| kind.then == Then::Range))?;
        Some((pending.file?, pending.offset))
    }

    /// Matches an answer; `false` = nobody has asked.
    pub fn answer(&mut self, id: u32, answer: Answer<'_>, now: Instant, told: &mut dyn FnMut(Event)) -> bool {
        let Some(Pending { kind, file, offset, length, at, subject }) = self.pending.remove(&id) else { return false };
        self.named -= subject.as_ref().map_or(0, |subject| subject.size());
        let (code, message) = match answer {
            Answer::Status(status) => (status.code, status.message),
            _ => (OK, &b""[..]),
        };
        if self.telling {
            let outcome = if matches!(code, OK | EOF) { Answered::Ok } else { Answered::Failed };
            let time = Duration::from_micros(self.microseconds(now).wrapping_sub(at).into());
            told(Event::Answered { kind, outcome, time: Some(time) });
        }
        let Some(kind) = kind else { return true };
        if opens(kind) {
            self.opening -= 1;
            if let (Answer::Handle(handle), Some(subject)) = (answer, &subject) {
                self.opened(kind, handle, subject, now, told);
            }
        }
        if kind.number == STAT
            && let (Answer::Attributes(Attributes { size: Some(size), .. }), Some(subject)) = (answer, &subject)
        {
            self.sized = Some((subject.path.clone(), size));
        }
        if let Some(file) = file {
            self.count(file, kind, answer, (offset, length), now);
            self.tell_if_over(file, told);
        }
        if let Some(subject) = subject {
            told(Event::Finished(Box::new(Finished::of(kind, *subject, Some(code), message, now))));
        }
        true
    }

    /// Ends the session: what was never answered and what was never closed is told.
    pub fn end(&mut self, now: Instant, told: &mut dyn FnMut(Event)) {
        for (_, Pending { kind, subject, .. }) in self.pending.drain() {
            if self.telling {
                told(Event::Answered { kind, outcome: Answered::Never, time: None });
            }
            if let (Some(kind), Some(subject)) = (kind, subject) {
                told(Event::Finished(Box::new(Finished::of(kind, *subject, None, b"", now))));
            }
        }
        for open in self.files.drain(..).flatten().filter(|open| !open.is_directory) {
            told(Event::Transfer(Box::new(Transfer { ended: now, ..open.transfer })));
        }
        *self = Self::default();
    }

    fn microseconds(&mut self, at: Instant) -> u32 {
        let begun = *self.begun.get_or_insert(at);
        at.saturating_duration_since(begun).as_micros() as u32
    }

    fn open(&self, file: File) -> Option<&Open> {
        self.files.get(file.0 as usize)?.as_ref()
    }

    /// A handle has come into being.
    fn opened(&mut self, kind: &Kind, handle: &[u8], subject: &Subject, now: Instant, told: &mut dyn FnMut(Event)) {
        let file = File(self.free.pop().unwrap_or_else(|| {
            self.files.push(None);
            self.files.len() as u32 - 1
        }));
        let transfer = Transfer {
            file,
            path: subject.path.clone(),
            flags: subject.flags.unwrap_or(OpenFlags(0)),
            opened: subject.asked,
            ended: now,
            closed: None,
            read: Share::default(),
            written: Share::default(),
            copied: false,
            eof: None,
            size: self.sized.take().filter(|(path, _)| *path == subject.path).map(|(_, size)| size),
            failure: None,
        };
        let is_directory = kind.effect == Effect::List;
        let (handle, grant) = (Box::from(handle), subject.grant);
        let open = Open { handle, grant, is_directory, transfer, pending: 0, closing: false, gone: false };
        let before = self.handles.insert(open.handle.clone(), file);
        self.files[file.0 as usize] = Some(open);
        // An upstream that answers out of order may give a handle again before it has said that it was closed.
        if let Some(before) = before {
            if let Some(open) = self.files[before.0 as usize].as_mut() {
                open.gone = true;
            }
            self.tell_if_over(before, told);
        }
    }

    /// Counts the answer to a request with a handle.
    fn count(&mut self, file: File, kind: &'static Kind, answer: Answer<'_>, (offset, length): (u64, u32), now: Instant) {
        let Some(open) = self.files[file.0 as usize].as_mut() else { return };
        open.pending -= 1;
        let transfer = &mut open.transfer;
        transfer.ended = now;
        let status = if let Answer::Status(status) = answer { Some(status) } else { None };
        let is_ok = status.is_some_and(|status| status.code == OK);
        let mut failed = status.is_some_and(|status| !matches!(status.code, OK | EOF));
        match kind.then {
            Then::Content => {
                transfer.written.answered += 1;
                if is_ok {
                    transfer.written.bytes += u64::from(length);
                    transfer.written.ranges.add(offset, length.into());
                }
                failed = !is_ok;
            }
            Then::Range => {
                transfer.read.answered += 1;
                match answer {
                    Answer::Data(length) => {
                        transfer.read.bytes += u64::from(length);
                        transfer.read.ranges.add(offset, length.into());
                    }
                    Answer::Status(Status { code: EOF, .. }) => {
                        transfer.eof = Some(transfer.eof.map_or(offset, |eof| eof.min(offset)));
                    }
                    _ => failed = true,
                }
                transfer.read.failed += u64::from(failed);
            }
            Then::Copy => {
                transfer.written.answered += 1;
                transfer.copied |= is_ok;
                failed = !is_ok;
            }
            Then::Handle if kind.number == CLOSE => {
                transfer.closed = Some(status.map_or(FAILURE, |status| status.code));
                open.gone = true;
                if self.handles.get(&open.handle) == Some(&file) {
                    self.handles.remove(&open.handle);
                }
            }
            _ => {}
        }
        if let Answer::Attributes(Attributes { size: Some(size), .. }) = answer {
            transfer.size = Some(size);
        }
        if failed {
            transfer.written.failed += u64::from(matches!(kind.effect, Effect::Write | Effect::Copy));
            if transfer.failure.is_none() {
                let (code, message) = status.map_or((FAILURE, &b"the answer has another type"[..]), |s| (s.code, s.message));
                transfer.failure = Some(Failure { operation: kind.short(), code, message: message.into() });
            }
        }
    }

    /// Tells a file that is closed and has nothing in flight, and forgets it.
    fn tell_if_over(&mut self, file: File, told: &mut dyn FnMut(Event)) {
        let place = &mut self.files[file.0 as usize];
        if place.as_ref().is_some_and(|open| open.gone && open.pending == 0)
            && let Some(open) = place.take()
        {
            self.free.push(file.0);
            if !open.is_directory {
                told(Event::Transfer(Box::new(open.transfer)));
            }
        }
    }
}

/// Whether its answer is a new handle.
fn opens(kind: &Kind) -> bool {
    kind.effect == Effect::ByFlags || kind.effect == Effect::List && kind.then != Then::Handle
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_table_of_requests_in_flight_has_the_size_that_is_said() {
        let mut table = HashMap::<u32, Pending>::new();
        table.reserve(MAX_IN_FLIGHT);
        assert_eq!(table.capacity(), MAX_IN_FLIGHT, "as full as it gets before it is doubled");
        // A bucket is an entry and a byte; one in eight stays free.
        let bytes = MAX_IN_FLIGHT / 7 * 8 * (size_of::<(u32, Pending)>() + 1);
        assert!(bytes <= 13 << 19, "{bytes}");
    }
}
