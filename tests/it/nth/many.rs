//! Sessions of every kind one after the other: those that end well and those that are cut. Here a few, so that it is known to work;
//! `scripts/valgrind` has 200 of them under valgrind, which says at the router's end what was read amiss and what was never freed.

use std::io::Write as _;
use std::net::TcpStream;
use std::os::fd::AsRawFd as _;

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{Shutdown, shutdown};
use nix::unistd::Pid;

use super::visit::{Place, Wrong};
use crate::world::process::{LIMIT, descendants, until};
use crate::world::{Kind, Setup, USER, World, keys};

/// One session of each kind, in turn.
fn session(world: &World, place: &Place, number: usize) {
    let port = world.router.port;
    match number % 8 {
        0 => {
            let stranger = place.log_in(port, &keys::ed25519("stranger"));
            assert!(matches!(stranger, Err(Wrong::Failed(_))), "a key that is nobody's lets in");
        }
        1 => {
            // The client is gone amid an upload.
            let (session, mut sftp) = place.open(port).expect("a session");
            sftp.begin().expect("an upload");
            shutdown(session.as_raw_fd(), Shutdown::Both).expect("a connection");
        }
        2 => {
            // Its upstream is.
            let (_session, mut sftp) = place.open(port).expect("a session");
            sftp.real_path().expect("an answer");
            for pid in descendants(world.sshd.process.pid()) {
                // One that has ended by itself meanwhile is none to end.
                let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
            }
            assert!(sftp.real_path().is_err(), "an upstream that is gone answers");
        }
        3 => {
            let mut stranger = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
            stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("a connection");
        }
        _ => place.visit(port).unwrap_or_else(|wrong| panic!("visit {number}: {wrong:?}")),
    }
}

fn many(store: Kind) {
    let count = std::env::var("MANY_SESSIONS").map_or(8, |text| text.parse().expect("a number of sessions"));
    let world = World::with(Setup { store, settings: &[("PENALTIES", "off")], ..Setup::default() });
    let place = Place::prepare(&world.sshd.files, USER, &keys::ed25519(USER));
    for number in 0..count {
        session(&world, &place, number);
    }
    let lines = |word: &str| world.router.lines().iter().filter(|line| line.contains(word)).count();
    assert!(until(LIMIT, || lines("] end session=") == count), "{} of {count} sessions have ended", lines("] end session="));
    println!("{count} sessions of 5 kinds have ended");
}

#[test]
fn sessions_of_every_kind_end_and_leave_nothing_behind() {
    many(Kind::File);
}

#[test]
fn sessions_of_every_kind_end_and_leave_nothing_behind_with_redis() {
    many(Kind::Redis);
}
