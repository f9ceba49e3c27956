//! The two streams of a session as they pass: [`requests`] from the client, judged and with other paths where that is so; [`replies`] from
//! the upstream, matched. Between them stands the ledger.
//!
//! Pure: buffers in, buffers out, and what there is to tell. The router answers by itself only to refuse, and the reply stream has one
//! author: an answer of [`requests`] is handed out, to be put between two packets of [`replies`].

use crate::ledger::{Event, File};
use crate::sftp::{Kind, OpenFlags};

mod changed;
pub mod replies;
pub mod requests;
pub mod view;

#[cfg(test)]
mod tests;

/// The newest version of the protocol that can be read here. Later ones have other fields in the same packets.
const NEWEST: u32 = 3;

/// What a stream tells.
#[derive(Debug)]
pub enum Heard<'a> {
    /// A request that names files goes to the upstream.
    Asked(&'a Operation<'a>),
    /// A packet that answers a request which does not go to the upstream. It is to be put into the reply stream, between two packets.
    Answer(Vec<u8>),
    /// Something has ended. Only with a ledger.
    Event(Event),
    /// A piece of a file's content passes. Only where it is asked for.
    Content(Content<'a>),
}

/// A piece of a WRITE's or DATA's content, as it stands in the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content<'a> {
    /// Of which file.
    pub file: File,
    /// Where in the file it begins, in bytes.
    pub offset: u64,
    /// The bytes.
    pub bytes: &'a [u8],
}

/// Content on its way: a packet whose head was seen and that passes now.
#[derive(Debug)]
struct Passing {
    file: File,
    /// Bytes of the packet before its content.
    before: usize,
    offset: u64,
    /// Bytes of content that are still to come.
    left: u64,
}

impl Passing {
    /// Takes the next bytes of the packet and tells what is content in them.
    fn tell(&mut self, bytes: &[u8], told: &mut dyn FnMut(Heard<'_>)) {
        let before = self.before.min(bytes.len());
        self.before -= before;
        let bytes = &bytes[before..];
        let bytes = &bytes[..bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX))];
        if !bytes.is_empty() {
            told(Heard::Content(Content { file: self.file, offset: self.offset, bytes }));
            self.offset = self.offset.saturating_add(bytes.len() as u64);
            self.left -= bytes.len() as u64;
        }
    }
}

/// A request that names files, as it goes to the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation<'a> {
    /// Its row in the table.
    pub kind: &'static Kind,
    /// Its first path, resolved; of SYMLINK the target.
    pub path: &'a [u8],
    /// Its second path, resolved: the new name, or the symbolic link.
    pub second: Option<&'a [u8]>,
    /// The flags of OPEN, as they go to the upstream.
    pub flags: Option<OpenFlags>,
    /// What follows the paths and flags, as it came and not checked: attributes, if the kind has them.
    pub rest: &'a [u8],
}

impl Operation<'_> {
    /// The operation's name, such as `open` or `posix-rename`.
    pub fn name(&self) -> &'static str {
        self.kind.short()
    }

    /// Whether the upstream's files can be different afterwards.
    pub fn changes(&self) -> bool {
        match self.flags {
            Some(flags) => flags.changes(),
            None => self.kind.effect.changes(),
        }
    }
}
