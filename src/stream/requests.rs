//! The request stream of one session, from the client's bytes to those for the upstream. Relative paths are resolved, a policy judges,
//! what is refused is taken out of the stream and answered, what passes is entered into the ledger.
//!
//! With neither a policy nor a ledger only requests with paths are looked at; types and extensions that are not in the table pass
//! unseen, since only the upstream can know what they are. Content of WRITE is never copied nor looked at.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::changed::Changed;
use super::view::{Place, View};
use super::{Heard, NEWEST, Operation, Passing};
use crate::ledger::{Answered, Asked, Event, File, Finished, Ledger, NotEntered, Subject};
use crate::policy::{Act, Allowed, Policy, Refusal, Use};
use crate::sftp::frame::{Cut, Head, LENGTH_FIELD, MAX_PACKET};
use crate::sftp::reply::{FAILURE, NO_SUCH_FILE, put_status};
use crate::sftp::request::{MAX_CONTENT_HEAD, Named, Request, named};
use crate::sftp::{EXTENDED, Effect, INIT, Kind, Then, kind};
use crate::wire::WireError;

/// Why a client's bytes are no stream of requests. The session ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestError {
    /// A packet of length 0, which cannot have a type.
    Empty,
    /// The first packet has this type instead of INIT.
    NotInit(u8),
    /// INIT came again. Only with a policy or a ledger.
    Again,
    /// A request that is looked at whole is, or with resolved paths would be, this many bytes long.
    TooLong(&'static str, usize),
    /// A request's fields are not what its type says.
    Fields(&'static str, WireError),
    /// A request with this id is in flight already.
    Twice(u32),
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("sftp packet of length 0"),
            Self::NotInit(number) => write!(f, "the first sftp packet is of type {number}, expected INIT"),
            Self::Again => f.write_str("sftp INIT came twice"),
            Self::TooLong(name, length) => write!(f, "sftp {name} request of {length} bytes, at most {MAX_PACKET} are allowed"),
            Self::Fields(name, error) => write!(f, "sftp {name} request: {error}"),
            Self::Twice(id) => NotEntered::Twice(*id).fmt(f),
        }
    }
}

impl std::error::Error for RequestError {}

/// The ledger for one buffer, and when it came.
pub struct Books<'a> {
    /// The ledger that the two streams share.
    pub ledger: &'a mut Ledger,
    /// The time of this buffer.
    pub now: Instant,
}

/// The request stream of one session. Memory: besides the caller's buffer at most one packet of [`MAX_PACKET`] bytes is held back, and
/// while a buffer is rewritten it grows by `home` or the root for each path in it (a request with a path has 14 bytes or more).
#[derive(Debug)]
pub struct Requests {
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
    /// Let this many bytes pass.
    Pass(usize),
    /// Look at it; it has so many bytes. All of them are there, of WRITE all before its content, of an unknown request type and id.
    Look(Option<&'static Kind>, usize),
}

/// What becomes of a packet.
enum Fate {
    Pass,
    Drop,
    Replace(Vec<u8>),
}

impl Requests {
    /// A stream that has not begun. Without `home` no byte is changed.
    pub fn new(home: Option<&str>) -> Self {
        Self::of(View::new(home, None), None)
    }

    /// A stream that has not begun and is judged. It needs a ledger: without one, nothing that has a handle is allowed.
    pub fn judged(home: Option<&str>, policy: Arc<Policy>) -> Self {
        Self::of(View::new(home, Some(&policy)), Some(policy))
    }

    fn of(view: View, policy: Option<Arc<Policy>>) -> Self {
        Self { view, policy, begun: false, cut: Cut::default(), telling: false, passing: None }
    }

    /// The same, and the content of each WRITE that goes on is told as it passes, where it stands. It needs a ledger.
    pub fn telling_content(self, telling: bool) -> Self {
        Self { telling, ..self }
    }

