//! The request stream of one session, from the client's bytes to those for the upstream: relative paths are resolved against the
//! user's start directory, everything else passes byte for byte, and each file operation is told.
//!
//! Pure. Not a policy and not a log: the caller gets the [`Operation`]s. Requests that carry no path cost a look at five bytes;
//! types and extensions that are not in the table pass unseen, since only the upstream can know what they are.

use std::fmt;
use std::ops::Range;

use super::frame::{Cut, Head, LENGTH_FIELD, MAX_PACKET};
use super::{EXTENDED, Effect, INIT, Kind, MAX_EXTENSION_NAME, Meaning, OpenFlags, Then, extension, kind};
use crate::path;
use crate::wire::{Reader, WireError, put_string, put_u32};

/// Why a client's bytes are no stream of requests. The session ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestError {
    /// A packet of length 0, which cannot have a type.
    Empty,
    /// The first packet has this type instead of INIT.
    NotInit(u8),
    /// A request with paths is, or with resolved paths would be, this many bytes long.
    TooLong(&'static str, usize),
    /// A request's fields are not what its type says.
    Fields(&'static str, WireError),
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("sftp packet of length 0"),
            Self::NotInit(number) => write!(f, "the first sftp packet is of type {number}, expected INIT"),
            Self::TooLong(name, length) => write!(f, "sftp {name} request of {length} bytes, at most {MAX_PACKET} are allowed"),
            Self::Fields(name, error) => write!(f, "sftp {name} request: {error}"),
        }
    }
}

impl std::error::Error for RequestError {}

/// A request that names files, as it goes to the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation<'a> {
    /// Its row in the table.
    pub kind: &'static Kind,
    /// Its first path, resolved; of SYMLINK the target, as it came.
    pub path: &'a [u8],
    /// Its second path, resolved: the new name, or the symbolic link.
    pub second: Option<&'a [u8]>,
    /// The flags of OPEN.
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
        match self.kind.effect {
            Effect::Change | Effect::Write => true,
            Effect::ByFlags => self.flags.is_none_or(OpenFlags::changes),
            Effect::Session | Effect::Look | Effect::List | Effect::Read => false,
        }
    }
}

/// The request stream of one session. Memory: besides the caller's buffer at most one packet of [`MAX_PACKET`] bytes is held back, and
/// while a buffer is rewritten it grows by `home` for each path in it (a request with a path has 14 bytes or more).
#[derive(Debug)]
pub struct Requests {
    home: Option<String>,
    begun: bool,
    cut: Cut,
}

/// What is to be done with the packet at the head of a buffer.
enum Next {
    /// It cannot be known yet.
    Wait,
    /// Let this many bytes pass.
    Pass(usize),
    /// Look at it: all of its bytes are there.
    Whole(&'static Kind, usize),
}

impl Requests {
    /// A stream that has not begun. Without `home` no byte is changed.
    pub fn new(home: Option<&str>) -> Self {
        Self { home: home.map(str::to_owned), begun: false, cut: Cut::default() }
    }

