//! A session survives its upstream's restart: a leg in the upstream's place that dials again when it is lost. The client sees a pause.
//!
//! Only for users whose record says so; other sessions do not come here. Requests are seen as they are sent upstream, replies before
//! anybody else sees them: policy, audit and log know what the client is told and nothing of what happens here. Whole packets pass, so
//! that a loss is never amid one.
//!
//! The rule is that nothing is ever different in silence. A file that cannot be proven to be what the client was told ([`file`],
//! [`known`]) is lost, a request that may or may not have been done and that is not harmless ([`fate`]) is answered with a STATUS that
//! says so. What cannot be seen from here: a lost upstream whose machine is still there and that does late what it was sent.

use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

use crate::error::{Side, shown_bytes};
use crate::leg::{Leg, Taken, Wants};
use crate::metrics::Metrics;
use crate::metrics::labels::Loss;
use crate::pace::Wait;
use crate::relay::{BUFFER, Control};
use crate::upstream::{Asking, Distrust, No, Upstream, Waiting};

mod doubt;
mod fate;
mod file;
mod handles;
mod journal;
mod known;
mod memory;

use file::Open;
use memory::{Memory, Settled, whole};

/// How long is waited before the first try, and how long at most before a later one; each wait is twice the last. The first also lets
/// a server that was cut off work on what it had.
const PAUSE: Duration = Duration::from_millis(200);
const MOST_PAUSE: Duration = Duration::from_secs(5);

/// How long an upstream that is back may take for one answer, before it is lost again.
const QUIET: Duration = Duration::from_secs(20);

/// How long all its answers may take: what a file of any size needs to be read.
const WHOLE: Duration = Duration::from_secs(24 * 3600);

/// How often the upstream may be lost without one answer to the client in between: a request that it dies of must not be sent for ever.
const MOST_BARREN: u32 = 5;

/// Answers of ours that may wait for the client, in bytes, before no more requests are taken.
const MOST_TOLD: usize = 256 * 1024;

/// What a session that survives needs to know.
pub struct Terms<'a> {
    /// Its number.
    pub session: u64,
    /// Its user, fit to be shown.
    pub user: String,
    /// `host:port` of the upstream.
    pub upstream: String,
    /// How long a lost upstream is tried again.
    pub limit: Duration,
    /// Where it is counted.
    pub metrics: &'a Metrics,
    /// How connections are waited for; the deadline is that of each try.
    pub waiting: Waiting<'a>,
    /// Dials, trusts, logs in and opens as at the login.
    pub redial: &'a dyn Fn(Waiting<'_>) -> Result<Upstream, Distrust>,
}

/// The upstream as long as it is there, and what is remembered for when it is not.
pub struct Surviving<'a> {
    upstream: Option<Upstream>,
    terms: Terms<'a>,
    memory: Memory,
    /// The beginning of a packet of the client.
    heard: Vec<u8>,
    out: Outgoing,
    /// What came from the upstream and is no whole packet yet.
    came: Vec<u8>,
    told: Told,
    /// The client has said that nothing more comes.
    ending: bool,
    /// The upstream knows that: its end is no loss.
    ended: bool,
    barren: u32,
    /// How often the upstream was lost.
    losses: u64,
}

/// Packets on their way to the upstream. They stay where they are until all are put: libssh2 wants the same bytes again.
#[derive(Default)]
struct Outgoing {
    bytes: Vec<u8>,
    put: usize,
    /// Which request begins where.
    begins: Vec<(u32, usize)>,
}

/// Packets on their way to the client.
#[derive(Default)]
struct Told {
    bytes: Vec<u8>,
    given: usize,
}

/// Why a try has failed.
enum Failed {
    /// Another one may not.
    Again(String),
    /// There is no use in another one.
    Stop(String),
}

impl From<No> for Failed {
    fn from(no: No) -> Self {
        Self::Again(no.text)
    }
}

impl<'a> Surviving<'a> {
    /// For an upstream whose channel is open and has carried nothing.
    pub fn new(upstream: Upstream, terms: Terms<'a>) -> Self {
        Self {
            upstream: Some(upstream),
            terms,
            memory: Memory::default(),
            heard: Vec::new(),
            out: Outgoing::default(),
            came: Vec::new(),
            told: Told::default(),
            ending: false,
            ended: false,
            barren: 0,
            losses: 0,
        }
    }

