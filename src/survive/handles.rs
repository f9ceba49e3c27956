//! The client's handles are ours from the beginning: a number each, in whose place the upstream is sent its own. Pure.

use std::collections::BTreeMap;

use super::file::Open;
use super::journal::Entry;
use crate::sftp::frame::LENGTH_FIELD;
use crate::sftp::{EXTENDED, Then};
use crate::wire::{put_string, put_u32};

/// Bytes of a handle of ours.
pub const HANDLE_BYTES: usize = 8;

/// The open file's number in a handle that the client has sent; `None` = it is none of ours.
pub fn number_of(handle: &[u8]) -> Option<u64> {
    handle.try_into().ok().map(u64::from_be_bytes)
}

/// Appends a request with its number towards the upstream, and the upstream's handles in place of ours.
pub fn translate(out: &mut Vec<u8>, number: u32, entry: &Entry, files: &BTreeMap<u64, Open>) {
    let body = &entry.packet[LENGTH_FIELD..];
    let start = out.len();
    put_u32(out, 0);
    out.push(body[0]);
    put_u32(out, number);
    let mut at = 5;
    if entry.kind.number == EXTENDED {
        put_string(out, entry.kind.name.as_bytes());
        at += 4 + entry.kind.name.len();
    }
    let handle = |file: Option<u64>| file.and_then(|file| files.get(&file)).map_or(&[][..], |open| &open.handle);
    match entry.kind.then {
        Then::Copy => {
            // The source, its offset and length, then the file that is written.
            put_string(out, handle(entry.files[1]));
            at += 4 + HANDLE_BYTES;
            out.extend_from_slice(&body[at..at + 16]);
            at += 16;
            put_string(out, handle(entry.files[0]));
            at += 4 + HANDLE_BYTES;
        }
        then if then.is_handle() => {
            put_string(out, handle(entry.files[0]));
            at += 4 + HANDLE_BYTES;
        }
        _ => {}
    }
    out.extend_from_slice(&body[at..]);
    let length = (out.len() - start - LENGTH_FIELD) as u32;
    out[start..start + LENGTH_FIELD].copy_from_slice(&length.to_be_bytes());
}
