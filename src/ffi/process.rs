//! What this process was given at its start: arguments and environment, as the kernel shows them to others of its account, and descriptors.

use std::ops::Range;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};

/// The descriptors that a service manager has opened for this process, each with its name (sd_listen_fds(3)); they are closed when a program
/// is started from here. Whoever calls it a second time gets none. To be called before anything else opens descriptors.
pub fn given_descriptors() -> Result<Vec<(OwnedFd, String)>, String> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(Vec::new());
    }
    let given = sd_notify::listen_fds_with_names().map_err(|error| format!("LISTEN_FDS, LISTEN_FDNAMES: {error}"))?;
    // SAFETY: each is open, which fcntl(2) has shown within the call, and LISTEN_PID has said that it is for this process; nobody has opened it
    // here, and it is given out once.
    Ok(given.map(|(fd, name)| (unsafe { OwnedFd::from_raw_fd(fd) }, name)).collect())
}

/// Overwrites with NUL bytes what follows these beginnings of variables (`NAME=`) and what follows these options (`--name VALUE` or
/// `--name=VALUE`), in the memory that `/proc/PID/environ` and `/proc/PID/cmdline` show. From then on the variables are there and empty.
/// To be called while there is one thread; does nothing where there is no `/proc`.
pub fn forget_given(variables: &[String], options: &[String]) {
    let Some([arguments, environment]) = areas() else { return };
    // SAFETY: the kernel has laid the strings of execve(2) there, on the stack of the main thread, which can be written to and lives as
    // long as the process; one thread exists, and std hands out copies only, so that nobody else refers to them.
    let (arguments, environment) = unsafe { (memory(arguments), memory(environment)) };
    forget_variables(environment, variables);
    forget_options(arguments, options);
}

/// Where arguments and environment are, as `/proc/self/stat` has it (proc(5): fields 48 to 51).
fn areas() -> Option<[Range<usize>; 2]> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is a name in parentheses, which may have anything in it; the third follows the last parenthesis.
    let fields: Vec<usize> = text.rsplit_once(") ")?.1.split(' ').skip(45).map_while(|field| field.trim().parse().ok()).collect();
    let [arguments, arguments_end, environment, environment_end, ..] = fields[..] else { return None };
    let good = arguments != 0 && arguments <= arguments_end && environment != 0 && environment <= environment_end;
    good.then_some([arguments..arguments_end, environment..environment_end])
}

/// # Safety
/// The range is memory of this process that can be written to, and nobody refers to it while the slice lives.
unsafe fn memory<'a>(range: Range<usize>) -> &'a mut [u8] {
    // SAFETY: as promised by the caller.
    unsafe { slice::from_raw_parts_mut(std::ptr::with_exposed_provenance_mut(range.start), range.len()) }
}

fn forget_variables(environment: &mut [u8], variables: &[String]) {
    for entry in environment.split_mut(|&byte| byte == 0) {
        if let Some(variable) = variables.iter().find(|variable| entry.starts_with(variable.as_bytes())) {
            entry[variable.len()..].fill(0);
        }
    }
}

fn forget_options(arguments: &mut [u8], options: &[String]) {
    let mut next_is_value = false;
    for argument in arguments.split_mut(|&byte| byte == 0) {
        if std::mem::take(&mut next_is_value) {
            argument.fill(0);
            continue;
        }
        let Some(option) = options.iter().find(|option| argument.starts_with(option.as_bytes())) else { continue };
        match argument.get(option.len()) {
            None => next_is_value = true,
            Some(b'=') => argument[option.len() + 1..].fill(0),
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_secrets_are_overwritten_and_nothing_else() {
        let mut environment = b"A=1\0SECRET=abc\0SECRET_FILE=/x\0B=2\0".to_vec();
        forget_variables(&mut environment, &["SECRET=".to_owned()]);
        assert_eq!(environment, b"A=1\0SECRET=\0\0\0\0SECRET_FILE=/x\0B=2\0");
        let mut arguments = b"p\0--port\x001\0--secret\0abc\0--secret=d\0--secret-file\0/x\0serve\0".to_vec();
        forget_options(&mut arguments, &["--secret".to_owned()]);
        assert_eq!(arguments, b"p\0--port\x001\0--secret\0\0\0\0\0--secret=\0\0--secret-file\0/x\0serve\0");
        let here = areas().expect("there is a /proc");
        assert!(here.iter().all(|area| !area.is_empty()), "{here:?}");
    }
}
