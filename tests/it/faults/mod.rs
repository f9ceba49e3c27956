//! What goes wrong around the router, with real parts: each fault ends its session within its limit, with the one right line in the
//! log and a word to the user; the next client is served, and (as the world asserts when it is dropped) nothing is left behind.

use std::time::{Duration, Instant};

use crate::raw::{self, Channel, Client};
use crate::world::keys::Key;
use crate::world::process::{Output, ticks, until};
use crate::world::router::Router;
use crate::world::{Setup, USER, World};

mod client;
mod grace;
mod idle;
mod redis;
mod store;
mod transfer;
mod upstream;

/// Limits small enough to be waited for, large enough for a busy machine to do honest work in.
const LIMITS: [(&str, &str); 4] = [
    ("UPSTREAM_CONNECT_TIMEOUT", "2"),
    ("UPSTREAM_EXCHANGE_TIMEOUT", "2"),
    ("UPSTREAM_LOGIN_TIMEOUT", "2"),
    ("LOGIN_TIMEOUT", "20"),
];

fn world() -> World {
    World::with(Setup { settings: &LIMITS, ..Setup::default() })
}

/// A world whose upstream has this line for a shell as its subsystem sftp. sshd would drop quotes.
fn world_with_subsystem(command: &str) -> World {
    World::with(Setup { settings: &LIMITS, sshd: &[&format!("Subsystem sftp {command}")], ..Setup::default() })
}

/// Makes the user `raw`, whose key only the raw client has, with this record.
fn raw_user(world: &World, route: &[(&str, String)]) -> raw::Key {
    let key = raw::Key::ed25519();
    let file = Key { private: world.folder.path().join("raw") };
    std::fs::write(file.public(), key.line()).unwrap();
    world.store.put("raw", &[&file], route);
    key
}

/// Logs the raw client in.
fn log_in_raw(world: &World, key: &raw::Key) -> Client {
    Client::log_in(("127.0.0.1", world.router.port), "raw", key).unwrap()
}

/// A session of the raw client whose channel is open.
fn open_raw(world: &World, route: &[(&str, String)]) -> (Client, Channel) {
    let mut client = log_in_raw(world, &raw_user(world, route));
    let channel = client.open_sftp().unwrap();
    (client, channel)
}

/// What the user of `sftp` is told by an answer to the first request, once.
#[track_caller]
fn assert_told(output: &Output, what: &str) {
    assert_ne!(output.code, 0, "{output:?}");
    let line = format!(": {what}; please tell your administrator");
    let said = output.stderr.lines().filter(|said| said.ends_with(&line)).count();
    assert!(said == 1 && output.stderr.matches(what).count() == 1, "the user is not told once that {what}: {output:?}");
}

/// The next client is served.
#[track_caller]
fn assert_serves(world: &World) {
    world.proxied(USER).sftp("pwd\n").success();
}

/// The router comes to rest soon and then stays so: no more than one clock tick of work in `period`.
#[track_caller]
pub fn assert_rests(router: &Router, period: Duration) {
    let (pid, started) = (router.pid(), Instant::now());
    while started.elapsed() < 5 * period {
        let before = ticks(pid);
        if !until(period, || ticks(pid) > before + 1) {
            return;
        }
    }
    panic!("the router works although nothing happens");
}
