//! What is known of a session while it runs, and the [`Snapshot`] of it that the control socket, the metrics and `top` give on.
//!
//! The session's threads write here once a stage, and their figures are atomics ([`crate::pace`]). Everything else is asked for only when
//! somebody wants to see it: open transfers come out of the session's ledger, under its own lock.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use crate::error::Side;
use crate::identity::{PublicKey, UserName};
use crate::pace::{Spent, Wait};
use crate::relay::Control;
use crate::route::Route;

/// Transfers of a session that a snapshot has, those that moved last; clients have some.
pub const MAX_TRANSFERS: usize = 16;

/// Over how long rates and the one who is slow are looked at, at least.
const WINDOW: Duration = Duration::from_secs(1);

/// How far a session has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The client, and then the router, log in.
    Login,
    /// Bytes pass.
    Relaying,
    /// There is no upstream; the user is told why.
    Told,
}

impl State {
    /// Its word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Relaying => "relaying",
            Self::Told => "told",
        }
    }
}

/// Who a session waits for most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Slow {
    /// The client takes too little, or asks for too little.
    Client,
    /// The upstream takes too little, or does not answer.
    Upstream,
    /// The router itself works all the time.
    Router,
    /// The user's bandwidth.
    Limit,
}

impl Slow {
    /// Its word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Upstream => "upstream",
            Self::Router => "router",
            Self::Limit => "limit",
        }
    }
}

/// Where the bytes of a file go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// From the client to the upstream.
    Up,
    /// From the upstream to the client.
    Down,
}

/// A file that is open for reading or writing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transfer {
    /// Its path as the upstream has it, at most [`crate::path::MAX_PATH`] bytes; what is not UTF-8 is U+FFFD. A peer's text.
    pub path: String,
    /// Where its bytes go.
    pub direction: Direction,
    /// The end of the last byte that the upstream has delivered or acknowledged.
    pub offset: u64,
    /// The file's size, where it is known: that of a download, once the client has asked for it. Who uploads says none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Bytes that the upstream has delivered or acknowledged.
    pub bytes: u64,
    /// Since the file was opened.
    pub seconds: f64,
    /// Since something of it moved.
    pub idle: f64,
}

/// A session at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its number since the router's start, as in the log.
    pub session: u64,
    /// The client's address and port.
    pub peer: SocketAddr,
    /// When it was accepted: RFC 3339 in UTC.
    pub since: String,
    /// How long ago that was.
    pub seconds: f64,
    /// How far it has come.
    pub state: State,
    /// The user who has proven a key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// That key's fingerprint, `SHA256:…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The client's identification. A peer's text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub software: Option<String>,
    /// The upstream's address and port, once it speaks SFTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// The login there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// SFTP bytes given to the upstream.
    pub up: u64,
    /// SFTP bytes given to the client.
    pub down: u64,
    /// Bytes a second to the upstream, of late: over a second at least, and since somebody asked for the last time.
    pub up_rate: u64,
    /// Bytes a second to the client, likewise.
    pub down_rate: u64,
    /// Whom it has waited for most, likewise; `None` = nothing moves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow: Option<Slow>,
    /// Requests that the upstream has not answered; `None` = nobody counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_flight: Option<usize>,
    /// Open files, at most [`MAX_TRANSFERS`]; those that moved last come first.
    #[serde(default)]
    pub transfers: Vec<Transfer>,
    /// Open files beyond those.
    #[serde(default)]
    pub more_transfers: usize,
}

/// What a ledger says of itself.
#[derive(Debug, Default)]
pub struct Open {
    /// Requests that the upstream has not answered.
    pub in_flight: usize,
    /// Open files, at most [`MAX_TRANSFERS`].
    pub transfers: Vec<Transfer>,
    /// Open files beyond those.
    pub more: usize,
}

/// Whoever has a session's ledger.
pub trait Books: Send + Sync {
    /// What it says now.
    fn open(&self, now: Instant) -> Open;
}

/// Who has proven a key.
#[derive(Debug)]
pub struct Who {
    /// The user's name.
    pub user: String,
    /// The key's fingerprint.
    pub key: String,
    /// The client's identification.
    pub software: String,
}

/// What let a session in, to be held against what the store says later.
#[derive(Debug)]
pub struct Way {
    /// The user who has proven the key.
    pub user: UserName,
    /// The key.
    pub key: PublicKey,
    /// The route that was found.
    pub route: Route,
    seen: AtomicBool,
}

impl Way {
    /// Of a user whose route was found just now.
    pub fn new(user: UserName, key: PublicKey, route: Route) -> Self {
        Self { user, key, route, seen: AtomicBool::new(false) }
    }

