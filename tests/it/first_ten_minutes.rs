//! The first ten minutes with the program, as a shell script that a newcomer could have typed.

use std::process::Command;

use crate::world::process::run;
use crate::world::{Kind, Setup, World};

#[test]
fn a_user_is_added_explained_examined_and_connected_over_either_store() {
    for store in [Kind::Redis, Kind::File] {
        let world = World::with(Setup { store, ..Setup::default() });
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/first_ten_minutes.sh");
        let mut command = Command::new("bash");
        command.arg(script).env_clear().envs(world.router.environment().iter().cloned()).current_dir(world.client());
        for (name, value) in [
            ("PROGRAM", env!("CARGO_BIN_EXE_sftpproxy").to_owned()),
            ("ROUTER_PORT", world.router.port.to_string()),
            ("UPSTREAM_PORT", world.sshd.port.to_string()),
            ("UPSTREAM_LOGIN", crate::world::sshd::login()),
            ("UPSTREAM_FILES", world.sshd.files.display().to_string()),
            ("UPSTREAM_HOST_KEY", world.sshd.host_key.fingerprint()),
        ] {
            command.env(name, value);
        }
        let output = run(&mut command);
        assert_eq!(output.code, 0, "{store:?}:\n{}\n{}", output.stdout, output.stderr);
    }
}
