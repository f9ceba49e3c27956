//! What must not get out: the private keys, passwords and tokens of the router, wherever something of it can be seen.

use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use base64::prelude::{BASE64_STANDARD, Engine as _};

use crate::monitor;
use crate::world::keys::{self, Key};
use crate::world::process::{LIMIT, Process, run};
use crate::world::{Kind, Setup, USER, World};

const PASSWORD: &str = "pw-hunter2-9d41";
const TOKEN: &str = "token-5f1e7c";
const METRICS_TOKEN: &str = "metrics-token-77c0aa31";
/// The secret key for keys in the store.
const SECRET_KEY: &str = "c2VjcmV0a2V5LXNlY3JldGtleS1zZWNyZXRrZXktMzI=";

/// A world whose Redis wants the password, which the router does not know yet.
fn world() -> World {
    let mut world = World::with(Setup { store: Kind::Redis, ..Setup::default() });
    let mut set = redis::cmd("CONFIG");
    world.store.redis().ask(set.arg("SET").arg("requirepass").arg(PASSWORD));
    world
}

/// What of a private key file nobody may say: its lines but for those that have the public half, and the secret part itself.
fn parts(key: &Key) -> Vec<Vec<u8>> {
    let text = std::fs::read_to_string(&key.private).unwrap();
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with("-----")).collect();
    let bytes = BASE64_STANDARD.decode(lines.concat()).unwrap();
    let mut parts: Vec<_> = lines.iter().skip(lines.len().div_ceil(2)).map(|line| line.as_bytes().to_vec()).collect();
    // openssh-key-v1 of ed25519: the private half is 64 bytes long, the seed and then the public half.
    if let Some(at) = bytes.windows(4).rposition(|window| window == [0, 0, 0, 64]) {
        let seed = &bytes[at + 4..at + 36];
        parts.push(seed.to_vec());
        parts.push(seed.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into_bytes());
        parts.push(BASE64_STANDARD.encode(&seed[..30]).into_bytes());
    }
    parts
}

/// Everything that nobody may say.
fn secrets() -> Vec<Vec<u8>> {
    let mut secrets = vec![
        PASSWORD.into(),
        TOKEN.into(),
        METRICS_TOKEN.into(),
        BASE64_STANDARD.encode(PASSWORD).into_bytes(),
        b"PRIVATE KEY".to_vec(),
    ];
    secrets.extend([SECRET_KEY.into(), b"sealed:".to_vec()]);
    secrets.extend(["router-user", "router-host"].iter().flat_map(|name| parts(&keys::ed25519(name))));
    secrets.extend(parts(&keys::rsa("router-host")));
    secrets
}

#[track_caller]
fn has_none(what: &str, text: &[u8], secrets: &[Vec<u8>]) {
    for secret in secrets {
        let told = text.windows(secret.len()).any(|window| window == secret);
        assert!(!told, "{what} tells \"{}\":\n{}", String::from_utf8_lossy(secret), String::from_utf8_lossy(text));
    }
}

/// Every command that prints JSON, with arguments that it accepts.
fn json_commands(upstream: &str) -> Vec<Vec<String>> {
    fn walk(command: &clap::Command, path: &[String], upstream: &str, found: &mut Vec<Vec<String>>) {
        if command.get_arguments().any(|argument| argument.get_long() == Some("json")) {
            let mut words = path.to_vec();
            for argument in command.get_arguments().filter(|argument| argument.is_required_set() || argument.is_positional()) {
                words.extend(argument.get_long().map(|long| format!("--{long}")));
                let name = argument.get_value_names().and_then(<[_]>::first).map_or("", |name| name.as_str());
                words.push(if name.starts_with("HOST") { upstream } else { USER }.to_owned());
            }
            found.push([words, vec!["--json".to_owned()]].concat());
        }
        for sub in command.get_subcommands() {
            walk(sub, &[path, &[sub.get_name().to_owned()]].concat(), upstream, found);
        }
    }
    let mut found = Vec::new();
    walk(&sftpproxy::cli::command(), &[], upstream, &mut found);
    found
}

