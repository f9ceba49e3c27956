//! A TCP relay that does to bytes what networks and hosts do to them, in toxiproxy's words and some more. It knows nothing of SSH.
//!
//! A [`Strike`] says what happens, to which direction, and after how many bytes; it is planned for connections to come, or happens to the
//! one that is there. A connection has one thread, which alone has both sockets, so that it can reset them. Chance comes from a seed.
//!
//! ```text
//! let relay = Relay::start(world.sshd.port);                            // honest
//! relay.plan(Some(Strike::new(Toxic::Flip(0), Direction::Down, 20_000)));   // of each connection from now on
//! relay.strike(Toxic::Reset, Direction::Up, 0);                         // of the newest one, now
//! ```

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Result, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{setsockopt, sockopt};

/// Bytes that are read at a time.
const PIECE: usize = 16 * 1024;

/// Bytes of a direction that may wait in the relay; a sender beyond that is not read.
const MOST_HELD: usize = 64 * 1024;

/// Bytes of each direction that are kept for [`Relay::said`].
const MOST_SAID: usize = 64 * 1024;

/// Which way bytes go: up is towards the listener that the relay stands in front of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From who has connected.
    Up,
    /// To who has connected.
    Down,
}

impl Direction {
    /// The opposite.
    pub fn other(self) -> Self {
        if self == Self::Up { Self::Down } else { Self::Up }
    }
}

/// What happens to the bytes of one direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Toxic {
    /// Each piece comes later, by a time from the first to the second; order stays.
    Latency(Duration, Duration),
    /// No more bytes than this in a second.
    Rate(usize),
    /// Pieces of one byte to so many, with this pause behind each.
    Slices(usize, Duration),
    /// The sender is not read any more; nothing is closed.
    Stall,
    /// The sender is read, and the receiver gets nothing any more; nothing is closed.
    Silence,
    /// Both connections are reset.
    Reset,
    /// The receiver is told that nothing more comes; what the sender says is lost. The other direction goes on.
    HalfClose,
    /// Both connections are closed.
    Cut,
    /// This bit (0 to 7) of the next byte is another; what follows passes.
    Flip(u8),
    /// These bytes are put in.
    Insert(Vec<u8>),
    /// The next bytes, so many at most, come twice.
    Twice(usize),
}

impl Toxic {
    /// Whether nothing but the time at which bytes come is changed.
    pub fn is_slow(&self) -> bool {
        matches!(self, Self::Latency(..) | Self::Rate(_) | Self::Slices(..))
    }

    /// Whether it needs a byte to happen to.
    fn needs_a_byte(&self) -> bool {
        matches!(self, Self::Flip(_) | Self::Twice(_))
    }
}

/// What happens, to which direction, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strike {
    /// What.
    pub toxic: Toxic,
    /// To which direction.
    pub direction: Direction,
    /// Behind how many bytes, up and down: not before both have passed.
    pub after: [usize; 2],
}

impl Strike {
    /// Behind so many bytes of its own direction, whatever has passed of the other.
    pub fn new(toxic: Toxic, direction: Direction, after: usize) -> Self {
        let mut strike = Self { toxic, direction, after: [0; 2] };
        strike.after[direction as usize] = after;
        strike
    }
}

/// What was seen of a connection.
#[derive(Debug, Default)]
struct Seen {
    /// Bytes that were read, up and down.
    passed: [usize; 2],
    /// The same, noted after each piece.
    pieces: [Vec<usize>; 2],
    /// The same, noted when bytes go up after bytes have come down.
    turns: Vec<[usize; 2]>,
    last: Option<Direction>,
    said: [Vec<u8>; 2],
    /// From which port the relay has connected.
    port: u16,
    struck: Option<Instant>,
}

impl Seen {
    fn note(&mut self, direction: Direction, bytes: &[u8]) {
        if direction == Direction::Up && self.last != Some(direction) {
            self.turns.push(self.passed);
        }
        self.last = Some(direction);
        let at = direction as usize;
        let kept = bytes.len().min(MOST_SAID - self.said[at].len());
        self.said[at].extend_from_slice(&bytes[..kept]);
        self.passed[at] += bytes.len();
        self.pieces[at].push(self.passed[at]);
    }
}

