//! A TCP relay in front of an upstream that fails when a test wants it: after a number of bytes from the upstream it falls silent or
//! hangs up. It also notes where the upstream's pieces ended, so that a test can fail at each of them.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What happens at the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Nothing more comes from the upstream, and the connection stays.
    Silence,
    /// The connection is closed.
    HangUp,
}

/// A relay to one upstream; its threads end with its connections.
pub struct Relay {
    /// Where it listens.
    pub port: u16,
    pieces: Arc<Mutex<Vec<usize>>>,
}

impl Relay {
    /// Lets `limit` bytes of each connection pass from the upstream on this port.
    pub fn start(upstream: u16, limit: usize, then: Then) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), upstream, limit, then)
    }

    /// The same, listening at this address only.
    pub fn start_at(address: IpAddr, upstream: u16, limit: usize, then: Then) -> Self {
        let listener = TcpListener::bind((address, 0)).expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let pieces = Arc::<Mutex<Vec<usize>>>::default();
        let noted = Arc::clone(&pieces);
        std::thread::spawn(move || {
            for downstream in listener.incoming().map_while(Result::ok) {
                let upstream = TcpStream::connect(("127.0.0.1", upstream)).expect("the upstream");
                let noted = Arc::clone(&noted);
                let (mut from, mut to) =
                    (downstream.try_clone().expect("a descriptor"), upstream.try_clone().expect("a descriptor"));
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
                });
                std::thread::spawn(move || back(upstream, downstream, (limit, then), &noted));
            }
        });
        Self { port, pieces }
    }

    /// How many bytes had come from the upstream after each of its pieces, over all connections.
    pub fn pieces(&self) -> Vec<usize> {
        self.pieces.lock().unwrap().clone()
    }
}

fn back(mut upstream: TcpStream, mut downstream: TcpStream, (limit, then): (usize, Then), noted: &Mutex<Vec<usize>>) {
    let mut buffer = vec![0; 64 * 1024];
    let mut come = 0;
    // Silent or not, it reads on: it is the upstream that is silent to who looks from the other side.
    while let Ok(count @ 1..) = upstream.read(&mut buffer) {
        let pass = count.min(limit.saturating_sub(come));
        come += count;
        noted.lock().unwrap().push(come);
        if downstream.write_all(&buffer[..pass]).is_err() || (come >= limit && then == Then::HangUp) {
            break;
        }
    }
    let _ = upstream.shutdown(Shutdown::Both);
    if come < limit || then == Then::HangUp {
        let _ = downstream.shutdown(Shutdown::Both);
    }
}
