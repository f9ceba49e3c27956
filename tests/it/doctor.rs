//! `doctor` says of every route what its users would meet, asks no upstream too often, and leaves nothing behind.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use sftpproxy::identity::PublicKey;
use sftpproxy::wire::put_string;

use crate::world::keys::{self, Key};
use crate::world::process::free_port;
use crate::world::sshd::Sshd;
use crate::world::store::Store;
use crate::world::{Kind, Setup, USER, World, route_to};

fn over_redis(sshd: &[&str]) -> World {
    World::with(Setup { store: Kind::Redis, sshd, ..Setup::default() })
}

/// What `doctor` says as JSON, and its exit code.
#[track_caller]
fn doctor(world: &World, arguments: &[&str]) -> (i32, Value) {
    let output = world.command(&[&["doctor", "--json"], arguments].concat());
    let said = serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.code, said)
}

fn of_user<'a>(said: &'a Value, user: &str) -> &'a Value {
    let routes = said["routes"].as_array().unwrap();
    routes.iter().find(|route| route["user"] == user).unwrap_or_else(|| panic!("nothing of {user}: {said:#}"))
}

/// The stages that stand well, by name.
fn good(route: &Value) -> Vec<&str> {
    let steps = route["steps"].as_array().unwrap().iter();
    steps.filter(|step| step["state"] == "ok").map(|step| step["step"].as_str().unwrap()).collect()
}