/// What a connection's thread and the test share.
struct Line {
    /// How many connections there were before it, and itself.
    number: usize,
    seen: Mutex<Seen>,
    now: Mutex<Option<Strike>>,
    wake: EventFd,
}

impl Line {
    fn new(number: usize) -> Arc<Self> {
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).expect("a descriptor");
        Arc::new(Self { number, seen: Mutex::default(), now: Mutex::default(), wake })
    }
}

/// A relay to one listener on 127.0.0.1.
pub struct Relay {
    /// Where it listens.
    pub port: u16,
    plan: Arc<Mutex<Option<Strike>>>,
    newest: Arc<Mutex<Arc<Line>>>,
}

impl Relay {
    /// An honest one in front of this port, until something is planned.
    pub fn start(to: u16) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), to, 0)
    }

    /// One that does this to each connection.
    pub fn with(to: u16, strike: Strike) -> Self {
        let relay = Self::start(to);
        relay.plan(Some(strike));
        relay
    }

    /// The same as [`Self::start`], listening at this address only, with this seed.
    pub fn start_at(address: IpAddr, to: u16, seed: u64) -> Self {
        let listener = TcpListener::bind((address, 0)).expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let (plan, newest) = (Arc::<Mutex<Option<Strike>>>::default(), Arc::new(Mutex::new(Line::new(0))));
        let (planned, current) = (Arc::clone(&plan), Arc::clone(&newest));
        std::thread::spawn(move || {
            let mut random = fastrand::Rng::with_seed(seed);
            for near in listener.incoming().map_while(Result::ok) {
                let Ok(far) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                let number = current.lock().unwrap().number + 1;
                let (line, random) = (Line::new(number), random.fork());
                line.seen.lock().unwrap().port = far.local_addr().map_or(0, |address| address.port());
                *current.lock().unwrap() = Arc::clone(&line);
                let strike = planned.lock().unwrap().clone();
                std::thread::spawn(move || {
                    if let Ok(mut connection) = Connection::new([near, far], (line, strike), random) {
                        // An error is one peer's end; dropping both sockets tells the other.
                        let _ = connection.run();
                    }
                });
            }
        });
        Self { port, plan, newest }
    }

    /// What happens to connections that come from now on.
    pub fn plan(&self, strike: Option<Strike>) {
        *self.plan.lock().unwrap() = strike;
    }

    /// What happens to the newest connection, `more` bytes of this direction from now; 0 = at once, if that needs no byte.
    pub fn strike(&self, toxic: Toxic, direction: Direction, more: usize) {
        let line = self.line();
        let after = line.seen.lock().unwrap().passed[direction as usize] + more;
        *line.now.lock().unwrap() = Some(Strike::new(toxic, direction, after));
        line.wake.write(1).expect("a counter that is read");
    }

    /// When what was to happen to the newest connection has happened, if it has.
    pub fn struck(&self) -> Option<Instant> {
        self.line().seen.lock().unwrap().struck
    }

    /// How many connections have come.
    pub fn connections(&self) -> usize {
        self.line().number
    }

    /// From which port the newest connection goes on.
    pub fn goes_from(&self) -> u16 {
        self.line().seen.lock().unwrap().port
    }

    /// Bytes of the newest connection so far, up and down, as they were sent.
    pub fn passed(&self) -> [usize; 2] {
        self.line().seen.lock().unwrap().passed
    }

    /// How many bytes of a direction there were after each piece of the newest connection.
    pub fn pieces(&self, direction: Direction) -> Vec<usize> {
        self.line().seen.lock().unwrap().pieces[direction as usize].clone()
    }

    /// How many bytes had passed, up and down, each time that bytes went up after bytes had come down.
    pub fn turns(&self) -> Vec<[usize; 2]> {
        self.line().seen.lock().unwrap().turns.clone()
    }

    /// The first bytes of a direction of the newest connection, as they were sent.
    pub fn said(&self, direction: Direction) -> Vec<u8> {
        self.line().seen.lock().unwrap().said[direction as usize].clone()
    }

    fn line(&self) -> Arc<Line> {
        Arc::clone(&self.newest.lock().unwrap())
    }
}

