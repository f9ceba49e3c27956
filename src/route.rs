//! A user's record, parsed whole or refused: never a half valid route.
//!
//! Pure. Fields and defaults are those of the contract: `remote`, `port`, `user`, `home`; ours beside them: `key` and `key_old` (the
//! private key for the upstream, and the one before it), `hostkey` (pins), `proxy_protocol`, `hash`, `maintenance` (why nobody is let in), `from` (networks the user may come from),
//! `max_sessions`, `upload_limit` and `download_limit`, `survive` and those of the user's [`crate::policy`]. Unknown fields are ignored. An empty field is a missing one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::error::shown;
use crate::hash::Algorithm;
use crate::identity::UserName;
use crate::network::Networks;
pub use crate::pin::{HOST_KEY_TYPES, Pin, parse_pins};
use crate::policy::{self, Policy};
use crate::sealed::{KeySource, Keys};

/// A record as a store holds it: field names and values.
pub type Record = BTreeMap<String, String>;

/// The fields that have a meaning here, in the order in which they are shown.
pub const FIELDS: [&str; 23] = [
    "remote",
    "port",
    "user",
    "home",
    "key",
    "key_old",
    "hostkey",
    "proxy_protocol",
    "hash",
    "maintenance",
    "from",
    "max_sessions",
    "upload_limit",
    "download_limit",
    "survive",
    "read_only",
    "upload_only",
    "root",
    "rules",
    "allow",
    "deny",
    "max_file_size",
    "extensions",
];

/// Longest value of a field in bytes: a path and several pinned RSA keys fit.
pub const MAX_FIELD: usize = 16 * 1024;

/// Longest message of a maintenance in bytes: clients show it in one line.
pub const MAX_MESSAGE: usize = 256;

/// Most sessions that a record may allow.
const MAX_SESSIONS: usize = 100_000;

/// Largest limit in KiB a second, 10 GiB: more is a mistake in the unit.
pub const MAX_SPEED: u32 = 10 * 1024 * 1024;

/// Longest time in seconds that a lost upstream may be tried again: a client that is given nothing for longer has given up.
pub const MAX_SURVIVE: u64 = 600;

/// How fast a user may transfer, in KiB (1,024 bytes) a second; 0 = as fast as may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Speed {
    /// From the client to the upstream.
    pub up: u32,
    /// From the upstream to the client.
    pub down: u32,
}

/// What a record without the field gets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Defaults {
    /// Login at the upstream (`SFTPPROXY_CLIENT_USER`); unset = the user's own name.
    pub login: Option<String>,
    /// Start directory (`SFTPPROXY_HOME`); unset = what the upstream says.
    pub home: Option<String>,
}

/// Where a user's sessions go. Every field has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Host name or address of the upstream, without brackets.
    pub remote: String,
    /// Its port, 1 to 65535.
    pub port: u16,
    /// The login there.
    pub login: String,
    /// The directory that relative paths are resolved against, without a slash at its end unless it is `/`. Below a root it is a path
    /// as the user sees it.
    pub home: Option<String>,
    /// The private key to log in with, and the one before it.
    pub keys: Keys,
    /// Pinned host keys; empty = `known_hosts` decides.
    pub pins: Vec<Pin>,
    /// Whether the upstream is told the client's address in a PROXY header; `None` = as the setting says.
    pub proxy_header: Option<bool>,
    /// Why the user is not let in at present, in the operator's words.
    pub maintenance: Option<String>,
    /// Where the user may log in from; empty = everywhere.
    pub from: Networks,
    /// How many sessions the user may have at the same time; `None` = as the setting says.
    pub max_sessions: Option<usize>,
    /// How fast the user may transfer.
    pub speed: Speed,
    /// How long an upstream that is lost is tried again, 1 s to [`MAX_SURVIVE`]; `None` = the session ends with it.
    pub survive: Option<Duration>,
    /// What the user may do; `None` = everything.
    pub policy: Option<Arc<Policy>>,
    /// The digest of what is transferred that the audit is told; `None` = none.
    pub hash: Option<Algorithm>,
}

