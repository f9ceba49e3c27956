//! SFTP by hand over the pipes of the real `ssh -s … sftp`: packets out, packets in, in any order and any number at once.

use std::io::{self, Read, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use sftpproxy::sftp::INIT;
use sftpproxy::wire::put_string;

use super::clients::Target;
use super::process::LIMIT;

/// How long an answer may take: an fsync of a disk that others write to has taken more than [`LIMIT`], with nothing in between.
const PATIENCE: Duration = LIMIT.saturating_mul(3);

/// An SFTP session. Its ssh is ended when it is dropped.
pub struct Sftp {
    child: Child,
    input: Option<ChildStdin>,
    replies: Receiver<Vec<u8>>,
}

impl Sftp {
    /// Starts ssh and sends INIT; the answer to it is the first reply.
    pub fn start(target: &Target) -> Self {
        Self::start_with(target, 3)
    }

    /// The same with a later version in INIT.
    pub fn start_with(target: &Target, version: u8) -> Self {
        let spawned = target.subsystem().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child = spawned.expect("ssh");
        let (input, mut output) = (child.stdin.take(), child.stdout.take().expect("a piped standard output"));
        let (sender, replies) = channel();
        // Answers are taken while requests are sent: neither end may wait for the other.
        std::thread::spawn(move || {
            while let Ok(packet) = read(&mut output)
                && sender.send(packet).is_ok()
            {}
        });
        let mut sftp = Self { child, input, replies };
        let _ = sftp.send(&[INIT, 0, 0, 0, version]);
        sftp
    }

    /// The same, when VERSION has come.
    #[track_caller]
    pub fn open(target: &Target) -> Self {
        let sftp = Self::start(target);
        assert_eq!(sftp.reply().expect("VERSION")[0], sftpproxy::sftp::reply::VERSION);
        sftp
    }

    /// The process id of its ssh.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a packet that is given without its length field.
    pub fn send(&mut self, body: &[u8]) -> io::Result<()> {
        let mut packet = Vec::with_capacity(body.len() + 4);
        put_string(&mut packet, body);
        self.input.as_mut().expect("an input that was not ended").write_all(&packet)
    }

    /// The next reply without its length field; `None` = there is none any more.
    #[track_caller]
    pub fn reply(&self) -> Option<Vec<u8>> {
        use std::sync::mpsc::RecvTimeoutError::{Disconnected, Timeout};
        match self.replies.recv_timeout(PATIENCE) {
            Ok(reply) => Some(reply),
            Err(Disconnected) => None,
            Err(Timeout) => panic!("no answer within {PATIENCE:?}"),
        }
    }

    /// A reply that has come already.
    pub fn reply_at_hand(&self) -> Option<Vec<u8>> {
        self.replies.try_recv().ok()
    }

    /// Says that nothing more comes, and waits for the end.
    pub fn end(mut self) {
        self.input = None;
        while self.reply().is_some() {}
        let _ = self.child.wait();
    }
}

impl Drop for Sftp {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(output: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    output.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    assert!(length <= 1 << 20, "a packet of {length} bytes");
    let mut packet = vec![0; length as usize];
    output.read_exact(&mut packet)?;
    Ok(packet)
}
