//! Whether a host key is one that an operator has approved. It sees a key and lists, no connection.

use crate::identity::{Fingerprint, PublicKey};
use crate::known_hosts::Known;
use crate::route::Pin;

/// What an operator has said about the host's keys.
pub struct Trust {
    /// Pins of the record; when there are any, nothing else counts.
    pub pins: Vec<Pin>,
    /// What `known_hosts` says.
    pub known: Known,
    /// Which file that is, for the log.
    pub file: String,
}

/// The signature algorithms of a key type (RFC 8332 for RSA).
pub(super) fn signatures_of<'k>(kind: &'k &'k str) -> &'k [&'k str] {
    if *kind == "ssh-rsa" { &["rsa-sha2-512", "rsa-sha2-256"] } else { std::slice::from_ref(kind) }
}

impl Trust {
    /// The key types that are pinned or known: only these are asked for, or a host with several keys might show another one.
    pub(super) fn kinds(&self) -> Vec<&str> {
        let mut kinds = Vec::new();
        for pin in &self.pins {
            match pin {
                Pin::Key(key) => kinds.push(key.kind()),
                // A fingerprint does not tell the type.
                Pin::Fingerprint(_) => return Vec::new(),
            }
        }
        if self.pins.is_empty() {
            kinds.extend(self.known.keys.iter().map(PublicKey::kind));
        }
        kinds.dedup();
        kinds
    }

    /// Whether the host key is one that an operator has approved; the error says what to do.
    pub(super) fn check(&self, shown: &PublicKey) -> Result<(), String> {
        let says = format!("host key {} {}", shown.kind(), shown.fingerprint());
        if self.known.revoked.contains(shown) {
            return Err(format!("{says} is revoked in {}", self.file));
        }
        if !self.pins.is_empty() {
            if self.pins.iter().any(|pin| pin.matches(shown.blob())) {
                return Ok(());
            }
            let pinned: Vec<String> = self.pins.iter().map(|pin| pin_name(pin).to_string()).collect();
            return Err(format!(
                "{says} is not the pinned one ({}); either the server was set up anew or somebody stands in between: compare, then \
                 change hostkey in the record",
                pinned.join(", ")
            ));
        }
        if self.known.keys.contains(shown) {
            return Ok(());
        }
        if self.known.keys.is_empty() {
            return Err(format!("{says} is not known; compare it, then set hostkey in the record or add it to {}", self.file));
        }
        Err(format!(
            "{says} is not the one in {}; either the server was set up anew or somebody stands in between: compare, then correct the file",
            self.file
        ))
    }
}

fn pin_name(pin: &Pin) -> Fingerprint {
    match pin {
        Pin::Fingerprint(fingerprint) => *fingerprint,
        Pin::Key(key) => key.fingerprint(),
    }
}
