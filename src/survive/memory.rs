//! What is remembered of an SFTP session so that another connection can take its upstream's place: requests that are not answered, and
//! what every open handle stands for.
//!
//! Pure. The client's handles are ours from the beginning, so a file that is opened again keeps its own. What is not known here (types,
//! extensions, handles) is refused and not sent, since nobody could say what to do with it when the upstream is lost.

use std::collections::BTreeMap;

use super::doubt::{note, overtakes};
use super::fate::{Fate, fate, is_open};
use super::file::{Listed, Open};
use super::handles::{HANDLE_BYTES, number_of, translate};
use super::journal::{Entry, Journal, read_again};
use crate::ledger::MAX_OPEN;
use crate::sftp::attributes::Identity;
use crate::sftp::frame::{Head, LENGTH_FIELD};
use crate::sftp::reply::{self, ATTRS, DATA, EOF, FAILURE, HANDLE, OK, OP_UNSUPPORTED, STATUS, VERSION, Version, put_status};
use crate::sftp::request::Request;
use crate::sftp::{EXTENDED, Effect, INIT, Kind, Then, extension, kind};
use crate::wire::{Reader, put_string, put_u32};

/// Longest packet that is taken, in either direction: far beyond what OpenSSH sends or takes.
pub const MAX_PACKET: usize = 1024 * 1024;

/// Bytes that are made ready to be sent at a time, about.
const BATCH: usize = 64 * 1024;

/// What is said to who goes on listing a directory that was listed to its end.
const LISTED: &str = "the upstream was lost; open the directory again to list it";

const CLOSE: u8 = 4;
const FSTAT: u8 = 8;

/// What is remembered.
#[derive(Debug, Default)]
pub struct Memory {
    /// INIT as it came, once it has.
    init: Option<Vec<u8>>,
    init_sent: bool,
    /// VERSION as it came, once it has, and after a loss what the next one must be.
    version: Option<Vec<u8>>,
    journal: Journal,
    files: BTreeMap<u64, Open>,
    /// The handle that was given last.
    last: u64,
    /// OPEN and OPENDIR that are not answered.
    opening: usize,
}

/// What has become of what was not answered.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// Requests that are sent again.
    pub again: usize,
    /// Requests of which nobody knows whether they were done.
    pub unknown: usize,
    /// Requests for files that are lost.
    pub lost: usize,
}

impl Memory {
    /// Whether no request is taken until others are answered.
    pub fn is_full(&self) -> bool {
        self.journal.is_full()
    }

    /// Requests that are not answered.
    pub fn unanswered(&self) -> usize {
        self.journal.unanswered()
    }

    /// Whether there is something to be sent.
    pub fn has_unsent(&self) -> bool {
        self.init.is_some() && !self.init_sent || self.journal.has_unsent()
    }

    /// Takes a whole packet of the client, its length field included. What is refused is answered in `out`.
    pub fn ask(&mut self, packet: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        let body = &packet[LENGTH_FIELD..];
        let Some(init) = &self.init else {
            return match body.first() {
                Some(&INIT) => {
                    self.init = Some(packet.to_vec());
                    Ok(())
                }
                _ => Err("the client does not speak sftp, and its session shall survive its upstream".into()),
            };
        };
        debug_assert!(!init.is_empty());
        let mut reader = Reader::new(body);
        let number = reader.byte("type").and_then(|number| Ok((number, reader.u32("id")?)));
        let (number, id) = number.map_err(|error| format!("sftp request: {error}"))?;
        let row = if number == EXTENDED { reader.string("name").ok().and_then(extension) } else { kind(number) };
        let Some(row) = row.filter(|row| row.number != INIT) else {
            put_status(out, id, OP_UNSUPPORTED, "Operation unsupported");
            return Ok(());
        };
        let request = Request::read(row, body).map_err(|error| format!("sftp request {}: {error}", row.short()))?;
        if row.then == Then::Content && request.rest.len() as u64 != request.length {
            return Err("sftp request write: its content has another length than it says".into());
        }
        let mut files = [None; 2];
        for (place, handle) in [request.handle, request.source].into_iter().enumerate() {
            let Some(handle) = handle else { continue };
            match self.file_of(handle, row) {
                Ok(file) => files[place] = Some(file),
                Err(text) => {
                    put_status(out, id, FAILURE, &text);
                    self.forget_if_closed(row, handle);
                    return Ok(());
                }
            }
        }
        if is_open(row) {
            if self.files.len() + self.opening >= MAX_OPEN {
                put_status(out, id, FAILURE, "too many open handles");
                return Ok(());
            }
            self.opening += 1;
        }
        if row.number == CLOSE
            && let Some(open) = files[0].and_then(|file| self.files.get_mut(&file))
        {
            open.closing = true;
        }
        self.journal.push(Entry { kind: row, asked: Some(id), files, packet: packet.to_vec(), sent: false });
        Ok(())
    }

