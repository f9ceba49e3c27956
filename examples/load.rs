//! Holds many SFTP sessions open and does an operation in each of them every so often, from few threads: the client of scripts/load.
//!
//!     load ADDRESS USER KEY SESSIONS SECONDS EVERY ROUTER_PID
//!
//! Prints what the router's process holds a session, and how long operations took. The exit status is 1 when one of them failed.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ssh2::{Channel, Session};

/// Each owns its share of the sessions; one operation at a time.
const THREADS: usize = 8;

/// How long a login or an operation may take.
const LIMIT: Duration = Duration::from_secs(60);

struct Plan {
    address: String,
    user: String,
    key: String,
    sessions: usize,
    time: Duration,
    every: Duration,
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [address, user, key, sessions, seconds, every, pid] = words.as_slice() else {
        eprintln!("load ADDRESS USER KEY SESSIONS SECONDS EVERY ROUTER_PID");
        std::process::exit(2);
    };
    let number = |text: &String| text.parse::<u64>().expect("a number");
    let plan = Plan {
        address: address.clone(),
        user: user.clone(),
        key: key.clone(),
        sessions: number(sessions) as usize,
        time: Duration::from_secs(number(seconds)),
        every: Duration::from_secs(number(every)),
    };
    let before = Held::of(pid);
    let (opened, errors) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let start = Instant::now();
    let mut took = std::thread::scope(|scope| {
        let (plan, opened, errors) = (&plan, &opened, &errors);
        let threads: Vec<_> = (0..THREADS).map(|number| scope.spawn(move || work(plan, number, (opened, errors)))).collect();
        while opened.load(Ordering::SeqCst) + errors.load(Ordering::SeqCst) < plan.sessions {
            std::thread::sleep(Duration::from_millis(100));
        }
        println!("{} sessions open after {:.1} s", opened.load(Ordering::SeqCst), start.elapsed().as_secs_f64());
        // In the middle, when everything has settled.
        std::thread::sleep(plan.time / 2);
        Held::of(pid).tell(&before, opened.load(Ordering::SeqCst));
        threads.into_iter().flat_map(|thread| thread.join().expect("a thread of the client")).collect::<Vec<_>>()
    });
    took.sort_unstable();
    let (errors, at) =
        (errors.into_inner(), |share: f64| took.get((took.len() as f64 * share) as usize).copied().unwrap_or_default());
    let [half, most, last] =
        [at(0.5), at(0.99), took.last().copied().unwrap_or_default()].map(|time| time.as_secs_f64() * 1000.0);
    println!(
        "{} operations in {} s: p50 {half:.1} ms, p99 {most:.1} ms, longest {last:.1} ms; {errors} errors",
        took.len(),
        plan.time.as_secs()
    );
    std::process::exit(i32::from(errors > 0 || took.is_empty()));
}

/// Opens this thread's sessions, waits for the others', and lets each do its work in its turn. Returns how long operations took.
fn work(plan: &Plan, number: usize, (opened, errors): (&AtomicUsize, &AtomicUsize)) -> Vec<Duration> {
    let failed = |what: &str| {
        eprintln!("{what}");
        errors.fetch_add(1, Ordering::SeqCst);
    };
    let mut sessions = Vec::new();
    for _ in (number..plan.sessions).step_by(THREADS) {
        match open(plan) {
            Ok(session) => {
                sessions.push(session);
                opened.fetch_add(1, Ordering::SeqCst);
            }
            Err(error) => failed(&format!("login: {error}")),
        }
    }
    while opened.load(Ordering::SeqCst) + errors.load(Ordering::SeqCst) < plan.sessions {
        std::thread::sleep(Duration::from_millis(50));
    }
    let (start, mut took, mut turn) = (Instant::now(), Vec::new(), 0);
    while !sessions.is_empty() {
        let at = plan.every.mul_f64(turn as f64 / sessions.len() as f64);
        if at >= plan.time {
            break;
        }
        std::thread::sleep((start + at).saturating_duration_since(Instant::now()));
        let (index, asked) = (turn % sessions.len(), Instant::now());
        match stat(&mut sessions[index].1, turn as u32) {
            Ok(()) => took.push(asked.elapsed()),
            Err(error) => failed(&format!("operation: {error}")),
        }
        turn += 1;
    }
    took
}

fn open(plan: &Plan) -> Result<(Session, Channel), Box<dyn std::error::Error>> {
    let mut session = Session::new()?;
    session.set_timeout(LIMIT.as_millis() as u32);
    session.set_tcp_stream(TcpStream::connect(&plan.address)?);
    session.handshake()?;
    session.userauth_pubkey_file(&plan.user, None, Path::new(&plan.key), None)?;
    let mut channel = session.channel_session()?;
    channel.subsystem("sftp")?;
    channel.write_all(&[0, 0, 0, 5, 1, 0, 0, 0, 3])?;
    match answer(&mut channel)?.first() {
        Some(2) => Ok((session, channel)),
        other => Err(format!("INIT is answered with {other:?}").into()),
    }
}

/// STAT of the start directory (draft-ietf-secsh-filexfer-02 section 6.8).
fn stat(channel: &mut Channel, id: u32) -> Result<(), Box<dyn std::error::Error>> {
    let mut request = vec![0, 0, 0, 10, 17];
    request.extend(id.to_be_bytes());
    request.extend([0, 0, 0, 1, b'.']);
    channel.write_all(&request)?;
    match answer(channel)?.as_slice() {
        [105, rest @ ..] if rest.starts_with(&id.to_be_bytes()) => Ok(()),
        other => Err(format!("STAT is answered with {other:?}").into()),
    }
}

fn answer(channel: &mut Channel) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 4];
    channel.read_exact(&mut length)?;
    let mut packet = vec![0; u32::from_be_bytes(length).min(65_536) as usize];
    channel.read_exact(&mut packet)?;
    Ok(packet)
}

/// What a process holds.
struct Held {
    kib: u64,
    threads: u64,
    files: usize,
    maps: usize,
}

impl Held {
    fn of(pid: &str) -> Self {
        let text = |what: &str| std::fs::read_to_string(format!("/proc/{pid}/{what}")).unwrap_or_default();
        let status = text("status");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or_default()
        };
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        Self { kib: field("VmRSS:"), threads: field("Threads:"), files, maps: text("maps").lines().count() }
    }

    fn tell(&self, before: &Self, sessions: usize) {
        let each = |now: u64, before: u64| now.saturating_sub(before) as f64 / sessions.max(1) as f64;
        println!(
            "the router holds {} MiB; a session {:.1} KiB, {:.2} threads, {:.2} descriptors, {:.2} mappings",
            self.kib / 1024,
            each(self.kib, before.kib),
            each(self.threads, before.threads),
            each(self.files as u64, before.files as u64),
            each(self.maps as u64, before.maps as u64)
        );
    }
}
