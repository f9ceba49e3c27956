//! How a running router hands its listening sockets to the one that comes after it, over the control socket. The same sockets: there is no
//! moment at which nobody listens, and who waits in their queues is served.
//!
//! ```text
//! heir    {"take-over":{"node":"web1"}}
//! router  {"offer":{…}}                     the sockets are beside it (SCM_RIGHTS, unix(7)); it goes on accepting
//! heir    serving                           once nothing is left that could fail
//! router  {"done":{…}}                      it accepts no more, and answers at another name
//! ```
//!
//! Until the third line nothing has changed for the router: an heir that fails, dies or says nothing has only closed its copies. Only the
//! router's own account, or root, is an heir, whatever the mode of the control socket.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

use super::{Ask, Desk, Line, MAX_ASK, MAX_LINE};
use crate::error::shown;
use crate::event::json;
use crate::listeners::{Listener, Origin, Role};

/// Most sockets that are handed over: one message takes 253 (`SCM_MAX_FD`), and nobody listens at more addresses.
const MAX_SOCKETS: usize = 64;

/// How long the router waits for its heir to serve. More than [`START`], so that both never disagree.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long the heir may take from the offer until it serves.
const START: Duration = Duration::from_secs(90);

/// How long the heir waits for an answer.
const ANSWER: Duration = Duration::from_secs(10);

/// What the heir says when it serves.
const SERVING: &str = "serving\n";

/// Who wants to take over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Its name among the nodes of a store.
    pub node: String,
}

/// One socket of an offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Passed {
    role: Role,
    managed: bool,
}

/// What a router hands over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Its process.
    pid: u32,
    /// What the sockets are, in their order.
    sockets: Vec<Passed>,
    /// Its settings, without secrets.
    settings: BTreeMap<String, String>,
}

/// What a router does once an heir serves, with the heir's process.
pub type Leave = Box<dyn Fn(u32) + Send + Sync>;

/// What a running router has to hand over, once.
pub struct Estate {
    sockets: Vec<Weak<Listener>>,
    settings: BTreeMap<String, String>,
    leave: Leave,
    /// Whether it is gone. Held while an heir starts: there is one at a time.
    gone: Mutex<bool>,
}

impl Estate {
    /// These sockets, as long as the router has them, and its settings without secrets.
    pub fn new(sockets: &[Arc<Listener>], settings: BTreeMap<String, String>, leave: Leave) -> Self {
        Self { sockets: sockets.iter().map(Arc::downgrade).collect(), settings, leave, gone: Mutex::new(false) }
    }

    /// The whole conversation with an heir, whose claim has been read from `input`. An error: the router goes on as it was.
    pub(super) fn hand_over(&self, desk: &Desk, claim: &Claim, input: &mut BufReader<&UnixStream>) -> Result<(), String> {
        let stream = *input.get_ref();
        let heir = getsockopt(stream, PeerCredentials).map_err(|error| format!("SO_PEERCRED: {error}"))?;
        if !may_inherit(heir.uid()) {
            return Err(format!("user id {} is not the router's, and only that one may take over", heir.uid()));
        }
        let Ok(mut gone) = self.gone.try_lock() else { return Err("another router is taking over already".into()) };
        if *gone {
            return Err("the router has handed over already".into());
        }
        self.offer(stream)?;
        let says = |error: io::Error| format!("process {} has not taken over: {error}", heir.pid());
        stream.set_read_timeout(Some(PATIENCE)).map_err(says)?;
        let mut line = Vec::new();
        input.take(MAX_ASK as u64).read_until(b'\n', &mut line).map_err(says)?;
        if line != SERVING.as_bytes() {
            return Err(format!("process {} has left before it served", heir.pid()));
        }
        if claim.node == desk.node() {
            // Both write their sessions into the store for a while.
            desk.rename(&own_name(&claim.node));
        }
        (self.leave)(heir.pid().cast_unsigned());
        *gone = true;
        // An heir that has died since was the router: nobody is left who could go back.
        let _ = { stream }.write_all((json::line(&desk.done()) + "\n").as_bytes());
        Ok(())
    }

    fn offer(&self, stream: &UnixStream) -> Result<(), String> {
        let sockets: Vec<_> = self.sockets.iter().filter_map(Weak::upgrade).collect();
        if sockets.is_empty() || sockets.len() < self.sockets.len() {
            return Err("the router is stopping".into());
        }
        if sockets.len() > MAX_SOCKETS {
            return Err(format!(
                "the router listens at {} addresses, and no more than {MAX_SOCKETS} can be passed on",
                sockets.len()
            ));
        }
        let passed = sockets.iter().map(|socket| Passed { role: socket.role, managed: socket.managed }).collect();
        let offer = Offer { pid: std::process::id(), sockets: passed, settings: self.settings.clone() };
        let line = json::line(&Line::Offer(Box::new(offer))) + "\n";
        let descriptors: Vec<BorrowedFd<'_>> = sockets.iter().map(|socket| socket.as_fd()).collect();
        send(stream, line.as_bytes(), &descriptors).map_err(|error| format!("the sockets cannot be passed on: {error}"))
    }
}

