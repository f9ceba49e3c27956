//! Bytes to and from a server of Redis until a given moment: over TCP or a Unix socket, with TLS where it is asked for.
//!
//! The moment ends everything: connecting, the handshake of TLS, each read and each write. A socket's own time limit is for one call, and who sends a byte
//! now and then never meets it. Only the resolver has limits of its own. Not here: what the bytes mean, which is [`super::connection`]'s.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use redis::{ConnectionAddr, ErrorKind, RedisResult};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// How much later than the moment a read may end: the kernel is not told anew before each one.
const SLACK: Duration = Duration::from_millis(10);

/// A connected socket.
pub enum Socket {
    /// As it is.
    Bare(Timed),
    /// With TLS around everything.
    Tls(Box<StreamOwned<ClientConnection, Timed>>),
}

impl Socket {
    /// Connects, the handshake of TLS included.
    pub fn connect(to: &ConnectionAddr, until: Instant) -> RedisResult<Self> {
        let (host, port, tls) = match to {
            ConnectionAddr::Tcp(host, port) => (host, *port, false),
            ConnectionAddr::TcpTls { host, port, .. } => (host, *port, true),
            ConnectionAddr::Unix(path) => return Ok(Self::Bare(Timed::unix(path, until)?)),
            _ => return Err((ErrorKind::InvalidClientConfig, "an address of another kind").into()),
        };
        let mut bare = Timed::tcp(host, port, until)?;
        if !tls {
            return Ok(Self::Bare(bare));
        }
        let name = ServerName::try_from(host.as_str())?.to_owned();
        let mut session = ClientConnection::new(Arc::new(tls_config()?), name)?;
        session.complete_io(&mut bare)?;
        Ok(Self::Tls(Box::new(StreamOwned::new(session, bare))))
    }

    /// Another moment, from now on.
    pub fn set_until(&mut self, until: Instant) {
        match self {
            Self::Bare(bare) => bare.until = until,
            Self::Tls(stream) => stream.sock.until = until,
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Bare(bare) => bare.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Bare(bare) => bare.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Bare(bare) => bare.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// Read anew for each connection, so that a new CA needs no restart.
fn tls_config() -> RedisResult<ClientConfig> {
    let mut found = rustls_native_certs::load_native_certs();
    if let Some(error) = found.errors.pop() {
        return Err(error.into());
    }
    let mut roots = RootCertStore::empty();
    for certificate in found.certs {
        roots.add(certificate)?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider())).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// A socket, and the moment at which it is of no use any more; what would be later fails with [`io::ErrorKind::TimedOut`].
pub struct Timed {
    socket: OwnedFd,
    until: Instant,
    /// The time limit of a read that the kernel knows; zero = none yet.
    armed: Duration,
}

impl Timed {
    fn new(socket: OwnedFd, until: Instant) -> Self {
        Self { socket, until, armed: Duration::ZERO }
    }

    /// To the first of a host's addresses that takes it; each has its share of the time.
    fn tcp(host: &str, port: u16, until: Instant) -> RedisResult<Self> {
        // The kernel would take them for this machine.
        if ["0.0.0.0", "::"].contains(&host) {
            return Err((ErrorKind::InvalidClientConfig, "0.0.0.0 and :: are no addresses to connect to").into());
        }
        let addresses: Vec<_> = (host, port).to_socket_addrs()?.collect();
        let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for (number, address) in addresses.iter().enumerate() {
            match TcpStream::connect_timeout(address, left(until)? / (addresses.len() - number) as u32) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(Self::new(stream.into(), until));
                }
                Err(error) => failed = error,
            }
        }
        Err(failed.into())
    }

    fn unix(path: &Path, until: Instant) -> io::Result<Self> {
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        // For connect(2) too, which waits while the server's queue is full.
        set_socket_timeout(&socket, Timeout::Send, Some(left(until)?))?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)
            .map_err(|errno| fault(Errno::from_raw(errno.raw_os_error())))?;
        Ok(Self::new(socket, until))
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let left = left(self.until)?;
            if self.armed.abs_diff(left) > SLACK || self.armed.is_zero() {
                set_socket_timeout(&self.socket, Timeout::Recv, Some(left))?;
                self.armed = left;
            }
            match recv(self.socket.as_raw_fd(), buffer, MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                done => return done.map_err(fault),
            }
        }
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Nearly always there is room.
        let mut flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        loop {
            match send(self.socket.as_raw_fd(), bytes, flags) {
                Err(Errno::EAGAIN) if flags.contains(MsgFlags::MSG_DONTWAIT) => {
                    set_socket_timeout(&self.socket, Timeout::Send, Some(left(self.until)?))?;
                    flags = MsgFlags::MSG_NOSIGNAL;
                }
                Err(Errno::EINTR) => {}
                done => return done.map_err(fault),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is left until then, at least so much that it is not taken for no limit at all.
fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left.max(Duration::from_millis(1))) }
}

/// A time limit that was met is what it is called everywhere.
fn fault(errno: Errno) -> io::Error {
    if errno == Errno::EAGAIN { io::ErrorKind::TimedOut.into() } else { errno.into() }
}
