//! The transport of a hostile SSH client (RFC 4253), written for tests: it does what it is told, also what no client should.
//!
//! Not a library: one key exchange (curve25519-sha256, RFC 8731), one host key type (ssh-ed25519), one cipher
//! (aes256-gcm@openssh.com). Names of others can be offered, to see what the server makes of them. The server's signature is
//! verified. Blocking, with a time limit on each read and write.

use std::collections::VecDeque;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use openssl::derive::Deriver;
use openssl::pkey::{Id, PKey};
use openssl::sha::sha256;
use openssl::sign::Verifier;
use openssl::symm::{Cipher, decrypt_aead, encrypt_aead};
use sftpproxy::wire::{Reader, WireError, put_string, put_u32};

pub const DISCONNECT: u8 = 1;
pub const IGNORE: u8 = 2;
pub const DEBUG: u8 = 4;
pub const KEXINIT: u8 = 20;
pub const NEWKEYS: u8 = 21;
const KEX_ECDH_INIT: u8 = 30;
const KEX_ECDH_REPLY: u8 = 31;

const TAG: usize = 16;
const BLOCK: usize = 16;
const MAX_PACKET: usize = 1 << 20;

/// How long to wait for a server that does nothing; a test that waits so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What the client says in its KEXINIT and after it.
#[derive(Debug, Clone)]
pub struct Offer {
    /// Lists of names, comma-separated.
    pub kex: String,
    pub host_keys: String,
    pub ciphers: String,
    pub macs: String,
    pub compression: String,
    /// Whether `kex-strict-c-v00@openssh.com` is offered too (OpenSSH PROTOCOL section 1.9).
    pub strict: bool,
    /// Packets sent between KEXINIT and the key exchange proper, where strict key exchange forbids any.
    pub injected: Vec<Vec<u8>>,
    /// Sent instead of the client's public point.
    pub point: Option<Vec<u8>>,
    /// How long the client reads nothing after its KEXINIT.
    pub pause: Duration,
    /// NEWKEYS is never sent.
    pub unended: bool,
}

impl Offer {
    /// The payload of the KEXINIT.
    pub fn kexinit(&self) -> Vec<u8> {
        let mut payload = vec![KEXINIT];
        payload.extend([0x5a; 16]); // the cookie, which nothing depends on here
        let kex = if self.strict { format!("{},kex-strict-c-v00@openssh.com", self.kex) } else { self.kex.clone() };
        let twice = [&self.ciphers, &self.macs, &self.compression].map(|list| [list, list]);
        for list in [&kex, &self.host_keys].into_iter().chain(twice.into_iter().flatten()) {
            put_string(&mut payload, list.as_bytes());
        }
        payload.extend([0; 4 + 4 + 1 + 4]); // no languages, no guessed packet, reserved
        payload
    }
}

impl Default for Offer {
    fn default() -> Self {
        Self {
            kex: "curve25519-sha256".into(),
            host_keys: "ssh-ed25519".into(),
            ciphers: "aes256-gcm@openssh.com".into(),
            macs: "hmac-sha2-256".into(),
            compression: "none".into(),
            strict: true,
            injected: Vec::new(),
            point: None,
            pause: Duration::ZERO,
            unended: false,
        }
    }
}

/// Key and nonce of one direction (RFC 5647 section 7.1).
struct Keys {
    key: Vec<u8>,
    nonce: Vec<u8>,
}

impl Keys {
    fn next_nonce(&mut self) -> Vec<u8> {
        let nonce = self.nonce.clone();
        for byte in self.nonce[4..].iter_mut().rev() {
            *byte = byte.wrapping_add(1);
            if *byte != 0 {
                break;
            }
        }
        nonce
    }
}

/// One connection.
pub struct Transport {
    stream: TcpStream,
    outgoing: Option<Keys>,
    incoming: Option<Keys>,
    pending: VecDeque<Vec<u8>>,
    client_banner: String,
    /// What the server said first, without line end.
    pub server_banner: String,
    /// The server's newest KEXINIT.
    pub server_kexinit: Vec<u8>,
    /// The server's host key, once it has signed.
    pub host_key: Vec<u8>,
    /// Hash of the first key exchange; empty before.
    pub session_id: Vec<u8>,
}

impl Transport {
    /// Connects and says nothing.
    pub fn dial(address: impl ToSocketAddrs) -> Result<Self> {
        Self::over(TcpStream::connect(address)?)
    }

    /// Takes a connection over.
    pub fn over(stream: TcpStream) -> Result<Self> {
        stream.set_nodelay(true)?;
        let transport = Self {
            stream,
            outgoing: None,
            incoming: None,
            pending: VecDeque::new(),
            client_banner: String::new(),
            server_banner: String::new(),
            server_kexinit: Vec::new(),
            host_key: Vec::new(),
            session_id: Vec::new(),
        };
        transport.set_patience(PATIENCE)?;
        Ok(transport)
    }

