//! What stands in front of a redis-server, or in its place, and says what a test wants to clients.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What clients hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// What the server says.
    Honest,
    /// The same, each piece so much later.
    Late(Duration),
    /// This, at each piece of what they say, in the place of an answer.
    Instead(&'static [u8]),
    /// The same, and then the end.
    Last(&'static [u8]),
    /// This, at what either of them says next, and then the other without end, as fast as the client takes it.
    Endless(&'static [u8], &'static [u8]),
    /// The same, but then a byte at a time, so long after the last.
    Drip(&'static [u8], Duration),
}

/// The front. Its threads end with its connections.
pub struct Front {
    /// Where it listens on 127.0.0.1.
    pub port: u16,
    mode: Arc<Mutex<Mode>>,
}

impl Front {
    /// An honest one in front of the server at this port.
    pub fn start(to: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let mode = Arc::new(Mutex::new(Mode::Honest));
        let shared = Arc::clone(&mode);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                let (of_client, of_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let (up, down) = (Arc::clone(&shared), Arc::clone(&shared));
                std::thread::spawn(move || hear(&client, &server, &up));
                std::thread::spawn(move || answer(&of_server, &of_client, &down));
            }
        });
        Self { port, mode }
    }

    /// From now on, on connections that are there too.
    pub fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }
}

/// What the client says: to the server, or answered here.
fn hear(mut client: &TcpStream, mut server: &TcpStream, mode: &Mutex<Mode>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = client.read(&mut buffer) {
        let now = *mode.lock().unwrap();
        let done = match now {
            Mode::Honest | Mode::Late(_) => server.write_all(&buffer[..count]),
            Mode::Instead(bytes) => client.write_all(bytes),
            Mode::Last(bytes) => client.write_all(bytes).and_then(|()| Err(std::io::ErrorKind::Other.into())),
            Mode::Endless(..) | Mode::Drip(..) => go_on(client, mode),
        };
        if done.is_err() {
            break;
        }
    }
    let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
}

/// What the server says: to the client, now or later, or to nobody.
fn answer(mut server: &TcpStream, mut client: &TcpStream, mode: &Mutex<Mode>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = server.read(&mut buffer) {
        let now = *mode.lock().unwrap();
        let done = match now {
            Mode::Late(late) => {
                std::thread::sleep(late);
                client.write_all(&buffer[..count])
            }
            Mode::Honest => client.write_all(&buffer[..count]),
            Mode::Instead(_) | Mode::Last(_) => Ok(()),
            Mode::Endless(..) | Mode::Drip(..) => go_on(client, mode),
        };
        if done.is_err() {
            break;
        }
    }
    let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
}

/// Speaks without end: until the client has gone, or another mode is set, which ends the connection.
fn go_on(mut client: &TcpStream, mode: &Mutex<Mode>) -> std::io::Result<()> {
    let now = || *mode.lock().unwrap();
    let first = now();
    let (head, piece, pause) = match first {
        Mode::Endless(head, then) => (head, then.repeat(64 * 1024 / then.len()), Duration::ZERO),
        Mode::Drip(head, pause) => (head, b"a".to_vec(), pause),
        _ => return Ok(()),
    };
    client.write_all(head)?;
    while now() == first {
        client.write_all(&piece)?;
        std::thread::sleep(pause);
    }
    Err(std::io::ErrorKind::Other.into())
}
