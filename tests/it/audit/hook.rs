//! The hook: programs that are slow, that fail, hang, babble or do not read; addresses that refuse, hang or speak TLS.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;
use sftpproxy::event::{Kind, Paths};

use super::{PATIENCE, kinds, lines, lines_so_far, made, program, send, started, stop, subject};
use crate::world::process::{LIMIT, Process, run, until};

/// A script that is a hook.
fn script(folder: &Path, text: &str) -> String {
    let (new, path) = (folder.join("hook.new"), folder.join("hook"));
    std::fs::write(&new, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
    // By mv, so that no other thread's child has inherited it open for writing.
    run(Command::new("cp").arg("-p").arg(&new).arg(&path)).success();
    path.display().to_string()
}

fn text(path: PathBuf) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn a_hooks_program_gets_the_event_and_nothing_of_the_routers_environment() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().display();
    let hook = script(folder.path(), &format!("cat > {out}/stdin; env > {out}/env; pwd > {out}/pwd; echo $# > {out}/done"));
    let settings = [("HOOK", hook.as_str()), ("HOOK_EVENTS", "start"), ("REDIS_PASSWORD", "geheim")];
    let mut process = Process::start(program(folder.path(), &settings).env("LANG", "C.UTF-8").env("OTHER", "geheim"));
    assert!(until(LIMIT, || folder.path().join("done").exists()), "{:?}", process.lines());
    assert_eq!(stop(&mut process), 0);
    let event: Value = serde_json::from_str(&text(folder.path().join("stdin"))).unwrap();
    assert_eq!(event["kind"], "start");
    let environment = text(folder.path().join("env"));
    assert!(environment.contains("SFTP_EVENT=start\n") && environment.contains("LANG=C.UTF-8\n"), "{environment}");
    assert!(!environment.contains("geheim") && !environment.contains("SFTPPROXY"), "{environment}");
    assert_eq!((text(folder.path().join("pwd")).as_str(), text(folder.path().join("done")).as_str()), ("/\n", "0\n"));
}

#[test]
fn paths_are_variables_as_they_are_whatever_is_in_them() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().display();
    let hook =
        script(folder.path(), &format!("printf '%s|%s' \"$SFTP_USER\" \"$SFTP_PATH\" > {out}/$(cat | cksum | cut -d' ' -f1)"));
    let running = started(&[("hook", &hook), ("hook-events", "operation")]);
    let evil = format!("/srv/$(touch {out}/evil); touch {out}/evil\n`touch {out}/evil`\"'é").into_bytes();
    let paths = [evil, b"/srv/\xff\xfe".to_vec(), b"/nul\0nul".to_vec(), vec![b'x'; 200_000]];
    for path in &paths {
        running.audit().send(Some(&subject()), made(path.clone()));
    }
    assert_eq!(running.close(PATIENCE), 0);
    let written = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let mut seen: Vec<_> = written
        .filter(|path| !path.file_name().unwrap().to_str().unwrap().starts_with("hook"))
        .map(|path| std::fs::read(path).unwrap())
        .collect();
    // What no variable can hold, or is too long for one, is in the JSON only.
    let mut expected = vec![
        [b"alice|", paths[0].as_slice()].concat(),
        [b"alice|", paths[1].as_slice()].concat(),
        b"alice|".to_vec(),
        b"alice|".to_vec(),
    ];
    seen.sort();
    expected.sort();
    assert!(
        seen == expected,
        "{} files, {:?}",
        seen.len(),
        seen.iter().map(|seen| String::from_utf8_lossy(seen)).collect::<Vec<_>>()
    );
}

#[test]
fn a_program_that_fails_is_run_again_later_and_the_event_is_not_lost() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().display();
    let hook = script(folder.path(), &format!("echo . >> {out}/runs; [ $(wc -l < {out}/runs) -ge 3 ] && cat > {out}/taken"));
    let running = started(&[("hook", &hook), ("hook-events", "operation")]);
    let begin = Instant::now();
    send(&running.audit(), 7..8);
    assert!(until(LIMIT, || text(folder.path().join("taken")).contains("/srv/7")), "{}", text(folder.path().join("runs")));
    // After 1 second and then after 2.
    assert!(begin.elapsed() >= Duration::from_secs(3), "{:?}", begin.elapsed());
    assert_eq!(running.close(PATIENCE), 0);
    assert_eq!(text(folder.path().join("runs")).lines().count(), 3);
}

