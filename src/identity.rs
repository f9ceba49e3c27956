//! Who somebody says they are, and who they have proven to be.
//!
//! Pure. [`Offered`] is an allegation: a name and a key that a client sent. [`Proven`] is a fact: libssh verified a signature by
//! that key over this session's identifier and that user name. Nothing here decides whether the key is the user's; the store does.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use sha2::{Digest, Sha256};

use crate::wire::Reader;

/// Longest user name in bytes: OpenSSH's own bound on the names it logs is of this order, and a Redis key of this size is harmless.
pub const MAX_USER_NAME: usize = 255;

/// Longest public key blob in bytes: an RSA key of 16,384 bits has about 2,100.
pub const MAX_KEY_BLOB: usize = 4096;

/// Smallest RSA key that the tools accept, in bits; what logins accept is the setting `SFTPPROXY_RSA_MIN_SIZE`.
pub const MIN_RSA_BITS: usize = 1024;

/// A user's name: 1 to [`MAX_USER_NAME`] bytes of UTF-8 without control characters. Compared byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserName(String);

impl UserName {
    /// Takes a name, or says why it is none.
    pub fn new(name: &str) -> Result<Self, String> {
        if name.is_empty() {
            return Err("a user name must not be empty".into());
        }
        if name.len() > MAX_USER_NAME {
            return Err(format!("a user name has at most {MAX_USER_NAME} bytes, this one has {}", name.len()));
        }
        if name.chars().any(char::is_control) {
            return Err("a user name must not contain control characters".into());
        }
        Ok(Self(name.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// SHA-256 of a key blob, shown as `ssh-keygen -lf` does: `SHA256:` and base64 without padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of a key blob (RFC 4253 section 6.6).
    pub fn of(blob: &[u8]) -> Self {
        Self(Sha256::digest(blob).into())
    }

    /// Reads the shown form back.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = STANDARD_NO_PAD.decode(text.strip_prefix("SHA256:")?.trim_end_matches('=')).ok()?;
        Some(Self(bytes.try_into().ok()?))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SHA256:{}", STANDARD_NO_PAD.encode(self.0))
    }
}

/// A public key: its blob (RFC 4253 section 6.6), well-formed as far as its type is known here, and never a certificate.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PublicKey {
    kind: String,
    blob: Vec<u8>,
}

impl PublicKey {
    /// Takes a blob as it came over the wire, or says why it is no key that a user may have.
    pub fn from_blob(blob: &[u8]) -> Result<Self, String> {
        if blob.len() > MAX_KEY_BLOB {
            return Err(format!("a public key has at most {MAX_KEY_BLOB} bytes, this one has {}", blob.len()));
        }
        let kind = check_blob(blob)?;
        Ok(Self { kind: kind.to_owned(), blob: blob.to_owned() })
    }

    /// Takes the second field of an OpenSSH public key line: standard base64 of the blob.
    pub fn from_base64(text: &str) -> Result<Self, String> {
        let blob = STANDARD.decode(text).map_err(|error| format!("not base64 of a public key: {error}"))?;
        Self::from_blob(&blob)
    }

    /// Takes a line of an `id.pub` file, of `ssh-add -L`, or of `authorized_keys` without options; returns the comment too.
    pub fn from_line(line: &str) -> Result<(Self, String), String> {
        let line = line.trim();
        if line.contains("PRIVATE KEY") {
            return Err("this is a private key; give the public half (the .pub file)".into());
        }
        let (kind, rest) = line.split_once([' ', '\t']).ok_or("not a public key line: expected TYPE BASE64 [COMMENT]")?;
        let rest = rest.trim_start();
        let (data, comment) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
        if !kind.starts_with("ssh-") && !kind.starts_with("ecdsa-") && !kind.starts_with("sk-") {
            return Err(format!(
                "\"{}\" is not a key type (options in front of the key are not supported)",
                crate::error::shown(kind)
            ));
        }
        let key = Self::from_base64(data)?;
        if key.kind != kind {
            return Err(format!("the line says {} but the key is {}", crate::error::shown(kind), key.kind));
        }
        Ok((key, comment.trim().to_owned()))
    }

    /// The key's type as in the blob, such as `ssh-ed25519`; ASCII.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The key's size in bits, of RSA that of the modulus; 0 of a type whose size is not known here.
    pub fn bits(&self) -> usize {
        match self.kind.as_str() {
            "ssh-ed25519" | "sk-ssh-ed25519@openssh.com" | "ecdsa-sha2-nistp256" | "sk-ecdsa-sha2-nistp256@openssh.com" => 256,
            "ecdsa-sha2-nistp384" => 384,
            "ecdsa-sha2-nistp521" => 521,
            "ssh-rsa" => self.modulus_bits().unwrap_or_default(),
            _ => 0,
        }
    }

    fn modulus_bits(&self) -> Result<usize, crate::wire::WireError> {
        let mut reader = Reader::new(&self.blob);
        reader.string("key type")?;
        reader.string("exponent")?;
        let modulus = reader.string("modulus")?;
        let first = modulus.iter().position(|&byte| byte != 0).unwrap_or(modulus.len());
        let zeros = modulus.get(first).map_or(0, |byte| byte.leading_zeros() as usize);
        Ok((modulus.len() - first) * 8 - zeros)
    }

    /// The blob.
    pub fn blob(&self) -> &[u8] {
        &self.blob
    }

    /// Standard base64 of the blob: what the Redis data has as `<B64>`.
    pub fn base64(&self) -> String {
        STANDARD.encode(&self.blob)
    }