    /// The open file of a handle that the client has sent, or what to answer.
    fn file_of(&self, handle: &[u8], row: &Kind) -> Result<u64, String> {
        let open = number_of(handle).and_then(|file| Some((file, self.files.get(&file)?)));
        match open {
            Some((_, Open { lost: Some(lost), .. })) => Err(lost.clone()),
            Some((_, open)) if open.is_over() && row.effect == Effect::List => Err(LISTED.into()),
            Some((file, open)) if !open.closing => Ok(file),
            _ => Err("Failure".into()),
        }
    }

    /// A CLOSE of a file that is lost is the last that is heard of it.
    fn forget_if_closed(&mut self, row: &Kind, handle: &[u8]) {
        if row.number == CLOSE
            && let Some(file) = number_of(handle).filter(|file| self.files.get(file).is_some_and(|open| open.lost.is_some()))
        {
            self.files.remove(&file);
        }
    }

    /// Appends what is to be sent next to `out`, some [`BATCH`] bytes of whole packets, and says where which request begins.
    pub fn send(&mut self, out: &mut Vec<u8>, begins: &mut Vec<(u32, usize)>) {
        if let Some(init) = self.init.as_ref().filter(|_| !self.init_sent) {
            out.extend_from_slice(init);
            self.init_sent = true;
        }
        while out.len() < BATCH
            && let Some((number, entry)) = self.journal.send()
        {
            begins.push((number, out.len()));
            note(&mut self.files, entry);
            translate(out, number, entry, &self.files);
        }
    }

    /// Takes a whole packet of the upstream, its length field included, and appends what the client is given to `out`. Returns whether
    /// a request of the client was answered.
    pub fn answer(&mut self, packet: &[u8], out: &mut Vec<u8>) -> Result<bool, String> {
        let body = &packet[LENGTH_FIELD..];
        if self.version.is_none() {
            self.greeted(packet, out)?;
            return Ok(true);
        }
        let mut reader = Reader::new(body);
        let head = reader.byte("type").and_then(|kind| Ok((kind, reader.u32("id")?)));
        let (kind, number) = head.map_err(|error| format!("sftp reply: {error}"))?;
        let Some((entry, before)) = self.journal.answer(number) else {
            return Err(format!("sftp reply with the id {number}, which nobody has asked for"));
        };
        let doubt = overtakes(&entry, before);
        let fault = |error| format!("sftp reply of type {kind}: {error}");
        let code = if kind == STATUS { Some(reply::status(body).map_err(fault)?.code) } else { None };
        let open = entry.files[0].and_then(|file| self.files.get_mut(&file));
        if let Some(open) = open {
            if let Some(doubt) = doubt {
                open.doubted(doubt);
            }
            match entry.kind.then {
                _ if entry.asked.is_none() => {
                    let read = || Identity::read(&mut Reader::new(&body[5..])).ok();
                    open.begun = if kind == ATTRS { read() } else { None };
                    if open.begun.is_none() {
                        open.doubted("what it was when it was opened was not told");
                    }
                    return Ok(false);
                }
                Then::Range if kind == DATA => {
                    let request = read_again(&entry);
                    let data = reader.string("data").map_err(fault)?;
                    open.known.read(request.offset, data).unwrap_or_else(|doubt| open.doubted(doubt));
                }
                Then::Content if code == Some(OK) => {
                    let request = read_again(&entry);
                    open.known.written(request.offset, request.rest).unwrap_or_else(|doubt| open.doubted(doubt));
                }
                Then::Content => open.doubted("a write to it has failed"),
                Then::Handle if entry.kind.effect == Effect::List && code == Some(EOF) => open.listed = Some(Listed::Whole),
                _ => {}
            }
        }
        if entry.kind.number == CLOSE
            && let Some(file) = entry.files[0]
        {
            self.files.remove(&file);
        }
        if is_open(entry.kind) {
            self.opening -= 1;
            if kind == HANDLE {
                let handle = reply::handle(body).map_err(fault)?.to_vec();
                self.opened(&entry, &handle, out);
                return Ok(true);
            }
        }
        let Some(asked) = entry.asked else { return Ok(false) };
        let start = out.len();
        out.extend_from_slice(packet);
        out[start + LENGTH_FIELD + 1..start + LENGTH_FIELD + 5].copy_from_slice(&asked.to_be_bytes());
        Ok(true)
    }

