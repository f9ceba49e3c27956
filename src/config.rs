//! Settings: one table, from which the environment variables, the command line options, `--help` and `properties.sh` come, and
//! [`Config`], which exists only when every value is allowed.
//!
//! A setting `redis-host` is the option `--redis-host` and the variable `SFTPPROXY_REDIS_HOST`; the option wins. An empty value is
//! an unset one. Faults are collected, not thrown: the operator sees all of them at once. Nothing here opens a file or a socket.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

pub mod admission;
pub mod audit;
pub mod control;
pub mod monitor;

use crate::error::shown;
use crate::route::Defaults;
use crate::secret::Secret;

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Name of the option, without the dashes.
    pub flag: &'static str,
    /// Value when unset; empty = none.
    pub default: &'static str,
    /// What the value is, for `--help`.
    pub value: &'static str,
    /// What it does, in one sentence.
    pub help: &'static str,
    /// Whether the value must not be shown.
    pub secret: bool,
}

impl Setting {
    /// The environment variable's name.
    pub fn variable(&self) -> String {
        format!("SFTPPROXY_{}", self.flag.to_uppercase().replace('-', "_"))
    }
}

const fn setting(flag: &'static str, default: &'static str, value: &'static str, help: &'static str) -> Setting {
    Setting { flag, default, value, help, secret: false }
}

const fn secret(flag: &'static str, value: &'static str, help: &'static str) -> Setting {
    Setting { flag, default: "", value, help, secret: true }
}

/// Ciphers towards clients: OpenSSH's list of today. No CBC.
const CIPHERS: &str =
    "chacha20-poly1305@openssh.com,aes256-gcm@openssh.com,aes128-gcm@openssh.com,aes256-ctr,aes192-ctr,aes128-ctr";

/// MACs for the CTR ciphers. No SHA-1.
pub const MACS: &str = "hmac-sha2-256-etm@openssh.com,hmac-sha2-512-etm@openssh.com,hmac-sha2-256,hmac-sha2-512";

/// Key exchange; those that the installed libssh does not know (post-quantum before 0.12) are left out by it.
pub const KEX: &str = "mlkem768x25519-sha256,sntrup761x25519-sha512,sntrup761x25519-sha512@openssh.com,curve25519-sha256,\
curve25519-sha256@libssh.org,ecdh-sha2-nistp256,ecdh-sha2-nistp384,ecdh-sha2-nistp521,diffie-hellman-group16-sha512,\
diffie-hellman-group18-sha512,diffie-hellman-group14-sha256";

/// Signatures of host keys. No SHA-1.
pub const HOST_KEY_ALGORITHMS: &str =
    "ssh-ed25519,ecdsa-sha2-nistp521,ecdsa-sha2-nistp384,ecdsa-sha2-nistp256,rsa-sha2-512,rsa-sha2-256";

/// Signatures of users' keys. No SHA-1.
pub const PUBKEY_ALGORITHMS: &str = "ssh-ed25519,sk-ssh-ed25519@openssh.com,ecdsa-sha2-nistp521,ecdsa-sha2-nistp384,\
ecdsa-sha2-nistp256,sk-ecdsa-sha2-nistp256@openssh.com,rsa-sha2-512,rsa-sha2-256";

