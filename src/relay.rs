//! The two threads of a session, each the only owner of one leg, and the bounded channels between them.
//!
//! Bytes travel in recycled buffers; a thread that finds no room stops taking from its leg, the library's window closes and the peer
//! stops. A thread sleeps only when its library has said "would block" in each direction it could act in, and is woken once a
//! batch. Nothing here knows SSH or SFTP: buffers are looked at by a [`Watch`] that the session passes in.
//!
//! What a watch answers in place of the upstream travels as [`Item::Answer`] behind the requests before it. The upstream's thread, the one
//! author of the reply stream, puts it in between two packets. While an answer waits for that, no request is taken, so a client that
//! reads no answers is not read any more: in each direction there are at most [`DEPTH`] answers on their way and one in each thread's
//! hands, and each answers no more than one buffer of requests.
//!
//! The end: [`Taken::Eof`] travels as [`Item::Eof`] behind the last byte, the exit status as [`Item::Exit`]. A thread that ends drops
//! its ends of the channels and marks itself done; the other one still delivers what it holds, within a bound.

use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::TryRecvError;
use nix::poll::PollFlags;

use crate::error::{Fault, Side, Stage};
use crate::leg::{Leg, Taken, Wake, Wants};
use crate::order::{AtomicBool, AtomicU64, Mutex, Receiver, Sender, bounded};
use crate::pace::{Pace, Wait};
use crate::rate::Rate;
use crate::rekey::Rekey;

/// Bytes of a buffer: some SFTP packets of 32 KiB in one piece, which is what both libraries send best.
pub const BUFFER: usize = 128 * 1024;

/// Buffers on their way in one direction, and one more in the hands of the thread that puts; with [`BUFFER`] at most 640 KiB.
pub const DEPTH: usize = 4;

/// How long a thread whose other side is gone goes on without moving a byte.
const LINGER: Duration = if cfg!(test) { Duration::from_millis(200) } else { Duration::from_secs(10) };

/// How long it goes on altogether: a slow client still gets the half mebibyte that may be on its way.
const LINGER_WHOLE: Duration = Duration::from_secs(300);

/// How long a thread waits with everything at hand before it gives back what it does not need to wait.
const REST: Duration = Duration::from_secs(1);

/// How long a session that is open may stand still; `None` = for ever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Patience {
    /// Without a request and without an answer, when none is outstanding.
    pub idle: Option<Duration>,
    /// With bytes that a peer does not take, or requests that the upstream does not answer.
    pub stall: Option<Duration>,
    /// With a key exchange that a peer has begun and not ended.
    pub rekey: Option<Duration>,
}

/// What passes from thread to thread.
enum Item {
    Bytes(Vec<u8>),
    /// Whole packets for the client, from the thread that reads its requests.
    Answer(Vec<u8>),
    Eof,
    Exit(i32),
}

/// What sees each buffer that a thread receives from its peer.
pub trait Watch {
    /// Sees a buffer and may change it; what it leaves there goes on. An error ends the session.
    fn pass(&mut self, buffer: &mut Vec<u8>) -> Result<(), String>;

    /// Of the client's thread: whole packets that answer requests of the last buffer, which do not go on.
    fn answers(&mut self) -> Vec<u8> {
        Vec::new()
    }

    /// Of the upstream's thread: whether an answer can follow what was passed so far.
    fn at_boundary(&self) -> bool {
        true
    }

    /// Whether the upstream owes an answer to a request that it has as a whole; `None` = nobody counts.
    fn owes(&self) -> Option<bool> {
        None
    }

    /// Whether a request has come in part, and its rest has not.
    fn amid(&self) -> bool {
        false
    }
}

impl<F: FnMut(&mut Vec<u8>) -> Result<(), String>> Watch for F {
    fn pass(&mut self, buffer: &mut Vec<u8>) -> Result<(), String> {
        self(buffer)
    }
}