/// Gives a user a key and a route to an upstream with these fields otherwise; `""` = without the field.
fn add(world: &World, name: &str, sshd: &Sshd, fields: &[(&'static str, &str)]) {
    let mut route = route_to(sshd);
    route.retain(|(field, _)| fields.iter().all(|(changed, _)| field != changed));
    route.extend(fields.iter().filter(|(_, value)| !value.is_empty()).map(|(field, value)| (*field, (*value).to_owned())));
    world.store.put(name, &[&key_of(world, name)], &route);
}

/// A key of the user's own that nobody has to make: only its public half is ever looked at.
fn key_of(world: &World, name: &str) -> Key {
    let key = Key { private: world.folder.path().join(format!("key-{name}")) };
    std::fs::write(key.public(), crate::raw::Key::ed25519().line()).unwrap();
    key
}

const STAGES: [&str; 10] =
    ["resolve", "connect", "approved keys", "key exchange", "host key", "credential", "log in", "open", "sftp", "start"];

#[test]
fn a_route_that_works_is_told_stage_by_stage_and_the_write_probe_leaves_nothing() {
    let world = over_redis(&[]);
    let (code, said) = doctor(&world, &[]);
    let route = of_user(&said, USER);
    assert_eq!(
        (code, &said["good"], route["state"].as_str(), good(route)),
        (0, &true.into(), Some("ok"), STAGES.to_vec()),
        "{said:#}"
    );
    assert_eq!(route["host_key"]["fingerprint"], world.sshd.host_key.fingerprint().as_str(), "{said:#}");
    assert!(route["extensions"].as_array().unwrap().contains(&"posix-rename@openssh.com".into()), "{said:#}");
    assert_eq!((&route["start"], &route["sftp_version"]), (&world.sshd.files.display().to_string().into(), &3.into()));
    let kex = route["negotiated"]["kex"].as_str().unwrap();
    assert!(!kex.is_empty() && !route["negotiated"]["cipher"].as_str().unwrap().is_empty(), "{said:#}");

    let text = world.command(&["doctor"]).success();
    for expected in
        ["STATE    USER", "ok       alice", kex, "ssh-ed25519", "1 route: 1 ok, 0 with a warning, 0 bad; dead entries: 0"]
    {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let text = world.command(&["doctor", USER, "--write"]).success();
    for expected in ["ok      log in", "ok      write", "ok      remove", "note    extensions", "statvfs@openssh.com"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert_eq!(std::fs::read_dir(&world.sshd.files).unwrap().count(), 0);
    assert!(!text.contains('\u{1b}'), "colours where no terminal is: {text}");

    // What the user could not do is not done for them.
    add(&world, "reader", &world.sshd, &[("read_only", "yes")]);
    let (code, said) = doctor(&world, &["reader", "--write"]);
    let last = of_user(&said, "reader")["steps"].as_array().unwrap().last().unwrap();
    assert!(code == 0 && last["text"].as_str().unwrap().starts_with("not tried: read-only"), "{said:#}");
}

#[test]
fn a_write_probe_that_fails_is_told() {
    let world = over_redis(&["Subsystem sftp internal-sftp -R"]);
    assert_eq!(doctor(&world, &[USER]).0, 0);
    let (code, said) = doctor(&world, &[USER, "--write"]);
    let fault = of_user(&said, USER)["fault"].as_str().unwrap();
    assert!(code == 3 && fault.starts_with("write: ") && fault.contains("Permission denied (code 3)"), "{said:#}");
}

#[test]
fn each_fault_is_found_at_its_stage_and_dead_entries_are_named() {
    let world = over_redis(&[]);
    let bare = Sshd::start(&world.folder.path().join("bare"), "bare", &["# no subsystem"]);
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let (closed, quiet) = (free_port().to_string(), silent.local_addr().unwrap().port().to_string());
    let strange = keys::ed25519("strange").fingerprint();
    let stranger = keys::ed25519("stranger").private.display().to_string();
    let sshd = &world.sshd;
    add(&world, "nameless", sshd, &[("remote", "does-not-exist.invalid")]);
    add(&world, "closed", sshd, &[("port", &closed)]);
    add(&world, "silent", sshd, &[("port", &quiet)]);
    add(&world, "unpinned", sshd, &[("hostkey", "")]);
    add(&world, "changed", sshd, &[("hostkey", &strange)]);
    add(&world, "locked-out", sshd, &[("key", &stranger)]);
    add(&world, "bare", &bare, &[]);
    add(&world, "homeless", sshd, &[("home", "/does/not/exist")]);
    add(&world, "broken", sshd, &[("port", "70000")]);
    add(&world, "resting", sshd, &[("maintenance", "back at 14:00")]);
    let Store::Redis(redis) = &world.store else { unreachable!() };
    let dead = keys::ed25519("dead");
    redis.set(&format!("pysftpproxy:pubkey:{}", dead.line()), USER);
    redis.set(&format!("pysftpproxy:pubkey:{}", dead.base64()), "gone");
    redis.ask(redis::cmd("HSET").arg("pysftpproxy:user:keyless").arg("remote").arg("127.0.0.1").arg("port").arg(&closed));

    let (code, said) = doctor(&world, &["--timeout", "3"]);
    assert_eq!((code, &said["good"]), (3, &false.into()), "{said:#}");
    for (user, fault) in [
        ("nameless", "resolve: the name \"does-not-exist.invalid\""),
        ("closed", "connect: 127.0.0.1:"),
        ("silent", "key exchange: "),
        ("unpinned", "host key: host key ssh-ed25519 SHA256:"),
        ("changed", "is not the pinned one"),
        ("locked-out", "log in: login "),
        ("bare", "open: the upstream does not open its subsystem sftp"),
        ("homeless", "start: /does/not/exist: "),
        ("broken", "record: port: \"70000\" is not a port"),
    ] {
        let route = of_user(&said, user);
        let told = route["fault"].as_str().unwrap_or_default();
        assert!(route["state"] == "BAD" && told.contains(fault), "{user}: {fault}: {route:#}");
    }
    let resting = of_user(&said, "resting");
    assert_eq!((&resting["state"], &resting["fault"]), (&"ok".into(), &"maintenance: back at 14:00".into()), "{resting:#}");
    assert_eq!(of_user(&said, USER)["state"], "ok", "{said:#}");
    let found: Vec<_> = said["dead"].as_array().unwrap().iter().map(|dead| (&dead["user"], &dead["reason"])).collect();
    let has = |user: &str, reason: &str| found.iter().any(|(name, why)| *name == user && why.as_str().unwrap().contains(reason));
    assert!(has(USER, "the whole line is stored") && has("gone", "no record") && has("keyless", "has no key"), "{said:#}");
    assert_eq!(found.len(), 3, "{said:#}");

    let output = world.command(&["doctor", "homeless", "closed"]);
    assert_eq!((output.code, output.stdout.matches("\nBAD     ").count()), (3, 2), "{output:?}");
    assert!(output.stdout.contains("2 routes: 0 ok, 0 with a warning, 2 bad; dead entries: 0"), "{output:?}");
}

#[test]
fn bad_arguments_and_a_store_that_does_not_answer_have_codes_of_their_own() {
    let mut world = over_redis(&[]);
    for (arguments, reason) in [
        (&["doctor", "nobody"][..], "there is no user \"nobody\""),
        (&["doctor", "--parallel", "0"], "--parallel: a number from 1 to 256"),
        (&["doctor", "--timeout", "x"], "--timeout: a number"),
        (&["doctor", "a\nb"], "control characters"),
    ] {
        let output = world.command(arguments);
        assert!(
            output.code == 2 && output.stderr.starts_with("sftpproxy doctor: ") && output.stderr.contains(reason),
            "{output:?}"
        );
    }
    world.store.redis().stop();
    assert_eq!(world.command(&["doctor"]).code, 1);
    world.store.redis().restart();
}

/// The base64 of a key that nobody has the private half of.
fn numbered_key(number: usize) -> String {
    let (mut blob, mut public) = (Vec::new(), [0; 32]);
    public[..8].copy_from_slice(&number.to_be_bytes());
    put_string(&mut blob, b"ssh-ed25519");
    put_string(&mut blob, &public);
    PublicKey::from_blob(&blob).unwrap().base64()
}

/// Takes connections and says nothing; counts them.
fn silent() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let (port, count) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept() {
            counted.fetch_add(1, Ordering::SeqCst);
            held.push(stream);
        }
    });
    (port, count)
}

#[test]
fn a_thousand_routes_are_asked_in_bounded_time_and_no_upstream_more_than_it_takes() {
    // A seventh connection that has not logged in is dropped, and would be a route that does not work.
    let crowded = ["MaxStartups 6:100:6"];
    let world = over_redis(&crowded);
    let others = ["second", "third"].map(|name| Sshd::start(&world.folder.path().join(name), name, &crowded));
    let sshds = [&world.sshd, &others[0], &others[1]];
    let (quiet, visits) = silent();
    let closed = free_port();
    let Store::Redis(redis) = &world.store else { unreachable!() };
    let client = redis::Client::open(format!("redis://127.0.0.1:{}/1", redis.port)).unwrap();
    let mut pipeline = redis::pipe();
    let numbers: Vec<usize> = (1..1000).collect();
    for number in &numbers {
        let sshd = sshds[number % 3];
        let mut fields = route_to(sshd);
        // 20 start directories at each upstream: 60 routes that differ, and the others are like one of them.
        let home = sshd.files.join(format!("home-{}", number / 3 % 20));
        std::fs::create_dir_all(&home).unwrap();
        fields.push(("home", home.display().to_string()));
        match number % 10 {
            // Dead ones all differ.
            7 => fields.extend([("port", closed.to_string()), ("home", format!("/{number}"))]),
            8 => fields.extend([("port", quiet.to_string()), ("home", format!("/{number}"))]),
            9 => fields.push(("remote", "does-not-exist.invalid".to_owned())),
            _ => {}
        }
        let key = format!("user-{number}");
        let fields: Vec<_> = fields.into_iter().collect::<std::collections::BTreeMap<_, _>>().into_iter().collect();
        pipeline.hset_multiple(format!("pysftpproxy:user:{key}"), &fields).ignore();
        pipeline.set(format!("pysftpproxy:pubkey:{}", numbered_key(*number)), key).ignore();
    }
    pipeline.query::<()>(&mut client.get_connection().unwrap()).unwrap();

    let started = Instant::now();
    let (code, said) = doctor(&world, &["--timeout", "6"]);
    assert!(started.elapsed() < Duration::from_secs(45), "{:?}", started.elapsed());
    let routes = said["routes"].as_array().unwrap();
    assert_eq!((code, routes.len(), said["dead"].as_array().unwrap().len()), (3, 1000, 0));
    for (number, state) in [(7, "BAD"), (8, "BAD"), (9, "BAD"), (0, "ok"), (1, "ok")] {
        let these = routes.iter().filter(|route| route["user"].as_str().unwrap().ends_with(&number.to_string()));
        let other: Vec<_> = these.filter(|route| route["state"] != state).collect();
        assert!(other.is_empty(), "{} of …{number} are not {state}, the first: {:#}", other.len(), other[0]);
    }
    let visits = visits.load(Ordering::SeqCst);
    assert!((1..=5).contains(&visits), "the silent address was asked {visits} times");
}