/// All settings, in the order of `properties.sh`.
pub const SETTINGS: &[Setting] = &[
    setting("address", "", "IP[,IP…]", "Addresses to listen on; empty = all, IPv4 and IPv6."),
    setting("port", "5022", "PORT", "Port to listen on; 0 = any free one, which the log names."),
    setting(
        "state-dir",
        "",
        "DIR",
        "Where host keys are made and kept; empty = $STATE_DIRECTORY, /var/lib/sftpproxy for root, else ~/.local/state/sftpproxy.",
    ),
    setting(
        "privatekey-path",
        "",
        "FILE[,FILE…]",
        "Host keys shown to clients, one of each type; empty = made in the state directory at first start.",
    ),
    setting("publickey-path", "", "FILE", "Public half of the first host key; only compared with it."),
    setting(
        "userid",
        "",
        "UID",
        "User (number or name) to become after the port is bound and the host keys are read, when started as root.",
    ),
    setting("groupid", "", "GID", "Group (number or name) to become likewise; empty = the user's own."),
    setting("home", "", "PATH", "Start directory of a user whose record has no home; empty = what the upstream says."),
    setting("client-user", "", "NAME", "Login at the upstream when the record has no user; empty = the user's own name."),
    setting("routes-file", "", "FILE", "Routes in this TOML file instead of Redis."),
    setting("redis-host", "localhost", "HOST", "Redis server."),
    setting("redis-port", "6379", "PORT", "Its port."),
    setting("redis-db", "1", "NUMBER", "Its database."),
    secret("redis-password", "PASSWORD", "Its password; empty = none."),
    secret(
        "redis-url",
        "URL",
        "Redis as a URL instead of the four above: redis://, rediss:// (TLS), redis+unix:///path?db=1; with USER:PASSWORD@ (socket: ?user=…&pass=…) for an ACL user; redis+sentinel://HOST:PORT,…/SERVICE/1 or redis+cluster://HOST:PORT,… for several servers.",
    ),
    setting("redis-password-file", "", "FILE", "File with the password instead, on one line, readable by nobody else."),
    setting("redis-url-file", "", "FILE", "File with the URL instead, likewise."),
    setting("redis-prefix", "pysftpproxy:", "TEXT", "What all keys in Redis begin with."),
    setting("redis-connect-timeout", "2", "SECONDS", "Time limit for a connection to Redis."),
    setting("redis-command-timeout", "2", "SECONDS", "Time limit for an answer of Redis."),
    setting("redis-pool-size", "8", "NUMBER", "Connections to Redis at most."),
    setting(
        "store-grace",
        "0",
        "SECONDS",
        "How long after it was seen in Redis the route of a user who has logged in is good for new logins while Redis does not answer; 0 = not at all.",
    ),
    setting(
        "upstream-key-path",
        "",
        "FILE",
        "Private key for upstreams when the record has none; empty = ssh-agent, then ~/.ssh/id_ed25519, id_ecdsa, id_rsa.",
    ),
    setting(
        "upstream-keys-dir",
        "",
        "DIR",
        "Where a record's key that is not an absolute path is looked for; empty = keys in the state directory.",
    ),
    setting(
        "secret-key-file",
        "",
        "FILE",
        "File with the secret key (base64 of 32 bytes) that encrypts upstreams' keys in the store; empty = the systemd credential secret-key, if there is one.",
    ),
    setting("known-hosts", "", "FILE", "Host keys of upstreams without a pin; empty = ~/.ssh/known_hosts."),
    setting("upstream-connect-timeout", "10", "SECONDS", "Time limit for the TCP connection to one address of an upstream."),
    setting("upstream-exchange-timeout", "10", "SECONDS", "Time limit for the SSH key exchange with an upstream."),
    setting("upstream-login-timeout", "15", "SECONDS", "Time limit for login and opening of sftp at an upstream."),
    setting("upstream-library", "ssh2", "ssh2|libssh", "Library that speaks SSH with upstreams; libssh needs less CPU time."),
    setting(
        "upstream-reuse",
        "0",
        "SECONDS",
        "How long a user's connection to the upstream is kept for the same user's next session; 0 = not at all.",
    ),
    setting(
        "upstream-proxy-protocol",
        "no",
        "no|v2",
        "v2: begin connections to upstreams with a PROXY header that has the client's address, where the record does not say otherwise.",
    ),
    setting(
        "upstream-ciphers",
        "",
        "LIST",
        "Ciphers towards upstreams, preferred first; empty = those that cost the library least.",
    ),
    setting("upstream-macs", "", "LIST", "MACs towards upstreams; empty = the library's list."),
    setting("upstream-kex", "", "LIST", "Key exchange towards upstreams; empty = the library's list."),
    setting(
        "upstream-hostkey-algorithms",
        "",
        "LIST",
        "Host key algorithms towards upstreams, behind those of pinned keys; empty = Ed25519, ECDSA, RSA with SHA-2.",
    ),
    setting(
        "sandbox",
        "yes",
        "yes|no",
        "Whether the process shuts itself in: no core file, nobody but root may look into it, and with Landlock and seccomp it writes in its own folders only and starts no program.",
    ),
    setting(
        "login-timeout",
        "60",
        "SECONDS",
        "Time limit from accept to the open upstream channel, and later for a key exchange that a peer begins.",
    ),
    setting("drain-timeout", "30", "SECONDS", "How long sessions may go on after the first SIGTERM or SIGINT."),
    setting(
        "hand-over-timeout",
        "86400",
        "SECONDS",
        "How long sessions may go on after another router has taken over; 0 = until they end by themselves.",
    ),
    setting(
        "idle-timeout",
        "0",
        "SECONDS",
        "A session without a request for so long is ended, unless one has yet to be answered; 0 = never.",
    ),
    setting(
        "stall-timeout",
        "0",
        "SECONDS",
        "A session is ended when a side takes none of the bytes that wait for it, or the upstream answers no request, for so long; 0 = never.",
    ),
    setting("keepalive", "180", "SECONDS", "How long a peer may be gone without a word, on either side, before TCP finds out."),
    setting("max-sessions", "1000", "NUMBER", "Connections at the same time."),
    setting(
        "max-startups",
        "300",
        "NUMBER|START:RATE:FULL",
        "Connections at the same time that have not yet proven a key; 10:30:100 = from 10 on 30 % are refused by chance, all from 100 on.",
    ),
    setting("max-source-sessions", "0", "NUMBER", "Connections at the same time from one source; 0 = no limit of its own."),
    setting("max-source-startups", "0", "NUMBER", "Those of one source that have not yet proven a key; 0 = no limit of its own."),
    setting(
        "max-user-sessions",
        "0",
        "NUMBER",
        "Sessions at the same time of a user whose record has no max_sessions; 0 = no limit.",
    ),
    setting(
        "source-blocks",
        "32:64",
        "BITS:BITS",
        "Length of the prefix, of IPv4 and IPv6, within which addresses are one source.",
    ),
    setting("allow-from", "", "NETWORK[,NETWORK…]", "Nobody from elsewhere is let in; empty = everybody may come."),
    setting("deny-from", "", "NETWORK[,NETWORK…]", "Nobody from there is let in, even if allowed."),
    setting(
        "proxy-from",
        "",
        "NETWORK[,NETWORK…]",
        "Balancers whose connections begin with a PROXY header, version 1 or 2, which says where the client is; others' headers refuse.",
    ),
    setting(
        "penalties",
        "authfail:5s noauth:1s grace-exceeded:10s min:15s max:10m",
        "off|WORDS",
        "What a source owes for each fault; it is refused once that adds up to min. As sshd's PerSourcePenalties.",
    ),
    setting(
        "penalty-exempt",
        "127.0.0.0/8,::1,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7,fe80::/10",
        "none|NETWORK[,NETWORK…]",
        "Whose faults cost nothing: by default loopback and private networks, where many users may be behind one address.",
    ),
    setting("max-offered-keys", "20", "NUMBER", "Keys that a client may offer before it is disconnected."),
    setting("banner", "", "FILE", "Text shown to clients before they log in."),
    setting("ciphers", CIPHERS, "LIST", "Ciphers towards clients."),
    setting("macs", MACS, "LIST", "MACs towards clients, for ciphers that need one."),
    setting("kex", KEX, "LIST", "Key exchange towards clients; what the installed libssh does not know is left out."),
    setting("hostkey-algorithms", HOST_KEY_ALGORITHMS, "LIST", "Signatures of our host keys."),
    setting("pubkey-algorithms", PUBKEY_ALGORITHMS, "LIST", "Signatures of users' keys that are accepted."),
    setting("rsa-min-size", "2048", "BITS", "Smallest RSA key, of hosts and users, towards clients."),
    setting(
        "log",
        "info",
        "FILTER",
        "What is logged: error, warn, info, debug, trace, or a filter as env_logger takes it, such as info,sftpproxy::file=off.",
    ),
    setting("log-file", "", "FILE", "Log to this file, rotated, instead of standard error."),
    setting("log-file-size", "10", "MIB", "Size at which the log file is rotated."),
    setting("log-file-count", "5", "NUMBER", "Rotated log files to keep."),
    setting(
        "metrics-address",
        "",
        "IP:PORT",
        "Where metrics, health and a page for people are served over HTTP, such as 127.0.0.1:9922; empty = nowhere.",
    ),
    secret(
        "metrics-token",
        "TOKEN",
        "What who reads metrics and the page must show, 16 letters and digits or more; must be set if the address is not a loopback one.",
    ),
    setting("metrics-token-file", "", "FILE", "File with the token instead, on one line, readable by nobody else."),
    setting("metrics-users", "0", "NUMBER", "Users with series of their own in the metrics at most; 0 = none."),
    setting(
        "audit",
        "",
        "SINK[,SINK…]",
        "Where each event goes as a line of JSON: file:/PATH, stdout, journald, redis:STREAM; empty = nowhere.",
    ),
    setting(
        "audit-file-size",
        "100",
        "MIB",
        "Size at which the audit file is rotated; 0 = never, for who rotates it and sends SIGUSR1.",
    ),
    setting("audit-file-count", "10", "NUMBER", "Rotated audit files to keep."),
    setting("audit-redis-length", "100000", "NUMBER", "Entries that the Redis stream keeps, about."),
    secret("hook", "COMMAND|URL", "Program to run, or http:// or https:// address to POST to, for events; empty = none."),
    setting("hook-file", "", "FILE", "File with the hook's address instead, on one line, readable by nobody else."),
    setting("hook-events", "upload-complete", "KIND[,KIND…]", "Which kinds of events the hook is for; all = all."),
    setting("hook-timeout", "10", "SECONDS", "Time limit of one call of the hook."),
    setting(
        "hook-attempts",
        "8",
        "NUMBER",
        "How often the hook is called for an event that it does not take, after 1, 2, 4 … 60 seconds.",
    ),
    setting("hook-parallel", "4", "NUMBER", "Calls of the hook at the same time; 1 = one after the other, in order."),
    setting(
        "control-socket",
        "",
        "FILE",
        "Unix socket for the commands sessions and top; empty = control.sock in $RUNTIME_DIRECTORY, else in the state directory; none = no socket.",
    ),
    setting(
        "take-over",
        "no",
        "yes|no",
        "yes: take the listening sockets over from the router that answers at the control socket, which then finishes its sessions; where none answers, start as usual.",
    ),
    setting("control-mode", "0600", "0600|0660", "Mode of the control socket: who may see and end sessions."),
    setting("node", "", "NAME", "Name of this router among those at the same Redis; empty = host name and process id."),
    setting(
        "node-interval",
        "3",
        "SECONDS",
        "How often sessions are written to Redis for other nodes' commands; 0 = not at all.",
    ),
];