    /// Takes the VERSION of the first connection: passes it on with the extensions that are known here.
    fn greeted(&mut self, packet: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        let fault = |error| format!("sftp reply VERSION: {error}");
        if packet.get(LENGTH_FIELD) != Some(&VERSION) {
            return Err("the upstream does not speak sftp: its first packet is no VERSION".into());
        }
        let mut version = Version::read(&packet[LENGTH_FIELD..]).map_err(fault)?;
        version.extensions.retain(|(name, _)| extension(name).is_some());
        out.extend(version.written());
        self.version = Some(packet.to_vec());
        Ok(())
    }

    /// A handle has come into being: the client gets one of ours, and the upstream is asked what the file is.
    fn opened(&mut self, entry: &Entry, handle: &[u8], out: &mut Vec<u8>) {
        let request = read_again(entry);
        self.last += 1;
        let ours = self.last.to_be_bytes();
        let is_directory = entry.kind.effect == Effect::List;
        let open = Open::new(request.path.unwrap_or_default(), request.flags.unwrap_or_default(), is_directory, handle);
        self.files.insert(self.last, open);
        let mut body = vec![HANDLE];
        put_u32(&mut body, request.id);
        put_string(&mut body, &ours);
        put_string(out, &body);
        if !is_directory {
            let mut packet = Vec::new();
            put_string(&mut packet, &[&[FSTAT, 0, 0, 0, 0, 0, 0, 0, HANDLE_BYTES as u8][..], &ours].concat());
            let row = kind(FSTAT).expect("FSTAT is in the table");
            self.journal.push(Entry { kind: row, asked: None, files: [Some(self.last), None], packet, sent: false });
        }
    }

    /// INIT as it came, when it has come.
    pub fn init(&self) -> Option<&[u8]> {
        self.init.as_deref()
    }

    /// Takes the VERSION of another connection; an error is one that differs from the first.
    pub fn greeted_again(&mut self, packet: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        self.init_sent = true;
        match &self.version {
            None => self.greeted(packet, out),
            Some(version) if version == packet => Ok(()),
            Some(_) => Err("its sftp has another version or other extensions than before".into()),
        }
    }

    /// The upstream is lost and cannot have had these requests, which were made ready to be sent.
    pub fn unsent(&mut self, numbers: impl Iterator<Item = u32>) {
        numbers.for_each(|number| self.journal.unsend(number));
    }

    /// The open files that are not lost.
    pub fn open_files(&self) -> Vec<u64> {
        self.files.iter().filter(|(_, open)| open.lost.is_none()).map(|(file, _)| *file).collect()
    }

    /// An open file.
    pub fn file(&mut self, file: u64) -> Option<&mut Open> {
        self.files.get_mut(&file)
    }

    /// Begins with another connection, on which every file was opened that is not lost: sends again what can be, and answers the rest in
    /// `out`.
    pub fn again(&mut self, out: &mut Vec<u8>) -> Settled {
        let Self { journal, files, opening, .. } = self;
        let mut settled = Settled::default();
        let mut closed = Vec::new();
        journal.again(|entry, overtaken| {
            // A question of ours is asked anew when a file is opened again.
            let Some(asked) = entry.asked else { return false };
            let mut lost = entry.files.iter().flatten().filter_map(|file| match files.get(file) {
                Some(open) if open.is_over() && entry.kind.effect == Effect::List => Some(LISTED),
                Some(open) => open.lost.as_deref(),
                None => Some("the upstream was lost, and the file is closed"),
            });
            if let Some(text) = lost.next() {
                settled.lost += 1;
                put_status(out, asked, FAILURE, text);
                closed.extend(entry.files[0].filter(|_| entry.kind.number == CLOSE));
                return false;
            }
            if entry.sent && fate(&read_again(entry), overtaken) == Fate::Unknown {
                settled.unknown += 1;
                *opening -= usize::from(is_open(entry.kind));
                put_status(out, asked, FAILURE, "the upstream was lost; it is not known whether this was done");
                return false;
            }
            settled.again += usize::from(entry.sent);
            true
        });
        closed.iter().for_each(|file| drop(files.remove(file)));
        settled
    }
}

/// The length of the whole packet at the beginning of `bytes`; `None` = it is not whole yet. An error is one that is too long.
pub fn whole(bytes: &[u8]) -> Result<Option<usize>, String> {
    let Some(head) = Head::read(bytes) else { return Ok(None) };
    if head.length == 0 || head.length > MAX_PACKET {
        return Err(format!("sftp packet of length {}, from 1 to {MAX_PACKET} are allowed", head.length));
    }
    Ok(Some(head.total()).filter(|total| *total <= bytes.len()))
}

#[cfg(test)]
mod tests;
