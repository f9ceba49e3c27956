//! What the router counts, and the text of it that Prometheus reads. METRICS.md is the table of it. [`recent`] beside it is for the page.
//!
//! Pure: no I/O, no clock, no log. Labels have fixed values ([`labels`]); only per-user series, which an operator asks for, have a name in
//! them, of a user who has proven a key, and no more than so many. Counting is an addition to an atomic, once a buffer or once an operation.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, prometheus_text};
use prometheus_client::registry::Registry;

use crate::admission::{Figures, Refusal};
use crate::config::admission;
use crate::error::Side;

pub mod family;
pub mod labels;
pub mod recent;
mod seen;
mod users;

pub use seen::{Seen, Tally};

use family::{About, Family, Numbers, Times};
use labels::{Call, Class, Direction, EndedBy, KeyReason, Label, Login, Loss, Place, Reason, State, Step, Whole};
use recent::Recent;
use users::Users;

/// What the text is, for who gets it over HTTP.
pub const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// Bounds for what an upstream answers: from a STAT in the memory of a machine next door to a disk that spins up.
const ANSWERS: &[f64] = &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Bounds for what has key exchanges and other machines in it; the last ones are the usual time limits.
const LOGINS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Everything that is counted. Each field is a family of series.
#[derive(Debug)]
pub struct Metrics {
    started: Numbers,
    draining: Numbers,
    sessions: Numbers,
    connections: Numbers,
    refused: Numbers,
    faults: Numbers,
    penalties: Numbers,
    bans: Numbers,
    quarantined: Numbers,
    keys: Numbers,
    logins: Numbers,
    graced: Numbers,
    login: Times,
    ended: Numbers,
    steps: Times,
    reused: Numbers,
    lost: Numbers,
    lost_files: Numbers,
    reply: Times,
    bytes: Numbers,
    operations: Numbers,
    answers: Times,
    transfers: Numbers,
    store: Times,
    store_errors: Numbers,
    audit: Numbers,
    users: Users,
    read: bool,
    /// What has just happened, for who looks at it.
    pub recent: Recent,
}

impl Metrics {
    /// All at nothing, of a router that was started so long after 1970. `read` = somebody will read it, so that operations are worth
    /// the ledger that they are counted with. At most so many `users` have series of their own.
    pub fn new(started: Duration, read: bool, users: usize) -> Arc<Self> {
        let counters = |name, help, labels: &[Label]| Numbers::counters(About::new(name, help, labels));
        let gauges = |name, help, labels: &[Label]| Numbers::gauges(About::new(name, help, labels));
        let times = |name, help, labels: &[Label], bounds| Times::new(About::new(name, help, labels), bounds);
        let this = Self {
            started: gauges("sftpproxy_start_time_seconds", "When the router was started, in seconds since 1970", &[]),
            draining: gauges("sftpproxy_draining", "1 = no new connections are taken, sessions may finish", &[]),
            sessions: gauges("sftpproxy_sessions", "Open sessions", &[State::label()]),
            connections: counters("sftpproxy_connections", "Connections that were let in", &[]),
            refused: counters(
                "sftpproxy_connections_refused",
                "Connections, and logins of proven users, that were not let in",
                &[labels::refusals()],
            ),
            faults: counters("sftpproxy_faults", "Proven faults of clients that count as penalties", &[labels::faults()]),
            penalties: gauges("sftpproxy_penalties", "Sources that owe a penalty", &[]),
            bans: gauges("sftpproxy_bans", "Networks that are banned", &[]),
            quarantined: gauges(
                "sftpproxy_upstreams_quarantined",
                "Upstreams that have shown this router a changed host key",
                &[],
            ),
            keys: counters("sftpproxy_keys_refused", "Offered keys that were refused", &[KeyReason::label()]),
            logins: counters(
                "sftpproxy_logins",
                "Logins, from accept to the open upstream, by how they ended",
                &[Login::label(), Reason::label()],
            ),
            graced: counters(
                "sftpproxy_logins_by_grace",
                "Logins that went on with what the store had said before it was away",
                &[],
            ),
            login: times("sftpproxy_login_seconds", "Time from accept to the open upstream", &[], LOGINS),
            ended: counters(
                "sftpproxy_sessions_ended",
                "Sessions with an upstream that have ended, by who ended them",
                &[EndedBy::label()],
            ),
            steps: times(
                "sftpproxy_upstream_seconds",
                "Time of each step towards a new connection to an upstream that succeeded",
                &[Step::label()],
                LOGINS,
            ),
            reused: counters("sftpproxy_upstream_reused", "Sessions that took over the connection of an earlier one", &[]),
            lost: counters(
                "sftpproxy_upstream_lost",
                "Upstreams that were lost amid sessions that survive that",
                &[Loss::label()],
            ),
            lost_files: counters("sftpproxy_files_lost", "Open files that were not the same when a lost upstream was back", &[]),
            reply: times("sftpproxy_first_reply_seconds", "Time from the proven key to the upstream's first reply", &[], LOGINS),
            bytes: counters("sftpproxy_bytes", "SFTP bytes received", &[Direction::label()]),
            operations: counters(
                "sftpproxy_operations",
                "SFTP requests that were answered",
                &[labels::operations(), labels::answered()],
            ),
            answers: times(
                "sftpproxy_operation_seconds",
                "Time from an SFTP request to the upstream's answer",
                &[Class::label()],
                ANSWERS,
            ),
            transfers: counters(
                "sftpproxy_transfers",
                "Files that were opened, transferred and closed",
                &[Direction::label(), Whole::label()],
            ),
            store: times("sftpproxy_store_seconds", "Time of a question to the store, answered or not", &[Call::label()], LOGINS),
            store_errors: counters("sftpproxy_store_errors", "Questions that the store did not answer", &[Call::label()]),
            audit: counters("sftpproxy_audit_dropped", "Audit events that were lost", &[Place::label()]),
            users: Users::new(users),
            read,
            recent: Recent::default(),
        };
        this.started.set(&[], started.as_secs());
        Arc::new(this)
    }

