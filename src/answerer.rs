//! SFTP for a user who cannot be served: VERSION for INIT, then a STATUS that says why, for every request (draft sections 4 and 7).
//!
//! Pure: bytes in, bytes out. It opens nothing, lists nothing and says OK to nothing; of a request it reads the length, the type and the id.
//! The code is `SSH_FX_FAILURE`, with which FileZilla shows the server's text (with "permission denied" it does not: `scripts/clients`); `sftp`, at
//! its first request, and WinSCP show it with any code. PuTTY's psftp has sentences of its own for all codes, so that its user learns the reason
//! from standard error when the router ends the session.

use crate::sftp::reply::{FAILURE, VERSION, put_status};
use crate::sftp::{INIT, frame};
use crate::wire::{Reader, put_string, put_u32};

/// Requests that are answered. Clients give up after the first one or two, or ask for some folders and then give up; whoever asks on after
/// so many does not read the answers.
pub const MOST: u32 = 16;

/// Version of SFTP that is spoken, whatever INIT says: the one that the router knows.
const SPOKEN: u32 = 3;

/// Bytes of a packet that are looked at: length, type, id.
const LOOKED_AT: usize = frame::LENGTH_FIELD + 5;

/// Where the stream of requests stands.
pub struct Answerer {
    message: String,
    /// The beginning of a packet, as far as it has come; shorter than [`LOOKED_AT`].
    head: Vec<u8>,
    /// What is still to come of the packet that was looked at.
    skip: usize,
    begun: bool,
    answered: u32,
}

impl Answerer {
    /// For a user who is told `message`, one line.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), head: Vec::with_capacity(LOOKED_AT), skip: 0, begun: false, answered: 0 }
    }

    /// Takes the next bytes of the client and appends the answers to `out`: at most [`MOST`] in all, and one VERSION. The error is what is
    /// no SFTP in them; nothing more can be heard after it.
    pub fn hear(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        while !bytes.is_empty() {
            let passed = self.skip.min(bytes.len());
            self.skip -= passed;
            bytes = &bytes[passed..];
            let count = (LOOKED_AT - self.head.len()).min(bytes.len());
            self.head.extend_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            if self.head.len() == LOOKED_AT {
                self.answer(out)?;
                self.head.clear();
            }
        }
        Ok(())
    }

    /// Requests that were answered; INIT is none.
    pub fn answered(&self) -> u32 {
        self.answered
    }

    /// Whether [`MOST`] requests were answered: the session may end.
    pub fn is_over(&self) -> bool {
        self.answered == MOST
    }

    fn answer(&mut self, out: &mut Vec<u8>) -> Result<(), String> {
        let mut reader = Reader::new(&self.head);
        let mut field = |name| reader.u32(name).map_err(|error| error.to_string());
        let length = field("length")? as usize;
        let [kind, ..] = self.head[frame::LENGTH_FIELD..] else { return Err("no type".into()) };
        let id = u32::from_be_bytes(self.head[LOOKED_AT - 4..].try_into().map_err(|_| "no id")?);
        self.skip = length.checked_sub(LOOKED_AT - frame::LENGTH_FIELD).ok_or("sftp packet that is too short")?;
        match (kind == INIT, self.begun) {
            (true, false) => {
                self.begun = true;
                let mut body = vec![VERSION];
                put_u32(&mut body, SPOKEN);
                put_string(out, &body);
            }
            (false, true) if !self.is_over() => {
                self.answered += 1;
                put_status(out, id, FAILURE, &self.message);
            }
            (false, true) => {}
            (true, true) => return Err("a second INIT".into()),
            (false, false) => return Err(format!("the first sftp packet is of type {kind}, expected INIT")),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sftp::reply;

    const INIT_PACKET: [u8; 9] = [0, 0, 0, 5, INIT, 0, 0, 0, 3];

    fn request(kind: u8, id: u32, path: &[u8]) -> Vec<u8> {
        let mut body = vec![kind];
        put_u32(&mut body, id);
        put_string(&mut body, path);
        let mut out = Vec::new();
        put_string(&mut out, &body);
        out
    }

    fn stream(requests: u32) -> Vec<u8> {
        let requests = (0..requests).flat_map(|id| request(16 + (id % 3) as u8, id + 7, &vec![b'x'; id as usize]));
        INIT_PACKET.into_iter().chain(requests).collect()
    }

    #[test]
    fn init_gets_a_version_and_every_request_its_own_status_wherever_the_stream_is_split() {
        let sent = stream(3);
        let mut whole = Vec::new();
        Answerer::new("closed on Sundays").hear(&sent, &mut whole).unwrap();
        assert_eq!(&whole[..9], [0, 0, 0, 5, VERSION, 0, 0, 0, 3]);
        let mut reader = Reader::new(&whole[9..]);
        for id in 7..10 {
            let packet = reader.string("packet").unwrap();
            assert_eq!(packet[1..5], u32::to_be_bytes(id));
            assert_eq!(reply::status(packet).unwrap(), reply::Status { code: FAILURE, message: b"closed on Sundays" });
        }
        reader.end().unwrap();
        for size in 1..sent.len() {
            let (mut answerer, mut out) = (Answerer::new("closed on Sundays"), Vec::new());
            sent.chunks(size).for_each(|piece| answerer.hear(piece, &mut out).unwrap());
            assert_eq!((out == whole, answerer.answered()), (true, 3), "in pieces of {size}");
        }
    }

    #[test]
    fn what_it_says_is_bounded_and_ends_with_the_last_answer() {
        let (mut answerer, mut out) = (Answerer::new("no"), Vec::new());
        answerer.hear(&stream(MOST - 1), &mut out).unwrap();
        assert!(!answerer.is_over());
        answerer.hear(&request(17, 1, b"/"), &mut out).unwrap();
        let length = out.len();
        assert!(answerer.is_over());
        answerer.hear(&[0x7f, 0xff, 0xff, 0xff, 6, 0, 0, 0, 1], &mut out).unwrap();
        answerer.hear(&vec![0; 1 << 20], &mut out).unwrap();
        assert_eq!((out.len(), answerer.answered(), answerer.head.capacity()), (length, MOST, LOOKED_AT));
    }

    #[test]
    fn what_is_no_sftp_gets_no_answer() {
        let hear = |bytes: &[u8]| {
            let mut out = Vec::new();
            (Answerer::new("no").hear(bytes, &mut out).unwrap_err(), out.len())
        };
        assert_eq!(hear(&request(17, 1, b"/")), ("the first sftp packet is of type 17, expected INIT".into(), 0));
        assert_eq!(hear(&[0; 9]).1, 0);
        assert_eq!(hear(b"GET / HTTP/1.1\r\n").1, 0);
        assert_eq!(hear(&[INIT_PACKET, INIT_PACKET].concat()), ("a second INIT".into(), 9));
    }
}
