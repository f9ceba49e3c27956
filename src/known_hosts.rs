//! `known_hosts` (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"): which keys a host has been known by, plain and hashed.
//!
//! Pure. libssh2's own reader is not used: for a port other than 22 it falls back to the bare name even when `[host]:port` is
//! there with another key. Lines that cannot be read are passed over, as OpenSSH does. `@cert-authority` lines approve nothing, because
//! neither library checks a host certificate's signature; that there is one is told, so that the refusal can say so.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

use crate::identity::PublicKey;

/// What the file says about one host.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Known {
    /// Keys it may show.
    pub keys: Vec<PublicKey>,
    /// Keys it must not show (`@revoked`).
    pub revoked: Vec<PublicKey>,
    /// Whether the file trusts an authority for this host (`@cert-authority`), which counts for nothing here.
    pub authority: bool,
}

/// Looks a host up: `[host]:port` first and, only if that is nowhere, the bare name, because old files have bare names also for
/// ports other than 22. Revoked keys count under either name.
pub fn look_up(file: &str, host: &str, port: u16) -> Known {
    let bare = find(file, host);
    if port == 22 {
        return bare;
    }
    let mut exact = find(file, &format!("[{host}]:{port}"));
    if exact.keys.is_empty() {
        exact.keys = bare.keys;
    }
    exact.revoked.extend(bare.revoked);
    exact.authority |= bare.authority;
    exact
}

fn find(file: &str, name: &str) -> Known {
    let name = name.to_ascii_lowercase();
    let mut known = Known::default();
    for line in file.lines() {
        let mut words = line.split_ascii_whitespace().peekable();
        let marker = words.next_if(|word| word.starts_with('@'));
        let (Some(hosts), Some(kind), Some(data)) = (words.next(), words.next(), words.next()) else { continue };
        if hosts.starts_with('#') || !names(hosts, &name) {
            continue;
        }
        let Ok((key, _)) = PublicKey::from_line(&format!("{kind} {data}")) else { continue };
        match marker {
            None => known.keys.push(key),
            Some("@revoked") => known.revoked.push(key),
            Some("@cert-authority") => known.authority = true,
            Some(_) => {}
        }
    }
    known
}

/// Whether the first field of a line names the host: one hashed name, or patterns of which none that matches is negated.
fn names(hosts: &str, name: &str) -> bool {
    if let Some(hashed) = hosts.strip_prefix("|1|") {
        return hashed_name(hashed, name).unwrap_or(false);
    }
    let mut found = false;
    for pattern in hosts.split(',') {
        match pattern.strip_prefix('!') {
            Some(negated) if glob(negated.to_ascii_lowercase().as_bytes(), name.as_bytes()) => return false,
            Some(_) => {}
            None => found |= glob(pattern.to_ascii_lowercase().as_bytes(), name.as_bytes()),
        }
    }
    found
}

/// `SALT|HASH`: HMAC-SHA1 of the name with the salt as key, both base64.
fn hashed_name(hashed: &str, name: &str) -> Option<bool> {
    let (salt, hash) = hashed.split_once('|')?;
    let mut mac = Hmac::<Sha1>::new_from_slice(&STANDARD.decode(salt).ok()?).ok()?;
    mac.update(name.as_bytes());
    Some(mac.verify_slice(&STANDARD.decode(hash).ok()?).is_ok())
}

/// `*` stands for any number of characters, `?` for one; in time linear in the product of the lengths.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p, t));
            p += 1;
        } else if p < pattern.len() && (pattern[p] == b'?' || pattern[p] == text[t]) {
            (p, t) = (p + 1, t + 1);
        } else if let Some((at, from)) = star {
            (p, t) = (at + 1, from + 1);
            star = Some((at, from + 1));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&character| character == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";
    const B: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4g";

    #[track_caller]
    fn check(file: &str, host: &str, port: u16, expected: &[&str]) {
        let keys: Vec<_> = expected.iter().map(|line| PublicKey::from_line(line).unwrap().0).collect();
        assert_eq!(look_up(file, host, port).keys, keys);
    }

    #[test]
    fn the_bracketed_name_is_looked_up_first_and_the_bare_one_only_when_it_is_nowhere() {
        let file = format!("[h]:2222 {A}\nh {B}\n");
        check(&file, "h", 2222, &[A]);
        check(&file, "h", 22, &[B]);
        check(&file, "h", 2200, &[B]);
        check(&file, "g", 22, &[]);
    }

    #[test]
    fn patterns_negations_comments_and_bad_lines_are_read_as_openssh_does() {
        let file = format!(
            "# h {A}\nH,other {A}\n*.example.org,!bad.example.org {B}\nh rubbish\n@cert-authority h {B}\nh ssh-ed25519 AAAA\n"
        );
        check(&file, "h", 22, &[A]);
        assert!(look_up(&file, "h", 2222).authority && !look_up(&file, "other", 22).authority);
        check(&file, "x.example.org", 22, &[B]);
        check(&file, "bad.example.org", 22, &[]);
        let revoked = look_up(&format!("@revoked * {B}\nh {A}\n"), "h", 2222);
        assert_eq!(revoked.keys.len(), 1);
        assert!(revoked.revoked.iter().any(|key| key.kind() == "ssh-ed25519") && revoked.keys != revoked.revoked);
    }

    #[test]
    fn hashed_names_are_found() {
        let salt = STANDARD.encode([7u8; 20]);
        let mut mac = Hmac::<Sha1>::new_from_slice(&[7u8; 20]).unwrap();
        mac.update(b"[h]:2222");
        let hash = STANDARD.encode(mac.finalize().into_bytes());
        check(&format!("|1|{salt}|{hash} {A}\n"), "h", 2222, &[A]);
        check(&format!("|1|{salt}|{hash} {A}\n"), "h", 22, &[]);
    }
}
