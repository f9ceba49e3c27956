//! What becomes of each buffer of a session: the two streams with the ledger that they share, the log's lines of file operations, and
//! the audit's events.
//!
//! A session with an upstream has a ledger, so that its transfers can be [seen](crate::live) while they run. One that is there for nothing
//! else ([`Ledger::looking_on`]) refuses nothing and ends no session: when an upstream does not speak SFTP, its bytes pass unseen.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Instant;

use crate::audit::Audit;
use crate::error::{shown, shown_bytes};
use crate::event::{self, Hash, Kind, Outcome, Paths, Subject, What};
use crate::hash::{Algorithm, Hasher};
use crate::ledger::{self, Event, File, Finished, Ledger, Transfer};
use crate::live::{self, Live};
use crate::metrics::labels::Direction as Way;
use crate::metrics::{Seen, Tally};
use crate::policy::Policy;
use crate::relay::Watch;
use crate::route::Route;
use crate::sftp::reply::OK;
use crate::sftp::{Effect, OpenFlags};
use crate::stream::replies::Replies;
use crate::stream::requests::{Books, Requests};
use crate::stream::{Content, Heard, Operation};

/// The log's target of file operations, so that they can be silenced alone: `SFTPPROXY_LOG=info,sftpproxy::file=off`.
const FILES: &str = "sftpproxy::file";

/// The kinds of events that need a ledger.
const FROM_LEDGER: [Kind; 5] =
    [Kind::Operation, Kind::UploadComplete, Kind::UploadPartial, Kind::DownloadComplete, Kind::DownloadPartial];

/// SSH_FX_CONNECTION_LOST: what the draft (section 7) has for a request that was never answered.
const CONNECTION_LOST: u32 = 7;

/// Tells the audit, and who counts, what happens in one session.
pub struct Teller {
    audit: Audit,
    seen: Arc<Seen>,
    first: Arc<Subject>,
    /// The same with the upstream.
    opened: OnceLock<Arc<Subject>>,
}

impl Teller {
    /// Of a session whose upstream is not open.
    pub fn new(audit: Audit, subject: Subject, seen: Arc<Seen>) -> Self {
        Self { audit, seen, first: Arc::new(subject), opened: OnceLock::new() }
    }

    /// The upstream speaks SFTP; all later events name it.
    pub fn opened(&self, upstream: String, login: String, host_key: String) {
        let _ = self.opened.set(Arc::new(Subject { upstream: Some(upstream), ..(*self.first).clone() }));
        self.send(What::Open { login, host_key });
    }

    /// Tells what has just happened. Never waits.
    pub fn send(&self, what: What) {
        self.audit.send(Some(self.opened.get().unwrap_or(&self.first)), what);
    }

    /// How the session is counted.
    pub fn seen(&self) -> &Seen {
        &self.seen
    }

    fn wants(&self, kind: Kind) -> bool {
        self.audit.wants(kind)
    }
}

/// What the two watches of a session share. When it is dropped, what is still open is told.
pub struct Watched<'a> {
    id: u64,
    user: String,
    route: Option<&'a Route>,
    teller: &'a Teller,
    books: Option<Arc<Mutex<Both>>>,
    /// The replies are no SFTP, and no audit or policy needs them to be.
    blind: AtomicBool,
    /// Requests in flight, after the last buffer of either thread.
    owed: AtomicUsize,
    /// The last of them has gone on in part.
    unfinished: AtomicBool,
    /// The client's last bytes end in a request, wherever the first part of that is.
    amid: AtomicBool,
    /// The upstream's last bytes end in an answer, whose request is in flight no more.
    partly: AtomicBool,
}

/// What stands behind one lock, which each thread takes once a buffer.
struct Both {
    ledger: Ledger,
    digests: Digests,
}

