//! `host-key scan`: what host keys an upstream shows, as fingerprints and as the lines to pin. Looking at them is not trusting them.

use clap::{Arg, ArgMatches, Command};
use serde_json::json;

use super::{Console, Context, Trouble, json_option, print, refused, text};
use crate::identity::PublicKey;
use crate::route::{check_host, parse_port};

/// The commands under `host-key`.
pub fn commands() -> Vec<Command> {
    vec![
        Command::new("scan")
            .about("Print the host keys of an upstream and the lines to pin; compare them with what its own console says")
            .arg(Arg::new("address").value_name("HOST[:PORT]").required(true).help("[IPv6]:PORT for an IPv6 address"))
            .arg(json_option()),
    ]
}

/// `host-key scan`.
pub fn scan(matches: &ArgMatches, context: &Context<'_>, console: &mut Console<'_>) -> Result<(), Trouble> {
    let (host, port) = address(text(matches, "address").unwrap_or_default()).map_err(refused)?;
    let keys = crate::upstream::scan(&host, port, context.upstream).map_err(Trouble::Failed)?;
    if matches.get_flag("json") {
        let keys: Vec<_> = keys.iter().map(|key| as_json(&host, port, key)).collect();
        return Ok(print::json(console.out, &json!({ "host": host, "port": port, "keys": keys }))?);
    }
    fingerprints(console, &keys)?;
    writeln!(console.out, "\nto pin in a user's record (one is enough; also: user add NAME --update --host-key …):")?;
    for key in &keys {
        writeln!(console.out, "hostkey = \"{}\"", key.fingerprint())?;
    }
    writeln!(console.out, "\nfor known_hosts:")?;
    for key in &keys {
        writeln!(console.out, "{}", known_hosts_line(&host, port, key))?;
    }
    Ok(())
}

/// Prints type and fingerprint of each key.
pub fn fingerprints(console: &mut Console<'_>, keys: &[PublicKey]) -> Result<(), Trouble> {
    let rows: Vec<_> = keys.iter().map(|key| vec![key.kind().to_owned(), key.fingerprint().to_string()]).collect();
    Ok(print::table(console.out, &["TYPE", "FINGERPRINT"], &rows)?)
}

fn as_json(host: &str, port: u16, key: &PublicKey) -> serde_json::Value {
    json!({
        "type": key.kind(),
        "fingerprint": key.fingerprint().to_string(),
        "hostkey": key.fingerprint().to_string(),
        "known_hosts": known_hosts_line(host, port, key),
    })
}

/// sshd(8), SSH_KNOWN_HOSTS FILE FORMAT: brackets only for ports other than 22.
fn known_hosts_line(host: &str, port: u16, key: &PublicKey) -> String {
    match port {
        22 => format!("{host} {} {}", key.kind(), key.base64()),
        port => format!("[{host}]:{port} {} {}", key.kind(), key.base64()),
    }
}

/// `HOST`, `HOST:PORT`, `[V6]:PORT`, `[V6]` or `V6`.
fn address(given: &str) -> Result<(String, u16), String> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(address(given), Ok((host.to_owned(), port)), "{given}");
        }
        for bad in ["", ":22", "h:0", "h:x", "a b:22", "[::1]x"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn known_hosts_lines_have_brackets_only_for_ports_other_than_22() {
        let key = PublicKey::from_base64("AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f").unwrap();
        assert!(known_hosts_line("h", 22, &key).starts_with("h ssh-ed25519 AAAA"));
        assert!(known_hosts_line("::1", 2222, &key).starts_with("[::1]:2222 ssh-ed25519 AAAA"));
    }
}
