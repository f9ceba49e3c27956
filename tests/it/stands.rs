//! Sessions that stand still, and what a machine has room for: limits that are off unless somebody sets them, and one that is always there.

use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::raw::Client;
use crate::world::process::{LIMIT, Process, descendants, run, signal, until};
use crate::world::toxic::{Direction, Relay, Toxic};
use crate::world::tree::big_file;
use crate::world::{Setup, USER, World};

fn world(settings: &[(&str, &str)]) -> World {
    World::with(Setup { settings, ..Setup::default() })
}

/// Sends a signal to what sshd has started for its sessions.
fn signal_upstream(world: &World, number: Signal) {
    descendants(world.sshd.process.pid()).into_iter().for_each(|pid| signal(pid, number));
}

#[test]
fn a_session_without_a_request_ends_and_one_that_asks_or_waits_for_an_answer_does_not() {
    let world = world(&[("IDLE_TIMEOUT", "3")]);
    let mut busy = world.proxied(USER).session();
    busy.ask("pwd", "Remote working directory");
    let mut idle = world.proxied(USER).session();
    idle.ask("pwd", "Remote working directory");
    let since = Instant::now();
    let asks = std::cell::Cell::new(0);
    let ended = until(LIMIT, || {
        if since.elapsed() > Duration::from_secs(asks.get()) {
            asks.set(asks.get() + 1);
            busy.say("ls -l");
        }
        world.router.lines().iter().any(|line| line.contains("end session="))
    });
    assert!(ended && since.elapsed() >= Duration::from_secs(2), "after {:?}", since.elapsed());
    let end = world.router.wait_for_line("end session=2 ");
    assert!(end.contains("side=downstream stage=\"relay\" reason=\"no request for 3 s (SFTPPROXY_IDLE_TIMEOUT)\""), "{end}");
    assert!(idle.was_cut());
    // An answer that takes longer is waited for.
    signal_upstream(&world, Signal::SIGSTOP);
    busy.say("mkdir late");
    let since = Instant::now();
    assert!(!until(Duration::from_secs(5), || world.router.lines().iter().any(|line| line.contains("end session=1 "))));
    signal_upstream(&world, Signal::SIGCONT);
    busy.ask("pwd", "Remote working directory");
    assert!(since.elapsed() >= Duration::from_secs(5));
    assert_eq!(busy.end(), 0);
}

#[test]
fn a_transfer_that_stands_still_ends_whichever_side_it_is() {
    let world = world(&[("STALL_TIMEOUT", "2")]);
    big_file(&world.client().join("there"), 1 << 30);
    big_file(&world.sshd.files.join("back"), 1 << 30);
    let begun = |file: &std::path::Path| {
        assert!(until(LIMIT, || std::fs::metadata(file).is_ok_and(|meta| meta.len() > 4 << 20)), "no transfer");
    };
    let mut get = world.proxied(USER).session();
    get.say("get back");
    begun(&world.client().join("back"));
    get.signal(Signal::SIGSTOP);
    let end = world.router.wait_for_line("end session=1 ");
    assert!(
        end.contains("side=downstream stage=\"relay\" reason=\"the client takes no bytes for 2 s (SFTPPROXY_STALL_TIMEOUT)\""),
        "{end}"
    );
    get.signal(Signal::SIGKILL);

    let mut put = world.proxied(USER).session();
    put.say("put there");
    begun(&world.sshd.files.join("there"));
    signal_upstream(&world, Signal::SIGSTOP);
    let end = world.router.wait_for_line("end session=2 ");
    assert!(
        end.contains("side=upstream stage=\"relay\" reason=\"the upstream ") && end.contains("for 2 s (SFTPPROXY_STALL"),
        "{end}"
    );
    signal_upstream(&world, Signal::SIGCONT);
    put.signal(Signal::SIGKILL);
    // Whoever only rests is not meant.
    let mut rests = world.proxied(USER).session();
    rests.ask("pwd", "Remote working directory");
    assert!(!until(Duration::from_secs(4), || world.router.lines().iter().any(|line| line.contains("end session=3 "))));
    assert_eq!(rests.end(), 0);
}

