//! How the commands `sessions` and `top` talk to a running router: questions and answers as lines of JSON, over a Unix socket whose mode
//! says who may ([`socket`]), and, for ending sessions of other nodes, through the store.
//!
//! A question is one line of at most [`MAX_ASK`] bytes. Its answer is one line for each session and a last one: [`Line::Done`] or
//! [`Line::Error`]. More questions may follow on the same connection.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Fault, Side, Stage, shown};
use crate::live::Snapshot;
use crate::registry::Registry;
use crate::route::check_message;

pub mod hand_over;
pub mod older;
pub mod socket;

use hand_over::{Claim, Estate, Offer};

/// Longest question in bytes.
pub const MAX_ASK: usize = 4 * 1024;

/// Longest line of an answer in bytes: sixteen paths of 4,096 bytes, each byte escaped, fit.
const MAX_LINE: u64 = 1024 * 1024;

/// How long a command waits for a line.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whose sessions are meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Whom {
    /// The one of this number.
    Session(u64),
    /// A user's.
    User(String),
    /// Everybody's.
    All,
}

/// An end that an operator wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kick {
    /// Whose.
    pub whom: Whom,
    /// Why, for the log, the audit and the user; empty = unsaid.
    #[serde(default)]
    pub reason: String,
}

/// A question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    /// All sessions.
    List,
    /// One session.
    Show(u64),
    /// To end sessions.
    Kick(Kick),
    /// Who answers.
    Who,
    /// To be handed the listening sockets; answered by [`Estate`].
    TakeOver(Claim),
}

/// A line of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// A session; after a kick as it was.
    Session(Box<Snapshot>),
    /// The end of an answer.
    Done {
        /// The router's name.
        node: String,
        /// Its process; 0 = it does not say.
        #[serde(default)]
        pid: u32,
    },
    /// What is handed over; the sockets are beside it.
    Offer(Box<Offer>),
    /// Why there is no answer.
    Error(String),
}

/// What one node says to others through the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Which node is meant; `None` = all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The one that has done it already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub except: Option<String>,
    /// What to do.
    pub kick: Kick,
}

impl Kick {
    /// The fault with which the sessions end.
    fn fault(&self) -> Fault {
        let (what, told) = ("ended by the operator", "your session was ended by the administrator");
        let with = |text: &str| if self.reason.is_empty() { text.to_owned() } else { format!("{text}: {}", self.reason) };
        Fault::new(Side::Router, Stage::Relay, shown(&with(what))).told(with(told))
    }

    fn fits(&self, id: u64, user: Option<&str>) -> bool {
        match &self.whom {
            Whom::Session(wanted) => *wanted == id,
            Whom::User(wanted) => user == Some(wanted),
            Whom::All => true,
        }
    }
}

/// What answers: the sessions of this router.
pub struct Desk {
    /// The sessions.
    pub registry: Arc<Registry>,
    /// The router's name.
    node: Mutex<String>,
    /// What it has to hand over, once it serves.
    estate: OnceLock<Estate>,
}

impl Desk {
    /// Answers for these sessions under this name.
    pub fn new(registry: Arc<Registry>, node: &str) -> Arc<Self> {
        Arc::new(Self { registry, node: Mutex::new(node.to_owned()), estate: OnceLock::new() })
    }

