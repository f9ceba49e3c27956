//! Both stores: the same table of cases, and what is special about each. A real redis-server, real files.

use std::fs::Permissions;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sftpproxy::config;
use sftpproxy::identity::{PublicKey, UserName};
use sftpproxy::route::Record;
use sftpproxy::secret::Secret;
use sftpproxy::store::file::FileStore;
use sftpproxy::store::redis::RedisStore;
use sftpproxy::store::{Aim, RouteStore};
use sftpproxy::wire::put_string;

use crate::world::process::{LIMIT, free_port, until};

/// A redis-server of our own: free port or socket, own folder, nothing saved, stopped when dropped.
pub struct Redis {
    child: Child,
    pub folder: tempfile::TempDir,
    pub port: u16,
    arguments: Vec<String>,
}

impl Redis {
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_at(free_port(), arguments)
    }

    fn start_at(port: u16, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let arguments: Vec<_> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let child = Self::spawn(port, folder.path(), &arguments);
        let mut redis = Self { child, folder, port, arguments };
        redis.await_ready();
        redis
    }

    fn spawn(port: u16, folder: &Path, arguments: &[String]) -> Child {
        let port = port.to_string();
        let always = ["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"];
        Command::new("redis-server")
            .args(always)
            .arg(folder)
            .args(["--unixsocket", folder.join("socket").to_str().unwrap()])
            .args(arguments)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed")
    }

    fn await_ready(&mut self) {
        let socket = self.socket();
        wait_until("redis-server answers", || {
            assert!(self.child.try_wait().unwrap().is_none(), "redis-server ended");
            UnixStream::connect(&socket).is_ok()
        });
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// Same address, no data.
    fn restart(&mut self) {
        self.stop();
        self.child = Self::spawn(self.port, self.folder.path(), &self.arguments);
        self.await_ready();
    }

    fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let _ = std::fs::remove_file(self.socket());
    }

    fn signal(&self, signal: &str) {
        let done = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(done.success());
    }

    /// redis-cli in database 1.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let out = Command::new("redis-cli").args(["-s", self.socket().to_str().unwrap(), "-n", "1"]).args(arguments).output();
        String::from_utf8(out.unwrap().stdout).unwrap().trim().to_owned()
    }

    pub fn config(&self) -> config::Redis {
        redis_config(self.port)
    }

    pub fn store(&self) -> RedisStore {
        RedisStore::new(&self.config()).unwrap()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn redis_config(port: u16) -> config::Redis {
    config::Redis {
        url: None,
        host: "127.0.0.1".into(),
        port,
        db: 1,
        password: None,
        prefix: "pysftpproxy:".into(),
        connect_timeout: Duration::from_secs(1),
        command_timeout: Duration::from_secs(1),
        pool_size: 4,
        grace: Duration::ZERO,
    }
}

#[track_caller]
fn wait_until(what: &str, done: impl FnMut() -> bool) {
    assert!(until(LIMIT, done), "waited in vain until {what}");
}

pub fn key(seed: u8) -> PublicKey {
    let mut blob = Vec::new();
    put_string(&mut blob, b"ssh-ed25519");
    put_string(&mut blob, &[seed; 32]);
    PublicKey::from_blob(&blob).unwrap()
}

pub fn line(seed: u8, comment: &str) -> String {
    format!("ssh-ed25519 {} {comment}", key(seed).base64())
}

pub fn name(text: &str) -> UserName {
    UserName::new(text).unwrap()
}

pub fn record(fields: &[(&str, &str)]) -> Record {
    fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn with_comment(seed: u8) -> (PublicKey, String) {
    (key(seed), format!("key {seed}"))
}

/// Runs `case` over both stores, each empty.
fn both(case: impl Fn(&dyn RouteStore)) {
    let redis = Redis::start(&[]);
    case(&redis.store());
    let folder = tempfile::tempdir().unwrap();
    case(&FileStore::new(folder.path().join("routes.toml")).unwrap());
}

#[test]
fn both_stores_keep_users_records_and_keys_alike() {
    both(|store| {
        let (alice, bob) = (name("alice"), name("Bob b:c*"));
        assert_eq!(store.users().unwrap(), []);
        assert_eq!(store.record(&alice).unwrap(), None);
        let fields = record(&[("remote", "10.0.0.7"), ("port", "32772"), ("user", "root"), ("home", "/srv \"x\"")]);
        store.put(&alice, Aim::Create, &fields, &[with_comment(1), with_comment(2)]).unwrap();
        store.put(&bob, Aim::Create, &record(&[("hostkey", "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU")]), &[]).unwrap();
        store.check().unwrap();
        assert_eq!(store.record(&alice).unwrap().unwrap(), fields);
        assert_eq!(store.users().unwrap(), [bob.clone(), alice.clone()]);
        assert_eq!(store.owner(&key(1)).unwrap(), Some(alice.clone()));
        assert_eq!(store.owner(&key(3)).unwrap(), None);

        // A change touches only what it names.
        store.put(&alice, Aim::Update, &record(&[("port", "23"), ("home", "")]), &[with_comment(2), with_comment(3)]).unwrap();
        let changed = record(&[("remote", "10.0.0.7"), ("port", "23"), ("user", "root")]);
        assert_eq!(store.record(&alice).unwrap().unwrap(), changed);
        assert_eq!(store.keys().unwrap().iter().filter(|key| key.user == "alice").count(), 3);

        assert!(store.remove_key("alice", &key(1).base64()).unwrap());
        assert!(!store.remove_key("alice", &key(1).base64()).unwrap());
        assert!(!store.remove_key("bob", &key(2).base64()).unwrap());
        assert_eq!(store.owner(&key(1)).unwrap(), None);
        assert!(store.remove_user(&alice).unwrap());
        assert!(!store.remove_user(&alice).unwrap());
        assert_eq!((store.owner(&key(2)).unwrap(), store.record(&alice).unwrap()), (None, None));
        assert_eq!((store.keys().unwrap(), store.users().unwrap()), (vec![], vec![bob]));
    });
}

#[test]
fn both_stores_keep_a_user_with_all_defaults_and_one_with_all_fields_unset() {
    both(|store| {
        store.put(&name("a"), Aim::Create, &Record::new(), &[]).unwrap();
        store.put(&name("b"), Aim::Create, &record(&[("port", "23")]), &[]).unwrap();
        store.put(&name("b"), Aim::Update, &record(&[("port", "")]), &[]).unwrap();
        assert_eq!(store.users().unwrap(), [name("a"), name("b")]);
        assert!(store.record(&name("b")).unwrap().unwrap().values().all(String::is_empty));
    });
}

#[test]
fn both_stores_write_nothing_when_one_key_is_another_users_or_the_aim_does_not_fit() {
    both(|store| {
        store.put(&name("alice"), Aim::Create, &record(&[("port", "1")]), &[with_comment(1)]).unwrap();
        let keys = [with_comment(2), with_comment(1), with_comment(3)];
        let error = store.put(&name("bob"), Aim::Create, &record(&[("port", "2")]), &keys).unwrap_err().to_string();
        assert!(error.contains("belongs to user \"alice\"") && error.contains(&key(1).fingerprint().to_string()), "{error}");
        let error =
            store.put(&name("alice"), Aim::Create, &record(&[("port", "3")]), &[with_comment(4)]).unwrap_err().to_string();
        assert!(error.contains("already"), "{error}");
        let error =
            store.put(&name("carol"), Aim::Update, &record(&[("port", "3")]), &[with_comment(4)]).unwrap_err().to_string();
        assert!(error.contains("no user"), "{error}");
        assert_eq!(store.users().unwrap(), [name("alice")]);
        assert_eq!(
            store.record(&name("alice")).unwrap().unwrap(),
            record(&[("port", "1")]).into_iter().chain(store_default(store)).collect()
        );
        assert_eq!(store.keys().unwrap().len(), 1);
    });
}

/// The redis store gives a record without `remote` an empty one, so that the hash never vanishes.
fn store_default(store: &dyn RouteStore) -> Record {
    if store.describe().starts_with("redis") { record(&[("remote", "")]) } else { Record::new() }
}

#[test]
fn both_stores_lose_nothing_to_writers_at_the_same_time() {
    let redis = Redis::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("routes.toml");
    let make: [&(dyn Fn() -> Box<dyn RouteStore> + Sync); 2] =
        [&|| Box::new(redis.store()), &|| Box::new(FileStore::new(&path).unwrap())];
    for make in make {
        std::thread::scope(|scope| {
            for writer in 0..3_u8 {
                scope.spawn(move || {
                    let store = make();
                    for number in 0..15_u8 {
                        let user = name(&format!("u{writer}-{number}"));
                        store.put(&user, Aim::Create, &Record::new(), &[with_comment(writer * 15 + number)]).unwrap();
                        // All change the same user too, each another field of it.
                        let (shared, field) = (name("shared"), ["user", "home", "key"][usize::from(writer)]);
                        let aim = if store.record(&shared).unwrap().is_some() { Aim::Update } else { Aim::Create };
                        let change = record(&[(field, &format!("x{number}"))]);
                        if store.put(&shared, aim, &change, &[]).is_err() {
                            store.put(&shared, Aim::Update, &change, &[]).unwrap();
                        }
                    }
                });
            }
        });
        let store = make();
        assert_eq!((store.users().unwrap().len(), store.keys().unwrap().len()), (46, 45));
        let shared = store.record(&name("shared")).unwrap().unwrap();
        assert!(["user", "home", "key"].iter().all(|field| shared[*field] == "x14"), "{shared:?}");
    }
}

#[test]
fn of_writers_who_want_the_same_key_at_the_same_time_exactly_one_gets_it_in_both_stores() {
    both(|store| {
        let barrier = std::sync::Barrier::new(4);
        let won = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let (barrier, won) = (&barrier, &won);
                scope.spawn(move || {
                    for round in 0..25 {
                        barrier.wait();
                        let user = name(&format!("u{writer}-{round}"));
                        let put = store.put(&user, Aim::Create, &Record::new(), &[with_comment(round)]);
                        won.fetch_add(usize::from(put.is_ok()), std::sync::atomic::Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!((won.into_inner(), store.users().unwrap().len(), store.keys().unwrap().len()), (25, 25, 25));
    });
}

#[test]
fn redis_data_of_the_contract_are_read_as_they_are() {
    let redis = Redis::start(&[]);
    redis.cli(&["SET", &format!("pysftpproxy:pubkey:{}", key(1).base64()), "alice"]);
    redis.cli(&["HMSET", "pysftpproxy:user:alice", "remote", "10.0.0.7", "port", "32772", "shell", "x"]);
    redis.cli(&["SET", "pysftpproxy:pubkey:AAAA whole line", "old"]);
    let store = redis.store();
    assert_eq!(store.owner(&key(1)).unwrap(), Some(name("alice")));
    let all = record(&[("remote", "10.0.0.7"), ("port", "32772"), ("shell", "x")]);
    assert_eq!(store.record(&name("alice")).unwrap().unwrap(), all);
    let keys = store.keys().unwrap();
    assert_eq!((keys.len(), keys[1].user.as_str(), keys[1].base64.as_str()), (2, "old", "AAAA whole line"));
    // Fields of others stay, our shape is the contract's, and a time to live is not taken off by us.
    redis.cli(&["EXPIRE", &format!("pysftpproxy:pubkey:{}", key(1).base64()), "1000"]);
    store.put(&name("alice"), Aim::Update, &record(&[("port", "23")]), &[with_comment(1), with_comment(2)]).unwrap();
    assert_eq!(redis.cli(&["HMGET", "pysftpproxy:user:alice", "port", "shell"]), "23\nx");
    assert_eq!(redis.cli(&["GET", &format!("pysftpproxy:pubkey:{}", key(2).base64())]), "alice");
    assert_ne!(redis.cli(&["TTL", &format!("pysftpproxy:pubkey:{}", key(1).base64())]), "-1");
    redis.cli(&["PEXPIRE", &format!("pysftpproxy:pubkey:{}", key(1).base64()), "1"]);
    wait_until("the key has expired", || store.owner(&key(1)).unwrap().is_none());
    assert!(store.remove_key("old", "AAAA whole line").unwrap());
}

#[test]
fn redis_entries_of_the_wrong_type_or_content_are_errors_and_never_no_such_user() {
    let redis = Redis::start(&[]);
    let entry = |seed| format!("pysftpproxy:pubkey:{}", key(seed).base64());
    redis.cli(&["RPUSH", &entry(1), "alice"]);
    redis.cli(&["SET", "pysftpproxy:user:alice", "text"]);
    redis.cli(&["SETRANGE", &entry(2), "65535", "x"]);
    redis.cli(&["HSET", "pysftpproxy:user:bob", "home", &"x".repeat(17 * 1024)]);
    redis.cli(&["EVAL", "redis.call('HSET', KEYS[1], 'home', '\\255')", "1", "pysftpproxy:user:carol"]);
    let store = redis.store();
    for (error, part) in [
        (store.owner(&key(1)).unwrap_err(), "WRONGTYPE"),
        (store.record(&name("alice")).unwrap_err(), "WRONGTYPE"),
        (store.owner(&key(2)).unwrap_err(), "does not hold a user's name"),
        (store.record(&name("bob")).unwrap_err(), "home: longer than"),
        (store.record(&name("carol")).unwrap_err(), "home: not UTF-8"),
        (store.put(&name("alice"), Aim::Create, &Record::new(), &[with_comment(9)]).unwrap_err(), "WRONGTYPE"),
    ] {
        assert!(error.what.contains(part) && error.what.contains(&format!("127.0.0.1:{}", redis.port)), "{error}");
        assert!(error.what.len() < 600 && !error.what.contains('\n'), "{error}");
    }
    assert_eq!(store.owner(&key(9)).unwrap(), None, "nothing half written");
}

#[test]
fn a_redis_prefix_with_glob_characters_means_itself() {
    let redis = Redis::start(&[]);
    let store = RedisStore::new(&config::Redis { prefix: "a*[b]?\\:".into(), ..redis.config() }).unwrap();
    redis.cli(&["HSET", "aXbY:user:eve", "port", "1"]);
    store.put(&name("alice"), Aim::Create, &Record::new(), &[with_comment(1)]).unwrap();
    assert_eq!((store.users().unwrap(), store.keys().unwrap().len()), (vec![name("alice")], 1));
}

#[test]
fn a_redis_that_is_down_is_told_at_once_to_all_who_ask_and_is_found_again_when_it_is_back() {
    let mut redis = Redis::start(&[]);
    redis.stop();
    let store = redis.store();
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                let error = store.owner(&key(1)).unwrap_err();
                assert!(error.what.contains("refused") && error.what.contains("SFTPPROXY_REDIS_HOST"), "{error}");
                assert!(error.what.contains(&format!("127.0.0.1:{}", redis.port)), "{error}");
            });
        }
    });
    assert!(start.elapsed() < Duration::from_millis(1400), "{:?}", start.elapsed());
    redis.restart();
    assert_eq!(store.owner(&key(1)), Ok(None));
}

#[test]
fn pooled_connections_that_died_with_the_server_are_replaced_without_an_error() {
    let mut redis = Redis::start(&[]);
    let store = redis.store();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| store.owner(&key(1)).unwrap());
        }
    });
    redis.restart();
    for _ in 0..4 {
        assert_eq!(store.owner(&key(1)), Ok(None));
    }
}