    /// Takes the next bytes received in `buffer` and leaves there the bytes to forward. A packet that is looked at and not complete is
    /// held back. `told` is called in the order of the stream. On an error `buffer` has what stands before the bad packet.
    pub fn pass(
        &mut self,
        buffer: &mut Vec<u8>,
        mut books: Option<Books<'_>>,
        told: &mut dyn FnMut(Heard<'_>),
    ) -> Result<(), RequestError> {
        self.cut.join(buffer);
        let mut changed = Changed::default();
        let mut at = 0;
        let result = loop {
            let skipped = self.cut.skip(buffer.len() - at);
            if let Some(passing) = self.passing.as_mut().filter(|_| skipped > 0) {
                passing.tell(&buffer[at..at + skipped], told);
            }
            at += skipped;
            let dropped = self.cut.dropped(buffer.len() - at);
            if dropped > 0 {
                changed.replace(buffer, at..at + dropped, &[]);
                at += dropped;
            }
            let (kind, total) = match self.next(&buffer[at..], books.is_some()) {
                Err(error) => break Err(error),
                Ok(Next::Wait) => break Ok(()),
                Ok(Next::Pass(total)) => {
                    self.cut.pass(total);
                    continue;
                }
                Ok(Next::Look(kind, total)) => (kind, total),
            };
            let packet = &buffer[at + LENGTH_FIELD..(at + total).min(buffer.len())];
            match self.look(kind, packet, books.as_mut(), told) {
                Err(error) => break Err(error),
                Ok(Fate::Pass) => {
                    self.passing = self.content(kind, packet, books.as_mut());
                    self.cut.pass(total);
                }
                Ok(Fate::Drop) => self.cut.drop(total),
                Ok(Fate::Replace(new)) => {
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

    /// Whether the stream stands between two packets, as it does when a client ends it properly.
    pub fn at_boundary(&self) -> bool {
        self.cut.at_boundary()
    }

    /// Whether what has gone on, and was entered, ends with a whole request.
    pub fn is_whole(&self) -> bool {
        self.cut.is_between()
    }

    /// Bytes that are held back until more have come.
    pub fn held(&self) -> usize {
        self.cut.held()
    }

    fn next(&mut self, bytes: &[u8], entered: bool) -> Result<Next, RequestError> {
        let Some(head) = Head::read(bytes) else { return Ok(Next::Wait) };
        let watched = entered || self.policy.is_some();
        if head.length == 0 {
            return Err(RequestError::Empty);
        }
        if !self.begun && head.kind != INIT {
            return Err(RequestError::NotInit(head.kind));
        }
        let kind = match head.kind {
            EXTENDED => match named(head, bytes).map_err(|error| RequestError::Fields("extended", error))? {
                Named::Unknown => None,
                Named::Wait => return Ok(Next::Wait),
                Named::Known(kind) => Some(kind),
            },
            INIT if self.begun && watched => return Err(RequestError::Again),
            number => kind(number),
        };
        let looked_at = watched || kind.is_some_and(|kind| !kind.paths.is_empty());
        let next = match kind {
            _ if !looked_at => Next::Pass(head.total()),
            None if head.length < 5 => return Err(RequestError::Fields("unknown", WireError::Missing("id"))),
            None if bytes.len() < LENGTH_FIELD + 5 => Next::Wait,
            None => Next::Look(None, head.total()),
            Some(kind) if kind.then == Then::Content => match content(kind, head, bytes)? {
                true => Next::Look(Some(kind), head.total()),
                false => Next::Wait,
            },
            Some(kind) if head.length > MAX_PACKET => return Err(RequestError::TooLong(kind.short(), head.length)),
            Some(_) if bytes.len() < head.total() => Next::Wait,
            Some(kind) => Next::Look(Some(kind), head.total()),
        };
        // Not before: a first packet that is held back comes here again.
        self.begun |= !matches!(next, Next::Wait);
        Ok(next)
    }

    /// What is to be told of the content of a packet that passes.
    fn content(&self, kind: Option<&'static Kind>, packet: &[u8], books: Option<&mut Books<'_>>) -> Option<Passing> {
        let kind = kind.filter(|kind| self.telling && kind.then == Then::Content)?;
        let request = Request::read(kind, packet).ok()?;
        let file = books?.ledger.find(request.handle?)?;
        let before = LENGTH_FIELD + packet.len() - request.rest.len();
        Some(Passing { file, before, offset: request.offset, left: request.length })
    }

    fn look(
        &self,
        kind: Option<&'static Kind>,
        packet: &[u8],
        books: Option<&mut Books<'_>>,
        told: &mut dyn FnMut(Heard<'_>),
    ) -> Result<Fate, RequestError> {
        let Some(kind) = kind else { return self.unknown(packet, books, told) };
        let request = Request::read(kind, packet).map_err(|error| RequestError::Fields(kind.short(), error))?;
        match kind.number {
            INIT if request.id > NEWEST => Ok(Fate::Replace(init(packet))),
            INIT => Ok(Fate::Pass),
            _ if kind.then.is_handle() => self.by_handle(&request, books, told),
            _ => self.by_path(&request, books, told),
        }
    }

    fn unknown(
        &self,
        packet: &[u8],
        mut books: Option<&mut Books<'_>>,
        told: &mut dyn FnMut(Heard<'_>),
    ) -> Result<Fate, RequestError> {
        let id = u32::from_be_bytes([packet[1], packet[2], packet[3], packet[4]]);
        let refusal = match (&self.policy, &books) {
            (Some(_), _) => Some(Refusal::unknown()),
            (None, None) => None,
            (None, Some(with)) => {
                let asked = Asked { kind: None, file: None, offset: 0, length: 0, subject: None, at: with.now };
                enter(id, asked, books.as_deref_mut())?
            }
        };
        let Some(refusal) = refusal else { return Ok(Fate::Pass) };
        tell_refused(None, books.as_deref(), told);
        Ok(answer(id, &refusal, told))
    }

    /// A request with paths, or with neither paths nor a handle.
    fn by_path(
        &self,
        request: &Request<'_>,
        books: Option<&mut Books<'_>>,
        told: &mut dyn FnMut(Heard<'_>),
    ) -> Result<Fate, RequestError> {
        let kind = request.kind;
        let verdict =
            self.view.places(request).map_err(Verdict::from).and_then(|places| Ok((self.judge(request, &places)?, places)));
        let (allowed, (first, second)) = match verdict {
            Ok(verdict) => verdict,
            Err(Verdict::Refused(refusal)) => {
                let paths = (request.path.unwrap_or_default(), request.second);
                return Ok(refuse(request, paths, &refusal, books, told));
            }
            Err(Verdict::Bad(error)) => return Err(error),
        };
        let path = first.as_ref().map_or(&[][..], |place| &place.sent);
        let operation =
            Operation { kind, path, second: second.as_ref().map(|place| &*place.sent), flags: allowed.flags, rest: request.rest };
        let new = rewritten(request, &operation)?;
        if let Some(books) = books {
            let subject = Subject::new(path, operation.second, allowed.flags, books.now).granted(allowed.grant);
            let subject = (kind.effect != Effect::Session).then(|| Box::new(subject));
            let asked = Asked { kind: Some(kind), file: None, offset: 0, length: 0, subject, at: books.now };
            if let Some(refusal) = enter(request.id, asked, Some(books))? {
                return Ok(refuse(request, (path, operation.second), &refusal, Some(books), told));
            }
        }
        if !kind.paths.is_empty() {
            told(Heard::Asked(&operation));
        }
        Ok(new.map_or(Fate::Pass, Fate::Replace))
    }

    fn judge(&self, request: &Request<'_>, places: &(Option<Place<'_>>, Option<Place<'_>>)) -> Result<Allowed, Verdict> {
        let Some(policy) = &self.policy else { return Ok(Allowed { flags: request.flags, ..Allowed::default() }) };
        let path = places.0.as_ref().map_or(&[][..], |place| &place.seen);
        let second = places.1.as_ref().map(|place| &*place.seen);
        let attributes = request.attributes().map_err(|error| RequestError::Fields(request.kind.short(), error))?;
        Ok(policy.judge(&Act { kind: request.kind, path, second, flags: request.flags, attributes })?)
    }

    /// A request with a handle.
    fn by_handle(
        &self,
        request: &Request<'_>,
        mut books: Option<&mut Books<'_>>,
        told: &mut dyn FnMut(Heard<'_>),
    ) -> Result<Fate, RequestError> {
        let mut find = |handle: Option<&[u8]>| books.as_mut().and_then(|books| books.ledger.find(handle?));
        let source = find(request.source);
        let file = find(request.handle);
        let refusal = match &self.policy {
            None => None,
            Some(policy) => used(policy, request, books.as_deref(), (file, source))?,
        };
        let refusal = match refusal {
            Some(refusal) => Some(refusal),
            None => {
                let asked = books.as_deref().map(|books| asked(request, file, books));
                asked.map_or(Ok(None), |asked| enter(request.id, asked, books.as_deref_mut()))?
            }
        };
        let Some(refusal) = refusal else { return Ok(Fate::Pass) };
        let path = match (file, &books) {
            (Some(file), Some(books)) => books.ledger.path(file).to_vec(),
            _ => Vec::new(),
        };
        if let (Some(file), Some(books)) = (file, books.as_deref_mut()) {
            books.ledger.refused(file, request.kind, (refusal.code, &refusal.text));
        }
        Ok(refuse(request, (&path, None), &refusal, books, told))
    }
}

/// Why a request does not go on.
enum Verdict {
    Refused(Refusal),
    Bad(RequestError),
}

impl From<Refusal> for Verdict {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<RequestError> for Verdict {
    fn from(error: RequestError) -> Self {
        Self::Bad(error)
    }
}

/// Whether all of a WRITE before its content is there.
fn content(kind: &'static Kind, head: Head, bytes: &[u8]) -> Result<bool, RequestError> {
    let fault = |error| RequestError::Fields(kind.short(), error);
    let packet = &bytes[LENGTH_FIELD..bytes.len().min(head.total())];
    match Request::read(kind, packet) {
        Ok(request) => {
            let rest = head.length - (packet.len() - request.rest.len());
            if request.length > rest as u64 { Err(fault(WireError::Missing("data"))) } else { Ok(true) }
        }
        Err(WireError::Missing(_)) if bytes.len() < head.total().min(MAX_CONTENT_HEAD) => Ok(false),
        Err(error) => Err(fault(error)),
    }
}

/// INIT with the newest version that can be read here.
fn init(packet: &[u8]) -> Vec<u8> {
    let mut new = (packet.len() as u32).to_be_bytes().to_vec();
    new.push(INIT);
    new.extend_from_slice(&NEWEST.to_be_bytes());
    new.extend_from_slice(&packet[5..]);
    new
}

/// The packet to be put in place of a request, if it goes to the upstream with other paths or flags.
fn rewritten(request: &Request<'_>, operation: &Operation<'_>) -> Result<Option<Vec<u8>>, RequestError> {
    let same_path = request.path.is_none_or(|path| path == operation.path);
    if same_path && request.second == operation.second && request.flags == operation.flags {
        return Ok(None);
    }
    let new = request.rewritten(operation.path, operation.second, operation.flags);
    new.map(Some).map_err(|length| RequestError::TooLong(request.kind.short(), length))
}

/// Enters a request that goes to the upstream, if there is a ledger. A refusal = there is no room.
fn enter(id: u32, asked: Asked, books: Option<&mut Books<'_>>) -> Result<Option<Refusal>, RequestError> {
    match books.map_or(Ok(()), |books| books.ledger.enter(id, asked)) {
        Ok(()) => Ok(None),
        Err(NotEntered::Twice(id)) => Err(RequestError::Twice(id)),
        Err(NotEntered::Full(what)) => Ok(Some(Refusal { code: FAILURE, text: what.into() })),
    }
}

/// What is entered of a request with a handle. READ and WRITE are told with the file's transfer and need nothing else.
fn asked(request: &Request<'_>, file: Option<File>, books: &Books<'_>) -> Asked {
    let kind = request.kind;
    let told = !is_quiet(kind);
    let subject = told.then(|| {
        let path = file.map_or(&[][..], |file| books.ledger.path(file));
        Box::new(Subject::new(path, None, None, books.now))
    });
    let length = if kind.then == Then::Copy { 0 } else { request.length as u32 };
    Asked { kind: Some(kind), file, offset: request.offset, length, subject, at: books.now }
}

/// Whether its end is told with the transfer, or not at all.
fn is_quiet(kind: &Kind) -> bool {
    matches!(kind.then, Then::Content | Then::Range)
        || kind.then == Then::Handle && matches!(kind.effect, Effect::List | Effect::Session)
}

/// Judges a request with a handle; a handle that is not known, or being closed, is good for nothing.
fn used(
    policy: &Policy,
    request: &Request<'_>,
    books: Option<&Books<'_>>,
    (file, source): (Option<File>, Option<File>),
) -> Result<Option<Refusal>, RequestError> {
    let kind = request.kind;
    let grant = |file: Option<File>| books.and_then(|books| books.ledger.grant(file?));
    let (grant, source) = match (grant(file), grant(source)) {
        (Some(grant), source) if source.is_some() || request.source.is_none() => (grant, source),
        // What sftp-server says of a handle that it does not have.
        _ => {
            let (code, text) = match kind.short() {
                "close" | "fsync" => (NO_SUCH_FILE, "No such file"),
                _ => (FAILURE, "Failure"),
            };
            return Ok(Some(Refusal { code, text: text.into() }));
        }
    };
    let end = match kind.then {
        Then::Copy if request.length == 0 => None,
        _ => request.offset.checked_add(request.length),
    };
    let attributes = request.attributes().map_err(|error| RequestError::Fields(kind.short(), error))?;
    Ok(policy.judge_use(&Use { kind, grant, source, attributes, end }).err())
}

/// Tells that a request is refused, where every answer is told.
fn tell_refused(kind: Option<&'static Kind>, books: Option<&Books<'_>>, told: &mut dyn FnMut(Heard<'_>)) {
    if books.is_some_and(|books| books.ledger.tells_answers()) {
        told(Heard::Event(Event::Answered { kind, outcome: Answered::Refused, time: None }));
    }
}

/// Answers a request in place of the upstream.
fn answer(id: u32, refusal: &Refusal, told: &mut dyn FnMut(Heard<'_>)) -> Fate {
    let mut packet = Vec::new();
    put_status(&mut packet, id, refusal.code, &refusal.text);
    told(Heard::Answer(packet));
    Fate::Drop
}

/// The same, and tells it.
fn refuse(
    request: &Request<'_>,
    (path, second): (&[u8], Option<&[u8]>),
    refusal: &Refusal,
    books: Option<&mut Books<'_>>,
    told: &mut dyn FnMut(Heard<'_>),
) -> Fate {
    let kind = request.kind;
    tell_refused(Some(kind), books.as_deref(), told);
    if let Some(books) = books
        && !is_quiet(kind)
    {
        let subject = Subject::new(path, second, request.flags, books.now);
        let finished = Finished::refused(kind, subject, (refusal.code, &refusal.text));
        told(Heard::Event(Event::Finished(Box::new(finished))));
    }
    answer(request.id, refusal, told)
}

#[cfg(test)]
mod tests;
