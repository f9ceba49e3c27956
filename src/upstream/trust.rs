//! Whether a host key is one that an operator has approved: the record's pins, else the upstream's own, else `known_hosts`.
//!
//! It sees keys and lists, no connection. [`Trust::find`] says what applies and where it comes from; nothing that is found later in
//! that order adds to what was found before.

use std::fmt;

use crate::config::{self, HOST_KEY_ALGORITHMS};
use crate::error::{Fault, Side, Stage};
use crate::identity::PublicKey;
use crate::known_hosts;
use crate::route::{HOST_KEY_TYPES, Host, Pin, Route};
use crate::store::{RouteStore, Shelf};

/// Where the approval of host keys comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Basis {
    /// The record of the user.
    Record,
    /// The upstream's entry in the store.
    Host,
    /// This file.
    KnownHosts(String),
}

impl fmt::Display for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Record => f.write_str("record"),
            Self::Host => f.write_str("host"),
            Self::KnownHosts(file) if file.is_empty() => f.write_str("known_hosts"),
            Self::KnownHosts(file) => f.write_str(file),
        }
    }
}

/// What operators have said about an upstream's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// Who says so.
    pub basis: Basis,
    /// The keys that are approved; none = the upstream is not known and gets nothing.
    pub pins: Vec<Pin>,
    /// Keys that are refused whatever pins say, and the file that says so.
    pub revoked: (Vec<PublicKey>, String),
    /// Whether `known_hosts` trusts an authority for this host, which approves nothing here.
    pub authority: bool,
}

/// Why a host key is not approved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mistrust {
    pub reason: String,
    /// Another key is approved: this one is a change.
    pub changed: bool,
}

impl Trust {
    /// What applies to a route: pins of the record, else of the upstream's entry, else `known_hosts`; revoked keys always.
    pub fn find(route: &Route, host: &Host, config: &config::Upstream) -> Result<Self, Fault> {
        let (known, file) =
            known(&route.remote, route.port, config).map_err(|reason| Fault::new(Side::Upstream, Stage::Trust, reason))?;
        let (basis, pins) = if !route.pins.is_empty() {
            (Basis::Record, route.pins.clone())
        } else if !host.pins.is_empty() {
            (Basis::Host, host.pins.clone())
        } else {
            (Basis::KnownHosts(file.clone()), known.keys.into_iter().map(Pin::Key).collect())
        };
        Ok(Self { basis, pins, revoked: (known.revoked, file), authority: known.authority })
    }

    /// The signature algorithms to ask for, when keys of the types `seen` were shown already and none was approved. At first those of
    /// the approved keys, then `configured` (empty = ours); afterwards those that may still show an approved key. Empty = there is
    /// none left.
    pub(super) fn algorithms(&self, seen: &[String], configured: &str) -> String {
        let all: Vec<&str> = if configured.is_empty() { HOST_KEY_ALGORITHMS } else { configured }.split(',').collect();
        let unseen = |kind: &&str| !seen.iter().any(|seen| seen == kind);
        let pinned = self.pins.iter().filter_map(Pin::kind).filter(unseen).flat_map(signatures_of).map(|name| name as &str);
        let mut names: Vec<&str> = Vec::new();
        // A fingerprint alone may be of any type.
        let rest = seen.is_empty() || self.pins.iter().any(|pin| pin.kind().is_none());
        let others = all.into_iter().filter(|name| rest && seen.iter().all(|seen| !signatures_of(seen).any(|of| of == *name)));
        for name in pinned.chain(others) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names.join(",")
    }

    /// Whether the host key is approved; the error says what to do.
    pub(super) fn check(&self, shown: &PublicKey) -> Result<(), Mistrust> {
        let says = format!("host key {} {}", shown.kind(), shown.fingerprint());
        let (revoked, file) = &self.revoked;
        if revoked.contains(shown) {
            return Err(Mistrust { reason: format!("{says} is revoked in {file}"), changed: false });
        }
        if self.pins.iter().any(|pin| pin.matches(shown)) {
            return Ok(());
        }
        if self.pins.is_empty() {
            let why = if self.authority {
                format!(
                    "{says} is not known: {file} has only a @cert-authority for this upstream, and host certificates cannot be checked; \
                     compare the key, then pin it with: sftpproxy host-key approve"
                )
            } else {
                format!("{says} is not known; compare it, then pin it with: sftpproxy host-key approve, or add it to {file}")
            };
            return Err(Mistrust { reason: why, changed: false });
        }
        let place = match &self.basis {
            Basis::KnownHosts(file) => format!("is not the one in {file}"),
            Basis::Record => format!("is not the pinned one ({}, hostkey in the record)", self.approved()),
            Basis::Host => format!("is not the pinned one ({}, pinned for the upstream)", self.approved()),
        };
        let reason = format!(
            "{says} {place}; either the server was set up anew or somebody stands in between: compare, then approve it with: sftpproxy \
             host-key approve"
        );
        Err(Mistrust { reason, changed: true })
    }

