//! SFTP with an upstream, one question at a time: what `doctor` wants to know, and what has to be known before a session goes on with
//! another connection ([`super::reopen`]). Otherwise sessions of users never come here, their bytes pass.
//!
//! Requests are made with the numbers of the table in [`crate::sftp`], answers are read by [`reply`]. An answer may be as long as
//! [`MAX_PACKET`], and each question has the time that is left of the whole.

use std::cell::Cell;
use std::time::Duration;

use super::{Channel, Shown, Upstream, Wait, Waiting};
use crate::error::shown_bytes;
use crate::leg::{Taken, Wants};
use crate::sftp::frame::{Head, LENGTH_FIELD, MAX_PACKET};
use crate::sftp::reply::{self, HANDLE, NAME, OK, STATUS, VERSION};
use crate::sftp::{INIT, KINDS, OpenFlags};
use crate::wire::{put_string, put_u32};

/// Version of SFTP that is spoken (draft-ietf-secsh-filexfer-02).
const SPOKEN: u32 = 3;

/// Room for what the library has at hand, in bytes.
const ROOM: usize = 16 * 1024;

/// Why there is no good answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct No {
    /// The code of the upstream's STATUS; `None` = it has not answered, or not in SFTP.
    pub code: Option<u32>,
    /// One line.
    pub text: String,
}

impl From<String> for No {
    fn from(text: String) -> Self {
        Self { code: None, text }
    }
}

/// What the upstream's server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// The version that it speaks.
    pub version: u32,
    /// Its extensions, fit to be shown.
    pub extensions: Vec<String>,
}

/// An SFTP session of our own.
pub struct Asking<'a> {
    channel: Box<dyn Channel>,
    shown: Shown,
    wait: Wait<'a>,
    /// What came and was not read yet.
    held: Vec<u8>,
    id: u32,
}