/// What both threads of a session and those who end sessions share.
pub struct Control {
    downstream: Wake,
    upstream: Wake,
    /// Set once: no thread may go on.
    cut: AtomicBool,
    /// Set once: the upstream's channel is open, or the router answers in its place; the login is over.
    opened: AtomicBool,
    /// Set when a side's thread is done.
    downstream_done: AtomicBool,
    upstream_done: AtomicBool,
    /// What each side's thread has done so far.
    downstream_pace: Pace,
    upstream_pace: Pace,
    end: Mutex<Option<Fault>>,
    /// When the session began; what follows are nanoseconds since then.
    born: Instant,
    /// When bytes came last from the client, and from the upstream (or its channel was opened).
    asked: AtomicU64,
    answered: AtomicU64,
    /// When the upstream was back, after it was lost.
    back: AtomicU64,
    /// The upstream's socket, so that a call of libssh2 that does not come back can be ended.
    socket: Mutex<Option<TcpStream>>,
}

impl Control {
    /// Makes the control of one session.
    pub fn new() -> Result<Arc<Self>, String> {
        Ok(Arc::new(Self {
            downstream: Wake::new()?,
            upstream: Wake::new()?,
            cut: AtomicBool::new(false),
            opened: AtomicBool::new(false),
            downstream_done: AtomicBool::new(false),
            upstream_done: AtomicBool::new(false),
            downstream_pace: Pace::default(),
            upstream_pace: Pace::default(),
            end: Mutex::new(None),
            born: Instant::now(),
            asked: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            back: AtomicU64::new(0),
            socket: Mutex::new(None),
        }))
    }

    /// The first reason for the end stays; later ones follow from it.
    pub fn end(&self, fault: Fault) {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(fault);
    }

