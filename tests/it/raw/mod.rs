//! A hostile SSH client: authentication (RFC 4252) and channels (RFC 4254), each field in the test's hand. `transport` has what is
//! below. Known to work: `check` logs it in at a real sshd.
//!
//! ```text
//! let mut client = Client::connect(address)?;                       // keys are exchanged, the service is on
//! client.login(&Login { signer: &mallory, ..Login::new("alice", &alice) })?     == Answer::Failure
//! let channel = client.open_sftp()?;
//! client.data(&channel, &packet)?;  client.recv_data(&channel)?
//! ```

// The interface is for the tests of attacks, which do not all use all of it.

use std::io::Result;
use std::net::{TcpStream, ToSocketAddrs};
use std::ops::{Deref, DerefMut};

use sftpproxy::wire::{Reader, put_string, put_u32};

pub mod login;
pub mod transport;

mod check;

pub use login::{Key, Login};
pub use transport::{Offer, Transport};

use login::userauth;
use transport::{DEBUG, DISCONNECT, IGNORE, fault, unexpected, wire};

pub const SERVICE_REQUEST: u8 = 5;
pub const SERVICE_ACCEPT: u8 = 6;
pub const EXT_INFO: u8 = 7;
pub const USERAUTH_REQUEST: u8 = 50;
pub const USERAUTH_FAILURE: u8 = 51;
pub const USERAUTH_SUCCESS: u8 = 52;
pub const USERAUTH_BANNER: u8 = 53;
pub const USERAUTH_PK_OK: u8 = 60;
pub const GLOBAL_REQUEST: u8 = 80;
pub const REQUEST_SUCCESS: u8 = 81;
pub const REQUEST_FAILURE: u8 = 82;
pub const CHANNEL_OPEN: u8 = 90;
pub const CHANNEL_OPEN_CONFIRMATION: u8 = 91;
pub const CHANNEL_OPEN_FAILURE: u8 = 92;
pub const CHANNEL_WINDOW_ADJUST: u8 = 93;
pub const CHANNEL_DATA: u8 = 94;
pub const CHANNEL_EXTENDED_DATA: u8 = 95;
pub const CHANNEL_EOF: u8 = 96;
pub const CHANNEL_CLOSE: u8 = 97;
pub const CHANNEL_REQUEST: u8 = 98;
pub const CHANNEL_SUCCESS: u8 = 99;
pub const CHANNEL_FAILURE: u8 = 100;

/// What the server says to an authentication request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Success,
    /// Methods that can continue.
    Failure(String),
    /// The key would do, if its owner signed.
    KeyIsGood,
    /// DISCONNECT, or the end of the connection without a word.
    Disconnected,
}

/// A channel, or the reason code of its refusal.
pub type Opened = std::result::Result<Channel, u32>;

/// An open channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channel {
    pub ours: u32,
    pub theirs: u32,
    /// The server's first window and largest packet.
    pub window: u32,
    pub max_packet: u32,
}

/// A client whose keys are exchanged. Everything of [`Transport`] is at hand too.
pub struct Client {
    transport: Transport,
    channels: u32,
}

impl Deref for Client {
    type Target = Transport;

    fn deref(&self) -> &Transport {
        &self.transport
    }
}

impl DerefMut for Client {
    fn deref_mut(&mut self) -> &mut Transport {
        &mut self.transport
    }
}

impl Client {
    /// Connects honestly, as far as the service `ssh-userauth`.
    pub fn connect(address: impl ToSocketAddrs) -> Result<Self> {
        Self::over(TcpStream::connect(address)?)
    }

    /// The same over a connection that is there.
    pub fn over(stream: TcpStream) -> Result<Self> {
        let mut transport = Transport::over(stream)?;
        transport.greet("SSH-2.0-raw", &Offer::default())?;
        let mut client = Self::keyed(transport);
        client.service("ssh-userauth")?;
        Ok(client)
    }

    /// Goes on from a transport whose keys are exchanged, without asking for a service.
    pub fn keyed(transport: Transport) -> Self {
        Self { transport, channels: 0 }
    }

    /// Connects and logs in.
    pub fn log_in(address: impl ToSocketAddrs, user: &str, key: &Key) -> Result<Self> {
        let mut client = Self::connect(address)?;
        match client.login(&Login::new(user, key))? {
            Answer::Success => Ok(client),
            other => Err(fault(format!("{other:?}"))),
        }
    }

    /// The next packet that is not IGNORE, DEBUG, EXT_INFO, a banner or a global request without reply.
    pub fn recv(&mut self) -> Result<Vec<u8>> {
        loop {
            let packet = self.recv_packet()?;
            match packet[0] {
                IGNORE | DEBUG | EXT_INFO | USERAUTH_BANNER => {}
                GLOBAL_REQUEST if !wants_reply(&packet) => {}
                _ => return Ok(packet),
            }
        }
    }

