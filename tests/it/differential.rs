//! Random requests, pipelined, said twice in equal fresh trees: straight at the upstream's sshd, and through the proxy. Every answer
//! and the trees at the end must be the same. `scripts/differential` makes it long.

use std::os::unix::fs::symlink;
use std::path::Path;

use sftpproxy::sftp::reply::OP_UNSUPPORTED;

use crate::random::{Asked, Requests, code};
use crate::world::clients::Target;
use crate::world::sftp::Sftp;
use crate::world::tree::{listing, small_file};
use crate::world::{Setup, USER, World, keys};

/// A number from the environment, or this one.
fn number(name: &str, usual: usize) -> usize {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

fn plant(folder: &Path) {
    std::fs::create_dir_all(folder.join("d/e")).unwrap();
    small_file(&folder.join("f"), 1000, 1);
    small_file(&folder.join("d/g"), 90_000, 2);
    symlink("f", folder.join("l")).unwrap();
    symlink("nowhere", folder.join("dangling")).unwrap();
    symlink("loop", folder.join("loop")).unwrap();
}

/// Relative and absolute ones. No `..` and nothing behind what may be no directory: a policy with rules judges and sends paths that
/// are made normal by their text, which ARCHITECTURE.md says.
fn paths(folder: &Path) -> Vec<String> {
    let names =
        ["f", "l", "d", "d/g", "d/e", "new", "d/new", "no/such", "dangling", "loop", "d//g", "m", "d/m", "\u{fc}ml\u{e4}ut"];
    let absolute = names[..9].iter().map(|name| format!("{}/{name}", folder.display()));
    names.iter().map(|name| (*name).to_owned()).chain(absolute).collect()
}

/// What was said and seen in one run.
struct Seen {
    /// What was asked, and what two runs must have in common of the answer.
    answers: Vec<(String, String)>,
    /// The files at the end.
    files: Vec<String>,
    /// Requests of unknown types that were answered.
    unknown_answered: usize,
}

/// Sends some requests at once and takes their answers, in whatever order they come.
fn exchange(sftp: &mut Sftp, batch: Vec<Asked>, next_id: &mut u32, unknown_answered: &mut usize) -> Vec<(Asked, Vec<u8>)> {
    let first = *next_id;
    for asked in &batch {
        sftp.send(&asked.packet(*next_id)).expect("a session that takes requests");
        *next_id += 1;
    }
    let mut replies: Vec<Option<Vec<u8>>> = batch.iter().map(|_| None).collect();
    let mut wanted = batch.iter().filter(|asked| asked.name != "unknown").count();
    while wanted > 0 {
        let reply = sftp.reply().unwrap_or_else(|| panic!("the session ends; asked were {:?}", shown(&batch)));
        let id = u32::from_be_bytes([reply[1], reply[2], reply[3], reply[4]]);
        let Some(at) = id.checked_sub(first).map(|at| at as usize).filter(|at| *at < batch.len()) else {
            // Late, and of an earlier batch: only what nobody waits for can be.
            assert_eq!(code(&reply), OP_UNSUPPORTED);
            *unknown_answered += 1;
            continue;
        };
        if batch[at].name == "unknown" {
            assert_eq!(code(&reply), OP_UNSUPPORTED);
            *unknown_answered += 1;
            continue;
        }
        assert!(replies[at].replace(reply).is_none(), "answered twice: {}", batch[at].shown());
        wanted -= 1;
    }
    batch.into_iter().zip(replies).filter_map(|(asked, reply)| Some((asked, reply?))).collect()
}

fn shown(batch: &[Asked]) -> Vec<String> {
    batch.iter().map(Asked::shown).collect()
}

fn run(world: &World, target: &Target, (seed, count): (u64, usize), texts: bool) -> Seen {
    let folder = &world.sshd.files;
    world.sshd.wipe();
    plant(folder);
    let mut sftp = Sftp::open(target);
    let mut requests = Requests::new(seed, paths(folder));
    let (mut answers, mut next_id, mut unknown_answered) = (Vec::new(), 1, 0);
    while answers.len() < count {
        let depth = requests.depth();
        let mut batch: Vec<_> = (0..depth).map(|_| requests.next()).collect();
        batch.extend(requests.unknown());
        for (asked, reply) in exchange(&mut sftp, batch, &mut next_id, &mut unknown_answered) {
            requests.learn(&asked, &reply);
            answers.push((asked.shown(), asked.common(&reply, texts)));
        }
    }
    sftp.end();
    Seen { answers, files: listing(folder), unknown_answered }
}

/// Says the same direct and proxied. `texts`: the words of each STATUS are compared, which under a policy may be the router's.
#[track_caller]
fn same(world: &World, seed: u64, count: usize, texts: bool) -> Seen {
    let direct = run(world, &world.direct(), (seed, count), texts);
    let proxied = run(world, &world.proxied(USER), (seed, count), texts);
    for (at, (direct, proxied)) in direct.answers.iter().zip(&proxied.answers).enumerate() {
        assert!(direct == proxied, "seed {seed}, answer {at}:\ndirect  {direct:?}\nproxied {proxied:?}");
    }
    assert_eq!(direct.answers.len(), proxied.answers.len(), "seed {seed}");
    assert_eq!(direct.files, proxied.files, "seed {seed}");
    assert_eq!(direct.unknown_answered, 0);
    proxied
}

/// All seeds in one world, with these settings and with these fields in the record.
fn seeds(setup: Setup<'_>, fields: &[(&'static str, &str)]) {
    let world = World::with(setup);
    let more = fields.iter().map(|(name, value)| (*name, (*value).to_owned()));
    world.store.put(USER, &[&keys::ed25519(USER)], &world.route().into_iter().chain(more).collect::<Vec<_>>());
    let count = number("DIFFERENTIAL_OPERATIONS", 2000);
    for seed in 1..=number("DIFFERENTIAL_SEEDS", 3) as u64 {
        let seen = same(&world, seed, count, fields.is_empty());
        let good =
            seen.answers.iter().filter(|(_, answer)| !answer.starts_with("status ") || answer.starts_with("status 0")).count();
        assert!(good * 10 > count && good * 10 < count * 9, "seed {seed}: {good} of {count} succeed: this shows little");
        println!("seed {seed}: {} answers alike, {good} of success, {} files at the end", seen.answers.len(), seen.files.len());
    }
}

#[test]
fn random_requests_pipelined_get_the_same_answers_direct_and_proxied() {
    seeds(Setup::default(), &[]);
}

#[test]
fn random_requests_pipelined_get_the_same_answers_with_an_audit_and_a_policy_that_allows_everything() {
    let audits = tempfile::tempdir().unwrap();
    let setting = format!("file:{}", audits.path().join("audit").display());
    seeds(Setup { settings: &[("AUDIT", &setting)], ..Setup::default() }, &[("rules", "/=all"), ("hash", "sha256")]);
    let told = std::fs::read_to_string(audits.path().join("audit")).unwrap();
    let operations = told.lines().filter(|line| line.contains("\"kind\":\"operation\"")).count();
    assert!(
        operations * 4 > number("DIFFERENTIAL_SEEDS", 3) * number("DIFFERENTIAL_OPERATIONS", 2000),
        "the audit was on: {operations}"
    );
}
