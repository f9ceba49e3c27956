//! What the process gives up of itself once it has started, beside its privileges. Nobody but root may look into it; and, unless a hook is a
//! program, which would inherit it, it writes only where its settings say and starts no program.
//!
//! Others of the same account could otherwise attach a debugger or read `/proc/PID/mem`, and a crash would leave a core file: both have
//! private keys in them. What is left is for who has taken the process over by a fault in a library: Landlock keeps him from writing
//! elsewhere, a filter of system calls from starting a program and from the corners of the kernel that a router has no use for. Not here:
//! what may be read (keys of records are anywhere) and where may be connected to. The systemd unit forbids more; this holds without it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus, path_beneath_rules,
};
use nix::libc;
use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{Resource, setrlimit};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

use crate::config::audit::{Sink, Target};
use crate::config::{Config, Store};

/// The newest version of Landlock whose rights to write are asked for; the kernel grants what it knows.
const LANDLOCK: ABI = ABI::V5;

/// System calls that a router never makes, answered with EPERM: other processes' memory, the kernel's own programs and keys, mounts and
/// namespaces, the machine's clock and modules, io_uring, which goes around filters of system calls.
const NEVER: &[libc::c_long] = &[
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_reboot,
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_acct,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_personality,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_open_by_handle_at,
    libc::SYS_mknodat,
    libc::SYS_execve,
    libc::SYS_execveat,
];

/// No core file, and no `ptrace(2)`, `/proc/PID/mem`, `environ` or `fd` for others of this account. Programs that are started from here,
/// such as a hook, are not concerned. To be called again after a change of the account, which undoes it.
pub fn close() -> Result<(), String> {
    let says = |what: &'static str| move |error: nix::errno::Errno| format!("SFTPPROXY_SANDBOX = \"yes\": {what}: {error}");
    set_dumpable(false).map_err(says("prctl"))?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(says("setrlimit"))
}

/// Shuts the calling thread in, and every thread that it will make: to be called by the only one. Returns what the kernel has taken, for
/// the log; what it does not know is no error.
pub fn shut_in(config: &Config) -> Result<String, String> {
    let program = config.audit.hook.as_ref().is_some_and(|hook| matches!(hook.target, Target::Command(_)));
    if program {
        return Ok("sandbox: a program is the hook and would inherit it, so neither Landlock nor seccomp".into());
    }
    let landlock = write_only_below(&writable(config))?;
    let seccomp = if forget_calls()? { "yes" } else { "no, for want of this processor's names" };
    Ok(format!("sandbox: landlock={landlock} seccomp={seccomp}"))
}

/// Folders in which files are written while it serves.
fn writable(config: &Config) -> Vec<PathBuf> {
    let mut folders = vec![config.state_dir.clone(), "/dev".into()];
    let audits = config.audit.sinks.iter().filter_map(|sink| match sink {
        Sink::File(path) => Some(path),
        _ => None,
    });
    let routes = match &config.store {
        Store::File(path) => Some(path),
        Store::Redis(_) => None,
    };
    for file in audits.chain(&config.log.file).chain(routes).chain(&config.control.socket) {
        folders.push(folder_of(file));
        // Where it really is, when its name is a link.
        folders.extend(std::fs::canonicalize(file).ok().map(|file| folder_of(&file)));
    }
    folders.extend(["RUNTIME_DIRECTORY", "LOGS_DIRECTORY"].iter().filter_map(std::env::var_os).map(PathBuf::from));
    folders
}

fn folder_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => ".".into(),
    }
}

/// From now on this thread makes, changes and removes files below these folders only.
fn write_only_below(folders: &[PathBuf]) -> Result<&'static str, String> {
    let says = |error: landlock::RulesetError| format!("SFTPPROXY_SANDBOX = \"yes\": Landlock: {error}");
    let rights = AccessFs::from_write(LANDLOCK);
    // The first version let nobody move a file from one folder to another, not even where both may be written in: then rather none.
    let rules = Ruleset::default().set_compatibility(CompatLevel::SoftRequirement).handle_access(AccessFs::Refer);
    let rules = rules.and_then(|rules| rules.set_compatibility(CompatLevel::BestEffort).handle_access(rights));
    let rules = rules.and_then(Ruleset::create).map_err(says)?;
    let status = rules.add_rules(path_beneath_rules(folders, rights)).and_then(|rules| rules.restrict_self()).map_err(says)?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => "yes",
        RulesetStatus::PartiallyEnforced => "partly, for want of a newer kernel",
        RulesetStatus::NotEnforced => "no, the kernel has none or too old a one",
    })
}

/// From now on this thread cannot make the calls of [`NEVER`]. `false` = not known for this processor.
fn forget_calls() -> Result<bool, String> {
    let Ok(processor) = TargetArch::try_from(std::env::consts::ARCH) else { return Ok(false) };
    let says = |error: &dyn std::fmt::Display| format!("SFTPPROXY_SANDBOX = \"yes\": seccomp: {error}");
    let calls: BTreeMap<i64, Vec<_>> = NEVER.iter().map(|&call| (call, Vec::new())).collect();
    let refuse = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let filter = SeccompFilter::new(calls, SeccompAction::Allow, refuse, processor).map_err(|error| says(&error))?;
    let program = BpfProgram::try_from(filter).map_err(|error| says(&error))?;
    seccompiler::apply_filter(&program).map_err(|error| says(&error))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn who_is_shut_in_starts_no_program_and_writes_in_its_own_folders_only() {
        let (own, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (inside, outside) = (own.path().join("f"), other.path().join("f"));
        std::fs::write(&outside, "there").unwrap();
        let folders = vec![own.path().to_owned(), "/dev".into()];
        // Both hold for this thread and those it makes, so that the other tests go on as they were.
        let shut_in = std::thread::spawn(move || {
            let landlock = write_only_below(&folders).unwrap();
            let seccomp = forget_calls().unwrap();
            let started = Command::new("true").status();
            let wrote = std::thread::spawn(move || {
                std::fs::write(&inside, "x").unwrap();
                let deeper = inside.with_extension("d");
                std::fs::create_dir(&deeper).unwrap();
                std::fs::rename(&inside, deeper.join("f")).unwrap();
                std::fs::read(&outside).unwrap();
                (std::fs::write(&outside, "x").is_ok(), std::fs::remove_file(&outside).is_ok())
            });
            (landlock, seccomp, started.map_err(|error| error.raw_os_error()), wrote.join().unwrap())
        });
        let (landlock, seccomp, started, wrote) = shut_in.join().unwrap();
        assert!(!seccomp || started == Err(Some(libc::EPERM)), "{started:?}");
        assert!(landlock.starts_with("no") || wrote == (false, false), "{landlock}: {wrote:?}");
        Command::new("true").status().expect("nobody else is shut in");
    }
}