impl live::Books for Mutex<Both> {
    fn open(&self, now: Instant) -> live::Open {
        let both = self.lock().unwrap_or_else(PoisonError::into_inner);
        let mut open: Vec<_> = both.ledger.transfers().collect();
        open.sort_by_key(|transfer| std::cmp::Reverse(transfer.ended));
        let more = open.len().saturating_sub(live::MAX_TRANSFERS);
        let transfers = open.iter().take(live::MAX_TRANSFERS).map(|transfer| seen(transfer, now)).collect();
        live::Open { in_flight: both.ledger.counts().0, transfers, more }
    }
}

impl<'a> Watched<'a> {
    /// Of a session whose user is proven; without a route there is nothing to judge, for nothing goes anywhere.
    pub fn new(live: &Live, route: Option<&'a Route>, teller: &'a Teller) -> Self {
        // A digest is told with a transfer: nobody who hears of those, no digest.
        let hash = route.and_then(|route| route.hash).filter(|_| FROM_LEDGER[1..].iter().any(|kind| teller.wants(*kind)));
        let judged = route.is_some_and(|route| route.policy.is_some());
        let needed = judged || FROM_LEDGER.iter().any(|kind| teller.wants(*kind));
        let ledger = || if needed { Ledger::default() } else { Ledger::looking_on() };
        let ledger = || ledger().telling_answers(teller.seen.counts_operations());
        let books = route.map(|_| Arc::new(Mutex::new(Both { ledger: ledger(), digests: Digests::new(hash) })));
        if let Some(books) = &books {
            live.keep(Arc::downgrade(books) as Weak<dyn live::Books>);
        }
        let user = live.who().map(|who| shown(&who.user)).unwrap_or_default();
        let (blind, owed, unfinished, amid, partly) = Default::default();
        Self { id: live.id(), user, route, teller, books, blind, owed, unfinished, amid, partly }
    }

    /// The session's number, and its user as the log shows it.
    pub fn who(&self) -> (u64, &str) {
        (self.id, &self.user)
    }

    /// Who tells the audit.
    pub fn teller(&self) -> &Teller {
        self.teller
    }