    /// Sets how long a read or a write may take.
    pub fn set_patience(&self, patience: Duration) -> Result<()> {
        self.stream.set_read_timeout(Some(patience))?;
        self.stream.set_write_timeout(Some(patience))
    }

    /// The socket, to half-close it, reset it or make its buffers small.
    pub fn socket(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends bytes as they are.
    pub fn send_raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends the client's identification, such as `SSH-2.0-raw`, and its line end.
    pub fn send_banner(&mut self, banner: &str) -> Result<()> {
        self.client_banner = banner.to_owned();
        self.send_raw(format!("{banner}\r\n").as_bytes())
    }

    /// Reads the server's identification; lines before it are skipped (RFC 4253 section 4.2).
    pub fn recv_banner(&mut self) -> Result<()> {
        for _ in 0..50 {
            let line = self.read_line()?;
            if line.starts_with("SSH-") {
                self.server_banner = line;
                return Ok(());
            }
        }
        Err(fault("no identification among the first lines"))
    }

    fn read_line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        while line.len() < 1024 {
            let mut byte = [0];
            self.stream.read_exact(&mut byte)?;
            match byte[0] {
                b'\n' => return Ok(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned()),
                other => line.push(other),
            }
        }
        Err(fault("a line of the server has no end"))
    }

    /// Makes a whole packet of `payload`, encrypted if keys are in force. It counts as sent.
    pub fn seal(&mut self, payload: &[u8]) -> Vec<u8> {
        // The length field is not encrypted with GCM and then does not count for the padding.
        let (block, counted) = if self.outgoing.is_some() { (BLOCK, 1) } else { (8, 5) };
        let padding = 4 + (block - (counted + payload.len() + 4) % block) % block;
        let mut body = vec![padding as u8];
        body.extend_from_slice(payload);
        body.resize(body.len() + padding, 0);
        let mut packet = (body.len() as u32).to_be_bytes().to_vec();
        match &mut self.outgoing {
            None => packet.extend(body),
            Some(keys) => {
                let (mut tag, nonce) = ([0; TAG], keys.next_nonce());
                let sealed = encrypt_aead(Cipher::aes_256_gcm(), &keys.key, Some(&nonce), &packet, &body, &mut tag);
                packet.extend(sealed.expect("AES-GCM"));
                packet.extend(tag);
            }
        }
        packet
    }

    /// Sends one packet; `payload` begins with its type.
    pub fn send_packet(&mut self, payload: &[u8]) -> Result<()> {
        let packet = self.seal(payload);
        self.send_raw(&packet)
    }

    /// The payload of the next packet, whatever it is. The end of the connection is an error of kind `UnexpectedEof` or
    /// `ConnectionReset`, silence one of kind `WouldBlock`.
    pub fn recv_packet(&mut self) -> Result<Vec<u8>> {
        match self.pending.pop_front() {
            Some(packet) => Ok(packet),
            None => self.read_packet(),
        }
    }

