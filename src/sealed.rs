//! Private keys for upstreams: [`KeySource`], as a store names one, and [`Sealed`], as it has one: encrypted with the router's secret key
//! (XChaCha20-Poly1305), its public half beside it in clear.
//!
//! A sealed key opens only where it was sealed for: the place (which user's record, which upstream's entry) and the public half are
//! associated data, so that who can write to the store cannot move it elsewhere. Pure but for the random nonce. What is opened is wiped by
//! its holder.

use std::fmt;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead, Generate as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use crate::error::shown;
use crate::identity::PublicKey;
use crate::wire::put_string;

/// What the text of one begins with.
const HEAD: &str = "sealed:";

/// What this is, for the associated data; the number is the format's.
const WHAT: &[u8] = b"sftpproxy upstream key 1";

/// Bytes of the nonce: random ones do not meet.
const NONCE: usize = 24;

/// The router's secret key, 32 bytes.
pub struct Master(Zeroizing<Vec<u8>>);

impl Master {
    /// Reads it: base64 of 32 bytes, and spaces and line ends around it.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let bytes = Zeroizing::new(STANDARD.decode(text.trim_ascii()).unwrap_or_default());
        if bytes.len() == 32 {
            return Ok(Self(bytes));
        }
        Err("not base64 of 32 bytes; make one with: head -c 32 /dev/urandom | base64".into())
    }

    fn cipher(&self) -> Result<XChaCha20Poly1305, String> {
        XChaCha20Poly1305::new_from_slice(&self.0).map_err(|_| "not a key of 32 bytes".into())
    }
}

/// An encrypted private key.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed {
    public: PublicKey,
    /// Nonce, then what was encrypted with its tag.
    content: Vec<u8>,
}

impl Sealed {
    /// Encrypts a private key for one place.
    pub fn seal(private: &[u8], public: PublicKey, place: &str, master: &Master) -> Result<Self, String> {
        let nonce = XNonce::try_generate().map_err(|error| format!("no random numbers: {error}"))?;
        let data = associated(place, &public);
        let sealed = master.cipher()?.encrypt(&nonce, Payload { msg: private, aad: &data });
        let content = [nonce.as_slice(), &sealed.map_err(|_| "the key cannot be encrypted")?].concat();
        Ok(Self { public, content })
    }

    /// Decrypts it.
    pub fn open(&self, place: &str, master: &Master) -> Result<Zeroizing<Vec<u8>>, String> {
        let (nonce, sealed) = self.content.split_at(NONCE);
        let nonce = XNonce::try_from(nonce).map_err(|_| "no nonce")?;
        let data = associated(place, &self.public);
        let opened = master.cipher()?.decrypt(&nonce, Payload { msg: sealed, aad: &data });
        opened
            .map(Zeroizing::new)
            .map_err(|_| format!("it does not open: it was made for another place than {place}, or with another secret key"))
    }

    /// Reads the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        // Nothing of it is repeated: it may have been meant to be something else.
        let not = || "not an encrypted key as sftpproxy upstream-key writes it".to_owned();
        let mut words = text.strip_prefix(HEAD).ok_or_else(not)?.split(' ');
        let (Some(kind), Some(public), Some(content), None) = (words.next(), words.next(), words.next(), words.next()) else {
            return Err(not());
        };
        let (public, _) = PublicKey::from_line(&format!("{kind} {public}")).map_err(|_| not())?;
        let content = STANDARD.decode(content).map_err(|_| not())?;
        if content.len() <= NONCE { Err(not()) } else { Ok(Self { public, content }) }
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The text, for the store and for nothing else.
    pub fn text(&self) -> String {
        format!("{HEAD}{} {} {}", self.public.kind(), self.public.base64(), STANDARD.encode(&self.content))
    }
}

/// What may be shown of it.
impl fmt::Display for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "encrypted {} {}", self.public.kind(), self.public.fingerprint())
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn associated(place: &str, public: &PublicKey) -> Vec<u8> {
    let mut data = Vec::new();
    for part in [WHAT, place.as_bytes(), public.blob()] {
        put_string(&mut data, part);
    }
    data
}

