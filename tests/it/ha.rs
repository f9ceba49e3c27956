//! Several Redis servers behind one router, with real sentinels and a real cluster: what a failover costs whom.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use redis::cmd;
use sftpproxy::config;
use sftpproxy::secret::Secret;
use sftpproxy::store::RouteStore as _;
use sftpproxy::store::redis::RedisStore;

use crate::stores::{key, name};

use crate::world::process::{LIMIT, until};
use crate::world::several::{Node, SERVICE, Watched};
use crate::world::tree::big_file;
use crate::world::{Kind, Setup, USER, World, keys};

/// Settings of the router's: Redis at this URL, with limits that tests can wait for.
fn world(url: &str) -> World {
    let settings = [("REDIS_URL", url), ("REDIS_CONNECT_TIMEOUT", "1"), ("REDIS_COMMAND_TIMEOUT", "1")];
    World::with(Setup { store: Kind::Redis, settings: &settings, ..Setup::default() })
}

/// Says stop when it is dropped, so that a test which fails ends too.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Transfers one after the other in one session, until it is told to stop; every one has to arrive whole.
fn transfers(world: &World, user: &str, stop: &AtomicBool) -> usize {
    let mut session = world.proxied(user).session();
    let mut count = 0;
    while !stop.load(Ordering::SeqCst) {
        count += 1;
        let name = format!("copy{count}");
        session.say(&format!("get big {name}"));
        session.ask(&format!("!echo done {count}."), &format!("done {count}."));
        let (big, copy) = (world.sshd.files.join("big"), world.client().join(name));
        assert!(std::fs::read(big).unwrap() == std::fs::read(&copy).unwrap(), "transfer {count} did not arrive whole");
        std::fs::remove_file(copy).unwrap();
    }
    assert_eq!(session.end(), 0);
    count
}

/// Does to the master what `signal` does, and waits until a login works again at the other one.
fn fail_over(world: &World, watched: &Watched, number: Signal) {
    let old = watched.named().expect("sentinels that agree");
    watched.servers.iter().find(|server| server.port == old).expect("one of ours").signal(number);
    let started = Instant::now();
    let refused = world.proxied(USER).sftp("pwd\n");
    assert!(refused.code != 0, "a login without a store: {refused:?}");
    // Far more than the limits, which are 1 s each; far less than for ever.
    assert!(started.elapsed() < Duration::from_secs(15), "refused after {:?}", started.elapsed());
    assert!(until(LIMIT, || watched.named().is_some_and(|port| port != old)), "no failover");
    let named = Instant::now();
    assert!(until(LIMIT, || world.proxied(USER).sftp("pwd\n").code == 0), "no login at the new master");
    // It is 2 s at most where nothing else runs: scripts/ha.
    assert!(named.elapsed() < Duration::from_secs(15), "a login works {:?} after the failover", named.elapsed());
    eprintln!("a login works {} ms after all sentinels name the new master", named.elapsed().as_millis());
}