    /// The next such packet, which must be of this type.
    pub fn expect(&mut self, kind: u8) -> Result<Vec<u8>> {
        let packet = self.recv()?;
        if packet[0] == kind { Ok(packet) } else { Err(unexpected(kind, &packet)) }
    }

    /// Asks for a service.
    pub fn service(&mut self, name: &str) -> Result<()> {
        let mut request = vec![SERVICE_REQUEST];
        put_string(&mut request, name.as_bytes());
        self.send_packet(&request)?;
        self.expect(SERVICE_ACCEPT).map(drop)
    }

    /// Sends any authentication request and reads the answer.
    pub fn ask(&mut self, request: &[u8]) -> Result<Answer> {
        match self.send_packet(request).and_then(|()| self.recv()) {
            Ok(packet) => match packet[0] {
                USERAUTH_SUCCESS => Ok(Answer::Success),
                USERAUTH_FAILURE => {
                    let methods = Reader::new(&packet[1..]).string("methods").map_err(wire)?;
                    Ok(Answer::Failure(String::from_utf8_lossy(methods).into_owned()))
                }
                USERAUTH_PK_OK => Ok(Answer::KeyIsGood),
                DISCONNECT => Ok(Answer::Disconnected),
                _ => Err(unexpected(USERAUTH_SUCCESS, &packet)),
            },
            Err(error) if transport::closed(&error) => Ok(Answer::Disconnected),
            Err(error) => Err(error),
        }
    }

    /// The method `none`: which methods are there?
    pub fn none(&mut self, user: &str) -> Result<Answer> {
        self.ask(&userauth(user, "ssh-connection", "none"))
    }

    /// The method `password`.
    pub fn password(&mut self, user: &str, password: &str) -> Result<Answer> {
        let mut request = userauth(user, "ssh-connection", "password");
        request.push(0);
        put_string(&mut request, password.as_bytes());
        self.ask(&request)
    }

    /// Offers a public key without a signature. `algorithm` and `blob` may be anything.
    pub fn probe(&mut self, user: &str, algorithm: &str, blob: &[u8]) -> Result<Answer> {
        let mut request = userauth(user, "ssh-connection", "publickey");
        request.push(0);
        put_string(&mut request, algorithm.as_bytes());
        put_string(&mut request, blob);
        self.ask(&request)
    }

    /// Sends a signed request, honest or not.
    pub fn login(&mut self, login: &Login<'_>) -> Result<Answer> {
        let packet = login.packet(&self.session_id);
        self.ask(&packet)
    }

    /// Opens a channel of any type; `extra` is what the type carries besides, such as an address. `Ok(Err(reason))` = refused.
    pub fn open(&mut self, kind: &str, window: u32, max_packet: u32, extra: &[u8]) -> Result<Opened> {
        let ours = self.channels;
        self.channels += 1;
        let mut request = vec![CHANNEL_OPEN];
        put_string(&mut request, kind.as_bytes());
        [ours, window, max_packet].iter().for_each(|&field| put_u32(&mut request, field));
        request.extend_from_slice(extra);
        self.send_packet(&request)?;
        let packet = self.recv()?;
        let mut reader = Reader::new(&packet[1..]);
        let mut field = |name| reader.u32(name).map_err(wire);
        match (packet[0], field("recipient")?) {
            (CHANNEL_OPEN_CONFIRMATION, _) => {
                let (theirs, window) = (field("sender")?, field("window")?);
                Ok(Ok(Channel { ours, theirs, window, max_packet: field("maximum packet")? }))
            }
            (CHANNEL_OPEN_FAILURE, _) => Ok(Err(field("reason")?)),
            _ => Err(unexpected(CHANNEL_OPEN_CONFIRMATION, &packet)),
        }
    }

    /// A `session` channel with the subsystem `sftp`, with a window that needs no adjusting in a short test.
    pub fn open_sftp(&mut self) -> Result<Channel> {
        let channel = self.open("session", 1 << 30, 1 << 15, &[])?.map_err(|code| fault(format!("refused: {code}")))?;
        match self.subsystem(&channel, "sftp")? {
            true => Ok(channel),
            false => Err(fault("the subsystem was refused")),
        }
    }

    /// Asks for a subsystem; whether it was granted.
    pub fn subsystem(&mut self, channel: &Channel, name: &str) -> Result<bool> {
        let mut payload = Vec::new();
        put_string(&mut payload, name.as_bytes());
        self.request(channel, "subsystem", &payload)
    }

