//! The drop-in contract, line by line, where no other file of tests has it: defaults, start directory, host keys of both legs, keys
//! towards upstreams, lifetime.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::login::admit;
use crate::raw::{Client, Key, Login, Offer, Transport};
use crate::world::clients::Target;
use crate::world::process::{LIMIT, Output, Process, run, signal, until};
use crate::world::sshd::{Sshd, login};
use crate::world::{Kind, Setup, USER, World, keys};

/// INIT of version 3.
const INIT: [u8; 9] = [0, 0, 0, 5, 1, 0, 0, 0, 3];

fn world_with(settings: &[(&str, &str)]) -> World {
    World::with(Setup { settings, ..Setup::default() })
}

/// The record without these fields.
fn record(world: &World, without: &[&str]) -> Vec<(&'static str, String)> {
    let mut record = world.route();
    record.retain(|(name, _)| !without.contains(name));
    record
}

fn put_record(world: &World, record: &[(&str, String)]) {
    world.store.remove(USER, &[&keys::ed25519(USER)]);
    world.store.put(USER, &[&keys::ed25519(USER)], record);
}

/// Writes `~/.ssh/known_hosts` of the program's account.
pub fn know(world: &World, lines: &str) {
    let folder = world.folder.path().join("home/.ssh");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("known_hosts"), lines).unwrap();
}

/// What sftp has said, without its echo of the commands.
fn said(output: Output) -> Vec<String> {
    output.success().lines().filter(|line| !line.starts_with("sftp>")).map(|line| line.trim().to_owned()).collect()
}

fn working_directory(world: &World) -> String {
    let said = said(world.proxied(USER).sftp("pwd\n"));
    said.last().unwrap().trim_start_matches("Remote working directory: ").to_owned()
}

#[test]
fn a_record_with_nothing_but_a_port_gets_every_default() {
    for kind in [Kind::Redis, Kind::File] {
        let settings = [("CLIENT_USER", login()), ("HOME", "/usr/share".to_owned())];
        let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
        let world = World::with(Setup { store: kind, settings: &settings, ..Setup::default() });
        know(&world, &format!("localhost {}\n", world.sshd.host_key.line()));
        put_record(&world, &[("port", world.sshd.port.to_string())]);
        assert_eq!(working_directory(&world), "/usr/share", "{kind:?}");
        let open = world.router.wait_for_line("open session=");
        assert!(open.contains(&format!("upstream=localhost:{}", world.sshd.port)), "{open}");
        assert!(open.contains(&format!("login=\"{}\"", login())), "{open}");
    }
}

#[test]
fn empty_fields_of_redis_are_missing_ones_and_unknown_ones_are_ignored() {
    let (user, home) = (login(), "/usr/lib");
    let settings = [("CLIENT_USER", user.as_str()), ("HOME", home)];
    let world = World::with(Setup { store: Kind::Redis, settings: &settings, ..Setup::default() });
    know(&world, &format!("localhost {}\n", world.sshd.host_key.line()));
    let mut record = vec![("port", world.sshd.port.to_string()), ("colour", "blue".to_owned())];
    record.extend(["remote", "user", "home", "hostkey", "key"].map(|name| (name, String::new())));
    put_record(&world, &record);
    assert_eq!(working_directory(&world), home);
}

#[test]
fn without_a_port_the_upstream_is_at_port_22() {
    let world = World::start();
    put_record(&world, &record(&world, &["port"]));
    assert_ne!(world.proxied(USER).sftp("pwd\n").code, 0);
    let end = world.router.wait_for_line("end session=");
    // Whatever listens there on this machine, it is not the upstream whose key is pinned.
    let nobody = std::net::TcpStream::connect(("127.0.0.1", 22)).is_err();
    assert!(if nobody { end.contains("127.0.0.1:22: ") } else { end.contains("stage=\"trust\"") }, "{end}");
}

