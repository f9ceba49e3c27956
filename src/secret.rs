//! Secrets: wiped when dropped, never shown. And the modes that a file with a secret must have.
//!
//! Pure but for the file system. What a secret is for is its holder's business.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use zeroize::Zeroizing;

/// Largest key file in bytes: an encrypted RSA key of 16,384 bits has about 13,000.
pub const MAX_KEY_FILE: u64 = 64 * 1024;

/// Bytes that are wiped when dropped and cannot be printed.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes bytes over.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, for the one call that needs them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The bytes as text, if they are.
    pub fn expose_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

/// Takes over bytes that are wiped already when dropped.
impl From<Zeroizing<Vec<u8>>> for Secret {
    fn from(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        *self.0 == *other.0
    }
}

/// Reads a private key file, or another file with a secret: a regular file (symbolic links are followed), not readable or writable by
/// group or others, owned by this process's user or by root. Checked on the open file, so that what is checked is what is read.
pub fn read_key_file(path: &Path) -> Result<Secret, String> {
    read(path, |meta| {
        if meta.mode() & 0o077 != 0 {
            let mode = meta.mode() & 0o7777;
            return Err(format!("mode {mode:04o} lets others at this secret; run: chmod 600 {}", path.display()));
        }
        let own = nix::unistd::geteuid();
        if meta.uid() != own.as_raw() && meta.uid() != 0 {
            return Err(format!("owned by uid {}, must be owned by uid {own} or root", meta.uid()));
        }
        Ok(())
    })
}

/// Reads a credential of systemd, which has made its folder and answers for its modes: what a group may do there is an access control
/// list for the service's account.
pub fn read_credential(path: &Path) -> Result<Secret, String> {
    read(path, |_| Ok(()))
}

fn read(path: &Path, good: impl Fn(&std::fs::Metadata) -> Result<(), String>) -> Result<Secret, String> {
    let says = |reason: &dyn fmt::Display| format!("{}: {reason}", path.display());
    let mut file = open(path).map_err(|error| says(&error))?;
    let meta = file.metadata().map_err(|error| says(&error))?;
    if !meta.is_file() {
        return Err(says(&"not a regular file"));
    }
    good(&meta).map_err(|reason| says(&reason))?;
    if meta.len() > MAX_KEY_FILE {
        return Err(says(&format_args!("{} bytes are too many for a file with a secret", meta.len())));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_KEY_FILE as usize));
    Read::by_ref(&mut file).take(MAX_KEY_FILE).read_to_end(&mut bytes).map_err(|error| says(&error))?;
    Ok(Secret(bytes))
}

fn open(path: &Path) -> std::io::Result<File> {
    // O_NONBLOCK: a FIFO in place of the file must not hold the start; it has no effect on a regular file.
    std::fs::OpenOptions::new().read(true).custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits()).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_key_file_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, "private").unwrap();
        for (mode, good) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o660, false)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read_key_file(&path).is_ok(), good, "{mode:o}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o440)).unwrap();
        assert!(read_credential(&path).is_ok() && read_key_file(&path).is_err());
        assert!(read_key_file(folder.path()).unwrap_err().contains("not a regular file"));
        assert_eq!(format!("{:?}", Secret::new(b"x".to_vec())), "(secret)");
    }
}
