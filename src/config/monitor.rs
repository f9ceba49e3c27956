//! Settings of metrics and the page.

use std::net::SocketAddr;

use super::Values;
use crate::secret::Secret;

/// Shortest token in bytes: what cannot be guessed over a network.
const MIN_TOKEN: usize = 16;

/// Where metrics and the page are served, and for whom.
#[derive(Debug, Clone, PartialEq)]
pub struct Monitor {
    /// Address and port; `None` = nowhere.
    pub address: Option<SocketAddr>,
    /// What must be shown; `None` = whoever reaches the address may look.
    pub token: Option<Secret>,
    /// Users with series of their own.
    pub users: usize,
}

pub(super) fn parse(values: &mut Values<'_>) -> Monitor {
    let address = |text: &str| text.parse::<SocketAddr>().ok();
    let token = |text: &str| {
        let good = text.len() >= MIN_TOKEN && text.bytes().all(|byte| byte.is_ascii_graphic());
        good.then(|| Secret::new(text.as_bytes().to_vec()))
    };
    let monitor = Monitor {
        address: values.parsed("metrics-address", "an IP address and a port such as 127.0.0.1:9922 or [::1]:9922", address),
        token: values.parsed("metrics-token", &format!("at least {MIN_TOKEN} letters, digits and signs, no space"), token),
        users: values.number("metrics-users", 0, 10_000) as usize,
    };
    if let Some(address) = monitor.address.filter(|address| !address.ip().to_canonical().is_loopback())
        && monitor.token.is_none()
    {
        values.faults.push(format!(
            "SFTPPROXY_METRICS_ADDRESS = \"{address}\": expected a loopback address, or a token beside it (SFTPPROXY_METRICS_TOKEN_FILE)"
        ));
    }
    monitor
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn parse(given: &[(&str, &str)]) -> Result<Monitor, Vec<String>> {
        let get = |flag: &str| given.iter().find(|(name, _)| *name == flag).map(|(_, value)| (*value).to_owned());
        Config::parse(&get, &|_| None).map(|config| config.monitor)
    }

    #[test]
    fn who_is_not_on_this_machine_needs_a_token() {
        assert_eq!(parse(&[]).unwrap(), Monitor { address: None, token: None, users: 0 });
        for good in ["127.0.0.1:9922", "[::1]:9922", "127.7.7.7:1", "[::ffff:127.0.0.1]:9922"] {
            assert!(parse(&[("metrics-address", good)]).unwrap().address.is_some(), "{good}");
        }
        for open in ["0.0.0.0:9922", "[::]:9922", "10.0.0.1:9922"] {
            let faults = parse(&[("metrics-address", open)]).unwrap_err();
            assert!(faults.len() == 1 && faults[0].contains("SFTPPROXY_METRICS_TOKEN_FILE"), "{open}: {faults:?}");
            assert!(parse(&[("metrics-address", open), ("metrics-token", "a-token-of-20-letters")]).is_ok(), "{open}");
        }
        for bad in ["short", "a-token with a space"] {
            let faults = parse(&[("metrics-token", bad)]).unwrap_err();
            assert!(faults.len() == 1 && !faults[0].contains(bad), "{faults:?}");
        }
        for bad in ["9922", "localhost:9922", "127.0.0.1"] {
            assert_eq!(parse(&[("metrics-address", bad)]).unwrap_err().len(), 1, "{bad}");
        }
    }
}