/// Whether a setting names the file of a secret one; [`Config`] gets the secret itself, from who reads files.
pub fn secret_of(file: &Setting) -> Option<&'static Setting> {
    let name = file.flag.strip_suffix("-file")?;
    SETTINGS.iter().find(|setting| setting.secret && setting.flag == name)
}

/// Algorithms of one leg; an empty list is the library's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Algorithms {
    /// Ciphers, comma-separated as in RFC 4251 name-lists; likewise the others.
    pub ciphers: String,
    /// MACs.
    pub macs: String,
    /// Key exchange.
    pub kex: String,
    /// Host key signatures.
    pub host_keys: String,
}

/// The downstream leg.
#[derive(Debug, Clone, PartialEq)]
pub struct Downstream {
    /// Host key files; empty = those of the state directory.
    pub host_keys: Vec<PathBuf>,
    /// Public half of the first one, to compare.
    pub public_key: Option<PathBuf>,
    /// Algorithms towards clients.
    pub algorithms: Algorithms,
    /// Accepted signatures of users' keys.
    pub pubkey_algorithms: String,
    /// Smallest RSA key in bits.
    pub rsa_min_bits: u32,
    /// File with the text shown before login.
    pub banner: Option<PathBuf>,
    /// Keys a client may offer.
    pub max_offered_keys: u32,
}

