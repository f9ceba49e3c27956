//! What happened, as it is written down: one JSON object a line, in version [`SCHEMA`] of a schema that AUDIT.md describes field by field.
//!
//! Pure: the time is given, and where lines go is `audit`'s business. Text of peers is kept whole and cannot forge a line: JSON
//! escapes it, and `json` also what would steer a terminal.

use std::borrow::Cow;
use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::ser::{Serialize, SerializeMap as _, Serializer};

use crate::error::{Side, Stage};
use crate::identity::Negotiated;
use crate::sftp::OpenFlags;

pub mod json;

/// Version of the schema, field `v`. New fields and kinds do not change it; a field that goes or means something else does.
pub const SCHEMA: u8 = 1;

/// Most byte ranges of a transfer that are written; a client that jumps about can make any number.
pub const MAX_RANGES: usize = 64;

/// Most bytes of an upstream's message that are kept: OpenSSH's longest has 30.
pub const MAX_MESSAGE: usize = 1024;

/// What an event and its line hold beside paths, in bytes: a generous guess of its own size, the names of fields and short texts.
const WEIGHT: usize = 1024;

/// What a byte of a path may hold: itself, and in the line six (`\u001b`), or U+FFFD and its part of the base64.
const PATH_WEIGHT: usize = 8;

/// The kinds of events, in the order of a session's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The router has started.
    Start,
    /// A user has proven a key.
    Login,
    /// A key was refused; the session goes on.
    Refused,
    /// The upstream speaks SFTP.
    Open,
    /// An operation was answered by the upstream.
    Operation,
    /// A file was closed, and the upstream has acknowledged every byte that was written.
    UploadComplete,
    /// A file was written, and that cannot be said.
    UploadPartial,
    /// A file was closed after all of it was read.
    DownloadComplete,
    /// A file was read, and not all of it.
    DownloadPartial,
    /// An operation was refused by the user's policy; the upstream has not seen it.
    Denied,
    /// A session has ended.
    End,
    /// Events were lost.
    Dropped,
    /// The router ends.
    Stop,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Start,
        Self::Login,
        Self::Refused,
        Self::Open,
        Self::Operation,
        Self::UploadComplete,
        Self::UploadPartial,
        Self::DownloadComplete,
        Self::DownloadPartial,
        Self::Denied,
        Self::End,
        Self::Dropped,
        Self::Stop,
    ];

    /// Its name: the field `kind`, and the word for settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Login => "login",
            Self::Refused => "refused",
            Self::Open => "open",
            Self::Operation => "operation",
            Self::UploadComplete => "upload-complete",
            Self::UploadPartial => "upload-partial",
            Self::DownloadComplete => "download-complete",
            Self::DownloadPartial => "download-partial",
            Self::Denied => "denied",
            Self::End => "end",
            Self::Dropped => "dropped",
            Self::Stop => "stop",
        }
    }

    /// The kind of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// A set of kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kinds(u16);

impl Kinds {
    /// Every kind.
    pub const ALL: Self = Self(u16::MAX);

    /// Whether a kind is in it.
    pub fn contains(self, kind: Kind) -> bool {
        self.0 & 1 << kind as u16 != 0
    }

    /// What is in either.
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl FromIterator<Kind> for Kinds {
    fn from_iter<I: IntoIterator<Item = Kind>>(kinds: I) -> Self {
        Self(kinds.into_iter().fold(0, |set, kind| set | 1 << kind as u16))
    }
}

/// Whose session: what all its events share. Made once a session, and once more when its upstream is known.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Subject {
    /// The session's number since the start, as in the log.
    pub session: u64,
    /// The name of the user who has proven a key; of a refused key the name that was claimed.
    pub user: String,
    /// The client's address and port.
    pub client: SocketAddr,
    /// The key's fingerprint, `SHA256:…`.
    pub key: String,
    /// The client's identification (RFC 4253 section 4.2), such as `SSH-2.0-OpenSSH_9.2p1`.
    pub software: String,
    /// The upstream's address and port, once it is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
}