    /// Does something with the upstream. When that is lost it is dialed again; `None` = it is another one now.
    fn with<T>(&mut self, call: impl FnOnce(&mut dyn Leg, &mut Self) -> Result<T, String>) -> Result<Option<T>, String> {
        let Some(mut upstream) = self.upstream.take() else { return Err("the upstream is lost".into()) };
        let done = call(upstream.leg(), self);
        self.upstream = Some(upstream);
        match done {
            Ok(done) => Ok(Some(done)),
            Err(why) if self.ended => Err(why),
            Err(why) => self.recover(&why).map(|()| None),
        }
    }

    /// Puts what is to be sent, as far as the upstream takes it. `true` = it took something.
    fn flush(&mut self) -> Result<bool, String> {
        let mut moved = false;
        loop {
            let out = &mut self.out;
            if out.put == out.bytes.len() {
                *out = Outgoing { bytes: std::mem::take(&mut out.bytes), ..Outgoing::default() };
                out.bytes.clear();
                self.memory.send(&mut out.bytes, &mut out.begins);
                if out.bytes.is_empty() {
                    return Ok(moved);
                }
            }
            match self.with(|leg, this| leg.put(&this.out.bytes[this.out.put..]))? {
                Some(0) => return Ok(moved),
                Some(count) => self.out.put += count,
                None => {}
            }
            moved = true;
        }
    }

    fn is_unsent(&self) -> bool {
        self.out.put < self.out.bytes.len() || self.memory.has_unsent()
    }

    /// Takes the whole packets out of what came from the upstream.
    fn answers(&mut self) -> Result<(), String> {
        let mut at = 0;
        while let Some(length) = whole(&self.came[at..])? {
            if self.memory.answer(&self.came[at..at + length], &mut self.told.bytes)? {
                self.barren = 0;
            }
            at += length;
        }
        self.came.drain(..at);
        Ok(())
    }

    /// Takes the whole packets out of what came from the client.
    fn hear(&mut self, bytes: &[u8]) -> Result<(), String> {
        if self.heard.is_empty() {
            let at = self.requests(bytes)?;
            self.heard.extend_from_slice(&bytes[at..]);
            return Ok(());
        }
        let mut joined = std::mem::take(&mut self.heard);
        joined.extend_from_slice(bytes);
        let at = self.requests(&joined)?;
        joined.drain(..at);
        self.heard = joined;
        Ok(())
    }

    /// The same of these bytes; returns where the first packet that is not whole begins.
    fn requests(&mut self, bytes: &[u8]) -> Result<usize, String> {
        let mut at = 0;
        while let Some(length) = whole(&bytes[at..])? {
            self.memory.ask(&bytes[at..at + length], &mut self.told.bytes)?;
            at += length;
        }
        Ok(at)
    }

    /// The upstream is lost: another connection takes its place, or an error ends the session.
    fn recover(&mut self, why: &str) -> Result<(), String> {
        self.lose();
        self.is_wanted().map_err(|_| why.to_owned())?;
        let resumed = self.resume(why);
        self.terms.metrics.lost(if resumed.is_ok() { Loss::Resumed } else { Loss::Ended });
        resumed
    }

