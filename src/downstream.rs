//! The client's side: from an accepted connection to a channel that speaks SFTP, in types that exist only when the stage before has
//! succeeded: [`Accepted`] → [`Keyed`] → ([`Proven`], [`Downstream`]).
//!
//! It proves a key by libssh's verified signature only. Whose key it is says the function that is passed in; nothing here knows stores.

use std::cell::RefCell;
use std::io::{ErrorKind, Read as _};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd as _, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::{Fault, Side, Stage, shown};
use crate::ffi::{AuthRequest, Bind, ServerSession};
use crate::identity::{Negotiated, Offered, Proven, UserName};
use crate::leg::{Leg, Taken, Wants, window};
use crate::pipe::Pipe;
use crate::relay::{Control, late};

/// Channel opens and requests that may be refused in one session: far more than a client asks for (a terminal, some environment
/// variables), and each may cost a leaky libssh some bytes.
const MAX_REFUSED: u32 = 100;

/// How long our offer of algorithms may take to leave when the key exchange has failed.
const LAST_WORD: Duration = Duration::from_millis(200);

/// How long a client that is cut off may take to hear why and to hang up.
const FAREWELL: Duration = Duration::from_millis(500);

/// How long a client may take to disconnect once its channel is closed.
const PARTING: Duration = Duration::from_secs(2);

/// What the store says about an offered key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is the key of the user who offers it.
    Theirs,
    /// It is not; why, for the log.
    Refused(String),
    /// The store could not say: nobody is let in, the session ends.
    Unknown(String),
}

/// What decides about keys.
pub type Judge = Box<dyn FnMut(&Offered) -> Verdict>;

/// A key that was refused. Nobody has proven anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The name that was claimed, as it came.
    pub user: String,
    /// The fingerprint; empty of what is no key.
    pub key: String,
    /// The client's identification line.
    pub software: String,
    /// Why.
    pub reason: String,
}

/// On what terms a client may come in.
pub struct Terms {
    /// The session's number, for the log.
    pub session: u64,
    /// Text shown before login.
    pub banner: Option<String>,
    /// When the login must be done.
    pub deadline: Instant,
    /// Ends it from outside.
    pub control: Arc<Control>,
    /// Keys that may be offered.
    pub max_offered: u32,
    /// Who is told of refused keys.
    pub refused: Box<dyn FnMut(Refused)>,
}

/// A connection in the hands of libssh; nothing has been received.
pub struct Accepted {
    session: ServerSession,
    waiting: Waiting,
    proof: Rc<RefCell<Proof>>,
    refused: Box<dyn FnMut(Refused)>,
}

/// Keys are exchanged; the client has said nothing about who it is.
pub struct Keyed {
    accepted: Accepted,
    /// How long the exchange took.
    exchange: Duration,
}

/// The client's channel, and how it is waited for.
pub struct Downstream {
    session: ServerSession,
    waiting: Waiting,
    pipe: Pipe,
    /// Dropped after the session, which says goodbye when it is dropped.
    farewell: Option<Farewell>,
}

/// The socket of a client that is told goodbye: what it sends meanwhile is read, for a socket that is closed over unread bytes makes the
/// client's kernel forget what it was told.
struct Farewell(TcpStream);

/// One session's deadline and wake-up.
struct Waiting {
    deadline: Instant,
    control: Arc<Control>,
}

/// What the callbacks have found out.
#[derive(Default)]
struct Proof {
    id: u64,
    max_offered: u32,
    proven: Option<Proven>,
    offered: u32,
    /// Since the last round; no more than may be offered.
    refused: Vec<Refused>,
    end: Option<Fault>,
}

impl Accepted {
    /// Hands the connection to libssh. `judge` is asked about each offered key, and again when it is proven.
    pub fn new(bind: &Bind, stream: TcpStream, terms: Terms, mut judge: Judge) -> Result<Self, Fault> {
        let Terms { session: id, banner, deadline, control, max_offered, refused } = terms;
        let proof = Rc::new(RefCell::new(Proof { id, max_offered, ..Proof::default() }));
        let theirs = Rc::clone(&proof);
        let answer = Box::new(move |request: &AuthRequest| theirs.borrow_mut().answer(request, &mut judge));
        let session =
            ServerSession::new(bind, stream, banner, answer).map_err(|what| Fault::new(Side::Downstream, Stage::Accept, what))?;
        Ok(Self { session, waiting: Waiting { deadline, control }, proof, refused })
    }