    /// The router's name among those at one store.
    pub fn node(&self) -> String {
        self.node.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes another name, because the router that has taken over goes by this one.
    pub fn rename(&self, node: &str) {
        node.clone_into(&mut self.node.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// From now on there is something to hand over.
    pub fn bequeath(&self, estate: Estate) {
        let _ = self.estate.set(estate);
    }

    fn done(&self) -> Line {
        Line::Done { node: self.node(), pid: std::process::id() }
    }

    /// Gives the lines of an answer, one after the other; an error of `give` ends it.
    pub fn answer<E>(&self, ask: &Ask, mut give: impl FnMut(Line) -> Result<(), E>) -> Result<(), E> {
        match ask {
            Ask::List => {
                for live in self.registry.sessions() {
                    give(Line::Session(Box::new(live.snapshot())))?;
                }
            }
            Ask::Show(id) => match self.registry.find(*id) {
                Some(live) => give(Line::Session(Box::new(live.snapshot())))?,
                None => return give(Line::Error(format!("there is no session {id}"))),
            },
            Ask::Who => {}
            Ask::TakeOver(_) => return give(Line::Error("that is not asked here".into())),
            Ask::Kick(kick) => match self.kick(kick) {
                Ok(ended) => ended.into_iter().try_for_each(|snapshot| give(Line::Session(Box::new(snapshot))))?,
                Err(reason) => return give(Line::Error(reason)),
            },
        }
        give(self.done())
    }

    /// Ends the sessions that are meant and returns what they were.
    pub fn kick(&self, kick: &Kick) -> Result<Vec<Snapshot>, String> {
        check_message(&kick.reason)?;
        let mut ended = Vec::new();
        for live in self.registry.sessions() {
            if kick.fits(live.id(), live.who().map(|who| who.user.as_str())) {
                ended.push(live.snapshot());
                live.control().cut(kick.fault());
            }
        }
        Ok(ended)
    }

    /// Does what another node wants of this one, if it does.
    pub fn obey(&self, order: &Order) -> Result<usize, String> {
        let own = self.node();
        let meant = order.node.as_ref().is_none_or(|node| *node == own) && order.except.as_ref() != Some(&own);
        if meant { self.kick(&order.kick).map(|ended| ended.len()) } else { Ok(0) }
    }
}

/// A command's connection to the router of this machine.
pub struct Client {
    stream: BufReader<UnixStream>,
    place: PathBuf,
}

impl Client {
    /// Connects to the first of these places where a router answers. The error says why it is none of them, and what to do.
    pub fn connect(places: &[PathBuf]) -> Result<Self, String> {
        let mut faults = Vec::new();
        for place in places {
            match UnixStream::connect(place) {
                Ok(stream) => {
                    let limits = stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
                    limits.map_err(|error| format!("{}: {error}", place.display()))?;
                    return Ok(Self { stream: BufReader::new(stream), place: place.clone() });
                }
                Err(error) => faults.push(format!("{}: {error}", place.display())),
            }
        }
        Err(format!("no router of this machine answers ({}); see SFTPPROXY_CONTROL_SOCKET", faults.join("; ")))
    }

    /// Asks, and returns the sessions of the answer and the router's name.
    pub fn ask(&mut self, ask: &Ask) -> Result<(Vec<Snapshot>, String), String> {
        self.ask_all(ask).map(|(sessions, node, _)| (sessions, node))
    }

    /// The process that answers; 0 = it does not say.
    pub fn pid(&mut self) -> Result<u32, String> {
        self.ask_all(&Ask::Who).map(|(_, _, pid)| pid)
    }

    fn ask_all(&mut self, ask: &Ask) -> Result<(Vec<Snapshot>, String, u32), String> {
        let says = |what: &dyn std::fmt::Display| format!("{}: {what}", self.place.display());
        let question = crate::event::json::line(ask) + "\n";
        self.stream.get_mut().write_all(question.as_bytes()).map_err(|error| says(&error))?;
        let mut sessions = Vec::new();
        loop {
            let mut line = Vec::new();
            self.stream.by_ref().take(MAX_LINE).read_until(b'\n', &mut line).map_err(|error| says(&error))?;
            if line.is_empty() {
                return Err(says(&"the router has hung up"));
            }
            match serde_json::from_slice(&line).map_err(|error| says(&error))? {
                Line::Session(session) => sessions.push(*session),
                Line::Done { node, pid } => return Ok((sessions, node, pid)),
                Line::Error(reason) => return Err(shown(&reason)),
                Line::Offer(_) => return Err(says(&"the answer is to another question")),
            }
        }
    }
}
