//! With which key the router logs in at an upstream: the record's, else the configured one, else ssh-agent's, else the account's own.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ssh2::Session;

use super::Trusted;
use crate::config;
use crate::error::shown;
use crate::ffi::PrivateKey;
use crate::identity::PublicKey;
use crate::route::Route;
use crate::secret::read_key_file;

/// Agent keys tried at one upstream: sshd's MaxAuthTries is 6 unless set, and each one counts.
const MAX_AGENT_KEYS: usize = 5;

/// The account's own keys, in ssh(1)'s order of today.
const OWN_KEYS: [&str; 3] = ["id_ed25519", "id_ecdsa", "id_rsa"];

/// Where a key comes from.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    File(PathBuf),
    Agent,
}

/// What applies, in the order in which it is tried. A record's or a configured key stands alone: what an operator has chosen is not
/// replaced by something else.
fn sources(key: Option<&Path>, config: &config::Upstream) -> Result<Vec<Source>, String> {
    if let Some(key) = key {
        return Ok(vec![Source::File(config.keys_dir.join(key))]);
    }
    if let Some(key) = &config.key {
        return Ok(vec![Source::File(key.clone())]);
    }
    let mut sources = Vec::new();
    if std::env::var_os("SSH_AUTH_SOCK").is_some_and(|socket| !socket.is_empty()) {
        sources.push(Source::Agent);
    }
    let own = config.account_home.iter().flat_map(|home| OWN_KEYS.map(|name| home.join(".ssh").join(name)));
    sources.extend(own.filter(|path| path.exists()).map(Source::File));
    if sources.is_empty() {
        return Err(
            "there is no key to log in with: set SFTPPROXY_UPSTREAM_KEY_PATH, or key in the record, or make ~/.ssh/id_ed25519"
                .into(),
        );
    }
    Ok(sources)
}

/// Logs in, or says with what it was tried and why each failed.
pub(super) fn log_in(trusted: &Trusted<'_>, route: &Route) -> Result<(), String> {
    let mut tried = Vec::new();
    for source in sources(route.key.as_deref(), trusted.dialed.config)? {
        let outcome = match &source {
            Source::File(path) => {
                with_file(trusted, &route.login, path).map_err(|reason| format!("key {}: {reason}", path.display()))
            }
            Source::Agent => with_agent(trusted, &route.login).map_err(|reason| format!("ssh-agent: {reason}")),
        };
        match outcome {
            Ok(()) => return Ok(()),
            Err(reason) => tried.push(reason),
        }
    }
    Err(format!(
        "login \"{}\" was not accepted ({}); put the public half of the key into that account's authorized_keys",
        shown(&route.login),
        tried.join("; ")
    ))
}

fn with_file(trusted: &Trusted<'_>, login: &str, path: &Path) -> Result<(), String> {
    let secret = read_key_file(path)?;
    let text = secret.expose_str().ok_or("not a private key: not text")?;
    let dialed = &trusted.dialed;
    dialed.link.until(dialed.waiting, dialed.config.login_timeout, || {
        dialed.link.session.userauth_pubkey_memory(login, None, text, None)
    })
}

fn with_agent(trusted: &Trusted<'_>, login: &str) -> Result<(), String> {
    let dialed = &trusted.dialed;
    let mut agent = dialed.link.session.agent().map_err(|error| error.to_string())?;
    agent.connect().map_err(|error| error.to_string())?;
    agent.list_identities().map_err(|error| error.to_string())?;
    let keys = agent.identities().map_err(|error| error.to_string())?;
    if keys.is_empty() {
        return Err("holds no keys".into());
    }
    let mut last = String::new();
    for key in keys.iter().take(MAX_AGENT_KEYS) {
        match dialed.link.until(dialed.waiting, dialed.config.login_timeout, || agent.userauth(login, key)) {
            Ok(()) => return Ok(()),
            Err(reason) => last = reason,
        }
    }
    Err(format!("none of {} keys fits: {last}", keys.len().min(MAX_AGENT_KEYS)))
}

/// The public halves of the keys that would be tried, as lines for `authorized_keys`.
pub fn public_keys(key: Option<&Path>, config: &config::Upstream) -> Result<Vec<String>, String> {
    let mut lines = Vec::new();
    for source in sources(key, config)? {
        match source {
            Source::File(path) => {
                let secret = read_key_file(&path)?;
                let public = PrivateKey::parse(&secret)
                    .and_then(|key| key.public())
                    .map_err(|why| format!("{}: {why}", path.display()))?;
                lines.push(format!("{} {} sftpproxy", public.kind(), public.base64()));
            }
            Source::Agent => lines.extend(agent_lines()?),
        }
    }
    Ok(lines)
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
