//! Opens, uses and ends many sessions, some of them badly, and looks at what the router's process keeps of them.

use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::client::{Client, Door, Outcome, STATUS, log_in, string};
use crate::held::{Held, connections};

/// Each does one session at a time.
const THREADS: usize = 8;

/// Parts of a run after each of which everything is closed and measured; the first ones fill what fills up to a bound.
const PARTS: usize = 40;
const WARM: usize = 4;

/// KiB that a session may leave behind, and how many sessions it takes to tell.
const SLOPE: f64 = 0.1;
const TELLS: usize = 10_000;

/// How long the router may take until the last session of a part is gone.
const SETTLES: Duration = Duration::from_secs(30);

/// Kinds of requests and answers.
const OPEN: u8 = 3;
const CLOSE: u8 = 4;
const READ: u8 = 5;
const WRITE: u8 = 6;
const REALPATH: u8 = 16;
const STAT: u8 = 17;
const HANDLE: u8 = 102;
const DATA: u8 = 103;
const NAME: u8 = 104;
const ATTRS: u8 = 105;

/// Bytes of a file, some of a request, and flags of OPEN: read; write, create, truncate.
const FILE: usize = 40_000;
const PIECE: usize = 16_384;
const TO_READ: u32 = 1;
const TO_WRITE: u32 = 0x1a;

pub struct Plan<'a> {
    pub address: &'a str,
    /// Where the users' keys are, and the one of a `stranger`.
    pub folder: &'a str,
    pub sessions: usize,
    pub pid: u64,
    /// The port of the store, whose pool of connections has rules of its own.
    pub store: u16,
}

/// What the process holds when nobody is connected.
struct Point {
    sessions: usize,
    kib: u64,
    threads: u64,
    /// Descriptors but those to the store.
    files: usize,
}

/// Prints figures as they come and what they say. Whether nothing is left behind and every session went as it should.
pub fn run(plan: &Plan<'_>) -> bool {
    let at_start = Held::of(plan.pid);
    let (failed, start) = (AtomicUsize::new(0), Instant::now());
    let mut points = Vec::new();
    for part in 1..=PARTS {
        let next = AtomicUsize::new(plan.sessions * (part - 1) / PARTS);
        let end = plan.sessions * part / PARTS;
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (next, failed) = (&next, &failed);
                scope.spawn(move || work(plan, thread, (next, end), failed));
            }
        });
        let (held, pool) = settle(plan, points.last().map_or(at_start.threads, |last: &Point| last.threads));
        points.push(Point { sessions: end, kib: held.own_kib, threads: held.threads, files: held.files - pool });
        if part.is_multiple_of(2) {
            let (point, rate) = (&points[part - 1], end as f64 / start.elapsed().as_secs_f64());
            let (Point { kib, threads, files, .. }, failed) = (point, failed.load(Ordering::SeqCst));
            println!(
                "{end:>6} sessions, {rate:.0}/s: {kib} KiB, {threads} threads, {files} descriptors and {pool} to the store; {failed} failed"
            );
        }
    }
    judge(plan.sessions, &points[WARM - 1..], failed.into_inner())
}

/// Waits until as many threads run as before, or long enough, and says what is held then.
fn settle(plan: &Plan<'_>, threads: u64) -> (Held, usize) {
    let (end, pool) = (Instant::now() + SETTLES, || connections(plan.pid, plan.store));
    loop {
        std::thread::sleep(Duration::from_millis(100));
        let (before, held, pool) = (pool(), Held::of(plan.pid), pool());
        if (held.threads <= threads && before == pool) || Instant::now() > end {
            return (held, pool);
        }
    }
}

fn judge(sessions: usize, points: &[Point], failed: usize) -> bool {
    let (first, last) = (&points[0], &points[points.len() - 1]);
    let slope = slope(points);
    let same = points.iter().all(|point| (point.threads, point.files) == (first.threads, first.files));
    println!(
        "{sessions} sessions, {failed} failed; after the first {}: {slope:.4} KiB a session ({} to {} KiB), threads {} to {}, descriptors {} to {}",
        first.sessions, first.kib, last.kib, first.threads, last.threads, first.files, last.files
    );
    if !same {
        println!("threads or descriptors were not the same after each part");
    }
    if sessions < TELLS {
        println!("too few sessions to judge the memory");
    }
    failed == 0 && same && (sessions < TELLS || slope < SLOPE)
}

/// KiB a session: the median of the slopes between all pairs of points (Theil and Sen), which one odd point does not move.
fn slope(points: &[Point]) -> f64 {
    let mut slopes = Vec::new();
    for (index, one) in points.iter().enumerate() {
        for two in &points[index + 1..] {
            slopes.push((two.kib as f64 - one.kib as f64) / (two.sessions - one.sessions) as f64);
        }
    }
    slopes.sort_by(f64::total_cmp);
    slopes[slopes.len() / 2]
}

