//! What a process holds, as the kernel tells.

use std::collections::HashSet;
use std::fs;

pub struct Held {
    /// Its share of the memory that is resident (PSS); all of it (RSS) where only root may know.
    pub kib: u64,
    /// What is in no file, so that no other process can share it: heap and stacks.
    pub own_kib: u64,
    pub threads: u64,
    pub files: usize,
    pub maps: usize,
}

impl Held {
    /// Of this process.
    pub fn of(pid: u64) -> Self {
        let text = |what: &str| fs::read_to_string(format!("/proc/{pid}/{what}")).unwrap_or_default();
        let field = |text: &str, name: &str| -> Option<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        let (status, memory) = (text("status"), text("smaps_rollup"));
        Self {
            kib: field(&memory, "Pss:").or_else(|| field(&status, "VmRSS:")).unwrap_or_default(),
            own_kib: field(&memory, "Anonymous:").or_else(|| field(&status, "RssAnon:")).unwrap_or_default(),
            threads: field(&status, "Threads:").unwrap_or_default(),
            files: fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count),
            maps: text("maps").lines().count(),
        }
    }
}

/// How many connections a process has to this port of this machine: those of a pool, for example, which come and go by its own rules.
pub fn connections(pid: u64, port: u16) -> usize {
    let port = format!(":{port:04X}");
    let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let theirs: HashSet<String> = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|words| words.len() > 9 && words[2].ends_with(&port))
        .map(|words| format!("socket:[{}]", words[9]))
        .collect();
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return 0 };
    let links = files.flatten().filter_map(|file| fs::read_link(file.path()).ok());
    links.filter(|link| theirs.contains(&*link.to_string_lossy())).count()
}
