//! The values that labels can have. All of them are known here: nothing that a peer says becomes a label.

use crate::admission::Refusal;
use crate::config::admission;
use crate::error::{Fault, Side, Stage};
pub use crate::ledger::Answered;
use crate::sftp::{Effect, KINDS, Kind, Then};

/// Makes an enumeration of a label's values, in this order.
macro_rules! label {
    ($(#[$of:meta])* $name:ident as $label:literal { $($(#[$about:meta])* $value:ident = $text:literal,)+ }) => {
        $(#[$of])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$about])* $value,)+ }

        impl $name {
            /// The label and its values.
            pub fn label() -> Label {
                Label { name: $label, values: vec![$($text),+] }
            }
        }
    };
}

/// A label and the values that it can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// Its values, in the order of the enumeration.
    pub values: Vec<&'static str>,
}

label! {
    /// How far an open session has come.
    State as "state" {
        /// The client has proven no key.
        Unproven = "unproven",
        /// It has.
        Proven = "proven",
    }
}

/// Why a connection or a user is not let in: the words that the log has as `why`. The last one is a machine without a descriptor, a thread
/// or memory left.
pub fn refusals() -> Label {
    Label { name: "reason", values: Refusal::NAMES.into_iter().chain(["error"]).collect() }
}

/// The faults of clients that are proven, in the order of `Class::ALL`.
pub fn faults() -> Label {
    Label { name: "class", values: admission::Class::ALL.iter().map(|class| class.name()).collect() }
}

label! {
    /// Why an offered key is refused.
    KeyReason as "reason" {
        /// Nobody has it.
        Unknown = "unknown",
        /// It is another user's.
        AnotherUsers = "another_users",
        /// It is no key that could be looked up, or the name is none.
        Unusable = "unusable",
    }
}

label! {
    /// What became of a session whose upstream was lost.
    Loss as "outcome" {
        /// It goes on with another connection.
        Resumed = "resumed",
        /// It has ended.
        Ended = "ended",
    }
}

label! {
    /// How a login ended.
    Login as "outcome" {
        /// The upstream is open.
        Ok = "ok",
        /// It is not.
        Failed = "failed",
    }
}

label! {
    /// Why a login failed.
    Reason as "reason" {
        /// It did not.
        None = "none",
        /// The key exchange with the client.
        Exchange = "exchange",
        /// The client proved no key that is the user's.
        Key = "key",
        /// The store could not say whose key it is.
        Store = "store",
        /// The user has no route, or the store could not say.
        Route = "route",
        /// The router does not let the user in: maintenance, too many sessions, an address that is not the user's.
        Denied = "denied",
        /// The upstream cannot be reached.
        Dial = "dial",
        /// Its host key is not the one that is trusted, or the key exchange failed.
        HostKey = "host_key",
        /// It does not let the router in.
        UpstreamLogin = "upstream_login",
        /// It does not offer sftp.
        UpstreamSftp = "upstream_sftp",
        /// The client left, or asked for something else than sftp.
        Client = "client",
        /// The router itself: a limit, its end, a fault.
        Router = "router",
    }
}

impl Reason {
    /// Of a fault that ended a login.
    pub fn of(fault: &Fault) -> Self {
        match (fault.side, fault.stage) {
            (Side::Router, Stage::Find) => Self::Denied,
            (Side::Router, _) => Self::Router,
            (Side::Store, Stage::Prove) => Self::Store,
            (_, Stage::Find) => Self::Route,
            (_, Stage::Accept | Stage::Exchange) => Self::Exchange,
            (_, Stage::Prove) => Self::Key,
            (Side::Downstream, _) => Self::Client,
            (_, Stage::Dial) => Self::Dial,
            (_, Stage::Trust) => Self::HostKey,
            (_, Stage::LogIn) => Self::UpstreamLogin,
            (_, Stage::Open | Stage::Relay) => Self::UpstreamSftp,
        }
    }
}

label! {
    /// Who ended a session that had an upstream.
    EndedBy as "side" {
        /// The client.
        Downstream = "downstream",
        /// The user's sshd.
        Upstream = "upstream",
        /// The router: an operator, a limit, its end, a fault.
        Router = "router",
    }
}

impl EndedBy {
    /// Of a session's last fault.
    pub fn of(side: Side) -> Self {
        match side {
            Side::Downstream => Self::Downstream,
            Side::Upstream => Self::Upstream,
            Side::Store | Side::Router => Self::Router,
        }
    }
}

label! {
    /// A step towards an open upstream.
    Step as "step" {
        /// Name look-up and TCP.
        Dial = "dial",
        /// Key exchange and check of the host key.
        Trust = "trust",
        /// Authentication.
        LogIn = "log_in",
        /// The channel with the subsystem sftp.
        Open = "open",
    }
}

label! {
    /// Which way bytes go.
    Direction as "direction" {
        /// From clients to upstreams.
        Up = "up",
        /// From upstreams to clients.
        Down = "down",
    }
}

/// What became of a request, in the order of [`Answered`].
pub fn answered() -> Label {
    Label { name: "outcome", values: vec!["ok", "failed", "refused", "never"] }
}

label! {
    /// Requests that take about the same time.
    Class as "class" {
        /// READ.
        Read = "read",
        /// WRITE.
        Write = "write",
        /// OPEN.
        Open = "open",
        /// CLOSE.
        Close = "close",
        /// OPENDIR and READDIR.
        List = "list",
        /// What asks about a file.
        Look = "look",
        /// What changes files otherwise than by WRITE.
        Change = "change",
        /// Everything else.
        Other = "other",
    }
}

impl Class {
    /// Of a row of the table; `None` = a type that nobody knows.
    pub fn of(kind: Option<&Kind>) -> Self {
        let Some(kind) = kind else { return Self::Other };
        match (kind.then, kind.effect) {
            (Then::Content, _) => Self::Write,
            (Then::Range, _) => Self::Read,
            (_, Effect::ByFlags) => Self::Open,
            (_, Effect::List) => Self::List,
            (_, Effect::Look) => Self::Look,
            (Then::Handle, Effect::Session) => Self::Close,
            (_, effect) if effect.changes() => Self::Change,
            _ => Self::Other,
        }
    }
}

/// The operations: every row of the table of requests, then one value for all others.
pub fn operations() -> Label {
    Label { name: "operation", values: KINDS.iter().map(Kind::short).chain(["unknown"]).collect() }
}

/// The place of a row among [`operations`].
pub fn operation(kind: Option<&'static Kind>) -> usize {
    // The two that are asked for most stand first in the table.
    kind.and_then(|kind| KINDS.iter().position(|row| std::ptr::eq(row, kind))).unwrap_or(KINDS.len())
}

label! {
    /// How a file's transfer ended.
    Whole as "outcome" {
        /// All that was asked for.
        Complete = "complete",
        /// Part of it.
        Partial = "partial",
    }
}

label! {
    /// A question to the store.
    Call as "call" {
        /// Whose key it is.
        Owner = "owner",
        /// A user's record.
        Record = "record",
        /// Whether anybody is let in.
        Maintenance = "maintenance",
        /// What is known of an upstream.
        Upstream = "upstream",
        /// Who is banned.
        Bans = "bans",
        /// Whether it answers at all.
        Check = "check",
    }
}

label! {
    /// What could not take an event.
    Place as "at" {
        /// The queue that all events pass.
        Queue = "queue",
        /// A sink of `SFTPPROXY_AUDIT`.
        File = "file",
        /// Likewise.
        Stdout = "stdout",
        /// Likewise.
        Journald = "journald",
        /// Likewise.
        Redis = "redis",
        /// The hook.
        Hook = "hook",
    }
}

impl Place {
    /// By the name that the audit has for it.
    pub fn named(name: &str) -> Option<Self> {
        let all = [Self::Queue, Self::File, Self::Stdout, Self::Journald, Self::Redis, Self::Hook];
        all.into_iter().zip(Self::label().values).find(|(_, value)| *value == name).map(|(place, _)| place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_of_the_table_has_a_place_and_a_class() {
        assert_eq!(operations().values.len(), KINDS.len() + 1);
        for (number, kind) in KINDS.iter().enumerate() {
            assert_eq!(operation(Some(kind)), number, "{}", kind.name);
        }
        assert_eq!(operations().values[operation(None)], "unknown");
        for outcome in [Answered::Ok, Answered::Failed, Answered::Refused, Answered::Never] {
            assert_eq!(answered().values[outcome as usize], format!("{outcome:?}").to_lowercase());
        }
        let class = |name: &str| Class::of(KINDS.iter().find(|kind| kind.short() == name));
        for (names, expected) in [
            (&["read"][..], Class::Read),
            (&["write"], Class::Write),
            (&["open"], Class::Open),
            (&["close"], Class::Close),
            (&["opendir", "readdir"], Class::List),
            (&["stat", "lstat", "fstat", "realpath", "statvfs", "expand-path"], Class::Look),
            (&["rename", "remove", "mkdir", "fsetstat", "copy-data", "fsync", "posix-rename"], Class::Change),
            (&["init", "limits", "home-directory", "nothing"], Class::Other),
        ] {
            names.iter().for_each(|name| assert_eq!(class(name), expected, "{name}"));
        }
    }

    #[test]
    fn each_stage_that_a_login_can_fail_in_has_its_reason() {
        for (side, stage, reason) in [
            (Side::Downstream, Stage::Exchange, Reason::Exchange),
            (Side::Downstream, Stage::Prove, Reason::Key),
            (Side::Downstream, Stage::Open, Reason::Client),
            (Side::Store, Stage::Prove, Reason::Store),
            (Side::Store, Stage::Find, Reason::Route),
            (Side::Router, Stage::Find, Reason::Denied),
            (Side::Upstream, Stage::Dial, Reason::Dial),
            (Side::Upstream, Stage::Trust, Reason::HostKey),
            (Side::Upstream, Stage::LogIn, Reason::UpstreamLogin),
            (Side::Upstream, Stage::Open, Reason::UpstreamSftp),
            (Side::Router, Stage::Relay, Reason::Router),
        ] {
            assert_eq!(Reason::of(&Fault::new(side, stage, "")), reason, "{side} {stage}");
        }
        assert_eq!(Place::named("hook"), Some(Place::Hook));
        assert_eq!(Place::named("elsewhere"), None);
    }
}