#[test]
fn an_event_that_is_never_taken_is_given_up_counted_and_said_with_what_the_program_printed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit");
    let hook = script(folder.path(), "echo the disk is on fire >&2; exit 7");
    let settings = [
        ("AUDIT", format!("file:{}", file.display())),
        ("HOOK", hook),
        ("HOOK_EVENTS", "start".into()),
        ("HOOK_ATTEMPTS", "2".into()),
    ];
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut process = Process::start(&mut program(folder.path(), &settings));
    let said = process.wait_for(
        "audit: hook for start: the program ended with exit code 7, printed \"the disk is on fire\"*attempt 1 of 2",
        1,
        LIMIT,
    );
    assert!(said.is_ok(), "{said:?}");
    let said = process.wait_for("WARN *audit: 1 events were dropped at hook", 1, LIMIT);
    assert!(said.is_ok(), "{said:?}");
    assert_eq!(stop(&mut process), 0);
    let lines = lines(&file);
    assert_eq!(kinds(&lines), ["start", "dropped", "stop"]);
    assert_eq!((&lines[1]["at"], &lines[1]["count"]), (&"hook".into(), &1.into()));
}

#[test]
fn a_program_that_hangs_is_killed_with_its_children_at_its_limit_and_holds_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (out, file) = (folder.path().display(), folder.path().join("audit"));
    let hook = script(folder.path(), &format!("sleep 1000 & echo $! > {out}/child; echo $$ > {out}/self; wait"));
    let sink = format!("file:{}", file.display());
    let settings = [
        ("audit", sink.as_str()),
        ("hook", &hook),
        ("hook-events", "login,operation"),
        ("hook-timeout", "5"),
        ("hook-attempts", "1"),
        ("hook-parallel", "1"),
    ];
    let running = started(&settings);
    send(&running.audit(), 0..1);
    assert!(until(LIMIT, || text(folder.path().join("self")).ends_with('\n')), "not run");
    // It hangs now; the file goes on.
    let pids = ["self", "child"].map(|name| text(folder.path().join(name)).trim().to_owned());
    assert!(until(Duration::from_secs(4), || kinds(&lines_so_far(&file)).contains(&"operation")), "the hook holds the file");
    let runs =
        |pid: &String| text(format!("/proc/{pid}/stat").into()).split(") ").nth(1).is_some_and(|state| !state.starts_with('Z'));
    assert!(pids.iter().all(runs), "{pids:?}");
    assert!(until(LIMIT, || !pids.iter().any(runs)), "{pids:?} live on");
    assert!(until(LIMIT, || super::dropped(&lines_so_far(&file), "hook") == 1), "nothing is said");
    assert_eq!(running.close(PATIENCE), 0);
}

#[test]
fn programs_that_babble_do_not_read_or_leave_somebody_behind_are_no_trouble() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit");
    let sink = format!("file:{}", file.display());
    for text in ["head -c 100000000 /dev/zero", "exec < /dev/null", "sleep 30 & exit 0", "exit 0"] {
        let hook = script(folder.path(), text);
        let running = started(&[("audit", &sink), ("hook", &hook), ("hook-events", "operation"), ("hook-attempts", "1")]);
        let begin = Instant::now();
        for _ in 0..8 {
            running.audit().send(Some(&subject()), made(vec![b'x'; 100_000]));
        }
        assert_eq!(running.close(PATIENCE), 0, "{text}");
        assert!(begin.elapsed() < Duration::from_secs(25), "{text}: {:?}", begin.elapsed());
    }
    assert_eq!(super::dropped(&lines(&file), "hook"), 0);
}

#[test]
fn no_more_programs_run_at_the_same_time_than_is_allowed_and_one_at_a_time_is_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().display();
    for parallel in ["1", "3"] {
        let text = format!("echo + $SFTP_PATH >> {out}/log{parallel}; sleep 0.1; echo - $SFTP_PATH >> {out}/log{parallel}");
        let hook = script(folder.path(), &text);
        let running = started(&[("hook", &hook), ("hook-events", "operation"), ("hook-parallel", parallel)]);
        send(&running.audit(), 0..12);
        assert_eq!(running.close(PATIENCE), 0);
    }
    let log = |parallel: &str| text(folder.path().join(format!("log{parallel}")));
    let most = |log: &str| {
        let mut now = 0_i32;
        log.lines()
            .map(|line| {
                now += if line.starts_with('+') { 1 } else { -1 };
                now
            })
            .max()
            .unwrap()
    };
    assert_eq!((most(&log("1")), most(&log("3"))), (1, 3));
    let order: String = (0..12).map(|number| format!("+ /srv/{number}\n- /srv/{number}\n")).collect();
    assert_eq!(log("1"), order);
}

