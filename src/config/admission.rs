//! The settings of who may come in: how many, from where, and what faults cost.

use std::time::Duration;

use super::Values;
use crate::network::{Blocks, Networks};

/// How many connections may be unproven at the same time, in the manner of sshd's MaxStartups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Startups {
    /// From here on some are refused.
    pub start: usize,
    /// Of a hundred, as many as this at `start`, more the nearer to `full`.
    pub rate: u32,
    /// From here on all are refused.
    pub full: usize,
}

impl Startups {
    /// Reads `300`, a hard limit, or `10:30:100`.
    pub fn parse(text: &str) -> Option<Self> {
        let words: Vec<_> = text.split(':').map(|word| word.parse::<usize>().ok()).collect::<Option<_>>()?;
        let startups = match *words.as_slice() {
            [full] => Self { start: full, rate: 100, full },
            [start, rate, full] => Self { start, rate: u32::try_from(rate).ok()?, full },
            _ => return None,
        };
        let good =
            (1..=startups.full).contains(&startups.start) && startups.full <= 100_000 && (1..=100).contains(&startups.rate);
        good.then_some(startups)
    }
}

/// What a client can do wrong, proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// It offered keys, or signatures, and none was good.
    AuthFail,
    /// It left, or broke the protocol, without having offered anything.
    NoAuth,
    /// It let the time for the login pass.
    GraceExceeded,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::AuthFail, Self::NoAuth, Self::GraceExceeded];

    /// Its word in settings, log and store, as sshd has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::AuthFail => "authfail",
            Self::NoAuth => "noauth",
            Self::GraceExceeded => "grace-exceeded",
        }
    }
}

/// What happens when more sources have penalties than there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// The penalty that ends first is forgotten.
    Permissive,
    /// Everybody of that address family is refused who is not exempt, until there is room.
    DenyAll,
}

/// What faults cost, in the manner of sshd's PerSourcePenalties.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Penalties {
    /// What one of each class adds, in the order of [`Class::ALL`].
    pub each: [Duration; 3],
    /// A source is refused once its penalties add up to this.
    pub min: Duration,
    /// They never add up to more.
    pub max: Duration,
    /// Sources with penalties, of IPv4.
    pub most4: usize,
    /// The same of IPv6.
    pub most6: usize,
    /// What happens beyond.
    pub overflow: Overflow,
}

impl Penalties {
    /// What one fault adds.
    pub fn of(&self, class: Class) -> Duration {
        self.each[Class::ALL.iter().position(|one| *one == class).unwrap_or_default()]
    }

    /// Reads words such as `authfail:5s min:15s overflow:permissive`; what is not named is as by default.
    fn parse(text: &str) -> Option<Self> {
        let second = Duration::from_secs(1);
        let mut penalties = Self {
            each: [5 * second, second, 10 * second],
            min: 15 * second,
            max: 600 * second,
            most4: 65_536,
            most6: 65_536,
            overflow: Overflow::Permissive,
        };
        for word in text.split_whitespace() {
            let (name, value) = word.split_once(':')?;
            let sources = || value.parse().ok().filter(|number| (1..=1_000_000).contains(number));
            match name {
                "min" => penalties.min = duration(value)?,
                "max" => penalties.max = duration(value)?,
                "max-sources4" => penalties.most4 = sources()?,
                "max-sources6" => penalties.most6 = sources()?,
                "overflow" if value == "permissive" => penalties.overflow = Overflow::Permissive,
                "overflow" if value == "deny-all" => penalties.overflow = Overflow::DenyAll,
                name => penalties.each[Class::ALL.iter().position(|class| class.name() == name)?] = duration(value)?,
            }
        }
        (penalties.min <= penalties.max && !penalties.max.is_zero()).then_some(penalties)
    }
}

/// Reads `90`, `90s`, `10m`, `12h` or `7d`, up to a year.
pub fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).len());
    let seconds = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    let seconds = number.parse::<u64>().ok()?.checked_mul(seconds)?;
    (seconds <= 366 * 86_400).then(|| Duration::from_secs(seconds))
}

