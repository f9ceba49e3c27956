//! With which key the router logs in at an upstream: the record's, else the upstream's own, else the configured one, else ssh-agent's and
//! the account's. [`Credential::find`] says which, without opening anything.

use std::fmt;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ssh2::Session;

use super::libssh2::MAX_AGENT_KEYS;
use super::{Trusted, Wait};
use crate::config::{self, SecretKey};
use crate::error::shown;
use crate::ffi::PrivateKey;
use crate::identity::PublicKey;
use crate::route::{Host, Route};
use crate::sealed::{KeySource, Keys, Master, Sealed};
use crate::secret::{Secret, read_credential, read_key_file};

/// The account's own keys, in ssh(1)'s order of today.
const OWN_KEYS: [&str; 3] = ["id_ed25519", "id_ecdsa", "id_rsa"];

/// Where a key comes from. Shown by name, never by content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// This file.
    File(PathBuf),
    /// The ssh-agent at `SSH_AUTH_SOCK`.
    Agent,
    /// The store, sealed for this place.
    Sealed(Sealed, String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "key {}", shown(&path.display().to_string())),
            Self::Agent => f.write_str("ssh-agent"),
            Self::Sealed(sealed, _) => write!(f, "key {sealed}"),
        }
    }
}

impl Source {
    /// The private key of a file or of the store.
    fn read(&self, config: &config::Upstream) -> Result<Secret, String> {
        match self {
            Self::File(path) => read_key_file(path),
            Self::Sealed(sealed, place) => sealed.open(place, &master(config)?).map(Secret::from),
            Self::Agent => Err("an ssh-agent gives no private keys".into()),
        }
    }

    /// The public halves, as lines for `authorized_keys`.
    pub fn public_lines(&self, config: &config::Upstream) -> Result<Vec<String>, String> {
        let line = |public: &PublicKey| format!("{} {} sftpproxy", public.kind(), public.base64());
        match self {
            Self::Agent => agent_lines(),
            Self::Sealed(sealed, _) => Ok(vec![line(sealed.public())]),
            Self::File(path) => {
                let secret = self.read(config)?;
                let public = PrivateKey::parse(&secret).and_then(|key| key.public());
                Ok(vec![line(&public.map_err(|why| format!("{}: {why}", path.display()))?)])
            }
        }
    }

    /// The same of what a login could use: a key in the store is opened for it.
    pub fn usable(&self, config: &config::Upstream) -> Result<Vec<String>, String> {
        if let Self::Sealed(..) = self {
            self.read(config)?;
        }
        self.public_lines(config)
    }
}

/// Who says with which key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chosen {
    /// The user's record.
    Record,
    /// The upstream's entry in the store.
    Upstream,
    /// `SFTPPROXY_UPSTREAM_KEY_PATH`.
    Setting,
    /// Nobody: what the account has.
    Account,
}

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Record => "record",
            Self::Upstream => "upstream",
            Self::Setting => "setting",
            Self::Account => "account",
        })
    }
}

/// What is tried at an upstream, in this order. What an operator has chosen is not replaced by something else: beside it stands only the
/// key before it, while keys are rotated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// Who says so.
    pub chosen: Chosen,
    /// At least one.
    pub sources: Vec<Source>,
    /// How many of them, at the end, are there only until the rotation is finished.
    pub old: usize,
}

impl Credential {
    /// What applies to a route; the error says that there is nothing and what to do.
    pub fn find(route: &Route, host: &Host, config: &config::Upstream) -> Result<Self, String> {
        match &route.keys.now {
            Some(now) => Ok(Self::rotating(Chosen::Record, (now, &route.keys), || Self::of_host(host, config), config)),
            None => Self::of_host(host, config),
        }
    }

    /// What applies to routes without a key.
    pub fn of_host(host: &Host, config: &config::Upstream) -> Result<Self, String> {
        match &host.keys.now {
            Some(now) => Ok(Self::rotating(Chosen::Upstream, (now, &host.keys), || Self::common(config), config)),
            None => Self::common(config),
        }
    }

