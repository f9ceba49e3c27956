//! Several Redis servers behind one router, with real sentinels and a real cluster: what a failover costs whom.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use redis::cmd;
use sftpproxy::admission::Ban;
use sftpproxy::config;
use sftpproxy::secret::Secret;
use sftpproxy::store::redis::RedisStore;
use sftpproxy::store::{Aim, RouteStore as _, Shelf};

use crate::stores::{key, name, record};

use crate::world::process::{LIMIT, run, until};
use crate::world::several::{Cluster, Node, SERVICE, Watched};
use crate::world::store::redis_settings;
use crate::world::tree::big_file;
use crate::world::{Kind, Setup, USER, World, keys};

/// Settings of the router's: Redis at this URL, with limits that tests can wait for.
fn world(url: &str) -> World {
    let limits = [("REDIS_CONNECT_TIMEOUT", "1"), ("REDIS_COMMAND_TIMEOUT", "1")];
    // Of a cluster there is a pool for each node, and the world has counted one.
    let settings = [[("REDIS_URL", url), ("REDIS_POOL_SIZE", if url.contains("cluster") { "1" } else { "2" })], limits].concat();
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
        // The sentinels would do that, after some seconds.
        watched.servers[0].ask::<()>(cmd("REPLICAOF").arg("127.0.0.1").arg(watched.servers[1].port)).unwrap();
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
    });
}

/// A store at this URL, with limits of a second.
fn store(url: &str) -> RedisStore {
    RedisStore::new(&settings(url)).unwrap()
}

