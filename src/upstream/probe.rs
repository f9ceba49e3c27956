//! Whether an upstream accepts a key: it is dialed, trusted and logged in at, and left without a channel.

use std::time::Instant;

use super::{Source, Trust, Waiting, dial};
use crate::config;
use crate::error::{Fault, Side, Stage};
use crate::relay::Control;
use crate::route::Route;

/// Tries these keys; a fault of the stage "log in" says that the upstream takes none of them, any other that it could not be asked.
pub fn probe(route: &Route, trust: &Trust, sources: &[Source], config: &config::Upstream) -> Result<(), Fault> {
    let control = Control::new().map_err(|what| Fault::new(Side::Router, Stage::Dial, what))?;
    let deadline = Instant::now() + config.connect_timeout + config.exchange_timeout + config.login_timeout;
    let waiting = Waiting { deadline, control: &control, announce: None };
    let trusted = dial(&route.remote, route.port, config, waiting)?.trust(trust).map_err(|distrust| distrust.fault)?;
    trusted.log_in(route, sources).map(drop)
}
