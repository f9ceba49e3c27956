//! Whether the libssh that is loaded checks the tags of AES-GCM, found out by trying. Its version does not tell: CVE-2026-59847 is in 0.10, 0.11
//! before 0.11.5 and 0.12.0, and distributions have mended it in some builds of the same version.
//!
//! A server and a client of libssh exchange keys over sockets in memory; then the last bit of the server's first encrypted packet, which is
//! one of its tag, is flipped, and the client says whether it minds. All in one thread: neither blocks.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::{Bind, BindOptions, ClientOptions, ClientSession, PrivateKey, ServerSession};

/// Time for a trial, which takes some milliseconds. One that is not over by then has failed.
const LIMIT: Duration = Duration::from_secs(10);

/// Steps of the client for one of the server: it has handled all that came before more is given to it.
const STEPS: usize = 8;

const CIPHER: &str = "aes256-gcm@openssh.com";
const MAC: &str = "hmac-sha2-256";
const KEX: &str = "curve25519-sha256,ecdh-sha2-nistp256,diffie-hellman-group14-sha256";
const KEY: &str = "ssh-ed25519";

/// Whether libssh refuses AES-GCM's packets whose tag is wrong, and takes those whose tag is right. Tried once; `false` when the trial fails.
pub fn checks_gcm_tags() -> bool {
    static CHECKS: OnceLock<bool> = OnceLock::new();
    *CHECKS.get_or_init(|| matches!((takes(false), takes(true)), (Ok(true), Ok(false))))
}

/// Whether a client takes the server's first encrypted packet, with a bit of its tag flipped or without.
fn takes(flip: bool) -> Result<bool, String> {
    let options = BindOptions {
        ciphers: CIPHER,
        macs: MAC,
        kex: KEX,
        host_key_algorithms: KEY,
        pubkey_algorithms: KEY,
        rsa_min_bits: 2048,
        software: "trial",
    };
    let bind = Bind::new(vec![PrivateKey::new_ed25519()?], &options)?;
    let (near, mut to_server) = pair()?;
    let mut server = ServerSession::new(&bind, near, None, Box::new(|_| false))?;
    let (near, mut to_client) = pair()?;
    let of_client = ClientOptions { ciphers: CIPHER, macs: MAC, kex: KEX, host_key_algorithms: KEY, pubkey_algorithms: KEY };
    let mut client = ClientSession::new(near, &of_client)?;

    let (mut server_keyed, mut client_keyed) = (false, false);
    let until = Instant::now() + LIMIT;
    while Instant::now() < until {
        for _ in 0..STEPS {
            if !client_keyed && client.connect()? {
                client_keyed = true;
                client.drive()?;
            } else if client_keyed {
                client.advance()?;
            }
        }
        pass(&mut to_client, &mut to_server)?;
        if server_keyed {
            server.advance()?;
        } else {
            server_keyed = server.exchange()?;
        }
        let mut said = heard(&mut to_server)?;
        if !client_keyed || said.is_empty() {
            to_client.write_all(&said).map_err(|error| error.to_string())?;
            continue;
        }
        // Sent behind the server's NEWKEYS: EXT_INFO (RFC 8308).
        if let Some(last) = said.last_mut() {
            *last ^= u8::from(flip);
        }
        to_client.write_all(&said).map_err(|error| error.to_string())?;
        return Ok((0..STEPS).all(|_| client.advance().is_ok() && !client.failed()));
    }
    Err("no key exchange".into())
}

/// An end for libssh, which takes any stream socket, and ours.
fn pair() -> Result<(TcpStream, UnixStream), String> {
    let says = |error: std::io::Error| format!("socketpair: {error}");
    let (near, far) = UnixStream::pair().map_err(says)?;
    near.set_nonblocking(true).and_then(|()| far.set_nonblocking(true)).map_err(says)?;
    Ok((TcpStream::from(OwnedFd::from(near)), far))
}

fn pass(from: &mut UnixStream, to: &mut UnixStream) -> Result<(), String> {
    let bytes = heard(from)?;
    to.write_all(&bytes).map_err(|error| error.to_string())
}

/// What has come.
fn heard(from: &mut UnixStream) -> Result<Vec<u8>, String> {
    let mut bytes = vec![0; 64 * 1024];
    match from.read(&mut bytes) {
        Ok(count) => bytes.truncate(count),
        Err(error) if error.kind() == ErrorKind::WouldBlock => bytes.clear(),
        Err(error) => return Err(error.to_string()),
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_with_its_right_tag_is_taken() {
        crate::ffi::init().unwrap();
        assert_eq!(takes(false), Ok(true));
        // With the wrong one it depends on the libssh, but the trial comes to an end.
        assert_eq!(takes(true).map(|taken| !taken), Ok(checks_gcm_tags()));
    }
}