/// What the kernel shows; nothing where it does not let us.
fn proc(pid: u32, name: &str) -> Vec<u8> {
    std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default()
}

#[test]
fn no_secret_of_the_router_is_told_anywhere() {
    let mut world = world();
    let audit = world.folder.path().join("audit.jsonl");
    // Nobody listens there: the hook fails, which is told.
    let hook = format!("http://127.0.0.1:{}/{TOKEN}", crate::world::process::free_port());
    let secret_key = world.folder.path().join("secret-key");
    std::fs::write(&secret_key, SECRET_KEY).unwrap();
    std::fs::set_permissions(&secret_key, std::fs::Permissions::from_mode(0o600)).unwrap();
    world.restart(&[
        ("SFTPPROXY_REDIS_PASSWORD", PASSWORD),
        ("SFTPPROXY_SECRET_KEY_FILE", secret_key.to_str().unwrap()),
        ("SFTPPROXY_HOOK", &hook),
        ("SFTPPROXY_HOOK_EVENTS", "all"),
        ("SFTPPROXY_METRICS_ADDRESS", "127.0.0.1:0"),
        ("SFTPPROXY_METRICS_TOKEN", METRICS_TOKEN),
        ("SFTPPROXY_METRICS_USERS", "10"),
        ("SFTPPROXY_LOG", "trace"),
        ("SFTPPROXY_AUDIT", &format!("file:{}", audit.display())),
    ]);
    std::fs::write(world.client().join("f"), "12345").unwrap();
    world.proxied(USER).sftp("put f\nget f g\nrm f\n").success();
    world.proxied_with(USER, &keys::ed25519("nobodys")).sftp("pwd\n");
    world.router.wait_for_line("audit: hook for ");
    world.router.wait_for_lines("end session=", 2);
    let secrets = secrets();
    let port = monitor::port(&world);
    for (path, token) in [("/metrics", METRICS_TOKEN), ("/metrics", "wrong"), ("/readyz", METRICS_TOKEN), ("/", METRICS_TOKEN)] {
        let (_, head, body) = monitor::get_with(port, path, &format!("Authorization: Bearer {token}\r\n"));
        assert!(path != "/metrics" || token == "wrong" || body.contains("sftpproxy_"), "{head}");
        has_none(path, format!("{head}{body}").as_bytes(), &secrets);
    }
    let log = world.router.lines().join("\n");
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "nothing is traced: {log}");
    has_none("the log at trace", log.as_bytes(), &secrets);
    let events = std::fs::read(&audit).unwrap();
    assert!(events.len() > 500, "{}", String::from_utf8_lossy(&events));
    has_none("the audit", &events, &secrets);
    let environment = proc(world.router.pid(), "environ");
    assert!(environment.windows(15).any(|window| window == b"SFTPPROXY_PORT=") || environment.is_empty());
    has_none("/proc/PID/environ", &environment, &secrets);
    has_none("/proc/PID/cmdline", &proc(world.router.pid(), "cmdline"), &secrets);
    let commands = json_commands(&format!("127.0.0.1:{}", world.sshd.port));
    assert!(commands.len() >= 5, "{commands:?}");
    for command in commands {
        let words: Vec<_> = command.iter().map(String::as_str).collect();
        let output = world.command(&words);
        assert!(output.stdout.len() + output.stderr.len() > 1, "{words:?} says nothing: {output:?}");
        has_none(&words.join(" "), format!("{}{}", output.stdout, output.stderr).as_bytes(), &secrets);
    }
    // Redis answers no longer; its password is wrong; the URL has one.
    let port = world.store.redis().port;
    let url = format!("redis://:{PASSWORD}x@127.0.0.1:{port}/1");
    for (name, value) in [
        ("SFTPPROXY_REDIS_PASSWORD", format!("{PASSWORD}x")),
        ("SFTPPROXY_REDIS_URL", url),
        ("SFTPPROXY_REDIS_URL", TOKEN.into()),
    ] {
        let output = run(world.router.command().env(name, &value).env("SFTPPROXY_HOOK", TOKEN).args(["user", "list"]));
        assert_ne!(output.code, 0);
        has_none("a refusal", format!("{output:?}").as_bytes(), &secrets);
    }
}

