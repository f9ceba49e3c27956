//! The sockets at which the router listens: what it was given, by the service manager or by the router before it, and what it binds itself.
//!
//! A socket that was given keeps its queue: nobody who waits there is refused, and nobody notices that another process accepts now. What a
//! connection is for is not decided here.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::socket::sockopt::AcceptConn;
use nix::sys::socket::{SockaddrStorage, getsockname, getsockopt};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::error::shown;
use crate::ffi;

/// What the unit of the socket for metrics calls it (`FileDescriptorName=`, systemd.socket(5)); every other name is for SFTP.
const METRICS: &str = "metrics";

/// What a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Clients.
    Sftp,
    /// Metrics and the page.
    Metrics,
}

/// How a socket came to be here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// This process has bound it.
    Bound,
    /// The service manager has.
    Given,
    /// The router before this one has passed it on.
    Taken,
}

impl Origin {
    /// Its word in the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bound => "bound",
            Self::Given => "given",
            Self::Taken => "taken",
        }
    }
}

/// A TCP socket that listens and never blocks.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    /// Where.
    pub address: SocketAddr,
    /// What for.
    pub role: Role,
    /// How it came here.
    pub origin: Origin,
    /// Whether a service manager has opened it, now or for a router before this one: then that one says where, not our settings.
    pub managed: bool,
}

impl Listener {
    /// Takes a socket that was opened elsewhere; what does not listen for TCP is an error.
    pub fn take(socket: OwnedFd, role: Role, origin: Origin, managed: bool) -> Result<Self, String> {
        let is_tcp = getsockname::<SockaddrStorage>(std::os::fd::AsRawFd::as_raw_fd(&socket))
            .is_ok_and(|name| name.as_sockaddr_in().is_some() || name.as_sockaddr_in6().is_some());
        if !is_tcp || !getsockopt(&socket, AcceptConn).unwrap_or(false) {
            return Err("expected a TCP socket that listens (ListenStream=, Accept=no)".into());
        }
        Self::new(TcpListener::from(socket), role, origin, managed).map_err(|error| error.to_string())
    }

