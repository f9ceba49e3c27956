//! The router's own host keys: those configured, or made once in the state directory (ed25519 and RSA).

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::ffi::PrivateKey;
use crate::identity::PublicKey;
use crate::secret::read_key_file;

/// Bits of the RSA key that is made; 3072 is what ssh-keygen makes.
const RSA_BITS: i32 = 3072;

/// A host key that was read.
pub struct HostKey {
    /// Where from.
    pub path: PathBuf,
    /// Its public half.
    pub public: PublicKey,
    /// The key.
    pub private: PrivateKey,
}

/// Reads the configured host keys, or the state directory's. With `make`, missing ones of the state directory are made.
pub fn load(config: &Config, make: bool) -> Result<Vec<HostKey>, String> {
    let mut paths = config.downstream.host_keys.clone();
    if paths.is_empty() {
        paths = vec![config.state_dir.join("ssh_host_ed25519_key"), config.state_dir.join("ssh_host_rsa_key")];
        if !make && paths.iter().any(|path| !path.exists()) {
            return Ok(Vec::new());
        }
        prepare(&config.state_dir)?;
        ensure(&paths[0], PrivateKey::new_ed25519)?;
        ensure(&paths[1], || PrivateKey::new_rsa(RSA_BITS))?;
    }
    let mut keys: Vec<HostKey> = Vec::new();
    for path in paths {
        let key = read(&path)?;
        // libssh holds one key of each kind and would silently replace the first.
        if let Some(same) = keys.iter().find(|other| family(&other.public) == family(&key.public)) {
            return Err(format!(
                "host keys {} and {} are of the same type; give one of each",
                same.path.display(),
                path.display()
            ));
        }
        keys.push(key);
    }
    Ok(keys)
}

fn family(key: &PublicKey) -> &str {
    if key.kind().starts_with("ecdsa") { "ecdsa" } else { key.kind() }
}

fn read(path: &Path) -> Result<HostKey, String> {
    let says = |reason| format!("host key {}: {reason}", path.display());
    let secret = read_key_file(path).map_err(|reason| format!("host key {reason}"))?;
    let private = PrivateKey::parse(&secret).map_err(says)?;
    let public = private.public().map_err(says)?;
    Ok(HostKey { path: path.to_owned(), public, private })
}

/// Makes the state directory, for this account only.
fn prepare(folder: &Path) -> Result<(), String> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| format!("state directory {}: {error}; set SFTPPROXY_STATE_DIR", folder.display()))
}

/// Makes the key if it is not there: written in a private folder and linked to its name whole, so that two starts at the same
/// time end with the same key.
fn ensure(path: &Path, make: impl FnOnce() -> Result<PrivateKey, String>) -> Result<(), String> {
    if path.exists() {
        return Ok(());
    }
    let says = |reason: String| format!("host key {}: {reason}", path.display());
    let folder = path.parent().unwrap_or(Path::new("."));
    let private = tempfile::Builder::new().prefix(".new-key-").tempdir_in(folder).map_err(|error| says(error.to_string()))?;
    let written = private.path().join("key");
    let key = make().map_err(says)?;
    key.write(&written).map_err(says)?;
    let finish = || -> std::io::Result<()> {
        fs::set_permissions(&written, fs::Permissions::from_mode(0o600))?;
        fs::File::open(&written)?.sync_all()?;
        match fs::hard_link(&written, path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }?;
        fs::File::open(folder)?.sync_all()
    };
    finish().map_err(|error| says(error.to_string()))
}

/// Compares a configured public half with the first host key; a difference is only worth a warning, which this returns.
pub fn compare(config: &Config, keys: &[HostKey]) -> Option<String> {
    let path = config.downstream.public_key.as_ref()?;
    let says = |reason: &str| Some(format!("SFTPPROXY_PUBLICKEY_PATH = {}: {reason}; it is not used", path.display()));
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        Err(error) => return says(&error.to_string()),
    };
    match PublicKey::from_line(text.lines().next().unwrap_or_default()) {
        Ok((key, _)) if keys.iter().any(|host| host.public == key) => None,
        Ok(_) => says("does not belong to SFTPPROXY_PRIVATEKEY_PATH"),
        Err(reason) => says(&reason),
    }
}