#[test]
fn a_redis_that_hangs_costs_no_more_than_the_limits() {
    let redis = Redis::start(&[]);
    let (pooled, fresh) = (redis.store(), redis.store());
    pooled.check().unwrap();
    redis.signal("-STOP");
    for (store, most) in [(&pooled, 1500), (&fresh, 2000)] {
        let start = Instant::now();
        let error = store.owner(&key(1)).unwrap_err();
        assert!(error.what.contains("no answer in time") && error.what.contains("_TIMEOUT"), "{error}");
        assert!(start.elapsed() < Duration::from_millis(most), "{:?}", start.elapsed());
    }
    redis.signal("-CONT");
    assert_eq!((pooled.owner(&key(1)), fresh.owner(&key(1))), (Ok(None), Ok(None)));
}

#[test]
fn a_failure_that_nobody_waited_for_is_not_told_to_who_asks_later() {
    // Takes connections and never answers; when it goes, those that wait in its queue are reset.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let store = RedisStore::new(&redis_config(port)).unwrap();
    store.owner(&key(1)).unwrap_err();
    drop(silent);
    let _redis = Redis::start_at(port, &[]);
    for _ in 0..8 {
        assert_eq!(store.owner(&key(1)), Ok(None));
    }
}

#[test]
fn passwords_acl_users_and_sockets_work_and_a_wrong_password_is_told_without_it() {
    let redis = Redis::start(&[
        "--requirepass",
        "right horse",
        "--user",
        "router",
        "on",
        ">s3cret",
        "~pysftpproxy:*",
        "+@read",
        "+select",
    ]);
    let ask = |config: config::Redis| RedisStore::new(&config).unwrap().owner(&key(1)).map_err(|error| error.what);
    let password = |text: &str| Some(Secret::new(text.as_bytes().to_vec()));
    assert_eq!(ask(config::Redis { password: password("right horse"), ..redis.config() }), Ok(None));
    let local = format!("redis+unix://{}?pass=right%20horse", redis.socket().display());
    for url in [
        format!("redis://router:s3cret@127.0.0.1:{}/1", redis.port),
        format!("redis://:right%20horse@127.0.0.1:{}", redis.port),
        local.clone(),
        format!("unix://{}?db=1&user=router&pass=s3cret", redis.socket().display()),
    ] {
        let store = RedisStore::new(&config::Redis { url: password(&url), ..redis.config() }).unwrap();
        assert_eq!(store.owner(&key(1)), Ok(None), "{url}");
        assert!(store.describe().contains("database 1") && !store.describe().contains("s3cret"), "{}", store.describe());
    }
    for (given, part) in [("wrong horse", "WRONGPASS"), ("", "NOAUTH")] {
        let password = password(given).filter(|_| !given.is_empty());
        let error = ask(config::Redis { password, ..redis.config() }).unwrap_err();
        assert!(error.contains(part) && error.contains("SFTPPROXY_REDIS_PASSWORD") && !error.contains("horse"), "{error}");
    }
    let router = password(&format!("redis://router:s3cret@127.0.0.1:{}/1", redis.port));
    let router = RedisStore::new(&config::Redis { url: router, ..redis.config() }).unwrap();
    let error = router.put(&name("alice"), Aim::Create, &Record::new(), &[]).unwrap_err();
    assert!(error.what.contains("NOPERM") && error.what.contains("+@write"), "{error}");

    let open = Redis::start(&[]);
    let error = ask(config::Redis { password: password("x"), ..open.config() }).unwrap_err();
    assert!(error.contains("unset SFTPPROXY_REDIS_PASSWORD"), "{error}");
}

