//! Networks that are refused because an operator or another node has said so, in the form in which an address is looked up.
//!
//! Pure. The list is the store's and replaced as a whole; when the store does not answer, what was known last goes on until its ends.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;

/// One network that is refused, as a store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    /// Whom it is for.
    pub network: IpNet,
    /// How long it still holds; `None` = until it is taken away.
    pub left: Option<Duration>,
    /// Why: a class of faults, or an operator's words, in one line.
    pub why: String,
}

/// Longest reason in bytes.
pub const MAX_WHY: usize = 200;

/// Most bans that a store holds and a node knows.
pub const MAX_BANS: usize = 65_536;

/// The bans that are known.
#[derive(Debug, Default)]
pub struct Bans {
    until: HashMap<IpNet, Option<Instant>>,
    /// The lengths of prefixes there are: so many look-ups an address needs.
    lengths: BTreeSet<(bool, u8)>,
}

impl Bans {
    /// The list of a store, asked for at `now`.
    pub fn new(bans: &[Ban], now: Instant) -> Self {
        let mut known = Self::default();
        for ban in bans.iter().take(MAX_BANS) {
            let until = ban.left.map(|left| now + left);
            let entry = known.until.entry(ban.network).or_insert(until);
            // The longest of several counts.
            *entry = entry.zip(until).map(|(one, two)| one.max(two));
            known.lengths.insert((ban.network.addr().is_ipv4(), ban.network.prefix_len()));
        }
        known
    }

    /// The widest network that holds for an address.
    pub fn holds(&self, address: IpAddr, now: Instant) -> Option<IpNet> {
        let family = address.is_ipv4();
        let lengths = self.lengths.range((family, 0)..=(family, 128));
        let networks = lengths.filter_map(|(_, length)| IpNet::new(address, *length).ok()).map(|network| network.trunc());
        networks.into_iter().find(|network| self.until.get(network).is_some_and(|until| until.is_none_or(|until| now < until)))
    }

    /// Whether there is one for exactly this network.
    pub fn has(&self, network: &IpNet) -> bool {
        self.until.contains_key(network)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.until.len()
    }
}