/// The library that speaks SSH with upstreams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Library {
    /// libssh2, through the crate ssh2.
    Ssh2,
    /// libssh, the one that serves clients.
    Libssh,
}

/// Where the secret key for keys in the store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretKey {
    /// In this file.
    File(PathBuf),
    /// In this file of systemd's credentials, if it is there (systemd.exec(5), `$CREDENTIALS_DIRECTORY`).
    Credential(PathBuf),
    /// Nowhere.
    None,
}

/// The upstream leg.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    /// Which library.
    pub library: Library,
    /// How long connections are kept for the next session; 0 = not at all.
    pub reuse: Duration,
    /// How long a peer may be gone before TCP finds out, downstream too.
    pub keepalive: Duration,
    /// Whether they are told the client's address in a PROXY header, when the record does not say.
    pub proxy_header: bool,
    /// Private key when the record has none.
    pub key: Option<PathBuf>,
    /// Where relative keys of records are.
    pub keys_dir: PathBuf,
    /// Where the key is that opens encrypted keys.
    pub secret_key: SecretKey,
    /// Host keys of upstreams without a pin.
    pub known_hosts: Option<PathBuf>,
    /// The account's home directory, for `.ssh`.
    pub account_home: Option<PathBuf>,
    /// Algorithms towards upstreams.
    pub algorithms: Algorithms,
    /// Limit for TCP, an address.
    pub connect_timeout: Duration,
    /// Limit for the key exchange.
    pub exchange_timeout: Duration,
    /// Limit for login and channel.
    pub login_timeout: Duration,
}