#[test]
fn the_start_directory_is_home_wherever_the_upstream_starts() {
    let world = World::with(Setup { sshd: &["Subsystem sftp internal-sftp -d /usr"], ..Setup::default() });
    let files = &world.sshd.files;
    assert_eq!(working_directory(&world), files.display().to_string());
    std::fs::write(world.client().join("file"), "some text").unwrap();
    let target = world.proxied(USER);
    target.sftp("put file\nmkdir folder\nrename file folder/renamed\nsymlink folder/renamed link\nput file again\n").success();
    assert_eq!(std::fs::read_to_string(files.join("folder/renamed")).unwrap(), "some text");
    assert_eq!(std::fs::read_link(files.join("link")).unwrap(), Path::new("folder/renamed"), "a link's target is text");
    assert_eq!(said(target.sftp("ls -1\n")), ["again", "folder", "link"]);
    assert_eq!(said(target.sftp("cd folder\nls -1\npwd\n"))[0], "renamed");
    let there = said(target.sftp("cd /\ncd\npwd\n"));
    assert!(there.last().unwrap().ends_with(&files.display().to_string()), "{there:?}");
    assert!(said(target.sftp("df .\n")).iter().any(|line| line.contains('%')));
    target.sftp("get again\nrm again\nrm link\nrm folder/renamed\nrmdir folder\n").success();
    assert_eq!(std::fs::read_dir(files).unwrap().count(), 0);
}

#[test]
fn without_home_the_upstream_says_where_sessions_start() {
    let world = World::with(Setup { sshd: &["Subsystem sftp internal-sftp -d /usr"], ..Setup::default() });
    put_record(&world, &record(&world, &["home"]));
    assert_eq!(working_directory(&world), "/usr");
}

#[test]
fn the_upstream_is_dialed_before_the_client_opens_its_channel_and_the_time_to_the_first_reply_is_logged() {
    let world = World::start();
    let key = Key::ed25519();
    admit(&world, "raw", &key);
    let mut client = Client::log_in(("127.0.0.1", world.router.port), "raw", &key).unwrap();
    // The client has proven its key and asked for nothing.
    world.router.wait_for_line("open session=1 ");
    let channel = client.open_sftp().unwrap();
    client.data(&channel, &INIT).unwrap();
    assert_eq!(client.recv_sftp(&channel).unwrap()[0], 2, "VERSION");
    let line = world.router.wait_for_line("reply session=1 user=\"raw\" milliseconds=");
    let milliseconds: f64 = line.rsplit('=').next().unwrap().parse().unwrap();
    assert!(milliseconds > 0.0 && milliseconds < 20_000.0, "{line}");
}

#[test]
fn requests_that_come_before_the_upstream_is_ready_wait_for_it() {
    let world = World::start();
    let key = Key::ed25519();
    admit(&world, "raw", &key);
    signal(world.sshd.process.pid(), Signal::SIGSTOP);
    let mut client = Client::log_in(("127.0.0.1", world.router.port), "raw", &key).unwrap();
    let channel = client.open_sftp().unwrap();
    client.data(&channel, &INIT).unwrap();
    client.data(&channel, &[0, 0, 0, 10, 16, 0, 0, 0, 9, 0, 0, 0, 1, b'.']).unwrap();
    // The router has read them when it has answered what came after them.
    assert!(!client.request(&channel, "shell", &[]).unwrap());
    assert!(!world.router.lines().iter().any(|line| line.contains("open session=")));
    signal(world.sshd.process.pid(), Signal::SIGCONT);
    // Both may come in one piece.
    let mut replies = Vec::new();
    while !replies.windows(5).any(|five| five == [104, 0, 0, 0, 9]) {
        let more = client.recv_data(&channel).unwrap();
        assert!(!more.is_empty(), "the session ended");
        replies.extend(more);
    }
    assert_eq!(replies[4], 2, "VERSION");
}

#[test]
fn a_change_in_the_store_is_in_force_at_the_next_login() {
    for kind in [Kind::Redis, Kind::File] {
        let world = World::with(Setup { store: kind, ..Setup::default() });
        let mut running = world.proxied(USER).session();
        running.ask("pwd", "Remote working directory");
        let mut changed = record(&world, &["home"]);
        changed.push(("home", "/usr".to_owned()));
        put_record(&world, &changed);
        assert_eq!(working_directory(&world), "/usr", "{kind:?}");
        world.store.remove(USER, &[&keys::ed25519(USER)]);
        assert_ne!(world.proxied(USER).sftp("pwd\n").code, 0, "{kind:?}: removed");
        let other = keys::rsa(USER);
        world.store.put(USER, &[&other], &changed);
        assert_ne!(world.proxied(USER).sftp("pwd\n").code, 0, "{kind:?}: the old key");
        world.proxied_with(USER, &other).sftp("pwd\n").success();
        running.ask("pwd", "Remote working directory");
        assert_eq!(running.end(), 0, "{kind:?}: the running session");
    }
}