/// The path, or the two paths, of an operation: bytes, which need not be UTF-8 (draft section 6.2). Written as `path` and `to`, where
/// what is not UTF-8 becomes U+FFFD; then `path_base64` or `to_base64` has the bytes themselves.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Paths {
    /// The path.
    pub path: Vec<u8>,
    /// The second one, of an operation that has two.
    pub to: Option<Vec<u8>>,
}

impl Paths {
    /// One path.
    pub fn one(path: impl Into<Vec<u8>>) -> Self {
        Self { path: path.into(), to: None }
    }

    fn weight(&self) -> usize {
        self.path.len() + self.to.as_ref().map_or(0, Vec::len)
    }
}

impl Serialize for Paths {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let second = self.to.iter().map(|to| ("to", "to_base64", to));
        for (name, exact, bytes) in std::iter::once(("path", "path_base64", &self.path)).chain(second) {
            let text = String::from_utf8_lossy(bytes);
            map.serialize_entry(name, &text)?;
            if let Cow::Owned(_) = text {
                map.serialize_entry(exact, &STANDARD.encode(bytes))?;
            }
        }
        map.end()
    }
}

/// The upstream's answer: `code`, its name `status` and, where there is one, `message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    code: u32,
    message: String,
}

impl Outcome {
    /// A STATUS reply (draft section 7). A reply of another type than STATUS is a success: `Outcome::ok()`.
    pub fn new(code: u32, message: &[u8]) -> Self {
        Self { code, message: String::from_utf8_lossy(&message[..message.len().min(MAX_MESSAGE)]).into_owned() }
    }

    /// SSH_FX_OK without words.
    pub fn ok() -> Self {
        Self { code: 0, message: String::new() }
    }

    /// The code's name in the draft; `""` of a code that it does not have.
    pub fn name(&self) -> &'static str {
        const NAMES: [&str; 9] = [
            "SSH_FX_OK",
            "SSH_FX_EOF",
            "SSH_FX_NO_SUCH_FILE",
            "SSH_FX_PERMISSION_DENIED",
            "SSH_FX_FAILURE",
            "SSH_FX_BAD_MESSAGE",
            "SSH_FX_NO_CONNECTION",
            "SSH_FX_CONNECTION_LOST",
            "SSH_FX_OP_UNSUPPORTED",
        ];
        NAMES.get(self.code as usize).copied().unwrap_or_default()
    }
}

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("code", &self.code)?;
        map.serialize_entry("status", self.name())?;
        // OpenSSH says "Success" of every success.
        if self.code != 0 && !self.message.is_empty() {
            map.serialize_entry("message", &self.message)?;
        }
        map.end()
    }
}

/// The digest of a transfer's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hash {
    /// SHA-256 (FIPS 180-4).
    Sha256([u8; 32]),
    /// BLAKE3 with its usual 32 bytes.
    Blake3([u8; 32]),
    /// The content was not seen from its beginning to its end, or it cannot be said that all of it arrived.
    Unavailable,
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let hex = |digest: &[u8; 32]| digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        match self {
            Self::Sha256(digest) => serializer.collect_str(&format_args!("sha256:{}", hex(digest))),
            Self::Blake3(digest) => serializer.collect_str(&format_args!("blake3:{}", hex(digest))),
            Self::Unavailable => serializer.serialize_str("unavailable"),
        }
    }
}

