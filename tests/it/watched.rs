//! Policy, audit and digests in the running program: real clients, a real sshd, and the file that the audit leaves.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use sftpproxy::wire::{Reader, put_string, put_u32};

use crate::login::on_disk;
use crate::raw::{CHANNEL_WINDOW_ADJUST, Channel, Client, Key};
use crate::world::clients::installed;
use crate::world::keys;
use crate::world::process::{LIMIT, resident, run, until};
use crate::world::{Setup, USER, World};

/// Bytes that no two files of a test have in common by chance.
fn content(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// A world with an audit file, and a user whose record has these fields too; without `home` if there is a root.
struct Site {
    world: World,
    events: PathBuf,
}

impl Site {
    fn start(fields: &[(&'static str, &str)]) -> Self {
        let folder = tempfile::Builder::new().prefix("sftpproxy-audit-").tempdir().unwrap().keep();
        let events = folder.join("audit.jsonl");
        let sink = format!("file:{}", events.display());
        let world = World::with(Setup { settings: &[("AUDIT", &sink)], ..Setup::default() });
        let site = Self { world, events };
        site.allow(fields);
        site
    }

    /// Gives the user a record with these fields too.
    fn allow(&self, fields: &[(&'static str, &str)]) {
        let mut record = self.world.route();
        if fields.iter().any(|(name, _)| *name == "root") {
            record.retain(|(name, _)| *name != "home");
        }
        record.extend(fields.iter().map(|(name, value)| (*name, (*value).to_owned())));
        self.world.store.put(USER, &[&keys::ed25519(USER)], &record);
        // The file is read again when it has changed.
        let shown = || self.world.command(&["user", "show", USER, "--json"]).stdout;
        assert!(until(LIMIT, || fields.iter().all(|(_, value)| shown().contains(&value.replace('"', "\\\"")))), "{}", shown());
    }

    fn sftp(&self, batch: &str) -> crate::world::process::Output {
        self.world.proxied(USER).sftp(batch)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.world.sshd.files.join(name)
    }

    fn client(&self, name: &str) -> PathBuf {
        self.world.client().join(name)
    }

    /// All events of a kind, as soon as there are so many.
    #[track_caller]
    fn events(&self, kind: &str, count: usize) -> Vec<Value> {
        let all = || -> Vec<Value> {
            let text = fs::read_to_string(&self.events).unwrap_or_default();
            let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            lines.map(|line| serde_json::from_str(line).expect("JSON")).collect()
        };
        let of_kind = || all().into_iter().filter(|event| event["kind"] == kind).collect::<Vec<_>>();
        until(LIMIT, || of_kind().len() >= count);
        let found = of_kind();
        assert_eq!(found.len(), count, "of {kind}: {:#?}", all());
        found
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.events.parent().expect("a folder"));
    }
}

#[test]
fn a_session_that_the_operator_ends_has_its_end_and_the_reason_in_the_audit() {
    let site = Site::start(&[]);
    let mut session = site.world.proxied(USER).session();
    session.ask("pwd", "Remote working directory");
    site.world.command(&["sessions", "kick", "--user", USER, "--reason", "the disks are changed"]).success();
    assert!(session.was_cut());
    let (login, end) = (site.events("login", 1).remove(0), site.events("end", 1).remove(0));
    assert_eq!((&end["session"], &end["user"]), (&login["session"], &json!(USER)));
    assert_eq!((&end["side"], &end["stage"]), (&json!("router"), &json!("relay")));
    assert_eq!(end["reason"], "ended by the operator: the disks are changed");
}

#[test]
fn a_session_is_told_to_the_audit_from_login_to_end_with_each_operation_and_transfer() {
    let site = Site::start(&[]);
    let bytes = content(3_000_000, 1);
    fs::write(site.client("a"), &bytes).unwrap();
    site.sftp("put a\nrename a b\nget b c\n-rm missing\nmkdir d\n").success();
    assert_eq!(fs::read(site.client("c")).unwrap(), bytes);

    let end = site.events("end", 1).remove(0);
    assert_eq!(
        (&end["side"], &end["stage"], &end["reason"]),
        (&json!("downstream"), &json!("relay"), &json!("the client closed the session"))
    );
    let (login, open) = (site.events("login", 1).remove(0), site.events("open", 1).remove(0));
    assert_eq!((&login["user"], &login["upstream"]), (&json!(USER), &Value::Null));
    assert_eq!(login["key"], keys::ed25519(USER).fingerprint());
    assert!(open["host_key"].as_str().unwrap().contains(&site.world.sshd.host_key.fingerprint()), "{open}");
    assert!(login["software"].as_str().unwrap().starts_with("SSH-2.0-OpenSSH"), "{login}");
    for event in [&open, &end] {
        assert_eq!(event["upstream"], format!("127.0.0.1:{}", site.world.sshd.port));
        assert_eq!((&event["session"], &event["client"]), (&login["session"], &login["client"]));
    }

    let path = |name: &str| json!(site.file(name).display().to_string());
    let put = site.events("upload-complete", 1).remove(0);
    assert_eq!((&put["path"], &put["written"], &put["ranges"]), (&path("a"), &json!(3_000_000), &json!([[0, 3_000_000]])));
    assert_eq!((&put["flags"], put.get("hash")), (&json!("write,creat,trunc"), None));
    let got = site.events("download-complete", 1).remove(0);
    assert_eq!((&got["path"], &got["read"], &got["ranges"]), (&path("b"), &json!(3_000_000), &json!([[0, 3_000_000]])));

    let operations = {
        let text = fs::read_to_string(&site.events).unwrap();
        text.lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .filter(|event| event["kind"] == "operation")
            .collect::<Vec<_>>()
    };
    let find = |name: &str| {
        operations.iter().find(|event| event["operation"] == name).unwrap_or_else(|| panic!("{name}: {operations:#?}"))
    };
    let renamed = operations.iter().find(|event| event["to"] == path("b")).expect("a rename");
    assert_eq!((&renamed["path"], &renamed["code"]), (&path("a"), &json!(0)));
    let removed = find("remove");
    assert_eq!(
        (&removed["path"], &removed["status"], &removed["message"]),
        (&path("missing"), &json!("SSH_FX_NO_SUCH_FILE"), &json!("No such file"))
    );
    assert_eq!((&find("mkdir")["path"], &find("mkdir")["code"]), (&path("d"), &json!(0)));
    site.events("upload-partial", 0);
    site.events("download-partial", 0);
    site.events("denied", 0);
}

#[test]
fn a_refused_key_is_told_with_the_name_that_was_claimed() {
    let site = Site::start(&[]);
    let output = site.world.proxied_with(USER, &keys::ed25519("stranger")).sftp("pwd\n");
    assert_ne!(output.code, 0);
    let refused = site.events("refused", 1).remove(0);
    assert_eq!((&refused["user"], &refused["reason"]), (&json!(USER), &json!("nobody has this key")));
    assert_eq!(refused["key"], keys::ed25519("stranger").fingerprint());
    assert!(refused["software"].as_str().unwrap().starts_with("SSH-2.0-OpenSSH"), "{refused}");
    site.events("login", 0);
    site.events("end", 0);
}

#[test]
fn an_upload_whose_client_is_killed_is_partial_and_every_range_that_is_told_is_on_the_disk() {
    let site = Site::start(&[("hash", "sha256")]);
    let bytes = content(1_000_003, 2).repeat(256);
    fs::write(site.client("big"), &bytes).unwrap();
    let mut session = site.world.proxied(USER).session();
    session.say("put big");
    let on_disk = || fs::metadata(site.file("big")).map_or(0, |is| is.len());
    assert!(until(LIMIT, || on_disk() > 1 << 20));
    session.signal(Signal::SIGKILL);
    let partial = site.events("upload-partial", 1).remove(0);
    assert_eq!(
        (&partial["reason"], &partial["hash"]),
        (&json!("the session ended before the file was closed"), &json!("unavailable"))
    );
    let stored = fs::read(site.file("big")).unwrap();
    let ranges: Vec<(usize, usize)> = serde_json::from_value(partial["ranges"].clone()).unwrap();
    assert!(!ranges.is_empty());
    for (start, end) in ranges {
        assert!(stored[start..end] == bytes[start..end], "{start} to {end} of {}", stored.len());
    }
    site.events("upload-complete", 0);
    site.events("end", 1);
}

#[test]
fn the_digest_of_a_transfer_is_what_sha256sum_says_and_missing_where_the_client_jumps() {
    for (name, program) in [("sha256", "sha256sum"), ("blake3", "b3sum")] {
        let site = Site::start(&[("hash", name)]);
        let bytes = content(5_000_001, 3);
        fs::write(site.client("a"), &bytes).unwrap();
        fs::write(site.client("none"), b"").unwrap();
        site.sftp("put a\nget a b\nput none\n").success();
        let expected = match program {
            "sha256sum" => {
                let output = run(std::process::Command::new(program).arg(site.file("a"))).success();
                output.split(' ').next().unwrap().to_owned()
            }
            _ => blake3::hash(&bytes).to_hex().to_string(),
        };
        let uploads = site.events("upload-complete", 2);
        assert_eq!(uploads[0]["hash"], format!("{name}:{expected}"));
        assert_eq!(site.events("download-complete", 1)[0]["hash"], format!("{name}:{expected}"));
        assert_eq!(uploads[1]["written"], 0);
        if name == "sha256" {
            let nothing = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
            assert_eq!(uploads[1]["hash"], nothing);
        }
        // The rest of a file that is there: what stood before is not seen.
        fs::write(site.file("a"), &bytes[..1_000_000]).unwrap();
        site.sftp("reput a\n").success();
        assert_eq!(fs::read(site.file("a")).unwrap(), bytes);
        let resumed = site.events("upload-complete", 3).remove(2);
        assert_eq!((&resumed["hash"], &resumed["ranges"]), (&json!("unavailable"), &json!([[1_000_000, 5_000_001]])));
    }
}

#[test]
fn a_user_who_may_only_read_is_told_so_by_sftp_and_nothing_changes() {
    let site = Site::start(&[("read_only", "yes")]);
    fs::write(site.file("a"), b"as it was").unwrap();
    fs::write(site.client("new"), b"new").unwrap();
    site.sftp("ls\nget a\n").success();
    assert_eq!(fs::read(site.client("a")).unwrap(), b"as it was");
    for batch in ["put new a\n", "rm a\n", "rename a b\n", "mkdir d\n", "chmod 600 a\n", "ln -s a link\n"] {
        // sftp has words of its own for each code; lftp shows ours.
        let output = site.sftp(batch);
        assert!(output.code != 0 && output.stderr.to_lowercase().contains("permission denied"), "{batch}: {}", output.stderr);
    }
    if installed("lftp") {
        let output = site.world.proxied(USER).lftp("mkdir d\n");
        let said = output.stdout + &output.stderr;
        assert!(said.contains("read-only: mkdir is not allowed"), "{said}");
    }
    assert_eq!(fs::read_dir(&site.world.sshd.files).unwrap().count(), 1);
    assert_eq!(fs::read(site.file("a")).unwrap(), b"as it was");
    let denied = site.events("denied", 6 + usize::from(installed("lftp")));
    assert_eq!((&denied[1]["operation"], &denied[1]["path"]), (&json!("remove"), &json!(site.file("a").display().to_string())));
    assert!(denied.iter().all(|event| event["reason"].as_str().unwrap().starts_with("read-only")), "{denied:#?}");
    site.world.router.wait_for_line(&format!("deny session=*user=\"{USER}\" remove path=*reason=\"read-only"));
}

#[test]
fn a_drop_box_takes_new_files_and_shows_and_changes_none() {
    let site = Site::start(&[("upload_only", "yes")]);
    fs::write(site.file("there"), b"as it was").unwrap();
    fs::write(site.client("new"), content(200_000, 4)).unwrap();
    site.sftp("put new\n").success();
    assert_eq!(fs::read(site.file("new")).unwrap(), fs::read(site.client("new")).unwrap());
    let listed = site.sftp("ls\n");
    assert!(!listed.stdout.contains("there") && listed.stderr.contains("ermission denied"), "{}{}", listed.stdout, listed.stderr);
    for batch in ["get there\n", "put new there\n", "rm there\n", "rename there b\n"] {
        assert_ne!(site.sftp(batch).code, 0, "{batch}");
    }
    assert!(!site.client("there").exists());
    assert_eq!(fs::read(site.file("there")).unwrap(), b"as it was");
    assert_eq!(site.events("upload-complete", 1)[0]["written"], 200_000);
}

#[test]
fn below_a_root_the_user_sees_it_as_the_whole_and_nothing_beside_it() {
    let site = Site::start(&[]);
    fs::create_dir_all(site.file("box/in")).unwrap();
    fs::write(site.file("secret"), b"secret").unwrap();
    symlink("../secret", site.file("box/out")).unwrap();
    let root = site.file("box").display().to_string();
    site.allow(&[("root", &root)]);
    fs::write(site.client("new"), b"new").unwrap();
    let output = site.sftp("pwd\nput new /in/new\ncd in\npwd\nls -1 /\n").success();
    assert!(output.contains("Remote working directory: /\n") && output.contains("Remote working directory: /in\n"), "{output}");
    assert_eq!(fs::read(site.file("box/in/new")).unwrap(), b"new");
    for batch in ["get ../secret\n", "get /../../secret\n", "ln -s /etc/passwd link\n"] {
        assert_ne!(site.sftp(batch).code, 0, "{batch}");
    }
    assert!(!site.client("secret").exists());
    let put = site.events("upload-complete", 1).remove(0);
    assert_eq!(put["path"], format!("{root}/in/new"));
}

/// A hostile client with a record of its own.
fn hostile(site: &Site, fields: &[(&'static str, &str)]) -> Client {
    let key = Key::ed25519();
    let mut record = site.world.route();
    record.extend(fields.iter().map(|(name, value)| (*name, (*value).to_owned())));
    site.world.store.put("mallory", &[&on_disk(&site.world, "mallory", &key)], &record);
    Client::log_in(("127.0.0.1", site.world.router.port), "mallory", &key).unwrap()
}

/// The next reply; several may come in one piece.
fn next(client: &mut Client, channel: &Channel, held: &mut Vec<u8>) -> Vec<u8> {
    loop {
        if let Ok(body) = Reader::new(held).string("packet").map(<[u8]>::to_vec) {
            held.drain(..4 + body.len());
            return body;
        }
        let more = client.recv_data(channel).unwrap();
        assert!(!more.is_empty(), "the channel ended");
        held.extend(more);
    }
}

/// MKDIR of `a`: 18 bytes.
fn mkdir(id: u32) -> Vec<u8> {
    let mut packet = vec![0, 0, 0, 14, 14];
    put_u32(&mut packet, id);
    put_string(&mut packet, b"a");
    put_u32(&mut packet, 0);
    packet
}

#[test]
fn a_refusal_is_answered_though_the_upstream_is_silent_but_never_before_version() {
    let site = Site::start(&[]);
    let mut client = hostile(&site, &[("read_only", "yes")]);
    let channel = client.open_sftp().unwrap();
    // All at once: INIT, what will be refused, what will be answered, what will be refused.
    let mut bytes = vec![0, 0, 0, 5, 1, 0, 0, 0, 3];
    bytes.extend(mkdir(1));
    bytes.extend([0, 0, 0, 10, 16, 0, 0, 0, 2, 0, 0, 0, 1, b'.']);
    bytes.extend(mkdir(3));
    client.data(&channel, &bytes).unwrap();
    let mut held = Vec::new();
    assert_eq!(next(&mut client, &channel, &mut held)[0], 2, "VERSION comes first");
    let mut ids: Vec<_> = (0..3).map(|_| next(&mut client, &channel, &mut held)[4]).collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 3]);
    // Nothing goes to the upstream from here on, and nothing comes from it.
    for id in 4..100 {
        client.data(&channel, &mkdir(id)).unwrap();
        let reply = next(&mut client, &channel, &mut held);
        assert_eq!((reply[0], reply[4], reply[8]), (101, id as u8, 3), "STATUS, permission denied");
        assert!(String::from_utf8_lossy(&reply).contains("read-only: mkdir is not allowed"));
    }
    assert!(!site.file("a").exists());
}

#[test]
fn a_flood_of_refused_requests_whose_answers_are_never_read_costs_bounded_memory() {
    let site = Site::start(&[]);
    let pid = site.world.router.pid();
    // The log and the audit have a line for each: what they hold is not what is asked about here.
    let mut client = hostile(&site, &[("read_only", "yes")]);
    let channel = client.open("session", 1 << 15, 1 << 15, &[]).unwrap().unwrap();
    assert!(client.subsystem(&channel, "sftp").unwrap());
    client.data(&channel, &[0, 0, 0, 5, 1, 0, 0, 0, 3]).unwrap();
    let before = resident(pid);
    client.set_patience(Duration::from_secs(3)).unwrap();
    let piece: Vec<u8> = (0..1_500).flat_map(mkdir).collect();
    let (mut sent, mut window) = (0, channel.window as usize - 9);
    while sent < 32 << 20 {
        while window < piece.len() {
            match client.recv() {
                Ok(packet) if packet[0] == CHANNEL_WINDOW_ADJUST => {
                    window += Reader::new(&packet[5..]).u32("bytes").unwrap() as usize
                }
                Ok(_) => {}
                Err(why) => {
                    println!("after {sent}: {why}, window {window}");
                    break;
                }
            }
        }
        if window < piece.len() {
            break;
        }
        client.data(&channel, &piece).unwrap();
        (sent, window) = (sent + piece.len(), window - piece.len());
    }
    assert!(sent > 100_000 && sent < 32 << 20, "the program never stopped listening");
    let more = resident(pid).saturating_sub(before);
    println!("{} KiB were taken, {more} KiB more are held", sent >> 10);
    assert!(more < 60 << 10, "{} MiB more", more >> 10);
    site.sftp("pwd\n").success();
    drop(client);
}
