//! A Redis that is down at the start, shut, or holds what it should not: new logins are refused with the reason, and let in again when the
//! reason is gone. What happens while the router runs is the table in `redis.rs`.

use std::time::{Duration, Instant};

use super::{LIMITS, assert_serves, assert_told};
use crate::world::{Kind, Setup, USER, World, keys};

/// A world with Redis and short limits.
fn world(settings: &[(&str, &str)]) -> World {
    let limits = [("REDIS_CONNECT_TIMEOUT", "1"), ("REDIS_COMMAND_TIMEOUT", "1")];
    let settings: Vec<_> = LIMITS.into_iter().chain(limits).chain(settings.iter().copied()).collect();
    World::with(Setup { store: Kind::Redis, settings: &settings, ..Setup::default() })
}

/// A login is refused with this end line.
#[track_caller]
fn assert_refused(world: &World, end: &str) {
    let started = Instant::now();
    let output = world.proxied(USER).sftp("pwd\n");
    assert_ne!(output.code, 0, "{output:?}");
    assert!(started.elapsed() < Duration::from_secs(15), "took {:?}", started.elapsed());
    world.router.wait_for_line(&format!("end session=*side=store stage={end}"));
}

fn entry() -> String {
    format!("pysftpproxy:pubkey:{}", keys::ed25519(USER).base64())
}

const RECORD: &str = "pysftpproxy:user:alice";

#[test]
fn redis_is_down_at_the_start_and_comes_later() {
    let mut world = world(&[]);
    world.store.redis().stop();
    world.router = world.router.again(world.store.lazy_descriptors());
    world.router.wait_for_line("ERROR*refused*logins are refused until it answers");
    assert_refused(&world, "\"prove\" reason=\"redis *refused");
    world.store.redis().restart();
    world.add_user(USER, &keys::ed25519(USER));
    assert_serves(&world);
}

#[test]
fn redis_wants_another_password() {
    let mut world = world(&[("REDIS_PASSWORD", "wrong")]);
    assert_refused(&world, "\"prove\" reason=\"redis *unset SFTPPROXY_REDIS_PASSWORD");
    let set = |password: &str| {
        let mut command = redis::cmd("CONFIG");
        command.arg("SET").arg("requirepass").arg(password).to_owned()
    };
    world.store.redis().ask(&set("right"));
    assert_refused(&world, "\"prove\" reason=\"redis *WRONGPASS*check SFTPPROXY_REDIS_PASSWORD");
    assert!(!world.router.lines().iter().any(|line| line.contains("wrong\"") || line.contains("=wrong")), "the password is told");
}

#[test]
fn a_key_or_a_record_of_another_type_is_an_error_and_nobodys_login() {
    let mut world = world(&[]);
    let redis = world.store.redis();
    redis.ask(redis::cmd("DEL").arg(entry()));
    redis.ask(redis::cmd("RPUSH").arg(entry()).arg(USER));
    assert_refused(&world, "\"prove\" reason=\"redis *WRONGTYPE*pubkey entries must be strings");
    world.store.remove(USER, &[&keys::ed25519(USER)]);
    world.store.redis().set(&entry(), USER);
    world.store.redis().set(RECORD, "a string");
    let told = world.proxied(USER).sftp("pwd\n");
    assert_told(&told, "there is no server for you, or it cannot be looked up at the moment");
    assert_refused(&world, "\"find\" reason=\"redis *WRONGTYPE*user entries hashes");
    world.store.remove(USER, &[]);
    world.add_user(USER, &keys::ed25519(USER));
    assert_serves(&world);
}

#[test]
fn a_user_with_a_key_and_without_a_record_or_with_a_bad_one_is_told() {
    let mut world = world(&[]);
    let told = "there is no server for you, or it cannot be looked up at the moment";
    world.store.redis().ask(redis::cmd("DEL").arg(RECORD));
    assert_told(&world.proxied(USER).sftp("pwd\n"), told);
    world.router.wait_for_line("end session=*user=\"alice\"*side=store stage=\"find\" reason=\"the user has no record");
    world.store.redis().ask(redis::cmd("HSET").arg(RECORD).arg("port").arg("70000"));
    assert_told(&world.proxied(USER).sftp("pwd\n"), told);
    world.router.wait_for_line("end session=*user=\"alice\"*side=store stage=\"find\" reason=\"bad record: *70000");
    world.add_user(USER, &keys::ed25519(USER));
    assert_serves(&world);
}
