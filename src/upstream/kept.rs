//! Connections to upstreams that outlive their session by some seconds, for the same user's next one.
//!
//! A client that opens a connection for each file pays for one login at the upstream instead of many. What is kept is used only for
//! the same user with the same route, after its host key has been checked again against what is pinned or known now.

use std::collections::HashMap;
use std::net::TcpStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::{Link, LoggedIn, Shown, Trust, Trusted, Upstream, Wait, Waiting};
use crate::config;
use crate::identity::UserName;
use crate::route::Route;

/// How long a kept connection may take to open a channel before a new one is dialed instead.
const OPENING: Duration = Duration::from_secs(2);

/// How long a channel may take to close so that its connection can be kept.
const CLOSING: Duration = Duration::from_secs(2);

/// Connections kept of one user: as many as a client with parallel transfers leaves behind.
const MAX_EACH: usize = 4;

/// The connections that are kept.
pub struct Kept {
    time: Duration,
    places: Arc<Places>,
}

#[derive(Default)]
struct Places {
    places: Mutex<HashMap<UserName, Vec<Place>>>,
    filled: Condvar,
}

struct Place {
    route: Route,
    shown: Shown,
    link: Box<dyn Link>,
    /// The same socket, for [`crate::relay::Control::hold`].
    socket: TcpStream,
    until: Instant,
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, HashMap<UserName, Vec<Place>>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Keeps connections for `time`; 0 = none. An error is the lack of a thread.
    pub fn new(time: Duration) -> Result<Self, String> {
        let places = Arc::new(Places::default());
        if !time.is_zero() {
            let theirs = Arc::clone(&places);
            let clear = move || clear(&theirs);
            thread::Builder::new().name("kept".into()).spawn(clear).map_err(|error| format!("no thread: {error}"))?;
        }
        Ok(Self { time, places })
    }

    /// Opens a channel on a connection that an earlier session of this user has left; `None` = there is none that is still good.
    pub fn open(
        &self,
        user: &UserName,
        route: &Route,
        trust: &Trust,
        config: &config::Upstream,
        waiting: Waiting<'_>,
    ) -> Option<Upstream> {
        if self.time.is_zero() {
            return None;
        }
        while let Some(Place { shown, link, socket, .. }) = self.take(user, route) {
            if trust.check(&shown.host_key).is_err() {
                continue;
            }
            waiting.control.hold(socket);
            let opened = LoggedIn(Trusted { link, waiting, config, shown }).open_within(OPENING);
            match opened {
                Ok(upstream) => return Some(upstream),
                Err(fault) => log::debug!("a kept connection to {} is not used: {}", route.address(), fault.what),
            }
        }
        None
    }

    fn take(&self, user: &UserName, route: &Route) -> Option<Place> {
        let mut places = self.places.lock();
        let theirs = places.get_mut(user)?;
        // Connections for a record that has changed are good for nothing.
        theirs.retain(|place| place.route == *route && place.until > Instant::now());
        let place = theirs.pop();
        if theirs.is_empty() {
            places.remove(user);
        }
        place
    }

    /// Keeps the connection of a session that has ended well.
    pub fn keep(&self, user: &UserName, route: &Route, upstream: Upstream, waiting: Waiting<'_>) {
        if self.time.is_zero() || waiting.control.is_cut() {
            return;
        }
        let Upstream { channel, shown } = upstream;
        let waiting = Waiting { deadline: Instant::now() + CLOSING, ..waiting };
        let Some(link) = channel.into_link(Wait { waiting, limit: CLOSING }) else { return };
        // From here on the session's end is not the connection's.
        let Some(socket) = waiting.control.release() else { return };
        let place = Place { route: route.clone(), shown, link, socket, until: Instant::now() + self.time };
        let mut places = self.places.lock();
        let theirs = places.entry(user.clone()).or_default();
        if theirs.len() < MAX_EACH {
            theirs.push(place);
        }
        drop(places);
        self.places.filled.notify_one();
    }
}

/// Ends connections whose time is over.
fn clear(places: &Places) {
    let mut held = places.lock();
    loop {
        let now = Instant::now();
        let mut over = Vec::new();
        for theirs in held.values_mut() {
            over.extend(theirs.extract_if(.., |place| place.until <= now));
        }
        held.retain(|_, theirs| !theirs.is_empty());
        let next = held.values().flatten().map(|place| place.until).min();
        if !over.is_empty() {
            // Saying goodbye is not for under the lock.
            drop(held);
            drop(over);
            held = places.lock();
            continue;
        }
        held = match next {
            None => places.filled.wait(held).unwrap_or_else(PoisonError::into_inner),
            Some(next) => places.filled.wait_timeout(held, next - now).unwrap_or_else(PoisonError::into_inner).0,
        };
    }
}