fn settings(url: &str) -> config::Redis {
    config::Redis { url: Some(Secret::new(url.as_bytes().to_vec())), ..redis_settings(1) }
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

#[test]
fn a_sentinel_that_stands_still_costs_its_share_and_a_server_that_is_no_master_is_not_asked_whoever_names_it() {
    let watched = Watched::start();
    let master = &watched.servers[0];
    master.ask_in::<()>(1, cmd("SET").arg(entry_of(1)).arg("alice")).unwrap();
    watched.sentinels[0].signal(Signal::SIGSTOP);
    // A third is for the first attempt, and a third of that for each sentinel.
    let patient = config::Redis { connect_timeout: Duration::from_secs(15), ..settings(&watched.url()) };
    let started = Instant::now();
    assert_eq!(RedisStore::new(&patient).unwrap().owner(&key(1)), Ok(Some(name("alice"))));
    assert!(started.elapsed() < Duration::from_millis(4500), "{:?}", started.elapsed());
    // The sentinels would change that, after 20 s.
    master.ask::<()>(cmd("REPLICAOF").arg("127.0.0.1").arg(1)).unwrap();
    let error = RedisStore::new(&patient).unwrap().owner(&key(1)).unwrap_err().what;
    assert!(error.contains("a sentinel names it, but it is no master"), "{error}");
}

fn with_comment(seed: u8) -> (sftpproxy::identity::PublicKey, String) {
    (key(seed), String::new())
}

/// The entry of a key.
fn entry_of(seed: u8) -> String {
    format!("pysftpproxy:pubkey:{}", key(seed).base64())
}

#[test]
fn a_cluster_keeps_what_one_server_keeps_wherever_it_lies_and_while_it_moves() {
    let cluster = Cluster::start();
    let store = store(&cluster.url());
    let seeds: Vec<u8> = (1..=12).collect();
    let at: std::collections::BTreeSet<_> = seeds.iter().map(|seed| cluster.of(&entry_of(*seed)).port).collect();
    assert_eq!(at.len(), 3, "the keys of this test are to lie at all nodes");
    store.check().unwrap();
    let (alice, bob) = (name("alice"), name("{b}ob"));
    let keys: Vec<_> = seeds.iter().map(|seed| with_comment(*seed)).collect();
    let fields = record(&[("remote", "10.0.0.7"), ("port", "23")]);
    store.put(&alice, Aim::Create, &fields, &keys).unwrap();
    store.put(&bob, Aim::Create, &fields, &[]).unwrap();
    assert_eq!((store.users().unwrap(), store.keys().unwrap().len()), (vec![alice.clone(), bob.clone()], 12));
    assert!(seeds.iter().all(|seed| store.owner(&key(*seed)) == Ok(Some(alice.clone()))));
    assert_eq!(store.record(&alice).unwrap().unwrap(), record(&[("remote", "10.0.0.7"), ("port", "23")]));
    // Refused before anything is written.
    let error = store.put(&bob, Aim::Update, &record(&[("port", "9")]), &[with_comment(20), with_comment(5)]).unwrap_err().what;
    assert!(error.contains("belongs to user \"alice\""), "{error}");
    let error = store.put(&alice, Aim::Create, &fields, &keys).unwrap_err().what;
    assert!(error.contains("already"), "{error}");
    assert_eq!((store.owner(&key(20)), store.record(&bob).unwrap().unwrap()["port"].as_str()), (Ok(None), "23"));
    let found = store.look(&[(&alice, &key(1)), (&bob, &key(2)), (&alice, &key(20))]).unwrap();
    let owners: Vec<_> = found.iter().map(|found| found.owner.clone().unwrap()).collect();
    assert_eq!(owners, [Some(alice.clone()), Some(alice.clone()), None]);
    assert!(found.iter().all(|found| found.record.as_ref().unwrap().is_some()));

    // What else a store keeps.
    let ban = Ban { network: "203.0.113.0/24".parse().unwrap(), left: Some(Duration::from_secs(60)), why: "x".into() };
    store.add_ban(&ban).unwrap();
    assert_eq!(store.bans().unwrap().len(), 1);
    assert!(store.remove_ban(&ban.network).unwrap());
    store.set_maintenance("closed").unwrap();
    assert_eq!(store.maintenance().unwrap().as_deref(), Some("closed"));
    store.set_maintenance("").unwrap();
    for (shelf, address) in [(Shelf::Hosts, "h:1"), (Shelf::Hosts, "h:2"), (Shelf::Quarantine, "h:3")] {
        assert!(store.put_entry(shelf, address, &record(&[("hostkey", "x"), ("key", "")])).unwrap());
    }
    assert_eq!((store.entries(Shelf::Hosts).unwrap().len(), store.entries(Shelf::Quarantine).unwrap().len()), (2, 1));
    for node in ["a", "b", "c"] {
        store.publish(node, &format!("of {node}"), Duration::from_secs(60)).unwrap();
    }
    store.publish("b", "", Duration::from_secs(60)).unwrap();
    assert_eq!(store.nodes().unwrap(), ["of a", "of c"]);

    a_slot_moves(&cluster, &store);
    assert!(store.remove_key("alice", &key(1).base64()).unwrap());
    assert!(store.remove_user(&alice).unwrap());
    assert!(!store.remove_user(&alice).unwrap());
    assert_eq!((store.keys().unwrap(), store.users().unwrap()), (vec![], vec![bob]));
}

/// Moves the slot of a key to another node, and asks for it at every stage.
fn a_slot_moves(cluster: &Cluster, store: &RedisStore) {
    let entry = entry_of(3);
    let (slot, from) = (cluster.slot(&entry), cluster.of(&entry));
    let to = cluster.nodes.iter().find(|node| node.port != from.port).unwrap();
    let id = |node: &Node| node.ask::<String>(cmd("CLUSTER").arg("MYID")).unwrap();
    let set = |node: &Node, state: &str, other: &Node| {
        node.ask::<()>(cmd("CLUSTER").arg("SETSLOT").arg(slot).arg(state).arg(id(other))).unwrap();
    };
    let theirs = || assert_eq!(store.owner(&key(3)), Ok(Some(name("alice"))));
    set(to, "IMPORTING", from);
    set(from, "MIGRATING", to);
    theirs();
    from.ask::<()>(cmd("MIGRATE").arg("127.0.0.1").arg(to.port).arg(&entry).arg(0).arg(5000)).unwrap();
    // ASK: reads go on, and so does what is one command; a transaction waits in vain and says so.
    theirs();
    let found = store.look(&[(&name("alice"), &key(3))]).unwrap();
    assert_eq!(found[0].owner, Ok(Some(name("alice"))));
    assert_eq!(store.keys().unwrap().iter().filter(|stored| stored.base64 == key(3).base64()).count(), 1);
    let error = store.remove_key("alice", &key(3).base64()).unwrap_err().what;
    assert!(error.contains("on its way to another node") && error.contains("try again"), "{error}");
    theirs();
    set(to, "NODE", to);
    set(from, "NODE", to);
    // MOVED, and the map learns it.
    theirs();
    let learnt = || {
        let before = sent_on(from);
        theirs();
        sent_on(from) == before
    };
    assert!(until(LIMIT, learnt), "the node that had the slot is asked again and again");
    // A transaction that cannot be begun there says less: EXECABORT. The map is read once a second at most.
    until(Duration::from_millis(1100), || false);
    let entry = "pysftpproxy:host:h:1";
    let (slot, from) = (cluster.slot(entry), cluster.of(entry));
    let to = cluster.nodes.iter().find(|node| node.port != from.port).unwrap();
    for (node, state, other) in [(to, "IMPORTING", from), (from, "MIGRATING", to)] {
        node.ask::<()>(cmd("CLUSTER").arg("SETSLOT").arg(slot).arg(state).arg(id(other))).unwrap();
    }
    from.ask::<()>(cmd("MIGRATE").arg("127.0.0.1").arg(to.port).arg(entry).arg(0).arg(5000)).unwrap();
    for node in [to, from] {
        node.ask::<()>(cmd("CLUSTER").arg("SETSLOT").arg(slot).arg("NODE").arg(id(to))).unwrap();
    }
    store.put_entry(Shelf::Hosts, "h:1", &record(&[("hostkey", "y"), ("key", "")])).unwrap();
    assert_eq!(store.entry(Shelf::Hosts, "h:1").unwrap(), record(&[("hostkey", "y")]));
}

/// How often this node has said that another one has the slot.
fn sent_on(node: &Node) -> u64 {
    let told: String = node.ask(cmd("INFO").arg("errorstats")).unwrap();
    let count = told.split("errorstat_MOVED:count=").nth(1).unwrap_or("0");
    count.split(|character: char| !character.is_ascii_digit()).next().unwrap().parse().unwrap()
}

#[test]
fn a_replica_in_a_cluster_answers_what_it_has_and_its_master_the_rest_for_a_user_with_the_rights_of_the_readme() {
    let cluster = Cluster::start();
    let (master, replica) = (&cluster.nodes[0], cluster.replica());
    let rights = "on >pw ~pysftpproxy:* resetchannels -@all +@read +select +role +cluster|slots +asking +readonly";
    for node in cluster.nodes.iter().chain([&replica]) {
        node.ask::<()>(cmd("ACL").arg("SETUSER").arg("router").arg(rights.split(' ').collect::<Vec<_>>())).unwrap();
    }
    let url = cluster.url().replace("://", "://router:pw@");
    let (reading, strict) = (store(&format!("{url}?read=replica")), store(&url));
    let mut here = (1..100).filter(|seed| cluster.of(&entry_of(*seed)).port == master.port);
    let (there, nowhere) = (here.next().unwrap(), here.next().unwrap());
    master.ask::<()>(cmd("SET").arg(entry_of(there)).arg("alice")).unwrap();
    let asked = || (questions(master), questions(&replica));
    assert!(until(LIMIT, || replica.ask::<u64>(&cmd("DBSIZE")) == Ok(1)), "the replica does not get it");
    let before = asked();
    for _ in 0..5 {
        assert_eq!(reading.owner(&key(there)), Ok(Some(name("alice"))));
    }
    assert_eq!(asked(), (before.0, before.1 + 5));
    // Of a slot that is on its way it would not know that there is more.
    assert_eq!(reading.owner(&key(nowhere)), Ok(None));
    assert_eq!(asked(), (before.0 + 1, before.1 + 6));
    assert_eq!(strict.owner(&key(there)), Ok(Some(name("alice"))));
    assert_eq!(asked(), (before.0 + 2, before.1 + 6));
    replica.signal(Signal::SIGSTOP);
    assert_eq!(reading.owner(&key(there)), Ok(Some(name("alice"))), "the master answers when the replica does not");
    replica.signal(Signal::SIGCONT);
    // They change places.
    assert!(until(LIMIT, || replica.is_in_step()));
    let changed = || {
        // On a busy machine it may not be in time, and is given up.
        let _ = replica.ask::<()>(cmd("CLUSTER").arg("FAILOVER"));
        until(Duration::from_secs(10), || master.is_in_step())
    };
    assert!(until(LIMIT, changed), "no failover");
    for store in [&strict, &reading] {
        assert_eq!(store.owner(&key(there)), Ok(Some(name("alice"))));
    }
}

#[test]
fn when_the_master_that_the_url_names_is_killed_its_replica_in_the_cluster_lets_its_users_in() {
    let mut cluster = Cluster::start();
    let (replica, url) = (cluster.replica(), cluster.url());
    let mut world = world(&url);
    let port = cluster.nodes[0].port;
    let there = |user: &String| cluster.of(&format!("pysftpproxy:pubkey:{}", keys::ed25519(user).base64())).port == port;
    let user = (0..40).map(|number| format!("user{number}")).find(there).unwrap();
    cluster.put(&user, &keys::ed25519(&user), &world.route());
    let size = |node: &Node| node.ask::<u64>(&cmd("DBSIZE"));
    assert!(until(LIMIT, || size(&replica).is_ok_and(|all| Ok(all) == size(&cluster.nodes[0]))), "the replica has not all");
    let mut running = world.proxied(&user).session();
    running.ask("pwd", "Remote working directory");
    world.proxied(&user).sftp("pwd\n").success();
    cluster.nodes[0].kill();
    assert!(until(LIMIT, || world.proxied(&user).sftp("pwd\n").code == 0), "no login at the replica that has become the master");
    running.ask("ls -la", " ..");
    assert_eq!(running.end(), 0);
    // The threads of the pool of the one that is gone stay for half a minute.
    world.router.signal(Signal::SIGTERM);
    assert_eq!(world.router.wait(), 0);
}

#[test]
fn a_change_in_a_cluster_that_breaks_off_lets_in_nobody_who_should_not_come_in_and_is_done_by_the_same_command_again() {
    let cluster = Cluster::start();
    let store = store(&cluster.url());
    let alice = name("alice");
    let at_record = cluster.of("pysftpproxy:user:alice").port;
    let near = (1..100).find(|seed| cluster.of(&entry_of(*seed)).port == at_record).unwrap();
    let far = (1..100).find(|seed| cluster.of(&entry_of(*seed)).port != at_record).unwrap();
    let (keys, fields) = ([with_comment(near), with_comment(far)], record(&[("port", "23")]));
    let far_node = cluster.of(&entry_of(far));
    // The far node forbids writing for a while: the crash of a command between two steps.
    let writable =
        |yes: bool| far_node.ask::<()>(cmd("CONFIG").arg("SET").arg("min-replicas-to-write").arg(u8::from(!yes))).unwrap();
    writable(false);
    let error = store.put(&alice, Aim::Create, &fields, &keys).unwrap_err().what;
    assert!(error.contains("half done") && error.contains("the same command again with --update"), "{error}");
    assert!(store.record(&alice).unwrap().is_some(), "the record comes first");
    assert_eq!((store.owner(&key(near)), store.owner(&key(far))), (Ok(Some(alice.clone())), Ok(None)));
    writable(true);
    let error = store.put(&alice, Aim::Create, &fields, &keys).unwrap_err().what;
    assert!(error.contains("already"), "{error}");
    store.put(&alice, Aim::Update, &fields, &keys).unwrap();
    assert_eq!(store.owner(&key(far)), Ok(Some(alice.clone())));

    writable(false);
    let error = store.remove_user(&alice).unwrap_err().what;
    assert!(error.contains("half done"), "{error}");
    assert_eq!(store.record(&alice), Ok(None), "nobody gets in without a record");
    assert_eq!(store.owner(&key(far)), Ok(Some(alice.clone())));
    writable(true);
    assert!(store.remove_user(&alice).unwrap());
    assert_eq!(store.keys().unwrap(), []);

    // Of writers who want the same key exactly one gets it, and the others leave nothing.
    let won = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for writer in 0..3 {
            let (won, store) = (&won, &store);
            scope.spawn(move || {
                for round in 0..8 {
                    let user = name(&format!("u{writer}-{round}"));
                    let put = store.put(
                        &user,
                        Aim::Create,
                        &record(&[("port", "1")]),
                        &[with_comment(round), with_comment(100 + round)],
                    );
                    won.fetch_add(usize::from(put.is_ok()), Ordering::SeqCst);
                }
            });
        }
    });
    let won = won.into_inner();
    assert_eq!((store.users().unwrap().len(), store.keys().unwrap().len()), (won, won * 2));
}