impl Route {
    /// Parses a record. The error has one reason for each bad field.
    pub fn parse(user: &UserName, record: &Record, defaults: &Defaults) -> Result<Self, String> {
        let mut faults = Vec::new();
        let mut field = |name: &str, check: fn(&str) -> Result<(), String>| {
            let value = record.get(name).map(String::as_str).filter(|value| !value.is_empty())?;
            match check_text(value).and_then(|()| check(value)) {
                Ok(()) => Some(value.to_owned()),
                Err(reason) => {
                    faults.push(format!("{name}: {reason}"));
                    None
                }
            }
        };
        let remote = field("remote", check_host);
        let port = field("port", |value| parse_port(value).map(drop));
        let login = field("user", |value| UserName::new(value).map(drop));
        let home = field("home", check_home);
        let key = field("key", |value| KeySource::parse(value).map(drop));
        let key_old = field("key_old", |value| KeySource::parse_old(value).map(drop));
        let pins = field("hostkey", |value| parse_pins(value).map(drop));
        let proxy = field("proxy_protocol", |value| parse_proxy(value).map(drop));
        let hash = field("hash", |value| parse_hash(value).map(drop));
        let maintenance = field("maintenance", check_message);
        let from = field("from", |value| Networks::parse(value).map(drop));
        let sessions = field("max_sessions", |value| parse_sessions(value).map(drop));
        let up = field("upload_limit", |value| parse_speed(value).map(drop));
        let down = field("download_limit", |value| parse_speed(value).map(drop));
        let survive = field("survive", |value| parse_survive(value).map(drop));
        policy::FIELDS.iter().for_each(|name| drop(field(name, |_| Ok(()))));
        let text = |name: &str| record.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let policy = Policy::parse(text).unwrap_or_else(|reasons| {
            faults.extend(reasons);
            None
        });
        if !faults.is_empty() {
            return Err(faults.join("; "));
        }
        Ok(Self {
            remote: remote.map_or_else(|| "localhost".to_owned(), |host| bare_host(&host).to_owned()),
            port: port.map_or(22, |port| parse_port(&port).unwrap_or(22)),
            login: login.or_else(|| defaults.login.clone()).unwrap_or_else(|| user.as_str().to_owned()),
            home: home.or_else(|| defaults.home.clone()).map(|home| trim_home(&home)),
            keys: Keys {
                place: format!("user {user}"),
                now: key.and_then(|key| KeySource::parse(&key).ok()),
                old: key_old.and_then(|key| KeySource::parse_old(&key).ok()),
            },
            pins: pins.map_or_else(Vec::new, |pins| parse_pins(&pins).unwrap_or_default()),
            proxy_header: proxy.and_then(|proxy| parse_proxy(&proxy).ok()),
            maintenance,
            from: from.and_then(|from| Networks::parse(&from).ok()).unwrap_or_default(),
            max_sessions: sessions.and_then(|sessions| parse_sessions(&sessions).ok()),
            speed: Speed { up: speed_of(up), down: speed_of(down) },
            survive: survive.and_then(|survive| parse_survive(&survive).ok()),
            policy: policy.map(Arc::new),
            hash: hash.and_then(|hash| parse_hash(&hash).ok()),
        })
    }

    /// `host:port`, with brackets around an IPv6 address.
    pub fn address(&self) -> String {
        address(&self.remote, self.port)
    }
}

/// What an operator has said of an upstream for all its users. Every field has been checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    /// Pinned host keys, for records without pins of their own.
    pub pins: Vec<Pin>,
    /// The private key to log in with, for records without one, and the one before it.
    pub keys: Keys,
}

/// The fields of an upstream's entry that have a meaning here.
pub const HOST_FIELDS: [&str; 3] = ["hostkey", "key", "key_old"];