/// A file from its opening to its close, or to the session's end.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Transfer {
    /// The file.
    #[serde(flatten)]
    pub paths: Paths,
    /// As it was opened.
    #[serde(serialize_with = "shown")]
    pub flags: OpenFlags,
    /// Bytes that the client was given.
    pub read: u64,
    /// Bytes that the upstream has acknowledged.
    pub written: u64,
    /// From the request that opened it to the answer that closed it.
    #[serde(rename = "seconds", serialize_with = "seconds")]
    pub time: Duration,
    /// The acknowledged (of a download: given) bytes: first one, and the one after the last; sorted and not touching each other. The
    /// first [`MAX_RANGES`] are written, then `more_ranges` says how many there are beside them.
    #[serde(skip)]
    pub ranges: Vec<(u64, u64)>,
    /// The digest, where the user's record wants one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<Hash>,
    /// Why it cannot be said that it is complete; `None` = it is.
    #[serde(rename = "reason", skip_serializing_if = "Option::is_none")]
    pub partial: Option<String>,
}

/// A [`Transfer`] with what is computed of it.
#[derive(serde::Serialize)]
struct Summed<'a> {
    #[serde(flatten)]
    transfer: &'a Transfer,
    #[serde(skip_serializing_if = "Option::is_none")]
    mib_per_s: Option<f64>,
    ranges: &'a [(u64, u64)],
    #[serde(skip_serializing_if = "Option::is_none")]
    more_ranges: Option<usize>,
}

impl Transfer {
    fn summed(&self) -> Summed<'_> {
        let seconds = self.time.as_secs_f64();
        let mib = (self.read + self.written) as f64 / (1024.0 * 1024.0);
        let written = &self.ranges[..self.ranges.len().min(MAX_RANGES)];
        Summed {
            transfer: self,
            mib_per_s: (seconds > 0.0).then(|| (mib / seconds * 100.0).round() / 100.0),
            ranges: written,
            more_ranges: Some(self.ranges.len() - written.len()).filter(|&more| more > 0),
        }
    }
}

/// What happened. Fields beyond those of the [`Subject`].
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(untagged)]
pub enum What {
    /// [`Kind::Start`], with the program's version.
    Start {
        /// The program's version.
        version: &'static str,
    },
    /// [`Kind::Login`].
    Login {
        /// The type of the key that was proven.
        key_type: String,
        /// Its size in bits, of RSA that of the modulus.
        key_bits: usize,
        /// What the key exchange with the client has agreed on; the cipher and the MAC are those of the client's packets.
        #[serde(flatten)]
        negotiated: Negotiated,
    },
    /// [`Kind::Refused`].
    Refused {
        /// Why, as in the log.
        reason: String,
    },
    /// [`Kind::Open`].
    Open {
        /// The login at the upstream.
        login: String,
        /// Its host key: type and fingerprint.
        host_key: String,
    },
    /// [`Kind::Operation`].
    Operation {
        /// Its name, as in the log: `rename`, `posix-rename`.
        operation: Cow<'static, str>,
        /// What it is about; `None` of one without a path.
        #[serde(flatten)]
        paths: Option<Paths>,
        /// Of OPEN.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "words")]
        flags: Option<OpenFlags>,
        /// What the upstream answered.
        #[serde(flatten)]
        outcome: Outcome,
        /// From the request to the answer.
        #[serde(rename = "seconds", serialize_with = "seconds")]
        time: Duration,
    },
    /// [`Kind::UploadComplete`] or [`Kind::UploadPartial`].
    Upload(#[serde(serialize_with = "summed")] Transfer),
    /// [`Kind::DownloadComplete`] or [`Kind::DownloadPartial`].
    Download(#[serde(serialize_with = "summed")] Transfer),
    /// [`Kind::Denied`].
    Denied {
        /// The operation's name.
        operation: Cow<'static, str>,
        /// What it is about; `None` of one without a path.
        #[serde(flatten)]
        paths: Option<Paths>,
        /// Of OPEN.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "words")]
        flags: Option<OpenFlags>,
        /// The rule, as the client was told.
        reason: String,
    },
    /// [`Kind::End`], with the words of the log's end line.
    End {
        /// Where it ended.
        #[serde(serialize_with = "shown")]
        side: Side,
        /// How far it had come.
        #[serde(serialize_with = "shown")]
        stage: Stage,
        /// Why.
        reason: String,
        /// SFTP bytes given to the upstream.
        up: u64,
        /// SFTP bytes given to the client.
        down: u64,
        /// From accept to end.
        #[serde(rename = "seconds", serialize_with = "seconds")]
        time: Duration,
    },
    /// [`Kind::Dropped`].
    Dropped {
        /// What could not take them: `queue` (the one that all events pass) or a sink's name.
        at: &'static str,
        /// How many since the last such event.
        count: u64,
    },
    /// [`Kind::Stop`].
    Stop {},
}

impl What {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Start { .. } => Kind::Start,
            Self::Login { .. } => Kind::Login,
            Self::Refused { .. } => Kind::Refused,
            Self::Open { .. } => Kind::Open,
            Self::Operation { .. } => Kind::Operation,
            Self::Upload(Transfer { partial: None, .. }) => Kind::UploadComplete,
            Self::Upload(_) => Kind::UploadPartial,
            Self::Download(Transfer { partial: None, .. }) => Kind::DownloadComplete,
            Self::Download(_) => Kind::DownloadPartial,
            Self::Denied { .. } => Kind::Denied,
            Self::End { .. } => Kind::End,
            Self::Dropped { .. } => Kind::Dropped,
            Self::Stop {} => Kind::Stop,
        }
    }

