//! Logs in ten times a second, keeps twenty transfers running and compares their content, until its standard input ends: the client of
//! scripts/upgrade.
//!
//!     upgrade ADDRESS USER KEY FOLDER
//!
//! FOLDER is the upstream's, where it makes the file that is fetched and looks at those that were put. Prints what it has done; the exit status
//! is 1 when a connection was refused, a login failed, or a transfer broke or altered anything.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ssh2::{Session, Sftp};

/// Transfers at the same time: half of them up, half down.
const TRANSFERS: usize = 20;

/// Threads that log in, each every [`EVERY`]: ten logins a second.
const LOGINS: usize = 20;

/// How often each of them does.
const EVERY: Duration = Duration::from_secs(2);

/// A file: at [`CHUNK`] each [`PAUSE`] it takes 16 seconds, through several upgrades.
const SIZE: usize = 4 * 1024 * 1024;
const CHUNK: usize = 32 * 1024;
const PAUSE: Duration = Duration::from_millis(125);

/// How long a login or an operation may take.
const LIMIT: Duration = Duration::from_secs(60);

/// The name of the file that is fetched.
const FETCHED: &str = "fetched";

type Fault = Box<dyn std::error::Error>;

struct Plan {
    address: String,
    user: String,
    key: String,
    folder: PathBuf,
    over: AtomicBool,
    count: Count,
}

#[derive(Default)]
struct Count {
    logins: AtomicUsize,
    transfers: AtomicUsize,
    refused: AtomicUsize,
    failed: AtomicUsize,
    broken: AtomicUsize,
    took: Mutex<Vec<Duration>>,
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [address, user, key, folder] = words.as_slice() else {
        eprintln!("upgrade ADDRESS USER KEY FOLDER");
        std::process::exit(2);
    };
    let (address, user, key, folder) = (address.clone(), user.clone(), key.clone(), PathBuf::from(folder));
    std::fs::write(folder.join(FETCHED), content(0)).expect("the file to fetch");
    let plan = Plan { address, user, key, folder, over: AtomicBool::new(false), count: Count::default() };
    let start = Instant::now();
    let elapsed = thread::scope(|scope| {
        for number in 0..TRANSFERS {
            let plan = &plan;
            scope.spawn(move || transfers(plan, number));
        }
        for number in 0..LOGINS {
            let plan = &plan;
            scope.spawn(move || logins(plan, EVERY.mul_f64(number as f64 / LOGINS as f64)));
        }
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        plan.over.store(true, Ordering::SeqCst);
        start.elapsed()
    });
    std::process::exit(i32::from(!plan.count.tell(elapsed)));
}

impl Count {
    /// Prints it, and how many logins there were in this time; whether all is well.
    fn tell(&self, elapsed: Duration) -> bool {
        let of = |number: &AtomicUsize| number.load(Ordering::SeqCst);
        let (logins, transfers) = (of(&self.logins), of(&self.transfers));
        let (refused, failed, broken) = (of(&self.refused), of(&self.failed), of(&self.broken));
        let mut took = self.took.lock().unwrap_or_else(PoisonError::into_inner).clone();
        took.sort_unstable();
        let at = |share: f64| took.get((took.len() as f64 * share) as usize).or(took.last()).copied().unwrap_or_default();
        let [half, most, last] = [at(0.5), at(0.99), at(1.0)].map(|time| time.as_secs_f64() * 1000.0);
        println!(
            "{logins} logins with an operation ({:.1} a second): p50 {half:.0} ms, p99 {most:.0} ms, longest {last:.0} ms",
            logins as f64 / elapsed.as_secs_f64()
        );
        println!("{transfers} transfers of {} MiB, every byte compared", SIZE / 1024 / 1024);
        println!("{refused} refused connects, {failed} failed logins, {broken} broken transfers");
        refused + failed + broken == 0 && logins > 0 && transfers > 0
    }
}

