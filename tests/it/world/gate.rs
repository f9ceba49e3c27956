//! A gate before an upstream that goes away and comes back.

use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

/// A relay to an upstream that goes away and comes back, perhaps at another port; its threads end with its connections.
pub struct Gate {
    /// Where it listens.
    pub port: u16,
    /// 0 = shut.
    to: Arc<AtomicU16>,
    live: Arc<Mutex<Vec<TcpStream>>>,
}

impl Gate {
    /// To the upstream on this port.
    pub fn start(upstream: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let (to, live) = (Arc::new(AtomicU16::new(upstream)), Arc::<Mutex<Vec<TcpStream>>>::default());
        let gate = Self { port, to: Arc::clone(&to), live: Arc::clone(&live) };
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                // Under the lock: who has shut it has no connection afterwards.
                let mut live = live.lock().unwrap();
                let port = to.load(Ordering::SeqCst);
                let Some(far) = Some(port).filter(|port| *port > 0).and_then(|port| TcpStream::connect(("127.0.0.1", port)).ok())
                else {
                    continue;
                };
                let both = [near, far];
                live.extend(both.iter().map(|stream| stream.try_clone().expect("a descriptor")));
                for [from, to] in [[0, 1], [1, 0]] {
                    let clone = |at: usize| both[at].try_clone().expect("a descriptor");
                    let (mut from, mut to) = (clone(from), clone(to));
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
                    });
                }
            }
        });
        gate
    }

    /// Cuts every connection; the upstream's processes live on.
    pub fn cut(&self) {
        let streams = std::mem::take(&mut *self.live.lock().unwrap());
        streams.iter().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
    }

    /// Cuts every connection and takes none until it is led somewhere again.
    pub fn shut(&self) {
        self.to.store(0, Ordering::SeqCst);
        self.cut();
    }

    /// Leads to the upstream on this port.
    pub fn lead(&self, upstream: u16) {
        self.to.store(upstream, Ordering::SeqCst);
    }
}