    /// The key's SHA-256 fingerprint.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.blob)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.fingerprint())
    }
}

/// Checks the fields of a blob by its type and returns that type. Formats: RFC 4253 6.6, 5656 3.1, 8709 4, OpenSSH PROTOCOL.u2f.
fn check_blob(blob: &[u8]) -> Result<&str, String> {
    let fault = |error: crate::wire::WireError| format!("not a public key: {error}");
    let mut reader = Reader::new(blob);
    let kind = std::str::from_utf8(reader.string("key type").map_err(fault)?)
        .ok()
        .filter(|kind| !kind.is_empty() && kind.bytes().all(|byte| byte.is_ascii_graphic()))
        .ok_or("not a public key: its type is not text")?;
    match kind {
        "ssh-ed25519" => {
            exactly(&mut reader, "public key", 32)?;
        }
        "sk-ssh-ed25519@openssh.com" => {
            exactly(&mut reader, "public key", 32)?;
            reader.string("application").map_err(fault)?;
        }
        "ecdsa-sha2-nistp256" | "ecdsa-sha2-nistp384" | "ecdsa-sha2-nistp521" | "sk-ecdsa-sha2-nistp256@openssh.com" => {
            reader.string("curve").map_err(fault)?;
            reader.string("point").map_err(fault)?;
            if kind.starts_with("sk-") {
                reader.string("application").map_err(fault)?;
            }
        }
        "ssh-rsa" => {
            reader.string("exponent").map_err(fault)?;
            let modulus = reader.string("modulus").map_err(fault)?;
            let bits = modulus.iter().skip_while(|&&byte| byte == 0).count() * 8;
            if bits < MIN_RSA_BITS {
                return Err(format!("an RSA key of about {bits} bits is too short"));
            }
        }
        "ssh-dss" => return Err("DSA keys are obsolete and no longer accepted; make an ed25519 key".into()),
        _ if kind.contains("-cert-") => return Err("this is a certificate; give the plain public key".into()),
        _ => return Err(format!("key type {} is not known", crate::error::shown(kind))),
    }
    reader.end().map_err(fault)?;
    Ok(kind)
}

fn exactly(reader: &mut Reader<'_>, field: &'static str, length: usize) -> Result<(), String> {
    match reader.string(field) {
        Ok(bytes) if bytes.len() == length => Ok(()),
        _ => Err(format!("not a public key: field \"{field}\" must have {length} bytes")),
    }
}

/// What the key exchange of a connection has agreed on (RFC 4253 section 7.1), by the names of the algorithms.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Negotiated {
    /// Key exchange method.
    pub kex: String,
    /// Cipher of the packets from the client's side to the server's.
    pub cipher: String,
    /// MAC of these packets; of a cipher that needs none, what the library says instead.
    pub mac: String,
}

impl Negotiated {
    /// Whether a recorded connection stays secret when there are quantum computers: the key exchange has ML-KEM or sntrup761 in it.
    pub fn is_post_quantum(&self) -> bool {
        ["mlkem", "sntrup"].iter().any(|name| self.kex.starts_with(name))
    }
}

/// What a client says: it wants to be `user` and has `key`. It proves nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    /// The name in the authentication request.
    pub user: UserName,
    /// The key in the same request.
    pub key: PublicKey,
}

/// Holding this proves that the client signed this session's identifier as `user` with the private half of `key`, and that the
/// store named `user` as the key's owner when it did. User and key come from that one request.
#[derive(Debug, Clone)]
pub struct Proven {
    user: UserName,
    key: PublicKey,
}

impl Proven {
    /// To be called in one place only (`downstream`): for the request whose signature libssh verified and whose key is the user's.
    pub(crate) fn by_signature(request: Offered) -> Self {
        Self { user: request.user, key: request.key }
    }

    /// Who signed.
    pub fn user(&self) -> &UserName {
        &self.user
    }

    /// What they signed with.
    pub fn key(&self) -> &PublicKey {
        &self.key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED25519: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";

    #[test]
    fn key_lines_are_read_whole_or_refused_with_the_reason() {
        let (key, comment) = PublicKey::from_line(&format!("ssh-ed25519 {ED25519}  alice at home\n")).unwrap();
        assert_eq!((key.kind(), key.base64().as_str(), comment.as_str()), ("ssh-ed25519", ED25519, "alice at home"));
        assert_eq!(Fingerprint::parse(&key.fingerprint().to_string()), Some(key.fingerprint()));
        for (line, reason) in [
            ("", "expected TYPE"),
            (ED25519, "expected TYPE"),
            ("-----BEGIN OPENSSH PRIVATE KEY-----", "private key"),
            (&format!("ssh-rsa {ED25519}"), "the line says ssh-rsa"),
            (&format!("restrict ssh-ed25519 {ED25519}"), "options"),
            ("ssh-ed25519 AAAA", "key type"),
            ("ssh-ed25519 !!", "not base64"),
            (&format!("ssh-ed25519 {}", &ED25519[..64]), "32 bytes"),
            ("ssh-dss AAAAB3NzaC1kc3MAAAAA", "obsolete"),
        ] {
            let error = PublicKey::from_line(line).unwrap_err();
            assert!(error.contains(reason), "{line:?}: {error}");
        }
    }

    #[test]
    fn user_names_are_bounded_and_printable() {
        assert!(UserName::new("alice").is_ok() && UserName::new("Zoë b:c*").is_ok());
        for bad in ["", "a\nb", "a\0", &"x".repeat(256)] {
            assert!(UserName::new(bad).is_err(), "{bad:?}");
        }
    }
}