/// Logs in until it is over, first after `begin`.
fn logins(plan: &Plan, begin: Duration) {
    let mut next = Instant::now() + begin;
    while !plan.over.load(Ordering::SeqCst) {
        thread::sleep(next.saturating_duration_since(Instant::now()));
        next = (next + EVERY).max(Instant::now());
        let asked = Instant::now();
        let Some(stream) = connect(plan) else { continue };
        let looked = open(plan, stream).and_then(|(_session, sftp)| Ok(sftp.stat(&plan.folder.join(FETCHED))?));
        match looked {
            Ok(stat) if stat.size == Some(SIZE as u64) => {
                plan.count.logins.fetch_add(1, Ordering::SeqCst);
                plan.count.took.lock().unwrap_or_else(PoisonError::into_inner).push(asked.elapsed());
            }
            Ok(stat) => plan.count.fails(&plan.count.failed, &format!("login: the file is not as it is: {stat:?}")),
            Err(fault) => plan.count.fails(&plan.count.failed, &format!("login: {fault}")),
        }
    }
}

/// Transfers one file after the other until it is over; the last one to its end.
fn transfers(plan: &Plan, number: usize) {
    // So that they do not all begin and end at the same moments.
    thread::sleep(PAUSE * number as u32);
    while !plan.over.load(Ordering::SeqCst) {
        let Some(stream) = connect(plan) else { continue };
        let done = open(plan, stream)
            .and_then(|(_session, sftp)| if number.is_multiple_of(2) { get(plan, &sftp) } else { put(plan, &sftp, number) });
        match done {
            Ok(()) => drop(plan.count.transfers.fetch_add(1, Ordering::SeqCst)),
            Err(fault) => plan.count.fails(&plan.count.broken, &format!("transfer {number}: {fault}")),
        }
    }
}

impl Count {
    fn fails(&self, what: &AtomicUsize, reason: &str) {
        eprintln!("{reason}");
        what.fetch_add(1, Ordering::SeqCst);
    }
}

fn connect(plan: &Plan) -> Option<TcpStream> {
    match TcpStream::connect(&plan.address) {
        Ok(stream) => Some(stream),
        Err(error) => {
            plan.count.fails(&plan.count.refused, &format!("connect: {error}"));
            thread::sleep(PAUSE);
            None
        }
    }
}

fn open(plan: &Plan, stream: TcpStream) -> Result<(Session, Sftp), Fault> {
    let mut session = Session::new()?;
    session.set_timeout(LIMIT.as_millis() as u32);
    session.set_tcp_stream(stream);
    session.handshake()?;
    session.userauth_pubkey_file(&plan.user, None, Path::new(&plan.key), None)?;
    let sftp = session.sftp()?;
    Ok((session, sftp))
}

fn get(plan: &Plan, sftp: &Sftp) -> Result<(), Fault> {
    let mut file = sftp.open(plan.folder.join(FETCHED))?;
    let (mut bytes, mut chunk) = (Vec::with_capacity(SIZE), vec![0; CHUNK]);
    loop {
        let count = file.read(&mut chunk)?;
        if count == 0 {
            break;
        }
        bytes.extend_from_slice(&chunk[..count]);
        thread::sleep(PAUSE.mul_f64(count as f64 / CHUNK as f64));
    }
    if bytes == content(0) { Ok(()) } else { Err(format!("{} bytes have come, and others than are there", bytes.len()).into()) }
}

fn put(plan: &Plan, sftp: &Sftp, number: usize) -> Result<(), Fault> {
    let path = plan.folder.join(format!("put-{number}"));
    let bytes = content(number);
    let mut file = sftp.create(&path)?;
    for chunk in bytes.chunks(CHUNK) {
        file.write_all(chunk)?;
        thread::sleep(PAUSE);
    }
    file.close()?;
    let stored = std::fs::read(&path)?;
    std::fs::remove_file(&path)?;
    if stored == bytes { Ok(()) } else { Err(format!("{} bytes are stored, and others than were put", stored.len()).into()) }
}

/// Bytes that differ from place to place and from number to number.
fn content(number: usize) -> Vec<u8> {
    let mut state = number as u32 + 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..SIZE).map(|_| next()).collect()
}