    /// What sees the client's bytes.
    pub fn requests(&self) -> RequestWatch<'_> {
        let home = self.route.and_then(|route| route.home.as_deref());
        let looked_at = home.is_some() || self.books.is_some() || log::log_enabled!(target: FILES, log::Level::Info);
        let requests = match self.policy() {
            Some(policy) => Some(Requests::judged(home, policy)),
            None => looked_at.then(|| Requests::new(home)),
        };
        let requests = requests.map(|requests| requests.telling_content(self.takes_digests()));
        RequestWatch { watched: self, requests, answers: Vec::new() }
    }

    /// What sees the upstream's bytes; `proven` is when the client had proven its key, for the log's line of the first reply. `None` = there
    /// is no upstream, and the router answers.
    pub fn replies(&self, proven: Option<Instant>) -> ReplyWatch<'_> {
        let replies = self.books.is_some().then(|| Replies::new(self.policy()).telling_content(self.takes_digests()));
        ReplyWatch { watched: self, replies, proven }
    }

    fn policy(&self) -> Option<Arc<Policy>> {
        self.route.and_then(|route| route.policy.clone())
    }

    fn both(&self) -> Option<MutexGuard<'_, Both>> {
        let books = self.books.as_ref().filter(|_| !self.blind.load(Ordering::Relaxed))?;
        Some(books.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes how much is in flight; to be called under the lock.
    fn note(&self, ledger: &Ledger) {
        self.owed.store(ledger.counts().0, Ordering::Relaxed);
    }

    fn owes(&self) -> Option<bool> {
        let books = self.books.as_ref().filter(|_| !self.blind.load(Ordering::Relaxed));
        books.map(|_| {
            self.partly.load(Ordering::Relaxed)
                || self.owed.load(Ordering::Relaxed) > usize::from(self.unfinished.load(Ordering::Relaxed))
        })
    }

    fn takes_digests(&self) -> bool {
        self.both().is_some_and(|both| both.digests.algorithm.is_some())
    }

    /// One line for each file operation; those that only look at attributes are for debugging.
    fn log(&self, operation: &Operation<'_>) {
        let level = if operation.kind.effect == Effect::Look { log::Level::Debug } else { log::Level::Info };
        if !log::log_enabled!(target: FILES, level) {
            return;
        }
        let second = operation.second.map(|path| format!(" to=\"{}\"", shown_bytes(path))).unwrap_or_default();
        let flags = operation.flags.map(|flags| format!(" flags={flags}")).unwrap_or_default();
        let (id, user, path) = (self.id, &self.user, shown_bytes(operation.path));
        log::log!(target: FILES, level, "file session={id} user=\"{user}\" {} path=\"{path}\"{second}{flags}", operation.name());
    }

    /// One line for what the router itself has refused.
    fn log_refused(&self, finished: &Finished) {
        if log::log_enabled!(target: FILES, log::Level::Info) {
            let second = finished.second.as_ref().map(|path| format!(" to=\"{}\"", shown_bytes(path))).unwrap_or_default();
            let (id, user, name) = (self.id, &self.user, finished.kind.short());
            let (path, reason) = (shown_bytes(&finished.path), shown_bytes(&finished.message).replace('"', "'"));
            log::info!(target: FILES, "deny session={id} user=\"{user}\" {name} path=\"{path}\"{second} reason=\"{reason}\"");
        }
    }

    fn tell(&self, event: Event, digests: &mut Digests, tally: &mut Tally<'_>) {
        match event {
            Event::Answered { kind, outcome, time } => tally.answered(kind, outcome, time),
            Event::Finished(finished) => self.tell_finished(*finished),
            Event::Transfer(transfer) => self.tell_transfer(*transfer, digests),
        }
    }

    fn tell_finished(&self, finished: Finished) {
        if finished.refused {
            self.log_refused(&finished);
            let reason = format!("{} {}: {}", finished.kind.short(), shown_bytes(&finished.path), shown_bytes(&finished.message));
            self.teller.seen.refused(
                (&self.teller.first.user, &self.teller.first.client.ip().to_string()),
                &reason,
                finished.asked,
            );
        }
        if !self.teller.wants(if finished.refused { Kind::Denied } else { Kind::Operation }) {
            return;
        }
        let Finished { kind, path, second, flags, code, message, refused, asked, answered } = finished;
        let paths = (!path.is_empty() || second.is_some()).then(|| Paths { path: path.into(), to: second.map(Into::into) });
        let operation = kind.short().into();
        self.teller.send(if refused {
            What::Denied { operation, paths, flags, reason: String::from_utf8_lossy(&message).into_owned() }
        } else {
            let outcome = match code {
                Some(code) => Outcome::new(code, &message),
                None => Outcome::new(CONNECTION_LOST, b"the session ended before it was answered"),
            };
            What::Operation { operation, paths, flags, outcome, time: answered.saturating_duration_since(asked) }
        });
    }

    fn tell_transfer(&self, transfer: Transfer, digests: &mut Digests) {
        let (written, read) = digests.close(transfer.file);
        if let Some(outcome) = transfer.upload() {
            let partial = (outcome == ledger::Outcome::Partial).then(|| why_upload(&transfer));
            self.teller.seen.transferred(Way::Up, partial.is_none());
            let seen = partial.is_none() && is_whole(&transfer);
            let hash = written.map(|hasher| finished(hasher, transfer.written.ranges.whole_to().filter(|_| seen)));
            self.teller.send(What::Upload(told(&transfer, &transfer.written, hash, partial)));
        }
        if let Some(outcome) = transfer.download() {
            let partial = (outcome == ledger::Outcome::Partial).then(|| why_download(&transfer));
            self.teller.seen.transferred(Way::Down, partial.is_none());
            let hash = read.map(|hasher| finished(hasher, transfer.read.ranges.whole_to().filter(|_| partial.is_none())));
            self.teller.send(What::Download(told(&transfer, &transfer.read, hash, partial)));
        }
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        if let Some(mut both) = self.both() {
            let Both { ledger, digests } = &mut *both;
            let mut tally = Tally::new(&self.teller.seen);
            ledger.end(Instant::now(), &mut |event| self.tell(event, digests, &mut tally));
        }
    }
}

