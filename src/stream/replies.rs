//! The reply stream of one session, from the upstream's bytes to those for the client. Each reply is matched with its request in the
//! ledger; below a root the paths in replies become those that the user knows; under a policy only known extensions are announced.
//!
//! Content of DATA is never copied nor looked at, nor are the entries of a directory: those are names without a path.

use std::fmt;
use std::sync::Arc;

use super::changed::Changed;
use super::requests::Books;
use super::view::View;
use super::{Heard, NEWEST, Passing};
use crate::ledger::{Answer, Event};
use crate::policy::Policy;
use crate::sftp::frame::{Cut, Head, LENGTH_FIELD, MAX_PACKET};
use crate::sftp::reply::{ATTRS, DATA, EXTENDED_REPLY, HANDLE, NAME, Name, PERMISSION_DENIED, STATUS, VERSION, Version};
use crate::sftp::reply::{attributes, handle, put_status, status};
use crate::sftp::{Kind, Meaning, extension};
use crate::wire::{Reader, WireError};

/// Type of the request that asks where a symbolic link leads.
const READLINK: u8 = 19;

/// Why an upstream's bytes are no stream of replies. The session ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyError {
    /// A packet of length 0, which cannot have a type.
    Empty,
    /// The first packet has this type instead of VERSION.
    NotVersion(u8),
    /// VERSION is this one, which cannot be read here.
    Version(u32),
    /// A packet of this type, which is none of a reply.
    Type(u8),
    /// A packet that is looked at whole is this many bytes long.
    TooLong(u8, usize),
    /// The fields of a packet of this type are not what they must be.
    Fields(u8, WireError),
    /// A reply with this id, and no request with it is in flight.
    Unasked(u32),
}

impl fmt::Display for ReplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("sftp packet of length 0"),
            Self::NotVersion(kind) => write!(f, "the first sftp packet is of type {kind}, expected VERSION"),
            Self::Version(version) => write!(f, "sftp version {version}, at most {NEWEST} was asked for"),
            Self::Type(kind) => write!(f, "sftp packet of type {kind}, which is no reply"),
            Self::TooLong(kind, length) => {
                write!(f, "sftp reply of type {kind} with {length} bytes, at most {MAX_PACKET} are allowed")
            }
            Self::Fields(kind, error) => write!(f, "sftp reply of type {kind}: {error}"),
            Self::Unasked(id) => write!(f, "sftp reply with the id {id}, which nobody has asked for"),
        }
    }
}

impl std::error::Error for ReplyError {}

/// The reply stream of one session. Memory: besides the caller's buffer at most one packet of [`MAX_PACKET`] bytes is held back.
#[derive(Debug)]
pub struct Replies {
    view: View,
    policy: Option<Arc<Policy>>,
    begun: bool,
    cut: Cut,
    /// Whether content is told.
    telling: bool,
    passing: Option<Passing>,
}

/// What is to be done with the packet at the head of a buffer.
enum Next {
    /// It cannot be known yet.
    Wait,
    /// It is matched: let this many bytes pass.
    Pass(usize),
    /// It is matched: put these bytes in place of that many.
    Replace(usize, Vec<u8>),
}

impl Replies {
    /// A stream that has not begun, of a user with this policy.
    pub fn new(policy: Option<Arc<Policy>>) -> Self {
        let view = View::new(None, policy.as_deref());
        Self { view, policy, begun: false, cut: Cut::default(), telling: false, passing: None }
    }

    /// The same, and the content of each DATA is told as it passes, where it stands.
    pub fn telling_content(self, telling: bool) -> Self {
        Self { telling, ..self }
    }

