//! The digest of a file's content as it passes, for transfers that go from its beginning to its end.

use sha2::{Digest as _, Sha256};

use crate::event::Hash;

/// Which digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// SHA-256, which every system can check with sha256sum(1).
    Sha256,
    /// BLAKE3, several times as fast.
    Blake3,
}

impl Algorithm {
    /// The one of that name: `sha256` or `blake3`.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "sha256" => Some(Self::Sha256),
            "blake3" => Some(Self::Blake3),
            _ => None,
        }
    }
}

/// A digest that grows. It holds no content: bytes that do not come where the last ones ended make it unavailable for good.
#[derive(Debug, Clone)]
pub struct Hasher {
    state: State,
    next: u64,
}

#[derive(Debug, Clone)]
enum State {
    Sha256(Sha256),
    /// In a box: it has some 2 KiB.
    Blake3(Box<blake3::Hasher>),
    Lost,
}

impl Hasher {
    /// Of nothing so far.
    pub fn new(algorithm: Algorithm) -> Self {
        let state = match algorithm {
            Algorithm::Sha256 => State::Sha256(Sha256::new()),
            Algorithm::Blake3 => State::Blake3(Box::default()),
        };
        Self { state, next: 0 }
    }

    /// Takes bytes that are at `offset` in the file. They may come in pieces of any size.
    pub fn feed(&mut self, offset: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if offset != self.next {
            self.state = State::Lost;
        }
        self.next = offset.saturating_add(bytes.len() as u64);
        match &mut self.state {
            State::Sha256(hasher) => hasher.update(bytes),
            State::Blake3(hasher) => drop(hasher.update(bytes)),
            State::Lost => {}
        }
    }

    /// Something was written or read that it has not seen: it is of no use any more.
    pub fn lose(&mut self) {
        self.state = State::Lost;
    }

    /// The digest of what has passed, if all of `length` bytes has from the beginning on.
    pub fn finish(self, length: u64) -> Hash {
        match self.state {
            _ if self.next != length => Hash::Unavailable,
            State::Sha256(hasher) => Hash::Sha256(hasher.finalize().into()),
            State::Blake3(hasher) => Hash::Blake3(hasher.finalize().into()),
            State::Lost => Hash::Unavailable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(hash: Hash) -> String {
        serde_json::to_string(&hash).unwrap()
    }

    #[test]
    fn digests_are_those_of_the_standards_however_the_content_is_cut() {
        // FIPS 180-4's example, and what b3sum says of the same.
        let expected = [
            (Algorithm::Sha256, "\"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\""),
            (Algorithm::Blake3, "\"blake3:6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85\""),
        ];
        for (algorithm, digest) in expected {
            for cut in 0..=3 {
                let mut hasher = Hasher::new(algorithm);
                hasher.feed(0, &b"abc"[..cut]);
                hasher.feed(cut as u64, &b"abc"[cut..]);
                assert_eq!(shown(hasher.finish(3)), digest);
            }
        }
        assert!(shown(Hasher::new(Algorithm::Sha256).finish(0)).starts_with("\"sha256:e3b0c44298fc1c14"));
    }

    #[test]
    fn a_client_that_jumps_about_has_no_digest() {
        let fed = |pieces: &[(u64, &[u8])], length| {
            let mut hasher = Hasher::new(Algorithm::Sha256);
            pieces.iter().for_each(|(offset, bytes)| hasher.feed(*offset, bytes));
            hasher.finish(length)
        };
        assert_eq!(fed(&[(1, b"bc")], 3), Hash::Unavailable);
        assert_eq!(fed(&[(0, b"a"), (2, b"c")], 3), Hash::Unavailable);
        assert_eq!(fed(&[(0, b"ab"), (1, b"b")], 2), Hash::Unavailable);
        assert_eq!(fed(&[(1, b"b"), (0, b"a")], 1), Hash::Unavailable);
        assert_eq!(fed(&[(0, b"ab")], 3), Hash::Unavailable, "not all of it");
        assert_eq!(fed(&[(u64::MAX, b"ab")], u64::MAX), Hash::Unavailable);
    }

    #[test]
    fn only_two_algorithms_have_names() {
        assert_eq!(Algorithm::named("sha256"), Some(Algorithm::Sha256));
        assert_eq!(Algorithm::named("blake3"), Some(Algorithm::Blake3));
        assert_eq!(Algorithm::named("md5"), None);
    }
}
