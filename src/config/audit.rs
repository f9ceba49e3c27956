//! The settings of the audit and the hook.

use std::path::PathBuf;
use std::time::Duration;

use super::{Redis, Values};
use crate::event::{Kind, Kinds};
use crate::secret::Secret;

/// Longest name of a Redis stream in bytes.
const MAX_STREAM: usize = 128;

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sink {
    /// A file, absolute.
    File(PathBuf),
    /// Standard output.
    Stdout,
    /// systemd's journal.
    Journald,
    /// A stream in Redis; its key is the prefix and this name.
    Redis(String),
}

/// What a hook is.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// A program, absolute.
    Command(PathBuf),
    /// An address for POST. Secret, because such addresses have tokens in them.
    Url(Secret),
}

/// The hook.
#[derive(Debug, Clone, PartialEq)]
pub struct Hook {
    /// What is called.
    pub target: Target,
    /// For which events.
    pub events: Kinds,
    /// Limit of one attempt.
    pub timeout: Duration,
    /// Attempts for an event.
    pub attempts: u32,
    /// Calls at the same time.
    pub parallel: usize,
}

/// The audit. Off when there is neither a sink nor a hook.
#[derive(Debug, Clone, PartialEq)]
pub struct Audit {
    /// Where each event goes.
    pub sinks: Vec<Sink>,
    /// Bytes at which a file is rotated; 0 = never.
    pub file_size: u64,
    /// Rotated files kept.
    pub file_count: u32,
    /// The server of streams: that of the routes' settings, whether routes are there or in a file.
    pub redis: Redis,
    /// Entries that a stream keeps, about.
    pub redis_length: u64,
    /// The hook.
    pub hook: Option<Hook>,
}

pub(super) fn parse(values: &mut Values<'_>, redis: Redis) -> Audit {
    Audit {
        sinks: sinks(values),
        file_size: values.number("audit-file-size", 0, 1_000_000) * 1024 * 1024,
        file_count: values.number("audit-file-count", 1, 1_000) as u32,
        redis,
        redis_length: values.number("audit-redis-length", 1, 1_000_000_000),
        hook: hook(values),
    }
}

fn sinks(values: &mut Values<'_>) -> Vec<Sink> {
    let allowed = "file:/PATH, stdout, journald or redis:STREAM, each at most once, separated by commas";
    let all = |text: &str| {
        let sinks: Vec<_> = text.split(',').map(|word| sink(word.trim())).collect::<Option<_>>()?;
        let twice =
            |at: usize| sinks[..at].iter().any(|sink: &Sink| std::mem::discriminant(sink) == std::mem::discriminant(&sinks[at]));
        (!(0..sinks.len()).any(twice)).then_some(sinks)
    };
    values.parsed("audit", allowed, all).unwrap_or_default()
}

fn sink(word: &str) -> Option<Sink> {
    let named = |name: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        (1..=MAX_STREAM).contains(&name.len()) && name.bytes().all(plain)
    };
    match word.split_once(':') {
        None if word == "stdout" => Some(Sink::Stdout),
        None if word == "journald" => Some(Sink::Journald),
        Some(("file", path)) if path.starts_with('/') && !path.ends_with('/') => Some(Sink::File(path.into())),
        Some(("redis", name)) if named(name) => Some(Sink::Redis(name.to_owned())),
        _ => None,
    }
}

fn hook(values: &mut Values<'_>) -> Option<Hook> {
    let url = |text: &str| {
        ["http://", "https://"]
            .iter()
            .any(|scheme| text.get(..scheme.len()).is_some_and(|head| head.eq_ignore_ascii_case(scheme)))
    };
    let target = |text: &str| match text {
        text if url(text) => Some(Target::Url(Secret::new(text.as_bytes().to_vec()))),
        text if text.starts_with('/') => Some(Target::Command(text.into())),
        _ => None,
    };
    let target = values.parsed("hook", "the absolute path of a program, or a URL with http:// or https://", target);
    let names = Kind::ALL.map(Kind::name).join(", ");
    let kinds = |text: &str| match text {
        "all" => Some(Kinds::ALL),
        text => text.split(',').map(|name| Kind::named(name.trim())).collect(),
    };
    let hook = Hook {
        events: values.parsed("hook-events", &format!("all, or some of {names}, separated by commas"), kinds).unwrap_or_default(),
        timeout: values.seconds("hook-timeout"),
        attempts: values.number("hook-attempts", 1, 100) as u32,
        parallel: values.number("hook-parallel", 1, 64) as usize,
        target: target?,
    };
    Some(hook)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn parse(given: &[(&str, &str)]) -> Result<Audit, Vec<String>> {
        let get = |flag: &str| given.iter().find(|(name, _)| *name == flag).map(|(_, value)| (*value).to_owned());
        Config::parse(&get, &|_| None).map(|config| config.audit)
    }

    #[test]
    fn nothing_is_audited_unless_it_is_asked_for() {
        let audit = parse(&[]).unwrap();
        assert_eq!((audit.sinks, audit.hook), (vec![], None));
    }

    #[test]
    fn sinks_are_named_by_kind_and_place() {
        let audit = parse(&[("audit", "file:/var/log/a.jsonl, stdout,journald,redis:events"), ("routes-file", "/r")]).unwrap();
        let file = Sink::File("/var/log/a.jsonl".into());
        assert_eq!(audit.sinks, [file, Sink::Stdout, Sink::Journald, Sink::Redis("events".into())]);
        for bad in
            ["file:relative", "file:/a/", "syslog", "stdout,stdout", "file:/a,file:/b", "redis:", "redis:user:x", ",", "stdout,"]
        {
            let faults = parse(&[("audit", bad)]).unwrap_err();
            assert!(
                faults.len() == 1 && faults[0].starts_with(&format!("SFTPPROXY_AUDIT = \"{bad}\": expected file:/PATH")),
                "{faults:?}"
            );
        }
    }

    #[test]
    fn a_hook_is_a_program_or_a_url_for_some_kinds_of_events_and_is_never_shown() {
        let hook = parse(&[("hook", "/usr/local/bin/notify")]).unwrap().hook.unwrap();
        assert_eq!(hook.target, Target::Command("/usr/local/bin/notify".into()));
        let only = |hook: &Hook| Kind::ALL.into_iter().filter(|&kind| hook.events.contains(kind)).collect::<Vec<_>>();
        assert_eq!(only(&hook), [Kind::UploadComplete]);
        let hook = parse(&[("hook", "HTTPS://x/geheim"), ("hook-events", "login, end")]).unwrap().hook.unwrap();
        assert_eq!(only(&hook), [Kind::Login, Kind::End]);
        assert!(!format!("{hook:?}").contains("geheim"));
        let faults = parse(&[("hook", "notify --geheim"), ("hook-events", "uploads")]).unwrap_err();
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[0].contains("(not shown)") && faults[1].contains("upload-complete, upload-partial"), "{faults:?}");
    }
}
