//! Several Redis servers: a master with replicas under real sentinels, and a real cluster. All on loopback, nothing kept.

use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use redis::{Cmd, FromRedisValue, RedisResult, cmd};

use super::keys::Key;
use super::process::{LIMIT, Process, free_port, signal, until};

/// What the sentinels call the master.
pub const SERVICE: &str = "mymaster";

/// A redis-server or a sentinel with a folder of its own.
pub struct Node {
    /// Its process and its log.
    pub process: Process,
    /// Where it listens on 127.0.0.1.
    pub port: u16,
    options: Vec<String>,
    folder: tempfile::TempDir,
}

impl Node {
    /// Starts a server with further options.
    pub fn start(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let options: Vec<_> = options.iter().map(|option| (*option).to_owned()).collect();
        for _ in 0..10 {
            let port = free_port();
            if let Some(process) = server(port, folder.path(), &options) {
                return Self { process, port, options, folder };
            }
        }
        panic!("redis-server finds no free port in ten attempts");
    }

    fn sentinel(master: u16) -> Self {
        let (folder, port) = (tempfile::tempdir().expect("a temporary folder"), free_port());
        let file = folder.path().join("sentinel.conf");
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor {SERVICE} 127.0.0.1 {master} 2\n\
             sentinel down-after-milliseconds {SERVICE} 500\nsentinel failover-timeout {SERVICE} 1000\n",
            folder.path().display()
        );
        std::fs::write(&file, text).expect("a configuration for a sentinel");
        let process = Process::start_stdout(Command::new("redis-server").arg(file).arg("--sentinel"));
        Self { process, port, options: Vec::new(), folder }
    }

    /// Ends it as a power cut does.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        assert!(until(LIMIT, || self.process.ended().is_some()), "redis-server survives SIGKILL");
    }

    /// Starts it again at its port, with what it has in its folder.
    pub fn restart(&mut self) {
        self.process = server(self.port, self.folder.path(), &self.options).expect("redis-server at the port that it had");
    }

    /// Sends a signal.
    pub fn signal(&self, number: Signal) {
        signal(self.process.pid(), number);
    }

    /// Sends a command; an error also when it does not answer soon.
    pub fn ask<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        self.ask_in(0, command)
    }

    /// The same in a database.
    pub fn ask_in<T: FromRedisValue>(&self, db: u8, command: &Cmd) -> RedisResult<T> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}/{db}", self.port))?;
        let mut connection = client.get_connection_with_timeout(Duration::from_secs(1))?;
        connection.set_read_timeout(Some(Duration::from_secs(5)))?;
        command.query(&mut connection)
    }

    /// A user's record and key, in a database of this server.
    pub fn put(&self, db: u8, name: &str, key: &Key, fields: &[(&str, String)]) {
        let set = cmd("SET").arg(format!("pysftpproxy:pubkey:{}", key.base64())).arg(name).clone();
        self.ask_in::<()>(db, &set).expect("SET");
        let mut record = cmd("HSET");
        record.arg(format!("pysftpproxy:user:{name}"));
        for (field, value) in fields {
            record.arg(field).arg(value);
        }
        self.ask_in::<()>(db, &record).expect("HSET");
    }

    fn role(&self) -> Vec<String> {
        let role: RedisResult<Vec<redis::Value>> = self.ask(&cmd("ROLE"));
        role.unwrap_or_default().into_iter().filter_map(|part| String::from_redis_value(part).ok()).collect()
    }

    /// Whether it is a replica that has all its master has.
    pub fn is_in_step(&self) -> bool {
        let role = self.role();
        role.first().is_some_and(|kind| kind == "slave") && role.contains(&"connected".to_owned())
    }
}

/// `None` = the port was taken between its choice and its use.
fn server(port: u16, folder: &std::path::Path, options: &[String]) -> Option<Process> {
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"]);
    command.args(["--port", &port.to_string(), "--dir"]).arg(folder).args(options);
    let process = Process::start_stdout(&mut command);
    match process.wait_for("Ready to accept connections", 1, LIMIT) {
        Ok(_) => Some(process),
        Err(lines) if lines.iter().any(|line| line.contains("already in use") || line.contains("Failed listening")) => None,
        Err(lines) => panic!("redis-server does not start:\n{}", lines.join("\n")),
    }
}

/// Two servers, one of them the master, and three sentinels who may name another one.
pub struct Watched {
    /// The servers; the first is the master at the start.
    pub servers: [Node; 2],
    /// The sentinels.
    pub sentinels: Vec<Node>,
}

