//! The PROXY protocol's header, versions 1 and 2 (proxy-protocol.txt of HAProxy): what a balancer says in front of a connection's first
//! byte about where it comes from, and what we say to an upstream.
//!
//! Pure. [`missing`] frames, byte by byte and bounded, so that nothing of what follows is taken; the crate proxy-header reads and writes
//! what is inside. Whom to believe is decided elsewhere.

use std::net::SocketAddr;

use proxy_header::{ParseConfig, Protocol, ProxiedAddress, ProxyHeader};

/// How version 2 begins.
const V2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// How version 1 begins.
const V1: &[u8; 6] = b"PROXY ";

/// Shortest header: `PROXY UNKNOWN` and a line end.
const LEAST: usize = 15;

/// Longest header of version 1, its line end included (section 2.1).
const MAX_V1: usize = 107;

/// Longest header of version 2 that is taken: addresses and what balancers add, certificates of a client included.
const MAX_V2: usize = 16 + 4096;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The client's address, and the one that it has connected to.
    Client(SocketAddr, SocketAddr),
    /// The balancer itself, to see whether we are there; or it does not know.
    Balancer,
}

/// How many bytes more are needed for certain; 0 = the header is complete. An error as soon as it cannot become one any more.
pub fn missing(have: &[u8]) -> Result<usize, String> {
    let begins = |with: &[u8]| have.iter().zip(with).all(|(one, other)| one == other);
    if begins(V2) {
        return match have.get(14..16) {
            None => Ok(if have.len() < LEAST { LEAST } else { 16 } - have.len()),
            Some(length) => {
                let whole = 16 + usize::from(u16::from_be_bytes([length[0], length[1]]));
                if whole > MAX_V2 {
                    Err(format!("{whole} bytes, at most {MAX_V2}"))
                } else {
                    Ok(whole.saturating_sub(have.len()))
                }
            }
        };
    }
    if !begins(V1) {
        return Err("the connection does not begin with one".into());
    }
    match have.len() {
        length if length < LEAST => Ok(LEAST - length),
        _ if have.ends_with(b"\r\n") => Ok(0),
        MAX_V1.. => Err(format!("a line of more than {MAX_V1} bytes")),
        _ => Ok(1),
    }
}

/// Reads a complete header.
pub fn parse(header: &[u8]) -> Result<Origin, String> {
    let config = ParseConfig { include_tlvs: false, ..ParseConfig::default() };
    let (read, length) = ProxyHeader::parse(header, config).map_err(|_| "it cannot be read".to_owned())?;
    // The crate is content with a version 1 without the blank, and with bytes behind UNKNOWN and after the end.
    if missing(header) != Ok(0) || length != header.len() {
        return Err("it cannot be read".into());
    }
    match read.proxied_address() {
        None => Ok(Origin::Balancer),
        Some(ProxiedAddress { protocol: Protocol::Stream, source, destination }) => {
            Ok(Origin::Client(plain(*source), plain(*destination)))
        }
        Some(_) => Err("it is for datagrams".into()),
    }
}

/// A header of version 2 for a client's connection. `None` = the addresses are not of one family.
pub fn header(source: SocketAddr, destination: SocketAddr) -> Option<Vec<u8>> {
    let (source, destination) = (plain(source), plain(destination));
    let mut bytes = Vec::new();
    let header = ProxyHeader::with_address(ProxiedAddress::stream(source, destination));
    (source.is_ipv4() == destination.is_ipv4()).then_some(())?;
    header.encode_v2(&mut bytes).ok()?;
    Some(bytes)
}