/// Which store, and how to reach it.
#[derive(Debug, Clone, PartialEq)]
pub enum Store {
    /// Redis.
    Redis(Redis),
    /// A TOML file.
    File(PathBuf),
}

/// How to reach Redis.
#[derive(Debug, Clone, PartialEq)]
pub struct Redis {
    /// Instead of the four fields below.
    pub url: Option<Secret>,
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Database number.
    pub db: i64,
    /// Password.
    pub password: Option<Secret>,
    /// What all keys begin with.
    pub prefix: String,
    /// Limit for a connection.
    pub connect_timeout: Duration,
    /// Limit for an answer.
    pub command_timeout: Duration,
    /// Connections at most.
    pub pool_size: u32,
    /// How long what it has said is good while it does not answer.
    pub grace: Duration,
}

/// Bounds of the whole process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From accept to the open upstream channel.
    pub login_timeout: Duration,
    /// Sessions' time after the first signal.
    pub drain_timeout: Duration,
    /// Sessions' time after another router has taken over; `None` = for ever.
    pub hand_over: Option<Duration>,
    /// How long a session may stand still without a request; `None` = for ever.
    pub idle: Option<Duration>,
    /// How long a transfer may stand still; `None` = for ever.
    pub stall: Option<Duration>,
}

/// The log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Filter as env_logger takes it.
    pub filter: String,
    /// File instead of standard error.
    pub file: Option<PathBuf>,
    /// Bytes at which it is rotated.
    pub file_size: usize,
    /// Rotated files kept.
    pub file_count: usize,
}

/// All settings, each allowed.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Addresses to listen on; empty = all.
    pub addresses: Vec<IpAddr>,
    /// Port to listen on.
    pub port: u16,
    /// Where made keys are kept.
    pub state_dir: PathBuf,
    /// User and group to become, as given.
    pub account: Option<(String, Option<String>)>,
    /// What records without a field get.
    pub defaults: Defaults,
    /// The store.
    pub store: Store,
    /// Towards clients.
    pub downstream: Downstream,
    /// Towards upstreams.
    pub upstream: Upstream,
    /// Bounds.
    pub limits: Limits,
    /// Who may come in.
    pub admission: admission::Admission,
    /// The log.
    pub log: Log,
    /// The audit.
    pub audit: audit::Audit,
    /// Whether the process shuts itself in.
    pub sandbox: bool,
    /// Metrics and the page.
    pub monitor: monitor::Monitor,
    /// The control socket and the other nodes.
    pub control: control::Control,
    /// The text of each setting that is no secret, as given or by default, for who compares.
    pub plain: BTreeMap<String, String>,
}

/// Reads values and collects what is wrong with them.
struct Values<'a> {
    get: &'a dyn Fn(&str) -> Option<String>,
    faults: Vec<String>,
}

