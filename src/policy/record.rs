//! A policy from the texts of a user's record. Whole or refused: an unknown word refuses the record and is named.

use super::names::Names;
use super::rights::{Rights, Rules};
use super::{Limit, Policy};
use crate::error::shown;
use crate::path::{MAX_PATH, normal};
use crate::sftp::{EXTENDED, KINDS, Kind};

/// The fields of a record that are a user's policy, in the order in which they are shown.
pub const FIELDS: [&str; 8] = ["read_only", "upload_only", "root", "rules", "allow", "deny", "max_file_size", "extensions"];

/// Most rules in a record; each is tried for each path.
pub const MAX_RULES: usize = 256;

impl Policy {
    /// Reads a policy. `field` gives the text of a field that is there and not empty. `None` = no field is there, and everything is
    /// allowed. The error has one reason for each bad field.
    pub fn parse<'a>(field: impl Fn(&str) -> Option<&'a str>) -> Result<Option<Self>, Vec<String>> {
        let mut faults = Vec::new();
        let mut note = |name: &str, reason: String| faults.push(format!("{name}: {reason}"));
        macro_rules! read {
            ($name:literal, $parse:expr) => {
                field($name).and_then(|text| $parse(text).map_err(|reason| note($name, reason)).ok())
            };
        }
        let read_only = read!("read_only", parse_yes).unwrap_or(false);
        let upload_only = read!("upload_only", parse_yes).unwrap_or(false);
        let root = read!("root", parse_root);
        let rules = read!("rules", parse_rules);
        let allow = read!("allow", Names::parse);
        let deny = read!("deny", Names::parse);
        let max_file_size = read!("max_file_size", parse_size);
        let extensions = read!("extensions", parse_extensions);
        if read_only && upload_only {
            note("upload_only", "with read_only nothing at all would be allowed".into());
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let limit = match (read_only, upload_only) {
            (true, _) => Limit::ReadOnly,
            (_, true) => Limit::UploadOnly,
            _ => Limit::None,
        };
        let nothing = limit == Limit::None && max_file_size.is_none() && extensions.is_none();
        if nothing && root.is_none() && rules.is_none() && allow.is_none() && deny.is_none() {
            return Ok(None);
        }
        let ruled = rules.is_some();
        // A link below a root may lead out of it; who wants that says so in a rule.
        let all = if root.as_ref().is_some_and(|root| root != "/") { Rights::ALL.without(Rights::LINK) } else { Rights::ALL };
        let rules = rules.unwrap_or_else(|| Rules::everywhere(all));
        Ok(Some(Self { limit, ruled, rules, allow, deny, max_file_size, extensions, root }))
    }
}

fn parse_yes(text: &str) -> Result<bool, String> {
    match text.trim() {
        "yes" | "true" => Ok(true),
        "no" | "false" => Ok(false),
        other => Err(format!("\"{}\" is neither yes nor no", shown(other))),
    }
}

/// Reads a root: absolute, and then normal. `/` is one too: it says that the whole upstream is seen, and normal paths go there.
fn parse_root(text: &str) -> Result<String, String> {
    parse_path(text).map(|path| String::from_utf8_lossy(&path).into_owned())
}

fn parse_path(text: &str) -> Result<Vec<u8>, String> {
    let text = text.trim();
    if !text.starts_with('/') {
        return Err(format!("\"{}\" does not begin with /", shown(text)));
    }
    if text.len() > MAX_PATH {
        return Err(format!("a path has at most {MAX_PATH} bytes"));
    }
    if text.split('/').any(|part| part == "..") {
        return Err(format!("\"{}\" has a .. in it", shown(text)));
    }
    Ok(normal(b"/", text.as_bytes()))
}

/// Reads `PATH=WORD,WORD; PATH=WORD`; line ends separate rules too.
fn parse_rules(text: &str) -> Result<Rules, String> {
    let mut list = Vec::new();
    for rule in text.split([';', '\n']).map(str::trim).filter(|rule| !rule.is_empty()) {
        let (path, words) = rule.rsplit_once('=').ok_or_else(|| format!("\"{}\" is not PATH=WORD,WORD", shown(rule)))?;
        let path = parse_path(path)?;
        let mut rights = Rights::NONE;
        for word in words.split(',').map(str::trim) {
            rights = rights.and(parse_word(word)?);
        }
        if list.iter().any(|(other, _)| *other == path) {
            return Err(format!("\"{}\" is there twice", shown(&String::from_utf8_lossy(&path))));
        }
        list.push((path, rights));
    }
    match list.len() {
        0 => Err("there is no rule".into()),
        count if count > MAX_RULES => Err(format!("more than {MAX_RULES} rules")),
        _ => Ok(Rules::new(list)),
    }
}

fn parse_word(word: &str) -> Result<Rights, String> {
    match word {
        "all" => Ok(Rights::ALL),
        "none" => Ok(Rights::NONE),
        _ => Rights::WORDS.iter().find(|(name, _)| *name == word).map(|(_, right)| *right).ok_or_else(|| {
            let words: Vec<_> = Rights::WORDS.iter().map(|(name, _)| *name).collect();
            format!("\"{}\" is none of {}, all, none", shown(word), words.join(", "))
        }),
    }
}

/// Reads bytes, or `K`, `M`, `G`, `T` of them in powers of 1024.
fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let (digits, unit) = match text.char_indices().last() {
        Some((at, letter)) if letter.is_ascii_alphabetic() => (&text[..at], letter.to_ascii_uppercase()),
        _ => (text, 'B'),
    };
    let factor = "BKMGT".find(unit).map(|place| 1_u64 << (10 * place));
    let number = digits.parse::<u64>().ok().filter(|_| !digits.starts_with('+'));
    number
        .zip(factor)
        .and_then(|(number, factor)| number.checked_mul(factor))
        .ok_or_else(|| format!("\"{}\" is not a size such as 1000000 or 10M", shown(text)))
}

/// Reads names of OpenSSH's extensions, short or whole; `none` is none of them.
fn parse_extensions(text: &str) -> Result<Vec<&'static Kind>, String> {
    let names: Vec<_> = text.split([',', '\n']).map(str::trim).filter(|name| !name.is_empty()).collect();
    if names == ["none"] {
        return Ok(Vec::new());
    }
    let known = || KINDS.iter().filter(|kind| kind.number == EXTENDED);
    let find = |name: &&str| {
        known().find(|kind| kind.name == *name || kind.short() == *name).ok_or_else(|| {
            let names: Vec<_> = known().map(Kind::short).collect();
            format!("\"{}\" is none of {}, none", shown(name), names.join(", "))
        })
    };
    names.iter().map(find).collect()
}
