//! What sources owe for their faults: times that add up, in tables that never grow beyond their bound.
//!
//! Pure. The ideas are sshd's (PerSourcePenalties): each fault adds a time; a source is refused once its times add up to `min`, until
//! they are over; they never add up to more than `max`. A fault that stays alone costs nothing.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::config::admission::{Class, Overflow, Penalties};

/// The penalties of all sources.
#[derive(Debug, Default)]
pub struct Debts {
    v4: Table,
    v6: Table,
}

/// Those of one address family: a flood of the other one pushes nobody out.
#[derive(Debug, Default)]
struct Table {
    sources: HashMap<IpNet, Owed>,
    /// The same by their ends.
    ends: BTreeSet<(Instant, IpNet)>,
}

#[derive(Debug, Clone, Copy)]
struct Owed {
    until: Instant,
    /// Whether it is refused; once it is, until the end.
    refused: bool,
    class: Class,
    /// Whether other nodes know.
    shared: bool,
}

/// What a fault has led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sentence {
    /// The sum from now on.
    pub owed: Duration,
    /// Whether the source is refused for it.
    pub refused: bool,
}

impl Debts {
    fn table(&mut self, source: IpNet) -> &mut Table {
        if source.addr().is_ipv4() { &mut self.v4 } else { &mut self.v6 }
    }

    /// Adds what a fault of `class` costs. `None` = it costs nothing, or there is no room for it.
    pub fn add(&mut self, rules: &Penalties, source: IpNet, class: Class, now: Instant) -> Option<Sentence> {
        let cost = rules.of(class);
        let most = if source.addr().is_ipv4() { rules.most4 } else { rules.most6 };
        let table = self.table(source);
        table.forget(now);
        if cost.is_zero() {
            return None;
        }
        let old = table.sources.get(&source).copied();
        if old.is_none() && table.sources.len() >= most {
            match rules.overflow {
                Overflow::DenyAll => return None,
                Overflow::Permissive => drop(table.ends.pop_first().map(|(_, first)| table.sources.remove(&first))),
            }
        }
        let until = (old.map_or(now, |old| old.until.max(now)) + cost).min(now + rules.max);
        let owed = until - now;
        let refused = old.is_some_and(|old| old.refused) || owed >= rules.min;
        if let Some(old) = old {
            table.ends.remove(&(old.until, source));
        }
        table.ends.insert((until, source));
        table.sources.insert(source, Owed { until, refused, class, shared: false });
        Some(Sentence { owed, refused })
    }

    /// How long a source is refused from now on, and for the last of which faults.
    pub fn refused(&mut self, source: IpNet, now: Instant) -> Option<(Duration, Class)> {
        let owed = *self.table(source).sources.get(&source)?;
        let left = owed.until.checked_duration_since(now).filter(|left| !left.is_zero())?;
        owed.refused.then_some((left, owed.class))
    }

    /// Whether there is no room for another source of this family, and nobody is to be let in for that.
    pub fn is_closed(&mut self, rules: &Penalties, source: IpNet, now: Instant) -> bool {
        if rules.overflow != Overflow::DenyAll {
            return false;
        }
        let most = if source.addr().is_ipv4() { rules.most4 } else { rules.most6 };
        let table = self.table(source);
        table.forget(now);
        table.sources.len() >= most && !table.sources.contains_key(&source)
    }

    /// Refused sources that other nodes have not been told of, with what is left and why.
    pub fn unshared(&self, now: Instant) -> Vec<(IpNet, Duration, Class)> {
        let tables = [&self.v4, &self.v6];
        let refused = tables.into_iter().flat_map(|table| &table.sources).filter(|(_, owed)| owed.refused && !owed.shared);
        let left = refused.map(|(source, owed)| (*source, owed.until.saturating_duration_since(now), owed.class));
        left.filter(|(_, left, _)| !left.is_zero()).collect()
    }

    /// Other nodes know of this one now.
    pub fn shared(&mut self, source: IpNet) {
        if let Some(owed) = self.table(source).sources.get_mut(&source) {
            owed.shared = true;
        }
    }

    /// Forgives what other nodes were told of and `known` says is no longer among what all know: somebody has taken it away.
    pub fn forgive(&mut self, known: impl Fn(&IpNet) -> bool) {
        for table in [&mut self.v4, &mut self.v6] {
            let ends = &mut table.ends;
            table.sources.retain(|source, owed| {
                let stays = !owed.shared || known(source);
                if !stays {
                    ends.remove(&(owed.until, *source));
                }
                stays
            });
        }
    }

    /// Sources with penalties, refused or not.
    pub fn count(&self) -> usize {
        self.v4.sources.len() + self.v6.sources.len()
    }
}

impl Table {
    /// Drops what is over.
    fn forget(&mut self, now: Instant) {
        while let Some((until, source)) = self.ends.first().copied()
            && until <= now
        {
            self.ends.pop_first();
            self.sources.remove(&source);
        }
    }
}