    /// The paths, of what has some.
    pub fn paths(&self) -> Option<&Paths> {
        match self {
            Self::Operation { paths, .. } | Self::Denied { paths, .. } => paths.as_ref(),
            Self::Upload(transfer) | Self::Download(transfer) => Some(&transfer.paths),
            _ => None,
        }
    }
}

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// When.
    pub at: SystemTime,
    /// Whose session; `None` = the router's own event.
    pub subject: Option<Arc<Subject>>,
    /// What.
    pub what: What,
}

impl Event {
    /// About how many bytes it and its line hold, for bounds.
    pub fn weight(&self) -> usize {
        let ranges = match &self.what {
            What::Upload(transfer) | What::Download(transfer) => transfer.ranges.len() * size_of::<(u64, u64)>(),
            _ => 0,
        };
        let name = match &self.what {
            What::Operation { operation, .. } | What::Denied { operation, .. } => operation.len(),
            _ => 0,
        };
        WEIGHT + ranges + (name + self.what.paths().map_or(0, Paths::weight)) * PATH_WEIGHT
    }

    /// The line, without its end. `run` names the start of the router and `seq` is the event's number since then: with both a reader
    /// finds what is missing and what came twice.
    pub fn line(&self, run: &str, seq: u64) -> String {
        // RFC 3339 in UTC. A clock before the year -9999 or after 9999 is as good as none.
        let time = format!("{:.3}", jiff::Timestamp::try_from(self.at).unwrap_or_default());
        let kind = self.what.kind().name();
        json::line(&Line { v: SCHEMA, time, kind, run, seq, subject: self.subject.as_deref(), what: &self.what })
    }
}

/// An event as it is written.
#[derive(serde::Serialize)]
struct Line<'a> {
    v: u8,
    time: String,
    kind: &'static str,
    run: &'a str,
    seq: u64,
    #[serde(flatten)]
    subject: Option<&'a Subject>,
    #[serde(flatten)]
    what: &'a What,
}

fn summed<S: Serializer>(transfer: &Transfer, serializer: S) -> Result<S::Ok, S::Error> {
    transfer.summed().serialize(serializer)
}

fn words<S: Serializer>(flags: &Option<OpenFlags>, serializer: S) -> Result<S::Ok, S::Error> {
    match flags {
        Some(flags) => serializer.collect_str(flags),
        None => serializer.serialize_none(),
    }
}

fn shown<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// Seconds with microseconds.
fn seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_micros() as f64 / 1e6)
}