#[test]
fn a_secret_given_as_an_option_is_gone_from_the_arguments_once_the_program_has_started() {
    let world = world();
    let mut command = world.router.command();
    let process = Process::start(command.args([
        "--port",
        "0",
        "--redis-password",
        PASSWORD,
        &format!("--hook=http://localhost/{TOKEN}"),
        "serve",
    ]));
    process.wait_for("listening on ", 1, LIMIT).unwrap();
    let arguments = proc(process.pid(), "cmdline");
    assert!(
        arguments.windows(16).any(|window| window == b"--redis-password") && arguments.ends_with(b"\0serve\0"),
        "{arguments:?}"
    );
    has_none("/proc/PID/cmdline", &arguments, &secrets());
    // It has not been forgotten where it is needed.
    assert_eq!(process.wait_for("logins are refused", 1, std::time::Duration::from_secs(1)).ok(), None);
}

#[test]
fn a_secret_comes_from_a_file_or_a_credential_that_others_cannot_read() {
    let world = world();
    let folder = world.folder.path();
    let file = |name: &str, text: &str, mode: u32| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path.display().to_string()
    };
    let list = |variables: &[(&str, &str)]| run(world.router.command().envs(variables.iter().copied()).args(["user", "list"]));
    let good = file("password", &format!("{PASSWORD}\n"), 0o600);
    let output = list(&[("SFTPPROXY_REDIS_PASSWORD_FILE", &good)]);
    assert!(output.stdout.contains(USER), "{output:?}");
    let url = file("url", &format!("redis://:{PASSWORD}@127.0.0.1:{}/1", port(&world)), 0o400);
    assert!(list(&[("SFTPPROXY_REDIS_URL_FILE", &url)]).stdout.contains(USER));
    // systemd's own modes: the group bits are those of its access control list.
    file("redis-password", PASSWORD, 0o440);
    let output = list(&[("CREDENTIALS_DIRECTORY", &folder.display().to_string())]);
    assert!(output.stdout.contains(USER), "{output:?}");
    let two = file("two", &format!("{PASSWORD}\nx\n"), 0o600);
    let open = file("open", PASSWORD, 0o644);
    for (variables, reason) in [
        (vec![("SFTPPROXY_REDIS_PASSWORD_FILE", open.as_str())], "chmod 600"),
        (vec![("SFTPPROXY_REDIS_PASSWORD_FILE", &two)], "expected one line"),
        (vec![("SFTPPROXY_REDIS_PASSWORD_FILE", "/nowhere")], "SFTPPROXY_REDIS_PASSWORD_FILE = /nowhere: "),
        (vec![("SFTPPROXY_REDIS_PASSWORD_FILE", &good), ("SFTPPROXY_REDIS_PASSWORD", "x")], "are both set"),
    ] {
        let output = list(&variables);
        assert!(output.code == 2 && output.stderr.contains(reason), "{reason}: {output:?}");
        has_none("a refusal", output.stderr.as_bytes(), &secrets());
    }
}

fn port(world: &World) -> u16 {
    let crate::world::store::Store::Redis(server) = &world.store else { panic!("not Redis") };
    server.port
}