/// Bytes of one direction on their way.
struct Lane {
    passed: usize,
    /// What is to be given, each not before its time.
    queue: VecDeque<(Instant, Vec<u8>)>,
    held: usize,
    slow: Option<Toxic>,
    reading: Reading,
    /// Nothing comes behind what is in the queue, and whether the receiver knows.
    ended: bool,
    told: bool,
    /// The receiver has not taken all that it could have.
    blocked: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// And passing on.
    Passes,
    /// And forgetting.
    Swallows,
    /// Not at all.
    Stands,
}

impl Lane {
    fn new() -> Self {
        let (queue, reading) = (VecDeque::new(), Reading::Passes);
        Self { passed: 0, queue, held: 0, slow: None, reading, ended: false, told: false, blocked: false }
    }

    fn has_room(&self) -> bool {
        self.held < MOST_HELD
    }

    fn put(&mut self, bytes: &[u8], random: &mut fastrand::Rng) {
        let last = self.queue.back().map_or_else(Instant::now, |(due, _)| (*due).max(Instant::now()));
        let mut add = |due, bytes: &[u8]| {
            self.held += bytes.len();
            self.queue.push_back((due, bytes.to_vec()));
        };
        let (mut due, mut rest) = (last, bytes);
        while !rest.is_empty() {
            let size = match &self.slow {
                Some(Toxic::Rate(rate)) => (rate / 50).max(1),
                Some(Toxic::Slices(most, _)) => random.usize(1..=*most),
                _ => rest.len(),
            };
            let (piece, more) = rest.split_at(size.min(rest.len()));
            match &self.slow {
                Some(Toxic::Latency(least, most)) => {
                    let late = random.u64(least.as_micros() as u64..=most.as_micros() as u64);
                    add(last.max(Instant::now() + Duration::from_micros(late)), piece);
                }
                Some(Toxic::Rate(rate)) => {
                    due += Duration::from_secs_f64(piece.len() as f64 / *rate as f64);
                    add(due, piece);
                }
                Some(Toxic::Slices(_, pause)) => {
                    add(due, piece);
                    due += *pause;
                }
                _ => add(due, piece),
            }
            rest = more;
        }
    }