    /// Exchanges identification lines and keys (RFC 4253).
    pub fn exchange(mut self) -> Result<Keyed, Fault> {
        let fault = |what| Fault::new(Side::Downstream, Stage::Exchange, what);
        let started = Instant::now();
        self.session.speak_first().map_err(fault)?;
        loop {
            match self.session.exchange() {
                Ok(true) => break,
                Ok(false) => self.waiting.wait(&self.session).map_err(fault)?,
                Err(what) => {
                    // A client that has nothing in common with us learns from our offer what is missing; it may still be unsent.
                    self.session.flush(LAST_WORD);
                    return Err(fault(what));
                }
            }
        }
        Ok(Keyed { accepted: self, exchange: started.elapsed() })
    }
}

impl Keyed {
    /// Waits for the signature that proves a key (RFC 4252 section 7).
    pub fn prove(self) -> Result<(Proven, Downstream), Fault> {
        let Accepted { session, waiting, proof, mut refused } = self.accepted;
        let fault = |what| Fault::new(Side::Downstream, Stage::Prove, what);
        loop {
            waiting.check().map_err(fault)?;
            let moved = session.advance();
            let keys = std::mem::take(&mut proof.borrow_mut().refused);
            keys.into_iter().for_each(|key| refused(Refused { software: session.client_version(), ..key }));
            if let Some(end) = proof.borrow_mut().end.take() {
                return Err(end);
            }
            if let Some(proven) = proof.borrow_mut().proven.take() {
                return Ok((proven, Downstream { session, waiting, pipe: Pipe::new(window(self.exchange)), farewell: None }));
            }
            if !moved.map_err(fault)? {
                // libssh leaves some bad requests without an answer, and the client would wait for ever.
                if session.failed() {
                    return Err(fault(session.error()));
                }
                waiting.wait(&session).map_err(fault)?;
            }
        }
    }
}

impl Proof {
    /// Answers one public key request; called from within libssh.
    fn answer(&mut self, request: &AuthRequest, judge: &mut Judge) -> bool {
        if self.end.is_some() {
            return false;
        }
        self.offered += 1;
        if self.offered > self.max_offered {
            self.end(Side::Downstream, format!("more than {} keys offered (SFTPPROXY_MAX_OFFERED_KEYS)", self.max_offered));
            return false;
        }
        let offered = match (&request.user, &request.key) {
            (Ok(user), Ok(key)) => UserName::new(user).map(|user| Offered { user, key: key.clone() }),
            (Err(reason), _) | (_, Err(reason)) => Err(reason.clone()),
        };
        let verdict = offered.as_ref().map_or_else(|reason| Verdict::Refused(reason.clone()), judge);
        match (verdict, offered) {
            (Verdict::Theirs, Ok(offered)) if request.verified => self.proven = Some(Proven::by_signature(offered)),
            (Verdict::Theirs, _) => {}
            (Verdict::Refused(reason), _) => {
                self.log_refusal(request, &reason);
                return false;
            }
            (Verdict::Unknown(reason), _) => {
                self.end(Side::Store, reason);
                return false;
            }
        }
        true
    }

    fn log_refusal(&mut self, request: &AuthRequest, reason: &str) {
        let user = request.user.as_deref().map(shown).unwrap_or_default();
        let key = request.key.as_ref().map(|key| format!("{key:?}")).unwrap_or_default();
        log::info!("refuse session={} user=\"{user}\" key=\"{key}\" reason=\"{}\"", self.id, shown(reason));
        self.refused.push(Refused {
            user: request.user.clone().unwrap_or_default(),
            key: request.key.as_ref().map(|key| key.fingerprint().to_string()).unwrap_or_default(),
            software: String::new(),
            reason: reason.to_owned(),
        });
    }

    fn end(&mut self, side: Side, what: String) {
        self.end = Some(Fault::new(side, Stage::Prove, what));
    }
}

impl Waiting {
    /// To be asked in every round: a client that never falls silent must not escape the deadline.
    fn check(&self) -> Result<(), String> {
        if self.control.is_cut() {
            return Err("cut".into());
        }
        if self.deadline <= Instant::now() { Err(late()) } else { Ok(()) }
    }

    fn wait(&self, session: &ServerSession) -> Result<(), String> {
        self.check()?;
        let events = if session.unsent() { PollFlags::POLLIN | PollFlags::POLLOUT } else { PollFlags::POLLIN };
        let wake = self.control.wake_of(Side::Downstream);
        wake.sleep(session.fd(), events, Some(self.deadline), || !self.control.is_cut()).map(drop)
    }
}

