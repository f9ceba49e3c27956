//! The Unix socket at which a router answers the commands of this machine. Who may ask is the mode's and the folder's business: nobody is
//! asked for a name.
//!
//! The socket is made in a folder that nobody else can enter, gets its mode and is moved to its place in one step, so that it is never open
//! to more than it should be, and what a killed router has left is replaced.

use std::fs;
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::{Ask, Desk, Line, MAX_ASK, older};
use crate::error::shown;
use crate::event::json;

/// Connections at the same time; each has a thread.
const MAX_CONNECTIONS: usize = 8;

/// How long a connection may say nothing: longer than `top` waits between two looks.
const IDLE: Duration = Duration::from_secs(90);

/// How long a command may take to read a line.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long to wait after accept(2) has failed, for want of descriptors most likely.
const PAUSE: Duration = Duration::from_millis(100);

/// Stack of a connection's thread.
const STACK: usize = 256 * 1024;

/// How long the end of the program waits for answers that are on their way.
const LAST_ANSWER: Duration = Duration::from_secs(1);

/// A socket that is open. Dropping it removes its name, unless another router has taken that.
pub struct Socket {
    listener: UnixListener,
    path: Mutex<PathBuf>,
    inode: (u64, u64),
    /// Questions that are being answered.
    asked: Arc<AtomicUsize>,
}

/// Opens the socket where no router answers. The error says what is in the way, and what to do.
pub fn open(path: &Path, mode: u32) -> Result<Socket, String> {
    if fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket()) && UnixStream::connect(path).is_ok() {
        let what = "another router answers there; SFTPPROXY_CONTROL_SOCKET gives each its own";
        return Err(format!("control socket {}: {what}", path.display()));
    }
    replace(path, mode)
}

/// Opens the socket, whoever answers there: from one moment to the next it is this router. The error as above.
pub fn replace(path: &Path, mode: u32) -> Result<Socket, String> {
    let says = |what: &dyn std::fmt::Display| format!("control socket {}: {what}", path.display());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| says(&error))?;
    if fs::symlink_metadata(path).is_ok_and(|meta| !meta.file_type().is_socket()) {
        return Err(says(&"there is something that is no socket; remove it"));
    }
    older::sweep(path);
    let made = tempfile::Builder::new().prefix(".c").rand_bytes(4).tempdir_in(folder).map_err(|error| says(&error))?;
    let new = made.path().join("s");
    let listener = UnixListener::bind(&new).map_err(|error| says(&error))?;
    fs::set_permissions(&new, fs::Permissions::from_mode(mode)).map_err(|error| says(&error))?;
    let meta = fs::metadata(&new).map_err(|error| says(&error))?;
    fs::rename(&new, path).map_err(|error| says(&error))?;
    Ok(Socket { listener, path: Mutex::new(path.to_owned()), inode: (meta.dev(), meta.ino()), asked: Arc::default() })
}

impl Socket {
    /// Answers from now on, in a thread of its own. An error is the lack of one.
    pub fn serve(&self, desk: Arc<Desk>) -> Result<(), String> {
        let listener = self.listener.try_clone().map_err(|error| format!("control socket: {error}"))?;
        let asked = Arc::clone(&self.asked);
        let run = move || {
            let open = Arc::new(AtomicUsize::new(0));
            for stream in listener.incoming() {
                match stream {
                    Ok(stream) => accept(stream, &desk, &open, &asked),
                    Err(_) => thread::sleep(PAUSE),
                }
            }
        };
        thread::Builder::new()
            .name("control".into())
            .stack_size(STACK)
            .spawn(run)
            .map(drop)
            .map_err(|e| format!("no thread: {e}"))
    }

