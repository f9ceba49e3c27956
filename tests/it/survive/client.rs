//! SFTP by hand for these tests: requests with their numbers, and each answer by its number.

use std::collections::HashMap;
use std::path::Path;

use sftpproxy::sftp::reply::{HANDLE, STATUS};
use sftpproxy::wire::{Reader, put_string, put_u32};

use crate::world::World;
use crate::world::clients::Target;
use crate::world::process::{LIMIT, until};
use crate::world::sftp::Sftp;

/// A client that may ask for several things at a time.
pub struct Client {
    sftp: Sftp,
    next: u32,
    /// Answers to requests that nobody has asked for yet.
    come: HashMap<u32, Vec<u8>>,
}

impl Client {
    /// One that is greeted.
    #[track_caller]
    pub fn start(target: &Target) -> Self {
        Self { sftp: Sftp::open(target), next: 0, come: HashMap::new() }
    }

    /// Sends a request and returns its number.
    pub fn request(&mut self, kind: u8, fields: &[u8]) -> u32 {
        self.next += 1;
        // An end shows when answers are waited for.
        let _ = self.sftp.send(&[&[kind][..], &self.next.to_be_bytes(), fields].concat());
        self.next
    }

    /// The answer to a request; `None` = the session has ended.
    #[track_caller]
    pub fn try_reply(&mut self, id: u32) -> Option<Vec<u8>> {
        loop {
            if let Some(reply) = self.come.remove(&id) {
                return Some(reply);
            }
            let reply = self.sftp.reply()?;
            let other = u32::from_be_bytes(reply[1..5].try_into().unwrap());
            assert!(self.come.insert(other, reply).is_none(), "{other} is answered twice");
        }
    }

    /// The answer to a request.
    #[track_caller]
    pub fn reply(&mut self, id: u32) -> Vec<u8> {
        self.try_reply(id).expect("a session that goes on")
    }

    /// A request with paths alone.
    pub fn paths(&mut self, kind: u8, paths: &[&Path]) -> u32 {
        let mut fields = Vec::new();
        paths.iter().for_each(|path| put_string(&mut fields, path.to_str().unwrap().as_bytes()));
        self.request(kind, &fields)
    }

    /// OPEN.
    pub fn ask_open(&mut self, path: &Path, flags: u32) -> u32 {
        let mut fields = Vec::new();
        put_string(&mut fields, path.to_str().unwrap().as_bytes());
        put_u32(&mut fields, flags);
        put_u32(&mut fields, 0);
        self.request(3, &fields)
    }

    /// OPEN, and the handle.
    #[track_caller]
    pub fn open(&mut self, path: &Path, flags: u32) -> Vec<u8> {
        let id = self.ask_open(path, flags);
        handle(&self.reply(id)).expect("a handle")
    }

    /// OPENDIR, and the handle.
    #[track_caller]
    pub fn open_directory(&mut self, path: &Path) -> Vec<u8> {
        let id = self.paths(11, &[path]);
        handle(&self.reply(id)).expect("a handle")
    }

    /// A request with a handle alone.
    pub fn handle(&mut self, kind: u8, handle: &[u8]) -> u32 {
        let mut fields = Vec::new();
        put_string(&mut fields, handle);
        self.request(kind, &fields)
    }

    /// CLOSE.
    pub fn close(&mut self, handle: &[u8]) -> u32 {
        self.handle(4, handle)
    }

    /// WRITE.
    pub fn write(&mut self, handle: &[u8], offset: u64, content: &[u8]) -> u32 {
        let mut fields = Vec::new();
        put_string(&mut fields, handle);
        fields.extend(offset.to_be_bytes());
        put_string(&mut fields, content);
        self.request(6, &fields)
    }

    /// READ.
    pub fn read(&mut self, handle: &[u8], offset: u64, length: u32) -> u32 {
        let mut fields = Vec::new();
        put_string(&mut fields, handle);
        fields.extend(offset.to_be_bytes());
        put_u32(&mut fields, length);
        self.request(5, &fields)
    }

    /// Waits until the router has put all that was asked for: it has nothing more to do.
    pub fn settle(&self, world: &World) {
        let work = || crate::world::process::ticks(world.router.pid());
        // The log says what a client asks for when it is read; it is put in the same breath, by another thread.
        let mut last = (work(), 0);
        until(LIMIT, || {
            std::thread::park_timeout(std::time::Duration::from_millis(20));
            let now = work();
            last = if now == last.0 { (now, last.1 + 1) } else { (now, 0) };
            last.1 >= 20
        });
    }

    /// Whether the session ends.
    #[track_caller]
    pub fn is_over(&mut self) -> bool {
        while self.sftp.reply().is_some() {}
        true
    }

    /// Ends it.
    pub fn end(self) {
        self.sftp.end();
    }
}

/// The handle in an answer, if it is one.
pub fn handle(reply: &[u8]) -> Option<Vec<u8>> {
    (reply[0] == HANDLE).then(|| Reader::new(&reply[5..]).string("handle").unwrap().to_vec())
}

/// Code and text of an answer that must be a STATUS.
#[track_caller]
pub fn status(reply: &[u8]) -> (u32, String) {
    assert_eq!(reply[0], STATUS, "{reply:?}");
    let mut reader = Reader::new(&reply[5..]);
    (reader.u32("code").unwrap(), String::from_utf8_lossy(reader.string("text").unwrap()).into_owned())
}