    /// Tries for as long as it may.
    fn resume(&mut self, why: &str) -> Result<(), String> {
        let Terms { session, user, upstream, limit, .. } = &self.terms;
        let (who, limit) = (format!("session={session} user=\"{user}\" upstream={upstream}"), *limit);
        let (unanswered, files) = (self.memory.unanswered(), self.memory.open_files().len());
        let reason = why.replace('"', "'");
        log::warn!("lost {who} reason=\"{reason}\" unanswered={unanswered} files={files} limit={}", limit.as_secs());
        self.losses += 1;
        self.barren += 1;
        if self.barren > MOST_BARREN {
            return Err(format!("{why}; it was lost {MOST_BARREN} times without one answer in between"));
        }
        let began = Instant::now();
        let (until, mut pause) = (began + limit, PAUSE);
        for tries in 1_u32.. {
            self.rest((Instant::now() + pause).min(until))?;
            let what = match self.try_again(until) {
                Ok(Settled { again, unknown, lost }) => {
                    let seconds = began.elapsed().as_secs_f64();
                    log::info!("resumed {who} tries={tries} seconds={seconds:.3} again={again} unknown={unknown} lost={lost}");
                    self.terms.waiting.control.back();
                    return Ok(());
                }
                Err(Failed::Stop(what)) => return Err(format!("{why}; then: {what}")),
                Err(Failed::Again(what)) => what,
            };
            log::info!("retry {who} tries={tries} reason=\"{}\"", what.replace('"', "'"));
            if Instant::now() >= until {
                return Err(format!("{why}; it was not back within {} s (survive): {what}", limit.as_secs()));
            }
            pause = (pause * 2).min(MOST_PAUSE);
        }
        Err(why.to_owned())
    }

    /// Forgets the connection, and which requests it cannot have had.
    fn lose(&mut self) {
        self.upstream = None;
        self.came.clear();
        let Outgoing { bytes, put, begins } = std::mem::take(&mut self.out);
        if put < bytes.len() {
            self.memory.unsent(begins.into_iter().filter(|(_, begins)| *begins >= put).map(|(number, _)| number));
        }
    }

    fn control(&self) -> &Control {
        self.terms.waiting.control
    }

    /// Whether there is a session to go on with.
    fn is_wanted(&self) -> Result<(), String> {
        if self.control().is_cut() || self.control().is_done(Side::Downstream) {
            return Err("the session was ended".into());
        }
        Ok(())
    }

    /// Waits, unless the session ends.
    fn rest(&self, until: Instant) -> Result<(), String> {
        let control = self.control();
        let is_wanted = || self.is_wanted().is_ok();
        while Instant::now() < until {
            self.is_wanted()?;
            let sleep = || control.wake_of(Side::Upstream).sleep(-1, PollFlags::empty(), Some(until), is_wanted);
            control.pace_of(Side::Upstream).asleep(Wait::Peer, sleep)?;
        }
        self.is_wanted()
    }

    /// One try: another connection on which all is as it was, or what is not is said.
    fn try_again(&mut self, until: Instant) -> Result<Settled, Failed> {
        let waiting = self.terms.waiting;
        let upstream = match (self.terms.redial)(Waiting { deadline: until, ..waiting }) {
            Ok(upstream) => upstream,
            // A host key that is not approved does not become so by trying.
            Err(Distrust { fault, shown: Some(_), .. }) => {
                self.control().end(fault.clone());
                return Err(Failed::Stop(fault.to_string()));
            }
            Err(Distrust { fault, .. }) => return Err(Failed::Again(fault.to_string())),
        };
        let mut asking = upstream.ask_within(Waiting { deadline: Instant::now() + WHOLE, ..waiting }, QUIET);
        if let Some(init) = self.memory.init() {
            let version = asking.greet(init)?;
            self.memory.greeted_again(&version, &mut self.told.bytes).map_err(Failed::Stop)?;
        }
        for number in self.memory.open_files() {
            self.is_wanted().map_err(Failed::Stop)?;
            let Some(open) = self.memory.file(number) else { continue };
            if let Err(reason) = reopen(&mut asking, open)? {
                let Terms { session, user, metrics, .. } = &self.terms;
                metrics.lost_file();
                let (path, why) = (shown_bytes(&open.path), reason.replace('"', "'"));
                log::warn!("lost-file session={session} user=\"{user}\" path=\"{path}\" reason=\"{why}\"");
                open.lost = Some(format!("the upstream was lost, and the file cannot be proven to be what it was: {reason}"));
            }
        }
        self.upstream = Some(asking.end()?);
        Ok(self.memory.again(&mut self.told.bytes))
    }
}