impl Upstream {
    /// Uses the channel for questions of our own; each may take as long as is left.
    pub fn ask(self, waiting: Waiting<'_>) -> Asking<'_> {
        let limit = waiting.deadline.saturating_duration_since(std::time::Instant::now());
        self.ask_within(waiting, limit)
    }

    /// The same, and each question may take so long.
    pub fn ask_within(self, waiting: Waiting<'_>, limit: Duration) -> Asking<'_> {
        let Self { channel, shown } = self;
        Asking { channel, shown, wait: Wait { waiting, limit }, held: Vec::new(), id: 0 }
    }
}

impl Asking<'_> {
    /// INIT: to be asked first.
    pub fn begin(&mut self) -> Result<Greeting, No> {
        let mut body = vec![INIT];
        put_u32(&mut body, SPOKEN);
        let answer = self.exchange(&framed(&body), 1)?.pop().unwrap_or_default();
        if answer.first() != Some(&VERSION) {
            return Err(unexpected(&answer).into());
        }
        let version = reply::Version::read(&answer).map_err(|error| error.to_string())?;
        let extensions = version.extensions.iter().map(|(name, _)| shown_bytes(name)).collect();
        Ok(Greeting { version: version.version, extensions })
    }

    /// REALPATH: what the upstream calls a path.
    pub fn real_path(&mut self, path: &[u8]) -> Result<Vec<u8>, No> {
        let answer = self.request("realpath", |body| put_string(body, path))?;
        expect(&answer, NAME)?;
        Ok(reply::Name::read(&answer).map_err(|error| error.to_string())?.name.to_vec())
    }

    /// OPENDIR and CLOSE: whether a directory can be listed.
    pub fn look_into(&mut self, path: &[u8]) -> Result<(), No> {
        let handle = self.handle("opendir", |body| put_string(body, path))?;
        self.done("close", |body| put_string(body, &handle))
    }

    /// OPEN, WRITE and CLOSE of a file that must not be there yet. When that fails half-way, nothing is left of it.
    pub fn make_file(&mut self, path: &[u8], content: &[u8]) -> Result<(), No> {
        let handle = self.handle("open", |body| {
            put_string(body, path);
            put_u32(body, OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::EXCLUSIVE);
            // No attributes.
            put_u32(body, 0);
        })?;
        let written = self.done("write", |body| {
            put_string(body, &handle);
            body.extend(0_u64.to_be_bytes());
            put_string(body, content);
        });
        let whole = self.done("close", |body| put_string(body, &handle)).and(written);
        if whole.is_err() {
            // A full disk leaves an empty file, which is ours to take away.
            let _ = self.remove(path);
        }
        whole
    }

    /// REMOVE.
    pub fn remove(&mut self, path: &[u8]) -> Result<(), No> {
        self.done("remove", |body| put_string(body, path))
    }

    /// No more questions. What has come unasked is a fault.
    pub fn end(self) -> Result<Upstream, No> {
        let Self { channel, shown, held, .. } = self;
        if held.is_empty() {
            Ok(Upstream { channel, shown })
        } else {
            Err("the upstream answers what nobody has asked".to_owned().into())
        }
    }

    pub(super) fn handle(&mut self, name: &str, fields: impl FnOnce(&mut Vec<u8>)) -> Result<Vec<u8>, No> {
        let answer = self.request(name, fields)?;
        expect(&answer, HANDLE)?;
        Ok(reply::handle(&answer).map_err(|error| error.to_string())?.to_vec())
    }

    pub(super) fn done(&mut self, name: &str, fields: impl FnOnce(&mut Vec<u8>)) -> Result<(), No> {
        let answer = self.request(name, fields)?;
        match answer.first() {
            Some(&STATUS) => refusal(&answer).map_or(Ok(()), Err),
            _ => Err(unexpected(&answer).into()),
        }
    }

    /// Sends a request by its name in the table and returns the answer, without its length field, that has its id.
    pub(super) fn request(&mut self, name: &str, fields: impl FnOnce(&mut Vec<u8>)) -> Result<Vec<u8>, No> {
        let (packet, id) = self.packet(name, fields)?;
        let answer = self.exchange(&packet, 1)?.pop().unwrap_or_default();
        if answer.get(1..5) != Some(&id.to_be_bytes()) {
            return Err(format!("the upstream answers another question than {name}").into());
        }
        Ok(answer)
    }

    /// A request by its name in the table, length field and all, and its id, which is one more than the last.
    pub(super) fn packet(&mut self, name: &str, fields: impl FnOnce(&mut Vec<u8>)) -> Result<(Vec<u8>, u32), No> {
        let kind =
            KINDS.iter().find(|kind| kind.name == name).ok_or_else(|| format!("{name} is not in the table of requests"))?;
        self.id += 1;
        let mut body = vec![kind.number];
        put_u32(&mut body, self.id);
        fields(&mut body);
        Ok((framed(&body), self.id))
    }

    /// Sends packets and returns so many answers, without their length fields, as they come.
    pub(super) fn exchange(&mut self, packets: &[u8], count: usize) -> Result<Vec<Vec<u8>>, String> {
        let Self { channel, wait, held, .. } = self;
        let put = Cell::new(0);
        let mut answers = Vec::with_capacity(count);
        let step = |channel: &mut Box<dyn Channel>| {
            // Whoever asks here has slept on the socket, or has not asked it yet.
            channel.advance(true)?;
            // Until nothing is left: what a library holds, poll(2) does not show.
            loop {
                let before = put.get();
                while put.get() < packets.len() {
                    match channel.put(&packets[put.get()..])? {
                        0 => break,
                        count => put.set(put.get() + count),
                    }
                }
                while answers.len() < count
                    && let Some(answer) = whole(held)?
                {
                    answers.push(answer);
                }
                if answers.len() == count {
                    return Ok(Some(std::mem::take(&mut answers)));
                }
                held.reserve(ROOM);
                match channel.take(held)? {
                    Taken::Nothing if put.get() == before => return Ok(None),
                    Taken::Bytes(_) | Taken::Nothing => {}
                    Taken::Eof => return Err("the upstream has closed its sftp".to_owned()),
                }
            }
        };
        wait.until(channel, step, |channel| {
            let wants = Wants { take: true, put: put.get() < packets.len() };
            (channel.fd(), channel.interest(wants))
        })
    }
}

fn framed(body: &[u8]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(LENGTH_FIELD + body.len());
    put_string(&mut packet, body);
    packet
}

/// Takes the first packet out of `held`, without its length field; `None` = it is not whole yet.
fn whole(held: &mut Vec<u8>) -> Result<Option<Vec<u8>>, String> {
    let Some(head) = Head::read(held) else { return Ok(None) };
    if head.length == 0 || head.length > MAX_PACKET {
        return Err(format!("the upstream does not speak sftp: a packet of {} bytes", head.length));
    }
    if held.len() < head.total() {
        return Ok(None);
    }
    Ok(Some(held.drain(..head.total()).skip(LENGTH_FIELD).collect()))
}

/// The answer has this type, or says why not.
pub(super) fn expect(answer: &[u8], kind: u8) -> Result<(), No> {
    match answer.first() {
        Some(&first) if first == kind => Ok(()),
        Some(&STATUS) => Err(refusal(answer).unwrap_or_else(|| unexpected(answer).into())),
        _ => Err(unexpected(answer).into()),
    }
}

/// Why a STATUS is no OK.
fn refusal(answer: &[u8]) -> Option<No> {
    match reply::status(answer) {
        Ok(status) if status.code == OK => None,
        Ok(status) => {
            Some(No { code: Some(status.code), text: format!("{} (code {})", shown_bytes(status.message), status.code) })
        }
        Err(error) => Some(error.to_string().into()),
    }
}

fn unexpected(answer: &[u8]) -> String {
    format!("the upstream does not speak sftp: an answer of type {}", answer.first().copied().unwrap_or_default())
}