    /// Takes the next bytes received in `buffer` and leaves there the bytes to forward. A packet that is looked at and not complete is
    /// held back. `told` gets events, and content. On an error `buffer` has what stands before the bad packet.
    pub fn pass(
        &mut self,
        buffer: &mut Vec<u8>,
        mut books: Books<'_>,
        told: &mut dyn FnMut(Heard<'_>),
    ) -> Result<(), ReplyError> {
        self.cut.join(buffer);
        let mut changed = Changed::default();
        let mut at = 0;
        let result = loop {
            let skipped = self.cut.skip(buffer.len() - at);
            if let Some(passing) = self.passing.as_mut().filter(|_| skipped > 0) {
                passing.tell(&buffer[at..at + skipped], told);
            }
            at += skipped;
            match self.next(&buffer[at..], &mut books, told) {
                Err(error) => break Err(error),
                Ok(Next::Wait) => break Ok(()),
                Ok(Next::Pass(total)) => self.cut.pass(total),
                Ok(Next::Replace(total, new)) => {
                    changed.replace(buffer, at..at + total, &new);
                    at += total;
                }
            }
        };
        match result {
            Ok(()) => self.cut.hold(buffer, at),
            Err(_) => buffer.truncate(at),
        }
        changed.finish(buffer);
        result
    }

    /// Whether what was left in the last buffer ends between two packets, so that an answer of the router can follow. Not before VERSION.
    pub fn at_boundary(&self) -> bool {
        self.begun && self.cut.is_between()
    }

    /// Whether an answer has come in part.
    pub fn is_amid(&self) -> bool {
        !self.cut.at_boundary()
    }

    /// Bytes that are held back until more have come.
    pub fn held(&self) -> usize {
        self.cut.held()
    }

    fn next(&mut self, bytes: &[u8], books: &mut Books<'_>, told: &mut dyn FnMut(Heard<'_>)) -> Result<Next, ReplyError> {
        let Some(head) = Head::read(bytes) else { return Ok(Next::Wait) };
        let fault = |error| ReplyError::Fields(head.kind, error);
        if head.length == 0 {
            return Err(ReplyError::Empty);
        }
        if !self.begun && head.kind != VERSION {
            return Err(ReplyError::NotVersion(head.kind));
        }
        let seen = match head.kind {
            VERSION if self.begun => return Err(ReplyError::Type(VERSION)),
            VERSION | STATUS | HANDLE | ATTRS => head.total(),
            // The length of the content is all that is wanted.
            DATA => LENGTH_FIELD + 9,
            NAME | EXTENDED_REPLY => LENGTH_FIELD + 5,
            other => return Err(ReplyError::Type(other)),
        };
        if seen == head.total() && head.length > MAX_PACKET {
            return Err(ReplyError::TooLong(head.kind, head.length));
        }
        if head.total() < seen {
            return Err(fault(WireError::Missing("id")));
        }
        if bytes.len() < seen {
            return Ok(Next::Wait);
        }
        let mut reader = Reader::new(&bytes[LENGTH_FIELD + 1..seen]);
        if head.kind == VERSION {
            self.begun = true;
            return self.version(head, &bytes[LENGTH_FIELD..seen]);
        }
        let id = reader.u32("id").map_err(fault)?;
        if head.kind == NAME
            && self.view.has_root()
            && let Some(next) = self.renamed(id, head, bytes, books, told)?
        {
            return Ok(next);
        }
        let packet = &bytes[LENGTH_FIELD..seen];
        self.passing = None;
        let answer = match head.kind {
            STATUS => Answer::Status(status(packet).map_err(fault)?),
            HANDLE => Answer::Handle(handle(packet).map_err(fault)?),
            ATTRS => Answer::Attributes(attributes(packet).map_err(fault)?),
            DATA => {
                let length = reader.u32("data").map_err(fault)?;
                if length as usize > head.length - 9 {
                    return Err(fault(WireError::Missing("data")));
                }
                if self.telling {
                    let file = books.ledger.reading(id);
                    self.passing = file.map(|(file, offset)| Passing { file, before: seen, offset, left: length.into() });
                }
                Answer::Data(length)
            }
            _ => Answer::Other,
        };
        matched(id, answer, books, told)?;
        Ok(Next::Pass(head.total()))
    }

    fn version(&self, head: Head, packet: &[u8]) -> Result<Next, ReplyError> {
        let mut version = Version::read(packet).map_err(|error| ReplyError::Fields(VERSION, error))?;
        if version.version > NEWEST {
            return Err(ReplyError::Version(version.version));
        }
        let Some(policy) = &self.policy else { return Ok(Next::Pass(head.total())) };
        version.extensions.retain(|(name, _)| extension(name).is_some_and(|kind| policy.announces(kind)));
        Ok(Next::Replace(head.total(), version.written()))
    }

    /// The NAME that answers a question for a path, with the path that the user knows; `None` = it answers another question.
    fn renamed(
        &self,
        id: u32,
        head: Head,
        bytes: &[u8],
        books: &mut Books<'_>,
        told: &mut dyn FnMut(Heard<'_>),
    ) -> Result<Option<Next>, ReplyError> {
        let Some((Some(kind), path)) = books.ledger.asked(id) else { return Ok(None) };
        if kind.number != READLINK && !gives_path(kind) {
            return Ok(None);
        }
        if head.length > MAX_PACKET {
            return Err(ReplyError::TooLong(NAME, head.length));
        }
        if bytes.len() < head.total() {
            return Ok(Some(Next::Wait));
        }
        let name = Name::read(&bytes[LENGTH_FIELD..head.total()]).map_err(|error| ReplyError::Fields(NAME, error))?;
        let shown = if kind.number == READLINK {
            self.view.shown_target(path, name.name)
        } else {
            // The root may be reached through a symbolic link. Then the path is told as it was asked for.
            self.view.shown(name.name).or_else(|| self.view.shown(path))
        };
        let Some(shown) = shown else {
            const TEXT: &str = "the link leads out of the root";
            let mut refusal = Vec::new();
            put_status(&mut refusal, id, PERMISSION_DENIED, TEXT);
            matched(id, Answer::Status(status(&refusal[LENGTH_FIELD..]).expect("written here")), books, told)?;
            return Ok(Some(Next::Replace(head.total(), refusal)));
        };
        matched(id, Answer::Other, books, told)?;
        Ok(Some(Next::Replace(head.total(), name.rewritten(&shown))))
    }
}

/// Whether it is a question for a path.
fn gives_path(kind: &Kind) -> bool {
    kind.paths.first().is_some_and(|field| matches!(field.meaning, Meaning::Start | Meaning::Expand))
}

fn matched(id: u32, answer: Answer<'_>, books: &mut Books<'_>, told: &mut dyn FnMut(Heard<'_>)) -> Result<(), ReplyError> {
    let mut tell = |event: Event| told(Heard::Event(event));
    if books.ledger.answer(id, answer, books.now, &mut tell) || books.ledger.looks_on() {
        Ok(())
    } else {
        Err(ReplyError::Unasked(id))
    }
}
