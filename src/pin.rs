//! What an operator has said about a host's key: three spellings, of which two tell its type, so that it can be asked for.
//!
//! Pure. Where pins stand and which of them apply is for records, upstreams' entries and their readers.

use std::fmt;

use crate::error::shown;
use crate::identity::{Fingerprint, PublicKey};

/// Types of host key that there are, today's first.
pub const HOST_KEY_TYPES: [&str; 5] =
    ["ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa"];

/// What an operator has said about a host's key.
#[derive(Clone, PartialEq, Eq)]
pub enum Pin {
    /// `SHA256:…`: the key with this fingerprint, of whatever type.
    Fingerprint(Fingerprint),
    /// `TYPE SHA256:…`: likewise, and the type is known, so that it can be asked for.
    Typed(&'static str, Fingerprint),
    /// `TYPE BASE64`: exactly this key.
    Key(PublicKey),
}

impl Pin {
    /// Reads one pin: `SHA256:…`, `TYPE SHA256:…` or a public key line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let print =
            |text: &str| Fingerprint::parse(text).ok_or_else(|| format!("\"{}\" is not a SHA256 fingerprint", shown(text)));
        if text.starts_with("SHA256:") {
            return print(text).map(Self::Fingerprint);
        }
        match text.split_once([' ', '\t']).map(|(kind, rest)| (kind, rest.trim_start())) {
            Some((kind, rest)) if rest.starts_with("SHA256:") => {
                let known = HOST_KEY_TYPES.into_iter().find(|known| *known == kind);
                let known = known.ok_or_else(|| format!("\"{}\" is not a type of host key", shown(kind)))?;
                print(rest).map(|print| Self::Typed(known, print))
            }
            _ => PublicKey::from_line(text).map(|(key, _)| Self::Key(key)),
        }
    }

    /// The pin for people: the fingerprint, and before it the type where the pin tells it.
    pub fn shown(&self) -> String {
        let kind = self.kind().map(|kind| format!("{kind} ")).unwrap_or_default();
        format!("{kind}{}", self.fingerprint())
    }

    /// The shortest pin of a key that tells its type.
    pub fn of(key: &PublicKey) -> Self {
        match HOST_KEY_TYPES.into_iter().find(|kind| *kind == key.kind()) {
            Some(kind) => Self::Typed(kind, key.fingerprint()),
            None => Self::Key(key.clone()),
        }
    }

    /// The key's type, where the pin tells it.
    pub fn kind(&self) -> Option<&str> {
        match self {
            Self::Fingerprint(_) => None,
            Self::Typed(kind, _) => Some(kind),
            Self::Key(key) => Some(key.kind()),
        }
    }

    /// The key's fingerprint.
    pub fn fingerprint(&self) -> Fingerprint {
        match self {
            Self::Fingerprint(fingerprint) | Self::Typed(_, fingerprint) => *fingerprint,
            Self::Key(key) => key.fingerprint(),
        }
    }

    /// Whether this host key is the pinned one.
    pub fn matches(&self, key: &PublicKey) -> bool {
        match self {
            Self::Fingerprint(fingerprint) => *fingerprint == key.fingerprint(),
            Self::Typed(kind, fingerprint) => *kind == key.kind() && *fingerprint == key.fingerprint(),
            Self::Key(pinned) => pinned == key,
        }
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fingerprint(fingerprint) => fingerprint.fmt(f),
            Self::Typed(kind, fingerprint) => write!(f, "{kind} {fingerprint}"),
            Self::Key(key) => write!(f, "{} {}", key.kind(), key.base64()),
        }
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Reads pins, separated by commas or line ends.
pub fn parse_pins(text: &str) -> Result<Vec<Pin>, String> {
    text.split([',', '\n']).map(str::trim).filter(|pin| !pin.is_empty()).map(Pin::parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_read_in_three_spellings_and_tells_its_type_where_it_can() {
        let base64 = "AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";
        let key = PublicKey::from_base64(base64).unwrap();
        let print = key.fingerprint();
        for (text, kind) in [
            (print.to_string(), None),
            (format!("ssh-ed25519 {print}"), Some("ssh-ed25519")),
            (format!("ssh-ed25519 {base64}"), Some("ssh-ed25519")),
        ] {
            let pin = Pin::parse(&text).unwrap();
            assert_eq!((pin.kind(), pin.fingerprint(), pin.to_string(), pin.matches(&key)), (kind, print, text, true));
        }
        assert_eq!(Pin::of(&key).to_string(), format!("ssh-ed25519 {print}"));
        assert!(!Pin::parse(&format!("ssh-rsa {print}")).unwrap().matches(&key));
        for bad in ["ssh-dss SHA256:x", &format!("ssh-ed448 {print}"), "ssh-ed25519 SHA256:short"] {
            assert!(Pin::parse(bad).is_err(), "{bad}");
        }
    }
}
