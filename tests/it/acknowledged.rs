//! Acknowledged means stored: uploads are cut at a random byte of either leg and either direction. What the client was told is on the
//! upstream's disk, and so is what the audit says. `scripts/acknowledged` makes it long.

use std::path::Path;

use serde_json::Value;
use sftpproxy::sftp::OpenFlags;
use sftpproxy::sftp::reply::{HANDLE, OK, STATUS};
use sftpproxy::wire::{Reader, put_string, put_u32};

use crate::random::{Random, code};
use crate::world::clients::Target;
use crate::world::process::{LIMIT, until};
use crate::world::sftp::Sftp;
use crate::world::toxic::{Direction, Relay, Strike, Toxic};
use crate::world::tree::small_file;
use crate::world::{Setup, USER, World, keys};

/// Bytes of an upload, of each of its WRITEs, and how many of these are on their way at a time.
pub const SIZE: usize = 400_000;
pub const PIECE: usize = 16_000;
pub const FLYING: usize = 8;

/// The id of CLOSE; those of WRITEs are below.
const CLOSE: u32 = 1_000_000;

/// What the client of an upload was told.
#[derive(Debug, Default)]
pub struct Told {
    /// The file's handle came.
    opened: bool,
    /// Which WRITEs were answered with OK.
    pub written: Vec<usize>,
    /// CLOSE was answered with OK.
    pub closed: bool,
    /// The router has answered itself: there was no upstream.
    pub refused: bool,
}

impl Told {
    /// Notes an answer. There is no other than OK: nothing is wrong with the files.
    pub fn note(&mut self, reply: &[u8]) {
        assert_eq!((reply[0], code(reply)), (STATUS, OK));
        match u32::from_be_bytes([reply[1], reply[2], reply[3], reply[4]]) {
            CLOSE => self.closed = true,
            id => self.written.push(id as usize),
        }
    }
}

/// Which bytes a WRITE has.
pub fn piece(number: usize) -> std::ops::Range<usize> {
    number * PIECE..SIZE.min((number + 1) * PIECE)
}

/// Uploads until it is done or cut. `eager`: CLOSE is sent right behind the last WRITE, without waiting for answers.
fn upload(target: &Target, path: &Path, content: &[u8], eager: bool) -> Told {
    let (mut told, mut sftp) = (Told::default(), Sftp::start(target));
    if sftp.reply().is_some() {
        put(&mut sftp, &mut told, (path.to_str().unwrap(), content), eager, &mut |_| ());
    }
    // Whatever still comes, also after sending has failed.
    while let Some(reply) = if told.closed { sftp.reply_at_hand() } else { sftp.reply() } {
        if reply[0] == STATUS && !told.refused {
            told.note(&reply);
        }
    }
    told
}

/// Uploads in a session that has begun. `amid` hears of each WRITE that is answered how many are. `None` = it was cut.
pub fn put(
    sftp: &mut Sftp,
    told: &mut Told,
    (path, content): (&str, &[u8]),
    eager: bool,
    amid: &mut dyn FnMut(usize),
) -> Option<()> {
    let mut open = vec![3, 0, 0, 0, 0];
    put_string(&mut open, path.as_bytes());
    put_u32(&mut open, OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::TRUNCATE);
    put_u32(&mut open, 0);
    sftp.send(&open).ok()?;
    let reply = sftp.reply()?;
    if reply[0] == STATUS {
        // The upstream was lost during the login, and the router has answered in its place; it never says OK.
        assert_ne!(code(&reply), OK);
        told.refused = true;
        return None;
    }
    assert_eq!(reply[0], HANDLE);
    told.opened = true;
    let handle = Reader::new(&reply[5..]).string("handle").unwrap().to_vec();
    let request = |kind: u8, id: u32| {
        let mut request = [&[kind][..], &id.to_be_bytes()].concat();
        put_string(&mut request, &handle);
        request
    };
    let count = content.len().div_ceil(PIECE);
    for number in 0..count {
        while number - told.written.len() >= FLYING {
            told.note(&sftp.reply()?);
            amid(told.written.len());
        }
        let mut write = request(6, number as u32);
        write.extend((number * PIECE).to_be_bytes());
        put_string(&mut write, &content[piece(number)]);
        sftp.send(&write).ok()?;
    }
    while !eager && told.written.len() < count {
        told.note(&sftp.reply()?);
    }
    sftp.send(&request(4, CLOSE)).ok()?;
    while !told.closed {
        told.note(&sftp.reply()?);
    }
    Some(())
}

/// What is not on the disk of these bytes of the file.
pub fn missing(path: &Path, content: &[u8], ranges: &[std::ops::Range<usize>]) -> Option<std::ops::Range<usize>> {
    let stored = std::fs::read(path).unwrap_or_default();
    ranges.iter().find(|range| stored.get((*range).clone()) != content.get((*range).clone())).cloned()
}

