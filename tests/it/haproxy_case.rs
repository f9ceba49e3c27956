//! examples/haproxy as it stands there: two nodes on one Redis behind a real HAProxy.

use std::process::Command;
use std::time::Duration;

use crate::world::clients::installed;
use crate::world::haproxy::Haproxy;
use crate::world::process::run_within;

/// For some 15 logins and a node that starts again, on a machine that does much else.
const WHOLE: Duration = Duration::from_secs(240);

#[test]
fn two_nodes_behind_one_haproxy_both_serve_and_one_does_alone_when_the_other_dies() {
    if !Haproxy::is_installed() || !installed("redis-server") {
        return;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/haproxy/try.sh");
    let mut command = Command::new(script);
    let said = run_within(WHOLE, command.arg("--check").env("SFTPPROXY", env!("CARGO_BIN_EXE_sftpproxy"))).success();
    for part in
        ["a file went through node1", "a file went through node2", "4 new connections in a row", "is back and gets connections"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
}
