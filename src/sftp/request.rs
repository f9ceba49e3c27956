//! One request: its fields as they stand in the packet, and a packet with other paths or flags in place of those that came.
//!
//! Pure, and no judge: a request that is read well may still be one that the upstream refuses. Nothing is copied by reading.

use super::attributes::Attributes;
use super::frame::{Head, LENGTH_FIELD, MAX_PACKET};
use super::{EXTENDED, INIT, Kind, MAX_EXTENSION_NAME, OpenFlags, Then, extension};
use crate::wire::{Reader, WireError, put_string, put_u32};

/// Longest handle in bytes: draft section 6.3.
pub const MAX_HANDLE: usize = 256;

/// Bytes of a WRITE before its content, at most: length, type, id, handle, offset, length of the content.
pub const MAX_CONTENT_HEAD: usize = LENGTH_FIELD + 1 + 4 + 4 + MAX_HANDLE + 8 + 4;

/// A request. Fields that its kind does not have are `None`, empty or 0.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Its row in the table.
    pub kind: &'static Kind,
    /// The client's number for it; of INIT the version.
    pub id: u32,
    /// Its first path.
    pub path: Option<&'a [u8]>,
    /// Its second path.
    pub second: Option<&'a [u8]>,
    /// The flags of OPEN.
    pub flags: Option<OpenFlags>,
    /// The handle; of copy-data the one that is written to.
    pub handle: Option<&'a [u8]>,
    /// Of copy-data the handle that is read from.
    pub source: Option<&'a [u8]>,
    /// The offset in bytes of READ and WRITE; of copy-data that at which is written.
    pub offset: u64,
    /// The bytes that READ wants, WRITE brings, copy-data copies (0 there = all).
    pub length: u64,
    /// What follows all of these, as it came: attributes, if the kind has them.
    pub rest: &'a [u8],
    /// Type and id; of an extension also its name.
    head: &'a [u8],
    /// Everything after the paths.
    tail: &'a [u8],
}

impl<'a> Request<'a> {
    /// Reads a packet without its length field. Of WRITE the content may be missing.
    pub fn read(kind: &'static Kind, bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        reader.byte("type")?;
        let id = reader.u32(if kind.number == INIT { "version" } else { "id" })?;
        if kind.number == EXTENDED {
            reader.string("extended-request")?;
        }
        let head = &bytes[..bytes.len() - reader.rest().len()];
        let mut path = |index: usize| kind.paths.get(index).map(|field| reader.string(field.name)).transpose();
        let (first, second) = (path(0)?, path(1)?);
        let mut request = Self {
            kind,
            id,
            path: first,
            second,
            flags: None,
            handle: None,
            source: None,
            offset: 0,
            length: 0,
            rest: reader.rest(),
            head,
            tail: reader.rest(),
        };
        request.read_then(&mut reader)?;
        request.rest = reader.rest();
        Ok(request)
    }

    fn read_then(&mut self, reader: &mut Reader<'a>) -> Result<(), WireError> {
        match self.kind.then {
            Then::Other | Then::Attributes => {}
            Then::Flags => self.flags = Some(OpenFlags(reader.u32("pflags")?)),
            Then::Handle | Then::HandleAttributes => self.handle = Some(handle(reader)?),
            Then::Range | Then::Content => {
                self.handle = Some(handle(reader)?);
                self.offset = reader.u64("offset")?;
                self.length = u64::from(reader.u32("length")?);
            }
            Then::Copy => {
                self.source = Some(handle(reader)?);
                reader.u64("read-from-offset")?;
                self.length = reader.u64("read-data-length")?;
                self.handle = Some(handle(reader)?);
                self.offset = reader.u64("write-to-offset")?;
            }
        }
        Ok(())
    }

    /// Its attributes; none are there for a kind that has none.
    pub fn attributes(&self) -> Result<Attributes, WireError> {
        match self.kind.then {
            Then::Attributes | Then::Flags | Then::HandleAttributes => Attributes::read(&mut Reader::new(self.rest)),
            Then::Other | Then::Handle | Then::Range | Then::Content | Then::Copy => Ok(Attributes::default()),
        }
    }

    /// The packet with other paths and flags, length field and all. The error is its length without that field, beyond
    /// [`MAX_PACKET`]: OpenSSH's server ends the session without a word when a packet is longer.
    pub fn rewritten(&self, path: &[u8], second: Option<&[u8]>, flags: Option<OpenFlags>) -> Result<Vec<u8>, usize> {
        let paths = [Some(path), second];
        let fields = paths.iter().flatten().map(|path| 4 + path.len()).sum::<usize>();
        let length = self.head.len() + fields + self.tail.len();
        let field = u32::try_from(length).ok().filter(|_| length <= MAX_PACKET).ok_or(length)?;
        let mut out = Vec::with_capacity(LENGTH_FIELD + length);
        put_u32(&mut out, field);
        out.extend_from_slice(self.head);
        paths.iter().flatten().for_each(|path| put_string(&mut out, path));
        match flags {
            Some(flags) => {
                put_u32(&mut out, flags.0);
                out.extend_from_slice(self.rest);
            }
            None => out.extend_from_slice(self.tail),
        }
        Ok(out)
    }
}

fn handle<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], WireError> {
    let handle = reader.string("handle")?;
    if handle.len() > MAX_HANDLE { Err(WireError::Invalid("handle")) } else { Ok(handle) }
}

/// Which extension it is.
pub enum Named {
    /// Its name is not complete.
    Wait,
    /// None of the table.
    Unknown,
    /// This one.
    Known(&'static Kind),
}

/// Reads the name of the extension whose packet begins in `bytes`.
pub fn named(head: Head, bytes: &[u8]) -> Result<Named, WireError> {
    const TYPE_AND_ID: usize = 5;
    let room = head.length.checked_sub(TYPE_AND_ID + 4).ok_or(WireError::Missing("id"))?;
    let mut reader = Reader::new(bytes);
    let before = reader.take(LENGTH_FIELD + TYPE_AND_ID, "id");
    let Ok(length) = before.and_then(|_| reader.u32("extended-request")) else { return Ok(Named::Wait) };
    match length as usize {
        length if length > room => Err(WireError::Missing("extended-request")),
        length if length > MAX_EXTENSION_NAME => Ok(Named::Unknown),
        length => Ok(match reader.take(length, "extended-request") {
            Ok(name) => extension(name).map_or(Named::Unknown, Named::Known),
            Err(_) => Named::Wait,
        }),
    }
}