/// Who may come in.
#[derive(Debug, Clone, PartialEq)]
pub struct Admission {
    /// Connections.
    pub sessions: usize,
    /// Connections that have not proven a key.
    pub startups: Startups,
    /// Connections of one source; 0 = no limit.
    pub source_sessions: usize,
    /// Of one source, those that have not proven a key; 0 = no limit.
    pub source_startups: usize,
    /// Sessions of one user whose record says nothing else; 0 = no limit.
    pub user_sessions: usize,
    /// What a source is.
    pub blocks: Blocks,
    /// Balancers, whose connections begin with a PROXY header.
    pub balancers: Networks,
    /// Nobody from elsewhere is let in; empty = everybody may come.
    pub allow: Networks,
    /// Nobody from there is let in.
    pub deny: Networks,
    /// What faults cost; `None` = nothing.
    pub penalties: Option<Penalties>,
    /// Whose faults cost nothing.
    pub exempt: Networks,
}

pub(super) fn parse(values: &mut Values<'_>) -> Admission {
    let startups = "a number from 1 to 100000, or START:RATE:FULL such as 10:30:100";
    let blocks = "two prefix lengths, of IPv4 and IPv6, such as 32:64";
    let penalties = "off, or words such as authfail:5s noauth:1s grace-exceeded:10s min:15s max:10m max-sources4:65536 \
                     max-sources6:65536 overflow:permissive|deny-all";
    let read = |text: &str| match text {
        "off" => Some(None),
        text => Penalties::parse(text).map(Some),
    };
    Admission {
        sessions: values.number("max-sessions", 1, 100_000) as usize,
        startups: values.parsed("max-startups", startups, Startups::parse).unwrap_or(Startups { start: 1, rate: 100, full: 1 }),
        source_sessions: values.number("max-source-sessions", 0, 100_000) as usize,
        source_startups: values.number("max-source-startups", 0, 100_000) as usize,
        user_sessions: values.number("max-user-sessions", 0, 100_000) as usize,
        blocks: values.parsed("source-blocks", blocks, Blocks::parse).unwrap_or(Blocks { v4: 32, v6: 64 }),
        balancers: networks(values, "proxy-from"),
        allow: networks(values, "allow-from"),
        deny: networks(values, "deny-from"),
        penalties: values.parsed("penalties", penalties, read).flatten(),
        exempt: networks(values, "penalty-exempt"),
    }
}

/// A list of networks.
pub(super) fn networks(values: &mut Values<'_>, flag: &str) -> Networks {
    let allowed = "addresses and networks such as 192.0.2.0/24, separated by commas";
    let read = |text: &str| if text == "none" { Some(Networks::default()) } else { Networks::parse(text).ok() };
    values.parsed(flag, allowed, read).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn startups_are_a_number_or_three() {
        let three = |start, rate, full| Some(Startups { start, rate, full });
        assert_eq!(Startups::parse("300"), three(300, 100, 300));
        assert_eq!(Startups::parse("10:30:100"), three(10, 30, 100));
        for bad in ["", "0", "10:30", "10:0:100", "10:101:100", "100:30:10", "10:30:100001", "a:b:c", "10:30:100:1"] {
            assert_eq!(Startups::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn penalties_are_words_as_sshd_has_them() {
        let default = Penalties::parse("").unwrap();
        assert_eq!(default.of(Class::AuthFail), Duration::from_secs(5));
        let changed = Penalties::parse("authfail:1m  max:1h overflow:deny-all max-sources6:10").unwrap();
        assert_eq!((changed.of(Class::AuthFail), changed.max.as_secs(), changed.most6), (Duration::from_secs(60), 3600, 10));
        assert_eq!((changed.min, changed.overflow), (default.min, Overflow::DenyAll));
        for bad in
            ["authfail", "authfail:", "authfail:5x", "crash:5s", "min:10m max:1m", "overflow:no", "max-sources4:0", "max:0 min:0"]
        {
            assert_eq!(Penalties::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn durations_have_units() {
        for (text, seconds) in
            [("90", Some(90)), ("90s", Some(90)), ("10m", Some(600)), ("2h", Some(7200)), ("7d", Some(604_800))]
        {
            assert_eq!(duration(text).map(|duration| duration.as_secs()), seconds, "{text}");
        }
        for bad in ["", "s", "-1", "1.5h", "1w", "400d", "99999999999999999999d"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}