#[test]
fn redis_over_tls_is_trusted_only_through_a_known_ca() {
    let url = "SFTPPROXY_TEST_TLS_URL";
    if let Ok(url) = std::env::var(url) {
        let url = Some(Secret::new(url.into_bytes()));
        let store = RedisStore::new(&config::Redis { url, ..redis_config(1) }).unwrap();
        println!("answer {:?}", store.owner(&key(1)));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let files = make_ca(folder.path());
    let tls_port = free_port().to_string();
    let [ca, cert, private] = files.each_ref().map(|path| path.to_str().unwrap());
    let _redis = Redis::start(&[
        "--tls-port",
        &tls_port,
        "--tls-cert-file",
        cert,
        "--tls-key-file",
        private,
        "--tls-ca-cert-file",
        ca,
        "--tls-auth-clients",
        "no",
    ]);
    wait_until("the TLS port is open", || TcpStream::connect(("127.0.0.1", tls_port.parse().unwrap())).is_ok());
    // SSL_CERT_FILE is read from the environment, which a test must not change under the others: so this test runs itself again.
    let again = |ca: &str| {
        let out = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "stores::redis_over_tls_is_trusted_only_through_a_known_ca", "--nocapture"])
            .env(url, format!("rediss://127.0.0.1:{tls_port}/1"))
            .env("SSL_CERT_FILE", ca)
            .output();
        String::from_utf8(out.unwrap().stdout).unwrap()
    };
    assert!(again(ca).contains("answer Ok(None)"), "{}", again(ca));
    let other = tempfile::tempdir().unwrap();
    let refused = again(make_ca(other.path())[0].to_str().unwrap());
    assert!(refused.contains("SSL_CERT_FILE") && refused.contains("certificate"), "{refused}");
}