/// A private key for an upstream, as a record or an upstream's entry names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A key of the ssh-agent.
    Agent,
    /// In this file; relative ones are in the keys directory.
    File(PathBuf),
    /// The key itself, encrypted.
    Sealed(Sealed),
    /// Whatever would be used without a key here; only in the place of the old key.
    Common,
}

impl KeySource {
    /// Reads the field `key`: `agent`, an encrypted key, or a file.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.contains("PRIVATE KEY") {
            return Err(
                "this is a private key in clear; give it to a file, or make an encrypted one with: sftpproxy upstream-key new"
                    .into(),
            );
        }
        Ok(match text {
            "agent" => Self::Agent,
            text if text.starts_with(HEAD) => Self::Sealed(Sealed::parse(text)?),
            text => Self::File(PathBuf::from(text)),
        })
    }

    /// Reads the field `key_old`: the same, or `common`.
    pub fn parse_old(text: &str) -> Result<Self, String> {
        if text == "common" { Ok(Self::Common) } else { Self::parse(text) }
    }
}

/// What may be shown of it.
impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent => f.write_str("agent"),
            Self::File(path) => f.write_str(&shown(&path.display().to_string())),
            Self::Sealed(sealed) => sealed.fmt(f),
            Self::Common => f.write_str("common"),
        }
    }
}

/// The value of a record's field as it may be shown: of an encrypted key only what it is.
pub fn shown_field(name: &str, value: &str) -> String {
    if !["key", "key_old"].contains(&name) || value.is_empty() {
        return value.to_owned();
    }
    KeySource::parse_old(value).map_or_else(|_| "(not shown: no key that can be read)".into(), |key| key.to_string())
}

/// The keys of a record or of an upstream's entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys {
    /// What they are sealed for.
    pub place: String,
    /// The key.
    pub now: Option<KeySource>,
    /// The one before it, which is tried when the upstream does not take the key.
    pub old: Option<KeySource>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn master(byte: u8) -> Master {
        Master::parse(format!("{}\n", STANDARD.encode([byte; 32])).as_bytes()).unwrap()
    }

    #[test]
    fn a_sealed_key_opens_only_in_its_place_with_its_secret_key_and_unchanged() {
        let base64 = |last: char| format!("AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4{last}");
        let public = PublicKey::from_base64(&base64('f')).unwrap();
        let sealed = Sealed::seal(b"private", public.clone(), "user alice", &master(1)).unwrap();
        let text = sealed.text();
        assert_eq!(Sealed::parse(&text), Ok(sealed.clone()));
        assert_eq!(&*sealed.open("user alice", &master(1)).unwrap(), b"private");
        assert_ne!(text, Sealed::seal(b"private", public, "user alice", &master(1)).unwrap().text(), "the same nonce twice");
        assert!(sealed.open("user bob", &master(1)).unwrap_err().contains("another place"));
        assert!(sealed.open("user alice", &master(2)).is_err());
        // Another public half, and another content.
        assert!(Sealed::parse(&text.replace(&base64('f'), &base64('g'))).unwrap().open("user alice", &master(1)).is_err());
        let mut other = sealed.clone();
        other.content[NONCE + 1] ^= 1;
        assert!(other.open("user alice", &master(1)).is_err());
        for shown in [format!("{sealed}"), format!("{sealed:?}")] {
            assert!(shown.starts_with("encrypted ssh-ed25519 SHA256:") && !shown.contains(&STANDARD.encode(&sealed.content)));
        }
    }

    #[test]
    fn what_is_no_sealed_key_and_no_secret_key_is_refused_and_not_repeated() {
        let short = "sealed:ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f AAAA";
        for bad in ["sealed:", "sealed:a b", "sealed:ssh-ed25519 AAAA s3cret", short] {
            let reason = Sealed::parse(bad).unwrap_err();
            assert!(reason.starts_with("not an encrypted key") && !reason.contains("s3cret"), "{bad}: {reason}");
        }
        for bad in ["", "s3cret", &STANDARD.encode([1; 31])] {
            assert!(Master::parse(bad.as_bytes()).is_err_and(|reason| !reason.contains("s3cret")), "{bad}");
        }
    }
}
