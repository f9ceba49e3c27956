//! What an event looks like: AUDIT.md has a line of each kind, which is what the code makes.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;
use sftpproxy::error::{Side, Stage};
use sftpproxy::event::{Event, Hash, Kind, MAX_RANGES, Outcome, Paths, Subject, Transfer, What};
use sftpproxy::identity::Negotiated;
use sftpproxy::sftp::OpenFlags;

use super::subject;

/// 2026-11-24, in the morning.
const AT: Duration = Duration::from_millis(1_795_519_618_123);

fn transfer() -> Transfer {
    Transfer {
        paths: Paths::one("/srv/report.pdf"),
        flags: OpenFlags(0x1a),
        read: 0,
        written: 3_000_000,
        time: Duration::from_micros(214_563),
        ranges: vec![(0, 3_000_000)],
        hash: None,
        partial: None,
    }
}

/// One of each kind, in the order of AUDIT.md.
fn examples() -> Vec<What> {
    let hash = Some(Hash::Sha256([0x5a; 32]));
    let [kex, cipher, mac] =
        ["sntrup761x25519-sha512@openssh.com", "chacha20-poly1305@openssh.com", "aead-poly1305"].map(String::from);
    let negotiated = Negotiated { kex, cipher, mac };
    let denied = What::Denied {
        operation: "rename".into(),
        paths: Some(Paths { path: b"/out/a".to_vec(), to: Some(b"/out/b".to_vec()) }),
        flags: None,
        reason: "read-only: rename is not allowed".into(),
    };
    vec![
        What::Start { version: "0.1.0" },
        What::Refused { reason: "nobody has this key".into() },
        What::Login { key_type: "ssh-ed25519".into(), key_bits: 256, negotiated },
        What::Open { login: "root".into(), host_key: "ssh-ed25519 SHA256:cY3hMk/T7k8z1VdYgCEDECtIhmSFUP7npqRZVp6Grf0".into() },
        What::Operation {
            operation: "open".into(),
            paths: Some(Paths::one(&b"/srv/r\xe9sum\xe9"[..])),
            flags: Some(OpenFlags(1)),
            outcome: Outcome::new(2, b"No such file"),
            time: Duration::from_micros(430),
        },
        What::Upload(Transfer { hash, ..transfer() }),
        What::Upload(Transfer {
            written: 2_031_616,
            ranges: vec![(0, 1_966_080), (2_031_616, 2_097_152)],
            partial: Some("the session ended before the file was closed".into()),
            ..transfer()
        }),
        What::Download(Transfer { flags: OpenFlags(1), read: 3_000_000, written: 0, ..transfer() }),
        What::Download(Transfer {
            flags: OpenFlags(1),
            read: 65_536,
            written: 0,
            ranges: vec![(0, 65_536)],
            hash: Some(Hash::Unavailable),
            partial: Some("not all of it was read".into()),
            ..transfer()
        }),
        denied,
        What::End {
            side: Side::Downstream,
            stage: Stage::Relay,
            reason: "the client closed the session".into(),
            up: 3_000_676,
            down: 926,
            time: Duration::from_micros(258_004),
        },
        What::Dropped { at: "redis", count: 17 },
        What::Stop {},
    ]
}

fn written(seq: u64, what: What) -> String {
    let of_router = matches!(what, What::Start { .. } | What::Dropped { .. } | What::Stop {});
    let known = !matches!(what, What::Login { .. } | What::Refused { .. });
    let subject =
        (!of_router).then(|| Subject { upstream: subject().upstream.clone().filter(|_| known), ..(*subject()).clone() }.into());
    Event { at: UNIX_EPOCH + AT, subject, what }.line("c1d4a6b2e8f03957", seq)
}

#[test]
fn each_kind_of_event_is_written_as_audit_md_says() {
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/AUDIT.md")).unwrap_or_default();
    let said: Vec<_> = document.lines().filter(|line| line.starts_with("{\"v\":")).collect();
    let made: Vec<_> = examples().into_iter().enumerate().map(|(number, what)| written(number as u64 + 1, what)).collect();
    assert_eq!(said, made, "AUDIT.md should have:\n{}", made.join("\n"));
    let kinds: Vec<_> = examples().iter().map(What::kind).collect();
    assert!(Kind::ALL.iter().all(|kind| kinds.contains(kind)) && kinds.len() == Kind::ALL.len(), "{kinds:?}");
    for field in
        made.iter().flat_map(|line| serde_json::from_str::<serde_json::Map<String, Value>>(line).unwrap()).map(|field| field.0)
    {
        assert!(document.contains(&format!("| `{field}` |")), "AUDIT.md says nothing of {field}");
    }
    for kind in Kind::ALL {
        assert!(document.contains(&format!("| `{}` |", kind.name())), "AUDIT.md says nothing of {}", kind.name());
    }
}

#[test]
fn every_byte_of_a_path_can_be_had_back_and_none_can_forge_a_line() {
    let all: Vec<u8> = (0..=255).collect();
    let line =
        written(1, What::Upload(Transfer { paths: Paths { path: all.clone(), to: Some(b"plain".to_vec()) }, ..transfer() }));
    let event: Value = serde_json::from_str(&line).unwrap();
    let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, event["path_base64"].as_str().unwrap());
    assert_eq!(bytes.unwrap(), all);
    assert!(!line.chars().any(char::is_control), "{line}");
    assert_eq!((&event["to"], &event["to_base64"]), (&"plain".into(), &Value::Null));
    let forged = "x\n{\"v\":1,\"kind\":\"login\",\"user\":\"root\"}";
    let line = written(1, What::Upload(Transfer { paths: Paths::one(forged), ..transfer() }));
    assert_eq!((line.lines().count(), serde_json::from_str::<Value>(&line).unwrap()["path"].as_str()), (1, Some(forged)));
}

#[test]
fn what_a_peer_can_make_long_is_bounded_and_said_so() {
    let ranges: Vec<_> = (0..1000).map(|number| (number * 10, number * 10 + 1)).collect();
    let event: Value = serde_json::from_str(&written(1, What::Upload(Transfer { ranges, ..transfer() }))).unwrap();
    assert_eq!((event["ranges"].as_array().unwrap().len(), &event["more_ranges"]), (MAX_RANGES, &(1000 - MAX_RANGES).into()));
    let operation = |outcome| What::Operation { operation: "x".into(), paths: None, flags: None, outcome, time: Duration::ZERO };
    let event: Value = serde_json::from_str(&written(1, operation(Outcome::new(4, &[b'x'; 100_000])))).unwrap();
    assert_eq!(
        (event["message"].as_str().unwrap().len(), &event["status"], event.get("path")),
        (1024, &"SSH_FX_FAILURE".into(), None)
    );
    let event: Value = serde_json::from_str(&written(1, operation(Outcome::new(77, b"odd")))).unwrap();
    assert_eq!((&event["code"], &event["status"]), (&77.into(), &"".into()));
}
