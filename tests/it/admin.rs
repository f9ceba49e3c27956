//! The commands of the administrator, over both stores, as a person and as a script would use them.

use std::path::PathBuf;

use sftpproxy::admin::{self, Console, Context, Outcome};
use sftpproxy::config::Config;
use sftpproxy::route::Defaults;
use sftpproxy::store::RouteStore;
use sftpproxy::store::file::FileStore;

use crate::stores::{Redis, key, line, name};

/// What a command did.
struct Ran {
    outcome: Outcome,
    out: String,
    err: String,
}

impl Ran {
    #[track_caller]
    fn done(&self) -> &Self {
        assert_eq!((self.outcome, self.err.contains("panic")), (Outcome::Done, false), "{}{}", self.out, self.err);
        self
    }

    #[track_caller]
    fn refused(&self, reason: &str) -> &Self {
        assert!(
            self.outcome == Outcome::Refused && self.err.contains(reason),
            "{reason}: {:?} {}{}",
            self.outcome,
            self.out,
            self.err
        );
        self
    }

    #[track_caller]
    fn says(&self, text: &str) -> &Self {
        assert!(self.out.contains(text), "{text}: {}", self.out);
        self
    }

    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.done().out).unwrap()
    }
}

/// A site: a store and a folder with key files.
struct Site<'a> {
    store: &'a dyn RouteStore,
    folder: tempfile::TempDir,
}

impl Site<'_> {
    fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Runs a command line; `input` is what is typed, when somebody is there.
    fn ask(&self, arguments: &[&str], input: &str, interactive: bool) -> Ran {
        let config =
            Config::parse(&|_| None, &|name| (name == "HOME").then(|| self.folder.path().display().to_string())).unwrap();
        let matches = clap::Command::new("sftpproxy")
            .subcommands(admin::commands())
            .try_get_matches_from([&["sftpproxy"], arguments].concat());
        let matches = matches.unwrap();
        let (group, matches) = matches.subcommand().unwrap();
        let defaults = Defaults { login: None, home: Some("/home".into()) };
        let (upstream, control) = (&config.upstream, &config.control);
        let context = Context { store: self.store, defaults: &defaults, upstream, control, port: 5022, config: &config };
        let (mut out, mut err, mut input) = (Vec::new(), Vec::new(), input.as_bytes());
        let mut console = Console { out: &mut out, err: &mut err, input: &mut input, interactive, colour: false };
        let outcome = admin::run(group, matches, &context, &mut console);
        Ran { outcome, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        self.ask(arguments, "", false)
    }
}

