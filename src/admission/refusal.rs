//! Why somebody is not let in, with names that stay; and which end of a session is a fault of the client.

use std::fmt;
use std::time::Duration;

use ipnet::IpNet;

use super::seconds;
use crate::config::admission::Class;
use crate::error::{Fault, Side, Stage};

/// Why a connection is not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// So many connections are open.
    Sessions(usize),
    /// So many have not proven a key.
    Startups(usize),
    /// The same, not yet at the limit: by chance.
    StartupsDropped(usize),
    /// The source has so many open.
    SourceSessions(IpNet, usize),
    /// The source has so many unproven.
    SourceStartups(IpNet, usize),
    /// The user has so many open.
    UserSessions(usize),
    /// The address is on the list of those that are denied.
    Denied,
    /// The address is not on the list of those that are allowed.
    NotAllowed,
    /// The user's record does not allow the address.
    UserFrom,
    /// The network is banned by an operator or another node.
    Banned(IpNet),
    /// The source owes for its faults, the last of this class, so long.
    Penalty(IpNet, Class, Duration),
    /// More sources owe than there is room for.
    PenaltiesFull,
    /// What should stand before the SSH banner does not, or is none.
    ProxyHeader(String),
}

impl Refusal {
    /// How many reasons there are.
    pub const COUNT: usize = 13;

    /// Their names, for figures; they stay.
    pub const NAMES: [&str; Self::COUNT] = [
        "max-sessions",
        "max-startups",
        "startups-dropped",
        "source-sessions",
        "source-startups",
        "user-sessions",
        "denied",
        "not-allowed",
        "user-from",
        "banned",
        "penalty",
        "penalties-full",
        "proxy-header",
    ];

    /// Its place among [`Self::NAMES`].
    pub fn index(&self) -> usize {
        match self {
            Self::Sessions(_) => 0,
            Self::Startups(_) => 1,
            Self::StartupsDropped(_) => 2,
            Self::SourceSessions(..) => 3,
            Self::SourceStartups(..) => 4,
            Self::UserSessions(_) => 5,
            Self::Denied => 6,
            Self::NotAllowed => 7,
            Self::UserFrom => 8,
            Self::Banned(_) => 9,
            Self::Penalty(..) => 10,
            Self::PenaltiesFull => 11,
            Self::ProxyHeader(_) => 12,
        }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        Self::NAMES[self.index()]
    }

    /// What a user who has proven a key is told; `None` = nobody is there to be told.
    pub fn told(&self) -> Option<String> {
        match self {
            Self::UserSessions(sessions) => Some(format!("you have {sessions} sessions open, and may have no more")),
            Self::UserFrom => Some("you may not log in from where you are; please tell your administrator".into()),
            _ => None,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sessions(open) => write!(f, "{open} connections are open (SFTPPROXY_MAX_SESSIONS)"),
            Self::Startups(open) => write!(f, "{open} connections have not proven a key (SFTPPROXY_MAX_STARTUPS)"),
            Self::StartupsDropped(open) => {
                write!(f, "{open} connections have not proven a key, and this one is refused by chance (SFTPPROXY_MAX_STARTUPS)")
            }
            Self::SourceSessions(source, open) => {
                write!(f, "{open} connections of {source} are open (SFTPPROXY_MAX_SOURCE_SESSIONS)")
            }
            Self::SourceStartups(source, open) => {
                write!(f, "{open} connections of {source} have not proven a key (SFTPPROXY_MAX_SOURCE_STARTUPS)")
            }
            Self::UserSessions(open) => {
                write!(f, "the user has {open} sessions open (max_sessions in the record, or SFTPPROXY_MAX_USER_SESSIONS)")
            }
            Self::Denied => f.write_str("the address is in SFTPPROXY_DENY_FROM"),
            Self::NotAllowed => f.write_str("the address is not in SFTPPROXY_ALLOW_FROM"),
            Self::UserFrom => f.write_str("the address is not in the field \"from\" of the user's record"),
            Self::Banned(network) => write!(f, "{network} is banned; see: sftpproxy ban list"),
            Self::Penalty(source, class, left) => {
                write!(f, "{source} is refused for {} s, last for {} (SFTPPROXY_PENALTIES)", seconds(*left), class.name())
            }
            Self::PenaltiesFull => {
                f.write_str("more sources owe penalties than there is room for (overflow in SFTPPROXY_PENALTIES)")
            }
            Self::ProxyHeader(reason) => write!(f, "PROXY header: {reason} (SFTPPROXY_PROXY_FROM)"),
        }
    }
}

/// What a session had come to when it ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Came {
    /// A key was proven.
    pub proven: bool,
    /// Keys that were offered and are not the user's.
    pub refused: u32,
    /// The time for the login was over.
    pub late: bool,
    /// The store has taken so long that this may be why.
    pub slow: bool,
}

/// Which fault of the client the end of a session proves, if any. Never one who has proven a key, whatever came after; never what
/// the store, an upstream or the router itself has done.
pub fn blame(fault: &Fault, came: Came) -> Option<Class> {
    let early = matches!(fault.stage, Stage::Exchange | Stage::Prove);
    if came.proven || fault.side != Side::Downstream || !early {
        return None;
    }
    match came {
        Came { refused: 1.., .. } => Some(Class::AuthFail),
        Came { late: true, slow, .. } => (!slow).then_some(Class::GraceExceeded),
        _ => Some(Class::NoAuth),
    }
}