/// Sees what comes from the client.
pub struct RequestWatch<'a> {
    watched: &'a Watched<'a>,
    requests: Option<Requests>,
    answers: Vec<u8>,
}

impl Watch for RequestWatch<'_> {
    fn pass(&mut self, buffer: &mut Vec<u8>) -> Result<(), String> {
        self.watched.teller.seen.received(Way::Up, buffer.len());
        let Some(requests) = &mut self.requests else { return Ok(()) };
        let mut tally = Tally::new(&self.watched.teller.seen);
        let (watched, answers) = (self.watched, &mut self.answers);
        let mut both = watched.both();
        let (books, mut digests) = match both.as_deref_mut() {
            Some(Both { ledger, digests }) => (Some(Books { ledger, now: Instant::now() }), Some(digests)),
            None => (None, None),
        };
        let mut told = |heard: Heard<'_>| match (heard, &mut digests) {
            (Heard::Asked(operation), _) => watched.log(operation),
            (Heard::Answer(packet), _) => answers.extend_from_slice(&packet),
            (Heard::Event(event), Some(digests)) => watched.tell(event, digests, &mut tally),
            (Heard::Content(content), Some(digests)) => digests.feed(Direction::Written, &content),
            (Heard::Event(_) | Heard::Content(_), None) => {}
        };
        let passed = requests.pass(buffer, books, &mut told).map_err(|error| error.to_string());
        watched.unfinished.store(!requests.is_whole(), Ordering::Relaxed);
        watched.amid.store(!requests.at_boundary(), Ordering::Relaxed);
        if let Some(both) = &both {
            watched.note(&both.ledger);
        }
        passed
    }

    fn answers(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.answers)
    }

    fn owes(&self) -> Option<bool> {
        self.watched.owes()
    }

    fn amid(&self) -> bool {
        self.watched.amid.load(Ordering::Relaxed)
    }
}

/// Sees what comes from the upstream.
pub struct ReplyWatch<'a> {
    watched: &'a Watched<'a>,
    replies: Option<Replies>,
    /// Until the first reply.
    proven: Option<Instant>,
}

