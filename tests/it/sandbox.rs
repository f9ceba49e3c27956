//! That the program shuts itself in once it runs. What being shut in means is shown beside the code, `src/sandbox.rs`; that everything goes on
//! working, by all other tests, whose programs are shut in too.

use nix::sys::signal::Signal;

use crate::world::process::{LIMIT, until};
use crate::world::{Setup, USER, World};

/// Of each thread, whether it has a filter of system calls.
fn filtered(pid: u32) -> Vec<bool> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let status = |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("status")).ok();
    threads.filter_map(status).map(|status| status.lines().any(|line| line == "Seccomp:\t2")).collect()
}

#[test]
fn the_audit_cannot_be_led_to_another_folder_once_the_program_runs() {
    let folder = tempfile::tempdir().unwrap();
    let (own, other) = (folder.path().join("own"), folder.path().join("other"));
    for folder in [&own, &other] {
        std::fs::create_dir(folder).unwrap();
    }
    let audit = own.join("audit");
    let sink = format!("file:{}", audit.display());
    let mut world = World::with(Setup { settings: &[("AUDIT", &sink)], ..Setup::default() });
    let said = world.router.wait_for_line("sandbox: ");
    let led = |world: &World| {
        world.proxied(USER).sftp("pwd\n").success();
        assert!(until(LIMIT, || std::fs::read_to_string(&audit).is_ok_and(|text| text.contains("\"end\""))), "no event");
        std::fs::remove_file(&audit).unwrap();
        std::os::unix::fs::symlink(other.join("elsewhere"), &audit).unwrap();
        world.router.signal(Signal::SIGUSR1);
        world.proxied(USER).sftp("pwd\n").success();
        let led = until(LIMIT, || {
            other.join("elsewhere").exists() || world.router.lines().iter().any(|line| line.contains("ermission denied"))
        });
        assert!(led, "neither written nor refused");
        std::fs::remove_file(&audit).unwrap();
        std::fs::remove_file(other.join("elsewhere")).is_ok()
    };
    if said.contains("landlock=yes") {
        assert!(!led(&world), "it wrote elsewhere");
    } else {
        eprintln!("this kernel has no Landlock: {said}");
    }
    if said.contains("seccomp=yes") {
        assert!(filtered(world.router.pid()).iter().all(|filtered| *filtered), "a thread goes without a filter");
    }
    world.restart(&[("SFTPPROXY_SANDBOX", "no")]);
    assert!(led(&world), "with SFTPPROXY_SANDBOX=no nothing is restricted");
    assert!(filtered(world.router.pid()).iter().all(|filtered| !filtered));
}

#[test]
fn a_hook_that_is_a_program_is_not_shut_in() {
    let world = World::with(Setup { settings: &[("HOOK", "/bin/true")], ..Setup::default() });
    world.router.wait_for_line("sandbox: a program is the hook");
    assert!(filtered(world.router.pid()).iter().all(|filtered| !filtered));
}
