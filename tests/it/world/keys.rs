//! Keys, made once by ssh-keygen and kept in cargo's folder for tests, since an RSA key costs more than many a test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use super::process::run;

/// A key pair on disk: the private half at this path, the public half beside it in `.pub`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// File of the private half, mode 0600, without passphrase.
    pub private: PathBuf,
}

impl Key {
    /// File of the public half.
    pub fn public(&self) -> PathBuf {
        self.private.with_extension("pub")
    }

    /// The public half as `TYPE BASE64 COMMENT`.
    pub fn line(&self) -> String {
        std::fs::read_to_string(self.public()).expect("a public key that was made").trim().to_owned()
    }

    /// The public half's base64: the second field of its line.
    pub fn base64(&self) -> String {
        self.line().split(' ').nth(1).expect("a line of three fields").to_owned()
    }

    /// `SHA256:…`, as ssh-keygen says it.
    pub fn fingerprint(&self) -> String {
        let output = run(Command::new("ssh-keygen").arg("-lf").arg(self.public())).success();
        output.split(' ').nth(1).expect("a line BITS FINGERPRINT COMMENT").to_owned()
    }

    /// The private half as PuTTY wants it.
    pub fn ppk(&self) -> PathBuf {
        let path = self.private.with_extension("ppk");
        made(&path, |new| {
            run(Command::new("puttygen")
                .env("HOME", env!("CARGO_TARGET_TMPDIR"))
                .arg(&self.private)
                .args(["-O", "private", "-o"])
                .arg(new))
            .success();
        });
        path
    }
}

/// The ed25519 key of this name.
pub fn ed25519(name: &str) -> Key {
    key(name, "ed25519", "256")
}

/// The RSA key of this name, 3072 bits.
pub fn rsa(name: &str) -> Key {
    key(name, "rsa", "3072")
}

/// The RSA key of this name and size.
pub fn rsa_of(name: &str, bits: u32) -> Key {
    key(&format!("{name}-{bits}"), "rsa", &bits.to_string())
}

/// The ECDSA key of this name, on the curve nistp256.
pub fn ecdsa(name: &str) -> Key {
    key(name, "ecdsa", "256")
}

fn key(name: &str, kind: &str, bits: &str) -> Key {
    let private = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("keys").join(format!("{name}-{kind}"));
    made(&private, |new| {
        let comment = format!("{name}@test");
        run(Command::new("ssh-keygen").args(["-q", "-N", "", "-C", &comment, "-t", kind, "-b", bits, "-f"]).arg(new)).success();
        std::fs::rename(new.with_extension("pub"), private.with_extension("pub")).expect("the public half in its place");
    });
    Key { private }
}

/// Makes a file in a folder of its own and renames it, so that another run of the tests never sees half of it.
fn made(path: &Path, make: impl FnOnce(&Path)) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if path.exists() {
        return;
    }
    let parent = path.parent().expect("a file in a folder");
    std::fs::create_dir_all(parent).expect("cargo's folder for tests");
    let folder = tempfile::tempdir_in(parent).expect("a folder beside it");
    let new = folder.path().join("new");
    make(&new);
    std::fs::rename(&new, path).expect("the file in its place");
}