    /// Takes the name of an [older](older) router as well, so that the usual one can become another's.
    pub fn step_aside(&self) -> io::Result<()> {
        let mut path = self.path.lock().unwrap_or_else(PoisonError::into_inner);
        let name = older::name(&path, std::process::id());
        fs::hard_link(&*path, &name)?;
        *path = name;
        Ok(())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let path = self.path.lock().unwrap_or_else(PoisonError::into_inner);
        let ours = fs::symlink_metadata(&*path).is_ok_and(|meta| (meta.dev(), meta.ino()) == self.inode);
        if ours {
            let _ = fs::remove_file(&*path);
        }
        // Who has ended the last session is told so, before this process is gone with it.
        let until = Instant::now() + LAST_ANSWER;
        while self.asked.load(Ordering::SeqCst) > 0 && Instant::now() < until {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn accept(stream: UnixStream, desk: &Arc<Desk>, open: &Arc<AtomicUsize>, asked: &Arc<AtomicUsize>) {
    let place = Place::take(open, MAX_CONNECTIONS);
    let (desk, asked) = (Arc::clone(desk), Arc::clone(asked));
    let run = move || {
        // A command that goes away has nothing to be told.
        let _ = match place {
            Some(_place) => attend(&stream, &desk, &asked),
            None => put(&mut &stream, &Line::Error(format!("{MAX_CONNECTIONS} commands are connected already"))),
        };
    };
    if let Err(error) = thread::Builder::new().name("control-ask".into()).stack_size(STACK).spawn(run) {
        log::warn!("control socket: no thread: {error}");
    }
}

/// One of so many; dropping it gives it back.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(open: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        let taken = open.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |count| (count < most).then_some(count + 1));
        taken.ok().map(|_| Self(Arc::clone(open)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Answers until the command goes away or says what is no question.
fn attend(stream: &UnixStream, desk: &Desk, asked: &Arc<AtomicUsize>) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut input = BufReader::with_capacity(MAX_ASK, stream);
    loop {
        let mut line = Vec::new();
        input.by_ref().take(MAX_ASK as u64).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(());
        }
        let _asked = Place::take(asked, usize::MAX);
        let mut output = BufWriter::new(stream);
        let ask = match serde_json::from_slice::<Ask>(&line) {
            Ok(ask) => ask,
            Err(error) => return put(&mut output, &Line::Error(format!("no question: {error}"))).and_then(|()| output.flush()),
        };
        if let Ask::TakeOver(claim) = &ask {
            let reason = match desk.estate.get().map(|estate| estate.hand_over(desk, claim, &mut input)) {
                Some(Ok(())) => return Ok(()),
                Some(Err(reason)) => reason,
                None => "the router is starting".into(),
            };
            log::warn!("take-over: {reason}; this router goes on");
            return put(&mut output, &Line::Error(reason)).and_then(|()| output.flush());
        }
        if let Ask::Kick(kick) = &ask {
            log::info!("kick {} reason=\"{}\"", shown(&json::line(&kick.whom)), shown(&kick.reason));
        }
        desk.answer(&ask, |line| put(&mut output, &line))?;
        output.flush()?;
    }
}

fn put(output: &mut impl io::Write, line: &Line) -> io::Result<()> {
    output.write_all((json::line(line) + "\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Client, Kick, Whom};
    use crate::live::Live;
    use crate::relay::Control;

    fn desk() -> Arc<Desk> {
        Desk::new(Arc::default(), "here")
    }

    #[test]
    fn a_session_is_seen_and_ended_over_the_socket_whose_mode_is_as_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/control.sock");
        let (socket, desk) = (open(&path, 0o660).unwrap(), desk());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
        socket.serve(Arc::clone(&desk)).unwrap();
        let control = Control::new().unwrap();
        let live = Live::new(7, "127.0.0.1:9".parse().unwrap(), Arc::clone(&control));
        let _entry = desk.registry.enter(live);
        let mut client = Client::connect(&[folder.path().join("nowhere"), path.clone()]).unwrap();
        let (sessions, node) = client.ask(&Ask::List).unwrap();
        assert_eq!((sessions.len(), sessions[0].session, node.as_str()), (1, 7, "here"));
        assert_eq!(client.ask(&Ask::Show(8)).unwrap_err(), "there is no session 8");
        let kick = |whom, reason: &str| Ask::Kick(Kick { whom, reason: reason.into() });
        assert!(client.ask(&kick(Whom::All, "two\nlines")).unwrap_err().contains("one line"));
        assert_eq!(client.ask(&kick(Whom::User("x".into()), "")).unwrap().0.len(), 0);
        assert!(!control.is_cut());
        assert_eq!(client.ask(&kick(Whom::Session(7), "the disk is full")).unwrap().0.len(), 1);
        assert!(control.is_cut());
        assert_eq!(control.reason().unwrap().what, "ended by the operator: the disk is full");
        drop(socket);
        assert!(!path.exists());
        assert!(Client::connect(std::slice::from_ref(&path)).err().unwrap().contains("SFTPPROXY_CONTROL_SOCKET"));
    }

    #[test]
    fn what_is_in_the_way_is_told_and_what_a_dead_router_left_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let socket = open(&path, 0o600).unwrap();
        assert!(open(&path, 0o600).err().unwrap().contains("another router answers"));
        // As after SIGKILL: the name stays and nobody listens.
        let left = folder.path().join("left.sock");
        drop(UnixListener::bind(&left).unwrap());
        let replaced = open(&left, 0o600).unwrap();
        drop(socket);
        // Another one has taken the name meanwhile: it is not removed.
        fs::rename(&left, &path).unwrap();
        drop(replaced);
        assert!(path.exists());
        fs::write(folder.path().join("file"), "x").unwrap();
        assert!(open(&folder.path().join("file"), 0o600).err().unwrap().contains("no socket"));
    }

    #[test]
    fn an_answer_that_is_on_its_way_is_waited_for_at_the_end_but_not_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let (socket, desk, control) = (open(&path, 0o600).unwrap(), desk(), Control::new().unwrap());
        socket.serve(Arc::clone(&desk)).unwrap();
        let asked = Arc::clone(&socket.asked);
        let live = |id| Live::new(id, "127.0.0.1:9".parse().unwrap(), Arc::clone(&control));
        let _entries: Vec<_> = (0..20_000).map(|id| desk.registry.enter(live(id))).collect();
        let mut slow = UnixStream::connect(&path).unwrap();
        slow.write_all((json::line(&Ask::List) + "\n").as_bytes()).unwrap();
        // Whoever reads like this has not read it all for minutes, and never so slowly that the router takes him for gone.
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let reader = thread::spawn(move || {
            let (mut lines, mut bytes) = (0, [0; 4096]);
            loop {
                let read = slow.read(&mut bytes).unwrap();
                lines += bytes[..read].iter().filter(|byte| **byte == b'\n').count();
                let goes_on = stopped.recv_timeout(Duration::from_millis(50)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout);
                if !goes_on && (lines == 20_001 || read == 0) {
                    return lines;
                }
            }
        });
        while asked.load(Ordering::SeqCst) == 0 {
            thread::yield_now();
        }
        let since = Instant::now();
        drop(socket);
        assert!(since.elapsed() >= LAST_ANSWER, "it was not waited for");
        assert_eq!(asked.load(Ordering::SeqCst), 1, "its end was waited for");
        drop(stop);
        assert_eq!(reader.join().unwrap(), 20_001, "who lives on answers to the end");
        drop(desk);
    }

    #[test]
    fn what_is_no_question_and_too_many_commands_get_an_error_and_are_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let socket = open(&path, 0o600).unwrap();
        socket.serve(desk()).unwrap();
        let said = |bytes: &[u8]| {
            let mut stream = UnixStream::connect(&path).unwrap();
            let _ = stream.write_all(bytes);
            let mut text = String::new();
            let _ = stream.read_to_string(&mut text);
            text
        };
        assert!(said(b"{\"what\":1}\n").contains("no question"));
        assert!(said(&vec![b'x'; MAX_ASK]).contains("no question"));
        let mut held: Vec<_> = (0..MAX_CONNECTIONS).map(|_| Client::connect(std::slice::from_ref(&path)).unwrap()).collect();
        held.iter_mut().for_each(|client| drop(client.ask(&Ask::List).unwrap()));
        let refused = Client::connect(std::slice::from_ref(&path)).unwrap().ask(&Ask::List).unwrap_err();
        assert!(
            refused.contains("commands are connected") || refused.contains("hung up") || refused.contains("os error"),
            "{refused}"
        );
        drop(held);
    }
}