    /// Gives the receiver what it is time for.
    fn give(&mut self, to: &mut TcpStream) -> Result<()> {
        self.blocked = false;
        while let Some((due, bytes)) = self.queue.front_mut()
            && *due <= Instant::now()
        {
            match to.write(bytes) {
                Ok(count) => {
                    self.held -= count;
                    bytes.drain(..count);
                    if bytes.is_empty() {
                        self.queue.pop_front();
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.blocked = true;
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        if self.ended && !self.told && self.queue.is_empty() {
            self.told = true;
            to.shutdown(Shutdown::Write)?;
        }
        Ok(())
    }
}

/// One connection: who has connected, and the listener. Lane 0 goes up and reads socket 0, lane 1 down and reads socket 1.
struct Connection {
    streams: [TcpStream; 2],
    lanes: [Lane; 2],
    line: Arc<Line>,
    strike: Option<Strike>,
    /// Reset or cut, once what came before is given.
    last: Option<Toxic>,
    random: fastrand::Rng,
}

impl Connection {
    fn new(streams: [TcpStream; 2], (line, strike): (Arc<Line>, Option<Strike>), random: fastrand::Rng) -> Result<Self> {
        for stream in &streams {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
        }
        Ok(Self { streams, lanes: [Lane::new(), Lane::new()], line, strike, last: None, random })
    }

    fn run(&mut self) -> Result<()> {
        loop {
            self.hear();
            self.strike_without_byte();
            for at in 0..2 {
                self.lanes[at].give(&mut self.streams[1 - at])?;
            }
            match &self.last {
                Some(toxic) if self.lanes.iter().all(|lane| lane.blocked || lane.queue.is_empty()) => return self.close(toxic),
                None if self.lanes.iter().all(|lane| lane.told) => return Ok(()),
                _ => {}
            }
            for at in self.wait()? {
                self.read(at)?;
            }
        }
    }

    /// Takes what the test wants to happen now in the place of what was planned.
    fn hear(&mut self) {
        if let Some(now) = self.line.now.lock().unwrap().take() {
            self.strike = Some(now);
        }
    }

    /// Whether the strike's time has come, when `coming` bytes of its direction follow: which lane, and behind how many of them.
    fn is_due(&self, coming: usize) -> Option<(usize, usize)> {
        let Strike { direction, after, toxic } = self.strike.as_ref()?;
        let (own, other) = (*direction as usize, direction.other() as usize);
        let before = after[own].saturating_sub(self.lanes[own].passed);
        let reached = if toxic.needs_a_byte() { before < coming } else { before <= coming };
        (reached && self.lanes[other].passed >= after[other]).then_some((own, before))
    }

    fn close(&self, how: &Toxic) -> Result<()> {
        let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        for stream in &self.streams {
            match how {
                Toxic::Reset => setsockopt(stream, sockopt::Linger, &linger)?,
                _ => stream.shutdown(Shutdown::Both)?,
            }
        }
        Ok(())
    }

    fn strike_without_byte(&mut self) {
        if let Some((at, 0)) = self.is_due(0) {
            self.happen(at, &[]);
        }
    }

    /// What happens to a lane whose next bytes are these.
    fn happen(&mut self, at: usize, next: &[u8]) {
        let Some(Strike { toxic, .. }) = self.strike.take() else { return };
        self.line.seen.lock().unwrap().struck = Some(Instant::now());
        let (lane, random) = (&mut self.lanes[at], &mut self.random);
        match toxic {
            Toxic::Latency(..) | Toxic::Rate(_) | Toxic::Slices(..) => {
                lane.slow = Some(toxic);
                lane.put(next, random);
            }
            Toxic::Stall => lane.reading = Reading::Stands,
            Toxic::Silence => lane.reading = Reading::Swallows,
            Toxic::HalfClose => (lane.reading, lane.ended) = (Reading::Swallows, true),
            Toxic::Reset | Toxic::Cut => {
                self.lanes.iter_mut().for_each(|lane| lane.reading = Reading::Stands);
                self.last = Some(toxic);
            }
            Toxic::Flip(bit) => {
                let mut changed = next.to_vec();
                changed[0] ^= 1 << bit;
                lane.put(&changed, random);
            }
            Toxic::Insert(bytes) => {
                lane.put(&bytes, random);
                lane.put(next, random);
            }
            Toxic::Twice(count) => {
                lane.put(&next[..count.min(next.len())], random);
                lane.put(next, random);
            }
        }
    }

    fn read(&mut self, at: usize) -> Result<()> {
        let mut buffer = [0; PIECE];
        let bytes = match self.streams[at].read(&mut buffer) {
            Ok(0) => {
                let lane = &mut self.lanes[at];
                lane.ended |= lane.reading == Reading::Passes;
                lane.reading = Reading::Stands;
                return Ok(());
            }
            Ok(count) => &buffer[..count],
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        // What was wanted before these bytes were sent happens to them.
        self.hear();
        self.line.seen.lock().unwrap().note(if at == 0 { Direction::Up } else { Direction::Down }, bytes);
        let mut rest = bytes;
        if let Some((own, before)) = self.is_due(bytes.len())
            && own == at
        {
            let (passes, next) = bytes.split_at(before);
            self.lanes[at].put(passes, &mut self.random);
            self.happen(at, next);
            rest = &[];
        }
        if self.lanes[at].reading == Reading::Passes {
            self.lanes[at].put(rest, &mut self.random);
        }
        self.lanes[at].passed += bytes.len();
        Ok(())
    }

    /// Waits for something to do, and says which lanes have something to read. An error is the end of a peer that is not read.
    fn wait(&self) -> Result<Vec<usize>> {
        let mut polled = vec![PollFd::new(self.line.wake.as_fd(), PollFlags::POLLIN)];
        let mut which = Vec::new();
        for (at, lane) in self.lanes.iter().enumerate() {
            let stands = lane.reading == Reading::Stands;
            let mut events = PollFlags::empty();
            events.set(PollFlags::POLLIN, !stands && lane.has_room());
            events.set(PollFlags::POLLOUT, self.lanes[1 - at].blocked);
            // A sender that only waits for room may hang up meanwhile; that is seen when there is room. So is the end of one that has said all.
            if !events.is_empty() || (stands && !lane.ended) {
                polled.push(PollFd::new(self.streams[at].as_fd(), events));
                which.push((at, stands));
            }
        }
        let next = self.lanes.iter().filter(|lane| !lane.blocked).filter_map(|lane| Some(lane.queue.front()?.0)).min();
        let left = next.map(|due| due.saturating_duration_since(Instant::now()) + Duration::from_millis(1));
        let timeout = left.map_or(PollTimeout::NONE, |left| PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
        poll(&mut polled, timeout)?;
        let _ = self.line.wake.read();
        let mut readable = Vec::new();
        for (polled, (at, stands)) in polled[1..].iter().zip(which) {
            let seen = polled.revents().unwrap_or(PollFlags::empty());
            let over = seen.intersects(PollFlags::POLLHUP | PollFlags::POLLERR);
            if over && stands {
                return Err(ErrorKind::ConnectionReset.into());
            }
            if over || seen.contains(PollFlags::POLLIN) {
                readable.push(at);
            }
        }
        Ok(readable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::process::LIMIT;

    /// Sends this through a relay and returns what comes out, with the error that ended it, and whether an answer came back.
    fn through(strike: Strike, sent: &[u8]) -> (Vec<u8>, Option<ErrorKind>, bool) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let relay = Relay::with(listener.local_addr().unwrap().port(), strike);
        let mut near = TcpStream::connect(("127.0.0.1", relay.port)).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        [&near, &far].iter().for_each(|stream| stream.set_read_timeout(Some(LIMIT)).unwrap());
        // A connection that was reset may say so here.
        let _ = near.write_all(sent);
        let _ = near.shutdown(Shutdown::Write);
        let mut come = Vec::new();
        let error = far.read_to_end(&mut come).err().map(|error| error.kind());
        let _ = far.write_all(b"answer");
        drop(far);
        let mut answer = Vec::new();
        let _ = near.read_to_end(&mut answer);
        assert!(relay.struck().is_some());
        (come, error, answer == b"answer")
    }

    #[test]
    fn each_toxic_does_what_it_says_at_the_byte_it_is_told() {
        let sent: Vec<u8> = (0..100_000u32).map(|number| (number % 251) as u8).collect();
        let up = |toxic, after| through(Strike::new(toxic, Direction::Up, after), &sent);
        let some = Duration::from_millis(20);
        for slow in [Toxic::Latency(some, 2 * some), Toxic::Rate(400_000), Toxic::Slices(3000, Duration::from_millis(2))] {
            let started = Instant::now();
            assert!(up(slow.clone(), 1000) == (sent.clone(), None, true), "{slow:?}");
            assert!(started.elapsed() >= some, "{slow:?}");
        }
        assert!(up(Toxic::Cut, 33_333) == (sent[..33_333].to_vec(), None, false));
        assert!(up(Toxic::HalfClose, 33_333) == (sent[..33_333].to_vec(), None, true));
        let (come, error, answered) = up(Toxic::Reset, 0);
        assert_eq!((come.len(), error, answered), (0, Some(ErrorKind::ConnectionReset), false));

        let mut changed = sent.clone();
        changed[77_777] ^= 8;
        assert!(up(Toxic::Flip(3), 77_777) == (changed, None, true));
        let with = |more: &[u8]| [&sent[..50_000], more, &sent[50_000..]].concat();
        assert!(up(Toxic::Insert(b"more".to_vec()), 50_000) == (with(b"more"), None, true));
        assert!(up(Toxic::Twice(1), 50_000) == (with(&sent[50_000..50_001]), None, true));
    }

    #[test]
    fn who_is_stalled_or_silenced_waits_and_the_other_direction_goes_on() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        for toxic in [Toxic::Stall, Toxic::Silence] {
            let relay = Relay::start(listener.local_addr().unwrap().port());
            let mut near = TcpStream::connect(("127.0.0.1", relay.port)).unwrap();
            let (mut far, _) = listener.accept().unwrap();
            let mut byte = [0];
            near.write_all(b"a").unwrap();
            far.read_exact(&mut byte).unwrap();
            relay.strike(toxic, Direction::Up, 1);
            near.write_all(b"bc").unwrap();
            far.read_exact(&mut byte).unwrap();
            assert_eq!(byte, *b"b");
            far.write_all(b"d").unwrap();
            near.read_exact(&mut byte).unwrap();
            far.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            assert_eq!(far.read(&mut byte).unwrap_err().kind(), ErrorKind::WouldBlock);
            // Who leaves is not held by it.
            drop(far);
            assert_eq!(near.read(&mut byte).unwrap(), 0);
            assert_eq!((relay.passed(), relay.turns()), ([3, 1], vec![[0, 0]]));
        }
    }
}