/// A CA, and a certificate for 127.0.0.1 by it: the files of the CA, the certificate and its private key.
pub fn make_ca(folder: &Path) -> [PathBuf; 3] {
    let run = |arguments: &str| {
        let out = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output().expect("openssl is installed");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    };
    std::fs::write(folder.join("extensions"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    let curve = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    run(&format!("req -x509 {curve} -keyout ca.key -out ca.pem -days 2 -subj /CN=ca"));
    run(&format!("req {curve} -keyout key.pem -out request.pem -subj /CN=redis"));
    run("x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -out cert.pem -days 2 -extfile extensions");
    ["ca.pem", "cert.pem", "key.pem"].map(|file| folder.join(file))
}

#[test]
fn a_url_that_cannot_be_meant_is_refused_at_the_start_without_showing_it() {
    for url in ["rediss://:s3cret@h/#insecure", "redis://:s3cret@h/x", "redis+unix://u:s3cret@h/path", "redis://:s3cret@"] {
        let url = Some(Secret::new(url.as_bytes().to_vec()));
        let error = RedisStore::new(&config::Redis { url, ..redis_config(1) }).unwrap_err();
        assert!(error.what.contains("SFTPPROXY_REDIS_URL") && !error.what.contains("s3cret"), "{error}");
    }
}

#[test]
fn in_a_routes_file_a_policy_may_be_written_with_toml_s_own_values() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("routes.toml");
    let fields = "read_only = true\nupload_only = false\nmax_file_size = 1000\nrules = [\"/in=create,list\", \"/out=read\"]\n\
                  allow = [\"*.csv\", \"x\"]\ndeny = [\".*\"]\nextensions = [\"fsync\"]\nhash = \"blake3\"\n";
    std::fs::write(&path, format!("[users.alice]\n{fields}")).unwrap();
    let record = FileStore::new(&path).unwrap().record(&name("alice")).unwrap().unwrap();
    for (field, text) in [
        ("read_only", "yes"),
        ("upload_only", "no"),
        ("max_file_size", "1000"),
        ("rules", "/in=create,list; /out=read"),
        ("allow", "*.csv, x"),
        ("deny", ".*"),
        ("extensions", "fsync"),
        ("hash", "blake3"),
    ] {
        assert_eq!(record[field], text);
    }
    for bad in ["read_only = 1", "rules = [1]", "home = true", "max_file_size = -1"] {
        std::fs::write(&path, format!("[users.alice]\n{bad}\n")).unwrap();
        assert!(FileStore::new(&path).is_err_and(|error| error.to_string().contains("line 2")), "{bad}");
    }
}

#[test]
fn the_routes_file_is_read_again_when_it_changes_and_a_bad_one_leaves_the_last_good_one_in_force() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("routes.toml");
    let write = |text: &str| std::fs::write(&path, text).unwrap();
    write(&format!("[users.alice]\nport = 1\nkeys = [\"{}\"]\n", line(1, "x")));
    let store = FileStore::new(&path).unwrap();
    assert_eq!(store.owner(&key(1)), Ok(Some(name("alice"))));
    let port = || store.record(&name("alice")).unwrap().unwrap()["port"].clone();
    // Same size, at once: only the clock's tick could tell them apart.
    for number in 2..10 {
        write(&format!("[users.alice]\nport = {number}\nkeys = [\"{}\"]\n", line(1, "x")));
        assert_eq!(port(), number.to_string());
    }
    let one = line(1, "x");
    for (text, line, part) in [
        ("[users.alice]\nport = 70000\n".to_owned(), 2, "port"),
        ("[users.alice]\n\nremote = \"a b\"\n".into(), 3, "remote"),
        ("[users.alice]\nport = 1\n[users.alice]\n".into(), 3, "duplicate"),
        ("# x\nusers = 3\n".into(), 2, "users"),
        ("[users.alice]\nkeys = [\n\"ssh-ed25519 AAAA\"]\n".into(), 3, "keys"),
        (format!("[users.a]\nkeys = [\"{one}\"]\n[users.b]\nkeys = \"{one}\"\n"), 4, "one key names one user"),
        ("[users.alice\n".into(), 1, ""),
        ("[users.\"a\\nb\"]\n".into(), 1, "control"),
    ] {
        write(&text);
        let error = store.check().unwrap_err();
        assert!(
            error.what.contains(&format!("{}: line {line}: ", path.display())) && error.what.contains(part),
            "{text}: {error}"
        );
        assert!(!error.what.contains('\n'), "{error}");
        assert_eq!((port().as_str(), store.owner(&key(1))), ("9", Ok(Some(name("alice")))), "{text}");
        assert!(FileStore::new(&path).is_err() && store.put(&name("x"), Aim::Create, &Record::new(), &[]).is_err(), "{text}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
    std::fs::remove_file(&path).unwrap();
    assert!(store.check().is_err());
    assert_eq!(port(), "9");
    write("[users.alice]\nport = 10\n");
    store.check().unwrap();
    assert_eq!((port().as_str(), store.owner(&key(1))), ("10", Ok(None)));
}

#[test]
fn a_routes_file_that_does_not_exist_yet_is_never_taken_for_no_such_user() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("routes.toml");
    let store = FileStore::new(&path).unwrap();
    assert!(store.check().is_err());
    let error = store.owner(&key(1)).unwrap_err();
    assert!(error.what.contains(path.to_str().unwrap()) && error.what.contains("user add"), "{error}");
    FileStore::new(&path).unwrap().put(&name("alice"), Aim::Create, &Record::new(), &[with_comment(1)]).unwrap();
    assert_eq!(store.owner(&key(1)), Ok(Some(name("alice"))));
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
}

#[test]
fn a_routes_file_that_everybody_can_write_is_refused_and_modes_stay_through_a_change() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("routes.toml");
    std::fs::write(&path, "[users.alice]\n").unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    assert!(FileStore::new(&path).unwrap_err().what.contains("chmod o-w"));
    std::fs::set_permissions(&path, Permissions::from_mode(0o604)).unwrap();
    let link = folder.path().join("link.toml");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    FileStore::new(&link).unwrap().put(&name("bob"), Aim::Create, &Record::new(), &[]).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o604);
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(FileStore::new(&path).unwrap().users().unwrap().len(), 2);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left lying about");
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(FileStore::new(&path).unwrap_err().what.contains("not a regular file"));
}