#[test]
fn a_hook_that_hangs_cannot_hold_the_end_beyond_its_limit_and_what_is_left_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().display();
    let hook = script(folder.path(), &format!("echo $$ > {out}/self; exec sleep 1000"));
    let running = started(&[("hook", &hook), ("hook-events", "operation"), ("hook-timeout", "600"), ("hook-parallel", "1")]);
    send(&running.audit(), 0..5);
    assert!(until(LIMIT, || text(folder.path().join("self")).ends_with('\n')), "not run");
    let begin = Instant::now();
    assert_eq!(running.close(Duration::from_secs(1)), 5);
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    let pid = text(folder.path().join("self"));
    assert!(!Path::new(&format!("/proc/{}", pid.trim())).exists(), "it lives on");
}

/// What a receiver got: the head and the body.
type Request = (String, String);

/// A receiver of posts on loopback. Each connection has one request, which is answered with the next status; 0 = never.
fn receiver(statuses: &[u16]) -> (u16, Receiver<Request>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, requests) = channel();
    let mut statuses: VecDeque<u16> = statuses.iter().copied().collect();
    std::thread::spawn(move || {
        let mut hung = Vec::new();
        for mut stream in listener.incoming().map_while(Result::ok) {
            let Some(request) = request(&mut stream) else { continue };
            if sender.send(request).is_err() {
                return;
            }
            match statuses.pop_front().unwrap_or(200) {
                0 => hung.push(stream),
                status => {
                    let answer = format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno");
                    let _ = stream.write_all(answer.as_bytes());
                }
            }
        }
    });
    (port, requests)
}

/// A request with its body, by its length.
fn request(stream: &mut (impl Read + ?Sized)) -> Option<Request> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some((head, String::from_utf8(body).unwrap()))
}

fn posted(requests: &Receiver<Request>) -> (String, Value) {
    let (head, body) = requests.recv_timeout(LIMIT).expect("a request");
    (head, serde_json::from_str(&body).unwrap())
}

#[test]
fn an_address_gets_a_post_for_each_event_again_after_a_failure_and_not_after_a_refusal() {
    let (port, requests) = receiver(&[503, 200, 404, 302, 204]);
    let url = format!("http://alice:geheim@127.0.0.1:{port}/sftp?token=x");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit");
    let sink = format!("file:{}", file.display());
    let settings =
        [("audit", sink.as_str()), ("hook", &url), ("hook-events", "operation"), ("hook-parallel", "1"), ("hook-attempts", "3")];
    let running = started(&settings);
    send(&running.audit(), 0..4);
    let numbers = [0, 0, 1, 2, 3];
    for number in numbers {
        let (head, event) = posted(&requests);
        assert_eq!((&event["path"], &event["user"]), (&format!("/srv/{number}").into(), &"alice".into()));
        assert!(
            head.starts_with("post /sftp?token=x http/1.1\r\n") && head.contains("content-type: application/json\r\n"),
            "{head}"
        );
        // Base64 of alice:geheim, in lower case like all of the head.
        assert!(head.contains("authorization: basic ywxpy2u6z2vozwlt\r\n"), "{head}");
    }
    let unsaid = running.close(PATIENCE);
    assert_eq!(super::dropped(&lines(&file), "hook") + unsaid, 2, "two were refused");
    assert!(requests.try_recv().is_err());
}

#[test]
fn an_address_that_hangs_is_left_at_the_limit_and_tried_again() {
    let (port, requests) = receiver(&[0, 200]);
    let url = format!("http://127.0.0.1:{port}/");
    let running = started(&[("hook", &url), ("hook-events", "operation"), ("hook-timeout", "0.5"), ("hook-parallel", "1")]);
    let begin = Instant::now();
    send(&running.audit(), 0..1);
    let (first, second) = (posted(&requests).1, posted(&requests).1);
    assert_eq!(first["seq"], second["seq"]);
    assert!(begin.elapsed() >= Duration::from_millis(1500), "{:?}", begin.elapsed());
    assert_eq!(running.close(PATIENCE), 0);
}

