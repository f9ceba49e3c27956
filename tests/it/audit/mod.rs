//! The audit: what an event looks like, and that every one is written, or counted and said, whatever the sinks do. Sinks are real: files,
//! redis-server, journald, our program's standard output. Events come from here, through the library, as sessions send them.

mod hook;
mod schema;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use sftpproxy::audit::queue::MOST;
use sftpproxy::audit::{Audit, Running, start};
use sftpproxy::config::Config;
use sftpproxy::event::{Kind, Outcome, Paths, Subject, What};
use sftpproxy::metrics::Metrics;

use crate::world::process::{LIMIT, Process, run, signal, until};
use crate::world::store::RedisServer;

/// How long a close may take in tests that do not test it.
const PATIENCE: Duration = Duration::from_secs(30);

/// An audit with these settings and nothing else.
fn started(settings: &[(&str, &str)]) -> Running {
    started_with(settings, &Arc::default())
}

fn started_with(settings: &[(&str, &str)], reopen: &Arc<AtomicBool>) -> Running {
    let get = |flag: &str| settings.iter().find(|(name, _)| *name == flag).map(|(_, value)| (*value).to_owned());
    let config = Config::parse(&get, &|_| None).unwrap_or_else(|faults| panic!("{faults:?}"));
    start(&config.audit, reopen, &Metrics::new(Duration::ZERO, false, 0)).unwrap_or_else(|reason| panic!("{reason}"))
}

/// Whose events they are.
fn subject() -> Arc<Subject> {
    Arc::new(Subject {
        session: 6,
        user: "alice".into(),
        client: "192.0.2.7:37756".parse().unwrap(),
        key: "SHA256:tnjPyKl7gIlaJuFWgfaM7DaeJw8rS0WimyE+qtwwWr8".into(),
        software: "SSH-2.0-OpenSSH_9.2p1".into(),
        upstream: Some("10.0.0.7:32772".into()),
    })
}

fn made(path: impl Into<Vec<u8>>) -> What {
    let time = Duration::from_micros(430);
    What::Operation { operation: "mkdir".into(), paths: Some(Paths::one(path)), flags: None, outcome: Outcome::ok(), time }
}

fn send(audit: &Audit, numbers: std::ops::Range<usize>) {
    let subject = subject();
    numbers.for_each(|number| audit.send(Some(&subject), made(format!("/srv/{number}"))));
}

/// Every line of a file as JSON.
fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    assert!(text.is_empty() || text.ends_with('\n'), "{path:?} does not end with a line's end");
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn kinds(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["kind"].as_str().unwrap()).collect()
}

fn paths(lines: &[Value]) -> Vec<&str> {
    lines.iter().filter_map(|line| line["path"].as_str()).collect()
}

fn expected(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|number| format!("/srv/{number}")).collect()
}

/// What the events `dropped` of a sink say together.
fn dropped(lines: &[Value], at: &str) -> u64 {
    lines.iter().filter(|line| line["kind"] == "dropped" && line["at"] == at).map(|line| line["count"].as_u64().unwrap()).sum()
}

/// Our program with an empty routes file and these settings.
fn program(folder: &Path, settings: &[(&str, &str)]) -> Command {
    let routes = folder.join("routes.toml");
    std::fs::write(&routes, "").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sftpproxy"));
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", folder).current_dir(folder);
    command.env("SFTPPROXY_ADDRESS", "127.0.0.1").env("SFTPPROXY_PORT", "0").env("SFTPPROXY_ROUTES_FILE", routes);
    command.env("SFTPPROXY_STATE_DIR", folder.join("state"));
    command.envs(settings.iter().map(|(name, value)| (format!("SFTPPROXY_{name}"), value)));
    command
}

/// Ends our program and returns its exit code.
fn stop(process: &mut Process) -> i32 {
    signal(process.pid(), Signal::SIGTERM);
    assert!(until(LIMIT, || process.ended().is_some()), "{:?}", process.lines());
    process.ended().unwrap()
}

#[test]
fn without_a_sink_nothing_is_wanted_and_a_hook_alone_wants_its_kinds() {
    let off = started(&[]);
    assert!(Kind::ALL.into_iter().all(|kind| !off.audit().wants(kind)));
    send(&off.audit(), 0..10);
    assert_eq!(off.close(PATIENCE), 0);
    let hook = started(&[("hook", "/bin/true"), ("hook-events", "login")]);
    assert!(hook.audit().wants(Kind::Login) && !hook.audit().wants(Kind::Operation));
    hook.close(PATIENCE);
}