/// Starts the program as somebody without privileges and says who owns what the kernel shows of it: root, when nobody else may look.
fn owner_of_its_secrets(program: &Path, folder: &Path, sandbox: &str) -> (u32, String) {
    let mut command = Command::new(program);
    command.env_clear().current_dir("/").uid(65534).gid(65534).env("SFTPPROXY_SANDBOX", sandbox);
    let routes = folder.join("routes.toml");
    command.env("SFTPPROXY_ROUTES_FILE", &routes).env("SFTPPROXY_STATE_DIR", folder.join(sandbox));
    let process = Process::start(command.args(["--address", "127.0.0.1", "--port", "0"]));
    process.wait_for("listening on ", 1, LIMIT).unwrap_or_else(|lines| panic!("{}", lines.join("\n")));
    let limits = String::from_utf8(proc(process.pid(), "limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap().to_owned();
    (std::fs::metadata(format!("/proc/{}/mem", process.pid())).unwrap().uid(), core)
}

#[test]
fn nobody_of_the_same_account_may_look_into_the_process_and_it_dumps_no_core() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not root: this test tells nothing");
        return;
    }
    // Where a stranger may start it and write.
    let folder = tempfile::Builder::new().prefix("sftpproxy-it-").tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let program = folder.path().join("sftpproxy");
    std::fs::copy(env!("CARGO_BIN_EXE_sftpproxy"), &program).unwrap();
    std::fs::write(folder.path().join("routes.toml"), "").unwrap();
    let (owner, core) = owner_of_its_secrets(&program, folder.path(), "yes");
    assert_eq!(owner, 0, "others of the account may look");
    assert_eq!(core.split_whitespace().skip(4).collect::<Vec<_>>(), ["0", "0", "bytes"], "{core}");
    let (owner, _) = owner_of_its_secrets(&program, folder.path(), "no");
    assert_eq!(owner, 65534, "this machine hides every process: what was seen tells nothing");
}

/// How often each of these is in the memory of a process; `None` = the kernel does not let us look.
fn in_memory(pid: u32, parts: &[Vec<u8>]) -> Option<Vec<usize>> {
    let maps = String::from_utf8(proc(pid, "maps")).unwrap();
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).ok()?;
    let (mut counts, mut held) = (vec![0; parts.len()], Vec::new());
    let begins: Vec<_> = (0..=255).map(|byte| parts.iter().any(|part| part[0] == byte)).collect();
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [from, to] = [from, to].map(|at| u64::from_str_radix(at, 16).unwrap());
        held.resize((to - from) as usize, 0);
        // What has gone since is not there.
        if memory.read_exact_at(&mut held, from).is_err() {
            continue;
        }
        for (at, _) in held.iter().enumerate().filter(|(_, byte)| begins[usize::from(**byte)]) {
            parts.iter().zip(&mut counts).for_each(|(part, count)| *count += usize::from(held[at..].starts_with(part)));
        }
    }
    Some(counts)
}

#[test]
fn the_secret_key_is_in_no_memory_once_a_key_has_been_opened_with_it() {
    let mut world = world();
    let secret_key = world.folder.path().join("secret-key");
    std::fs::write(&secret_key, SECRET_KEY).unwrap();
    std::fs::set_permissions(&secret_key, std::fs::Permissions::from_mode(0o600)).unwrap();
    world.restart(&[("SFTPPROXY_REDIS_PASSWORD", PASSWORD), ("SFTPPROXY_SECRET_KEY_FILE", secret_key.to_str().unwrap())]);
    world.command(&["upstream-key", "new", USER]).success();
    for _ in 0..3 {
        // With the new key, which the upstream does not know, and then the old one.
        world.proxied(USER).sftp("pwd\n").success();
    }
    world.router.wait_for_lines("end session=", 3);
    // What the router needs all the time shows that there is something to see.
    let looked_for: [Vec<u8>; 3] = [PASSWORD.into(), SECRET_KEY.into(), BASE64_STANDARD.decode(SECRET_KEY).unwrap()];
    let Some(found) = in_memory(world.router.pid(), &looked_for) else {
        eprintln!("not root: this test tells nothing");
        return;
    };
    assert!(found[0] > 0 && found[1..] == [0, 0], "{found:?}");
}
