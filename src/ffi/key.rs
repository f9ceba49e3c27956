//! Private keys as libssh holds them: read, made, written.

use std::ffi::CStr;
use std::path::Path;
use std::ptr;

use libssh_rs::sys;

use super::{c_string, check};
use crate::identity::PublicKey;
use crate::secret::Secret;

/// A private key. Freed (and wiped by libssh) when dropped.
pub struct PrivateKey(sys::ssh_key);

impl PrivateKey {
    /// Reads a key in PEM (PKCS#1, PKCS#8) or OpenSSH format. Encrypted ones are refused: nobody is there to type a passphrase.
    pub fn parse(secret: &Secret) -> Result<Self, String> {
        let text = secret.expose_str().ok_or("not a private key: not text")?;
        // The copy with a NUL at its end holds the key too and is wiped as the original is.
        let copy = Secret::new([text.as_bytes(), b"\0"].concat());
        let pointer = CStr::from_bytes_with_nul(copy.expose()).map_err(|_| "not a private key: contains a NUL byte")?.as_ptr();
        let mut key = ptr::null_mut();
        // SAFETY: `pointer` is NUL-terminated and lives as long as `copy`; without passphrase and callback libssh asks nobody.
        let code = unsafe { sys::ssh_pki_import_privkey_base64(pointer, ptr::null(), None, ptr::null_mut(), &mut key) };
        drop(copy);
        check(code, || "not an unencrypted private key in PEM or OpenSSH format".into())?;
        Ok(Self(key))
    }

    /// Makes an ed25519 key.
    pub fn new_ed25519() -> Result<Self, String> {
        Self::generate(sys::ssh_keytypes_e_SSH_KEYTYPE_ED25519, 0)
    }

    /// Makes an RSA key of `bits` bits.
    pub fn new_rsa(bits: i32) -> Result<Self, String> {
        Self::generate(sys::ssh_keytypes_e_SSH_KEYTYPE_RSA, bits)
    }

    fn generate(kind: sys::ssh_keytypes_e, bits: i32) -> Result<Self, String> {
        let mut key = ptr::null_mut();
        // SAFETY: `key` is written on success only.
        check(unsafe { sys::ssh_pki_generate(kind, bits, &mut key) }, || "libssh cannot make a key".into())?;
        Ok(Self(key))
    }

    /// The key without a passphrase, in PEM or OpenSSH format.
    pub fn export(&self) -> Result<Secret, String> {
        let mut text = ptr::null_mut();
        // SAFETY: the key is live, no passphrase and no callback; `text` is written on success only.
        let code = unsafe { sys::ssh_pki_export_privkey_base64(self.0, ptr::null(), None, ptr::null_mut(), &mut text) };
        check(code, || "the private key cannot be written".into())?;
        // SAFETY: libssh gave a NUL-terminated string, which is copied, wiped and then freed once.
        unsafe {
            let copy = Secret::new(CStr::from_ptr(text).to_bytes().to_vec());
            zeroize::Zeroize::zeroize(std::slice::from_raw_parts_mut(text.cast::<u8>(), copy.expose().len()));
            sys::ssh_string_free_char(text);
            Ok(copy)
        }
    }

    /// Writes the key without a passphrase to `path`, with the modes that the umask gives: the folder must be private.
    pub fn write(&self, path: &Path) -> Result<(), String> {
        let name = c_string(path.to_str().ok_or("the path is not UTF-8")?, "the path")?;
        // SAFETY: the key is live, `name` is NUL-terminated, no passphrase and no callback.
        let code = unsafe { sys::ssh_pki_export_privkey_file(self.0, ptr::null(), None, ptr::null_mut(), name.as_ptr()) };
        check(code, || format!("{}: the key cannot be written", path.display()))
    }

    /// The public half.
    pub fn public(&self) -> Result<PublicKey, String> {
        // SAFETY: the key is live.
        unsafe { public_half(self.0) }
    }

    /// The key, for a call.
    pub(super) fn raw(&self) -> sys::ssh_key {
        self.0
    }

    /// Gives the key away to C.
    pub(super) fn into_raw(self) -> sys::ssh_key {
        let key = self.0;
        std::mem::forget(self);
        key
    }
}

impl Drop for PrivateKey {
    fn drop(&mut self) {
        // SAFETY: the key is ours and is not used again.
        unsafe { sys::ssh_key_free(self.0) }
    }
}

/// The public key of a key that libssh holds.
///
/// # Safety
/// `key` is a live key.
pub(super) unsafe fn public_half(key: sys::ssh_key) -> Result<PublicKey, String> {
    let mut base64 = ptr::null_mut();
    // SAFETY: as promised; `base64` is written on success only and freed below.
    check(unsafe { sys::ssh_pki_export_pubkey_base64(key, &mut base64) }, || "the public key cannot be read".into())?;
    // SAFETY: libssh gave a NUL-terminated string, which is copied and then freed once.
    let text = unsafe {
        let text = super::text(base64);
        sys::ssh_string_free_char(base64);
        text
    };
    PublicKey::from_base64(&text)
}