#[test]
fn a_file_that_is_rotated_and_moved_away_while_four_sessions_write_has_every_event_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit");
    let setting = format!("file:{}", file.display());
    let reopen = Arc::new(AtomicBool::new(false));
    let running = started_with(&[("audit", &setting), ("audit-file-size", "1"), ("audit-file-count", "1000")], &reopen);
    // Fewer than the queues hold: what overflows is another test's.
    let (each, moved) = (MOST / 4 - 100, AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for session in 0..4 {
            let (audit, moved) = (running.audit(), &moved);
            scope.spawn(move || {
                for tenth in 0..10 {
                    assert!(until(LIMIT, || moved.load(Ordering::SeqCst) >= tenth), "tenth {tenth} waits in vain");
                    send(&audit, session * each + each * tenth / 10..session * each + each * (tenth + 1) / 10);
                }
            });
        }
        for number in 0..10 {
            // What logrotate does: rename, then the signal. At the same time the file is rotated by its size.
            let to = folder.path().join(format!("moved-{number}"));
            let has_some = || file.metadata().is_ok_and(|meta| meta.len() > 0);
            assert!(
                until(LIMIT, || has_some() && std::fs::rename(&file, &to).is_ok()),
                "nothing is written after {number} moves"
            );
            reopen.store(true, Ordering::Relaxed);
            moved.store(number + 1, Ordering::SeqCst);
        }
    });
    assert_eq!(running.close(PATIENCE), 0);
    let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() > 10, "neither rotated nor moved: {files:?}");
    let mut all: Vec<_> = files.iter().flat_map(|file| lines(file)).collect();
    all.sort_by_key(|line| line["seq"].as_u64());
    assert!(all.iter().map(|line| line["seq"].as_u64().unwrap()).eq(1..=4 * each as u64 + 2), "not every number once");
    let seen: BTreeSet<_> = paths(&all).into_iter().map(str::to_owned).collect();
    assert_eq!(seen, expected(0..4 * each).into_iter().collect());
    for path in files {
        assert!(path.metadata().unwrap().len() <= 1024 * 1024, "{path:?}");
    }
}

#[test]
fn what_is_sent_is_written_or_counted_and_said() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit");
    let running = started(&[("audit", &format!("file:{}", file.display())), ("audit-file-size", "0")]);
    let each = 100_000;
    std::thread::scope(|scope| {
        for session in 0..2 {
            let audit = running.audit();
            scope.spawn(move || send(&audit, session * each..(session + 1) * each));
        }
    });
    // What the file's lane loses after the last `dropped` event is in the answer.
    let unsaid = running.close(PATIENCE);
    let lines = lines(&file);
    let (queue, lane) = (dropped(&lines, "queue"), dropped(&lines, "file"));
    assert!(queue + lane > 0, "200,000 events at once were no flood");
    let written = kinds(&lines).iter().filter(|kind| **kind != "dropped").count();
    assert_eq!(written as u64 + queue + lane + unsaid, 2 * each as u64 + 2, "with start and stop");
    assert_eq!(kinds(&lines).first(), Some(&"start"));
}

#[test]
fn a_redis_that_hangs_holds_neither_the_sender_nor_the_file_and_gets_what_its_queue_has_kept() {
    let redis = RedisServer::start(&[]);
    let port = redis.port.to_string();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit");
    let sinks = format!("file:{},redis:events", file.display());
    let settings =
        [("audit", sinks.as_str()), ("redis-host", "127.0.0.1"), ("redis-port", &port), ("redis-command-timeout", "0.5")];
    let running = started(&settings);
    // Connected, so that it hangs in an answer.
    assert!(until(LIMIT, || redis.ask(redis::cmd("XLEN").arg("pysftpproxy:events")) == redis::Value::Int(1)));
    signal(redis.process.pid(), Signal::SIGSTOP);
    let all = MOST + 2_000;
    let (audit, mut sent) = (running.audit(), Duration::ZERO);
    for number in (0..all).step_by(4_000) {
        let (begin, end) = (Instant::now(), (number + 4_000).min(all));
        send(&audit, number..end);
        sent += begin.elapsed();
        // The file must not lose any of such a flood, so it is waited for.
        assert!(until(LIMIT, || paths(&lines_so_far(&file)).len() == end), "the file waits for Redis");
    }
    assert!(sent < Duration::from_secs(5), "the sender was held for {sent:?}");
    assert!(until(LIMIT, || dropped(&lines_so_far(&file), "redis") > 0), "nothing is said of what was dropped");
    signal(redis.process.pid(), Signal::SIGCONT);
    assert_eq!(running.close(PATIENCE), 0);
    let (lines, entries) = (lines(&file), entries(&redis));
    let counted = entries.iter().filter(|(kind, _)| kind != "dropped");
    let distinct: BTreeSet<_> = counted.map(|(_, event)| event["seq"].as_u64()).collect();
    assert_eq!(distinct.len() as u64 + dropped(&lines, "redis"), all as u64 + 2, "with start and stop");
    assert!(distinct.len() >= MOST, "the queue has kept {}", distinct.len());
    assert_eq!((dropped(&lines, "queue"), dropped(&lines, "file")), (0, 0));
}