    /// Why the session ends, once it does.
    pub fn reason(&self) -> Option<Fault> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends both threads now.
    pub fn cut(&self, fault: Fault) {
        self.end(fault);
        self.cut.store(true, Ordering::SeqCst);
        self.downstream.wake();
        self.upstream.wake();
        if let Some(socket) = &*self.socket.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Takes the upstream's socket, which [`Self::cut`] shuts down: as long as an upstream sends, libssh2 may stay in one call.
    pub fn hold(&self, socket: TcpStream) {
        *self.socket.lock().unwrap_or_else(PoisonError::into_inner) = Some(socket);
        if self.is_cut() {
            self.cut(Fault::new(Side::Router, Stage::Dial, "cut"));
        }
    }

    /// Gives the upstream's socket back: the connection outlives the session.
    pub fn release(&self) -> Option<TcpStream> {
        self.socket.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether [`Self::cut`] was called.
    pub fn is_cut(&self) -> bool {
        self.cut.load(Ordering::SeqCst)
    }

    /// The upstream's channel is open, or the router answers in its place: the deadline of the login no longer holds.
    pub fn open(&self) {
        self.came(Side::Upstream);
        self.opened.store(true, Ordering::SeqCst);
    }

    /// Bytes have come from this side.
    fn came(&self, side: Side) {
        let last = if side == Side::Upstream { &self.answered } else { &self.asked };
        last.store(self.born.elapsed().as_nanos() as u64, Ordering::SeqCst);
    }

    /// The upstream is back after it was lost. Who has waited meanwhile has waited for nobody's fault: limits of patience begin anew.
    pub fn back(&self) {
        self.back.store(self.born.elapsed().as_nanos() as u64, Ordering::SeqCst);
    }

    /// When bytes came last from the client and from the upstream.
    fn last(&self) -> (Instant, Instant) {
        let at = |last: &AtomicU64| self.born + Duration::from_nanos(last.load(Ordering::SeqCst));
        (at(&self.asked), at(&self.answered))
    }

    /// Whether [`Self::open`] was called.
    pub fn is_open(&self) -> bool {
        self.opened.load(Ordering::SeqCst)
    }

    /// The wake-up of a side's thread.
    pub fn wake_of(&self, side: Side) -> &Wake {
        if side == Side::Upstream { &self.upstream } else { &self.downstream }
    }

    /// What a side's thread has done so far.
    pub fn pace_of(&self, side: Side) -> &Pace {
        if side == Side::Upstream { &self.upstream_pace } else { &self.downstream_pace }
    }

    fn done_flag(&self, side: Side) -> &AtomicBool {
        if side == Side::Upstream { &self.upstream_done } else { &self.downstream_done }
    }

    /// Marks a side's thread as done and tells the other one.
    pub fn done(&self, side: Side) {
        self.done_flag(side).store(true, Ordering::SeqCst);
        self.wake_of(other(side)).wake();
    }

    /// Whether a side's thread is done.
    pub fn is_done(&self, side: Side) -> bool {
        self.done_flag(side).load(Ordering::SeqCst)
    }
}

fn other(side: Side) -> Side {
    if side == Side::Upstream { Side::Downstream } else { Side::Upstream }
}

/// One thread's ends of the channels. Dropping it tells the other thread that nothing more will come.
pub struct Half {
    side: Side,
    control: Arc<Control>,
    inbox: Receiver<Item>,
    used: Sender<Vec<u8>>,
    outbox: Sender<Item>,
    spare: Receiver<Vec<u8>>,
    front: Option<(Vec<u8>, usize)>,
    next: Option<Vec<u8>>,
    /// Answers on their way: of the client's thread to the other one, of the upstream's thread into the reply stream.
    answer: Vec<u8>,
    closing: Closing,
    taken: Took,
    /// The last [`Self::take`] stopped for want of room: the leg may hold bytes that poll(2) does not show.
    full: bool,
    /// How fast this leg may be taken from.
    rate: Option<Arc<Rate>>,
    /// Until when the rate lets nothing be taken.
    held: Option<Instant>,
    patience: Patience,
    rekey: Option<Rekey>,
    /// Since when the leg has taken nothing of what it was offered.
    stuck: Option<Instant>,
}

/// How far the bytes to this thread's peer have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Closing {
    /// More may come.
    Open,
    /// Everything was put; the peer has yet to be told so.
    Eof,
    /// The peer was told.
    EofPut,
    /// The exit status, which comes after the EOF, was put: the leg is closed.
    Closed,
}

/// How far the bytes from this thread's peer have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Took {
    /// More may come.
    Open,
    /// The peer's EOF was passed on.
    Eof,
    /// The peer has closed.
    Exit,
}

/// Makes the two halves, the downstream one first.
pub fn halves(control: &Arc<Control>) -> (Half, Half) {
    let (requests_in, requests_out) = bounded(DEPTH);
    let (replies_in, replies_out) = bounded(DEPTH);
    let (request_used, request_spare) = bounded(DEPTH);
    let (reply_used, reply_spare) = bounded(DEPTH);
    let half = |side, inbox, used, outbox, spare| Half {
        side,
        control: Arc::clone(control),
        inbox,
        used,
        outbox,
        spare,
        front: None,
        next: None,
        answer: Vec::new(),
        closing: Closing::Open,
        taken: Took::Open,
        full: false,
        rate: None,
        held: None,
        patience: Patience::default(),
        rekey: None,
        stuck: None,
    };
    (
        half(Side::Downstream, replies_out, reply_used, requests_in, request_spare),
        half(Side::Upstream, requests_out, request_used, replies_in, reply_spare),
    )
}

impl Half {
    /// The same, and bytes are taken from the leg no faster than this. What is not taken stays with the library, whose window closes.
    pub fn limited(self, rate: Option<Arc<Rate>>) -> Self {
        Self { rate, ..self }
    }

    /// The same, and the session ends when it stands still for so long.
    pub fn patient(self, patience: Patience) -> Self {
        Self { patience, rekey: patience.rekey.map(Rekey::new), ..self }
    }