#[test]
fn our_changes_of_the_routes_file_keep_comments_order_and_spelling() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("routes.toml");
    let before = format!(
        "# Routes of our site.\n\n# Alice, accounting\n[users.alice]\nremote = '10.0.0.7' # the old host\nport = \"0x16\"\n\n# Zoë\n\
         [users.\"zoë\"] # since May\nport   =   2222   # hers\nunknown = 1\nkeys = [\n    \"{}\", # laptop\n    \"{}\", # desk\n]\n\n# end\n",
        line(1, "l"),
        line(2, "d")
    );
    std::fs::write(&path, before.replace("0x16", "22")).unwrap();
    let store = FileStore::new(&path).unwrap();
    let zoe = name("zoë");
    let same = record(&[("port", "22"), ("remote", "10.0.0.7")]);
    store.put(&name("alice"), Aim::Update, &same, &[]).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), before.replace("0x16", "22"));

    let pins = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU";
    store
        .put(&zoe, Aim::Update, &record(&[("port", "2223"), ("hostkey", &format!("{pins},{pins}"))]), &[with_comment(3)])
        .unwrap();
    store.put(&name("bob"), Aim::Create, &record(&[("remote", "h"), ("port", "1")]), &[with_comment(4)]).unwrap();
    assert!(store.remove_key("zoë", &key(2).base64()).unwrap());
    assert!(store.remove_user(&name("alice")).unwrap());
    let text = std::fs::read_to_string(&path).unwrap();
    for part in
        ["# Routes of our site.\n", "# Zoë\n", "# since May", "port   =   2223   # hers\n", "unknown = 1", "# laptop", "# end"]
    {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(text.contains(" l\", # laptop\n    \"") && !text.contains("# desk"), "{text}");
    assert!(!text.contains("accounting") && text.starts_with("# Routes") && text.find("zoë") < text.find("bob"), "{text}");
    assert_eq!(store.record(&zoe).unwrap().unwrap()["hostkey"], format!("{pins},{pins}"));
    assert_eq!(store.keys().unwrap().len(), 3, "{text}");
    // And a person can read it: one key a line.
    assert!(text.contains(&format!("\n    \"{}\",\n", line(4, "key 4"))), "{text}");
}

