//! Routes, written by the tests themselves and not by our commands: what the contract promises is the data.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use sftpproxy::config;

use super::Kind;
use super::keys::Key;
use super::process::{LIMIT, Process, free_port};

/// Connections to Redis at most, in a world, beside the one for news: those beyond the first are opened when they are needed.
const POOL: usize = 2;

/// A store with one interface for both kinds.
pub enum Store {
    /// A TOML file, written whole each time.
    File {
        /// Where it is.
        path: PathBuf,
        /// What is in it: user, then keys and fields as TOML.
        users: Mutex<BTreeMap<String, String>>,
    },
    /// A redis-server of the world's own.
    Redis(RedisServer),
}

impl Store {
    /// Starts one of this kind.
    pub fn start(kind: Kind, folder: &Path) -> Self {
        match kind {
            Kind::Redis => Self::Redis(RedisServer::start(&[])),
            Kind::File => {
                let store = Self::File { path: folder.join("routes.toml"), users: Mutex::default() };
                store.write();
                store
            }
        }
    }

    /// Our settings for it, without `SFTPPROXY_`.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::File { path, .. } => vec![("ROUTES_FILE", path.display().to_string())],
            Self::Redis(server) => vec![
                ("REDIS_HOST", "127.0.0.1".to_owned()),
                ("REDIS_PORT", server.port.to_string()),
                ("REDIS_POOL_SIZE", POOL.to_string()),
            ],
        }
    }

    /// Descriptors that the program may open after its start and keep.
    pub fn lazy_descriptors(&self) -> usize {
        if matches!(self, Self::Redis(_)) { POOL + 1 } else { 0 }
    }

    /// Writes a user's record and keys.
    pub fn put(&self, name: &str, keys: &[&Key], fields: &[(&str, String)]) {
        match self {
            Self::Redis(server) => {
                for key in keys {
                    server.set(&format!("pysftpproxy:pubkey:{}", key.base64()), name);
                }
                let mut command = redis::cmd("HSET");
                command.arg(format!("pysftpproxy:user:{name}"));
                for (field, value) in fields {
                    command.arg(field).arg(value);
                }
                server.ask(&command);
            }
            Self::File { users, .. } => {
                let lines: Vec<_> = keys.iter().map(|key| quoted(&key.line())).collect();
                let mut text = format!("keys = [{}]\n", lines.join(", "));
                for (field, value) in fields {
                    text += &format!("{field} = {}\n", if *field == "port" { value.clone() } else { quoted(value) });
                }
                users.lock().unwrap().insert(name.to_owned(), text);
                self.write();
            }
        }
    }

    /// Removes a user's record and the given keys.
    pub fn remove(&self, name: &str, keys: &[&Key]) {
        match self {
            Self::Redis(server) => {
                for key in keys {
                    server.ask(redis::cmd("DEL").arg(format!("pysftpproxy:pubkey:{}", key.base64())));
                }
                server.ask(redis::cmd("DEL").arg(format!("pysftpproxy:user:{name}")));
            }
            Self::File { users, .. } => {
                users.lock().unwrap().remove(name);
                self.write();
            }
        }
    }

    /// The redis-server of a world that has one.
    pub fn redis(&mut self) -> &mut RedisServer {
        match self {
            Self::Redis(server) => server,
            Self::File { .. } => panic!("this world keeps its routes in a file"),
        }
    }

    fn write(&self) {
        let Self::File { path, users } = self else { return };
        let users = users.lock().unwrap();
        let text: String = users.iter().map(|(name, text)| format!("[users.{}]\n{text}\n", quoted(name))).collect();
        let new = path.with_extension("new");
        std::fs::write(&new, text).expect("the routes file");
        std::fs::rename(&new, path).expect("the routes file in its place");
    }
}

/// Settings for a Redis at this port of 127.0.0.1, with limits of a second.
pub fn redis_settings(port: u16) -> config::Redis {
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

fn quoted(text: &str) -> String {
    toml_edit::Value::from(text).to_string()
}

/// A running redis-server that keeps nothing on disk.
pub struct RedisServer {
    /// Its process and its log.
    pub process: Process,
    /// Where it listens on 127.0.0.1.
    pub port: u16,
    options: Vec<String>,
}

impl RedisServer {
    /// Starts one with further options, such as `--requirepass x`.
    pub fn start(options: &[&str]) -> Self {
        let options: Vec<_> = options.iter().map(|option| (*option).to_owned()).collect();
        for _ in 0..10 {
            let port = free_port();
            if let Some(process) = start_redis(port, &options) {
                return Self { process, port, options };
            }
        }
        panic!("redis-server finds no free port in ten attempts");
    }

    /// Stops it; its data are lost.
    pub fn stop(&mut self) {
        super::process::signal(self.process.pid(), nix::sys::signal::Signal::SIGKILL);
        assert!(super::process::until(LIMIT, || self.process.ended().is_some()), "redis-server survives SIGKILL");
    }

    /// Starts it again, empty, at the same port.
    pub fn restart(&mut self) {
        self.process = start_redis(self.port, &self.options).expect("redis-server at the port that it had");
    }

    /// Sets a key of database 1.
    pub fn set(&self, key: &str, value: &str) {
        self.ask(redis::cmd("SET").arg(key).arg(value));
    }

    /// Sends a command to database 1.
    pub fn ask(&self, command: &redis::Cmd) -> redis::Value {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}/1", self.port)).expect("an address");
        let mut connection = client.get_connection().expect("redis-server of this world");
        command.query(&mut connection).expect("a command that Redis takes")
    }
}

/// `None` = the port was taken between its choice and its use.
fn start_redis(port: u16, options: &[String]) -> Option<Process> {
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", "/tmp"]);
    let process = Process::start_stdout(command.arg("--port").arg(port.to_string()).args(options));
    match process.wait_for("Ready to accept connections", 1, LIMIT) {
        Ok(_) => Some(process),
        Err(lines) if lines.iter().any(|line| line.contains("already in use")) => None,
        Err(lines) => panic!("redis-server does not start:\n{}", lines.join("\n")),
    }
}
