//! Keys for upstreams: made, encrypted in the store, rotated without a refused login, and never told. Over both stores, with a real sshd.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use sftpproxy::sealed::{Master, Sealed};

use crate::world::process::Output;
use crate::world::{Kind, Setup, USER, World, keys};

/// The secret key of these tests.
fn secret() -> String {
    STANDARD.encode([7; 32])
}

/// A file of this mode with a secret key.
fn secret_file(folder: &Path, text: &str, mode: u32) -> PathBuf {
    let path = folder.join("secret-key");
    std::fs::write(&path, format!("{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path
}

/// A world, and everything that its commands have printed.
struct Site {
    world: World,
    told: String,
}

impl Site {
    fn run(&mut self, arguments: &[&str]) -> Output {
        let output = self.world.command(arguments);
        self.told += &format!("{}{}", output.stdout, output.stderr);
        output
    }

    #[track_caller]
    fn json(&mut self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.run(arguments).success()).unwrap()
    }

    #[track_caller]
    fn ends(&mut self, arguments: &[&str], code: i32, text: &str) {
        let output = self.run(arguments);
        assert!(output.code == code && format!("{}{}", output.stdout, output.stderr).contains(text), "{text}: {output:?}");
    }

    /// Lets these keys in at the upstream, and no others.
    fn authorise(&self, lines: &[&str]) {
        let path = self.world.folder.path().join("upstream/authorized_keys");
        std::fs::write(path, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    }

    /// Logs in as this user; the name of the key that the upstream has accepted.
    #[track_caller]
    fn logs_in(&self, user: &str) -> String {
        let before = self.world.router.lines().len();
        self.world.proxied(user).sftp("pwd\n").success();
        let lines = self.world.router.lines();
        let open = lines[before..].iter().find(|line| line.contains("open session=")).expect("an open session");
        open.split(" key=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("the key's name").to_owned()
    }

    /// A field of a user's record as it is stored.
    fn stored(&mut self, user: &str, field: &str) -> String {
        match &self.world.store {
            crate::world::store::Store::Redis(server) => {
                let value = server.ask(redis::cmd("HGET").arg(format!("pysftpproxy:user:{user}")).arg(field));
                redis::from_redis_value::<String>(value).unwrap()
            }
            crate::world::store::Store::File { path, .. } => {
                let text: toml_edit::DocumentMut = std::fs::read_to_string(path).unwrap().parse().unwrap();
                text["users"][user][field].as_str().unwrap().to_owned()
            }
        }
    }
}

/// What a key made by a command is called in the log.
fn named(made: &Value) -> String {
    format!("key encrypted {} {}", made["type"].as_str().unwrap(), made["fingerprint"].as_str().unwrap())
}

fn line(made: &Value) -> String {
    made["authorized_keys"].as_str().unwrap().to_owned()
}

#[test]
fn a_key_is_made_and_rotated_without_a_refused_login_and_told_by_nothing() {
    for kind in [Kind::Redis, Kind::File] {
        let folder = tempfile::tempdir().unwrap();
        let file = secret_file(folder.path(), &secret(), 0o600).display().to_string();
        let world = World::with(Setup { store: kind, settings: &[("SECRET_KEY_FILE", &file)], ..Setup::default() });
        world.add_user("bob", &keys::ed25519("bob"));
        let mut site = Site { world, told: String::new() };
        let common = keys::ed25519("router-user");
        let common_name = format!("key {}", common.private.display());
        assert_eq!(site.logs_in(USER), common_name);
        site.ends(&["upstream-key", "rotate", USER], 2, "has no key of its own");
        site.ends(&["upstream-key", "new", "nobody"], 2, "there is no user \"nobody\"");

        // A key of its own; the common one goes on until the upstream takes it.
        let first = site.json(&["upstream-key", "new", USER, "--json"]);
        site.ends(&["upstream-key", "new", USER], 2, "has a key already (encrypted ssh-ed25519 SHA256:");
        assert_eq!((site.logs_in(USER), first["old"].as_str().unwrap()), (common_name.clone(), common_name.as_str()));
        site.ends(&["upstream-key", "rotate", USER, "--check"], 1, "1 of 1 do not take the new key, 1 of them only the old one");
        let check = site.run(&["upstream-key", "rotate", "--check", "--json"]);
        let one: Value = serde_json::from_str(&check.stdout).unwrap();
        assert_eq!((check.code, &one[0]["only_old"], &one[0]["user"]), (1, &true.into(), &USER.into()), "{one}");
        site.ends(&["upstream-key", "rotate", USER, "--finish"], 1, "nothing was dropped");
        site.authorise(&[&common.line(), &line(&first)]);
        assert_eq!(site.logs_in(USER), named(&first));
        site.ends(&["upstream-key", "rotate", USER, "--check"], 0, "accepted  accepted");
        site.ends(&["upstream-key", "rotate", USER, "--finish"], 0, "alone is used from now on; dropped: common");
        site.ends(&["upstream-key", "rotate", USER, "--finish"], 2, "is in no rotation");

        // The next one, of another type, in the human form.
        site.ends(&["upstream-key", "rotate", USER, "--type", "rsa"], 0, "user alice: new key ssh-rsa SHA256:");
        site.ends(&["upstream-key", "rotate", USER], 2, "is in a rotation already (old: encrypted ssh-ed25519 SHA256:");
        let shown = site.json(&["upstream-key", "show", USER, "--json"]);
        let (old, new) = (&shown["old"][0], &shown["keys"][0]);
        assert_eq!((&old["fingerprint"], &new["type"]), (&first["fingerprint"], &"ssh-rsa".into()), "{shown}");
        let rsa = shown["authorized_keys"][0].as_str().unwrap().to_owned();
        assert!(site.run(&["upstream-key", "show", USER]).success().contains(&format!("must have:\n{rsa}\n")), "{rsa}");
        assert_eq!(site.logs_in(USER), named(&first));
        site.authorise(&[&common.line(), &line(&first), &rsa]);
        assert_eq!(site.logs_in(USER), format!("key encrypted ssh-rsa {}", new["fingerprint"].as_str().unwrap()));
        site.ends(&["upstream-key", "rotate", USER, "--finish", "--json"], 0, "\"dropped\": \"encrypted ssh-ed25519 SHA256:");

        // One for the upstream, for those without.
        let at = format!("127.0.0.1:{}", site.world.sshd.port);
        assert_eq!(site.logs_in("bob"), common_name);
        let shared = site.json(&["upstream-key", "new", "--host", &at, "--json"]);
        assert_eq!((&shared["upstream"], &shared["user"]), (&at.as_str().into(), &Value::Null));
        site.authorise(&[&line(&shared), &rsa]);
        assert_eq!(site.logs_in("bob"), named(&shared));
        site.ends(&["upstream-key", "rotate", "--host", &at, "--finish"], 0, "dropped: common");
        let table = site.run(&["upstream-key", "list"]).success();
        assert!(
            table.contains(&format!("(all without a key)  {at}")) && table.contains("  upstream") && table.contains("  record"),
            "{table}"
        );
        let list = site.json(&["upstream-key", "list", "--json"]);
        let all: Vec<_> = list.as_array().unwrap().iter().map(|one| one["chosen"].as_str().unwrap()).collect();
        assert_eq!(all, ["upstream", "record", "upstream"], "{list}");

        // In another record it is worth nothing.
        let sealed = site.stored(USER, "key");
        site.run(&["user", "add", "bob", "--update", "--upstream-key", &sealed]).success();
        assert_ne!(site.world.proxied("bob").sftp("pwd\n").code, 0);
        site.world
            .router
            .wait_for_line("end session=*stage=\"log in\"*it does not open: it was made for another place than user bob");

        // Whatever was said: nothing of it is in it.
        for command in [&["user", "show", USER, "--json"][..], &["user", "show", USER], &["user", "list", "--json"]] {
            assert!(site.run(command).success().contains("encrypted ssh-rsa SHA256:"));
        }
        let master = Master::parse(secret().as_bytes()).unwrap();
        let private = Sealed::parse(&sealed).unwrap().open("user alice", &master).unwrap();
        let private = std::str::from_utf8(&private).unwrap();
        assert!(private.contains("PRIVATE KEY"), "it is a private key");
        let process = format!("/proc/{}", site.world.router.pid());
        let read = |name: &str| std::fs::read_to_string(format!("{process}/{name}")).unwrap();
        let everything = [site.told.clone(), site.world.router.lines().join("\n"), read("environ"), read("cmdline")].concat();
        let content = sealed.split(' ').nth(2).unwrap();
        let in_store = site.stored(USER, "key");
        for (text, hidden) in [private.lines().nth(1).unwrap(), "PRIVATE KEY", &secret()].map(|text| (text, &everything)) {
            assert!(!hidden.contains(text) && !in_store.contains(text), "a secret is told");
        }
        assert!(!everything.contains(content), "the encrypted key is shown");
    }
}

#[test]
fn without_a_secret_key_keys_are_files_and_with_another_one_nothing_opens() {
    let mut site = Site { world: World::start(), told: String::new() };
    site.ends(&["upstream-key", "new", USER], 2, "set SFTPPROXY_SECRET_KEY_FILE, or give --file");
    let made = site.json(&["upstream-key", "new", USER, "--file", "--json"]);
    let path = site.world.folder.path().join("state/keys").join(site.stored(USER, "key"));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    site.authorise(&[&line(&made)]);
    assert_eq!(site.logs_in(USER), format!("key {}", path.display()));
    site.ends(&["upstream-key", "rotate", USER, "--finish"], 0, "dropped: common");

    // A systemd credential, which its group may read.
    let folder = tempfile::tempdir().unwrap();
    let file = secret_file(folder.path(), &secret(), 0o440);
    site.world.restart(&[("CREDENTIALS_DIRECTORY", folder.path().to_str().unwrap())]);
    let made_of = path.file_name().unwrap().to_str().unwrap().to_owned();
    let sealed = site.json(&["upstream-key", "rotate", USER, "--json"]);
    assert_eq!(sealed["old"], made_of);
    site.authorise(&[&line(&sealed)]);
    assert_eq!(site.logs_in(USER), named(&sealed));
    site.ends(&["upstream-key", "rotate", USER, "--finish"], 0, "the file stays");

    // As a setting the same file is too open, another key opens nothing, and what is no key says so.
    let setting = [("SFTPPROXY_SECRET_KEY_FILE", file.to_str().unwrap())];
    site.world.restart(&setting);
    assert_ne!(site.world.proxied(USER).sftp("pwd\n").code, 0);
    site.world.router.wait_for_line("end session=*stage=\"log in\"*lets others at this secret");
    site.ends(&["check-config"], 2, "lets others at this secret");
    secret_file(folder.path(), &STANDARD.encode([8; 32]), 0o600);
    assert_ne!(site.world.proxied(USER).sftp("pwd\n").code, 0);
    site.world.router.wait_for_line("end session=2*stage=\"log in\"*or with another secret key");
    secret_file(folder.path(), "s3cret", 0o600);
    site.ends(&["check-config"], 2, "not base64 of 32 bytes");
    site.world.restart(&[("SFTPPROXY_SECRET_KEY_FILE", ""), ("CREDENTIALS_DIRECTORY", "")]);
    assert_ne!(site.world.proxied(USER).sftp("pwd\n").code, 0);
    site.world
        .router
        .wait_for_line("end session=*stage=\"log in\"*there is no secret key to open it: set SFTPPROXY_SECRET_KEY_FILE");
    site.ends(&["upstream-key", "show", USER], 0, "ssh-ed25519 ");
    assert!(!site.told.contains("s3cret"));
}