#[test]
fn users_in_inline_tables_and_a_single_key_work_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("routes.toml");
    std::fs::write(&path, format!("[users]\nalice = {{ port = 1, keys = \"{}\" }}\n", line(1, ""))).unwrap();
    let store = FileStore::new(&path).unwrap();
    store.put(&name("alice"), Aim::Update, &record(&[("home", "/x")]), &[with_comment(2)]).unwrap();
    store.put(&name("bob"), Aim::Create, &Record::new(), &[with_comment(3)]).unwrap();
    assert_eq!(store.keys().unwrap().len(), 3);
    assert!(store.remove_user(&name("alice")).unwrap());
    assert_eq!(store.users().unwrap(), [name("bob")]);
}

#[test]
fn looking_up_among_ten_thousand_users_of_a_file_costs_no_reading() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("routes.toml");
    let mut text = String::new();
    for number in 0..10_000_u32 {
        let mut blob = Vec::new();
        put_string(&mut blob, b"ssh-ed25519");
        put_string(&mut blob, &[&[7; 28][..], &number.to_be_bytes()].concat());
        let key = PublicKey::from_blob(&blob).unwrap().base64();
        text += &format!("[users.u{number}]\nremote = \"10.0.0.7\"\nport = 22\nkeys = [\"ssh-ed25519 {key}\"]\n\n");
    }
    std::fs::write(&path, text).unwrap();
    let past = std::time::SystemTime::now() - Duration::from_secs(60);
    std::fs::File::options().append(true).open(&path).unwrap().set_modified(past).unwrap();
    let store = FileStore::new(&path).unwrap();
    // The change time cannot be set: wait until the file is old enough for its stamp to be believed.
    wait_until("a thousand look-ups are quick", || {
        let start = Instant::now();
        assert!(
            (0..1000)
                .all(|number| store.record(&name(&format!("u{number}"))).unwrap().is_some() || start.elapsed().as_secs() > 5)
        );
        start.elapsed() < Duration::from_millis(500)
    });
}