impl Host {
    /// Parses the entry of the upstream at `address`, whole or not at all. Unknown fields are ignored, an empty field is a missing one.
    pub fn parse(address: &str, entry: &Record) -> Result<Self, String> {
        let text = |name: &str| {
            let value = entry.get(name).map_or("", String::as_str);
            check_text(value).map(|()| value).map_err(|reason| format!("{name}: {reason}"))
        };
        let pins = parse_pins(text("hostkey")?).map_err(|reason| format!("hostkey: {reason}"))?;
        let key = |name: &str, parse: fn(&str) -> Result<KeySource, String>| {
            let value = Some(text(name)?).filter(|value| !value.is_empty());
            value.map(parse).transpose().map_err(|reason| format!("{name}: {reason}"))
        };
        let (now, old) = (key("key", KeySource::parse)?, key("key_old", KeySource::parse_old)?);
        Ok(Self { pins, keys: Keys { place: format!("upstream {address}"), now, old } })
    }
}

/// `host:port` in lower case, with brackets around an IPv6 address: what an upstream is called in the store.
pub fn address(host: &str, port: u16) -> String {
    let host = host.to_ascii_lowercase();
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// `HOST`, `HOST:PORT`, `[V6]:PORT`, `[V6]` or `V6`, as people write it; without a port it is 22.
pub fn parse_address(given: &str) -> Result<(String, u16), String> {
    let (host, port) = match (given.strip_prefix('[').and_then(|rest| rest.split_once(']')), given.matches(':').count()) {
        (Some((host, "")), _) => (host, 22),
        (Some((host, rest)), _) => (host, parse_port(rest.strip_prefix(':').unwrap_or(rest))?),
        (None, 1) => {
            let (host, port) = given.split_once(':').unwrap_or((given, ""));
            (host, parse_port(port)?)
        }
        (None, _) => (given, 22),
    };
    check_host(host)?;
    Ok((host.to_owned(), port))
}

/// Reads a port, 1 to 65535.
pub fn parse_port(text: &str) -> Result<u16, String> {
    match text.trim().parse() {
        Ok(0) | Err(_) => Err(format!("\"{}\" is not a port from 1 to 65535", shown(text))),
        Ok(port) => Ok(port),
    }
}

/// Reads a limit, 1 to [`MAX_SPEED`] KiB a second.
pub fn parse_speed(text: &str) -> Result<u32, String> {
    match text.trim().parse() {
        Ok(speed @ 1..=MAX_SPEED) => Ok(speed),
        _ => Err(format!("\"{}\" is not a number of KiB a second from 1 to {MAX_SPEED}", shown(text))),
    }
}

/// Reads whether an upstream gets a PROXY header: `no` or `v2`.
pub fn parse_proxy(text: &str) -> Result<bool, String> {
    match text.trim() {
        "no" => Ok(false),
        "v2" => Ok(true),
        _ => Err(format!("\"{}\" is neither no nor v2", shown(text))),
    }
}

/// Reads a number of sessions, 1 to [`MAX_SESSIONS`].
fn parse_sessions(text: &str) -> Result<usize, String> {
    match text.trim().parse() {
        Ok(sessions @ 1..=MAX_SESSIONS) => Ok(sessions),
        _ => Err(format!("\"{}\" is not a number from 1 to {MAX_SESSIONS}", shown(text))),
    }
}

/// Reads for how long a lost upstream is tried again, 1 to [`MAX_SURVIVE`] seconds.
fn parse_survive(text: &str) -> Result<Duration, String> {
    match text.trim().parse() {
        Ok(seconds @ 1..=MAX_SURVIVE) => Ok(Duration::from_secs(seconds)),
        _ => Err(format!("\"{}\" is not a number of seconds from 1 to {MAX_SURVIVE}", shown(text))),
    }
}

fn speed_of(field: Option<String>) -> u32 {
    field.map_or(0, |field| parse_speed(&field).unwrap_or_default())
}

/// Checks a message of a maintenance: one line, so that it can stand in an answer and in the log.
pub fn check_message(text: &str) -> Result<(), String> {
    if text.len() > MAX_MESSAGE {
        return Err(format!("a message has at most {MAX_MESSAGE} bytes"));
    }
    if text.chars().any(char::is_control) {
        return Err("a message is one line without control characters".into());
    }
    Ok(())
}

/// Checks the name of a router: 1 to 64 letters, digits and any of `-_.:`, so that it can stand in an entry's name and before a slash.
pub fn check_node(text: &str) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    if (1..=64).contains(&text.len()) && text.bytes().all(plain) {
        return Ok(());
    }
    Err(format!("\"{}\" is not the name of a router", shown(text)))
}

