//! Reads from a balancer's connection what stands before the first byte of SSH: within a time, and not one byte more than the header.

use std::io::{ErrorKind, Read as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

use crate::error::Side;
use crate::proxy::{Origin, missing, parse};
use crate::relay::Control;

/// How long a balancer may take: it sends the header with its first packet.
const HEADER: Duration = Duration::from_secs(5);

/// The two ends of a client's connection, wherever it was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// The client's address.
    pub client: SocketAddr,
    /// The address that the client has connected to.
    pub reached: SocketAddr,
}

/// Reads the header of a connection that is non-blocking and has not been read from. `None` = the balancer speaks for itself. The
/// downstream's thread is the one that waits; `control` may end it.
pub fn read(stream: &TcpStream, deadline: Instant, control: &Control) -> Result<Option<Ends>, String> {
    let until = deadline.min(Instant::now() + HEADER);
    let mut header = Vec::new();
    loop {
        let more = missing(&header)?;
        if more == 0 {
            break;
        }
        let mut piece = vec![0; more];
        match (&mut &*stream).read(&mut piece) {
            Ok(0) => return Err("the connection ended before it was complete".into()),
            Ok(count) => header.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if control.is_cut() {
                    return Err("cut".into());
                }
                if until <= Instant::now() {
                    return Err(format!("not complete within {} s", HEADER.as_secs()));
                }
                let wake = control.wake_of(Side::Downstream);
                wake.sleep(stream.as_raw_fd(), PollFlags::POLLIN, Some(until), || !control.is_cut())?;
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(match parse(&header)? {
        Origin::Client(client, reached) => Some(Ends { client, reached }),
        Origin::Balancer => None,
    })
}