    /// Relays until the session's end and returns the number of bytes that this leg's peer was given. `watch` sees each buffer
    /// received from the peer and may change it; its error ends the session. `deadline` holds until it is `None`.
    pub fn run(mut self, leg: &mut dyn Leg, watch: &mut dyn Watch, deadline: &dyn Fn() -> Option<Instant>) -> u64 {
        let mut lingering: Option<(Instant, Instant)> = None;
        let mut pause = Pause::Moving;
        let mut ready = true;
        let result = loop {
            if self.control.is_cut() {
                break Ok(());
            }
            let moved = match self.step(leg, watch, ready) {
                Err(what) => break Err(what),
                Ok(Step::Finished) => break Ok(()),
                Ok(Step::Moved) => true,
                Ok(Step::Idle) => false,
            };
            // Also after a round that moved something: a peer that never falls silent must not escape the bounds.
            let until = earlier(deadline(), lingering.map(|(start, last)| (start + LINGER_WHOLE).min(last + LINGER)));
            if until.is_some_and(|until| until <= Instant::now()) {
                break Err(if lingering.is_some() { "the rest could not be delivered in time".into() } else { late() });
            }
            let patience = self.lost_patience(watch);
            if let Some((at, what)) = &patience
                && *at <= Instant::now()
            {
                leg.explain(what.split(" (").next().unwrap_or_default());
                break Err(what.clone());
            }
            let look = match self.look_for_rekey(leg, (watch, moved)) {
                Err(what) => break Err(what),
                Ok(look) => look,
            };
            let until = earlier(earlier(until, patience.map(|(at, _)| at)), look);
            let wake = self.pause(&mut pause, moved);
            // Whoever has not slept since has heard nothing new of the socket.
            ready = false;
            if !moved {
                let until = earlier(earlier(until, wake), self.held);
                match self.sleep(leg, self.waits_for(watch), (until, lingering.is_some())) {
                    Ok(events) => ready = !events.is_empty(),
                    Err(what) => break Err(what),
                }
            }
            if self.other_is_done() {
                let now = Instant::now();
                let (start, last) = lingering.unwrap_or((now, now));
                lingering = Some((start, if moved { now } else { last }));
            }
        };
        if let Err(what) = result {
            self.control.end(Fault::new(self.side, Stage::Relay, what));
        }
        self.pace().bytes()
    }