#[test]
fn a_key_of_redis_that_expires_lets_nobody_in_any_more() {
    let mut world = World::with(Setup { store: Kind::Redis, ..Setup::default() });
    world.proxied(USER).sftp("pwd\n").success();
    let name = format!("pysftpproxy:pubkey:{}", keys::ed25519(USER).base64());
    let server = world.store.redis();
    server.ask(redis::cmd("PEXPIRE").arg(&name).arg(50));
    let gone = || server.ask(redis::cmd("EXISTS").arg(&name)) == redis::Value::Int(0);
    assert!(until(LIMIT, gone), "Redis keeps the key");
    assert_ne!(world.proxied(USER).sftp("pwd\n").code, 0);
    world.router.wait_for_line("refuse session=*nobody has this key");
}

#[test]
fn a_pem_host_key_of_the_predecessor_is_shown_to_clients_with_sha_2_only() {
    let folder = tempfile::tempdir().unwrap();
    let pem = keys::Key { private: folder.path().join("id_rsa") };
    std::fs::copy(keys::rsa("pem-host").private, &pem.private).unwrap();
    std::fs::copy(keys::rsa("pem-host").public(), pem.public()).unwrap();
    run(Command::new("ssh-keygen").args(["-q", "-p", "-m", "PEM", "-N", "", "-f"]).arg(&pem.private)).success();
    assert!(std::fs::read_to_string(&pem.private).unwrap().contains("BEGIN RSA PRIVATE KEY"));
    let paths = [pem.private.display().to_string(), pem.public().display().to_string()];
    let world = world_with(&[("PRIVATEKEY_PATH", &paths[0]), ("PUBLICKEY_PATH", &paths[1])]);
    assert!(!world.router.lines().iter().any(|line| line.contains("PUBLICKEY_PATH")), "a warning though it fits");
    let target = Target::new(world.router.port, USER, &keys::ed25519(USER), &[pem], &world.client());
    for algorithm in ["rsa-sha2-256", "rsa-sha2-512"] {
        target.clone().with_option(&format!("HostKeyAlgorithms={algorithm}")).sftp("pwd\n").success();
    }
    let output = target.with_option("HostKeyAlgorithms=ssh-rsa").sftp("pwd\n");
    // What the client says depends on whether our offer or the end reaches it first.
    assert_ne!(output.code, 0, "{output:?}");
    // A client with whom nothing is in common hears our offer, also one that says everything in one piece.
    let offer = Offer::default();
    for pieces in [1, 2].repeat(10) {
        let mut transport = Transport::dial(("127.0.0.1", world.router.port)).unwrap();
        transport.recv_banner().unwrap();
        let kexinit = transport.seal(&offer.kexinit());
        let mut said = b"SSH-2.0-raw\r\n".to_vec();
        if pieces == 2 {
            transport.send_raw(&std::mem::take(&mut said)).unwrap();
        }
        said.extend(kexinit);
        transport.send_raw(&said).unwrap();
        let answer = transport.recv_packet().expect("the offer of a router that has no ed25519 key");
        let offered = String::from_utf8_lossy(&answer).into_owned();
        assert!(offered.contains("rsa-sha2-512,rsa-sha2-256") && !offered.contains("ssh-ed25519"), "{offered}");
    }
    world
        .router
        .wait_for_lines("*side=downstream stage=\"exchange\" reason=\"kex error : no match for method server host key algo*", 20);
}

#[test]
fn each_of_several_host_keys_is_shown_to_who_asks_for_it() {
    let hosts = [keys::ed25519("router-host"), keys::rsa("router-host"), keys::ecdsa("router-host")];
    let paths = hosts.each_ref().map(|key| key.private.display().to_string()).join(",");
    let world = world_with(&[("PRIVATEKEY_PATH", &paths)]);
    for (key, algorithm) in hosts.iter().zip(["ssh-ed25519", "rsa-sha2-512", "ecdsa-sha2-nistp256"]) {
        let host_keys = std::slice::from_ref(key);
        let target = Target::new(world.router.port, USER, &keys::ed25519(USER), host_keys, &world.client());
        target.with_option(&format!("HostKeyAlgorithms={algorithm}")).sftp("pwd\n").success();
    }
}

