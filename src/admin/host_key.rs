//! `host-key scan|list|approve|remove`: what host keys upstreams show, which are approved and by whom, and which upstreams are
//! quarantined. Looking at a key is not trusting it.

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::json;

use super::{Console, Context, Trouble, json_option, print, refused, text, yes_option};
use crate::identity::PublicKey;
use crate::route::{Pin, parse_address};

mod approve;
mod survey;

pub use approve::{approve, remove};
pub use survey::list;

/// The commands under `host-key`.
pub fn commands() -> Vec<Command> {
    let address = || {
        Arg::new("address").value_name("HOST[:PORT]").required(true).help("[IPv6]:PORT for an IPv6 address; without a port 22")
    };
    let key = |help: &'static str| Arg::new("key").long("key").value_name("SHA256:…").help(help);
    vec![
        Command::new("scan")
            .about("Print the host keys of an upstream and the lines to pin; compare them with what its own console says")
            .arg(address())
            .arg(json_option()),
        Command::new("list")
            .about("List the approved host keys of all upstreams, by whom they are approved, and which upstreams are quarantined")
            .arg(json_option()),
        Command::new("approve")
            .about("Pin the host keys that an upstream shows, or has shown when it was quarantined, for all its users")
            .arg(address())
            .arg(key("Only the key with this fingerprint"))
            .arg(Arg::new("add").long("add").action(ArgAction::SetTrue).help("Leave the keys that are pinned already in force"))
            .arg(yes_option("Pin without a question")),
        Command::new("remove")
            .about("Remove the pins of an upstream; pins in users' records stay")
            .arg(address())
            .arg(key("Only the pin of the key with this fingerprint"))
            .arg(yes_option("Remove without a question")),
    ]
}

/// `host-key scan`.
pub fn scan(matches: &ArgMatches, context: &Context<'_>, console: &mut Console<'_>) -> Result<(), Trouble> {
    let (host, port) = parse_address(text(matches, "address").unwrap_or_default()).map_err(refused)?;
    let keys = crate::upstream::scan(&host, port, context.upstream).map_err(Trouble::Failed)?;
    if matches.get_flag("json") {
        let keys: Vec<_> = keys.iter().map(|key| as_json(&host, port, key)).collect();
        return Ok(print::json(console.out, &json!({ "host": host, "port": port, "keys": keys }))?);
    }
    fingerprints(console, &keys)?;
    writeln!(
        console.out,
        "\nto pin for all users of this upstream: sftpproxy host-key approve; in one user's record (one is enough):"
    )?;
    for key in &keys {
        writeln!(console.out, "hostkey = \"{}\"", Pin::of(key))?;
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
        "hostkey": Pin::of(key).to_string(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_hosts_lines_have_brackets_only_for_ports_other_than_22() {
        let key = PublicKey::from_base64("AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f").unwrap();
        assert!(known_hosts_line("h", 22, &key).starts_with("h ssh-ed25519 AAAA"));
        assert!(known_hosts_line("::1", 2222, &key).starts_with("[::1]:2222 ssh-ed25519 AAAA"));
    }
}