    /// When this side's patience will be over if nothing happens, and what is said then.
    fn lost_patience(&self, watch: &dyn Watch) -> Option<(Instant, String)> {
        let Patience { idle, stall, .. } = self.patience;
        if !self.control.is_open() || (idle, stall) == (None, None) {
            return None;
        }
        let (asked, answered) = self.control.last();
        let back = self.control.born + Duration::from_nanos(self.control.back.load(Ordering::SeqCst));
        let last = asked.max(answered).max(back);
        let owed = self.is_owed(watch);
        let said = |what: &str, limit: Duration, setting: &str| format!("{what} for {} s ({setting})", limit.as_secs_f32());
        let stuck = self.stuck.zip(stall).map(|(since, limit)| {
            (since.max(back) + limit, said(&format!("the {} takes no bytes", taker(self.side)), limit, "SFTPPROXY_STALL_TIMEOUT"))
        });
        let silent = stall
            .filter(|_| self.side == Side::Upstream && owed && self.has_room())
            .map(|limit| (last + limit, said("the upstream answers nothing", limit, "SFTPPROXY_STALL_TIMEOUT")));
        let rests = self.side == Side::Downstream && !owed && !self.is_blocked() && self.inbox.is_empty();
        let idle = idle.filter(|_| rests).map(|limit| (last + limit, said("no request", limit, "SFTPPROXY_IDLE_TIMEOUT")));
        [stuck, silent, idle].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// Whether the upstream owes an answer. One that has come in part is still owed; a request that has come in part is still the client's to
    /// make.
    fn is_owed(&self, watch: &dyn Watch) -> bool {
        let (asked, answered) = self.control.last();
        watch.owes() == Some(true) || (asked > answered && !watch.amid())
    }

    /// What the other side does not take may be why nothing is taken from this one.
    fn has_room(&self) -> bool {
        !self.full && self.held.is_none()
    }

    /// Ends the session when the peer does not end a key exchange. Returns when to look at it again, if it is to be.
    fn look_for_rekey(&mut self, leg: &mut dyn Leg, (watch, moved): (&dyn Watch, bool)) -> Result<Option<Instant>, String> {
        if !self.control.is_open() {
            return Ok(None);
        }
        let silent = self.side == Side::Upstream && !moved && !self.is_blocked() && self.has_room() && self.is_owed(watch);
        let Some(rekey) = &mut self.rekey else { return Ok(None) };
        let looked = rekey.look(leg, silent, Instant::now());
        looked.map_err(|what| format!("the {} {what}", taker(self.side)))
    }

    /// Notes a round that moved something, or not. A thread that has nothing to do for a while gives back its empty buffers and more.
    /// Returns when that is, if it is to come.
    fn pause(&mut self, pause: &mut Pause, moved: bool) -> Option<Instant> {
        if moved {
            *pause = Pause::Moving;
        } else if *pause == Pause::Moving {
            *pause = Pause::Until(Instant::now() + REST);
        }
        let Pause::Until(rest) = *pause else { return None };
        if Instant::now() < rest {
            return Some(rest);
        }
        *pause = Pause::Rest;
        self.next = None;
        while self.spare.try_recv().is_ok() {}
        crate::ffi::give_back();
        None
    }

    /// One round: let the library work, give what there is, take what there is room for.
    fn step(&mut self, leg: &mut dyn Leg, watch: &mut dyn Watch, ready: bool) -> Result<Step, String> {
        let mut moved = leg.advance(ready)?;
        let mut put = self.put(leg)?;
        moved |= put;
        moved |= self.take(leg, watch)?;
        // What was read while taking may be what the put has waited for.
        if !moved && self.is_blocked() {
            put = self.put(leg)?;
            moved |= put;
        }
        if self.patience.stall.is_some() {
            let since = self.stuck.filter(|_| !put).unwrap_or_else(Instant::now);
            self.stuck = self.is_blocked().then_some(since);
        }
        if self.is_finished(leg) {
            return Ok(Step::Finished);
        }
        Ok(if moved { Step::Moved } else { Step::Idle })
    }

    fn put(&mut self, leg: &mut dyn Leg) -> Result<bool, String> {
        let (mut moved, mut freed) = (false, false);
        loop {
            if let Some((buffer, from)) = &mut self.front {
                let count = leg.put(&buffer[*from..])?;
                self.control.pace_of(self.side).gave(count);
                *from += count;
                moved |= count > 0;
                if *from < buffer.len() {
                    if count == 0 {
                        break;
                    }
                    continue;
                }
                self.recycle();
            }
            if self.closing == Closing::Eof {
                if !leg.put_eof()? {
                    break;
                }
                self.closing = Closing::EofPut;
                moved = true;
            }
            if self.answer_waits() {
                break;
            }
            let item = self.inbox.try_recv();
            // Only a thread that has found no room sleeps for want of it, and it has found it before this item was taken.
            freed |= item.is_ok() && self.inbox.len() + 1 >= DEPTH;
            match item {
                Ok(Item::Bytes(buffer)) => self.front = Some((buffer, 0)),
                Ok(Item::Answer(answer)) => self.answer = answer,
                Ok(Item::Eof) if self.closing == Closing::Open => self.closing = Closing::Eof,
                Ok(Item::Eof) => {}
                Ok(Item::Exit(status)) => self.close(leg, status)?,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    moved |= self.other_gone(leg)?;
                    break;
                }
            }
            moved = true;
        }
        if freed {
            self.control.wake_of(other(self.side)).wake();
        }
        Ok(moved)
    }

