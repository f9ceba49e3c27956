//! HAProxy in front of something, as a site would have it: with the PROXY protocol towards it, or from it.

use std::path::Path;
use std::process::Command;

use super::process::{LIMIT, Process, free_port, until};

/// A running HAProxy.
pub struct Haproxy {
    /// Its process and its log: a line for each connection that has ended, which begins with the client's address.
    pub process: Process,
    /// Where it listens, on 127.0.0.1 and ::1.
    pub port: u16,
}

/// Debian's place for it, which is in no user's PATH.
const PROGRAM: &str = "/usr/sbin/haproxy";

impl Haproxy {
    /// Whether there is one; scripts/test installs it, a stranger's `cargo test` may go without.
    pub fn is_installed() -> bool {
        let is_there = Path::new(PROGRAM).exists();
        if !is_there {
            eprintln!("haproxy is not installed: this test tells nothing (scripts/test installs it)");
        }
        is_there
    }

    /// Starts one before a port of 127.0.0.1. `bind` and `server` are words at the end of those lines, such as `accept-proxy` and `send-proxy-v2`.
    pub fn start(folder: &Path, to: u16, bind: &str, server: &str) -> Self {
        for _ in 0..10 {
            let port = free_port();
            let config = folder.join(format!("haproxy-{port}.cfg"));
            let text = format!(
                "global\n log stdout format raw local0\ndefaults\n mode tcp\n log global\n log-format \"client %ci:%cp\"\n\
                 timeout connect 5s\n timeout client 60s\n timeout server 60s\nfrontend f\n bind 127.0.0.1:{port} {bind}\n\
                 bind [::1]:{port} {bind}\n default_backend b\nbackend b\n server s 127.0.0.1:{to} {server}\n"
            );
            std::fs::write(&config, text).expect("a configuration for HAProxy");
            let mut process = Process::start_stdout(Command::new(PROGRAM).arg("-db").arg("-f").arg(&config));
            let listens = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
            let mut ended = false;
            if until(LIMIT, || {
                ended = process.ended().is_some();
                ended || listens()
            }) && !ended
            {
                return Self { process, port };
            }
        }
        panic!("HAProxy does not start");
    }
}
