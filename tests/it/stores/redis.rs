//! What is special about Redis: its data as they are, and how it is reached, or is not. A real redis-server.

use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sftpproxy::config;
use sftpproxy::route::Record;
use sftpproxy::secret::Secret;
use sftpproxy::store::redis::RedisStore;
use sftpproxy::store::{Aim, RouteStore};

use super::{key, name, record, wait_until, with_comment};
use crate::world::process::free_port;
use crate::world::store::redis_settings;

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
        redis_settings(self.port)
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
    let store = RedisStore::new(&redis_settings(port)).unwrap();
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
        let store = RedisStore::new(&config::Redis { url, ..redis_settings(1) }).unwrap();
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
            .args(["--exact", "stores::redis::redis_over_tls_is_trusted_only_through_a_known_ca", "--nocapture"])
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
        let error = RedisStore::new(&config::Redis { url, ..redis_settings(1) }).unwrap_err();
        assert!(error.what.contains("SFTPPROXY_REDIS_URL") && !error.what.contains("s3cret"), "{error}");
    }
}