/// The same as [`lines`], of a file that may just be written.
fn lines_so_far(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    text[..whole].lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The entries of the stream: the field `kind` and the event.
fn entries(redis: &RedisServer) -> Vec<(String, Value)> {
    let answer = redis.ask(redis::cmd("XRANGE").arg("pysftpproxy:events").arg("-").arg("+"));
    let entries: Vec<(String, Vec<(String, String)>)> = redis::from_redis_value(answer).unwrap();
    let fields = |(_, fields): (String, Vec<(String, String)>)| {
        let [(kind, name), (event, json)] = <[_; 2]>::try_from(fields).unwrap();
        assert_eq!((kind.as_str(), event.as_str()), ("kind", "event"));
        (name, serde_json::from_str(&json).unwrap())
    };
    entries.into_iter().map(fields).collect()
}

#[test]
fn a_redis_stream_gets_every_event_in_order_also_those_from_while_it_was_away_and_is_cut_at_its_length() {
    let mut redis = RedisServer::start(&[]);
    let port = redis.port.to_string();
    let settings =
        [("audit", "redis:events"), ("redis-host", "127.0.0.1"), ("redis-port", port.as_str()), ("audit-redis-length", "500")];
    let running = started(&settings);
    assert!(until(LIMIT, || entries(&redis).len() == 1), "no start");
    redis.stop();
    send(&running.audit(), 0..300);
    redis.restart();
    // What was answered too late comes twice, which its number tells (AUDIT.md).
    let once = || {
        let mut got = entries(&redis);
        let mut seen = std::collections::BTreeSet::new();
        got.retain(|(_, event)| event["kind"] != "start" && seen.insert(event["seq"].as_u64()));
        got
    };
    assert!(until(LIMIT, || once().len() == 300), "{}", entries(&redis).len());
    let got = once();
    let events: Vec<_> = got.iter().map(|(_, event)| event.clone()).collect();
    assert_eq!(paths(&events), expected(0..300));
    assert!(got.iter().all(|(kind, event)| kind == "operation" && event["user"] == "alice" && event["v"] == 1));
    send(&running.audit(), 300..3_000);
    assert_eq!(running.close(PATIENCE), 0);
    let (_, last) = entries(&redis).pop().unwrap();
    assert_eq!((&last["kind"], &last["seq"]), (&"stop".into(), &3_002.into()));
    // `~`: Redis cuts whole nodes of 100 entries.
    assert!((500..=600).contains(&entries(&redis).len()), "{} entries", entries(&redis).len());
}

#[test]
fn a_redis_that_refuses_is_told_of_in_the_log_and_the_program_goes_on() {
    let redis = RedisServer::start(&[]);
    redis.set("pysftpproxy:events", "not a stream");
    let folder = tempfile::tempdir().unwrap();
    let port = redis.port.to_string();
    let mut process = Process::start(&mut program(
        folder.path(),
        &[("AUDIT", "redis:events"), ("REDIS_HOST", "127.0.0.1"), ("REDIS_PORT", &port)],
    ));
    let said = process.wait_for("WARN *audit: redis takes no events: *WRONGTYPE*pysftpproxy:events must be a stream", 1, LIMIT);
    assert!(said.is_ok(), "{said:?}");
    assert_eq!(stop(&mut process), 0);
    let lost = process.wait_for("WARN *audit: 2 events for redis were lost at the end", 1, LIMIT);
    assert!(lost.is_ok(), "{lost:?}");
}

#[test]
fn the_program_opens_its_file_anew_on_sigusr1_and_ends_with_an_event() {
    let folder = tempfile::tempdir().unwrap();
    let (file, moved) = (folder.path().join("audit"), folder.path().join("audit-20261124"));
    let mut process = Process::start(&mut program(folder.path(), &[("AUDIT", &format!("file:{}", file.display()))]));
    assert!(until(LIMIT, || kinds(&lines_so_far(&file)) == ["start"]), "{:?}", process.lines());
    std::fs::rename(&file, &moved).unwrap();
    signal(process.pid(), Signal::SIGUSR1);
    assert!(until(LIMIT, || file.exists()), "not opened anew");
    assert_eq!(stop(&mut process), 0);
    let (before, after) = (lines(&moved), lines(&file));
    assert_eq!((kinds(&before), kinds(&after)), (vec!["start"], vec!["stop"]));
    assert_eq!((&before[0]["version"], &before[0]["run"]), (&env!("CARGO_PKG_VERSION").into(), &after[0]["run"]));
}

#[test]
fn sigusr1_without_an_audit_ends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::start(&mut program(folder.path(), &[]));
    process.wait_for("listening on ", 1, LIMIT).unwrap();
    signal(process.pid(), Signal::SIGUSR1);
    assert_eq!(stop(&mut process), 0);
}

