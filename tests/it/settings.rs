//! Settings and the log: where values come from, what the program says of a session, and where it says it.

use std::process::Command;

use crate::world::process::{LIMIT, Process, until};
use crate::world::{Kind, Setup, USER, World, keys};

fn world_with(settings: &[(&str, &str)]) -> World {
    World::with(Setup { settings, ..Setup::default() })
}

#[test]
fn a_site_of_the_predecessor_sources_its_properties_starts_the_program_and_every_user_logs_in() {
    // A world with Redis, whose data are written as the predecessor's helpers did. Its own router is not the one that is asked.
    let world = World::with(Setup { store: Kind::Redis, ..Setup::default() });
    let folder = world.folder.path();
    let host = keys::rsa_of("old-site-host", 2048);
    let properties = folder.join("old-properties.sh");
    let port = crate::world::process::free_port();
    let crate::world::store::Store::Redis(server) = &world.store else { panic!("not Redis") };
    let text = format!(
        "export SFTPPROXY_PRIVATEKEY_PATH={host}\nexport SFTPPROXY_PUBLICKEY_PATH={host}.pub\nexport SFTPPROXY_HOME={files}\n\
         export SFTPPROXY_PORT={port}\nexport SFTPPROXY_USERID=1000\nexport SFTPPROXY_GROUPID=1000\n\
         export SFTPPROXY_CLIENT_USER={login}\nexport SFTPPROXY_REDIS_HOST=localhost\nexport SFTPPROXY_REDIS_PORT={redis}\n\
         export SFTPPROXY_REDIS_DB=1\nexport SFTPPROXY_REDIS_PASSWORD=\n",
        host = host.private.display(),
        files = world.sshd.files.display(),
        login = crate::world::sshd::login(),
        redis = server.port,
    );
    // As root the program becomes user 1000, who could not read this test's keys: the old program stayed what it was.
    std::fs::write(&properties, text.replace("=1000", "=")).unwrap();
    let key = keys::rsa("old-user");
    server.set(&format!("pysftpproxy:pubkey:{}", key.base64()), "bob");
    let mut record = redis::cmd("HSET");
    server.ask(record.arg("pysftpproxy:user:bob").arg("remote").arg("127.0.0.1").arg("port").arg(world.sshd.port));
    let home = folder.join("home");
    // The account's own key and known_hosts, as the predecessor used them.
    std::fs::create_dir_all(home.join(".ssh")).unwrap();
    std::fs::copy(&keys::ed25519("router-user").private, home.join(".ssh/id_ed25519")).unwrap();
    let known = format!("[127.0.0.1]:{} {}\n", world.sshd.port, world.sshd.host_key.line());
    std::fs::write(home.join(".ssh/known_hosts"), known).unwrap();

    let mut command = Command::new("bash");
    command.arg("-c").arg("source \"$1\" && exec \"$2\"").arg("start").arg(&properties).arg(env!("CARGO_BIN_EXE_sftpproxy"));
    let process = Process::start(command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", &home));
    process.wait_for("listening on ", 1, LIMIT).unwrap_or_else(|lines| panic!("{}", lines.join("\n")));
    let bob = crate::world::clients::Target::new(port, "bob", &key, &[host], &world.client());
    std::fs::write(world.client().join("old"), "as before").unwrap();
    let output = bob.sftp("pwd\nput old\n").success();
    assert!(output.contains(&world.sshd.files.display().to_string()), "{output}");
    assert_eq!(std::fs::read_to_string(world.sshd.files.join("old")).unwrap(), "as before");
}

#[test]
fn an_option_of_the_command_line_wins_over_the_environment() {
    let world = World::start();
    let output = world.command(&["--port", "4711", "check-config"]);
    assert!(output.code == 0 && output.stdout.contains("port 4711"), "{output:?}");
    let output = world.command(&["--rsa-min-size", "512", "--login-timeout", "soon", "check-config"]);
    assert_eq!(output.code, 2);
    for name in ["SFTPPROXY_RSA_MIN_SIZE = \"512\": expected", "SFTPPROXY_LOGIN_TIMEOUT = \"soon\": expected"] {
        assert!(output.stderr.contains(name), "{output:?}");
    }
}

#[test]
fn check_config_looks_into_the_files_and_algorithms_that_settings_name() {
    let world = World::start();
    let folder = world.folder.path();
    let loose = folder.join("loose");
    std::fs::copy(&keys::ed25519("loose").private, &loose).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&loose, mode).unwrap();
    std::fs::write(folder.join("broken.toml"), "[users.x]\nport = \n").unwrap();
    let (loose, broken) = (loose.display().to_string(), folder.join("broken.toml").display().to_string());
    for (arguments, reason) in [
        (["--privatekey-path", &loose], "chmod 600"),
        (["--privatekey-path", "/nowhere"], "/nowhere"),
        (["--routes-file", &broken], "line 2"),
        (["--ciphers", "rot13"], "SFTPPROXY_CIPHERS"),
        (["--banner", "/nowhere"], "SFTPPROXY_BANNER"),
        (["--userid", "nobody-of-that-name"], "SFTPPROXY_USERID"),
    ] {
        let output = world.command(&[arguments[0], arguments[1], "check-config"]);
        assert!(output.code == 2 && output.stderr.contains(reason), "{arguments:?}: {output:?}");
    }
}