    fn read_packet(&mut self) -> Result<Vec<u8>> {
        let mut field = [0; 4];
        self.stream.read_exact(&mut field)?;
        let length = u32::from_be_bytes(field) as usize;
        if length > MAX_PACKET {
            return Err(fault(format!("a packet of {length} bytes")));
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        if let Some(keys) = &mut self.incoming {
            let (mut tag, nonce) = ([0; TAG], keys.next_nonce());
            self.stream.read_exact(&mut tag)?;
            body = decrypt_aead(Cipher::aes_256_gcm(), &keys.key, Some(&nonce), &field, &body, &tag)?;
        }
        let padding = usize::from(*body.first().ok_or_else(|| fault("an empty packet"))?);
        let end = body.len().checked_sub(padding).filter(|&end| end > 1).ok_or_else(|| fault("more padding than packet"))?;
        Ok(body[1..end].to_vec())
    }

    /// Every packet until the server closes the connection.
    pub fn until_closed(&mut self) -> Result<Vec<Vec<u8>>> {
        let mut packets = Vec::new();
        loop {
            match self.recv_packet() {
                Ok(packet) => packets.push(packet),
                Err(error) if closed(&error) => return Ok(packets),
                Err(error) => return Err(error),
            }
        }
    }

    /// Identifications both ways, then a key exchange.
    pub fn greet(&mut self, banner: &str, offer: &Offer) -> Result<()> {
        self.send_banner(banner)?;
        self.recv_banner()?;
        self.exchange(offer)
    }

    /// A key exchange as the client wants it; also later, to rekey.
    pub fn exchange(&mut self, offer: &Offer) -> Result<()> {
        let ours = self.send_kexinit(offer)?;
        std::thread::sleep(offer.pause);
        self.server_kexinit = self.recv_kex(KEXINIT)?;
        for packet in &offer.injected {
            self.send_packet(packet)?;
        }
        let private = PKey::generate_x25519()?;
        let point = offer.point.clone().map_or_else(|| private.raw_public_key(), Ok)?;
        let mut init = vec![KEX_ECDH_INIT];
        put_string(&mut init, &point);
        self.send_packet(&init)?;

        let reply = self.recv_kex(KEX_ECDH_REPLY)?;
        let mut reader = Reader::new(&reply[1..]);
        let host_key = reader.string("host key").map_err(wire)?;
        let server_point = reader.string("server point").map_err(wire)?;
        let signature = reader.string("signature").map_err(wire)?;
        let peer = PKey::public_key_from_raw_bytes(server_point, Id::X25519)?;
        let mut deriver = Deriver::new(&private)?;
        deriver.set_peer(&peer)?;
        let secret = mpint(&deriver.derive_to_vec()?);

        let mut hashed = Vec::new();
        let banners = [self.client_banner.as_bytes(), self.server_banner.as_bytes()];
        let transcript = [banners[0], banners[1], &ours, &self.server_kexinit, host_key, &point, server_point];
        transcript.iter().for_each(|field| put_string(&mut hashed, field));
        hashed.extend_from_slice(&secret);
        let hash = sha256(&hashed);
        verify(host_key, signature, &hash)?;
        if offer.unended {
            return Ok(());
        }
        self.host_key = host_key.to_vec();
        if self.session_id.is_empty() {
            self.session_id = hash.to_vec();
        }
        self.new_keys(&secret, &hash)
    }

    /// Sends a KEXINIT and returns it.
    pub fn send_kexinit(&mut self, offer: &Offer) -> Result<Vec<u8>> {
        let payload = offer.kexinit();
        self.send_packet(&payload)?;
        Ok(payload)
    }

    /// The next packet of a key exchange; what the server had sent before it noticed is kept for later.
    fn recv_kex(&mut self, kind: u8) -> Result<Vec<u8>> {
        loop {
            let packet = self.read_packet()?;
            match packet[0] {
                found if found == kind => return Ok(packet),
                IGNORE | DEBUG => {}
                DISCONNECT => return Err(unexpected(kind, &packet)),
                _ if self.incoming.is_some() && packet[0] >= 50 => self.pending.push_back(packet),
                _ => return Err(unexpected(kind, &packet)),
            }
        }
    }

    fn new_keys(&mut self, secret: &[u8], hash: &[u8]) -> Result<()> {
        let derive = |letter| sha256(&[secret, hash, &[letter], &self.session_id].concat()).to_vec();
        let keys = |nonce, key| Keys { key: derive(key), nonce: derive(nonce)[..12].to_vec() };
        let (outgoing, incoming) = (keys(b'A', b'C'), keys(b'B', b'D'));
        self.send_packet(&[NEWKEYS])?;
        self.outgoing = Some(outgoing);
        self.recv_kex(NEWKEYS)?;
        self.incoming = Some(incoming);
        Ok(())
    }
}

/// Verifies the server's signature of the exchange hash (RFC 8709).
fn verify(host_key: &[u8], signature: &[u8], hash: &[u8]) -> Result<()> {
    let inner = |blob, what| {
        let mut reader = Reader::new(blob);
        match reader.string("type").map_err(wire)? {
            b"ssh-ed25519" => reader.string(what).map_err(wire),
            other => Err(fault(format!("{what} of type {}", String::from_utf8_lossy(other)))),
        }
    };
    let key = PKey::public_key_from_raw_bytes(inner(host_key, "host key")?, Id::ED25519)?;
    match Verifier::new_without_digest(&key)?.verify_oneshot(inner(signature, "signature")?, hash)? {
        true => Ok(()),
        false => Err(fault("the server's signature is wrong")),
    }
}

/// A positive number of RFC 4251 section 5.
pub fn mpint(bytes: &[u8]) -> Vec<u8> {
    let digits: Vec<u8> = bytes.iter().copied().skip_while(|&byte| byte == 0).collect();
    let sign = digits.first().is_some_and(|&byte| byte & 0x80 != 0);
    let mut out = Vec::new();
    put_u32(&mut out, (digits.len() + usize::from(sign)) as u32);
    out.extend(sign.then_some(0));
    out.extend(digits);
    out
}

/// Whether the server has ended the connection.
pub fn closed(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

/// An error of what the server said.
pub fn fault(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidData, what.into())
}

/// A field that is missing in what the server said.
pub fn wire(error: WireError) -> Error {
    fault(error.to_string())
}

/// Another packet came than the one that was waited for.
pub fn unexpected(kind: u8, packet: &[u8]) -> Error {
    fault(format!("waited for packet type {kind}, got {}: {}", packet[0], String::from_utf8_lossy(&packet[1..])))
}
