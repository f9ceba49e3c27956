//! The use case of examples/docker without Docker: two sshds at one address and two ports, each with a host key and a volume of its
//! own; two users who are added by the commands of commands.sh, and each of whom sees the own volume only.

use std::process::{Command, Stdio};

use crate::world::clients::Target;
use crate::world::keys::{self, Key};
use crate::world::process::{Output, run};
use crate::world::sshd::{Sshd, login};
use crate::world::{Kind, Setup, World};

/// The two "containers" beside the world's own sshd, which this case leaves alone.
struct Host {
    world: World,
    alice: Sshd,
    bob: Sshd,
}

fn host() -> Host {
    let world = World::with(Setup { store: Kind::Redis, ..Setup::default() });
    world.store.remove(crate::world::USER, &[&keys::ed25519(crate::world::USER)]);
    let container = |name: &str| {
        let sshd = Sshd::start(&world.folder.path().join(name), &format!("container-{name}"), &[]);
        std::fs::write(sshd.files.join("index.html"), format!("the application of {name}")).unwrap();
        sshd
    };
    let (alice, bob) = (container("alice"), container("bob"));
    Host { alice, bob, world }
}

/// `user add NAME --key - … --scan-host-key --yes <NAME.pub`, as in commands.sh.
fn add(world: &World, name: &str, key: &Key, sshd: &Sshd) -> Output {
    let mut command = world.router.command();
    let (port, home) = (sshd.port.to_string(), sshd.files.display().to_string());
    command.args([
        "user",
        "add",
        name,
        "--key",
        "-",
        "--remote",
        "127.0.0.1",
        "--port",
        &port,
        "--user",
        &login(),
        "--home",
        &home,
    ]);
    command.args(["--scan-host-key", "--yes"]);
    // `run` gives no input: a shell does.
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$@\" <\"$0\""]).arg(key.public()).arg(command.get_program()).args(command.get_args());
    shell.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).stdin(Stdio::null());
    run(&mut shell)
}

fn names(target: &Target) -> Vec<String> {
    let output = target.sftp("ls -1\n").success();
    output.lines().filter(|line| !line.starts_with("sftp>")).map(str::to_owned).collect()
}

#[test]
fn two_users_of_one_docker_host_see_their_own_volume_only() {
    let host = host();
    for (name, sshd) in [("alice", &host.alice), ("bob", &host.bob)] {
        let output = add(&host.world, name, &keys::ed25519(name), sshd).success();
        assert!(output.contains(&sshd.host_key.fingerprint()), "the pinned key is not shown: {output}");
    }
    for (name, own, others) in [("alice", &host.alice, &host.bob), ("bob", &host.bob, &host.alice)] {
        let target = host.world.proxied(name);
        assert_eq!(names(&target), ["index.html"]);
        std::fs::write(host.world.client().join("upload"), name).unwrap();
        target.sftp("get index.html\nput upload\n").success();
        let page = std::fs::read_to_string(host.world.client().join("index.html")).unwrap();
        assert_eq!(page, format!("the application of {name}"));
        assert_eq!(std::fs::read_to_string(own.files.join("upload")).unwrap(), name);
        if name == "alice" {
            assert!(!others.files.join("upload").exists(), "{name}'s file is in the other volume");
        }
    }
    // Neither key opens the other door.
    for (name, key) in [("alice", "bob"), ("bob", "alice")] {
        assert_ne!(host.world.proxied_with(name, &keys::ed25519(key)).sftp("ls\n").code, 0, "{key}'s key lets in as {name}");
    }
}

#[test]
fn a_container_with_another_host_key_at_the_same_port_gets_no_session() {
    let host = host();
    add(&host.world, "alice", &keys::ed25519("alice"), &host.alice).success();
    host.world.proxied("alice").sftp("ls\n").success();
    // The address is right and the key is one that somebody else's record trusts: still the wrong one.
    let mut wrong = crate::world::route_to(&host.bob);
    wrong.retain(|(field, _)| *field != "hostkey");
    wrong.push(("hostkey", host.alice.host_key.fingerprint()));
    host.world.store.put("bob", &[&keys::ed25519("bob")], &wrong);
    assert_ne!(host.world.proxied("bob").sftp("ls\n").code, 0);
    let end = host.world.router.wait_for_line("end session=*user=\"bob\"*reason=");
    assert!(end.contains("side=upstream"), "{end}");
    assert!(
        !host.bob.process.lines().iter().any(|line| line.contains("Accepted publickey")),
        "logged in before the host key was trusted"
    );
}