    /// Whether the store was asked about it since.
    pub fn seen(&self) -> bool {
        self.seen.load(Ordering::Relaxed)
    }

    /// The store was asked.
    pub fn mark_seen(&self) {
        self.seen.store(true, Ordering::Relaxed);
    }
}

/// A running session, as others see it.
pub struct Live {
    id: u64,
    peer: SocketAddr,
    /// Where a balancer says that the client is.
    client: OnceLock<SocketAddr>,
    at: SystemTime,
    start: Instant,
    control: Arc<Control>,
    who: OnceLock<Who>,
    way: OnceLock<Way>,
    upstream: OnceLock<(String, String)>,
    told: AtomicBool,
    books: OnceLock<Weak<dyn Books>>,
    recent: Mutex<Recent>,
}

/// Looks at both threads: one that is [`WINDOW`] old at least, if there is one, and the last.
#[derive(Default)]
struct Recent {
    old: Looks,
    new: Looks,
}

/// Looks at the client's thread and the upstream's.
#[derive(Clone, Copy, Default)]
struct Looks {
    downstream: Spent,
    upstream: Spent,
}

impl Live {
    /// Of a connection that was just accepted.
    pub fn new(id: u64, peer: SocketAddr, control: Arc<Control>) -> Arc<Self> {
        Arc::new(Self {
            id,
            peer,
            client: OnceLock::new(),
            at: SystemTime::now(),
            start: Instant::now(),
            control,
            who: OnceLock::new(),
            way: OnceLock::new(),
            upstream: OnceLock::new(),
            told: AtomicBool::new(false),
            books: OnceLock::new(),
            recent: Mutex::default(),
        })
    }

    /// Its number since the start.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Where the client is.
    pub fn peer(&self) -> SocketAddr {
        self.client.get().copied().unwrap_or(self.peer)
    }

    /// The connection is a balancer's, which says that the client is there.
    pub fn located(&self, client: SocketAddr) {
        let _ = self.client.set(client);
    }

    /// What ends it.
    pub fn control(&self) -> &Arc<Control> {
        &self.control
    }

    /// Who has proven a key, once somebody has.
    pub fn who(&self) -> Option<&Who> {
        self.who.get()
    }

    /// A key is proven.
    pub fn proven(&self, who: Who) {
        let _ = self.who.set(who);
    }

    /// A route is found.
    pub fn found(&self, way: Way) {
        let _ = self.way.set(way);
    }

    /// What let it in, once its route is found.
    pub fn way(&self) -> Option<&Way> {
        self.way.get()
    }

    /// The upstream at this address speaks SFTP, with this login.
    pub fn opened(&self, address: String, login: String) {
        let _ = self.upstream.set((address, login));
    }

    /// There is no upstream, and the user is told why.
    pub fn explains(&self) {
        self.told.store(true, Ordering::Relaxed);
    }

    /// Where the session's ledger is, as long as it is there.
    pub fn keep(&self, books: Weak<dyn Books>) {
        let _ = self.books.set(books);
    }

    /// What is known now.
    pub fn snapshot(&self) -> Snapshot {
        let now = Instant::now();
        let (looks, spent) = self.look();
        let open = self.books.get().and_then(Weak::upgrade).map(|books| books.open(now));
        let told = self.told.load(Ordering::Relaxed);
        let upstream = self.upstream.get();
        let in_flight = open.as_ref().map(|open| open.in_flight);
        let Open { transfers, more, .. } = open.unwrap_or_default();
        let state = match (told, upstream) {
            (true, _) => State::Told,
            (_, Some(_)) => State::Relaying,
            _ => State::Login,
        };
        let moves = spent.upstream.bytes + spent.downstream.bytes > 0 || in_flight.is_some_and(|count| count > 0);
        Snapshot {
            session: self.id,
            peer: self.peer(),
            since: format!("{:.3}", jiff::Timestamp::try_from(self.at).unwrap_or_default()),
            seconds: rounded(now.saturating_duration_since(self.start)),
            state,
            user: self.who().map(|who| who.user.clone()),
            key: self.who().map(|who| who.key.clone()),
            software: self.who().map(|who| who.software.clone()),
            upstream: upstream.map(|(address, _)| address.clone()),
            login: upstream.map(|(_, login)| login.clone()),
            // What the router's own answers were asked with has gone nowhere.
            up: if told { 0 } else { looks.upstream.bytes },
            down: looks.downstream.bytes,
            up_rate: spent.upstream.rate(),
            down_rate: spent.downstream.rate(),
            slow: (state == State::Relaying && moves).then(|| spent.slow()),
            in_flight,
            transfers,
            more_transfers: more,
        }
    }

