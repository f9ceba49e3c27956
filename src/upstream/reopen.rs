//! Questions with which another connection takes the place of one that was lost: is it the same SFTP server, and are the files that were
//! open the same?

use std::ops::Range;

use super::ask::{Asking, No, expect};
use crate::sftp::attributes::Identity;
use crate::sftp::frame::LENGTH_FIELD;
use crate::sftp::reply::{ATTRS, DATA};
use crate::wire::{Reader, put_string, put_u32};

/// Bytes of a READ: every server gives so many.
const PIECE: u64 = 32 * 1024;

/// READs that are asked for at a time.
const AT_ONCE: usize = 16;

impl Asking<'_> {
    /// INIT as it came from a client, length field and all, and the whole answer.
    pub fn greet(&mut self, init: &[u8]) -> Result<Vec<u8>, No> {
        let answer = self.exchange(init, 1)?.pop().unwrap_or_default();
        let mut packet = Vec::with_capacity(LENGTH_FIELD + answer.len());
        put_string(&mut packet, &answer);
        Ok(packet)
    }

    /// OPEN of a file that is there, and its handle.
    pub fn open_file(&mut self, path: &[u8], flags: u32) -> Result<Vec<u8>, No> {
        self.handle("open", |body| {
            put_string(body, path);
            put_u32(body, flags);
            // No attributes.
            put_u32(body, 0);
        })
    }

    /// OPENDIR, and the handle.
    pub fn open_directory(&mut self, path: &[u8]) -> Result<Vec<u8>, No> {
        self.handle("opendir", |body| put_string(body, path))
    }

    /// CLOSE.
    pub fn close(&mut self, handle: &[u8]) -> Result<(), No> {
        self.done("close", |body| put_string(body, handle))
    }

    /// FSTAT.
    pub fn identity(&mut self, handle: &[u8]) -> Result<Identity, No> {
        let answer = self.request("fstat", |body| put_string(body, handle))?;
        expect(&answer, ATTRS)?;
        Ok(Identity::read(&mut Reader::new(&answer[5..])).map_err(|error| error.to_string())?)
    }

    /// The digest of a range, read some [`PIECE`]s at a time. A file that has less is refused as the upstream does.
    pub fn digest(&mut self, handle: &[u8], range: Range<u64>) -> Result<blake3::Hash, No> {
        let mut hasher = blake3::Hasher::new();
        let mut at = range.start;
        while at < range.end {
            let mut packets = Vec::new();
            let mut asked = Vec::with_capacity(AT_ONCE);
            for from in (at..range.end).step_by(PIECE as usize).take(AT_ONCE) {
                let length = PIECE.min(range.end - from) as u32;
                let (packet, id) = self.packet("read", |body| read(body, handle, from, length))?;
                packets.extend(packet);
                asked.push((id, from, length));
            }
            let answers = self.exchange(&packets, asked.len())?;
            for (id, from, length) in asked {
                let answer = answers.iter().find(|answer| answer.get(1..5) == Some(&id.to_be_bytes()));
                let answer = answer.ok_or_else(|| "the upstream answers another question than read".to_owned())?;
                let mut got = content(answer)?.to_vec();
                // A server may give less than was asked for, but not nothing.
                while got.len() < length as usize {
                    let (from, left) = (from + got.len() as u64, length - got.len() as u32);
                    let answer = self.request("read", |body| read(body, handle, from, left))?;
                    got.extend_from_slice(content(&answer)?);
                }
                hasher.update(&got[..length as usize]);
                at = from + u64::from(length);
            }
        }
        Ok(hasher.finalize())
    }
}

fn read(body: &mut Vec<u8>, handle: &[u8], offset: u64, length: u32) {
    put_string(body, handle);
    body.extend(offset.to_be_bytes());
    put_u32(body, length);
}

/// The content in an answer to READ, at least one byte.
fn content(answer: &[u8]) -> Result<&[u8], No> {
    expect(answer, DATA)?;
    let data = Reader::new(&answer[5..]).string("data").map_err(|error| error.to_string())?;
    if data.is_empty() { Err("the upstream answers read with nothing".to_owned().into()) } else { Ok(data) }
}