impl Values<'_> {
    fn setting(flag: &str) -> &'static Setting {
        SETTINGS.iter().find(|setting| setting.flag == flag).expect("every flag that is read is in the table")
    }

    fn text(&self, flag: &str) -> Option<String> {
        let value = (self.get)(flag).filter(|value| !value.is_empty());
        value.or_else(|| Some(Self::setting(flag).default.to_owned()).filter(|value| !value.is_empty()))
    }

    fn plain(&self) -> BTreeMap<String, String> {
        let plain = SETTINGS.iter().filter(|setting| !setting.secret && setting.flag != "take-over");
        plain.map(|setting| (setting.flag.to_owned(), self.text(setting.flag).unwrap_or_default())).collect()
    }

    fn path(&self, flag: &str) -> Option<PathBuf> {
        self.text(flag).map(PathBuf::from)
    }

    /// The parsed value; a value that is not allowed becomes a fault and `None`.
    fn parsed<T>(&mut self, flag: &str, allowed: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let text = self.text(flag)?;
        let value = parse(text.trim());
        if value.is_none() {
            let setting = Self::setting(flag);
            let said = if setting.secret { "(not shown)".to_owned() } else { format!("\"{}\"", shown(&text)) };
            self.faults.push(format!("{} = {said}: expected {allowed}", setting.variable()));
        }
        value
    }

    fn number(&mut self, flag: &str, least: u64, most: u64) -> u64 {
        let within = |text: &str| text.parse().ok().filter(|number| (least..=most).contains(number));
        self.parsed(flag, &format!("a number from {least} to {most}"), within).unwrap_or(least)
    }

    fn seconds(&mut self, flag: &str) -> Duration {
        let within = |text: &str| text.parse::<f64>().ok().filter(|seconds| (0.1..=86_400.0).contains(seconds));
        Duration::from_secs_f64(self.parsed(flag, "seconds from 0.1 to 86400", within).unwrap_or(1.0))
    }

    fn seconds_or_never(&mut self, flag: &str) -> Option<Duration> {
        let within =
            |text: &str| text.parse::<f64>().ok().filter(|seconds| *seconds == 0.0 || (0.1..=86_400.0).contains(seconds));
        let seconds = self.parsed(flag, "0, or seconds from 0.1 to 86400", within).unwrap_or_default();
        (seconds > 0.0).then(|| Duration::from_secs_f64(seconds))
    }

    /// A list of algorithm names (RFC 4251 section 6): printable ASCII without spaces, separated by commas.
    fn names(&mut self, flag: &str) -> String {
        let named = |text: &str| {
            let good = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
            text.split(',').all(good).then(|| text.to_owned())
        };
        self.parsed(flag, "algorithm names separated by commas", named).unwrap_or_default()
    }

    fn algorithms(&mut self, prefix: &str) -> Algorithms {
        Algorithms {
            ciphers: self.names(&format!("{prefix}ciphers")),
            macs: self.names(&format!("{prefix}macs")),
            kex: self.names(&format!("{prefix}kex")),
            host_keys: self.names(&format!("{prefix}hostkey-algorithms")),
        }
    }
}