    fn recycle(&mut self) {
        if let Some((mut buffer, _)) = self.front.take() {
            buffer.clear();
            // A buffer that was made anew for rewritten paths has another size and is not kept.
            if buffer.capacity() == BUFFER {
                let _ = self.used.try_send(buffer);
            }
        }
    }

    fn close(&mut self, leg: &mut dyn Leg, status: i32) -> Result<(), String> {
        if self.closing != Closing::Closed {
            self.closing = Closing::Closed;
            leg.put_exit(status)?;
        }
        Ok(())
    }

    /// The other thread is gone and everything it sent has been put: close this leg too.
    fn other_gone(&mut self, leg: &mut dyn Leg) -> Result<bool, String> {
        if self.side == Side::Upstream {
            let first = self.closing == Closing::Open;
            if first {
                self.closing = Closing::Eof;
            }
            return Ok(first);
        }
        if self.closing == Closing::Closed {
            return Ok(false);
        }
        if let Some(fault) = self.control.reason() {
            leg.explain(&fault.said_to_user());
        }
        self.close(leg, 1).map(|()| true)
    }

    fn take(&mut self, leg: &mut dyn Leg, watch: &mut dyn Watch) -> Result<bool, String> {
        let mut moved = false;
        self.full = false;
        if self.side == Side::Upstream && (self.taken != Took::Open || self.other_is_done()) {
            // Nobody is there to read it, or the stream has ended in the middle of a packet.
            self.answer = Vec::new();
        }
        while self.taken == Took::Open {
            moved |= self.pass_answer(watch);
            // An answer that has found no place must not be slept over, should there be one by now.
            self.full = self.outbox.is_full() || self.answer_is_stuck(watch);
            self.held = self.rate.as_ref().and_then(|rate| rate.held(Instant::now()));
            if self.full || self.held.is_some() {
                break;
            }
            let mut buffer = self.buffer()?;
            match leg.take(&mut buffer)? {
                Taken::Bytes(count) => {
                    if let Some(rate) = &self.rate {
                        rate.took(count, Instant::now());
                    }
                    self.control.came(self.side);
                    watch.pass(&mut buffer)?;
                    if self.side == Side::Downstream {
                        self.answer = watch.answers();
                    }
                    if !buffer.is_empty() {
                        // Fails only when the other thread is gone: then the bytes have nowhere to go.
                        let _ = self.outbox.try_send(Item::Bytes(buffer));
                    }
                }
                Taken::Nothing => {
                    self.next = Some(buffer);
                    break;
                }
                Taken::Eof => {
                    self.control.end(Fault::new(self.side, Stage::Relay, closed_by(self.side)));
                    self.taken = Took::Eof;
                    let _ = self.outbox.try_send(Item::Eof);
                }
            }
            moved = true;
        }
        if self.taken == Took::Eof {
            self.full = self.outbox.is_full();
            if !self.full
                && let Some(status) = leg.exit()?
            {
                self.taken = Took::Exit;
                let _ = self.outbox.try_send(Item::Exit(status));
                moved = true;
            }
        }
        if moved {
            self.control.wake_of(other(self.side)).wake();
        }
        Ok(moved)
    }

    /// Passes answers on, if there are some and they have a place.
    fn pass_answer(&mut self, watch: &dyn Watch) -> bool {
        let is_upstream = self.side == Side::Upstream;
        if !self.answer_is_stuck(watch) || self.outbox.is_full() {
            return false;
        }
        let answer = std::mem::take(&mut self.answer);
        let _ = self.outbox.try_send(if is_upstream { Item::Bytes(answer) } else { Item::Answer(answer) });
        true
    }

    /// There is an answer that wants for nothing but a place.
    fn answer_is_stuck(&self, watch: &dyn Watch) -> bool {
        !self.answer.is_empty() && (self.side == Side::Downstream || watch.at_boundary())
    }

