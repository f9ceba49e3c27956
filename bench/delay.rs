//! A TCP relay that delays: `bench-delay LISTEN TARGET MILLISECONDS`, both ports of 127.0.0.1, the time being the round trip's.
//!
//! Half of the time passes in each direction, and a new connection costs the whole of it before the first byte can be sent, as a TCP handshake
//! does. It is not a network: there is no loss, no limit of bandwidth, and what is on its way never fills a TCP window.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes on their way in a direction of a connection at most: 100 ms at 640 MB/s, twice what loopback carries through SSH.
const MAX_HELD: usize = 64 << 20;

/// Bytes read at once.
const CHUNK: usize = 256 << 10;

/// What is on its way in one direction; an empty piece is the end.
#[derive(Default)]
struct Pipe {
    state: Mutex<(VecDeque<(Instant, Vec<u8>)>, usize, bool)>,
    changed: Condvar,
}

impl Pipe {
    /// Reads until the end and stamps what comes.
    fn fill(&self, mut from: TcpStream) {
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = from.read(&mut buffer).unwrap_or(0);
            let mut state = self.state.lock().unwrap();
            while state.1 > MAX_HELD && !state.2 {
                state = self.changed.wait(state).unwrap();
            }
            state.0.push_back((Instant::now(), buffer[..count].to_vec()));
            state.1 += count;
            self.changed.notify_all();
            if count == 0 || state.2 {
                return;
            }
        }
    }

    /// Writes each piece when it is `delay` old.
    fn empty(&self, mut to: TcpStream, delay: Duration) {
        loop {
            let mut state = self.state.lock().unwrap();
            while state.0.is_empty() {
                state = self.changed.wait(state).unwrap();
            }
            let (stamp, piece) = state.0.pop_front().expect("looked");
            state.1 -= piece.len();
            self.changed.notify_all();
            drop(state);
            thread::sleep((stamp + delay).saturating_duration_since(Instant::now()));
            if piece.is_empty() {
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
            if to.write_all(&piece).is_err() {
                // Nobody takes it: whoever sends is told so by the end of the connection.
                self.state.lock().unwrap().2 = true;
                self.changed.notify_all();
                let _ = to.shutdown(Shutdown::Both);
                return;
            }
        }
    }
}

fn connection(client: TcpStream, target: u16, round_trip: Duration) -> std::io::Result<()> {
    let (up, down) = (Arc::<Pipe>::default(), Arc::<Pipe>::default());
    client.set_nodelay(true)?;
    thread::sleep(round_trip);
    let (pipe, stream) = (Arc::clone(&up), client.try_clone()?);
    thread::spawn(move || pipe.fill(stream));
    thread::sleep(round_trip / 2);
    let server = TcpStream::connect(("127.0.0.1", target)).inspect_err(|_| {
        let _ = client.shutdown(Shutdown::Both);
    })?;
    server.set_nodelay(true)?;
    let (pipe, stream) = (Arc::clone(&up), server.try_clone()?);
    let writer = thread::spawn(move || pipe.empty(stream, round_trip / 2));
    let (pipe, stream) = (Arc::clone(&down), server);
    thread::spawn(move || pipe.fill(stream));
    down.empty(client.try_clone()?, round_trip / 2);
    // The server has ended: the client has been told, and what it still sends goes nowhere.
    let _ = client.shutdown(Shutdown::Both);
    let _ = writer.join();
    Ok(())
}

fn main() {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    let [listen, target, milliseconds] = numbers[..] else {
        eprintln!("usage: bench-delay LISTEN TARGET MILLISECONDS");
        std::process::exit(2);
    };
    let (listen, target) = (listen as u16, target as u16);
    let listener = TcpListener::bind(("127.0.0.1", listen)).expect("the port to listen on");
    println!("listening");
    for client in listener.incoming().map_while(Result::ok) {
        thread::spawn(move || connection(client, target, Duration::from_millis(milliseconds)));
    }
}
