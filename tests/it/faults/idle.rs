//! A session in which nothing happens costs no processor time.

use std::net::TcpStream;
use std::time::Duration;

use super::{assert_rests, open_raw, world};
use crate::world::USER;

const WHILE: Duration = Duration::from_secs(2);

#[test]
fn sessions_that_wait_cost_no_processor_time_whatever_they_wait_for() {
    let world = world();
    let mut session = world.proxied(USER).session();
    session.ask("pwd", "Remote working directory");
    let silent = TcpStream::connect(("127.0.0.1", world.router.port)).unwrap();
    let raw = open_raw(&world, &world.route());
    world.router.wait_for_lines("open session=", 2);
    assert_rests(&world.router, WHILE);
    drop((silent, raw));
    assert_eq!(session.end(), 0);
}

#[test]
fn a_half_closed_session_costs_no_processor_time() {
    let world = super::world_with_subsystem("cat; exec sleep 20");
    let (mut client, channel) = open_raw(&world, &world.route());
    world.router.wait_for_line("open session=");
    client.eof(&channel).unwrap();
    assert_rests(&world.router, WHILE);
    client.close(&channel).unwrap();
    drop(client);
    world.router.wait_for_line("end session=1 *reason=\"the client closed the session");
}

#[test]
fn a_session_whose_upstream_has_said_eof_and_stays_costs_no_processor_time() {
    let world = super::world_with_subsystem("exec >&- 2>&-; cat");
    let (client, _) = open_raw(&world, &world.route());
    world.router.wait_for_line("open session=");
    assert_rests(&world.router, WHILE);
    drop(client);
    world.router.wait_for_line("end session=1 ");
}
