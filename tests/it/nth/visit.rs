//! A client that believes nothing: it uploads, downloads, lists and removes, and compares all that it is told with the upstream's disk.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sftpproxy::sftp::OpenFlags;
use sftpproxy::sftp::reply::{DATA, EOF, HANDLE, NAME, OK, STATUS, VERSION};
use sftpproxy::wire::{Reader, put_string, put_u32};
use ssh2::{Channel, Session};

use crate::world::keys::Key;

/// Bytes of each file, of each WRITE and READ, and names in the folder that is listed.
const SIZE: usize = 40_000;
const PIECE: usize = 16_000;
const NAMES: usize = 30;

/// How long one call of the client may take: a session that fails must not leave it waiting.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a visit was not whole.
#[derive(Debug)]
#[allow(dead_code, reason = "what failed is shown, by Debug")]
pub enum Wrong {
    /// Something was said to have failed, or the session ended.
    Failed(String),
    /// Something was told that is not so.
    Lied(String),
}

impl<E: std::error::Error> From<E> for Wrong {
    fn from(error: E) -> Self {
        Self::Failed(error.to_string())
    }
}

fn failed<T>(what: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong::Failed(what.into()))
}

fn lied<T>(what: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong::Lied(what.into()))
}

/// Whom the visits are to.
pub struct Place {
    /// The upstream's folder.
    pub files: PathBuf,
    pub user: &'static str,
    pub key: Key,
    content: Vec<u8>,
}

impl Place {
    /// Puts into the upstream's folder what is found there.
    pub fn prepare(files: &Path, user: &'static str, key: &Key) -> Self {
        let content: Vec<u8> = (0..SIZE as u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let place = Self { files: files.to_owned(), user, key: key.clone(), content };
        std::fs::write(files.join("there"), place.down()).expect("a file to get");
        std::fs::create_dir(files.join("many")).expect("a folder to list");
        for name in Self::names() {
            std::fs::write(files.join("many").join(name), "").expect("a name to list");
        }
        place
    }

    fn names() -> BTreeSet<String> {
        (0..NAMES).map(|number| format!("name-{number}")).collect()
    }

    fn down(&self) -> Vec<u8> {
        self.content.iter().map(|byte| !byte).collect()
    }

    /// Exchanges keys and logs in with a key.
    pub fn log_in(&self, port: u16, key: &Key) -> Result<Session, Wrong> {
        let mut session = Session::new()?;
        session.set_timeout(PATIENCE.as_millis() as u32);
        session.set_tcp_stream(TcpStream::connect(("127.0.0.1", port))?);
        session.handshake()?;
        session.userauth_pubkey_file(self.user, None, &key.private, None)?;
        Ok(session)
    }

    /// A session whose SFTP is open.
    pub fn open(&self, port: u16) -> Result<(Session, Sftp), Wrong> {
        let session = self.log_in(port, &self.key)?;
        let mut channel = session.channel_session()?;
        channel.subsystem("sftp")?;
        let mut sftp = Sftp { channel, id: 0 };
        sftp.send(1, |packet| put_u32(packet, 3))?;
        if sftp.receive()?.first() != Some(&VERSION) {
            return failed("no VERSION");
        }
        Ok((session, sftp))
    }

    /// A whole visit.
    pub fn visit(&self, port: u16) -> Result<(), Wrong> {
        let uploaded = self.files.join("up");
        let _ = std::fs::remove_file(&uploaded);
        let (session, mut sftp) = self.open(port)?;
        sftp.put(&self.content, &uploaded)?;
        sftp.get(&self.down())?;
        sftp.list(&Self::names())?;
        sftp.done(13, |packet| put_string(packet, b"up"))?;
        if uploaded.exists() {
            return lied("REMOVE is answered with OK, and the file is there");
        }
        sftp.channel.send_eof()?;
        session.disconnect(None, "", None)?;
        Ok(())
    }
}

/// SFTP by hand, one request at a time but for WRITEs.
pub struct Sftp {
    channel: Channel,
    id: u32,
}

impl Sftp {
    fn send(&mut self, kind: u8, body: impl FnOnce(&mut Vec<u8>)) -> Result<(), Wrong> {
        let mut packet = vec![kind];
        if kind != 1 {
            self.id += 1;
            put_u32(&mut packet, self.id);
        }
        body(&mut packet);
        let mut whole = Vec::new();
        put_string(&mut whole, &packet);
        Ok(self.channel.write_all(&whole)?)
    }

    fn receive(&mut self) -> Result<Vec<u8>, Wrong> {
        let mut length = [0; 4];
        self.channel.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if !(1..=1 << 20).contains(&length) {
            return lied(format!("a packet of {length} bytes"));
        }
        let mut packet = vec![0; length];
        self.channel.read_exact(&mut packet)?;
        Ok(packet)
    }

    /// The answer to the request of this number: kind and what follows the number.
    fn answer(&mut self, id: u32) -> Result<(u8, Vec<u8>), Wrong> {
        let packet = self.receive()?;
        if packet.get(1..5) != Some(&id.to_be_bytes()[..]) {
            return lied(format!("an answer to nothing: {packet:?}"));
        }
        Ok((packet[0], packet[5..].to_vec()))
    }

    fn ask(&mut self, kind: u8, body: impl FnOnce(&mut Vec<u8>)) -> Result<(u8, Vec<u8>), Wrong> {
        self.send(kind, body)?;
        self.answer(self.id)
    }

