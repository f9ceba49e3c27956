//! How many sessions the machine lets this process have: descriptors, threads, memory mappings. A thread too many would abort it.
//!
//! What is read is the kernel's word at the start; others may use up what all share (tasks of a cgroup, threads of the machine).

use std::fs;

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

/// Descriptors of a session: two sockets and a copy of one, two eventfds; and one for the login (a look-up, a key file).
const FILES: u64 = 6;

/// Threads of a session.
const THREADS: u64 = 2;

/// Mappings of a session: each thread has a stack and one for signals, each with a guard; the heap's are shared.
const MAPS: u64 = 8;

/// What the process has besides: listeners, the store, the audit, hooks, libraries.
const OTHERS: u64 = 128;

/// Mappings besides: libraries, arenas of the heap.
const OTHER_MAPS: u64 = 1024;

/// What the machine allows; `None` = any number, or it does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Machine {
    /// Open files (RLIMIT_NOFILE).
    pub files: Option<u64>,
    /// Threads: the least of RLIMIT_NPROC, kernel.threads-max and pids.max of the cgroup and of those above it.
    pub threads: Option<u64>,
    /// Memory mappings (vm.max_map_count).
    pub maps: Option<u64>,
}

impl Machine {
    /// What this process may have.
    pub fn read() -> Self {
        let number = |path: &str| fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
        let processes = getrlimit(Resource::RLIMIT_NPROC).ok().map(|(soft, _)| soft).filter(|soft| *soft != rlim_t::MAX);
        // The kernel does not hold root to it.
        let processes = processes.filter(|_| !nix::unistd::geteuid().is_root());
        let cgroup = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let tasks = pids_files(&cgroup).iter().filter_map(|path| number(path)).min();
        Self {
            files: getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft),
            threads: [processes, number("/proc/sys/kernel/threads-max"), tasks].into_iter().flatten().min(),
            maps: number("/proc/sys/vm/max_map_count"),
        }
    }

    /// The most sessions that fit, and what stands in the way of more.
    pub fn sessions(&self) -> (u64, &'static str) {
        let fits =
            |limit: Option<u64>, others: u64, each: u64| limit.map_or(u64::MAX, |limit| limit.saturating_sub(others) / each);
        [
            (fits(self.files, OTHERS, FILES), "the limit of open files (LimitNOFILE in the unit, ulimit -Hn)"),
            (fits(self.threads, OTHERS, THREADS), "the limit of threads (TasksMax in the unit, ulimit -u, kernel.threads-max)"),
            (fits(self.maps, OTHER_MAPS, MAPS), "vm.max_map_count (sysctl)"),
        ]
        .into_iter()
        .min_by_key(|(sessions, _)| *sessions)
        .unwrap_or((u64::MAX, ""))
    }

    /// What is to be said of a setting of so many sessions; `None` = they fit.
    pub fn objects(&self, wanted: usize) -> Option<(usize, String)> {
        let (fit, limit) = self.sessions();
        let fit = usize::try_from(fit).unwrap_or(usize::MAX);
        (fit < wanted).then(|| {
            let said = format!("SFTPPROXY_MAX_SESSIONS = {wanted}: {fit} sessions fit here; for more raise {limit}");
            (fit, said)
        })
    }
}

/// Raises the limit of open files to what so many sessions need, as far as this process may by itself. No further: programs that it
/// starts inherit it, and some are slow with a large one.
pub fn raise_files(sessions: usize) {
    let wanted = (sessions as u64).saturating_mul(FILES).saturating_add(OTHERS);
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < wanted.min(hard)
    {
        // Without it there are as many as before, and `Machine::read` sees that.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, wanted.min(hard), hard);
    }
}

/// The files with the limits of tasks of a process' cgroups, by its `/proc/self/cgroup`, of both versions of cgroups.
fn pids_files(cgroup: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in cgroup.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else { continue };
        let top = match controllers {
            "" => "/sys/fs/cgroup",
            pids if pids.split(',').any(|name| name == "pids") => "/sys/fs/cgroup/pids",
            _ => continue,
        };
        let mut path = path.trim_end_matches('/');
        loop {
            files.push(format!("{top}{path}/pids.max"));
            let Some((above, _)) = path.rsplit_once('/') else { break };
            path = above;
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scarcest_of_files_threads_and_mappings_says_how_many_sessions_fit() {
        let machine = Machine { files: Some(1024), threads: Some(10_000), maps: Some(65_530) };
        let (fit, why) = machine.sessions();
        assert!(fit == 149 && why.contains("LimitNOFILE"), "{fit} {why}");
        assert_eq!(machine.objects(149), None);
        assert_eq!(machine.objects(150).map(|(fit, _)| fit), Some(149));
        let machine = Machine { threads: Some(1128), ..machine };
        assert_eq!(Machine { files: None, ..machine }.sessions().0, 500);
        assert_eq!(Machine { maps: Some(1024 + 80), ..machine }.sessions().0, 10);
        assert_eq!(Machine { files: Some(10), ..machine }.sessions().0, 0);
        assert_eq!(Machine::default().objects(100_000), None);
    }

    #[test]
    fn limits_of_tasks_are_those_of_the_cgroup_and_of_all_above_it() {
        assert_eq!(
            pids_files("0::/system.slice/sftpproxy.service\n"),
            [
                "/sys/fs/cgroup/system.slice/sftpproxy.service/pids.max",
                "/sys/fs/cgroup/system.slice/pids.max",
                "/sys/fs/cgroup/pids.max"
            ]
        );
        assert_eq!(pids_files("5:cpu:/a\n4:pids:/a\n"), ["/sys/fs/cgroup/pids/a/pids.max", "/sys/fs/cgroup/pids/pids.max"]);
        assert_eq!(pids_files("0::/\n"), ["/sys/fs/cgroup/pids.max"]);
        assert_eq!(pids_files("garbage"), Vec::<String>::new());
    }
}
