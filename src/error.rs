//! What went wrong, for the operator: which leg, which stage, what, and what to do. Also the one way to show a peer's text.
//!
//! A fault is data and is logged once, by `session`, in the session's end line.

use std::fmt;

/// Which side of the house.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The client's side.
    Downstream,
    /// The side of the user's own sshd.
    Upstream,
    /// The routes.
    Store,
    /// The router itself: limits, shutdown.
    Router,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Downstream => "downstream",
            Self::Upstream => "upstream",
            Self::Store => "store",
            Self::Router => "router",
        })
    }
}

/// How far a session had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Taken from the listener.
    Accept,
    /// SSH key exchange with the client.
    Exchange,
    /// The client proves a key.
    Prove,
    /// The route is found.
    Find,
    /// TCP connection to the upstream.
    Dial,
    /// Key exchange with the upstream and check of its host key.
    Trust,
    /// Authentication at the upstream.
    LogIn,
    /// A channel with the subsystem sftp.
    Open,
    /// Bytes pass.
    Relay,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accept => "accept",
            Self::Exchange => "exchange",
            Self::Prove => "prove",
            Self::Find => "find",
            Self::Dial => "dial",
            Self::Trust => "trust",
            Self::LogIn => "log in",
            Self::Open => "open",
            Self::Relay => "relay",
        })
    }
}

/// A failure that ends a session. One line; its text says what is wrong and, where that helps, what the operator can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where it happened.
    pub side: Side,
    /// When it happened.
    pub stage: Stage,
    /// What happened.
    pub what: String,
    /// What the user is told, where it is not the stage's sentence.
    pub told: Option<String>,
}

impl Fault {
    /// A fault at `side` in `stage`. `what` is lower case without a final dot; a peer's text in it has gone through [`shown`].
    pub fn new(side: Side, stage: Stage, what: impl Into<String>) -> Self {
        Self { side, stage, what: what.into(), told: None }
    }

    /// The same, and this is what the user is told.
    pub fn told(self, told: String) -> Self {
        Self { told: Some(told), ..self }
    }

    /// What a user who has proven a key is told: enough to tell the administrator, nothing about the inside.
    pub fn said_to_user(&self) -> String {
        if let Some(told) = &self.told {
            return told.clone();
        }
        match self.stage {
            Stage::Find => "there is no server for you, or it cannot be looked up at the moment",
            Stage::Dial => "your server cannot be reached",
            Stage::Trust => "the identity of your server could not be verified, nothing was sent to it",
            Stage::LogIn => "your server does not let the router in",
            Stage::Open => "your server does not offer sftp",
            _ => "the session was ended",
        }
        .to_owned()
            + "; please tell your administrator"
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.side, self.stage, self.what)
    }
}

impl std::error::Error for Fault {}

/// Longest piece of a peer's text in a log line, in characters; a path of 4,096 bytes would fill the line.
pub const MAX_SHOWN: usize = 512;

/// A peer's text as it may stand in a log line: control characters, quotes, backslashes and bidirectional marks escaped, cut at
/// [`MAX_SHOWN`] characters. It cannot forge a line or a field.
pub fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(MAX_SHOWN));
    for (count, character) in text.chars().enumerate() {
        if count == MAX_SHOWN {
            out.push('…');
            break;
        }
        match character {
            '"' | '\\' => {
                out.push('\\');
                out.push(character);
            }
            '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                out.extend(character.escape_unicode());
            }
            _ if character.is_control() => out.extend(character.escape_default()),
            _ => out.push(character),
        }
    }
    out
}

/// The same for bytes that need not be UTF-8: what is not becomes `\x..`.
pub fn shown_bytes(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(MAX_SHOWN * 4)];
    let mut out = String::new();
    for chunk in cut.utf8_chunks() {
        out.push_str(&shown(chunk.valid()));
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peers_text_cannot_forge_a_log_line_or_a_field() {
        assert_eq!(shown("a\nend session=1"), "a\\nend session=1");
        assert_eq!(shown("x\" user=\"root"), "x\\\" user=\\\"root");
        assert_eq!(shown("\u{1b}[2J\u{202e}"), "\\u{1b}[2J\\u{202e}");
        assert_eq!(shown(&"y".repeat(600)).chars().count(), MAX_SHOWN + 1);
        assert_eq!(shown_bytes(b"a\xff\n"), "a\\xff\\n");
    }
}