/// An IPv4 address that came as IPv6 is an IPv4 address.
pub fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(source: &str, destination: &str) -> Origin {
        Origin::Client(source.parse().unwrap(), destination.parse().unwrap())
    }

    /// Reads a header as a socket gives it, and checks that nothing behind it is taken.
    fn read(bytes: &[u8]) -> Result<Origin, String> {
        let mut have = Vec::new();
        loop {
            let more = missing(&have)?;
            if more == 0 {
                return parse(&have);
            }
            let next = bytes.get(have.len()..have.len() + more).ok_or("cut")?;
            have.extend_from_slice(next);
        }
    }

    #[test]
    fn headers_of_both_versions_and_families_are_read_to_their_last_byte() {
        for (header, origin) in [
            (&b"PROXY TCP4 203.0.113.7 192.0.2.1 5555 22\r\n"[..], addresses("203.0.113.7:5555", "192.0.2.1:22")),
            (b"PROXY TCP6 2001:db8::7 2001:db8::1 5555 22\r\n", addresses("[2001:db8::7]:5555", "[2001:db8::1]:22")),
            (b"PROXY TCP6 ::ffff:203.0.113.7 ::ffff:192.0.2.1 5555 22\r\n", addresses("203.0.113.7:5555", "192.0.2.1:22")),
            (b"PROXY UNKNOWN\r\n", Origin::Balancer),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", Origin::Balancer),
            (b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", Origin::Balancer),
            (
                b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x07\xc0\0\x02\x01\x15\xb3\0\x16",
                addresses("203.0.113.7:5555", "192.0.2.1:22"),
            ),
            (
                b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x11\xcb\0\x71\x07\xc0\0\x02\x01\x15\xb3\0\x16\x04\0\x02xy",
                addresses("203.0.113.7:5555", "192.0.2.1:22"),
            ),
        ] {
            assert_eq!(read(header).as_ref(), Ok(&origin), "{}", header.escape_ascii());
            let with_more = [header, b"SSH-2.0-x\r\n"].concat();
            assert_eq!(read(&with_more), Ok(origin));
            for cut in 0..header.len() {
                assert_eq!(read(&header[..cut]), Err("cut".into()), "{}", header[..cut].escape_ascii());
            }
        }
    }

    #[test]
    fn what_is_no_header_is_refused_at_the_first_byte_that_shows_it() {
        for bad in [
            &b"SSH-2.0-OpenSSH_9.2p1\r\n"[..],
            b"PROXYTCP4 203.0.113.7 192.0.2.1 5555 22\r\n",
            b"PROXY TCP4 203.0.113.7 192.0.2.1 5555 66666\r\n",
            b"PROXY TCP4 2001:db8::7 192.0.2.1 5555 22\r\n",
            b"PROXY TCP4 203.0.113.7 192.0.2.1 5555\r\n",
            b"PROXY UDP4 203.0.113.7 192.0.2.1 5555 22\r\n",
            b"\r\n\r\n\0\r\nQUIT\n\x11\x11\0\x0c\xcb\0\x71\x07\xc0\0\x02\x01\x15\xb3\0\x16",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x0c\xcb\0\x71\x07\xc0\0\x02\x01\x15\xb3\0\x16",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x04\xcb\0\x71\x07",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
            &[b"PROXY TCP4 ".to_vec(), vec![b'1'; 200]].concat(),
        ] {
            let refused = read(bad).unwrap_err();
            assert_ne!(refused, "cut", "{}", bad.escape_ascii());
        }
        assert!(missing(b"S").is_err() && missing(b"PROXYX").is_err() && missing(b"\r\n\r\n\0\r\nQUIX").is_err());
    }

    #[test]
    fn what_we_write_is_what_we_read() {
        for (source, destination) in [("203.0.113.7:5555", "192.0.2.1:22"), ("[2001:db8::7]:5555", "[2001:db8::1]:22")] {
            let written = header(source.parse().unwrap(), destination.parse().unwrap()).unwrap();
            assert_eq!(read(&written), Ok(addresses(source, destination)));
        }
        let mapped = header("[::ffff:203.0.113.7]:5555".parse().unwrap(), "192.0.2.1:22".parse().unwrap()).unwrap();
        assert_eq!(mapped.len(), 28);
        assert_eq!(header("[2001:db8::7]:5555".parse().unwrap(), "192.0.2.1:22".parse().unwrap()), None);
    }
}
