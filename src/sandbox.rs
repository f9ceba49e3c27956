//! What the process gives up of itself once it has started, beside its privileges: nobody but root may look into it.
//!
//! Others of the same account could otherwise attach a debugger or read `/proc/PID/mem`, and a crash would leave a core file: both have
//! private keys in them. A hook runs as this account.

use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{Resource, setrlimit};

/// No core file, and no `ptrace(2)`, `/proc/PID/mem`, `environ` or `fd` for others of this account. Programs that are started from here,
/// such as a hook, are not concerned. To be called again after a change of the account, which undoes it.
pub fn close() -> Result<(), String> {
    let says = |what: &'static str| move |error: nix::errno::Errno| format!("SFTPPROXY_SANDBOX = \"yes\": {what}: {error}");
    set_dumpable(false).map_err(says("prctl"))?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(says("setrlimit"))
}