/// Compares what the audit says of an upload with the disk and with what the client was told.
fn check_audit(events: &[Value], path: &Path, content: &[u8], told: &Told) -> Result<(), String> {
    let name = format!("/{}", path.file_name().unwrap().to_str().unwrap());
    let is_ours = |event: &&Value| {
        let upload = event["kind"].as_str().is_some_and(|kind| kind.starts_with("upload-"));
        upload && event["path"].as_str().is_some_and(|path| path.ends_with(&name))
    };
    let said: Vec<_> = events.iter().filter(is_ours).collect();
    let event = match said[..] {
        [] if !told.opened => return Ok(()),
        [event] => event,
        _ => return Err(format!("{} events", said.len())),
    };
    let bound = |pair: &Value, end: usize| pair[end].as_u64().expect("a bound") as usize;
    let ranges: Vec<_> = event["ranges"].as_array().into_iter().flatten().map(|pair| bound(pair, 0)..bound(pair, 1)).collect();
    if let Some(range) = missing(path, content, &ranges) {
        return Err(format!("says that {range:?} is stored, which it is not"));
    }
    let within =
        |number: &&usize| ranges.iter().any(|range| range.start <= piece(**number).start && piece(**number).end <= range.end);
    if event.get("more_ranges").is_none() && !told.written.iter().all(|number| within(&number)) {
        return Err("does not say of bytes that the client knows to be stored".to_owned());
    }
    let complete = event["kind"] == "upload-complete";
    if complete && std::fs::read(path).unwrap() != content {
        return Err("says complete of a file that is not".to_owned());
    }
    if told.closed && !complete {
        return Err("says partial of what the client knows to be complete".to_owned());
    }
    Ok(())
}

fn events(audit: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(audit).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Cuts uploads, and compares what the client and the audit were told with the disk.
#[test]
fn what_client_and_audit_were_told_of_a_cut_upload_is_stored() {
    let count: usize = std::env::var("ACKNOWLEDGED_CUTS").map_or(40, |text| text.parse().expect("a number of cuts"));
    let audits = tempfile::tempdir().unwrap();
    let audit = audits.path().join("audit");
    let setting = format!("file:{}", audit.display());
    let world = World::with(Setup { settings: &[("AUDIT", &setting)], ..Setup::default() });
    let legs = [Relay::start(world.router.port), Relay::start(world.sshd.port)];
    let mut route = world.route();
    route.iter_mut().filter(|(name, _)| *name == "port").for_each(|(_, port)| *port = legs[1].port.to_string());
    world.store.put(USER, &[&keys::ed25519(USER)], &route);
    let mut target = world.proxied(USER);
    target.port = legs[0].port;
    let source = world.client().join("source");
    small_file(&source, SIZE, 9);
    let content = std::fs::read(&source).unwrap();

    let path = |number: usize| world.sshd.files.join(format!("cut-{number:04}"));
    let mut uploads = vec![upload(&target, &path(0), &content, false)];
    assert!(uploads[0].closed && std::fs::read(path(0)).unwrap() == content, "an upload that is not cut");
    let usual = [legs[0].passed(), legs[1].passed()];
    let seed = std::env::var("ACKNOWLEDGED_SEED").map_or(1, |text| text.parse().expect("a seed"));
    println!(
        "seed {seed}, {count} cuts; bytes of an upload, up and down: client's leg {:?}, upstream's {:?}",
        usual[0], usual[1]
    );
    let mut random = Random(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed) | 1);
    let mut last = 0;
    for number in 1..=count {
        let (leg, direction, eager) = (random.below(2), random.below(4) / 3, random.below(2) == 0);
        let after = 1 + random.below(usual[leg][direction]);
        let way = [Direction::Up, Direction::Down][direction];
        legs.iter().for_each(|leg| leg.plan(None));
        legs[leg].plan(Some(Strike::new(Toxic::Cut, way, after)));
        let told = upload(&target, &path(number), &content, eager);
        let ranges: Vec<_> = told.written.iter().map(|number| piece(*number)).collect();
        let lost = missing(&path(number), &content, &ranges);
        assert_eq!(
            lost, None,
            "cut {number}, leg {leg}, direction {direction}, after {after} bytes: acknowledged and not stored"
        );
        assert!(!told.closed || std::fs::read(path(number)).unwrap() == content, "cut {number}: closed and not whole");
        last += usize::from(!told.closed);
        uploads.push(told);
    }
    let begun = uploads.iter().filter(|told| !told.closed && !told.written.is_empty()).count();
    println!("{last} of {count} were cut before the client knew all, {begun} of them amid the writes");
    assert!(last * 2 > count && begun * 4 > count, "{last} cut, {begun} amid the writes: this shows little");
    let lines = |word: &str| world.router.lines().iter().filter(|line| line.contains(word)).count();
    assert!(until(LIMIT, || lines("] accept session=") == lines("] end session=")), "sessions that do not end");
    // Events come in their order: behind those of one more upload nothing of the others is missing.
    legs.iter().for_each(|leg| leg.plan(None));
    uploads.push(upload(&target, &path(count + 1), &content, true));
    let is_last = |event: &Value| event["kind"] == "upload-complete" && event["path"] == path(count + 1).to_str().unwrap();
    assert!(until(LIMIT, || events(&audit).iter().any(is_last)), "the last upload is not in the audit");
    let events = events(&audit);
    let proven = |events: &[Value], kind: &str| events.iter().filter(|event| event["kind"] == kind).count();
    assert_eq!(proven(&events, "dropped"), 0);
    for (number, told) in uploads.iter().enumerate() {
        let said = check_audit(&events, &path(number), &content, told);
        assert_eq!(said, Ok(()), "upload {number}, {told:?}");
    }
    let (complete, partial) = (proven(&events, "upload-complete"), proven(&events, "upload-partial"));
    println!("the audit says complete {complete} times, partial {partial} times; 0 wrong");
    assert!(complete > 0 && partial * 4 > count);
}