    /// Every family, in the order of the text.
    pub fn families(&self) -> Vec<&dyn Family> {
        let mut all: Vec<&dyn Family> = vec![
            &self.started,
            &self.draining,
            &self.sessions,
            &self.connections,
            &self.refused,
            &self.faults,
            &self.penalties,
            &self.bans,
            &self.quarantined,
            &self.keys,
            &self.logins,
            &self.graced,
            &self.login,
            &self.ended,
            &self.steps,
            &self.reused,
            &self.lost,
            &self.lost_files,
            &self.reply,
            &self.bytes,
            &self.operations,
            &self.answers,
            &self.transfers,
            &self.store,
            &self.store_errors,
            &self.audit,
        ];
        all.extend(self.users.families());
        all
    }

    /// The text, in Prometheus' format 0.0.4. Who is not let in counts the admission, and so many upstreams are quarantined.
    pub fn text(self: &Arc<Self>, figures: &Figures, quarantined: usize) -> String {
        self.quarantined.set(&[], quarantined as u64);
        self.penalties.set(&[], figures.penalties as u64);
        self.bans.set(&[], figures.bans as u64);
        figures.refused.iter().enumerate().for_each(|(reason, count)| self.refused.set(&[reason], *count));
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Arc::clone(self)));
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = prometheus_text::encode(&mut text, &registry);
        text
    }

    /// A connection was let in.
    pub fn connected(&self) {
        self.connections.add(&[], 1);
    }

    /// A connection was not let in because the machine has no room for it.
    pub fn out_of_resources(&self) {
        self.refused.add(&[Refusal::COUNT], 1);
    }

    /// A client's fault was proven.
    pub fn fault(&self, class: admission::Class) {
        self.faults.add(&[class as usize], 1);
    }

    /// An offered key was refused.
    pub fn key_refused(&self, reason: KeyReason) {
        self.keys.add(&[reason as usize], 1);
    }

    /// A step towards an upstream has succeeded.
    pub fn step(&self, step: Step, time: Duration) {
        self.steps.observe(&[step as usize], time);
    }

    /// A kept connection was used.
    pub fn reused(&self) {
        self.reused.add(&[], 1);
    }

    /// The upstream of a session that survives was lost, and this came of it.
    pub fn lost(&self, loss: Loss) {
        self.lost.add(&[loss as usize], 1);
    }

    /// A file that was open then is not what it was.
    pub fn lost_file(&self) {
        self.lost_files.add(&[], 1);
    }

    /// A question to the store, answered or not.
    pub fn store(&self, call: Call, time: Duration, answered: bool) {
        self.store.observe(&[call as usize], time);
        self.store_errors.add(&[call as usize], u64::from(!answered));
    }

    /// A login goes on with what the store had said before it was away.
    pub fn graced(&self) {
        self.graced.add(&[], 1);
    }

    /// Events were lost at the place that the audit calls so.
    pub fn audit_dropped(&self, at: &str, count: u64) {
        if let Some(place) = Place::named(at) {
            self.audit.add(&[place as usize], count);
        }
    }

    /// No new connections are taken any more.
    pub fn drain(&self) {
        self.draining.set(&[], 1);
    }

    /// Whether that is so.
    pub fn is_draining(&self) -> bool {
        self.draining.get(&[]) > 0
    }

    /// Bytes received so far, from clients and from upstreams.
    pub fn bytes(&self) -> (u64, u64) {
        (self.bytes.get(&[Direction::Up as usize]), self.bytes.get(&[Direction::Down as usize]))
    }

    fn logged_in(&self, time: Duration) {
        self.logins.add(&[Login::Ok as usize, Reason::None as usize], 1);
        self.login.observe(&[], time);
    }

    fn login_failed(&self, reason: Reason) {
        self.logins.add(&[Login::Failed as usize, reason as usize], 1);
    }

    fn session_ended(&self, side: Side) {
        self.ended.add(&[EndedBy::of(side) as usize], 1);
    }
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.families().into_iter().try_for_each(|family| family.encode(&mut encoder))
    }
}

#[cfg(test)]
mod tests;