/// Whether a process of this user may: one of the router's own account could trace it as well, and root can anyway.
fn may_inherit(uid: u32) -> bool {
    uid == 0 || uid == nix::unistd::geteuid().as_raw()
}

/// A name that no other node has: the one that was, with the process.
fn own_name(node: &str) -> String {
    let pid = std::process::id().to_string();
    let kept: String = node.chars().take(63 - pid.len()).collect();
    format!("{kept}.{pid}")
}

/// Sends all of the bytes, with the descriptors beside the first of them.
fn send(mut stream: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !beside.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let sent = sendmsg(stream, &[IoSlice::new(bytes)], &mut beside, SendFlags::NOSIGNAL)?;
    stream.write_all(&bytes[sent..])
}

/// A router that has offered to hand over.
pub struct Heir {
    stream: UnixStream,
    offer: Offer,
    since: Instant,
}

impl Heir {
    /// Asks the router at this place; `None` = nobody answers there. An error: one does, and it does not hand over.
    pub fn claim(path: &Path, node: &str) -> Result<Option<(Self, Vec<Listener>)>, String> {
        let says = |what: &dyn std::fmt::Display| format!("take-over at {}: {what}", path.display());
        let stream = match UnixStream::connect(path) {
            Ok(stream) => stream,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => return Ok(None),
            Err(error) => return Err(says(&error)),
        };
        let limits = stream.set_read_timeout(Some(ANSWER)).and_then(|()| stream.set_write_timeout(Some(ANSWER)));
        limits.map_err(|error| says(&error))?;
        let question = json::line(&Ask::TakeOver(Claim { node: node.to_owned() })) + "\n";
        (&stream).write_all(question.as_bytes()).map_err(|error| says(&error))?;
        let (line, descriptors) = receive(&stream).map_err(|error| says(&error))?;
        let offer = match serde_json::from_slice(&line).map_err(|error| says(&error))? {
            Line::Offer(offer) if offer.sockets.len() == descriptors.len() => *offer,
            Line::Error(reason) => return Err(says(&shown(&reason))),
            _ => return Err(says(&"the answer is not understood")),
        };
        let take = |(socket, passed): (OwnedFd, &Passed)| Listener::take(socket, passed.role, Origin::Taken, passed.managed);
        let sockets: Result<_, _> = descriptors.into_iter().zip(&offer.sockets).map(take).collect();
        Ok(Some((Self { stream, offer, since: Instant::now() }, sockets.map_err(|reason| says(&reason))?)))
    }

    /// The router's process.
    pub fn pid(&self) -> u32 {
        self.offer.pid
    }

    /// Whether this process, now that it is who it will be, can do what is left to do once it serves: replace the router's socket, and end it.
    pub fn may_follow(&self) -> Result<(), String> {
        let (own, pid) = (nix::unistd::geteuid(), self.offer.pid);
        let router = getsockopt(&self.stream, PeerCredentials).map_err(|error| format!("SO_PEERCRED: {error}"))?.uid();
        if own.is_root() || own.as_raw() == router {
            return Ok(());
        }
        Err(format!(
            "take-over: process {pid} runs as user id {router} and this one as {own}; another account needs a restart, and {pid} goes on"
        ))
    }

    /// The settings, but for secrets, that are others than the router's, by their variables.
    pub fn changed(&self, settings: &BTreeMap<String, String>) -> Vec<String> {
        let theirs = &self.offer.settings;
        let known = settings.iter().filter(|(flag, value)| theirs.get(*flag) != Some(value)).map(|(flag, _)| flag);
        let gone = theirs.keys().filter(|flag| !settings.contains_key(*flag));
        known.chain(gone).map(|flag| shown(&format!("SFTPPROXY_{}", flag.to_uppercase().replace('-', "_")))).collect()
    }

    /// Tells the router that this process serves, and waits until it has left. `Err`: it was too late, and the router goes on. A router
    /// that has died meanwhile is no error: the sockets are here. Returns what is to be warned of.
    pub fn serves(self) -> Result<Option<String>, String> {
        if self.since.elapsed() > START {
            return Err(format!("the start took longer than {} s; process {} goes on", START.as_secs(), self.offer.pid));
        }
        let told = (&self.stream).write_all(SERVING.as_bytes()).and_then(|()| receive(&self.stream));
        Ok(told
            .err()
            .map(|error| format!("process {}, which has handed over, does not say that it has left: {error}", self.offer.pid)))
    }
}

/// A line with all descriptors that came beside it.
fn receive(stream: &UnixStream) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let (mut line, mut descriptors) = (Vec::new(), Vec::new());
    while line.last() != Some(&b'\n') {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = [0; 4096];
        let got = recvmsg(stream, &mut [IoSliceMut::new(&mut bytes)], &mut beside, RecvFlags::CMSG_CLOEXEC)?;
        for message in beside.drain() {
            if let RecvAncillaryMessage::ScmRights(passed) = message {
                descriptors.extend(passed);
            }
        }
        if got.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.extend_from_slice(&bytes[..got.bytes]);
        if got.flags.contains(ReturnFlags::CTRUNC) || line.len() as u64 > MAX_LINE || descriptors.len() > MAX_SOCKETS {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    Ok((line, descriptors))
}
