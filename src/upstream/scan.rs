//! Which host keys an sshd shows, asked once for each type. It trusts nothing and logs in nowhere.

use std::time::Instant;

use super::trust::signatures_of;
use super::{Waiting, dial};
use crate::config;
use crate::identity::PublicKey;
use crate::relay::Control;
use crate::route::HOST_KEY_TYPES;

/// The host's keys, at least one; the error is the first reason why there is none.
pub fn scan(host: &str, port: u16, config: &config::Upstream) -> Result<Vec<PublicKey>, String> {
    let control = Control::new()?;
    let mut keys: Vec<PublicKey> = Vec::new();
    let mut first_reason = None;
    for kind in HOST_KEY_TYPES {
        let deadline = Instant::now() + config.connect_timeout + config.exchange_timeout;
        let waiting = Waiting { deadline, control: &control, announce: None };
        // A host that cannot be reached is not asked five times.
        let dialed = dial(host, port, config, waiting).map_err(|fault| fault.what)?;
        match dialed.exchange(signatures_of(kind).collect::<Vec<_>>().join(",")).map(|unchecked| unchecked.shown.host_key) {
            Ok(key) if !keys.contains(&key) => keys.push(key),
            Ok(_) => {}
            Err(fault) => first_reason = first_reason.or(Some(fault.what)),
        }
    }
    if keys.is_empty() { Err(first_reason.unwrap_or_else(|| "no host key".into())) } else { Ok(keys) }
}