    /// Any request on a channel, with reply; whether it was granted. Window adjustments that come before the reply are skipped.
    pub fn request(&mut self, channel: &Channel, name: &str, payload: &[u8]) -> Result<bool> {
        self.send_request(channel, name, true, payload)?;
        loop {
            let packet = self.recv()?;
            match packet[0] {
                CHANNEL_SUCCESS => return Ok(true),
                CHANNEL_FAILURE => return Ok(false),
                CHANNEL_WINDOW_ADJUST => {}
                _ => return Err(unexpected(CHANNEL_SUCCESS, &packet)),
            }
        }
    }

    /// Sends a request on a channel and waits for nothing.
    pub fn send_request(&mut self, channel: &Channel, name: &str, reply: bool, payload: &[u8]) -> Result<()> {
        let mut request = vec![CHANNEL_REQUEST];
        put_u32(&mut request, channel.theirs);
        put_string(&mut request, name.as_bytes());
        request.push(u8::from(reply));
        request.extend_from_slice(payload);
        self.send_packet(&request)
    }

    /// Sends one packet of channel data, whatever the window and the largest packet are.
    pub fn data(&mut self, channel: &Channel, bytes: &[u8]) -> Result<()> {
        let mut packet = vec![CHANNEL_DATA];
        put_u32(&mut packet, channel.theirs);
        put_string(&mut packet, bytes);
        self.send_packet(&packet)
    }

    /// The next data of a channel; empty = EOF or the channel's end. Window adjustments and the exit status are skipped.
    pub fn recv_data(&mut self, channel: &Channel) -> Result<Vec<u8>> {
        loop {
            let packet = self.recv()?;
            let mut reader = Reader::new(&packet[1..]);
            match packet[0] {
                CHANNEL_DATA if reader.u32("recipient").map_err(wire)? == channel.ours => {
                    return Ok(reader.string("data").map_err(wire)?.to_vec());
                }
                CHANNEL_EOF | CHANNEL_CLOSE => return Ok(Vec::new()),
                CHANNEL_WINDOW_ADJUST | CHANNEL_REQUEST | CHANNEL_EXTENDED_DATA => {}
                _ => return Err(unexpected(CHANNEL_DATA, &packet)),
            }
        }
    }

    /// The next whole SFTP packet of a channel, without its length. The channel must carry replies one at a time.
    pub fn recv_sftp(&mut self, channel: &Channel) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        loop {
            let more = self.recv_data(channel)?;
            if more.is_empty() {
                return Err(fault("the channel ended in a reply"));
            }
            bytes.extend(more);
            if let Ok(body) = Reader::new(&bytes).string("packet") {
                return Ok(body.to_vec());
            }
        }
    }

    /// Gives the server this much more window.
    pub fn adjust(&mut self, channel: &Channel, count: u32) -> Result<()> {
        self.about(CHANNEL_WINDOW_ADJUST, channel, &count.to_be_bytes())
    }

    /// Says that no more data come.
    pub fn eof(&mut self, channel: &Channel) -> Result<()> {
        self.about(CHANNEL_EOF, channel, &[])
    }

    /// Closes the channel.
    pub fn close(&mut self, channel: &Channel) -> Result<()> {
        self.about(CHANNEL_CLOSE, channel, &[])
    }

    /// Sends a packet of any type that begins with the server's number of the channel.
    pub fn about(&mut self, kind: u8, channel: &Channel, payload: &[u8]) -> Result<()> {
        let mut packet = vec![kind];
        put_u32(&mut packet, channel.theirs);
        packet.extend_from_slice(payload);
        self.send_packet(&packet)
    }

    /// Sends a global request; the answer, if one is asked for, is the caller's to receive.
    pub fn global_request(&mut self, name: &str, reply: bool, payload: &[u8]) -> Result<()> {
        let mut packet = vec![GLOBAL_REQUEST];
        put_string(&mut packet, name.as_bytes());
        packet.push(u8::from(reply));
        packet.extend_from_slice(payload);
        self.send_packet(&packet)
    }

    /// Sends IGNORE.
    pub fn ignore(&mut self, bytes: &[u8]) -> Result<()> {
        let mut packet = vec![IGNORE];
        put_string(&mut packet, bytes);
        self.send_packet(&packet)
    }

    /// Sends DISCONNECT with a reason code.
    pub fn disconnect(&mut self, reason: u32, text: &str) -> Result<()> {
        let mut packet = vec![DISCONNECT];
        put_u32(&mut packet, reason);
        put_string(&mut packet, text.as_bytes());
        put_string(&mut packet, b"");
        self.send_packet(&packet)
    }
}

fn wants_reply(global_request: &[u8]) -> bool {
    let mut reader = Reader::new(&global_request[1..]);
    reader.string("name").is_ok() && reader.byte("reply").is_ok_and(|reply| reply != 0)
}
