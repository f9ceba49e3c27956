//! What the page asks for: the router as it is now, as JSON. Bounded whatever peers do: so many sessions, those that move most; so many
//! transfers of each; texts cut and made fit to be shown.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::error::shown;
use crate::live::Snapshot;
use crate::metrics::recent::Recent;
use crate::registry::Registry;
use crate::session::World;

/// Sessions that are shown.
const MAX_SESSIONS: usize = 100;

/// Transfers that are shown of each.
const MAX_TRANSFERS: usize = 4;

/// How often throughput is noted.
pub const STEP: Duration = Duration::from_secs(5);

/// How many of those are kept: an hour.
const KEPT: usize = 720;

/// Throughput of the last hour.
#[derive(Debug)]
pub struct Throughput {
    started: Instant,
    noted: Mutex<Noted>,
}

#[derive(Debug)]
struct Noted {
    at: Instant,
    bytes: (u64, u64),
    /// Bytes a second in each step, the oldest first.
    up: VecDeque<u64>,
    down: VecDeque<u64>,
}

impl Throughput {
    /// Begins now.
    pub fn new(now: Instant) -> Self {
        let noted = Noted { at: now, bytes: (0, 0), up: VecDeque::new(), down: VecDeque::new() };
        Self { started: now, noted: Mutex::new(noted) }
    }

    /// Notes how many bytes were received until now.
    pub fn note(&self, bytes: (u64, u64), now: Instant) {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        let seconds = now.saturating_duration_since(noted.at).as_secs_f64().max(0.001);
        let rate = |new: u64, old: u64| (new.saturating_sub(old) as f64 / seconds) as u64;
        let (up, down) = (rate(bytes.0, noted.bytes.0), rate(bytes.1, noted.bytes.1));
        let Noted { up: ups, down: downs, .. } = &mut *noted;
        for (rates, rate) in [(ups, up), (downs, down)] {
            rates.push_back(rate);
            if rates.len() > KEPT {
                rates.pop_front();
            }
        }
        (noted.at, noted.bytes) = (now, bytes);
    }

    fn rates(&self) -> Rates {
        let noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        Rates { step: STEP.as_secs(), up: noted.up.iter().copied().collect(), down: noted.down.iter().copied().collect() }
    }
}

#[derive(Serialize)]
struct Rates {
    step: u64,
    up: Vec<u64>,
    down: Vec<u64>,
}

#[derive(Serialize)]
struct Upstream {
    address: String,
    ok: bool,
    since: u64,
    sessions: usize,
    reason: Option<String>,
}

#[derive(Serialize)]
struct Refusal {
    kind: &'static str,
    user: String,
    from: String,
    reason: String,
    ago: u64,
}

#[derive(Serialize)]
struct State {
    version: &'static str,
    uptime: u64,
    draining: bool,
    store_answers: bool,
    sessions_open: usize,
    up: u64,
    down: u64,
    up_rate: u64,
    down_rate: u64,
    throughput: Rates,
    sessions: Vec<Snapshot>,
    upstreams: Vec<Upstream>,
    refusals: Vec<Refusal>,
}

/// The state, as JSON.
pub fn json(world: &World, registry: &Registry, throughput: &Throughput, store_answers: bool) -> Vec<u8> {
    let now = Instant::now();
    let mut sessions = registry.snapshots();
    let mut counts: HashMap<String, usize> = HashMap::new();
    for upstream in sessions.iter().filter_map(|session| session.upstream.clone()) {
        *counts.entry(upstream).or_default() += 1;
    }
    let sum = |rate: fn(&Snapshot) -> u64| sessions.iter().map(rate).sum();
    let (up_rate, down_rate) = (sum(|session| session.up_rate), sum(|session| session.down_rate));
    let sessions_open = sessions.len();
    sessions.sort_by_key(|session| (std::cmp::Reverse(session.up_rate + session.down_rate), session.session));
    sessions.truncate(MAX_SESSIONS);
    sessions.iter_mut().for_each(cut);
    let (up, down) = world.metrics.bytes();
    let state = State {
        version: env!("CARGO_PKG_VERSION"),
        uptime: since(throughput.started, now),
        draining: world.metrics.is_draining(),
        store_answers,
        sessions_open,
        up,
        down,
        up_rate,
        down_rate,
        throughput: throughput.rates(),
        sessions,
        upstreams: upstreams(&world.metrics.recent, &counts, now),
        refusals: refusals(&world.metrics.recent, now),
    };
    serde_json::to_vec(&state).unwrap_or_default()
}

/// Makes a session fit to be shown, and short.
fn cut(session: &mut Snapshot) {
    let texts = [&mut session.user, &mut session.software, &mut session.login].into_iter().flatten();
    texts.for_each(|text| *text = shown(text));
    session.more_transfers += session.transfers.len().saturating_sub(MAX_TRANSFERS);
    session.transfers.truncate(MAX_TRANSFERS);
    session.transfers.iter_mut().for_each(|transfer| transfer.path = shown(&transfer.path));
}

fn since(then: Instant, now: Instant) -> u64 {
    now.saturating_duration_since(then).as_secs()
}

fn upstreams(recent: &Recent, counts: &HashMap<String, usize>, now: Instant) -> Vec<Upstream> {
    let upstream = |(address, known): (String, crate::metrics::recent::Upstream)| Upstream {
        sessions: counts.get(&address).copied().unwrap_or_default(),
        ok: known.fault.is_none(),
        since: since(known.since, now),
        reason: known.fault,
        address,
    };
    recent.upstreams().into_iter().map(upstream).collect()
}

fn refusals(recent: &Recent, now: Instant) -> Vec<Refusal> {
    let refusal = |refusal: crate::metrics::recent::Refusal| Refusal {
        kind: refusal.kind.name(),
        user: refusal.user,
        from: refusal.from,
        reason: refusal.reason,
        ago: since(refusal.at, now),
    };
    recent.refusals().into_iter().map(refusal).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throughput_is_that_of_each_step_and_an_hour_is_kept() {
        let start = Instant::now();
        let throughput = Throughput::new(start);
        throughput.note((5000, 0), start + STEP);
        throughput.note((5000, 50), start + STEP * 2);
        let rates = throughput.rates();
        assert_eq!((rates.up, rates.down), (vec![1000, 0], vec![0, 10]));
        (3..2000).for_each(|step| throughput.note((5000, 50), start + STEP * step));
        assert_eq!((throughput.rates().up.len(), KEPT as u64 * STEP.as_secs()), (KEPT, 3600));
    }
}
