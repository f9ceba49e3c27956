//! Counting, and the text of it.

use super::labels::Answered;
use super::*;
use crate::error::{Fault, Stage};
use crate::sftp::{KINDS, kind};

fn metrics(users: usize) -> Arc<Metrics> {
    Metrics::new(Duration::from_secs(1_795_519_618), true, users)
}

fn figures() -> Figures {
    Figures { sessions: 0, startups: 0, sources: 0, penalties: 3, bans: 2, refused: std::array::from_fn(|reason| reason as u64) }
}

fn written(metrics: &Arc<Metrics>) -> String {
    metrics.text(&figures(), 1)
}

/// The value of a series, by its whole name.
#[track_caller]
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find(|line| line.rsplit_once(' ').is_some_and(|(name, _)| name == series));
    line.and_then(|line| line.rsplit_once(' ')?.1.parse().ok()).unwrap_or_else(|| panic!("no {series} in\n{text}"))
}

#[test]
fn every_series_is_there_from_the_start_and_no_name_comes_twice() {
    let metrics = metrics(0);
    let text = written(&metrics);
    assert_eq!(value(&text, "sftpproxy_start_time_seconds"), 1_795_519_618.0);
    assert_eq!(value(&text, "sftpproxy_logins_total{outcome=\"failed\",reason=\"host_key\"}"), 0.0);
    assert_eq!(value(&text, "sftpproxy_operations_total{operation=\"posix-rename\",outcome=\"refused\"}"), 0.0);
    assert_eq!(value(&text, "sftpproxy_operation_seconds_bucket{class=\"read\",le=\"+Inf\"}"), 0.0);
    let mut names: Vec<_> =
        text.lines().filter(|line| !line.starts_with('#')).map(|line| line.rsplit_once(' ').unwrap().0).collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all);
    assert!(text.len() < 64 * 1024, "{}", text.len());
    for family in metrics.families().iter().filter(|family| !family.about().name.starts_with("sftpproxy_user_")) {
        let (name, kind) = family.shown();
        assert!(text.contains(&format!("# TYPE {name} {kind}\n")), "{name}");
    }
}

#[test]
fn a_session_is_counted_from_its_beginning_to_its_end() {
    let metrics = metrics(0);
    let one = Seen::new(&metrics);
    let two = Seen::new(&metrics);
    one.proven("alice");
    let text = written(&metrics);
    let open =
        |text: &str| (value(text, "sftpproxy_sessions{state=\"unproven\"}"), value(text, "sftpproxy_sessions{state=\"proven\"}"));
    assert_eq!(open(&text), (1.0, 1.0));
    one.opened(Duration::from_millis(30));
    one.received(Direction::Up, 1000);
    one.received(Direction::Down, 24);
    one.transferred(Direction::Up, true);
    one.ended(&Fault::new(Side::Downstream, Stage::Relay, "the client closed the session"));
    two.ended(&Fault::new(Side::Downstream, Stage::Prove, "the client disconnected"));
    drop((one, two));
    let text = written(&metrics);
    assert_eq!(open(&text), (0.0, 0.0));
    assert_eq!(metrics.bytes(), (1000, 24));
    for (series, expected) in [
        ("sftpproxy_logins_total{outcome=\"ok\",reason=\"none\"}", 1.0),
        ("sftpproxy_logins_total{outcome=\"failed\",reason=\"key\"}", 1.0),
        ("sftpproxy_sessions_ended_total{side=\"downstream\"}", 1.0),
        ("sftpproxy_login_seconds_bucket{le=\"0.025\"}", 0.0),
        ("sftpproxy_login_seconds_bucket{le=\"0.05\"}", 1.0),
        ("sftpproxy_login_seconds_count", 1.0),
        ("sftpproxy_login_seconds_sum", 0.03),
        ("sftpproxy_transfers_total{direction=\"up\",outcome=\"complete\"}", 1.0),
    ] {
        assert_eq!(value(&text, series), expected, "{series}");
    }
}