#[test]
fn who_stops_amid_a_request_or_an_answer_is_whose_fault_it_is() {
    let world = world(&[("IDLE_TIMEOUT", "3"), ("STALL_TIMEOUT", "3")]);
    big_file(&world.sshd.files.join("back"), 64 << 20);
    let (key, relay) = (crate::raw::Key::ed25519(), Relay::start(world.sshd.port));
    let mut route = world.route();
    route.iter_mut().filter(|(name, _)| *name == "port").for_each(|(_, port)| *port = relay.port.to_string());
    world.store.put("mallory", &[&crate::login::on_disk(&world, "mallory", &key)], &route);
    let begin = || {
        let mut client = Client::log_in(("127.0.0.1", world.router.port), "mallory", &key).unwrap();
        let channel = client.open_sftp().unwrap();
        client.data(&channel, &[0, 0, 0, 5, 1, 0, 0, 0, 3]).unwrap();
        assert_eq!(client.recv_sftp(&channel).unwrap()[0], 2, "VERSION");
        (client, channel)
    };
    // A WRITE that never comes whole: nobody can answer it.
    let (mut client, channel) = begin();
    let mut write = vec![0, 0, 4, 0, 6, 0, 0, 0, 1, 0, 0, 0, 1, b'h'];
    write.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 234, 1, 2, 3]);
    client.data(&channel, &write).unwrap();
    let end = world.router.wait_for_line("end session=1 ");
    assert!(end.contains("side=downstream stage=\"relay\" reason=\"no request for 3 s (SFTPPROXY_IDLE_TIMEOUT)\""), "{end}");

    // The answer to the only request has come in part: it is still owed, although nothing is in flight any more.
    let (mut client, channel) = begin();
    let mut open = vec![0, 0, 0, 21, 3, 0, 0, 0, 1, 0, 0, 0, 4];
    open.extend(b"back\0\0\0\x01\0\0\0\0");
    client.data(&channel, &open).unwrap();
    let answer = client.recv_sftp(&channel).unwrap();
    assert_eq!(answer[0], 102, "HANDLE");
    relay.strike(Toxic::Stall, Direction::Down, 64 << 10);
    let mut read = vec![5, 0, 0, 0, 2];
    read.extend_from_slice(&answer[5..]);
    read.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0]); // 128 KiB
    let length = u32::try_from(read.len()).unwrap().to_be_bytes();
    client.data(&channel, &[&length[..], &read].concat()).unwrap();
    let end = world.router.wait_for_line("end session=2 ");
    let reason = "side=upstream stage=\"relay\" reason=\"the upstream answers nothing for 3 s (SFTPPROXY_STALL_TIMEOUT)\"";
    assert!(end.contains(reason), "{end}");
    assert!(relay.struck().is_some());
}

#[test]
fn more_sessions_than_the_machine_has_room_for_are_refused_by_check_config_and_lowered_by_serve() {
    let world = world(&[]);
    let limited = |arguments: &str| {
        let program = format!("ulimit -n 500; exec {} {arguments}", env!("CARGO_BIN_EXE_sftpproxy"));
        let mut command = Command::new("bash");
        command.env_clear().envs(world.router.environment().iter().cloned()).args(["-c", &program]);
        command
    };
    let said = "SFTPPROXY_MAX_SESSIONS = 1000: 62 sessions fit here; for more raise the limit of open files";
    let output = run(&mut limited("check-config"));
    assert!(output.code == 2 && output.stderr.contains(said), "{output:?}");
    assert_eq!(run(&mut limited("--max-sessions 62 check-config")).code, 0);
    let lowered = Process::start(&mut limited("serve"));
    lowered.wait_for(&format!("{said}*until then it is 62"), 1, LIMIT).unwrap();
    let listening = lowered.wait_for("listening on ", 1, LIMIT).unwrap().remove(0);
    let address = listening.split("listening on ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    drop(std::net::TcpStream::connect(address).unwrap());
    lowered.wait_for("accept session=1 *sessions=1/62", 1, LIMIT).unwrap();
    // Enough is enough: the soft limit is raised no further than it must be.
    let files = std::fs::read_to_string(format!("/proc/{}/limits", world.router.pid())).unwrap();
    let soft =
        files.lines().find(|line| line.starts_with("Max open files")).unwrap().split_whitespace().nth(3).unwrap().to_owned();
    assert!(soft.parse::<u64>().unwrap() >= 6128, "{soft}");
}
