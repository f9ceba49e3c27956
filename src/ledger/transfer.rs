//! What is known of an open file, and what is said of it when it is closed: which bytes went where, and whether all of it did.
//!
//! "Complete" is a promise, and said only when the upstream has answered everything with OK.

use std::time::Instant;

use super::File;
use super::ranges::Ranges;
use crate::sftp::OpenFlags;
use crate::sftp::reply::OK;

/// One direction of a transfer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Share {
    /// Bytes that the upstream has delivered, or has acknowledged to be written; bytes that went twice count twice.
    pub bytes: u64,
    /// Which bytes of the file these are. After APPEND the client's offsets, which the upstream does not heed.
    pub ranges: Ranges,
    /// Requests sent.
    pub requests: u64,
    /// Requests that the upstream has answered, in whatever way.
    pub answered: u64,
    /// Requests that failed; the end of the file is no failure.
    pub failed: u64,
}

/// Whether a transfer did all that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All of it.
    Complete,
    /// Part of it; the ranges say which.
    Partial,
}

/// The first thing that went wrong in a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The operation's short name.
    pub operation: &'static str,
    /// The code of its STATUS.
    pub code: u32,
    /// The upstream's text, at most [`crate::sftp::reply::MAX_MESSAGE`] bytes, not escaped.
    pub message: Box<[u8]>,
}

/// A file from OPEN to CLOSE, as the upstream has answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// Which one it was in the ledger, which may give the same again.
    pub file: File,
    /// The path that the upstream was given, at most [`crate::path::MAX_PATH`] bytes.
    pub path: Box<[u8]>,
    /// How it was opened.
    pub flags: OpenFlags,
    /// When OPEN was asked for.
    pub opened: Instant,
    /// When the last answer came, or the session ended.
    pub ended: Instant,
    /// The code of CLOSE's answer; `None` = it was never answered.
    pub closed: Option<u32>,
    /// What was read.
    pub read: Share,
    /// What was written.
    pub written: Share,
    /// Whether content was put into it by copy-data, which says no sizes.
    pub copied: bool,
    /// The lowest offset at which READ met the end of the file.
    pub eof: Option<u64>,
    /// The size that FSTAT of the handle, or STAT of the path right before OPEN, has told.
    pub size: Option<u64>,
    /// The first failure of a request with this handle.
    pub failure: Option<Failure>,
}

impl Transfer {
    /// Of an upload whether it is complete: CLOSE and every WRITE, fsync and copy-data of the handle were answered with OK. `None` =
    /// nothing was to be written. Gaps are the client's to know: it may continue what another session has begun.
    pub fn upload(&self) -> Option<Outcome> {
        let made = self.flags.has(OpenFlags::CREATE | OpenFlags::TRUNCATE);
        if self.written.requests == 0 && !self.copied && !made {
            return None;
        }
        let whole = self.closed == Some(OK) && self.written.answered == self.written.requests && self.written.failed == 0;
        Some(outcome(whole))
    }

    /// Of a download whether it is complete: every byte from 0 to the file's end was delivered and no READ failed. The end is known
    /// by an answer "end of file" or by the size. `None` = nothing was read.
    pub fn download(&self) -> Option<Outcome> {
        if self.read.requests == 0 {
            return None;
        }
        let end = self.read.ranges.whole_to();
        let at_end = |end| self.eof.is_some_and(|eof| eof <= end) || self.size == Some(end);
        Some(outcome(self.read.failed == 0 && end.is_some_and(at_end)))
    }
}

fn outcome(complete: bool) -> Outcome {
    if complete { Outcome::Complete } else { Outcome::Partial }
}