    fn new(socket: TcpListener, role: Role, origin: Origin, managed: bool) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address, role, origin, managed })
    }

    /// Binds an address. The error is the kernel's, without the address.
    pub fn bind(address: SocketAddr, role: Role) -> io::Result<Self> {
        Self::new(TcpListener::bind(address)?, role, Origin::Bound, false)
    }

    /// The next connection, which may block; an error of the kind `WouldBlock`: nobody waits.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.socket.accept()
    }

    /// Whether it is what somebody would get who binds this address; port 0 is any.
    fn serves(&self, address: SocketAddr) -> bool {
        self.address.ip() == address.ip() && (self.address.port() == address.port() || address.port() == 0)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Sockets that were given and are not yet used. Dropping it closes the rest.
#[derive(Debug, Default)]
pub struct Supply(Vec<Listener>);

impl Supply {
    /// What the service manager has opened for this process (sd_listen_fds(3)). To be called first of all, once.
    pub fn of_manager() -> Result<Self, String> {
        let given = ffi::given_descriptors()?;
        let take = |(socket, name): (OwnedFd, String)| {
            let role = if name == METRICS { Role::Metrics } else { Role::Sftp };
            let taken = Listener::take(socket, role, Origin::Given, true);
            taken.map_err(|reason| format!("the socket \"{}\" of the service manager: {reason}", shown(&name)))
        };
        given.into_iter().map(take).collect::<Result<_, _>>().map(Self)
    }

    /// What the router before has passed on. A service manager's socket that came both ways is the same one.
    pub fn add(&mut self, taken: Vec<Listener>) {
        let known: Vec<_> = self.0.iter().map(|listener| (listener.role, listener.address)).collect();
        self.0.extend(taken.into_iter().filter(|listener| !known.contains(&(listener.role, listener.address))));
    }

    /// The sockets for clients: what a service manager has opened, else the configured addresses, or all of them: `::` for both families where
    /// the machine has IPv6, else `0.0.0.0`.
    pub fn sftp(&mut self, config: &Config) -> Result<Vec<Listener>, String> {
        let managed = self.take(|listener| listener.role == Role::Sftp && listener.managed);
        if !managed.is_empty() {
            return Ok(managed);
        }
        if !config.addresses.is_empty() {
            return config.addresses.iter().map(|&address| self.at(address, config.port)).collect();
        }
        self.at(Ipv6Addr::UNSPECIFIED.into(), config.port)
            .or_else(|reason| self.at(Ipv4Addr::UNSPECIFIED.into(), config.port).map_err(|_| reason))
            .map(|listener| vec![listener])
    }

    /// The socket for metrics, if there is to be one.
    pub fn metrics(&mut self, config: &Config) -> Result<Option<Listener>, String> {
        let address = config.monitor.address;
        let found = address.and_then(|address| self.one(Role::Metrics, address));
        if let Some(left) = self.0.iter().find(|listener| listener.role == Role::Metrics && listener.managed) {
            return Err(format!(
                "the service manager's socket for metrics is at {}: set SFTPPROXY_METRICS_ADDRESS to that",
                left.address
            ));
        }
        match (found, address) {
            (None, Some(address)) => {
                let bound = Listener::bind(address, Role::Metrics);
                bound.map(Some).map_err(|error| format!("SFTPPROXY_METRICS_ADDRESS = {address}: {error}"))
            }
            (found, _) => Ok(found),
        }
    }

    fn at(&mut self, address: IpAddr, port: u16) -> Result<Listener, String> {
        let address = SocketAddr::new(address, port);
        if let Some(found) = self.one(Role::Sftp, address) {
            return Ok(found);
        }
        Listener::bind(address, Role::Sftp).map_err(|error| match error.kind() {
            ErrorKind::AddrInUse => {
                format!("{address}: {error}; is the router already running? SFTPPROXY_PORT chooses another port")
            }
            _ => format!("{address}: {error}"),
        })
    }

    fn one(&mut self, role: Role, address: SocketAddr) -> Option<Listener> {
        let at = self.0.iter().position(|listener| listener.role == role && listener.serves(address))?;
        Some(self.0.swap_remove(at))
    }

    fn take(&mut self, wanted: impl Fn(&Listener) -> bool) -> Vec<Listener> {
        let (taken, left) = std::mem::take(&mut self.0).into_iter().partition(wanted);
        self.0 = left;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(given: &[(&str, &str)]) -> Config {
        let get = |flag: &str| given.iter().find(|(name, _)| *name == flag).map(|(_, value)| (*value).to_owned());
        Config::parse(&get, &|_| None).unwrap()
    }

    fn taken(address: &str, role: Role, managed: bool) -> Listener {
        let socket = TcpListener::bind(address).unwrap();
        Listener::take(socket.into(), role, Origin::Taken, managed).unwrap()
    }

    #[test]
    fn what_is_there_is_used_what_is_not_is_bound_and_the_rest_is_closed() {
        let (one, two) = (taken("127.0.0.1:0", Role::Sftp, false), taken("127.0.0.2:0", Role::Sftp, false));
        let (port, gone) = (one.address.port().to_string(), two.address);
        let mut supply = Supply(vec![one, two]);
        let settings = config(&[("address", "127.0.0.1,127.0.0.3"), ("port", &port)]);
        let listeners = supply.sftp(&settings).unwrap();
        let found: Vec<_> = listeners.iter().map(|listener| (listener.address.ip().to_string(), listener.origin)).collect();
        assert_eq!(found, [("127.0.0.1".into(), Origin::Taken), ("127.0.0.3".into(), Origin::Bound)]);
        TcpStream::connect(gone).expect("not yet closed");
        drop(supply);
        assert!(TcpStream::connect(gone).is_err());
    }

    #[test]
    fn a_managers_sockets_are_used_whatever_the_settings_say_and_its_metrics_must_be_meant() {
        let mut supply = Supply(vec![taken("127.0.0.1:0", Role::Sftp, true), taken("127.0.0.1:0", Role::Metrics, true)]);
        let metrics = supply.0[1].address.to_string();
        assert_eq!(supply.sftp(&config(&[("address", "192.0.2.1"), ("port", "22")])).unwrap().len(), 1);
        assert!(supply.metrics(&config(&[])).unwrap_err().contains(&metrics));
        assert!(supply.metrics(&config(&[("metrics-address", "127.0.0.2:1")])).unwrap_err().contains(&metrics));
        assert_eq!(supply.metrics(&config(&[("metrics-address", &metrics)])).unwrap().unwrap().address.to_string(), metrics);
    }

    #[test]
    fn what_does_not_listen_for_tcp_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let local = std::os::unix::net::UnixListener::bind(folder.path().join("s")).unwrap();
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        for socket in [local.into(), udp.into(), connected.into(), std::fs::File::open("/dev/null").unwrap().into()] {
            assert!(Listener::take(socket, Role::Sftp, Origin::Given, true).unwrap_err().contains("Accept=no"));
        }
    }
}