#[test]
fn the_requests_of_a_buffer_are_counted_by_kind_outcome_and_time() {
    let metrics = metrics(0);
    let seen = Seen::new(&metrics);
    let mut tally = Tally::new(&seen);
    let (read, stat) = (kind(5), kind(17));
    for _ in 0..3 {
        tally.answered(read, Answered::Ok, Some(Duration::from_micros(300)));
    }
    tally.answered(read, Answered::Ok, Some(Duration::from_millis(3)));
    tally.answered(stat, Answered::Failed, Some(Duration::from_micros(50)));
    tally.answered(stat, Answered::Refused, None);
    tally.answered(None, Answered::Never, None);
    drop(tally);
    let text = written(&metrics);
    for (series, expected) in [
        ("sftpproxy_operations_total{operation=\"read\",outcome=\"ok\"}", 4.0),
        ("sftpproxy_operations_total{operation=\"stat\",outcome=\"failed\"}", 1.0),
        ("sftpproxy_operations_total{operation=\"stat\",outcome=\"refused\"}", 1.0),
        ("sftpproxy_operations_total{operation=\"unknown\",outcome=\"never\"}", 1.0),
        ("sftpproxy_operation_seconds_bucket{class=\"read\",le=\"0.0005\"}", 3.0),
        ("sftpproxy_operation_seconds_bucket{class=\"read\",le=\"+Inf\"}", 4.0),
        ("sftpproxy_operation_seconds_count{class=\"look\"}", 1.0),
        ("sftpproxy_operation_seconds_sum{class=\"read\"}", 0.0039),
    ] {
        assert_eq!(value(&text, series), expected, "{series}");
    }
    assert!(KINDS.len() > 20);
}

#[test]
fn users_have_series_only_on_request_and_never_more_than_that() {
    let without = metrics(0);
    Seen::new(&without).proven("alice");
    assert!(!written(&without).contains("alice") && !written(&without).contains("sftpproxy_user_"));

    let metrics = metrics(2);
    for name in ["alice", "bob\"x\n", "carol", "dave", "alice"] {
        let seen = Seen::new(&metrics);
        seen.proven(name);
        seen.opened(Duration::ZERO);
        seen.received(Direction::Down, 10);
    }
    let text = written(&metrics);
    assert!(!text.contains("carol") && !text.contains("dave"), "{text}");
    assert_eq!(value(&text, "sftpproxy_user_logins_total{user=\"alice\"}"), 2.0);
    assert_eq!(value(&text, "sftpproxy_user_bytes_total{user=\"alice\",direction=\"down\"}"), 20.0);
    assert_eq!(value(&text, "sftpproxy_user_bytes_total{user=\"bob\\\"x\\n\",direction=\"down\"}"), 10.0);
    assert_eq!(value(&text, "sftpproxy_user_logins_total{user=\"\"}"), 2.0);
    assert_eq!(text.lines().filter(|line| line.starts_with("sftpproxy_user_logins_total{")).count(), 3);
}

#[test]
fn what_is_not_let_in_or_lost_is_counted_with_its_reason() {
    let metrics = metrics(0);
    metrics.store(Call::Owner, Duration::from_millis(2), true);
    metrics.store(Call::Owner, Duration::from_secs(2), false);
    metrics.audit_dropped("hook", 17);
    metrics.audit_dropped("elsewhere", 1);
    metrics.out_of_resources();
    metrics.fault(admission::Class::AuthFail);
    metrics.key_refused(KeyReason::Unknown);
    let text = written(&metrics);
    for (series, expected) in [
        ("sftpproxy_store_seconds_count{call=\"owner\"}", 2.0),
        ("sftpproxy_store_errors_total{call=\"owner\"}", 1.0),
        ("sftpproxy_audit_dropped_total{at=\"hook\"}", 17.0),
        ("sftpproxy_connections_refused_total{reason=\"max-sessions\"}", 0.0),
        ("sftpproxy_connections_refused_total{reason=\"banned\"}", 9.0),
        ("sftpproxy_connections_refused_total{reason=\"error\"}", 1.0),
        ("sftpproxy_faults_total{class=\"authfail\"}", 1.0),
        ("sftpproxy_penalties", 3.0),
        ("sftpproxy_bans", 2.0),
        ("sftpproxy_upstreams_quarantined", 1.0),
        ("sftpproxy_keys_refused_total{reason=\"unknown\"}", 1.0),
    ] {
        assert_eq!(value(&text, series), expected, "{series}");
    }
    assert!(!metrics.is_draining());
    metrics.drain();
    assert!(metrics.is_draining());
}