impl Watch for ReplyWatch<'_> {
    fn pass(&mut self, buffer: &mut Vec<u8>) -> Result<(), String> {
        let watched = self.watched;
        let counts = &watched.teller.seen;
        counts.received(Way::Down, buffer.len());
        let first = self.proven.take();
        if let Some(proven) = first {
            let time = proven.elapsed();
            counts.replied(time);
            let milliseconds = time.as_secs_f64() * 1000.0;
            log::info!("reply session={} user=\"{}\" milliseconds={milliseconds:.1}", watched.id, watched.user);
        }
        let (Some(replies), Some(mut both)) = (&mut self.replies, watched.both()) else { return Ok(()) };
        let Both { ledger, digests } = &mut *both;
        let mut tally = Tally::new(counts);
        let as_it_came = (first.is_some() && ledger.looks_on()).then(|| buffer.clone());
        let mut told = |heard: Heard<'_>| match heard {
            Heard::Event(event) => watched.tell(event, digests, &mut tally),
            Heard::Content(content) => digests.feed(Direction::Read, &content),
            Heard::Asked(_) | Heard::Answer(_) => {}
        };
        let passed = replies.pass(buffer, Books { ledger, now: Instant::now() }, &mut told);
        watched.note(ledger);
        watched.partly.store(replies.is_amid(), Ordering::Relaxed);
        if let (Err(error), Some(as_it_came)) = (&passed, as_it_came) {
            log::debug!("session {} is no longer looked at: {error}", watched.id);
            watched.blind.store(true, Ordering::Relaxed);
            *ledger = Ledger::default();
            *buffer = as_it_came;
            return Ok(());
        }
        passed.map_err(|error| error.to_string())
    }

    fn at_boundary(&self) -> bool {
        self.replies.as_ref().is_some_and(Replies::at_boundary)
    }

    fn owes(&self) -> Option<bool> {
        self.watched.owes()
    }

    fn amid(&self) -> bool {
        self.watched.amid.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Direction {
    Written,
    Read,
}

/// The digests of open files that something was written to or read from; at most two of each that the ledger has.
struct Digests {
    algorithm: Option<Algorithm>,
    open: HashMap<(File, Direction), Hasher>,
}

impl Digests {
    fn new(algorithm: Option<Algorithm>) -> Self {
        Self { algorithm, open: HashMap::new() }
    }

    fn feed(&mut self, direction: Direction, content: &Content<'_>) {
        let Some(algorithm) = self.algorithm else { return };
        let hasher = self.open.entry((content.file, direction)).or_insert_with(|| Hasher::new(algorithm));
        hasher.feed(content.offset, content.bytes);
    }

    /// The digests of what was written and read, if there shall be some.
    fn close(&mut self, file: File) -> (Option<Hasher>, Option<Hasher>) {
        let Some(algorithm) = self.algorithm else { return (None, None) };
        let mut take = |direction| self.open.remove(&(file, direction)).unwrap_or_else(|| Hasher::new(algorithm));
        (Some(take(Direction::Written)), Some(take(Direction::Read)))
    }
}

/// A transfer as it is shown while it runs. Who opens a file for both has it as an upload.
fn seen(transfer: &Transfer, now: Instant) -> live::Transfer {
    let is_up = transfer.written.requests > 0 || (transfer.read.requests == 0 && transfer.flags.changes());
    let (share, direction) =
        if is_up { (&transfer.written, live::Direction::Up) } else { (&transfer.read, live::Direction::Down) };
    live::Transfer {
        path: String::from_utf8_lossy(&transfer.path).into_owned(),
        direction,
        offset: share.ranges.list().last().map_or(0, |range| range.1),
        // The size that an upload's file had says nothing of the one that it will have.
        size: transfer.size.or(transfer.eof).filter(|_| !is_up),
        bytes: share.bytes,
        seconds: live::rounded(now.saturating_duration_since(transfer.opened)),
        idle: live::rounded(now.saturating_duration_since(transfer.ended)),
    }
}

fn finished(hasher: Hasher, length: Option<u64>) -> Hash {
    length.map_or(Hash::Unavailable, |length| hasher.finish(length))
}

/// Whether the file has nothing but what was written to it: it was empty or new, and nothing came from elsewhere.
fn is_whole(transfer: &Transfer) -> bool {
    let flags = transfer.flags;
    flags.has(OpenFlags::TRUNCATE | OpenFlags::EXCLUSIVE) && !flags.has(OpenFlags::APPEND) && !transfer.copied
}

fn told(transfer: &Transfer, share: &ledger::Share, hash: Option<Hash>, partial: Option<String>) -> event::Transfer {
    event::Transfer {
        paths: Paths::one(&*transfer.path),
        flags: transfer.flags,
        read: transfer.read.bytes,
        written: transfer.written.bytes,
        time: transfer.ended.saturating_duration_since(transfer.opened),
        ranges: share.ranges.list().to_vec(),
        hash,
        partial,
    }
}

fn why_upload(transfer: &Transfer) -> String {
    match (&transfer.failure, transfer.closed) {
        (Some(failure), _) if transfer.written.failed > 0 || transfer.closed.is_some_and(|code| code != OK) => why(failure),
        (_, None) => "the session ended before the file was closed".into(),
        _ => "not every write was acknowledged".into(),
    }
}

fn why_download(transfer: &Transfer) -> String {
    match &transfer.failure {
        Some(failure) if transfer.read.failed > 0 => why(failure),
        _ => "not all of it was read".into(),
    }
}

fn why(failure: &ledger::Failure) -> String {
    match String::from_utf8_lossy(&failure.message) {
        text if text.is_empty() => format!("{} failed with code {}", failure.operation, failure.code),
        text => format!("{} failed: {text}", failure.operation),
    }
}

#[cfg(test)]
mod tests;
