//! Who the hostile client says it is: keys, and logins whose parts need not fit together.

use openssl::hash::MessageDigest;
use openssl::pkey::{Id, PKey, Private};
use openssl::rsa::Rsa;
use openssl::sign::Signer;
use sftpproxy::wire::put_string;

use super::USERAUTH_REQUEST;
use super::transport::mpint;

/// A user's key pair.
pub struct Key(PKey<Private>);

impl Key {
    /// A new Ed25519 key.
    pub fn ed25519() -> Self {
        Self(PKey::generate_ed25519().unwrap())
    }

    /// A new RSA key.
    pub fn rsa(bits: u32) -> Self {
        Self(PKey::from_rsa(Rsa::generate(bits).unwrap()).unwrap())
    }

    /// The public half (RFC 4253 section 6.6, RFC 8709 section 4).
    pub fn blob(&self) -> Vec<u8> {
        let mut blob = Vec::new();
        match self.0.rsa() {
            Err(_) => {
                put_string(&mut blob, b"ssh-ed25519");
                put_string(&mut blob, &self.0.raw_public_key().unwrap());
            }
            Ok(rsa) => {
                put_string(&mut blob, b"ssh-rsa");
                blob.extend(mpint(&rsa.e().to_vec()));
                blob.extend(mpint(&rsa.n().to_vec()));
            }
        }
        blob
    }

    /// The line for `authorized_keys`.
    pub fn line(&self) -> String {
        format!("{} {} raw", self.kind(), openssl::base64::encode_block(&self.blob()))
    }

    /// The type in the blob.
    pub fn kind(&self) -> &'static str {
        if self.0.id() == Id::ED25519 { "ssh-ed25519" } else { "ssh-rsa" }
    }

    /// The algorithm an honest client signs with.
    pub fn algorithm(&self) -> &'static str {
        if self.0.id() == Id::ED25519 { "ssh-ed25519" } else { "rsa-sha2-512" }
    }

    /// A signature in its wire form. `ssh-rsa` is RSA with SHA-1; a name that is not an algorithm of this key is put
    /// on a signature by [`Key::algorithm`].
    pub fn sign(&self, algorithm: &str, data: &[u8]) -> Vec<u8> {
        let digest = match algorithm {
            "ssh-rsa" => MessageDigest::sha1(),
            "rsa-sha2-256" => MessageDigest::sha256(),
            _ => MessageDigest::sha512(),
        };
        let mut signer = match self.0.id() {
            Id::ED25519 => Signer::new_without_digest(&self.0),
            _ => Signer::new(digest, &self.0),
        }
        .unwrap();
        let mut signature = Vec::new();
        put_string(&mut signature, algorithm.as_bytes());
        put_string(&mut signature, &signer.sign_oneshot_to_vec(data).unwrap());
        signature
    }
}

/// A public key login. What is sent and what is signed are apart, to be told apart by the server.
pub struct Login<'a> {
    /// In the request.
    pub user: &'a str,
    pub service: &'a str,
    pub algorithm: &'a str,
    pub blob: Vec<u8>,
    /// Whose private half signs.
    pub signer: &'a Key,
    /// In the signed data, if other than in the request.
    pub signed_user: Option<&'a str>,
    pub signed_algorithm: Option<&'a str>,
    pub signed_blob: Option<Vec<u8>>,
    pub signed_session: Option<Vec<u8>>,
    /// The algorithm's name in the signature, if another.
    pub signature_algorithm: Option<&'a str>,
    /// Done to the signature at last.
    pub spoil: fn(&mut Vec<u8>),
}

impl<'a> Login<'a> {
    /// An honest login; put something else into a field by `Login { .., ..Login::new(user, key) }`.
    pub fn new(user: &'a str, key: &'a Key) -> Self {
        Self {
            user,
            service: "ssh-connection",
            algorithm: key.algorithm(),
            blob: key.blob(),
            signer: key,
            signed_user: None,
            signed_algorithm: None,
            signed_blob: None,
            signed_session: None,
            signature_algorithm: None,
            spoil: |_| (),
        }
    }

    fn request(user: &str, service: &str, algorithm: &str, blob: &[u8]) -> Vec<u8> {
        let mut request = userauth(user, service, "publickey");
        request.push(1);
        put_string(&mut request, algorithm.as_bytes());
        put_string(&mut request, blob);
        request
    }

    /// The whole request with its signature (RFC 4252 section 7) for the session.
    pub fn packet(&self, session_id: &[u8]) -> Vec<u8> {
        let mut packet = Self::request(self.user, self.service, self.algorithm, &self.blob);
        let mut signed = Vec::new();
        put_string(&mut signed, self.signed_session.as_deref().unwrap_or(session_id));
        signed.extend(Self::request(
            self.signed_user.unwrap_or(self.user),
            self.service,
            self.signed_algorithm.unwrap_or(self.algorithm),
            self.signed_blob.as_deref().unwrap_or(&self.blob),
        ));
        let mut signature = self.signer.sign(self.signature_algorithm.unwrap_or(self.algorithm), &signed);
        (self.spoil)(&mut signature);
        put_string(&mut packet, &signature);
        packet
    }
}

/// The beginning of every authentication request (RFC 4252 section 5).
pub fn userauth(user: &str, service: &str, method: &str) -> Vec<u8> {
    let mut request = vec![USERAUTH_REQUEST];
    [user, service, method].iter().for_each(|field| put_string(&mut request, field.as_bytes()));
    request
}