#[test]
fn a_variable_that_is_no_setting_is_warned_of() {
    let world = World::start();
    let mut command = world.router.command();
    let output = crate::world::process::run(command.env("SFTPPROXY_PROT", "22").arg("check-config"));
    assert!(output.code == 0 && output.stderr.contains("SFTPPROXY_PROT is no setting"), "{output:?}");
}

#[test]
fn a_session_is_told_from_accept_to_end_with_a_line_for_each_file_operation() {
    let world = World::start();
    std::fs::write(world.client().join("f"), "12345").unwrap();
    world.proxied(USER).sftp("put f\nmkdir d\nrename f d/g\nls d\nget d/g h\nrm d/g\nrmdir d\n").success();
    let end =
        world.router.wait_for_line("end session=1 user=\"alice\" peer=127.0.0.1:*side=downstream*reason=\"the client closed");
    assert!(end.contains(" up=") && end.contains(" down=") && end.contains(" seconds="), "{end}");
    world.router.wait_for_line("accept session=1 peer=127.0.0.1:*sessions=1/1000");
    let fingerprint = keys::ed25519(USER).fingerprint();
    world
        .router
        .wait_for_line(&format!("proven session=1 user=\"alice\" key=\"ssh-ed25519 {fingerprint}\" client=\"SSH-2.0-OpenSSH"));
    let host_key = world.sshd.host_key.fingerprint();
    world.router.wait_for_line(&format!("open session=1 user=\"alice\" upstream=127.0.0.1:*host-key=\"ssh-ed25519 {host_key}\""));
    let files = world.sshd.files.display();
    for line in [
        format!("open path=\"{files}/f\" flags=write,creat,trunc"),
        format!("mkdir path=\"{files}/d\""),
        format!("rename path=\"{files}/f\" to=\"{files}/d/g\""),
        format!("opendir path=\"{files}/d"),
        format!("open path=\"{files}/d/g\" flags=read"),
        format!("remove path=\"{files}/d/g\""),
        format!("rmdir path=\"{files}/d\""),
    ] {
        world.router.wait_for_line(&format!("file session=1 user=\"alice\" *{line}"));
    }
    assert!(!world.router.lines().iter().any(|line| line.contains(" stat path=")), "looks are for debugging");
}

#[test]
fn file_operations_can_be_silenced_alone() {
    let world = world_with(&[("LOG", "info,sftpproxy::file=off")]);
    world.proxied(USER).sftp("mkdir quiet\n").success();
    world.router.wait_for_line("end session=1");
    assert!(!world.router.lines().iter().any(|line| line.contains("file session=")));
    assert!(world.sshd.files.join("quiet").is_dir());
}

#[test]
fn a_path_cannot_forge_a_line_of_the_log() {
    let world = World::start();
    std::fs::write(world.client().join("plain"), "x").unwrap();
    world.proxied(USER).sftp("put plain \"a\u{1b}[2J end session=1\"\n").success();
    let line = world.router.wait_for_line("file session=1 *open path=");
    assert!(line.contains("\\u{1b}[2J") && !line.contains('\u{1b}'), "{line}");
}

#[test]
fn the_log_file_is_rotated_at_its_size_and_only_so_many_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("router.log");
    let path = file.display().to_string();
    // The world waits for the log on standard error, so a second program is started with a file.
    let world = World::start();
    let port = crate::world::process::free_port().to_string();
    let settings =
        [("LOG_FILE", path.as_str()), ("LOG_FILE_SIZE", "1"), ("LOG_FILE_COUNT", "2"), ("LOG", "debug"), ("PORT", &port)];
    let mut command = world.router.command();
    command.envs(settings.map(|(name, value)| (format!("SFTPPROXY_{name}"), value)));
    let _process = Process::start(&mut command);
    let logged = |text: &str| std::fs::read_to_string(&file).is_ok_and(|log| log.contains(text));
    assert!(until(LIMIT, || logged("listening on ")), "nothing in {path}");
    let mut target = world.proxied(USER);
    target.port = port.parse().unwrap();
    // About 1 KiB of log for each of them, 3.5 MiB in all.
    let long = "x".repeat(600);
    let batch: String = (0..3_500).map(|number| format!("-rename {long}{number} {long}\n")).collect();
    target.sftp(&batch).success();
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    for name in names {
        let size = std::fs::metadata(folder.path().join(&name)).unwrap().len();
        assert!(size < 1024 * 1024 + 4096, "{name:?} has {size} bytes");
    }
}