    /// A request that is to be answered with OK.
    fn done(&mut self, kind: u8, body: impl FnOnce(&mut Vec<u8>)) -> Result<(), Wrong> {
        let (answer, rest) = self.ask(kind, body)?;
        is_ok(answer, &rest)
    }

    fn handle(&mut self, kind: u8, body: impl FnOnce(&mut Vec<u8>)) -> Result<Vec<u8>, Wrong> {
        match self.ask(kind, body)? {
            (HANDLE, rest) => Ok(Reader::new(&rest).string("handle")?.to_vec()),
            (STATUS, rest) => failed(format!("refused: {}", String::from_utf8_lossy(&rest[8.min(rest.len())..]))),
            (kind, _) => lied(format!("a handle of kind {kind}")),
        }
    }

    fn open(&mut self, name: &str, flags: u32) -> Result<Vec<u8>, Wrong> {
        self.handle(3, |packet| {
            put_string(packet, name.as_bytes());
            put_u32(packet, flags);
            put_u32(packet, 0);
        })
    }

    /// Begins an upload and does not wait for what becomes of it.
    pub fn begin(&mut self) -> Result<(), Wrong> {
        let handle = self.open("begun", OpenFlags::WRITE | OpenFlags::CREATE)?;
        self.send(6, |packet| {
            put_string(packet, &handle);
            packet.extend([0; 8]);
            put_string(packet, &[7; PIECE]);
        })
    }

    /// Asks for the start directory.
    pub fn real_path(&mut self) -> Result<(), Wrong> {
        match self.ask(16, |packet| put_string(packet, b"."))? {
            (NAME, _) => Ok(()),
            (kind, rest) => is_ok(kind, &rest),
        }
    }

    fn put(&mut self, content: &[u8], path: &Path) -> Result<(), Wrong> {
        let handle = self.open("up", OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::TRUNCATE)?;
        let first = self.id + 1;
        for (number, piece) in content.chunks(PIECE).enumerate() {
            self.send(6, |packet| {
                put_string(packet, &handle);
                packet.extend(((number * PIECE) as u64).to_be_bytes());
                put_string(packet, piece);
            })?;
        }
        for (number, piece) in content.chunks(PIECE).enumerate() {
            let (kind, rest) = self.answer(first + number as u32)?;
            is_ok(kind, &rest)?;
            let stored = std::fs::read(path).unwrap_or_default();
            if stored.get(number * PIECE..number * PIECE + piece.len()) != Some(piece) {
                return lied(format!("WRITE {number} is answered with OK and is not stored"));
            }
        }
        self.done(4, |packet| put_string(packet, &handle))?;
        if std::fs::read(path).unwrap_or_default() != content {
            return lied("CLOSE is answered with OK, and the file is another");
        }
        Ok(())
    }

    fn get(&mut self, content: &[u8]) -> Result<(), Wrong> {
        let handle = self.open("there", OpenFlags::READ)?;
        let mut got = Vec::new();
        loop {
            let at = got.len() as u64;
            let (kind, rest) = self.ask(5, |packet| {
                put_string(packet, &handle);
                packet.extend(at.to_be_bytes());
                put_u32(packet, PIECE as u32);
            })?;
            match kind {
                DATA => got.extend_from_slice(Reader::new(&rest).string("data")?),
                STATUS if code(&rest) == EOF => break,
                _ => return is_ok(STATUS, &rest),
            }
            if !content.starts_with(&got) {
                return lied(format!("READ at {at} is answered with other bytes"));
            }
        }
        if got.len() != content.len() {
            return lied(format!("the end of the file is said to be at {} of {}", got.len(), content.len()));
        }
        self.done(4, |packet| put_string(packet, &handle))
    }

    fn list(&mut self, names: &BTreeSet<String>) -> Result<(), Wrong> {
        let handle = self.handle(11, |packet| put_string(packet, b"many"))?;
        let mut got = BTreeSet::new();
        loop {
            match self.ask(12, |packet| put_string(packet, &handle))? {
                (NAME, rest) => {
                    let mut reader = Reader::new(&rest);
                    for _ in 0..reader.u32("count")? {
                        got.insert(String::from_utf8_lossy(reader.string("name")?).into_owned());
                        reader.string("long name")?;
                        // sshd sends size, owner, mode and times.
                        reader.take(4 + 8 + 8 + 4 + 8, "attributes")?;
                    }
                }
                (STATUS, rest) if code(&rest) == EOF => break,
                (_, rest) => return is_ok(STATUS, &rest),
            }
        }
        got.remove(".");
        got.remove("..");
        if got != *names {
            return lied(format!("a folder of {} names is said to have {}", names.len(), got.len()));
        }
        self.done(4, |packet| put_string(packet, &handle))
    }
}

fn code(rest: &[u8]) -> u32 {
    rest.get(..4).map_or(u32::MAX, |code| u32::from_be_bytes([code[0], code[1], code[2], code[3]]))
}

/// A STATUS of OK; another one is a failure that was said.
fn is_ok(kind: u8, rest: &[u8]) -> Result<(), Wrong> {
    match (kind, code(rest)) {
        (STATUS, OK) => Ok(()),
        (STATUS, other) => failed(format!("status {other}: {}", String::from_utf8_lossy(&rest[8.min(rest.len())..]))),
        (kind, _) => lied(format!("kind {kind} where a STATUS belongs")),
    }
}
