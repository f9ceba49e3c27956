//! Policy, audit and digests in the running program: real clients, a real sshd, and the file that the audit leaves.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::world::keys;
use crate::world::process::{LIMIT, run, until};
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
    let bytes = content(64 << 20, 2);
    fs::write(site.client("big"), &bytes).unwrap();
    let mut client = site.world.proxied(USER).with_option("Compression=no");
    client.options.push("RekeyLimit=none".into());
    let session = client.session();
    let mut session = session;
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
    for (batch, told) in [
        ("put new a\n", "read-only"),
        ("rm a\n", "read-only"),
        ("rename a b\n", "read-only"),
        ("mkdir d\n", "read-only"),
        ("chmod 600 a\n", "read-only"),
        ("ln -s a link\n", "read-only"),
    ] {
        let output = site.sftp(batch);
        assert!(output.code != 0 && output.stderr.contains(told), "{batch}: {} {}", output.stdout, output.stderr);
    }
    assert_eq!(fs::read_dir(&site.world.sshd.files).unwrap().count(), 1);
    assert_eq!(fs::read(site.file("a")).unwrap(), b"as it was");
    let denied = site.events("denied", 6);
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
    for batch in ["ls\n", "get there\n", "put new there\n", "rm there\n", "rename there b\n"] {
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