    /// The fingerprints of the approved keys, separated by commas.
    pub fn approved(&self) -> String {
        self.pins.iter().map(|pin| pin.fingerprint().to_string()).collect::<Vec<_>>().join(", ")
    }
}

/// The entry of a route's upstream in the store.
pub fn host(store: &dyn RouteStore, route: &Route) -> Result<Host, Fault> {
    let address = route.address();
    let fault = |what| Fault::new(Side::Store, Stage::Find, what);
    let entry = store.entry(Shelf::Hosts, &address).map_err(|error| fault(error.what))?;
    Host::parse(&address, &entry).map_err(|reason| fault(format!("bad entry of upstream {address}: {reason}")))
}

/// What `known_hosts` says of a host, and which file that is; empty = there is no such setting and no home.
pub fn known(host: &str, port: u16, config: &config::Upstream) -> Result<(known_hosts::Known, String), String> {
    let file = config.known_hosts.clone().or_else(|| Some(config.account_home.as_ref()?.join(".ssh/known_hosts")));
    let Some(file) = file else { return Ok(Default::default()) };
    let name = file.display().to_string();
    match std::fs::read(&file) {
        Ok(text) => Ok((known_hosts::look_up(&String::from_utf8_lossy(&text), host, port), name)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok((Default::default(), name)),
        // A file that is there and cannot be read may revoke a key.
        Err(error) => Err(format!("{name}: {error}")),
    }
}

/// The signature algorithms of a key type (RFC 8332 for RSA). A type that nobody knows cannot be asked for.
pub(super) fn signatures_of(kind: &str) -> impl Iterator<Item = &'static str> {
    let known = HOST_KEY_TYPES.into_iter().find(|known| *known == kind);
    known.into_iter().flat_map(|kind| match kind {
        "ssh-rsa" => vec!["rsa-sha2-512", "rsa-sha2-256"],
        kind => vec![kind],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINT: &str = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU";

    fn trust(pins: &str) -> Trust {
        let pins = crate::route::parse_pins(&pins.replace('@', PRINT)).unwrap();
        Trust { basis: Basis::Record, pins, revoked: Default::default(), authority: false }
    }

    #[test]
    fn pinned_types_are_asked_for_first_and_afterwards_only_those_that_may_still_fit() {
        let seen = |kinds: &[&str]| kinds.iter().map(|kind| (*kind).to_owned()).collect::<Vec<_>>();
        let some = "ssh-ed25519,ecdsa-sha2-nistp256,rsa-sha2-512";
        for (pins, shown, configured, expected) in [
            ("ssh-rsa @", &[][..], some, "rsa-sha2-512,rsa-sha2-256,ssh-ed25519,ecdsa-sha2-nistp256"),
            ("ssh-rsa @", &["ssh-rsa"], some, ""),
            ("ssh-rsa @, ssh-ed25519 @", &["ssh-rsa"], some, "ssh-ed25519"),
            ("@", &[], some, some),
            ("@", &["ssh-ed25519"], some, "ecdsa-sha2-nistp256,rsa-sha2-512"),
            ("@", &["ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa"], some, ""),
            ("ssh-rsa @, @", &["ssh-ed25519"], some, "rsa-sha2-512,rsa-sha2-256,ecdsa-sha2-nistp256"),
            ("", &["ssh-ed25519"], some, ""),
            ("", &[], "", HOST_KEY_ALGORITHMS),
        ] {
            assert_eq!(trust(pins).algorithms(&seen(shown), configured), expected, "{pins} {shown:?}");
        }
        assert_eq!(trust("@").algorithms(&seen(&HOST_KEY_TYPES), ""), "");
    }
}