/// Opens a file or a directory again and proves that it is what the client was told; the inner error says why it is not. The outer one is
/// of the connection.
fn reopen(asking: &mut Asking<'_>, open: &mut Open) -> Result<Result<(), String>, No> {
    if let Some(doubt) = open.hopeless() {
        return Ok(Err(doubt.into()));
    }
    let refused = |no: No| if no.code.is_some() { Ok(Err(no.text)) } else { Err(no) };
    let opened = match open.listed {
        Some(_) => asking.open_directory(&open.path),
        None => asking.open_file(&open.path, open.flags_again()),
    };
    let handle = match opened {
        Ok(handle) => handle,
        Err(no) => return refused(no),
    };
    if open.listed.is_none() {
        let proven = prove(asking, open, &handle).or_else(refused)?;
        if proven.is_err() {
            // What it says is of no interest.
            if let Err(no) = asking.close(&handle)
                && no.code.is_none()
            {
                return Err(no);
            }
            return Ok(proven);
        }
    }
    open.opened_again(&handle);
    Ok(Ok(()))
}

fn prove(asking: &mut Asking<'_>, open: &mut Open, handle: &[u8]) -> Result<Result<(), String>, No> {
    let now = asking.identity(handle)?;
    if let Err(reason) = open.check(&now) {
        return Ok(Err(reason));
    }
    for range in open.known.ranges() {
        if asking.digest(handle, range.from..range.to)? != range.digest() {
            return Ok(Err("its content is not what was acknowledged".into()));
        }
    }
    open.begun.get_or_insert(now);
    Ok(Ok(()))
}

impl Leg for Surviving<'_> {
    fn fd(&self) -> RawFd {
        self.upstream.as_ref().map_or(-1, |upstream| upstream.as_leg().fd())
    }

    fn advance(&mut self, ready: bool) -> Result<bool, String> {
        let moved = self.with(|leg, _| leg.advance(ready))?;
        Ok(self.flush()? | moved.unwrap_or(true))
    }

    fn take(&mut self, buffer: &mut Vec<u8>) -> Result<Taken, String> {
        loop {
            let Told { bytes, given } = &mut self.told;
            let count = (bytes.len() - *given).min(buffer.capacity() - buffer.len());
            if count > 0 {
                buffer.extend_from_slice(&bytes[*given..*given + count]);
                *given += count;
                return Ok(Taken::Bytes(count));
            }
            bytes.clear();
            *given = 0;
            self.came.reserve(BUFFER);
            match self.with(|leg, this| leg.take(&mut this.came))? {
                Some(Taken::Bytes(_)) => {
                    self.answers()?;
                    self.flush()?;
                }
                // What was read may be what a put has waited for.
                Some(Taken::Nothing) if !self.flush()? => return Ok(Taken::Nothing),
                Some(Taken::Nothing) | None => {}
                Some(Taken::Eof) if self.ended => return Ok(Taken::Eof),
                Some(Taken::Eof) => self.recover("the upstream closed the session")?,
            }
        }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<usize, String> {
        if self.memory.is_full() || self.told.bytes.len() - self.told.given > MOST_TOLD {
            return Ok(0);
        }
        self.hear(bytes)?;
        self.flush()?;
        Ok(bytes.len())
    }

    fn put_eof(&mut self) -> Result<bool, String> {
        self.ending = true;
        self.flush()?;
        if self.is_unsent() {
            return Ok(false);
        }
        self.ended = self.with(|leg, _| leg.put_eof())?.unwrap_or(false);
        Ok(self.ended)
    }

    fn put_exit(&mut self, status: i32) -> Result<(), String> {
        self.ended = true;
        self.with(|leg, _| leg.put_exit(status)).map(drop)
    }

    fn exit(&mut self) -> Result<Option<i32>, String> {
        self.with(|leg, _| leg.exit()).map(Option::flatten)
    }

    fn finished(&mut self) -> bool {
        self.upstream.as_mut().is_none_or(|upstream| upstream.leg().finished())
    }

    fn exchanging(&mut self, ask: bool) -> Option<u64> {
        let ask = ask && !self.is_unsent();
        let exchange = self.upstream.as_mut()?.leg().exchanging(ask)?;
        // Another connection's is another one.
        Some(exchange ^ (self.losses << 48))
    }

    fn interest(&self, wants: Wants) -> PollFlags {
        let put = self.is_unsent() || (wants.put && self.ending && !self.ended);
        self.upstream.as_ref().map_or(PollFlags::empty(), |upstream| upstream.as_leg().interest(Wants { put, ..wants }))
    }
}
