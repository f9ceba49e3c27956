//! What a login asks of the store: whose key it is, where the user goes, and whether from there. Which host key is trusted there says
//! [`crate::upstream::Trust::find`], and with which key the router logs in [`crate::upstream::Credential::find`].
//!
//! `session` asks it for a client, and `explain` for an operator who wants to know what a client would meet: the answers are the same
//! because the functions are. Nothing here talks to a client or to an upstream, and nothing is logged.

use std::net::IpAddr;

use crate::admission::Refusal;
use crate::config;
use crate::downstream::Verdict;
use crate::error::{Fault, Side, Stage, shown};
use crate::identity::{Offered, PublicKey, UserName};
use crate::route::{Defaults, Route};
use crate::store::{Asked, RouteStore, Shelf};

/// Why a key is refused that the store knows as somebody else's.
pub const ANOTHER_USERS: &str = "the key is another user's";

/// And one that it does not know.
pub const NOBODYS: &str = "nobody has this key";

/// Whose key it is, by the store.
pub fn judge(store: &dyn RouteStore, offered: &Offered) -> Verdict {
    match store.owner(&offered.key) {
        Ok(Some(owner)) if owner == offered.user => Verdict::Theirs,
        Ok(Some(_)) => Verdict::Refused(ANOTHER_USERS.into()),
        Ok(None) => Verdict::Refused(NOBODYS.into()),
        Err(error) => Verdict::Unknown(error.what),
    }
}

/// Whether a user's key may be offered at all: libssh, which is set up with the same settings, refuses others without asking [`judge`].
pub fn accepts(key: &PublicKey, config: &config::Downstream) -> Result<(), String> {
    let signatures = match key.kind() {
        "ssh-rsa" => &["rsa-sha2-512", "rsa-sha2-256", "ssh-rsa"],
        kind => &[kind][..],
    };
    if !config.pubkey_algorithms.split(',').any(|accepted| signatures.contains(&accepted)) {
        return Err(format!("signatures of {} keys are not accepted (SFTPPROXY_PUBKEY_ALGORITHMS)", key.kind()));
    }
    let least = usize::try_from(config.rsa_min_bits).unwrap_or_default();
    if key.kind() == "ssh-rsa" && key.bits() < least {
        return Err(format!(
            "an RSA key of {} bits is refused, at least {least} are wanted (SFTPPROXY_RSA_MIN_SIZE)",
            key.bits()
        ));
    }
    Ok(())
}

/// Finds the route of a user; that the user has proven a key is the caller's to know.
pub fn find(store: &dyn RouteStore, user: &UserName, defaults: &Defaults) -> Result<Route, Fault> {
    let fault = |what| Fault::new(Side::Store, Stage::Find, what);
    if let Some(message) = store.maintenance().map_err(|error| fault(error.what))? {
        return Err(maintenance(&message));
    }
    let record = store.record(user).map_err(|error| fault(error.what))?;
    let record = record.ok_or_else(|| fault("the user has no record; add one with: sftpproxy user add".into()))?;
    let route = Route::parse(user, &record, defaults).map_err(|reasons| fault(format!("bad record: {reasons}")))?;
    route.maintenance.as_deref().map_or(Ok(()), |message| Err(maintenance(message)))?;
    Ok(route)
}

/// All that the login of this user with this key, to the upstream at this address, has asked of the store and must not go wrong.
pub fn asked<'a>(user: &'a UserName, key: &'a PublicKey, address: &'a str) -> [Asked<'a>; 4] {
    [Asked::Owner(key), Asked::Maintenance, Asked::Record(user), Asked::Entry(Shelf::Hosts, address)]
}

/// Whether the user may come from this address, by the record.
pub fn comes_from(route: &Route, from: IpAddr) -> Result<(), Refusal> {
    if route.from.is_empty() || route.from.contains(from) { Ok(()) } else { Err(Refusal::UserFrom) }
}

/// Nobody is let in, or this user is not, as the operator wants it.
fn maintenance(message: &str) -> Fault {
    let what = format!("maintenance: {message}");
    Fault::new(Side::Router, Stage::Find, shown(&what)).told(what)
}