fn parse_hash(text: &str) -> Result<Algorithm, String> {
    Algorithm::named(text.trim()).ok_or_else(|| format!("\"{}\" is neither sha256 nor blake3", shown(text)))
}

fn check_text(value: &str) -> Result<(), String> {
    if value.len() > MAX_FIELD {
        return Err(format!("longer than {MAX_FIELD} bytes"));
    }
    if value.contains('\0') {
        return Err("contains a NUL byte".into());
    }
    Ok(())
}

/// Checks a host name, an IPv4 address or an IPv6 address with or without brackets.
pub fn check_host(value: &str) -> Result<(), String> {
    let bare = bare_host(value);
    let is_address = bare.parse::<std::net::Ipv6Addr>().is_ok();
    let allowed = |character: char| character.is_ascii_alphanumeric() || "-._%".contains(character);
    if is_address
        || (!bare.is_empty()
            && bare.len() <= 253
            && !bare.starts_with('-')
            && bare.chars().all(|c| allowed(c) || (c == ':' && bare.contains('%'))))
    {
        return Ok(());
    }
    Err(format!("\"{}\" is not a host name or address (the port is a field of its own)", shown(value)))
}

fn bare_host(value: &str) -> &str {
    value.trim().strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(value.trim())
}

fn check_home(value: &str) -> Result<(), String> {
    if value.len() > 4096 {
        return Err("a path has at most 4096 bytes".into());
    }
    Ok(())
}

