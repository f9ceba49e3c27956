//! The command `reload`: starts a router beside the one that runs, with the settings and the program as they are now, and waits until it has
//! taken over. It cannot be the running one that does: that may start no program, and has forgotten its passwords.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::config::control::Control;
use crate::control::Client;

/// How long it may take: longer than the heir gives itself.
const LIMIT: Duration = Duration::from_secs(100);

/// How often to look.
const LOOK: Duration = Duration::from_millis(50);

/// Starts it with this process' options and environment, which must not have been forgotten yet. Returns its process id once it serves;
/// an error: it does not, and the router that runs goes on.
#[allow(clippy::zombie_processes, reason = "it outlives this process, which ends right after")]
pub fn start(control: &Control) -> Result<u32, String> {
    let place = control.socket.clone().ok_or("SFTPPROXY_CONTROL_SOCKET = \"none\": there the running router would be asked")?;
    let places = [place];
    Client::connect(&places)?;
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    // The last word was this command, which takes no others.
    arguments.pop();
    arguments.push("serve".into());
    let mut arguments = arguments.into_iter();
    // Of its own file, in case somebody replaces it in this moment.
    let mut command = Command::new("/proc/self/exe");
    command.arg0(arguments.next().unwrap_or_else(|| "sftpproxy".into())).args(arguments).env("SFTPPROXY_TAKE_OVER", "yes");
    // What ends the terminal or the script that has asked does not end the router.
    let spawned = command.stdin(Stdio::null()).process_group(0).spawn();
    let mut child = spawned.map_err(|error| format!("the new router cannot be started: {error}"))?;
    let until = Instant::now() + LIMIT;
    loop {
        if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
            return Err(format!(
                "the new router has ended before it served ({status}), why is said above; the one that runs goes on"
            ));
        }
        if Client::connect(&places).and_then(|mut client| client.pid()) == Ok(child.id()) {
            return Ok(child.id());
        }
        if Instant::now() > until {
            let _ = child.kill().and_then(|()| child.wait());
            return Err(format!(
                "the new router does not serve after {} s and was ended; the one that runs goes on",
                LIMIT.as_secs()
            ));
        }
        thread::sleep(LOOK);
    }
}