#[test]
fn a_failover_of_sentinels_costs_transfers_nothing_and_logins_are_refused_with_a_reason_until_it_is_over() {
    let mut watched = Watched::start();
    let world = world(&watched.url());
    let mut route = world.route();
    watched.servers[0].put(1, USER, &keys::ed25519(USER), &route);
    route.push(("download_limit", "4096".into()));
    watched.servers[0].put(1, "carol", &keys::ed25519("carol"), &route);
    big_file(&world.sshd.files.join("big"), 2 * 1024 * 1024);
    world.proxied(USER).sftp("pwd\n").success();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let running = scope.spawn(|| transfers(&world, "carol", &stop));
        let stopping = Stop(&stop);
        world.router.wait_for_line("file session=*user=\"carol\"");
        assert!(until(LIMIT, || watched.servers[1].is_in_step()));
        // Killed: connections break, and nobody takes new ones.
        fail_over(&world, &watched, Signal::SIGKILL);
        let port = watched.servers[0].port;
        let end = world.router.wait_for_line("end session=*side=store*reason=");
        assert!(
            end.contains(&format!("redis {SERVICE} of sentinels")) && end.contains(&format!("master 127.0.0.1:{port}: ")),
            "{end}"
        );
        // It comes back as a replica; and then the other one is frozen: its connections stand, it takes new ones, and says nothing.
        watched.servers[0].restart();
        assert!(until(LIMIT, || watched.servers[0].is_in_step()), "the old master is no replica");
        let replicas = || {
            let told: redis::RedisResult<Vec<redis::Value>> =
                watched.sentinels[0].ask(cmd("SENTINEL").arg("CKQUORUM").arg(SERVICE)).map(|said: redis::Value| vec![said]);
            told.is_ok()
        };
        assert!(until(LIMIT, replicas));
        fail_over(&world, &watched, Signal::SIGSTOP);
        drop(stopping);
        assert!(running.join().unwrap() > 1);
        // Awake again, it believes that it is the master until the sentinels tell it otherwise: nobody asks it.
        watched.servers[1].signal(Signal::SIGCONT);
        for _ in 0..5 {
            world.proxied(USER).sftp("pwd\n").success();
        }
        assert!(until(LIMIT, || watched.servers[1].is_in_step()), "the old master is no replica");
        world.proxied(USER).sftp("pwd\n").success();
    });
}

/// A store at this URL, with limits of a second.
fn store(url: &str) -> RedisStore {
    RedisStore::new(&config::Redis {
        url: Some(Secret::new(url.as_bytes().to_vec())),
        host: String::new(),
        port: 1,
        db: 1,
        password: None,
        prefix: "pysftpproxy:".into(),
        connect_timeout: Duration::from_secs(1),
        command_timeout: Duration::from_secs(1),
        pool_size: 4,
        grace: Duration::ZERO,
    })
    .unwrap()
}

/// How often this server was asked for an owner.
fn questions(node: &Node) -> u64 {
    let told: String = node.ask(cmd("INFO").arg("commandstats")).unwrap();
    let calls = told.split("cmdstat_getrange:calls=").nth(1).unwrap_or("0");
    calls.split(|character: char| !character.is_ascii_digit()).next().unwrap().parse().unwrap()
}

#[test]
fn a_replica_answers_logins_where_it_may_and_never_when_it_is_not_in_step() {
    let watched = Watched::start();
    let [master, replica] = &watched.servers;
    let set = |user: &str| {
        let mut set = cmd("SET");
        master.ask_in::<()>(1, set.arg(format!("pysftpproxy:pubkey:{}", key(1).base64())).arg(user)).unwrap();
    };
    let (reading, strict) = (store(&format!("{}?read=replica", watched.url())), store(&watched.url()));
    set("alice");
    assert!(until(LIMIT, || reading.owner(&key(1)) == Ok(Some(name("alice")))));
    let before = questions(replica);
    for _ in 0..5 {
        assert_eq!(reading.owner(&key(1)), Ok(Some(name("alice"))));
        assert_eq!(strict.owner(&key(1)), Ok(Some(name("alice"))));
    }
    assert_eq!(questions(replica) - before, 5);
    // It has lost its master, holds what was, and would still answer.
    replica.ask::<()>(cmd("REPLICAOF").arg("127.0.0.1").arg(1)).unwrap();
    set("bob");
    for _ in 0..3 {
        assert_eq!(reading.owner(&key(1)), Ok(Some(name("bob"))));
    }
    // Frozen it costs a moment, once.
    replica.signal(Signal::SIGSTOP);
    set("carol");
    let fresh = store(&format!("{}?read=replica", watched.url()));
    for reading in [&reading, &fresh] {
        let started = Instant::now();
        assert_eq!(reading.owner(&key(1)), Ok(Some(name("carol"))));
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    }
    replica.signal(Signal::SIGCONT);
}
