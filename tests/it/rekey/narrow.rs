//! A relay over which little passes at once.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, connect, listen, setsockopt, socket, sockopt,
};

use crate::random::Random;

/// A relay that takes and gives little at a time: both its sockets have small buffers and small segments, and each piece has a random
/// size. What the router sends often finds no room, in the middle of a packet or of a key exchange.
pub struct Narrow {
    /// Where it listens.
    pub port: u16,
}

/// How narrow.
#[derive(Debug, Clone, Copy)]
pub struct Width {
    /// Bytes of each socket's buffers, before the kernel doubles them.
    buffer: usize,
    /// Bytes of a segment, which bound what the other side's kernel takes ahead.
    segment: u32,
    /// Bytes of a piece at most.
    piece: usize,
}

impl Width {
    /// One of 27.
    pub fn of(random: &mut Random) -> Self {
        let one = |random: &mut Random, list: [usize; 3]| list[random.below(3)];
        Self {
            buffer: one(random, [2048, 4096, 16384]),
            segment: one(random, [536, 1448, 8192]) as u32,
            piece: one(random, [500, 3000, 20000]),
        }
    }
}

impl Narrow {
    /// Between who connects to it and this port.
    pub fn start(to: u16, width: Width, seed: u64) -> Self {
        let socket = narrow_socket(width);
        bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))).expect("a free port");
        listen(&socket, Backlog::new(16).unwrap()).expect("a socket that listens");
        let listener = TcpListener::from(socket);
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for (number, near) in (0..).zip(listener.incoming().map_while(Result::ok)) {
                let socket = narrow_socket(width);
                let to = SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::LOCALHOST, to));
                if connect(socket.as_raw_fd(), &to).is_err() {
                    break;
                }
                let far = TcpStream::from(socket);
                for (direction, [from, to]) in [[&near, &far], [&far, &near]].into_iter().enumerate() {
                    let (from, to) = (from.try_clone().expect("a descriptor"), to.try_clone().expect("a descriptor"));
                    let random = Random((seed << 8 | number << 1 | direction as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
                    std::thread::spawn(move || pass(from, to, width.piece, random));
                }
            }
        });
        Self { port }
    }
}

fn narrow_socket(width: Width) -> OwnedFd {
    let made = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
    setsockopt(&made, sockopt::RcvBuf, &width.buffer).expect("SO_RCVBUF");
    setsockopt(&made, sockopt::SndBuf, &width.buffer).expect("SO_SNDBUF");
    setsockopt(&made, sockopt::TcpMaxSeg, &width.segment).expect("TCP_MAXSEG");
    setsockopt(&made, sockopt::TcpNoDelay, &true).expect("TCP_NODELAY");
    made
}

fn pass(mut from: TcpStream, mut to: TcpStream, piece: usize, mut random: Random) {
    let mut buffer = vec![0; piece];
    while let Ok(count @ 1..) = from.read(&mut buffer[..1 + random.below(piece)]) {
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
