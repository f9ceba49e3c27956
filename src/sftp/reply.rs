//! One reply: its fields as they stand in the packet, and the packets that the router writes itself (draft section 7).
//!
//! Pure. Nothing is copied by reading. The router writes STATUS that refuse, and what came with other names in it.

use super::attributes::Attributes;
use super::request::MAX_HANDLE;
use crate::wire::{Reader, WireError, put_string, put_u32};

/// Answer to INIT, the only reply without an id.
pub const VERSION: u8 = 2;
/// A code and a text.
pub const STATUS: u8 = 101;
/// A handle.
pub const HANDLE: u8 = 102;
/// Content.
pub const DATA: u8 = 103;
/// Names with attributes.
pub const NAME: u8 = 104;
/// Attributes.
pub const ATTRS: u8 = 105;
/// Whatever an extension answers.
pub const EXTENDED_REPLY: u8 = 201;

/// Code of STATUS: done.
pub const OK: u32 = 0;
/// Code of STATUS: the file or the directory has no more.
pub const EOF: u32 = 1;
/// Code of STATUS: no such file.
pub const NO_SUCH_FILE: u32 = 2;
/// Code of STATUS: not allowed.
pub const PERMISSION_DENIED: u32 = 3;
/// Code of STATUS: it failed, nobody says why.
pub const FAILURE: u32 = 4;
/// Code of STATUS: a value that cannot be.
pub const BAD_MESSAGE: u32 = 5;
/// Code of STATUS: nobody here knows this request.
pub const OP_UNSUPPORTED: u32 = 8;

/// Longest text of a STATUS that is kept, in bytes.
pub const MAX_MESSAGE: usize = 256;

/// A STATUS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status<'a> {
    /// The code.
    pub code: u32,
    /// The text; servers of old send none.
    pub message: &'a [u8],
}

/// Skips type and id of a packet without its length field.
fn fields(bytes: &[u8]) -> Result<Reader<'_>, WireError> {
    let mut reader = Reader::new(bytes);
    reader.take(5, "id")?;
    Ok(reader)
}

/// Reads a STATUS without its length field.
pub fn status(bytes: &[u8]) -> Result<Status<'_>, WireError> {
    let mut reader = fields(bytes)?;
    let code = reader.u32("error code")?;
    let message = if reader.rest().is_empty() { &[] } else { reader.string("error message")? };
    Ok(Status { code, message: &message[..message.len().min(MAX_MESSAGE)] })
}

/// Reads the handle of a HANDLE without its length field.
pub fn handle(bytes: &[u8]) -> Result<&[u8], WireError> {
    let handle = fields(bytes)?.string("handle")?;
    if handle.len() > MAX_HANDLE { Err(WireError::Invalid("handle")) } else { Ok(handle) }
}

/// Reads an ATTRS without its length field.
pub fn attributes(bytes: &[u8]) -> Result<Attributes, WireError> {
    Attributes::read(&mut fields(bytes)?)
}

/// A NAME with one name, as REALPATH, READLINK and expand-path have it.
#[derive(Debug, Clone, Copy)]
pub struct Name<'a> {
    /// Type, id and count.
    head: &'a [u8],
    /// The name.
    pub name: &'a [u8],
    /// What follows its long form.
    rest: &'a [u8],
}

impl<'a> Name<'a> {
    /// Reads a NAME without its length field.
    pub fn read(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = fields(bytes)?;
        if reader.u32("count")? != 1 {
            return Err(WireError::Invalid("count"));
        }
        let head = &bytes[..9];
        let name = reader.string("filename")?;
        reader.string("longname")?;
        Ok(Self { head, name, rest: reader.rest() })
    }

    /// The packet with another name, as both its forms.
    pub fn rewritten(&self, name: &[u8]) -> Vec<u8> {
        let mut body = self.head.to_vec();
        put_string(&mut body, name);
        put_string(&mut body, name);
        body.extend_from_slice(self.rest);
        framed(&body)
    }
}