#[test]
fn standard_output_has_the_events_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::start_stdout(&mut program(folder.path(), &[("AUDIT", "stdout")]));
    process.wait_for("\"kind\":\"start\"", 1, LIMIT).unwrap();
    assert_eq!(stop(&mut process), 0);
    process.wait_for("\"kind\":\"stop\"", 1, LIMIT).unwrap();
    let lines: Vec<Value> = process.lines().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(kinds(&lines), ["start", "stop"]);
}

#[test]
fn journald_has_each_event_as_an_entry_of_its_own() {
    let journald = "/lib/systemd/systemd-journald";
    if !nix::unistd::geteuid().is_root() || !Path::new(journald).exists() {
        eprintln!("not root, or no systemd-journald: this test tells nothing");
        return;
    }
    // A journald of its own, in a mount namespace where /run is empty, so that it is nobody else's.
    let folder = tempfile::tempdir().unwrap();
    program(folder.path(), &[]);
    let script = format!(
        "mount -t tmpfs tmpfs /run; mkdir -p /run/systemd/journal /run/log/journal
         {journald} & journal=$!
         for i in $(seq 300); do [ -S /run/systemd/journal/socket ] && break; sleep 0.1; done
         \"$1\" & router=$!
         for i in $(seq 300); do journalctl -t sftpproxy-audit -o cat 2>&1 | grep -q start && break; sleep 0.1; done
         kill $router; wait $router
         for i in $(seq 300); do journalctl SFTPPROXY_KIND=stop -o cat 2>&1 | grep -q stop && break; sleep 0.1; done
         journalctl -t sftpproxy-audit -o cat
         kill $journal; wait $journal; true"
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh", env!("CARGO_BIN_EXE_sftpproxy")]);
    command.env("SFTPPROXY_AUDIT", "journald").env("SFTPPROXY_PORT", "0").env("SFTPPROXY_ADDRESS", "127.0.0.1");
    command
        .env("SFTPPROXY_ROUTES_FILE", folder.path().join("routes.toml"))
        .env("SFTPPROXY_STATE_DIR", folder.path().join("state"));
    let output = run(&mut command);
    let lines: Vec<Value> = output.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert_eq!(kinds(&lines), ["start", "stop"], "{output:?}");
}

#[test]
fn a_sink_or_a_hook_that_cannot_work_is_told_of_by_check_config_and_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("plain");
    std::fs::write(&plain, "").unwrap();
    let (missing, plain) = (folder.path().join("no/audit").display().to_string(), plain.display().to_string());
    let mut cases = vec![
        ("AUDIT", format!("file:{missing}"), "SFTPPROXY_AUDIT = file:"),
        ("AUDIT", "file:/dev/null".to_owned(), "not a regular file"),
        ("HOOK", missing.clone(), "SFTPPROXY_HOOK = "),
        ("HOOK", plain, "chmod +x"),
        ("HOOK", "/tmp".to_owned(), "not a file"),
        ("HOOK", "http://geheim:@/".to_owned(), "SFTPPROXY_HOOK: not a URL"),
    ];
    if !Path::new("/run/systemd/journal/socket").exists() {
        cases.push(("AUDIT", "journald".to_owned(), "is systemd-journald running?"));
    }
    for (name, value, reason) in cases {
        let settings = [(name, value.as_str())];
        let checked = run(program(folder.path(), &settings).arg("check-config"));
        assert!(checked.code == 2 && checked.stderr.contains(reason), "{name}={value}: {checked:?}");
        let started = run(&mut program(folder.path(), &settings));
        assert!(started.code == 1 && started.stderr.contains(reason), "{name}={value}: {started:?}");
        assert!(!started.stderr.contains("geheim"), "{started:?}");
    }
    let both = format!("file:{missing}");
    let checked = run(program(folder.path(), &[("AUDIT", &both), ("HOOK", &missing)]).arg("check-config"));
    assert_eq!(checked.stderr.lines().filter(|line| line.contains(&missing)).count(), 2, "{checked:?}");
    // What is checked is not made: who checks may be somebody else.
    let file = folder.path().join("audit");
    assert_eq!(run(program(folder.path(), &[("AUDIT", &format!("file:{}", file.display()))]).arg("check-config")).code, 0);
    assert!(!file.exists());
}