#[test]
fn a_public_half_of_another_key_is_worth_a_warning_and_no_more() {
    let other = keys::ed25519("router-user").public().display().to_string();
    let world = world_with(&[("PUBLICKEY_PATH", &other)]);
    world.router.wait_for_line("WARN*SFTPPROXY_PUBLICKEY_PATH*does not belong to SFTPPROXY_PRIVATEKEY_PATH");
    world.proxied(USER).sftp("pwd\n").success();
}

#[test]
fn a_host_key_that_others_can_read_or_that_is_encrypted_stops_the_start_with_the_reason() {
    let world = World::start();
    let start = |path: &Path| {
        let output = run(world.router.command().env("SFTPPROXY_PRIVATEKEY_PATH", path));
        assert_ne!(output.code, 0, "{output:?}");
        output.stderr
    };
    let loose = world.folder.path().join("loose");
    std::fs::copy(keys::ed25519("router-host").private, &loose).unwrap();
    for mode in [0o644, 0o640, 0o602] {
        std::fs::set_permissions(&loose, std::fs::Permissions::from_mode(mode)).unwrap();
        let said = start(&loose);
        assert!(said.contains("chmod 600") && said.contains("loose"), "{said}");
    }
    std::fs::set_permissions(&loose, std::fs::Permissions::from_mode(0o600)).unwrap();
    run(Command::new("ssh-keygen").args(["-q", "-p", "-N", "geheim", "-f"]).arg(&loose)).success();
    let said = start(&loose);
    assert!(said.contains("passphrase") || said.contains("encrypted"), "{said}");
    std::fs::write(&loose, "rubbish").unwrap();
    assert!(start(&loose).contains("host key"));
    assert!(start(&world.folder.path().join("nowhere")).contains("nowhere"));
}

#[test]
fn the_first_start_makes_host_keys_and_the_second_one_keeps_them() {
    let mut world = world_with(&[("PRIVATEKEY_PATH", "")]);
    let state = world.folder.path().join("state");
    let read = || {
        ["ssh_host_ed25519_key", "ssh_host_rsa_key"].map(|name| {
            let path = state.join(name);
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600, "{name}");
            let output = run(Command::new("ssh-keygen").arg("-lf").arg(&path)).success();
            (std::fs::read(path).unwrap(), output)
        })
    };
    let made = read();
    assert!(made[0].1.starts_with("256 ") && made[0].1.contains("(ED25519)"), "{}", made[0].1);
    assert!(made[1].1.starts_with("3072 ") && made[1].1.contains("(RSA)"), "{}", made[1].1);
    world.restart(&[]);
    assert_eq!(read(), made);
    let listening = world.router.wait_for_line("listening on");
    for (_, line) in &made {
        assert!(listening.contains(line.split(' ').nth(1).unwrap()), "{listening} lacks {line}");
    }
    assert_eq!(std::fs::read_dir(state).unwrap().count(), 2, "nothing else is left there");
}

#[test]
fn the_banner_is_shown_to_who_logs_in_and_to_who_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("banner");
    std::fs::write(&path, "Authorised users only.\nZweite Zeile: äöü\n").unwrap();
    let world = world_with(&[("BANNER", &path.display().to_string())]);
    for key in [keys::ed25519(USER), keys::ed25519("stranger")] {
        let output = world.proxied_with(USER, &key).sftp("pwd\n");
        assert!(output.stderr.contains("Authorised users only."), "{output:?}");
    }
}

/// Lets these keys in at the world's upstream.
fn authorise(world: &World, keys: &[&keys::Key]) {
    let lines: String = keys.iter().map(|key| key.line() + "\n").collect();
    std::fs::write(world.folder.path().join("upstream/authorized_keys"), lines).unwrap();
}

