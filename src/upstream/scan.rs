//! Which host keys an sshd shows, asked once for each type. It trusts nothing and logs in nowhere.

use std::time::Instant;

use super::{Waiting, dial};
use crate::config;
use crate::identity::PublicKey;
use crate::relay::Control;

/// Key types asked for, today's first.
const KINDS: [&str; 5] = ["ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa"];

/// The host's keys, at least one; the error is the first reason why there is none.
pub fn scan(host: &str, port: u16, config: &config::Upstream) -> Result<Vec<PublicKey>, String> {
    let control = Control::new()?;
    let mut keys: Vec<PublicKey> = Vec::new();
    let mut first_reason = None;
    for kind in KINDS {
        let waiting = Waiting { deadline: Instant::now() + config.connect_timeout + config.exchange_timeout, control: &control };
        // A host that cannot be reached is not asked five times.
        let dialed = dial(host, port, config, waiting).map_err(|fault| fault.what)?;
        match dialed.exchange(&[kind]).map(|unchecked| unchecked.shown.host_key) {
            Ok(key) if !keys.contains(&key) => keys.push(key),
            Ok(_) => {}
            Err(fault) => first_reason = first_reason.or(Some(fault.what)),
        }
    }
    if keys.is_empty() { Err(first_reason.unwrap_or_else(|| "no host key".into())) } else { Ok(keys) }
}