/// One session after the other until there are enough.
fn work(plan: &Plan<'_>, thread: usize, (next, end): (&AtomicUsize, usize), failed: &AtomicUsize) {
    let file = format!("file-{thread}");
    loop {
        let number = next.fetch_add(1, Ordering::SeqCst);
        if number >= end {
            return;
        }
        if let Err(error) = session(plan, number % 20, &file) {
            eprintln!("session {number} (kind {}): {error}", number % 20);
            failed.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// One session of a kind from 0 to 19: what it does and how it ends. An error is what should not have been.
fn session(plan: &Plan<'_>, kind: usize, file: &str) -> Outcome<()> {
    let key = |name: &str| format!("{}/{name}", plan.folder);
    let (soak, stranger, lost, changed) = (key("soak"), key("stranger"), key("lost"), key("changed"));
    let door = Door { address: plan.address, user: "soak", key: &soak };
    match kind {
        0 | 10 => refused(Door { key: &stranger, ..door }),
        1 => refused(Door { user: "nobody", ..door }),
        // A port at which nobody listens, and a host key that is not the pinned one.
        2 => told(Door { user: "lost", key: &lost, ..door }),
        3 => told(Door { user: "changed", key: &changed, ..door }),
        4 => {
            drop(TcpStream::connect(plan.address)?);
            Ok(())
        }
        5 => {
            let mut client = Client::open(door)?;
            look(&mut client)?;
            client.vanish();
            Ok(())
        }
        6 => cut(Client::open(door)?, file),
        _ => {
            let mut client = Client::open(door)?;
            look(&mut client)?;
            put_and_get(&mut client, file)?;
            client.close()
        }
    }
}

fn refused(door: Door<'_>) -> Outcome<()> {
    match log_in(door) {
        Err(error) if error.to_string().contains("-18") => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err("was let in".into()),
    }
}

/// Gets an answer from the router itself.
fn told(door: Door<'_>) -> Outcome<()> {
    let mut client = Client::open(door)?;
    expect(client.ask(STAT, &string(b"."))?, STATUS)?;
    client.close()
}

fn look(client: &mut Client) -> Outcome<()> {
    expect(client.ask(REALPATH, &string(b"."))?, NAME)?;
    expect(client.ask(STAT, &string(b"."))?, ATTRS)?;
    Ok(())
}

fn put_and_get(client: &mut Client, file: &str) -> Outcome<()> {
    let content: Vec<u8> = (0..FILE).map(|at| (at * 31 % 251) as u8).collect();
    let handle = open(client, file, TO_WRITE)?;
    for (index, piece) in content.chunks(PIECE).enumerate() {
        expect(client.ask(WRITE, &write(&handle, index * PIECE, piece))?, STATUS)?;
    }
    expect(client.ask(CLOSE, &handle)?, STATUS)?;
    let (handle, mut got) = (open(client, file, TO_READ)?, Vec::new());
    while got.len() < content.len() {
        let at = (got.len() as u64).to_be_bytes();
        let data = expect(client.ask(READ, &[&handle[..], &at, &(PIECE as u32).to_be_bytes()].concat())?, DATA)?;
        got.extend_from_slice(data.get(4..).unwrap_or_default());
    }
    expect(client.ask(CLOSE, &handle)?, STATUS)?;
    if got == content { Ok(()) } else { Err("another content came back".into()) }
}

/// Is gone amid a put: the last request has come in half.
fn cut(mut client: Client, file: &str) -> Outcome<()> {
    let handle = open(&mut client, &format!("{file}-cut"), TO_WRITE)?;
    for at in 0..4 {
        let packet = client.packet(WRITE, &write(&handle, at * PIECE, &[7; PIECE]));
        client.send(if at == 3 { &packet[..PIECE / 2] } else { &packet })?;
    }
    client.vanish();
    Ok(())
}

/// Returns the handle as a string of SFTP.
fn open(client: &mut Client, file: &str, flags: u32) -> Outcome<Vec<u8>> {
    let body = [string(file.as_bytes()), flags.to_be_bytes().to_vec(), vec![0; 4]].concat();
    expect(client.ask(OPEN, &body)?, HANDLE)
}

fn write(handle: &[u8], at: usize, piece: &[u8]) -> Vec<u8> {
    [handle, &(at as u64).to_be_bytes(), &string(piece)].concat()
}

fn expect((kind, body): (u8, Vec<u8>), wanted: u8) -> Outcome<Vec<u8>> {
    if kind == wanted { Ok(body) } else { Err(format!("{kind} came where {wanted} should: {body:?}").into()) }
}