impl Downstream {
    /// The client's identification line.
    pub fn client_version(&self) -> String {
        self.session.client_version()
    }

    /// The cipher from the client and the one towards it.
    pub fn ciphers(&self) -> (String, String) {
        self.session.ciphers()
    }

    /// What the key exchange with the client has agreed on.
    pub fn negotiated(&self) -> Negotiated {
        self.session.negotiated(true)
    }

    /// Waits until the client has opened its channel and asked for sftp on it.
    pub fn open(&mut self) -> Result<(), Fault> {
        let fault = |what| Fault::new(Side::Downstream, Stage::Open, what);
        while !self.session.sftp_requested() {
            self.waiting.check().map_err(fault)?;
            let moved = match self.advance(true) {
                Ok(moved) => moved,
                Err(what) if self.session.refused().requests > 0 => {
                    return Err(fault(format!("the client asked for {} and left: {what}", self.session.refused().last)));
                }
                Err(what) => return Err(fault(what)),
            };
            if self.session.is_closed() {
                return Err(fault("the client closed its channel without asking for sftp".into()));
            }
            if !moved {
                self.waiting.wait(&self.session).map_err(fault)?;
            }
        }
        Ok(())
    }

    /// Says goodbye with a reason (RFC 4253 section 11.1), as far as that leaves within [`LAST_WORD`]; the client shows it. To be dropped
    /// then.
    pub fn dismiss(&mut self, reason: &str) {
        self.session.disconnect_with(reason, LAST_WORD);
        let socket = crate::ffi::borrow_fd(self.session.fd()).and_then(|fd| fd.try_clone_to_owned().ok());
        self.farewell = socket.map(|fd| Farewell(fd.into()));
    }

    /// Closes the channel and waits a little for the client to disconnect, as sshd does: some clients take it for an error when the
    /// server hangs up first.
    pub fn part(&mut self) {
        self.waiting.deadline = Instant::now() + PARTING;
        while self.waiting.check().is_ok() && self.session.close_channel().is_ok() {
            match self.session.advance() {
                Ok(true) => {}
                Ok(false) if self.waiting.wait(&self.session).is_ok() => {}
                _ => return,
            }
        }
    }
}

impl Drop for Farewell {
    fn drop(&mut self) {
        let until = Instant::now() + FAREWELL;
        let _ = self.0.shutdown(Shutdown::Write);
        let mut unheard = [0; 16 * 1024];
        loop {
            let left = PollTimeout::try_from(until.saturating_duration_since(Instant::now())).unwrap_or(PollTimeout::ZERO);
            match self.0.read(&mut unheard) {
                Ok(1..) if left != PollTimeout::ZERO => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock && left != PollTimeout::ZERO => {
                    let _ = poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], left);
                }
                _ => return,
            }
        }
    }
}

impl Leg for Downstream {
    fn fd(&self) -> RawFd {
        self.session.fd()
    }

    fn advance(&mut self, ready: bool) -> Result<bool, String> {
        let moved = self.pipe.advance(&self.session, ready)?;
        if self.session.refused().requests > MAX_REFUSED {
            return Err(format!("more than {MAX_REFUSED} refused requests, the last one for {}", self.session.refused().last));
        }
        Ok(moved)
    }

    fn take(&mut self, buffer: &mut Vec<u8>) -> Result<Taken, String> {
        self.pipe.take(&self.session, buffer)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<usize, String> {
        self.pipe.put(&self.session, bytes)
    }

    fn put_eof(&mut self) -> Result<bool, String> {
        self.pipe.put_eof(&self.session)
    }

    fn put_exit(&mut self, status: i32) -> Result<(), String> {
        self.session.send_exit_status(status)?;
        self.session.close_channel()
    }

    fn exit(&mut self) -> Result<Option<i32>, String> {
        Ok(self.session.is_closed().then_some(0))
    }

    fn finished(&mut self) -> bool {
        !self.session.unsent() && self.session.is_closed()
    }

    fn exchanging(&mut self, _ask: bool) -> Option<u64> {
        self.session.exchanging()
    }

    fn interest(&self, _wants: Wants) -> PollFlags {
        self.pipe.interest(&self.session)
    }

    fn explain(&mut self, reason: &str) {
        if !self.session.unsent() {
            let _ = self.session.write_stderr(format!("sftpproxy: {reason}\r\n").as_bytes());
        }
    }
}