#[test]
fn nobody_at_the_address_is_told_in_the_log_without_the_address() {
    let folder = tempfile::tempdir().unwrap();
    let port = crate::world::process::free_port();
    let url = format!("http://127.0.0.1:{port}/geheim");
    let mut process =
        Process::start(&mut program(folder.path(), &[("HOOK", &url), ("HOOK_EVENTS", "start"), ("HOOK_ATTEMPTS", "1")]));
    let said = process.wait_for("WARN *audit: hook for start: no connection*given up", 1, LIMIT);
    assert!(said.is_ok(), "{said:?}");
    assert_eq!(stop(&mut process), 0);
    assert!(!process.lines().concat().contains("geheim"), "{:?}", process.lines());
}

#[test]
fn an_https_address_is_trusted_only_through_a_known_ca() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let [ca, cert, key] = crate::stores::make_ca(folder.path());
    let [unknown, ..] = crate::stores::make_ca(other.path());
    let mut acceptor = openssl::ssl::SslAcceptor::mozilla_intermediate_v5(openssl::ssl::SslMethod::tls()).unwrap();
    acceptor.set_certificate_chain_file(cert).unwrap();
    acceptor.set_private_key_file(key, openssl::ssl::SslFiletype::PEM).unwrap();
    let (acceptor, listener) = (acceptor.build(), TcpListener::bind(("127.0.0.1", 0)).unwrap());
    let url = format!("https://127.0.0.1:{}/", listener.local_addr().unwrap().port());
    let (sender, requests) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let Ok(mut stream) = acceptor.accept::<TcpStream>(stream) else { continue };
            let Some(request) = request(&mut stream) else { continue };
            let _ = stream.write_all(b"HTTP/1.1 204 X\r\n\r\n");
            let _ = sender.send(request);
        }
    });
    let settings = [("HOOK", url.as_str()), ("HOOK_EVENTS", "start"), ("HOOK_ATTEMPTS", "1")];
    let mut refused = Process::start(program(folder.path(), &settings).env("SSL_CERT_FILE", unknown));
    let said = refused.wait_for("WARN *audit: hook for start: TLS: *SSL_CERT_FILE", 1, LIMIT);
    assert!(said.is_ok(), "{said:?}");
    assert_eq!(stop(&mut refused), 0);
    assert!(requests.try_recv().is_err());
    let mut trusted = Process::start(program(folder.path(), &settings).env("SSL_CERT_FILE", ca));
    assert_eq!(posted(&requests).1["kind"], Kind::Start.name());
    assert_eq!(stop(&mut trusted), 0);
}

#[test]
fn an_operation_with_two_paths_has_both_as_variables() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().display();
    let hook = script(folder.path(), &format!("echo \"$SFTP_PATH $SFTP_TO\" > {out}/seen"));
    let running = started(&[("hook", &hook), ("hook-events", "operation")]);
    let mut what = made("");
    if let sftpproxy::event::What::Operation { paths, .. } = &mut what {
        *paths = Some(Paths { path: b"/a".to_vec(), to: Some(b"/b".to_vec()) });
    }
    running.audit().send(Some(&subject()), what);
    assert_eq!(running.close(PATIENCE), 0);
    assert_eq!(text(folder.path().join("seen")), "/a /b\n");
}

#[test]
fn a_hook_for_every_kind_of_event_that_takes_none_does_not_beget_events_of_its_own_losses() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit");
    let sink = format!("file:{}", file.display());
    let log = folder.path().join("log");
    let hook = script(folder.path(), &format!("echo $SFTP_EVENT >> {}; exit 1", log.display()));
    let running = started(&[("audit", &sink), ("hook", &hook), ("hook-events", "all"), ("hook-attempts", "1")]);
    send(&running.audit(), 0..10);
    assert!(until(LIMIT, || text(log.clone()).contains("dropped")), "nothing is said of losses");
    let unsaid = running.close(PATIENCE);
    let lines = lines(&file);
    // Start, stop and the ten; not the events that say so.
    assert_eq!(super::dropped(&lines, "hook") + unsaid, 12, "{:?}", kinds(&lines));
}
