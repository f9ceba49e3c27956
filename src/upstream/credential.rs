//! With which key the router logs in at an upstream: the record's, else the configured one, else ssh-agent's, else the account's own.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ssh2::Session;

use super::libssh2::MAX_AGENT_KEYS;
use super::{Trusted, Wait};
use crate::config;
use crate::error::shown;
use crate::ffi::PrivateKey;
use crate::identity::PublicKey;
use crate::route::Route;
use crate::secret::read_key_file;

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
pub(super) fn log_in(trusted: &mut Trusted<'_>, route: &Route) -> Result<(), String> {
    let mut tried = Vec::new();
    let wait = Wait { waiting: trusted.waiting, limit: trusted.config.login_timeout };
    for source in sources(route.key.as_deref(), trusted.config)? {
        let outcome = match &source {
            Source::File(path) => read_key_file(path)
                .and_then(|key| trusted.link.log_in(&route.login, &key, wait))
                .map_err(|reason| format!("key {}: {reason}", path.display())),
            Source::Agent => trusted.link.log_in_with_agent(&route.login, wait).map_err(|reason| format!("ssh-agent: {reason}")),
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