#[test]
fn the_key_towards_the_upstream_is_the_records_else_the_configured_else_the_agents_else_the_accounts() {
    let mut world = World::start();
    let [of_record, configured, of_agent, own] = ["record", "configured", "agent", "own"].map(keys::ed25519);
    let own_rsa = keys::rsa("own");
    let folder = world.folder.path().to_owned();
    let (ssh, keys_dir) = (folder.join("home/.ssh"), folder.join("state/keys"));
    for folder in [&ssh, &keys_dir] {
        std::fs::create_dir_all(folder).unwrap();
    }
    for (key, to) in [(&own, ssh.join("id_ed25519")), (&own_rsa, ssh.join("id_rsa")), (&of_record, keys_dir.join("mine"))] {
        std::fs::copy(&key.private, to).unwrap();
    }
    let socket = folder.join("agent");
    let mut command = Command::new("ssh-agent");
    let agent = command.args(["-D", "-a"]).arg(&socket).stdout(Stdio::null()).stderr(Stdio::piped());
    let _agent = Process::start(agent);
    assert!(until(LIMIT, || std::os::unix::net::UnixStream::connect(&socket).is_ok()), "ssh-agent does not start");
    run(Command::new("ssh-add").arg("-q").arg(&of_agent.private).env("SSH_AUTH_SOCK", &socket)).success();

    let all = [&of_record, &configured, &of_agent, &own, &own_rsa];
    let logs_in_with = |world: &World, key: &keys::Key| {
        let before = world.sshd.process.lines().len();
        world.proxied(USER).sftp("pwd\n").success();
        let lines = world.sshd.process.lines();
        let accepted: Vec<_> = lines[before..].iter().filter(|line| line.contains("Accepted publickey")).collect();
        assert_eq!(accepted.len(), 1, "{accepted:?}");
        assert!(accepted[0].contains(&key.fingerprint()), "{accepted:?}");
    };
    authorise(&world, &all);
    world.restart(&[
        ("SFTPPROXY_UPSTREAM_KEY_PATH", &configured.private.display().to_string()),
        ("SSH_AUTH_SOCK", &socket.display().to_string()),
    ]);
    for key in ["mine".to_owned(), of_record.private.display().to_string()] {
        let mut with_key = world.route();
        with_key.push(("key", key));
        put_record(&world, &with_key);
        logs_in_with(&world, &of_record);
    }
    // Although a key is configured.
    let mut with_agent = world.route();
    with_agent.push(("key", "agent".to_owned()));
    put_record(&world, &with_agent);
    logs_in_with(&world, &of_agent);
    put_record(&world, &world.route());
    logs_in_with(&world, &configured);
    world.restart(&[("SFTPPROXY_UPSTREAM_KEY_PATH", "")]);
    logs_in_with(&world, &of_agent);
    authorise(&world, &[&own]);
    logs_in_with(&world, &own);
    world.restart(&[("SSH_AUTH_SOCK", "")]);
    logs_in_with(&world, &own);
    authorise(&world, &[&own_rsa]);
    logs_in_with(&world, &own_rsa);
    authorise(&world, &[&of_record]);
    assert_ne!(world.proxied(USER).sftp("pwd\n").code, 0);
    let end = world.router.wait_for_lines("end session=", 3).pop().unwrap();
    assert!(end.contains("side=upstream stage=\"log in\"") && end.contains("authorized_keys"), "{end}");
}

/// Whether a session is opened with this pin (empty = none) and these lines of known_hosts. When it is not, no login was tried.
#[track_caller]
pub fn trusts(world: &World, pin: &str, known: &str) -> bool {
    let mut fields = record(world, &["hostkey"]);
    fields.push(("hostkey", pin.to_owned()));
    put_record(world, &fields);
    know(world, known);
    let tried = |line: &String| line.contains("userauth-request") || line.contains("Accepted publickey");
    let before = world.sshd.process.lines().iter().filter(|line| tried(line)).count();
    let ends = world.router.lines().iter().filter(|line| line.contains("end session=")).count();
    let trusted = world.proxied(USER).sftp("pwd\n").code == 0;
    let end = world.router.wait_for_lines("end session=", ends + 1).pop().unwrap();
    if !trusted {
        assert!(end.contains("side=upstream stage=\"trust\""), "{end}");
        assert_eq!(world.sshd.process.lines().iter().filter(|line| tried(line)).count(), before, "a login was tried");
    } else {
        assert!(world.sshd.process.lines().iter().filter(|line| tried(line)).count() > before, "no login is seen at all");
    }
    trusted
}