    /// Takes the next bytes received in `buffer` and leaves there the bytes to forward. A packet whose path is not complete is held
    /// back. `seen` is called for each file operation, in order. On an error `buffer` has what stands before the bad packet.
    pub fn pass(&mut self, buffer: &mut Vec<u8>, seen: &mut dyn FnMut(&Operation<'_>)) -> Result<(), RequestError> {
        self.cut.join(buffer);
        let mut changed = Changed::default();
        let mut at = 0;
        let result = loop {
            at += self.cut.skip(buffer.len() - at);
            match self.next(&buffer[at..]) {
                Err(error) => break Err(error),
                Ok(Next::Wait) => break Ok(()),
                Ok(Next::Pass(total)) => self.cut.pass(total),
                Ok(Next::Whole(kind, total)) => {
                    let packet = Packet::read(kind, &buffer[at + LENGTH_FIELD..at + total]);
                    match packet.and_then(|packet| packet.told(self.home.as_deref(), seen)) {
                        Err(error) => break Err(error),
                        Ok(None) => {}
                        Ok(Some(new)) => changed.replace(buffer, at..at + total, &new),
                    }
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

    fn next(&mut self, bytes: &[u8]) -> Result<Next, RequestError> {
        let Some(head) = Head::read(bytes) else { return Ok(Next::Wait) };
        if head.length == 0 {
            return Err(RequestError::Empty);
        }
        if !self.begun && head.kind != INIT {
            return Err(RequestError::NotInit(head.kind));
        }
        self.begun = true;
        let kind = match head.kind {
            EXTENDED => match named(head, bytes)? {
                Named::Unknown => None,
                Named::Wait => return Ok(Next::Wait),
                Named::Known(kind) => Some(kind),
            },
            number => kind(number),
        };
        match kind {
            Some(kind) if !kind.paths.is_empty() => match head.length {
                length if length > MAX_PACKET => Err(RequestError::TooLong(kind.short(), length)),
                _ if bytes.len() < head.total() => Ok(Next::Wait),
                _ => Ok(Next::Whole(kind, head.total())),
            },
            _ => Ok(Next::Pass(head.total())),
        }
    }
}

/// Which extension it is.
enum Named {
    Wait,
    Unknown,
    Known(&'static Kind),
}

/// Reads the name of the extension whose packet begins in `bytes`.
fn named(head: Head, bytes: &[u8]) -> Result<Named, RequestError> {
    const TYPE_AND_ID: usize = 5;
    let missing = |field| RequestError::Fields("extended", WireError::Missing(field));
    let room = head.length.checked_sub(TYPE_AND_ID + 4).ok_or(missing("id"))?;
    let mut reader = Reader::new(bytes);
    let before = reader.take(LENGTH_FIELD + TYPE_AND_ID, "id");
    let Ok(length) = before.and_then(|_| reader.u32("extended-request")) else { return Ok(Named::Wait) };
    match length as usize {
        length if length > room => Err(missing("extended-request")),
        length if length > MAX_EXTENSION_NAME => Ok(Named::Unknown),
        length => Ok(match reader.take(length, "extended-request") {
            Ok(name) => extension(name).map_or(Named::Unknown, Named::Known),
            Err(_) => Named::Wait,
        }),
    }
}

/// A request with paths, read whole.
struct Packet<'a> {
    kind: &'static Kind,
    /// Type and id; of an extension also its name.
    head: &'a [u8],
    path: &'a [u8],
    second: Option<&'a [u8]>,
    flags: Option<OpenFlags>,
    /// Everything after the paths.
    tail: &'a [u8],
    /// Everything after the flags, or the same.
    rest: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Reads a packet without its length field. `kind` has one path or two.
    fn read(kind: &'static Kind, bytes: &'a [u8]) -> Result<Self, RequestError> {
        Self::fields(kind, bytes).map_err(|error| RequestError::Fields(kind.short(), error))
    }

    fn fields(kind: &'static Kind, bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        reader.byte("type")?;
        reader.u32("id")?;
        if kind.number == EXTENDED {
            reader.string("extended-request")?;
        }
        let head = &bytes[..bytes.len() - reader.rest().len()];
        let path = reader.string(kind.paths[0].name)?;
        let second = kind.paths.get(1).map(|field| reader.string(field.name)).transpose()?;
        let tail = reader.rest();
        let flags = if kind.then == Then::Flags { Some(OpenFlags(reader.u32("pflags")?)) } else { None };
        Ok(Self { kind, head, path, second, flags, tail, rest: reader.rest() })
    }

    /// Tells the operation; returns the packet to be put in place of this one, if a path has changed.
    fn told(&self, home: Option<&str>, seen: &mut dyn FnMut(&Operation<'_>)) -> Result<Option<Vec<u8>>, RequestError> {
        let resolved = |index: usize, path| home.and_then(|home| resolve(self.kind.paths[index].meaning, home, path));
        let first = resolved(0, self.path);
        let second = self.second.and_then(|path| resolved(1, path));
        let operation = Operation {
            kind: self.kind,
            path: first.as_deref().unwrap_or(self.path),
            second: second.as_deref().or(self.second),
            flags: self.flags,
            rest: self.rest,
        };
        let new = if first.is_some() || second.is_some() { Some(self.rewritten(&operation)?) } else { None };
        seen(&operation);
        Ok(new)
    }

    fn rewritten(&self, operation: &Operation<'_>) -> Result<Vec<u8>, RequestError> {
        let paths = [Some(operation.path), operation.second];
        let fields = paths.iter().flatten().map(|path| 4 + path.len()).sum::<usize>();
        let length = self.head.len() + fields + self.tail.len();
        // OpenSSH's server ends the session without a word when a packet is longer.
        let field = u32::try_from(length).ok().filter(|_| length <= MAX_PACKET);
        let field = field.ok_or(RequestError::TooLong(self.kind.short(), length))?;
        let mut out = Vec::with_capacity(LENGTH_FIELD + length);
        put_u32(&mut out, field);
        out.extend_from_slice(self.head);
        paths.iter().flatten().for_each(|path| put_string(&mut out, path));
        out.extend_from_slice(self.tail);
        Ok(out)
    }
}

fn resolve(meaning: Meaning, home: &str, path: &[u8]) -> Option<Vec<u8>> {
    match meaning {
        Meaning::Target => None,
        Meaning::Expand if path.starts_with(b"~") => match &path[1..] {
            [] => path::resolve_start(home, b""),
            [b'/', rest @ ..] => path::resolve_start(home, without_slashes(rest)),
            _ => None,
        },
        Meaning::Start | Meaning::Expand => path::resolve_start(home, path),
        Meaning::File => path::resolve(home, path),
    }
}

/// `~//x` is `~/x`, and not the absolute path `/x`.
fn without_slashes(path: &[u8]) -> &[u8] {
    &path[path.iter().take_while(|&&byte| byte == b'/').count()..]
}

/// The bytes to forward as far as they differ from those received; nothing is copied before the first difference.
#[derive(Default)]
struct Changed {
    out: Vec<u8>,
    copied: usize,
}

impl Changed {
    /// Puts `new` in place of `range` of `buffer`. Ranges come in order.
    fn replace(&mut self, buffer: &[u8], range: Range<usize>, new: &[u8]) {
        if self.copied == 0 {
            self.out.reserve(buffer.len() + new.len());
        }
        self.out.extend_from_slice(&buffer[self.copied..range.start]);
        self.out.extend_from_slice(new);
        self.copied = range.end;
    }

    /// Makes `buffer` what is to be forwarded.
    fn finish(mut self, buffer: &mut Vec<u8>) {
        if self.copied > 0 {
            self.out.extend_from_slice(&buffer[self.copied..]);
            *buffer = self.out;
        }
    }
}

#[cfg(test)]
mod tests;