#[test]
fn a_node_of_a_cluster_that_is_gone_or_frozen_keeps_out_its_own_users_only() {
    let mut cluster = Cluster::start();
    let world = world(&cluster.url());
    let at = |cluster: &Cluster, user: &str| {
        let entry = format!("pysftpproxy:pubkey:{}", keys::ed25519(user).base64());
        [cluster.of(&entry).port, cluster.of(&format!("pysftpproxy:user:{user}")).port]
    };
    // What every login asks lies where it lies: the node to lose must be another one.
    let needed = ["pysftpproxy:maintenance", &format!("pysftpproxy:host:127.0.0.1:{}", world.sshd.port)]
        .map(|entry| cluster.of(entry).port);
    let lost = cluster.nodes.iter().position(|node| !needed.contains(&node.port)).unwrap();
    let port = cluster.nodes[lost].port;
    let names: Vec<_> = (0..40).map(|number| format!("user{number}")).collect();
    let here = names.iter().find(|user| at(&cluster, user).iter().filter(|at| **at == port).count() == 1).unwrap();
    let there = names.iter().find(|user| !at(&cluster, user).contains(&port)).unwrap();
    for user in [here, there] {
        cluster.put(user, &keys::ed25519(user), &world.route());
        world.proxied(user).sftp("pwd\n").success();
    }
    let mut running = world.proxied(here).session();
    running.ask("pwd", "Remote working directory");
    for number in [Signal::SIGSTOP, Signal::SIGKILL] {
        cluster.nodes[lost].signal(number);
        let refused = world.proxied(here).sftp("pwd\n");
        assert!(refused.code != 0, "{refused:?}");
        world.proxied(there).sftp("pwd\n").success();
        running.ask("ls -la", " ..");
    }
    world.router.wait_for_line(&format!("end session=*side=store*node 127.0.0.1:{port}: "));
    assert_eq!(running.end(), 0);
    cluster.nodes[lost].restart();
    cluster.come_together();
    // It has come back empty. Our own commands make the user anew, see everybody, and take a user away.
    let admin = |arguments: &[&str]| {
        let ran = run(world.router.command().args(arguments));
        assert_eq!(ran.code, 0, "{arguments:?}: {ran:?}");
        ran.stdout
    };
    admin(&["user", "remove", here, "--yes"]);
    let (key, route) = (keys::ed25519(here).public().display().to_string(), world.route());
    let mut add = vec!["user", "add", here, "--key", &key];
    for (field, value) in &route {
        let option =
            ["--remote", "--port", "--user", "--home", "--host-key"].into_iter().find(|option| option.replace('-', "") == *field);
        add.extend([option.expect("an option for each field"), value]);
    }
    admin(&add);
    assert!(until(LIMIT, || world.proxied(here).sftp("pwd\n").code == 0), "nobody gets in when the node is back");
    world.proxied(there).sftp("pwd\n").success();
    let listed = admin(&["user", "list"]);
    assert!(listed.contains(here.as_str()) && listed.contains(there.as_str()), "{listed}");
    admin(&["user", "remove", there, "--yes"]);
    let refused = world.proxied(there).sftp("pwd\n");
    assert!(refused.code != 0, "{refused:?}");
}