impl Watched {
    /// Starts all of them; ready when the sentinels know each other and the replica.
    pub fn start() -> Self {
        let master = Node::start(&[]);
        let replica = Node::start(&["--replicaof", "127.0.0.1", &master.port.to_string()]);
        let sentinels: Vec<_> = (0..3).map(|_| Node::sentinel(master.port)).collect();
        let watched = Self { servers: [master, replica], sentinels };
        let ready = || {
            let knows = |what: &str| {
                let told: RedisResult<Vec<redis::Value>> = watched.sentinels[0].ask(cmd("SENTINEL").arg(what).arg(SERVICE));
                told.map_or(0, |told| told.len())
            };
            knows("SENTINELS") == 2 && knows("SLAVES") == 1 && watched.servers[1].is_in_step()
        };
        assert!(until(LIMIT, ready), "the sentinels do not find each other");
        watched
    }

    /// Our setting.
    pub fn url(&self) -> String {
        let at: Vec<_> = self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port)).collect();
        format!("redis+sentinel://{}/{SERVICE}/1", at.join(","))
    }

    /// The port that a sentinel names.
    pub fn named(&self) -> Option<u16> {
        let ask = |sentinel: &Node| {
            let told: RedisResult<(String, u16)> = sentinel.ask(cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(SERVICE));
            told.ok().map(|(_, port)| port)
        };
        // All of them: the last one to hear of it counts.
        let named: Vec<_> = self.sentinels.iter().map(ask).collect();
        named[0].filter(|first| named.iter().all(|port| *port == Some(*first)))
    }
}

/// A cluster of three masters without replicas.
pub struct Cluster {
    /// The nodes.
    pub nodes: Vec<Node>,
}

impl Cluster {
    /// Starts it; ready when every node knows who has which slot.
    pub fn start() -> Self {
        let cluster = Self { nodes: (0..3).map(|_| Self::node()).collect() };
        for (node, (from, to)) in cluster.nodes.iter().zip([(0, 5460), (5461, 10922), (10923, 16383)]) {
            node.ask::<()>(cmd("CLUSTER").arg("ADDSLOTSRANGE").arg(from).arg(to)).expect("slots");
            node.ask::<()>(cmd("CLUSTER").arg("MEET").arg("127.0.0.1").arg(cluster.nodes[0].port)).expect("a node");
        }
        cluster.come_together();
        cluster
    }

    fn node() -> Node {
        Node::start(&["--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-require-full-coverage", "no"])
    }

    /// Another node, which is a replica of the first one; ready when it is in step and the first one tells of it.
    pub fn replica(&self) -> Node {
        let (master, replica) = (&self.nodes[0], Self::node());
        let id: String = master.ask(cmd("CLUSTER").arg("MYID")).expect("an id");
        replica.ask::<()>(cmd("CLUSTER").arg("MEET").arg("127.0.0.1").arg(master.port)).expect("a node");
        let takes = || replica.ask::<()>(cmd("CLUSTER").arg("REPLICATE").arg(&id)).is_ok();
        assert!(until(LIMIT, takes), "the replica does not hear of its master");
        let told = || master.ask::<redis::Value>(cmd("CLUSTER").arg("SLOTS")).map(|told| format!("{told:?}"));
        let known = || told().is_ok_and(|told| told.contains(&format!("int({})", replica.port)));
        assert!(until(LIMIT, || replica.is_in_step() && known()), "the replica is not in step: {:?}", told());
        replica
    }

    /// Waits until every node knows who has which slot, and answers.
    pub fn come_together(&self) {
        let knows = |node: &Node| {
            let told: RedisResult<String> = node.ask(cmd("CLUSTER").arg("INFO"));
            told.is_ok_and(|told| told.contains("cluster_state:ok") && told.contains("cluster_slots_ok:16384"))
        };
        assert!(until(LIMIT, || self.nodes.iter().all(knows)), "the cluster does not come together");
    }

    /// Our setting, which names one node only.
    pub fn url(&self) -> String {
        format!("redis+cluster://127.0.0.1:{}", self.nodes[0].port)
    }

    /// The slot of an entry, as a node says it.
    pub fn slot(&self, entry: &str) -> u16 {
        self.nodes[0].ask(cmd("CLUSTER").arg("KEYSLOT").arg(entry)).expect("a slot")
    }

    /// The node that has an entry.
    pub fn of(&self, entry: &str) -> &Node {
        &self.nodes[usize::from(self.slot(entry)) / 5461]
    }

    /// A user's record and key, each where it belongs.
    pub fn put(&self, name: &str, key: &Key, fields: &[(&str, String)]) {
        let entry = format!("pysftpproxy:pubkey:{}", key.base64());
        self.of(&entry).ask::<()>(cmd("SET").arg(&entry).arg(name)).expect("SET");
        let entry = format!("pysftpproxy:user:{name}");
        let mut record = cmd("HSET");
        record.arg(&entry);
        for (field, value) in fields {
            record.arg(field).arg(value);
        }
        self.of(&entry).ask::<()>(&record).expect("HSET");
    }
}