#[test]
fn an_upstream_is_trusted_by_pin_or_known_hosts_and_otherwise_gets_no_credential() {
    let world = World::with(Setup { sshd: &["LogLevel DEBUG1"], ..Setup::default() });
    let (right, wrong) = (world.sshd.host_key.clone(), keys::ed25519("other-host"));
    let (port, blob) = (world.sshd.port, right.line());
    let line = |name: &str, key: &keys::Key| format!("{name} {}\n", key.line());
    let exact = format!("[127.0.0.1]:{port}");
    let two_words = |key: &keys::Key| key.line().split(' ').take(2).collect::<Vec<_>>().join(" ");
    let hashed = |lines: &str| {
        let file = world.folder.path().join("to-hash");
        std::fs::write(&file, lines).unwrap();
        run(Command::new("ssh-keygen").args(["-q", "-H", "-f"]).arg(&file)).success();
        let text = std::fs::read_to_string(file).unwrap();
        assert!(text.starts_with("|1|"), "{text}");
        text
    };
    let cases: [(&str, String, String, bool); 22] = [
        ("fingerprint", right.fingerprint(), String::new(), true),
        ("key line", two_words(&right), String::new(), true),
        ("key line with comment", blob, String::new(), true),
        ("several pins", format!("{},{}", wrong.fingerprint(), right.fingerprint()), String::new(), true),
        ("several pins of both kinds", format!("{}\n{}", two_words(&wrong), right.fingerprint()), String::new(), true),
        ("wrong fingerprint", wrong.fingerprint(), String::new(), false),
        ("wrong key line", two_words(&wrong), String::new(), false),
        ("wrong pin though known", wrong.fingerprint(), line(&exact, &right), false),
        ("right pin though known otherwise", right.fingerprint(), line(&exact, &wrong), true),
        ("nothing", String::new(), String::new(), false),
        ("known at its port", String::new(), line(&exact, &right), true),
        ("known by bare name", String::new(), line("127.0.0.1", &right), true),
        ("known at another port", String::new(), line("[127.0.0.1]:1", &right), false),
        ("another host", String::new(), line("127.0.0.2", &right), false),
        ("changed", String::new(), line(&exact, &wrong), false),
        ("changed by bare name", String::new(), line("127.0.0.1", &wrong), false),
        ("its port before the bare name", String::new(), line("127.0.0.1", &wrong) + &line(&exact, &right), true),
        ("its port before a right bare name", String::new(), line("127.0.0.1", &right) + &line(&exact, &wrong), false),
        ("hashed at its port", String::new(), hashed(&line(&exact, &right)), true),
        ("hashed by bare name", String::new(), hashed(&line("127.0.0.1", &right)), true),
        ("revoked", String::new(), line(&exact, &right) + "@revoked " + &line("*", &right), false),
        ("pinned and revoked", right.fingerprint(), "@revoked ".to_owned() + &line(&exact, &right), false),
    ];
    for (what, pin, known, expected) in cases {
        assert_eq!(trusts(&world, &pin, &known), expected, "{what}");
    }
}

#[test]
fn a_host_with_two_keys_of_which_only_the_rsa_one_is_known_is_trusted() {
    let rsa = keys::rsa("two-keys-host");
    let extra = format!("HostKey {}", rsa.private.display());
    let world = World::with(Setup { sshd: &["LogLevel DEBUG1", &extra], ..Setup::default() });
    let exact = format!("[127.0.0.1]:{}", world.sshd.port);
    assert!(trusts(&world, "", &format!("{exact} {}\n", rsa.line())), "known");
    assert!(trusts(&world, &rsa.line().split(' ').take(2).collect::<Vec<_>>().join(" "), ""), "pinned");
    assert!(trusts(&world, "", &format!("{exact} {}\n", world.sshd.host_key.line())), "the other one");
}