fn trim_home(home: &str) -> String {
    match home.trim_end_matches('/') {
        "" => "/".to_owned(),
        trimmed => trimmed.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(fields: &[(&str, &str)]) -> Record {
        fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn missing_and_empty_fields_get_the_contracts_defaults() {
        let alice = UserName::new("alice").unwrap();
        let route = Route::parse(&alice, &record(&[("remote", ""), ("port", ""), ("x", "y")]), &Defaults::default()).unwrap();
        assert_eq!((route.address().as_str(), route.login.as_str(), route.home), ("localhost:22", "alice", None));
        let defaults = Defaults { login: Some("root".into()), home: Some("/srv/".into()) };
        let route = Route::parse(&alice, &record(&[("remote", "[::1]"), ("port", "32772")]), &defaults).unwrap();
        assert_eq!(
            (route.address().as_str(), route.login.as_str(), route.home.as_deref()),
            ("[::1]:32772", "root", Some("/srv"))
        );
    }

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (given, host, port) in [
            ("h", "h", 22),
            ("h:2222", "h", 2222),
            ("10.0.0.7:22", "10.0.0.7", 22),
            ("[::1]:2222", "::1", 2222),
            ("[::1]", "::1", 22),
            ("fe80::1", "fe80::1", 22),
        ] {
            assert_eq!(parse_address(given), Ok((host.to_owned(), port)), "{given}");
        }
        for bad in ["", ":22", "h:0", "h:x", "a b:22", "[::1]x"] {
            assert!(parse_address(bad).is_err(), "{bad}");
        }
        assert_eq!((address("Host", 22), address("::1", 2222)), ("host:22".to_owned(), "[::1]:2222".to_owned()));
    }

    #[test]
    fn limits_and_messages_are_read_and_bounded() {
        let alice = UserName::new("alice").unwrap();
        let parsed = |fields: &[(&str, &str)]| Route::parse(&alice, &record(fields), &Defaults::default());
        let route = parsed(&[("upload_limit", "2048"), ("maintenance", "back at 14:00")]).unwrap();
        assert_eq!((route.speed, route.maintenance.as_deref()), (Speed { up: 2048, down: 0 }, Some("back at 14:00")));
        assert_eq!(parsed(&[("upload_limit", ""), ("maintenance", "")]).unwrap().maintenance, None);
        for bad in ["0", "-1", "1M", "10485761", "99999999999"] {
            assert!(parsed(&[("download_limit", bad)]).unwrap_err().starts_with("download_limit: "), "{bad}");
        }
        assert_eq!(parsed(&[("survive", "600")]).unwrap().survive, Some(Duration::from_secs(600)));
        assert_eq!(parsed(&[("survive", "")]).unwrap().survive, None);
        for bad in ["0", "601", "-1", "1.5", "yes"] {
            assert!(parsed(&[("survive", bad)]).unwrap_err().starts_with("survive: "), "{bad}");
        }
        let long = "x".repeat(MAX_MESSAGE + 1);
        for bad in ["two\nlines", "\u{1b}[2J", &long] {
            assert!(parsed(&[("maintenance", bad)]).unwrap_err().starts_with("maintenance: "), "{bad}");
        }
    }

    #[test]
    fn where_a_user_may_come_from_and_how_often_is_read_whole_or_refused() {
        let alice = UserName::new("alice").unwrap();
        let parsed = |fields: &[(&str, &str)]| Route::parse(&alice, &record(fields), &Defaults::default());
        let route = parsed(&[("from", "192.0.2.0/24 2001:db8::/32"), ("max_sessions", "2")]).unwrap();
        assert_eq!((route.from.to_string().as_str(), route.max_sessions), ("192.0.2.0/24,2001:db8::/32", Some(2)));
        let route = parsed(&[("from", ""), ("max_sessions", "")]).unwrap();
        assert_eq!((route.from.is_empty(), route.max_sessions), (true, None));
        for (field, bad) in [("from", "192.0.2.0/99"), ("from", "192.0.2.1/24"), ("max_sessions", "0"), ("max_sessions", "many")]
        {
            assert!(parsed(&[(field, bad)]).unwrap_err().starts_with(&format!("{field}: ")), "{bad}");
        }
    }

    #[test]
    fn the_fields_of_a_policy_are_fields_of_a_record_and_are_read_with_it() {
        assert!(FIELDS.ends_with(&policy::FIELDS));
        let alice = UserName::new("alice").unwrap();
        let parsed = |fields| Route::parse(&alice, &record(fields), &Defaults::default()).unwrap().policy;
        assert_eq!(parsed(&[("root", ""), ("read_only", "no")]), None);
        assert_eq!(parsed(&[("root", "/srv/alice/")]).unwrap().root(), Some("/srv/alice"));
    }

    #[test]
    fn a_record_is_refused_whole_with_every_fault_named() {
        let alice = UserName::new("alice").unwrap();
        let mut bad = record(&[("remote", "a b"), ("port", "70000"), ("hostkey", "SHA256:x"), ("home", "a\0"), ("rules", "\0")]);
        bad.extend(record(&[("read_only", "perhaps"), ("max_file_size", "1.5G"), ("hash", "md5")]));
        let error = Route::parse(&alice, &bad, &Defaults::default()).unwrap_err();
        for name in
            ["remote:", "port:", "hostkey:", "home:", "rules:", "read_only: \"perhaps\"", "max_file_size:", "hash: \"md5\""]
        {
            assert!(error.contains(name), "{error}");
        }
        assert!(Route::parse(&alice, &record(&[("remote", "h:22")]), &Defaults::default()).is_err());
        assert!(Route::parse(&alice, &record(&[("remote", "-oProxyCommand=x")]), &Defaults::default()).is_err());
    }
}