fn both(case: impl Fn(&Site<'_>)) {
    let redis = Redis::start(&[]);
    case(&Site { store: &redis.store(), folder: tempfile::tempdir().unwrap() });
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::new(folder.path().join("routes.toml")).unwrap();
    case(&Site { store: &store, folder: tempfile::tempdir().unwrap() });
}

#[test]
fn what_a_user_may_do_has_an_option_for_each_field() {
    both(|site| {
        let id = site.file("id.pub", &format!("{}\n", line(1, "laptop")));
        let mut arguments = vec!["user", "add", "alice", "--key", &id];
        let options = [
            ("--upload-only", "upload_only", "yes"),
            ("--root", "root", "/srv/box"),
            ("--rules", "rules", "/in=create,list; /out=read"),
            ("--allow", "allow", "*.csv"),
            ("--deny", "deny", ".*"),
            ("--max-file-size", "max_file_size", "10M"),
            ("--extensions", "extensions", "none"),
            ("--hash", "hash", "sha256"),
        ];
        arguments.extend(options.iter().flat_map(|(option, _, value)| [*option, *value]));
        site.run(&arguments).done().says("upload_only = yes");
        let record = site.store.record(&name("alice")).unwrap().unwrap();
        let show = site.run(&["user", "show", "alice"]);
        for (_, field, value) in options {
            assert_eq!(record[field], value);
            show.done().says(&format!("{field} = {value}"));
        }
        site.run(&["user", "add", "alice", "--update", "--read-only", "yes"]).refused("upload_only");
        site.run(&["user", "add", "alice", "--update", "--hash", "md5"]).refused("neither sha256 nor blake3");
        site.run(&["user", "add", "alice", "--update", "--read-only", "yes", "--upload-only", ""]).done().says("-> yes");
    });
}

#[test]
fn a_user_is_added_shown_listed_changed_and_removed() {
    both(|site| {
        let id = site.file("id.pub", &format!("# two\n{}\n\n{}\n", line(1, "laptop"), line(2, "desk")));
        let added = site.run(&[
            "user", "add", "alice", "--key", &id, "--remote", "10.0.0.7", "--port", "32772", "--user", "root", "--home", "/srv",
        ]);
        added.done().says("user alice: added").says("remote = 10.0.0.7").says("sftp -P 5022 alice@");
        added.says(&key(2).fingerprint().to_string());
        assert_eq!(site.store.owner(&key(2)).unwrap(), Some(name("alice")));

        let show = site.run(&["user", "show", "alice"]);
        show.done().says("route: root@10.0.0.7:32772").says("home = /srv").says(&key(1).fingerprint().to_string());
        let json = site.run(&["user", "show", "alice", "--json"]).json();
        assert_eq!((json["route"]["port"].as_u64(), json["keys"].as_array().unwrap().len()), (Some(32772), 2), "{json}");
        assert_eq!((json["record"]["port"].as_str(), json["fault"].is_null()), (Some("32772"), true), "{json}");

        site.run(&["user", "add", "alice", "--port", "1"]).refused("--update");
        let changed = site.run(&["user", "add", "alice", "--update", "--port", "2222", "--home", "", "--user", "root"]);
        changed.done().says("port: 32772 -> 2222").says("home: /srv -> (unset)").says("user is root already");
        site.run(&["user", "list"]).done().says("alice  root@10.0.0.7:2222  /home  2");
        assert_eq!(site.run(&["user", "list", "--json"]).json()[0]["name"], "alice");

        let removed = site.run(&["user", "remove", "alice"]);
        removed.refused("--yes").says("remote = 10.0.0.7").says(&key(1).fingerprint().to_string());
        site.ask(&["user", "remove", "alice"], "n\n", true).refused("nothing was changed");
        assert!(site.store.record(&name("alice")).unwrap().is_some());
        site.ask(&["user", "remove", "alice"], "y\n", true).done().says("removed");
        site.run(&["user", "remove", "alice", "--yes"]).refused("no user");
        site.run(&["user", "show", "alice"]).refused("no user");
        assert_eq!(site.store.keys().unwrap(), []);
    });
}

#[test]
fn what_is_wrong_is_refused_with_each_reason_and_nothing_is_written() {
    both(|site| {
        let good = site.file("good.pub", &line(1, ""));
        site.run(&["user", "add", "bob", "--key", &good]).done();
        let bad = site.file("bad.pub", &format!("{}\nssh-rsa AAAA\nnonsense\n", line(2, "")));
        let private = site.file("id", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n");
        let empty = site.file("empty", "# nothing\n");
        for (arguments, reasons) in [
            (&["alice", "--port", "70000"][..], &["port: \"70000\" is not a port"][..]),
            (&["alice", "--remote", "a b", "--port", "0"], &["remote: \"a b\"", "port: \"0\""]),
            (&["alice", "--host-key", "SHA256:short"], &["--host-key", "not a SHA256 fingerprint"]),
            (&["a\nb"], &["control characters"]),
            (&[""], &["empty"]),
            (&["alice", "--key", &good], &["belongs to user \"bob\"", &key(1).fingerprint().to_string()]),
            (&["alice", "--key", &bad, "--host-key", "x"], &["bad.pub: line 2:", "bad.pub: line 3:", "--host-key"]),
            (&["alice", "--key", &private], &["private key"]),
            (&["alice", "--key", &empty], &["no public key in it"]),
            (&["alice", "--key", "/does/not/exist"], &["/does/not/exist"]),
            (&["carol", "--update"], &["no user \"carol\""]),
        ] {
            let ran = site.run(&[&["user", "add"], arguments].concat());
            for reason in reasons {
                ran.refused(reason);
            }
            assert_eq!(ran.out, "");
        }
        // The port is closed: nothing can be looked at, so nothing is pinned and nobody added.
        let scan = site.run(&["user", "add", "alice", "--remote", "127.0.0.1", "--port", "1", "--scan-host-key", "--yes"]);
        assert_eq!(scan.outcome, Outcome::Failed, "{}", scan.err);
        assert_eq!(site.run(&["host-key", "scan", "127.0.0.1:1"]).outcome, Outcome::Failed);
        site.run(&["host-key", "scan", "a b"]).refused("not a host name");
        assert_eq!((site.store.users().unwrap(), site.store.keys().unwrap().len()), (vec![name("bob")], 1));
    });
}

#[test]
fn keys_come_from_standard_input_and_go_by_fingerprint_base64_or_file() {
    both(|site| {
        let agent = format!("{}\n{}\n{}\n{}\n", line(1, "a"), line(2, "b"), line(3, "c"), line(4, "d"));
        site.ask(&["user", "add", "alice", "--key", "-"], &line(1, "a"), false).done();
        let added = site.ask(&["key", "add", "alice", "-"], &agent, false);
        added.done().says("was there already").says(&format!("{} d: added", key(4).fingerprint()));
        site.ask(&["key", "add", "bob", "-"], &line(5, ""), false).refused("no user \"bob\"");

        let json = site.run(&["key", "list", "alice", "--json"]).json();
        assert!(json.as_array().unwrap().len() == 4 && json[0]["dead"].is_null() && json[0]["type"] == "ssh-ed25519", "{json}");
        let print = key(1).fingerprint().to_string();
        site.run(&["key", "remove", "alice", &print]).refused("--yes").says(&print);
        site.run(&["key", "remove", "alice", &print, "--yes"]).done().says("1 key removed");
        site.run(&["key", "remove", "alice", &print, "--yes"]).refused("no such key");
        let file = site.file("three.pub", &line(3, ""));
        site.ask(&["key", "remove", "alice", &key(2).base64(), &file], "yes\n", true).done().says("2 keys removed");
        let keys = site.store.keys().unwrap();
        assert!(keys.len() == 1 && keys[0].base64 == key(4).base64(), "{keys:?}");
        assert!(site.store.record(&name("alice")).unwrap().is_some());
    });
}

#[test]
fn dead_entries_of_old_data_are_pointed_at_and_can_be_removed() {
    let redis = Redis::start(&[]);
    let store = redis.store();
    let site = Site { store: &store, folder: tempfile::tempdir().unwrap() };
    let whole = line(1, "alice at home");
    redis.cli(&["HSET", "pysftpproxy:user:alice", "remote", "10.0.0.7"]);
    redis.cli(&["HSET", "pysftpproxy:user:broken", "port", "x\u{1b}[2J"]);
    redis.cli(&["SET", &format!("pysftpproxy:pubkey:{whole}"), "alice"]);
    redis.cli(&["SET", &format!("pysftpproxy:pubkey:{}", key(2).base64()), "gone"]);
    redis.cli(&["SET", "pysftpproxy:pubkey:AAAA", "a\tb"]);
    let list = format!("pysftpproxy:pubkey:{}", key(3).base64());
    redis.cli(&["RPUSH", &list, "alice"]);
    let ran = site.run(&["key", "list"]);
    ran.done().says("DEAD: the whole line is stored").says("DEAD: its user has no record").says("DEAD: it names no user");
    assert!(ran.err.contains("4 dead"), "{}", ran.err);
    let json = site.run(&["key", "list", "--json"]).json();
    assert!(json.as_array().unwrap().iter().all(|key| key["dead"].is_string()), "{json}");
    site.run(&["user", "list"]).done().says("FAULT: port: \"x\\u{1b}[2J\" is not a port").says("alice@10.0.0.7:22");
    site.run(&["user", "show", "gone"]).refused("only 1 dead key");

    let print = key(1).fingerprint().to_string();
    site.run(&["key", "remove", "alice", &print, "--yes"]).done().says("1 key removed");
    site.run(&["key", "remove", "a\tb", "AAAA", "--yes"]).done();
    let old = key(2).fingerprint().to_string();
    let added = site.run(&["user", "add", "gone"]);
    assert!(added.done().err.contains("an old key of this name") && added.err.contains(&old), "{}", added.err);
    redis.cli(&["DEL", "pysftpproxy:user:gone"]);
    site.run(&["user", "remove", "gone", "--yes"]).done().says("(no record)").says(&old);
    assert_eq!(redis.cli(&["KEYS", "*pubkey*"]), list);
}

#[test]
fn a_store_that_cannot_be_reached_fails_with_its_reason() {
    let redis = Redis::start(&[]);
    let store = redis.store();
    drop(redis);
    let site = Site { store: &store, folder: tempfile::tempdir().unwrap() };
    for arguments in [&["user", "list"][..], &["user", "add", "alice"], &["key", "list"], &["user", "remove", "alice", "--yes"]] {
        let ran = site.run(arguments);
        assert!(ran.outcome == Outcome::Failed && ran.err.contains("refused") && ran.err.lines().count() == 1, "{}", ran.err);
    }
}

#[test]
fn a_routes_file_with_a_fault_stops_the_commands_and_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let path: PathBuf = folder.path().join("routes.toml");
    std::fs::write(&path, "[users.alice]\nport = 1\n").unwrap();
    let store = FileStore::new(&path).unwrap();
    std::fs::write(&path, "[users.alice\n").unwrap();
    let site = Site { store: &store, folder: tempfile::tempdir().unwrap() };
    let ran = site.run(&["user", "add", "bob"]);
    assert!(ran.outcome == Outcome::Failed && ran.err.contains("line 1"), "{}", ran.err);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "[users.alice\n");
}