/// A VERSION: the version, and pairs of names and data.
pub struct Version<'a> {
    /// The version.
    pub version: u32,
    /// The extensions in their order.
    pub extensions: Vec<(&'a [u8], &'a [u8])>,
}

impl<'a> Version<'a> {
    /// Reads a VERSION without its length field.
    pub fn read(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        reader.byte("type")?;
        let version = reader.u32("version")?;
        let mut extensions = Vec::new();
        while !reader.rest().is_empty() {
            extensions.push((reader.string("extension-name")?, reader.string("extension-data")?));
        }
        Ok(Self { version, extensions })
    }

    /// The packet with the extensions that there are now.
    pub fn written(&self) -> Vec<u8> {
        let mut body = vec![VERSION];
        put_u32(&mut body, self.version);
        for (name, data) in &self.extensions {
            put_string(&mut body, name);
            put_string(&mut body, data);
        }
        framed(&body)
    }
}

/// A STATUS of the router's own. Its language tag is empty, as OpenSSH's is.
pub fn put_status(out: &mut Vec<u8>, id: u32, code: u32, message: &str) {
    let mut body = vec![STATUS];
    put_u32(&mut body, id);
    put_u32(&mut body, code);
    put_string(&mut body, message.as_bytes());
    put_string(&mut body, b"");
    put_string(out, &body);
}

/// A packet with its length field.
fn framed(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + body.len());
    put_string(&mut out, body);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_of_ours_is_read_as_it_was_written_and_texts_are_bounded() {
        let mut out = Vec::new();
        put_status(&mut out, 7, PERMISSION_DENIED, "read-only: rename is not allowed");
        let read = status(&out[4..]).unwrap();
        assert_eq!((read.code, read.message), (3, &b"read-only: rename is not allowed"[..]));
        assert_eq!(status(&[STATUS, 0, 0, 0, 7, 0, 0, 0, 0]).unwrap(), Status { code: 0, message: b"" });
        put_status(&mut out, 7, FAILURE, &"x".repeat(1000));
        assert_eq!(status(&out[out.len() - 1017..]).unwrap().message.len(), MAX_MESSAGE);
        assert_eq!(status(&[STATUS, 0, 0, 0, 7, 0, 0]), Err(WireError::Missing("error code")));
    }

    #[test]
    fn names_versions_and_handles_are_read_and_written() {
        let name = |name: &[u8], long: &[u8]| {
            let mut body = vec![NAME, 0, 0, 0, 7, 0, 0, 0, 1];
            put_string(&mut body, name);
            put_string(&mut body, long);
            body.extend([0; 4]);
            body
        };
        let came = name(b"/srv/x", b"-rw- /srv/x");
        let read = Name::read(&came).unwrap();
        assert_eq!((read.name, &read.rewritten(b"/x")[4..]), (&b"/srv/x"[..], name(b"/x", b"/x").as_slice()));
        assert!(matches!(Name::read(&[NAME, 0, 0, 0, 7, 0, 0, 0, 2]), Err(WireError::Invalid("count"))));

        let mut body = vec![VERSION, 0, 0, 0, 3];
        [b"a@b", b"1__", b"c@d", b"2__"].iter().for_each(|text| put_string(&mut body, *text));
        let mut version = Version::read(&body).unwrap();
        assert_eq!((version.version, version.extensions.len(), version.written()), (3, 2, framed(&body)));
        version.extensions.remove(0);
        assert_eq!(version.written().len(), 4 + 5 + 14);

        let long = [&[HANDLE, 0, 0, 0, 7, 0, 0, 1, 1][..], &[b'h'; 257]].concat();
        assert_eq!(handle(&long), Err(WireError::Invalid("handle")));
        assert_eq!(handle(&[HANDLE, 0, 0, 0, 7, 0, 0, 0, 1, b'h']), Ok(&b"h"[..]));
    }
}