    /// Both threads now, and what they did of late.
    fn look(&self) -> (Looks, Looks) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let pace = |side| self.control.pace_of(side).look();
        let now = Looks { downstream: pace(Side::Downstream), upstream: pace(Side::Upstream) };
        let window = WINDOW.as_micros() as u64;
        if now.upstream.micros.saturating_sub(recent.new.upstream.micros) >= window {
            recent.old = std::mem::replace(&mut recent.new, now);
        }
        (now, now.since(&recent.old))
    }
}

impl Looks {
    fn since(&self, before: &Self) -> Self {
        Self { downstream: self.downstream.since(&before.downstream), upstream: self.upstream.since(&before.upstream) }
    }

    /// Who was waited for most. The upstream's thread knows whose turn it was when everything had been passed on.
    fn slow(&self) -> Slow {
        let Self { downstream, upstream } = self;
        let waited = [
            (downstream.busy().max(upstream.busy()), Slow::Router),
            (downstream.slept(Wait::Peer).max(upstream.slept(Wait::Question)), Slow::Client),
            (upstream.slept(Wait::Peer).max(upstream.slept(Wait::Answer)), Slow::Upstream),
            (downstream.slept(Wait::Rate).max(upstream.slept(Wait::Rate)), Slow::Limit),
        ];
        waited.into_iter().max_by_key(|(micros, _)| *micros).map_or(Slow::Router, |(_, slow)| slow)
    }
}

/// Seconds with milliseconds.
pub fn rounded(time: Duration) -> f64 {
    time.as_millis() as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread::sleep;

    fn live() -> Arc<Live> {
        Live::new(7, "127.0.0.1:22".parse().unwrap(), Control::new().unwrap())
    }

    /// A session in which the threads sleep for these.
    fn slow(downstream: Wait, upstream: Wait) -> Option<Slow> {
        let live = live();
        live.opened("10.0.0.7:22".into(), "root".into());
        live.control().pace_of(Side::Upstream).gave(1);
        std::thread::scope(|scope| {
            for (side, wait) in [(Side::Downstream, downstream), (Side::Upstream, upstream)] {
                let pace = live.control().pace_of(side);
                scope.spawn(move || pace.asleep(wait, || sleep(Duration::from_millis(40))));
            }
        });
        live.snapshot().slow
    }

    #[test]
    fn who_is_slow_is_who_the_threads_have_waited_for() {
        assert_eq!(slow(Wait::Room, Wait::Peer), Some(Slow::Upstream));
        assert_eq!(slow(Wait::Answer, Wait::Answer), Some(Slow::Upstream));
        assert_eq!(slow(Wait::Question, Wait::Question), Some(Slow::Client));
        assert_eq!(slow(Wait::Peer, Wait::Room), Some(Slow::Client));
        assert_eq!(slow(Wait::Rate, Wait::Anything), Some(Slow::Limit));
        assert_eq!(slow(Wait::Anything, Wait::Anything), Some(Slow::Router));
        assert_eq!(live().snapshot().slow, None, "nothing has moved");
    }

    #[test]
    fn a_snapshot_has_what_is_known_so_far_and_can_be_read_back() {
        let live = live();
        let first = live.snapshot();
        assert_eq!((first.state, first.user.as_deref(), first.in_flight, first.up), (State::Login, None, None, 0));
        live.proven(Who { user: "alice".into(), key: "SHA256:x".into(), software: "SSH-2.0-x".into() });
        live.control().pace_of(Side::Upstream).gave(100);
        live.control().pace_of(Side::Downstream).gave(9);
        let second = live.snapshot();
        assert_eq!((second.user.as_deref(), second.up, second.down), (Some("alice"), 100, 9));
        let text = serde_json::to_string(&second).unwrap();
        assert_eq!(serde_json::from_str::<Snapshot>(&text).unwrap(), second, "{text}");
        live.explains();
        assert_eq!((live.snapshot().state, live.snapshot().up), (State::Told, 0));
    }

    #[test]
    fn books_that_are_gone_are_not_asked() {
        struct Two;
        impl Books for Two {
            fn open(&self, _: Instant) -> Open {
                Open { in_flight: 2, ..Open::default() }
            }
        }
        let (live, books) = (live(), Arc::new(Two));
        live.keep(Arc::downgrade(&books) as Weak<dyn Books>);
        assert_eq!(live.snapshot().in_flight, Some(2));
        drop(books);
        assert_eq!(live.snapshot().in_flight, None);
    }
}