    /// There is an answer that must go into the reply stream before requests that came after it go on.
    fn answer_waits(&self) -> bool {
        self.side == Side::Upstream && !self.answer.is_empty()
    }

    /// An empty buffer, no larger than what the rate lets be taken at once. Where there is no memory for it, this session ends and no other.
    fn buffer(&mut self) -> Result<Vec<u8>, String> {
        let size = self.rate.as_ref().and_then(|rate| rate.piece()).unwrap_or(BUFFER);
        let next = self.next.take().filter(|next| next.capacity() <= size);
        let spare = || self.spare.try_recv().ok().filter(|_| size == BUFFER);
        if let Some(buffer) = next.or_else(spare) {
            return Ok(buffer);
        }
        let mut made = Vec::new();
        made.try_reserve_exact(size).map_err(|_| format!("no memory for a buffer of {size} bytes"))?;
        Ok(made)
    }

    fn is_finished(&self, leg: &mut dyn Leg) -> bool {
        match self.side {
            // The sshd has closed: nothing can be put any more, everything it said is on its way.
            Side::Upstream => self.taken == Took::Exit,
            // We have closed and the client has it all, or the client has closed.
            _ => self.taken == Took::Exit || (self.closing == Closing::Closed && leg.finished()),
        }
    }

    /// There is something that the leg would not take.
    fn is_blocked(&self) -> bool {
        self.front.is_some() || self.closing == Closing::Eof
    }

    fn pace(&self) -> &Pace {
        self.control.pace_of(self.side)
    }

    /// For what this thread sleeps when it does now.
    fn waits_for(&self, watch: &dyn Watch) -> Wait {
        match watch.owes() {
            _ if self.is_blocked() => Wait::Peer,
            _ if self.held.is_some() => Wait::Rate,
            _ if self.full => Wait::Room,
            Some(true) => Wait::Answer,
            Some(false) => Wait::Question,
            None => Wait::Anything,
        }
    }

    fn other_is_done(&self) -> bool {
        self.control.is_done(other(self.side))
    }

    /// Sleeps until there is something to do. A thread that has not yet seen (`lingering`) that the other one is done does not sleep
    /// when it is: it has the rest to deliver, and a limit to set, first. Returns what the socket is ready for.
    fn sleep(&self, leg: &dyn Leg, wait: Wait, (until, lingering): (Option<Instant>, bool)) -> Result<PollFlags, String> {
        let wants = Wants {
            take: (self.taken == Took::Open && !self.full && self.held.is_none())
                || self.taken == Took::Eof
                || self.closing == Closing::Closed,
            put: self.is_blocked(),
        };
        let blocked = wants.put;
        let idle = || {
            (blocked || self.answer_waits() || self.inbox.is_empty())
                // Room that came after `take` had found none is something to do.
                && self.outbox.is_full() == self.full
                && self.other_is_done() == lingering
                && !self.control.is_cut()
        };
        let sleep = || self.control.wake_of(self.side).sleep(leg.fd(), leg.interest(wants), until, idle);
        self.pace().asleep(wait, sleep)
    }
}

/// How long nothing has moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pause {
    /// Something has, in the last round.
    Moving,
    /// Not yet until then.
    Until(Instant),
    /// For so long that nothing is kept.
    Rest,
}

enum Step {
    Moved,
    Idle,
    Finished,
}

fn earlier(one: Option<Instant>, two: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(two).min()
}

/// What the log says when the time from accept to the open upstream channel is over.
pub fn late() -> String {
    "not done within SFTPPROXY_LOGIN_TIMEOUT".into()
}

fn taker(side: Side) -> &'static str {
    if side == Side::Upstream { "upstream" } else { "client" }
}

fn closed_by(side: Side) -> &'static str {
    if side == Side::Upstream { "the upstream closed the session" } else { "the client closed the session" }
}

#[cfg(test)]
mod tests;
