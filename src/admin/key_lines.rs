//! Public keys as people have them: `id.pub` files, `ssh-add -L`, `authorized_keys` without options, standard input.

use std::fs::File;
use std::io::{self, Read};

use super::Console;
use crate::error::shown;
use crate::identity::PublicKey;

/// Longest file of keys in bytes: thousands of keys.
const MAX_FILE: u64 = 1024 * 1024;

/// Reads the keys of all `sources` (a file's name, or `-`); every bad line becomes one reason with its number. A key that comes
/// twice is taken once.
pub fn read(sources: &[&str], console: &mut Console<'_>) -> Result<Vec<(PublicKey, String)>, Vec<String>> {
    let mut keys: Vec<(PublicKey, String)> = Vec::new();
    let mut faults = Vec::new();
    for source in sources {
        match text(source, console).map(|text| lines(&text)) {
            Err(reason) => faults.push(format!("{source}: {reason}")),
            Ok((found, reasons)) => {
                if found.is_empty() && reasons.is_empty() {
                    faults.push(format!("{source}: no public key in it"));
                }
                faults.extend(reasons.into_iter().map(|reason| format!("{source}: {reason}")));
                for (key, comment) in found {
                    if keys.iter().all(|(other, _)| *other != key) {
                        keys.push((key, comment));
                    }
                }
            }
        }
    }
    if faults.is_empty() { Ok(keys) } else { Err(faults) }
}

fn text(source: &str, console: &mut Console<'_>) -> Result<String, String> {
    let mut bytes = Vec::new();
    let mut take = |from: &mut dyn Read| from.take(MAX_FILE + 1).read_to_end(&mut bytes).map(drop);
    let done: io::Result<()> = match source {
        "-" => take(&mut console.input),
        path => File::open(path).and_then(|mut file| take(&mut file)),
    };
    done.map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("more than {MAX_FILE} bytes: not a file of public keys"));
    }
    String::from_utf8(bytes).map_err(|_| "not text: not a file of public keys".into())
}

fn lines(text: &str) -> (Vec<(PublicKey, String)>, Vec<String>) {
    let (mut keys, mut faults) = (Vec::new(), Vec::new());
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        match PublicKey::from_line(line) {
            // A comment is for people; what a terminal would take for a command does not belong there.
            Ok((key, comment)) => keys.push((key, shown(&comment))),
            Err(reason) => {
                faults.push(format!("line {}: {reason}", number + 1));
                if line.contains("PRIVATE KEY") {
                    break;
                }
            }
        }
    }
    (keys, faults)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bad_line_is_named_and_comments_are_skipped() {
        let good = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f laptop";
        let (keys, faults) = lines(&format!("# mine\n\n{good}\nnonsense\n  {good}\nssh-rsa AAAA\n"));
        assert_eq!((keys.len(), keys[0].1.as_str()), (2, "laptop"));
        assert!(faults.len() == 2 && faults[0].starts_with("line 4:") && faults[1].starts_with("line 6:"), "{faults:?}");
        let (_, faults) = lines("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\nBBBB\n");
        assert!(faults.len() == 1 && faults[0].contains("private key"), "{faults:?}");
    }
}
