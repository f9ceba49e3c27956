//! The settings of the control socket, and of what nodes tell each other.

use std::path::PathBuf;
use std::time::Duration;

use super::Values;
use crate::route::check_node;

/// Where `serve` of the systemd unit has its socket, for commands that are not told.
const OF_THE_UNIT: &str = "/run/sftpproxy/control.sock";

/// The socket's name in its folder.
const NAME: &str = "control.sock";

/// Seeing and ending sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// Where `serve` makes its socket; `None` = it makes none.
    pub socket: Option<PathBuf>,
    /// Whether the operator has named that place: then it is a fault if it cannot be had.
    pub named: bool,
    /// Where commands look for a socket, one after the other.
    pub places: Vec<PathBuf>,
    /// Its mode.
    pub mode: u32,
    /// Whether to take over from the router that answers there.
    pub take_over: bool,
    /// This router's name among those at one store.
    pub node: String,
    /// How often sessions are written into the store; 0 = not at all.
    pub interval: Duration,
}

pub(super) fn parse(
    values: &mut Values<'_>,
    state_dir: &std::path::Path,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Control {
    let runtime = environment("RUNTIME_DIRECTORY").filter(|folder| !folder.is_empty());
    // systemd.exec(5): several are separated by colons; the first is ours.
    let runtime = runtime.map(|folders| PathBuf::from(folders.split(':').next().unwrap_or_default()).join(NAME));
    let (named, off) = match values.path("control-socket") {
        Some(path) if path.as_os_str() == "none" => (None, true),
        path => (path, false),
    };
    let usual = runtime.unwrap_or_else(|| state_dir.join(NAME));
    let places = match &named {
        Some(path) => vec![path.clone()],
        None => vec![usual.clone(), OF_THE_UNIT.into()],
    };
    let mode = |text: &str| match text {
        "0600" | "600" => Some(0o600),
        "0660" | "660" => Some(0o660),
        _ => None,
    };
    let take_over = values.parsed("take-over", "yes or no", super::yes_or_no).unwrap_or_default();
    if take_over && off {
        values
            .faults
            .push("SFTPPROXY_TAKE_OVER = \"yes\": expected a SFTPPROXY_CONTROL_SOCKET, where the router before is asked".into());
    }
    let node = |text: &str| check_node(text).is_ok().then(|| text.to_owned());
    Control {
        socket: (!off).then(|| named.clone().unwrap_or(usual)),
        named: named.is_some(),
        take_over,
        places,
        mode: values.parsed("control-mode", "0600 or 0660", mode).unwrap_or(0o600),
        node: values.parsed("node", "1 to 64 letters, digits and any of -_.:", node).unwrap_or_else(usual_node),
        interval: Duration::from_secs(values.number("node-interval", 0, 60)),
    }
}

fn usual_node() -> String {
    let host = nix::unistd::gethostname().ok().and_then(|host| host.into_string().ok()).unwrap_or_default();
    let host: String = host.chars().filter(|letter| check_node(&letter.to_string()).is_ok()).take(48).collect();
    format!("{}:{}", if host.is_empty() { "node" } else { &host }, std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn parse(given: &[(&str, &str)], environment: &[(&str, &str)]) -> Result<Control, Vec<String>> {
        let of = |list: &[(&str, &str)], name: &str| {
            list.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        Config::parse(&|flag| of(given, flag), &|name| of(environment, name)).map(|config| config.control)
    }

    #[test]
    fn the_socket_is_where_systemd_or_the_state_is_unless_a_place_is_named() {
        let control = parse(&[("state-dir", "/s")], &[]).unwrap();
        assert_eq!((control.socket, control.named, control.mode), (Some("/s/control.sock".into()), false, 0o600));
        assert_eq!(control.places, [PathBuf::from("/s/control.sock"), OF_THE_UNIT.into()]);
        let control = parse(&[("state-dir", "/s")], &[("RUNTIME_DIRECTORY", "/run/a:/run/b")]).unwrap();
        assert_eq!(control.socket, Some("/run/a/control.sock".into()));
        let control = parse(&[("control-socket", "/x/y"), ("control-mode", "0660"), ("node", "a:1")], &[]).unwrap();
        assert_eq!(
            (control.places, control.named, control.mode, control.node.as_str()),
            (vec!["/x/y".into()], true, 0o660, "a:1")
        );
        assert_eq!(parse(&[("control-socket", "none")], &[]).unwrap().socket, None);
        assert!(parse(&[("take-over", "yes")], &[]).unwrap().take_over);
        assert_eq!(parse(&[("take-over", "yes"), ("control-socket", "none")], &[]).unwrap_err().len(), 1);
        for bad in [("take-over", "if"), ("control-mode", "0666"), ("node", "a/b"), ("node", "a b"), ("node-interval", "61")] {
            assert_eq!(parse(&[bad], &[]).unwrap_err().len(), 1, "{bad:?}");
        }
        assert!(check_node(&usual_node()).is_ok(), "{}", usual_node());
    }
}
