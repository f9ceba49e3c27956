//! One SFTP session over libssh2, request by request (draft-ietf-secsh-filexfer-02).

use std::error::Error;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::time::Duration;

use ssh2::{Channel, Session};

/// How long a login or an operation may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Kinds of packets.
pub const STATUS: u8 = 101;
const INIT: u8 = 1;
const VERSION: u8 = 2;

pub type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Where somebody comes in, as whom, with the private key of which file.
#[derive(Clone, Copy)]
pub struct Door<'a> {
    pub address: &'a str,
    pub user: &'a str,
    pub key: &'a str,
}

pub struct Client {
    channel: Channel,
    session: Session,
    stream: TcpStream,
    last: u32,
}

impl Client {
    /// Connects, logs in and opens SFTP.
    pub fn open(door: Door<'_>) -> Outcome<Self> {
        let (session, stream) = log_in(door)?;
        let mut channel = session.channel_session()?;
        channel.subsystem("sftp")?;
        channel.write_all(&[0, 0, 0, 5, INIT, 0, 0, 0, 3])?;
        let mut client = Self { channel, session, stream, last: 0 };
        match client.hear()?.first() {
            Some(&VERSION) => Ok(client),
            other => Err(format!("INIT is answered with {other:?}").into()),
        }
    }

    /// One request: its kind and what follows its id. Returns the kind of the answer and what follows the id there.
    pub fn ask(&mut self, kind: u8, body: &[u8]) -> Outcome<(u8, Vec<u8>)> {
        let packet = self.packet(kind, body);
        self.channel.write_all(&packet)?;
        let id = self.last.to_be_bytes();
        match self.hear()?.as_slice() {
            [kind, rest @ ..] if rest.starts_with(&id) => Ok((*kind, rest[id.len()..].to_vec())),
            other => Err(format!("request {kind} is answered with {other:?}").into()),
        }
    }

    /// The bytes of a request.
    pub fn packet(&mut self, kind: u8, body: &[u8]) -> Vec<u8> {
        self.last += 1;
        let mut packet = (body.len() as u32 + 5).to_be_bytes().to_vec();
        packet.push(kind);
        packet.extend(self.last.to_be_bytes());
        packet.extend(body);
        packet
    }

    /// Sends bytes and waits for no answer.
    pub fn send(&mut self, bytes: &[u8]) -> Outcome<()> {
        Ok(self.channel.write_all(bytes)?)
    }

    /// Says goodbye as a client should.
    pub fn close(mut self) -> Outcome<()> {
        self.channel.send_eof()?;
        self.channel.wait_eof()?;
        self.channel.close()?;
        self.channel.wait_close()?;
        Ok(self.session.disconnect(None, "bye", None)?)
    }

    /// Is gone without a word.
    pub fn vanish(self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    fn hear(&mut self) -> Outcome<Vec<u8>> {
        let mut length = [0; 4];
        self.channel.read_exact(&mut length)?;
        let mut packet = vec![0; u32::from_be_bytes(length).min(262_144) as usize];
        self.channel.read_exact(&mut packet)?;
        Ok(packet)
    }
}

/// Connects and logs in.
pub fn log_in(door: Door<'_>) -> Outcome<(Session, TcpStream)> {
    let mut session = Session::new()?;
    session.set_timeout(LIMIT.as_millis() as u32);
    let stream = TcpStream::connect(door.address)?;
    session.set_tcp_stream(stream.try_clone()?);
    session.handshake()?;
    session.userauth_pubkey_file(door.user, None, Path::new(door.key), None)?;
    Ok((session, stream))
}

/// A string as SFTP has it.
pub fn string(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
}
