//! The world that a test runs in: an upstream (real sshd), a store (real redis-server, or a file), our program between them, and
//! real clients. Everything listens on loopback at a free port and lives in a temporary folder.
//!
//! Ready means connectable, never "some time has passed". When a world is dropped it asserts what every test promises: the program
//! lives, its threads and descriptors are back to the baseline, each accepted connection has its one end line, nothing panicked.

pub mod clients;
pub mod front;
pub mod gate;
pub mod haproxy;
pub mod keys;
pub mod process;
pub mod router;
pub mod several;
pub mod sftp;
pub mod sshd;
pub mod store;
pub mod toxic;
pub mod tree;

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use clients::Target;
use keys::Key;
use process::{Output, run};
use router::Router;
use sshd::Sshd;
use store::Store;

/// Name of the user that every world starts with.
pub const USER: &str = "alice";

/// All that are offered by default, in another order: chosen by the operator, they are offered also by a libssh that does not check AES-GCM's tags.
/// The hostile client of `raw` speaks nothing else.
const CIPHERS: &str =
    "aes256-gcm@openssh.com,aes128-gcm@openssh.com,chacha20-poly1305@openssh.com,aes256-ctr,aes192-ctr,aes128-ctr";

/// Where routes are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A TOML file.
    File,
    /// A redis-server of its own.
    Redis,
}

/// What a test wants otherwise than usual.
#[derive(Debug, Clone, Copy)]
pub struct Setup<'a> {
    /// Where routes are kept.
    pub store: Kind,
    /// Lines at the end of the upstream's `sshd_config`.
    pub sshd: &'a [&'a str],
    /// Settings of ours without `SFTPPROXY_`, such as `("LOGIN_TIMEOUT", "2")`; an empty value unsets what the world sets.
    pub settings: &'a [(&'a str, &'a str)],
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Self { store: Kind::File, sshd: &[], settings: &[] }
    }
}

/// Everything that a test needs. Dropped in this order.
pub struct World {
    /// Our program.
    pub router: Router,
    /// Where its routes are.
    pub store: Store,
    /// The upstream.
    pub sshd: Sshd,
    /// Holds the files of all of them.
    pub folder: TempDir,
}

impl World {
    /// The usual world: routes in a file, one upstream, the user [`USER`] with an ed25519 key, whose home is the upstream's folder.
    pub fn start() -> Self {
        Self::with(Setup::default())
    }

    /// A world otherwise than usual.
    pub fn with(setup: Setup<'_>) -> Self {
        let folder = tempfile::Builder::new().prefix("sftpproxy-it-").tempdir().expect("a temporary folder");
        for name in ["home", "state", "client"] {
            std::fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        let sshd = Sshd::start(&folder.path().join("upstream"), "upstream", setup.sshd);
        let store = Store::start(setup.store, folder.path());
        let settings = settings(folder.path(), &store, setup.settings);
        let lazy = store.lazy_descriptors();
        let world = Self { router: Router::start(folder.path(), &settings, lazy), store, sshd, folder };
        world.add_user(USER, &keys::ed25519(USER));
        world
    }

    /// Gives a user with this key a route to the world's upstream.
    pub fn add_user(&self, name: &str, key: &Key) {
        self.store.put(name, &[key], &self.route());
    }

    /// The fields of a record for the world's upstream.
    pub fn route(&self) -> Vec<(&'static str, String)> {
        route_to(&self.sshd)
    }

    /// Stops the program and starts it again with these variables otherwise; an empty value unsets one.
    pub fn restart(&mut self, changes: &[(&str, &str)]) {
        let mut environment = self.router.environment().to_vec();
        environment.retain(|(name, _)| changes.iter().all(|(changed, _)| name != changed));
        environment.extend(changes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        self.router = Router::start(self.folder.path(), &environment, self.store.lazy_descriptors());
    }

    /// Starts the program again beside the one that runs, with these variables otherwise, which takes over. Returns the one before.
    pub fn take_over(&mut self, changes: &[(&str, &str)]) -> Router {
        let mut environment = self.router.environment().to_vec();
        let changes: Vec<_> = changes.iter().chain(&[("SFTPPROXY_TAKE_OVER", "yes")]).collect();
        environment.retain(|(name, _)| changes.iter().all(|(changed, _)| name != changed));
        environment.extend(changes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let next = Router::start(self.folder.path(), &environment, self.store.lazy_descriptors());
        std::mem::replace(&mut self.router, next)
    }

    /// Where clients get when they use the proxy.
    pub fn proxied(&self, user: &str) -> Target {
        self.proxied_with(user, &keys::ed25519(user))
    }

    /// The same with a key that is not the user's usual one.
    pub fn proxied_with(&self, user: &str, key: &Key) -> Target {
        Target::new(self.router.port, user, key, &[keys::ed25519("router-host"), keys::rsa("router-host")], &self.client())
    }

    /// Where clients get when they go to the upstream themselves.
    pub fn direct(&self) -> Target {
        Target::new(
            self.sshd.port,
            &sshd::login(),
            &keys::ed25519(USER),
            std::slice::from_ref(&self.sshd.host_key),
            &self.client(),
        )
    }

    /// The folder in which clients run.
    pub fn client(&self) -> PathBuf {
        self.folder.path().join("client")
    }

    /// Runs one of our commands with the settings of the running program.
    pub fn command(&self, arguments: &[&str]) -> Output {
        let mut command = self.router.command();
        run(command.args(arguments))
    }
}

/// The fields of a record for an upstream: pinned, at its folder.
pub fn route_to(sshd: &Sshd) -> Vec<(&'static str, String)> {
    vec![
        ("remote", "127.0.0.1".to_owned()),
        ("port", sshd.port.to_string()),
        ("user", sshd::login()),
        ("home", sshd.files.display().to_string()),
        ("hostkey", sshd.host_key.fingerprint()),
    ]
}

/// The library that speaks SSH with upstreams; `scripts/test` runs what has to do with it twice.
pub fn library() -> String {
    std::env::var("UPSTREAM_LIBRARY").unwrap_or_else(|_| "ssh2".to_owned())
}

/// The settings of a world: its own, then the test's.
fn settings(folder: &Path, store: &Store, of_test: &[(&str, &str)]) -> Vec<(String, String)> {
    let text = |path: &Path| path.display().to_string();
    let mut settings = vec![
        ("ADDRESS", "127.0.0.1".to_owned()),
        ("PORT", "0".to_owned()),
        ("STATE_DIR", text(&folder.join("state"))),
        (
            "PRIVATEKEY_PATH",
            format!("{},{}", text(&keys::ed25519("router-host").private), text(&keys::rsa("router-host").private)),
        ),
        ("UPSTREAM_KEY_PATH", text(&keys::ed25519("router-user").private)),
        ("CIPHERS", CIPHERS.to_owned()),
    ];
    settings.extend(store.settings());
    settings.push(("UPSTREAM_LIBRARY", library()));
    for (name, value) in of_test {
        settings.retain(|(known, _)| known != name);
        settings.push((name, (*value).to_owned()));
    }
    settings.into_iter().map(|(name, value)| (format!("SFTPPROXY_{name}"), value)).collect()
}