impl Config {
    /// Reads every setting. `get` gives the value of a flag, from the command line or the environment; `environment` gives variables
    /// that are not ours (`HOME`, `STATE_DIRECTORY`). The error has one line a fault: variable, value, what is allowed.
    pub fn parse(
        get: &dyn Fn(&str) -> Option<String>,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Vec<String>> {
        let mut values = Values { get, faults: Vec::new() };
        let home = environment("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        let state_dir = values.path("state-dir").unwrap_or_else(|| default_state_dir(home.as_ref(), environment));
        let redis = redis(&mut values);
        let config = Self {
            addresses: addresses(&mut values),
            port: values.number("port", 0, 65_535) as u16,
            account: account(&mut values),
            defaults: Defaults { login: client_user(&mut values), home: values.text("home") },
            store: values.path("routes-file").map_or_else(|| Store::Redis(redis.clone()), Store::File),
            downstream: downstream(&mut values),
            upstream: upstream(&mut values, &state_dir, home, environment("CREDENTIALS_DIRECTORY")),
            limits: Limits {
                login_timeout: values.seconds("login-timeout"),
                drain_timeout: values.seconds("drain-timeout"),
                hand_over: values.seconds_or_never("hand-over-timeout"),
                idle: values.seconds_or_never("idle-timeout"),
                stall: values.seconds_or_never("stall-timeout"),
            },
            admission: admission::parse(&mut values),
            log: Log {
                filter: log_filter(&mut values),
                file: values.path("log-file"),
                file_size: values.number("log-file-size", 1, 10_000) as usize * 1024 * 1024,
                file_count: values.number("log-file-count", 1, 1_000) as usize,
            },
            audit: audit::parse(&mut values, redis),
            sandbox: values.parsed("sandbox", "yes or no", yes_or_no).unwrap_or(true),
            monitor: monitor::parse(&mut values),
            control: control::parse(&mut values, &state_dir, environment),
            plain: values.plain(),
            state_dir,
        };
        if values.faults.is_empty() { Ok(config) } else { Err(values.faults) }
    }
}

/// Variables that begin like ours and are none: probably a misspelt setting.
pub fn unknown_variables<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let known = |name: &str| SETTINGS.iter().any(|setting| setting.variable() == name);
    let mut unknown: Vec<_> = names.filter(|name| name.starts_with("SFTPPROXY_") && !known(name)).map(str::to_owned).collect();
    unknown.sort();
    unknown
}

fn default_state_dir(home: Option<&PathBuf>, environment: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    if let Some(given) = environment("STATE_DIRECTORY").filter(|given| !given.is_empty()) {
        // systemd.exec(5): several are separated by colons; the first is ours.
        return PathBuf::from(given.split(':').next().unwrap_or_default());
    }
    match home {
        Some(home) if !nix::unistd::geteuid().is_root() => home.join(".local/state/sftpproxy"),
        _ => PathBuf::from("/var/lib/sftpproxy"),
    }
}

fn addresses(values: &mut Values<'_>) -> Vec<IpAddr> {
    let all = |text: &str| text.split(',').map(|address| address.trim().trim_matches(['[', ']']).parse().ok()).collect();
    values.parsed("address", "IP addresses separated by commas", all).unwrap_or_default()
}

fn account(values: &mut Values<'_>) -> Option<(String, Option<String>)> {
    let group = values.text("groupid");
    let Some(user) = values.text("userid") else {
        if group.is_some() {
            values.faults.push("SFTPPROXY_GROUPID is set but SFTPPROXY_USERID is not: expected both or the user alone".into());
        }
        return None;
    };
    Some((user, group))
}

fn yes_or_no(text: &str) -> Option<bool> {
    match text {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

fn client_user(values: &mut Values<'_>) -> Option<String> {
    let named = |text: &str| crate::identity::UserName::new(text).ok().map(|name| name.as_str().to_owned());
    values.parsed("client-user", "a login name without control characters", named)
}

fn log_filter(values: &mut Values<'_>) -> String {
    // A word that is neither a level nor one of our modules would silence everything: most likely a misspelt level.
    let known =
        |word: &str| word.contains(['=', '/']) || word.starts_with("sftpproxy") || word.parse::<log::LevelFilter>().is_ok();
    let good = |text: &str| {
        let fits = text.split(',').all(known) && env_filter::Builder::new().try_parse(text).is_ok();
        fits.then(|| text.to_owned())
    };
    values
        .parsed("log", "error, warn, info, debug, trace, off or a filter such as info,sftpproxy::file=off", good)
        .unwrap_or_default()
}

fn redis(values: &mut Values<'_>) -> Redis {
    let url = |text: &str| {
        let kinds = ["", "+sentinel", "+cluster"];
        let known = |scheme: &str| {
            ["redis+unix", "unix"].contains(&scheme)
                || kinds.iter().any(|kind| scheme.strip_suffix(kind).is_some_and(|base| ["redis", "rediss"].contains(&base)))
        };
        text.split_once("://").is_some_and(|(scheme, _)| known(scheme)).then(|| text.to_owned())
    };
    let host = |text: &str| crate::route::check_host(text).ok().map(|()| text.to_owned());
    Redis {
        url: values
            .parsed("redis-url", "redis://, rediss://, redis+unix://, unix://, redis+sentinel:// or redis+cluster://", url)
            .map(|url| Secret::new(url.into_bytes())),
        host: values.parsed("redis-host", "a host name or address", host).unwrap_or_default(),
        port: values.number("redis-port", 1, 65_535) as u16,
        db: values.number("redis-db", 0, 1_000_000) as i64,
        password: values.text("redis-password").map(|password| Secret::new(password.into_bytes())),
        prefix: values.text("redis-prefix").unwrap_or_default(),
        connect_timeout: values.seconds("redis-connect-timeout"),
        command_timeout: values.seconds("redis-command-timeout"),
        pool_size: values.number("redis-pool-size", 1, 1_000) as u32,
        grace: Duration::from_secs(values.number("store-grace", 0, 86_400)),
    }
}

fn downstream(values: &mut Values<'_>) -> Downstream {
    Downstream {
        host_keys: values
            .text("privatekey-path")
            .map(|paths| paths.split(',').map(str::trim).filter(|path| !path.is_empty()).map(PathBuf::from).collect())
            .unwrap_or_default(),
        public_key: values.path("publickey-path"),
        algorithms: values.algorithms(""),
        pubkey_algorithms: values.names("pubkey-algorithms"),
        rsa_min_bits: values.number("rsa-min-size", 1024, 16_384) as u32,
        banner: values.path("banner"),
        max_offered_keys: values.number("max-offered-keys", 1, 1_000) as u32,
    }
}

fn upstream(
    values: &mut Values<'_>,
    state_dir: &std::path::Path,
    home: Option<PathBuf>,
    credentials: Option<String>,
) -> Upstream {
    let credential = credentials.filter(|folder| !folder.is_empty()).map(|folder| PathBuf::from(folder).join("secret-key"));
    let library = |text: &str| match text {
        "ssh2" => Some(Library::Ssh2),
        "libssh" => Some(Library::Libssh),
        _ => None,
    };
    Upstream {
        library: values.parsed("upstream-library", "ssh2 or libssh", library).unwrap_or(Library::Ssh2),
        reuse: Duration::from_secs(values.number("upstream-reuse", 0, 3600)),
        keepalive: Duration::from_secs(values.number("keepalive", 6, 86_400)),
        proxy_header: values
            .parsed("upstream-proxy-protocol", "no or v2", |text| crate::route::parse_proxy(text).ok())
            .unwrap_or_default(),
        key: values.path("upstream-key-path"),
        keys_dir: values.path("upstream-keys-dir").unwrap_or_else(|| state_dir.join("keys")),
        secret_key: match (values.path("secret-key-file"), credential) {
            (Some(file), _) => SecretKey::File(file),
            (None, Some(file)) => SecretKey::Credential(file),
            (None, None) => SecretKey::None,
        },
        known_hosts: values.path("known-hosts"),
        account_home: home,
        algorithms: values.algorithms("upstream-"),
        connect_timeout: values.seconds("upstream-connect-timeout"),
        exchange_timeout: values.seconds("upstream-exchange-timeout"),
        login_timeout: values.seconds("upstream-login-timeout"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(given: &[(&str, &str)]) -> Result<Config, Vec<String>> {
        let get = |flag: &str| given.iter().find(|(name, _)| *name == flag).map(|(_, value)| (*value).to_owned());
        Config::parse(&get, &|name| (name == "HOME").then(|| "/home/x".to_owned()))
    }

    #[test]
    fn without_settings_everything_is_as_the_predecessor_had_it() {
        let config = parse(&[]).unwrap();
        assert_eq!(config.port, 5022);
        let Store::Redis(redis) = config.store else { panic!("not Redis") };
        assert_eq!((redis.host.as_str(), redis.port, redis.db, redis.prefix.as_str()), ("localhost", 6379, 1, "pysftpproxy:"));
        assert_eq!((redis.password, redis.url), (None, None));
        assert_eq!(config.defaults, Defaults::default());
    }

    #[test]
    fn every_fault_is_told_at_once_with_variable_value_and_what_is_allowed() {
        let faults =
            parse(&[("port", "99999"), ("redis-db", "x"), ("log", "loud"), ("address", "here"), ("redis-url", "http://secret")])
                .unwrap_err();
        assert_eq!(faults.len(), 5, "{faults:?}");
        assert!(faults.contains(&"SFTPPROXY_PORT = \"99999\": expected a number from 0 to 65535".to_owned()), "{faults:?}");
        assert!(!faults.join("").contains("secret"), "{faults:?}");
    }

    #[test]
    fn each_secret_setting_can_come_from_a_file() {
        for setting in SETTINGS.iter().filter(|setting| setting.secret) {
            let file = SETTINGS.iter().find(|file| secret_of(file).is_some_and(|secret| secret.flag == setting.flag));
            assert!(file.is_some(), "there is no {}-file", setting.flag);
        }
        assert!(SETTINGS.iter().all(|setting| setting.flag != "routes-file" || secret_of(setting).is_none()));
    }

    #[test]
    fn an_empty_value_is_an_unset_one() {
        assert_eq!(parse(&[("redis-password", ""), ("port", ""), ("home", "")]).unwrap(), parse(&[]).unwrap());
    }

    #[test]
    fn each_name_of_the_contract_is_a_setting() {
        for name in [
            "PRIVATEKEY_PATH",
            "PUBLICKEY_PATH",
            "HOME",
            "PORT",
            "USERID",
            "GROUPID",
            "CLIENT_USER",
            "REDIS_HOST",
            "REDIS_PORT",
            "REDIS_DB",
            "REDIS_PASSWORD",
        ] {
            assert!(SETTINGS.iter().any(|setting| setting.variable() == format!("SFTPPROXY_{name}")), "{name}");
        }
        assert_eq!(unknown_variables(["SFTPPROXY_PROT", "SFTPPROXY_PORT", "PATH"].into_iter()), ["SFTPPROXY_PROT"]);
    }
}