#[test]
fn the_upstreams_extensions_reach_the_client_as_they_are() {
    let world = World::start();
    let key = Key::ed25519();
    admit(&world, "raw", &key);
    let path = world.folder.path().join("upstream/authorized_keys");
    let allowed = std::fs::read_to_string(&path).unwrap() + &key.line() + "\n";
    std::fs::write(path, allowed).unwrap();
    let version = |port: u16, user: &str| {
        let mut client = Client::connect(("127.0.0.1", port)).unwrap();
        assert_eq!(client.login(&Login::new(user, &key)).unwrap(), crate::raw::Answer::Success);
        let channel = client.open_sftp().unwrap();
        client.data(&channel, &INIT).unwrap();
        client.recv_sftp(&channel).unwrap()
    };
    let direct = version(world.sshd.port, &login());
    assert_eq!(version(world.router.port, "raw"), direct);
    let text = String::from_utf8_lossy(&direct).into_owned();
    for name in ["posix-rename", "statvfs", "fsync", "hardlink", "limits"] {
        assert!(text.contains(&format!("{name}@openssh.com")), "the upstream itself lacks {name}: {text}");
    }
}

#[test]
fn an_upstream_is_reached_by_name_and_by_ipv6_address() {
    let world = World::with(Setup { sshd: &["ListenAddress ::1"], ..Setup::default() });
    let reach = |remote: &str| {
        let mut fields = record(&world, &["remote"]);
        fields.push(("remote", remote.to_owned()));
        put_record(&world, &fields);
        world.proxied(USER).sftp("pwd\n").code
    };
    assert_eq!(reach("localhost"), 0);
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        eprintln!("no IPv6 here: the rest of this test tells nothing");
        return;
    }
    for remote in ["::1", "[::1]"] {
        assert_eq!(reach(remote), 0, "{remote}");
    }
    let opened = world.router.wait_for_lines("open session=", 3);
    assert!(opened[2].contains(&format!("upstream=[::1]:{}", world.sshd.port)), "{opened:?}");
}

#[test]
fn sftp_ends_with_the_same_code_direct_and_proxied() {
    let world = World::start();
    for (batch, good) in
        [("pwd\n", true), ("", true), ("get nothing\n", false), ("rm nothing\nls\n", false), ("-rm nothing\nls\n", true)]
    {
        let (direct, proxied) = (world.direct().sftp(batch), world.proxied(USER).sftp(batch));
        assert_eq!(direct.code, proxied.code, "{batch:?}: {direct:?} {proxied:?}");
        assert_eq!(direct.code == 0, good, "{batch:?}");
    }
    let codes = [world.direct(), world.proxied(USER)].map(|target| {
        let mut session = target.session();
        session.ask("pwd", "Remote working directory");
        session.say("bye");
        session.end()
    });
    assert_eq!(codes, [0, 0]);
}

/// Processes that a process has started and that live.
pub fn children(pid: u32) -> Vec<u32> {
    let parent = |entry: &std::fs::DirEntry| {
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        stat.rsplit(") ").next()?.split(' ').nth(1)?.parse::<u32>().ok()
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter(|entry| parent(entry) == Some(pid)).filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn upstream_is_free(sshd: &Sshd) -> bool {
    until(LIMIT, || children(sshd.process.pid()).is_empty())
}

#[test]
fn the_upstream_connection_ends_when_the_clients_does_however_that_ends() {
    let world = World::start();
    let mut session = world.proxied(USER).session();
    session.ask("pwd", "Remote working directory");
    assert!(!children(world.sshd.process.pid()).is_empty(), "the upstream has no session at all");
    assert_eq!(session.end(), 0);
    assert!(upstream_is_free(&world.sshd), "after a polite end");

    let mut session = world.proxied(USER).session();
    session.ask("pwd", "Remote working directory");
    session.kill();
    assert!(upstream_is_free(&world.sshd), "after SIGKILL");
    drop(session);

    let key = Key::ed25519();
    admit(&world, "raw", &key);
    for how in [std::net::Shutdown::Both, std::net::Shutdown::Write] {
        let mut client = Client::log_in(("127.0.0.1", world.router.port), "raw", &key).unwrap();
        let channel = client.open_sftp().unwrap();
        client.data(&channel, &INIT).unwrap();
        assert_eq!(client.recv_sftp(&channel).unwrap()[0], 2, "VERSION");
        client.socket().shutdown(how).unwrap();
        assert!(upstream_is_free(&world.sshd), "after {how:?}");
    }
}