    /// What applies where neither record nor upstream say anything.
    pub fn common(config: &config::Upstream) -> Result<Self, String> {
        if let Some(key) = &config.key {
            return Ok(Self { chosen: Chosen::Setting, sources: vec![Source::File(key.clone())], old: 0 });
        }
        let mut sources = Vec::new();
        if std::env::var_os("SSH_AUTH_SOCK").is_some_and(|socket| !socket.is_empty()) {
            sources.push(Source::Agent);
        }
        let own = config.account_home.iter().flat_map(|home| OWN_KEYS.map(|name| home.join(".ssh").join(name)));
        sources.extend(own.filter(|path| path.exists()).map(Source::File));
        if sources.is_empty() {
            return Err("there is no key to log in with: set SFTPPROXY_UPSTREAM_KEY_PATH, or give the user one with: sftpproxy \
                        upstream-key new, or make ~/.ssh/id_ed25519"
                .into());
        }
        Ok(Self { chosen: Chosen::Account, sources, old: 0 })
    }

    fn rotating(
        chosen: Chosen,
        (now, keys): (&KeySource, &Keys),
        common: impl Fn() -> Result<Self, String>,
        config: &config::Upstream,
    ) -> Self {
        let named = |key: &KeySource| match key {
            KeySource::Agent => vec![Source::Agent],
            KeySource::File(path) => vec![Source::File(config.keys_dir.join(path))],
            KeySource::Sealed(sealed) => vec![Source::Sealed(sealed.clone(), keys.place.clone())],
            KeySource::Common => common().map(|credential| credential.sources).unwrap_or_default(),
        };
        let mut sources = named(now);
        let old = keys.old.as_ref().map(named).unwrap_or_default();
        let count = old.len();
        sources.extend(old);
        Self { chosen, sources, old: count }
    }

    /// Those that are there only until the rotation is finished.
    pub fn olds(&self) -> &[Source] {
        &self.sources[self.sources.len() - self.old..]
    }

    /// The others.
    pub fn news(&self) -> &[Source] {
        &self.sources[..self.sources.len() - self.old]
    }
}

/// Logs in with the first of the keys that is accepted and says which; or says with what it was tried and why each failed.
pub(super) fn log_in(trusted: &mut Trusted<'_>, login: &str, sources: &[Source]) -> Result<Source, String> {
    let mut tried = Vec::new();
    let wait = Wait { waiting: trusted.waiting, limit: trusted.config.login_timeout };
    for source in sources {
        let outcome = match source {
            Source::Agent => trusted.link.log_in_with_agent(login, wait),
            kept => kept.read(trusted.config).and_then(|key| trusted.link.log_in(login, &key, wait)),
        };
        match outcome {
            Ok(()) => return Ok(source.clone()),
            Err(reason) => tried.push(format!("{source}: {reason}")),
        }
    }
    Err(format!(
        "login \"{}\" was not accepted ({}); put the public half of the key into that account's authorized_keys",
        shown(login),
        tried.join("; ")
    ))
}

/// The secret key that opens and seals keys in the store.
pub fn master(config: &config::Upstream) -> Result<Master, String> {
    let (path, text) = match &config.secret_key {
        SecretKey::File(path) => (path, read_key_file(path)),
        SecretKey::Credential(path) if path.exists() => (path, read_credential(path)),
        _ => return Err("there is no secret key to open it: set SFTPPROXY_SECRET_KEY_FILE".into()),
    };
    Master::parse(text?.expose()).map_err(|reason| format!("secret key {}: {reason}", path.display()))
}

/// Whether there is a secret key; what is wrong with it is for [`master`] to say.
pub fn has_master(config: &config::Upstream) -> bool {
    match &config.secret_key {
        SecretKey::File(_) => true,
        SecretKey::Credential(path) => path.exists(),
        SecretKey::None => false,
    }
}

fn agent_lines() -> Result<Vec<String>, String> {
    let says = |error: ssh2::Error| format!("ssh-agent: {error}");
    let session = Session::new().map_err(says)?;
    let mut agent = session.agent().map_err(says)?;
    agent.connect().map_err(says)?;
    agent.list_identities().map_err(says)?;
    let keys = agent.identities().map_err(says)?;
    let line = |key: &ssh2::PublicKey| {
        let kind = PublicKey::from_blob(key.blob()).ok()?.kind().to_owned();
        Some(format!("{kind} {} {}", STANDARD.encode(key.blob()), shown(key.comment())))
    };
    Ok(keys.iter().take(MAX_AGENT_KEYS).filter_map(line).collect())
}
