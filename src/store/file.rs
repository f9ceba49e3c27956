//! Routes in a TOML file that a person edits: `[users.NAME]` with the record's fields and `keys`, a list of public key lines.
//! `maintenance = "…"` above them closes the router for everybody, `[bans]` keeps networks out.
//!
//! The file is looked at (stat) at each look-up and read again when it changed. It is taken whole or refused whole: a file with a fault
//! is told once in the log, by line, and the last good one stays in force. Our own commands edit the text in place, so that
//! comments and order stay, under a lock on the folder, and replace the file in one step. What the text means is [`table`]'s business,
//! how it is edited [`edit`]'s.
//!
//! What the router itself writes, which upstreams are quarantined, is not for a file that a person edits: it is in a file of the state
//! folder ([`notes`]), so each machine has its own.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use ipnet::IpNet;
use jiff::Timestamp;
use nix::fcntl::{Flock, FlockArg, OFlag};

use self::table::Table;
use super::{Aim, Asked, Found, News, RouteStore, Shelf, StoreError, StoredKey};
use crate::admission::Ban;
use crate::identity::{PublicKey, UserName};
use crate::route::Record;

mod edit;
mod notes;
mod table;

/// Largest file in bytes: 10,000 users with some keys each have about 10 MB.
const MAX_FILE: u64 = 64 * 1024 * 1024;

/// Mode of a file that we make: others have nothing to read in it.
const NEW_MODE: u32 = 0o640;

/// A file may change twice within one tick of the file system's clock. One that is younger than this is not taken for settled.
const SETTLED: Duration = Duration::from_millis(100);

/// How long one of our commands waits for another one.
const LOCK_LIMIT: Duration = Duration::from_secs(10);

/// What stat says of a version of the file; `None` = there is no file.
type Stamp = Option<(u64, u64, u64, i64, i64, i64, i64)>;

/// What is known of the file.
#[derive(Debug)]
struct State {
    table: Arc<Table>,
    stamp: Stamp,
    settled: bool,
    /// How often the table was another one.
    version: u64,
    /// Why the present version is not the one in force.
    fault: Option<String>,
}

/// The store.
#[derive(Debug)]
pub struct FileStore {
    path: PathBuf,
    /// Where the router's own entries are.
    notes: PathBuf,
    state: Mutex<State>,
}

impl FileStore {
    /// Reads the file. A fault in it is an error; a file that does not exist yet is not, since the first `user add` makes it: until then
    /// [`RouteStore::check`] and [`RouteStore::owner`] say that it is missing.
    pub fn new(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let path = path.into();
        let state = match read(&path) {
            Ok((stamp, table)) => State { table: Arc::new(table), stamp, settled: false, version: 0, fault: None },
            Err(Unread { stamp: None, reason, missing: true }) => State {
                table: Arc::default(),
                stamp: None,
                settled: true,
                version: 0,
                fault: Some(format!("{reason}; sftpproxy user add makes it")),
            },
            Err(unread) => return Err(StoreError::new(unread.reason)),
        };
        state.table.warn();
        let notes = path.with_extension("quarantine");
        Ok(Self { path, notes, state: Mutex::new(state) })
    }

    /// The same, and the router's own entries are in this folder instead of beside the file.
    pub fn noting_in(self, folder: &Path) -> Self {
        Self { notes: folder.join("quarantine.toml"), ..self }
    }

    /// What is in force now, after a look at the file.
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = std::fs::metadata(&self.path).ok().map(|meta| stamp(&meta));
        if state.settled && state.stamp == stamp {
            return state;
        }
        let same = state.stamp == stamp;
        match read(&self.path) {
            Ok((stamp, table)) => {
                if !same || state.fault.is_some() {
                    table.warn();
                    log::info!("routes file {}: read again, {} users", self.path.display(), table.users.len());
                }
                let version = state.version + 1;
                *state = State { table: Arc::new(table), settled: settled(stamp), stamp, version, fault: None };
            }
            Err(unread) => {
                if state.fault.as_ref() != Some(&unread.reason) && !(unread.missing && state.fault.is_some() && same) {
                    log::error!("{}; the routes read before stay in force", unread.reason);
                    state.fault = Some(unread.reason);
                }
                state.settled = settled(unread.stamp);
                state.stamp = unread.stamp;
            }
        }
        state
    }

    fn table(&self) -> Arc<Table> {
        Arc::clone(&self.state().table)
    }

    /// Changes the text under the lock. `edit` gets the document and what it means; `None` = nothing is to be written.
    fn change<T>(
        &self,
        edit: impl FnOnce(&mut toml_edit::DocumentMut, &Table) -> Result<(bool, T), StoreError>,
    ) -> Result<T, StoreError> {
        let says = |reason: &dyn std::fmt::Display| StoreError::new(format!("{}: {reason}", self.path.display()));
        // The file itself, not a symbolic link to it, is what is replaced.
        let path = std::fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let _lock = lock(folder).map_err(|reason| says(&reason))?;
        let text = match read_text(&path) {
            Ok((_, text)) => text,
            Err(unread) if unread.missing => String::new(),
            Err(unread) => return Err(StoreError::new(unread.reason)),
        };
        let before = table::parse(&text).map_err(|reason| says(&format_args!("{reason}; correct that first")))?;
        let mut document: toml_edit::DocumentMut = text.parse().map_err(|error| says(&error))?;
        let (changed, answer) = edit(&mut document, &before)?;
        if changed {
            let text = document.to_string();
            table::parse(&text).map_err(|reason| says(&format_args!("this change would make the file invalid: {reason}")))?;
            replace(&path, folder, &text).map_err(|reason| says(&reason))?;
            self.state().settled = false;
        }
        Ok(answer)
    }
}

impl RouteStore for FileStore {
    fn describe(&self) -> String {
        format!("routes file {}", self.path.display())
    }

    fn check(&self) -> Result<(), StoreError> {
        self.state().fault.clone().map_or(Ok(()), |fault| Err(StoreError::new(fault)))
    }

    fn place(&self, asked: Asked<'_>) -> String {
        let path = self.path.display();
        match asked {
            Asked::Owner(key) => format!("{path}: keys with {}", key.base64()),
            Asked::Record(user) => format!("{path}: [users.{}]", toml_edit::Key::new(user.as_str())),
            Asked::Maintenance => format!("{path}: maintenance"),
            Asked::Bans => format!("{path}: [bans]"),
            Asked::Entry(Shelf::Hosts, address) => format!("{path}: [hosts.{}]", toml_edit::Key::new(address)),
            Asked::Entry(Shelf::Quarantine, address) => format!("quarantine of {address}"),
        }
    }

    fn owner(&self, key: &PublicKey) -> Result<Option<UserName>, StoreError> {
        let state = self.state();
        match &state.fault {
            // Never read: what is not known is not "no such user".
            Some(fault) if state.table.users.is_empty() => Err(StoreError::new(fault.clone())),
            _ => Ok(state.table.owners.get(key).cloned()),
        }
    }

    fn record(&self, user: &UserName) -> Result<Option<Record>, StoreError> {
        Ok(self.table().users.get(user).map(|entry| entry.record.clone()))
    }

    fn look(&self, who: &[(&UserName, &PublicKey)]) -> Result<Vec<Found>, StoreError> {
        Ok(who.iter().map(|(user, key)| Found { owner: self.owner(key), record: self.record(user) }).collect())
    }

    fn version(&self) -> Option<u64> {
        Some(self.state().version)
    }

    fn is_empty(&self) -> Result<bool, StoreError> {
        // A file that was lost keeps what it had.
        Ok(false)
    }

    fn hear(&self, _tell: &mut dyn FnMut(News)) -> Result<(), StoreError> {
        Ok(())
    }

    fn say(&self, _text: &str) -> Result<(), StoreError> {
        Ok(())
    }

    fn publish(&self, _node: &str, _text: &str, _life: Duration) -> Result<(), StoreError> {
        Ok(())
    }

    fn nodes(&self) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    fn maintenance(&self) -> Result<Option<String>, StoreError> {
        Ok(self.table().maintenance.clone())
    }

    fn set_maintenance(&self, message: &str) -> Result<(), StoreError> {
        self.change(|document, _| {
            edit::set_maintenance(document, message);
            Ok((true, ()))
        })
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn bans(&self) -> Result<Vec<Ban>, StoreError> {
        let now = Timestamp::now();
        let left = |until: &Timestamp| Duration::try_from(until.duration_since(now)).ok();
        let table = self.table();
        let ban = |(network, until, why): &(IpNet, Option<Timestamp>, String)| {
            // What is over has no time left.
            let left = until.as_ref().map(left).map_or(Some(None), |left| left.map(Some))?;
            Some(Ban { network: *network, left, why: why.clone() })
        };
        Ok(table.bans.iter().filter_map(ban).collect())
    }

    fn add_ban(&self, ban: &Ban) -> Result<(), StoreError> {
        let until = ban.left.map(|left| Timestamp::now() + left).map(|until| until.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        let until = until.map(|until| until.parse::<toml_edit::Datetime>()).transpose();
        let until = until.map_err(|error| StoreError::new(format!("the end of the ban: {error}")))?;
        self.change(|document, _| {
            edit::add_ban(document, &ban.network, until, &ban.why).map_err(StoreError::new)?;
            Ok((true, ()))
        })
    }

    fn remove_ban(&self, network: &IpNet) -> Result<bool, StoreError> {
        self.change(|document, _| {
            let removed = edit::remove_ban(document, network);
            Ok((removed, removed))
        })
    }

    fn users(&self) -> Result<Vec<UserName>, StoreError> {
        let mut users: Vec<_> = self.table().users.keys().cloned().collect();
        users.sort();
        Ok(users)
    }

    fn keys(&self) -> Result<Vec<StoredKey>, StoreError> {
        let table = self.table();
        let all = table.users.iter().flat_map(|(user, entry)| entry.keys.iter().map(move |(key, comment)| (user, key, comment)));
        let mut keys: Vec<_> = all
            .map(|(user, key, comment)| StoredKey { base64: key.base64(), comment: comment.clone(), user: user.to_string() })
            .collect();
        keys.sort_by(|a, b| (&a.user, &a.base64).cmp(&(&b.user, &b.base64)));
        Ok(keys)
    }

    fn put(&self, user: &UserName, aim: Aim, fields: &Record, keys: &[(PublicKey, String)]) -> Result<(), StoreError> {
        self.change(|document, before| {
            aim.check(user, before.users.contains_key(user))?;
            for (key, _) in keys {
                match before.owners.get(key) {
                    Some(owner) if owner != user => return Err(super::owned(&key.fingerprint(), owner.as_str())),
                    _ => {}
                }
            }
            let new: Vec<_> = keys.iter().filter(|(key, _)| !before.owners.contains_key(key)).collect();
            edit::put(document, user, fields, &new).map_err(StoreError::new)?;
            Ok((true, ()))
        })
    }

    fn entry(&self, shelf: Shelf, address: &str) -> Result<Record, StoreError> {
        Ok(match shelf {
            Shelf::Hosts => self.table().hosts.get(address).cloned().unwrap_or_default(),
            Shelf::Quarantine => notes::read(&self.notes)?.remove(address).unwrap_or_default(),
        })
    }

    fn entries(&self, shelf: Shelf) -> Result<BTreeMap<String, Record>, StoreError> {
        match shelf {
            Shelf::Hosts => Ok(self.table().hosts.clone()),
            Shelf::Quarantine => notes::read(&self.notes),
        }
    }

    fn put_entry(&self, shelf: Shelf, address: &str, fields: &Record) -> Result<bool, StoreError> {
        if shelf == Shelf::Quarantine {
            return notes::put(&self.notes, address, fields);
        }
        self.change(|document, before| {
            let old = before.hosts.get(address);
            let has = |field: &str| old.is_some_and(|old| old.contains_key(field));
            let new = fields.iter().any(|(field, value)| value.is_empty() == has(field));
            edit::put_host(document, address, fields).map_err(StoreError::new)?;
            Ok((true, new))
        })
    }

    fn remove_user(&self, user: &UserName) -> Result<bool, StoreError> {
        self.change(|document, _| {
            let removed = edit::remove_user(document, user);
            Ok((removed, removed))
        })
    }

    fn remove_key(&self, user: &str, base64: &str) -> Result<bool, StoreError> {
        self.change(|document, _| {
            let removed = edit::remove_key(document, user, base64);
            Ok((removed, removed))
        })
    }
}

/// Why the file could not be taken, and which version of it that was.
struct Unread {
    stamp: Stamp,
    reason: String,
    missing: bool,
}

fn stamp(meta: &std::fs::Metadata) -> (u64, u64, u64, i64, i64, i64, i64) {
    // The change time too: tools that keep the modification time (cp -p, rsync -t) cannot keep that one.
    (meta.dev(), meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec())
}

/// Whether this version is so old that another change would show in the stamp.
fn settled(stamp: Stamp) -> bool {
    let Some((.., seconds, nanos)) = stamp else { return true };
    let (Ok(seconds), Ok(nanos)) = (u64::try_from(seconds), u32::try_from(nanos)) else { return true };
    let changed = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos);
    // A time in the future is a clock's fault; waiting for it would mean to read the file at each login.
    SystemTime::now().duration_since(changed).map_or(true, |age| age > SETTLED)
}

fn read(path: &Path) -> Result<(Stamp, Table), Unread> {
    let (stamp, text) = read_text(path)?;
    match table::parse(&text) {
        Ok(table) => Ok((stamp, table)),
        Err(reason) => Err(Unread { stamp, reason: format!("{}: {reason}", path.display()), missing: false }),
    }
}

fn read_text(path: &Path) -> Result<(Stamp, String), Unread> {
    let unread = |stamp: Stamp, reason: &dyn std::fmt::Display, missing| Unread {
        stamp,
        reason: format!("{}: {reason}", path.display()),
        missing,
    };
    // O_NONBLOCK: a FIFO in place of the file must not hold a login.
    let opened = std::fs::OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
    let file = opened.map_err(|error| {
        let stamp = std::fs::metadata(path).ok().map(|meta| stamp(&meta));
        unread(stamp, &error, error.kind() == ErrorKind::NotFound)
    })?;
    let meta = file.metadata().map_err(|error| unread(None, &error, false))?;
    let stamp = Some(stamp(&meta));
    let mode = meta.mode() & 0o7777;
    if !meta.is_file() {
        return Err(unread(stamp, &"not a regular file", false));
    }
    if mode & 0o002 != 0 {
        let reason = format_args!("mode {mode:04o} lets everybody change the routes; run: chmod o-w {}", path.display());
        return Err(unread(stamp, &reason, false));
    }
    if meta.len() > MAX_FILE {
        return Err(unread(stamp, &format_args!("more than {MAX_FILE} bytes"), false));
    }
    let mut bytes = Vec::with_capacity(meta.len() as usize);
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(|error| unread(stamp, &error, false))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let line = error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        unread(stamp, &format_args!("line {line}: not UTF-8"), false)
    })?;
    Ok((stamp, text))
}

/// Locks the folder for our commands: the file itself is replaced by each of them and cannot carry the lock.
fn lock(folder: &Path) -> Result<Flock<File>, String> {
    let start = Instant::now();
    let mut opened = File::open(folder).map_err(|error| format!("folder {}: {error}", folder.display()))?;
    loop {
        match Flock::lock(opened, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((file, nix::errno::Errno::EWOULDBLOCK)) if start.elapsed() < LOCK_LIMIT => opened = file,
            Err((_, error)) => {
                return Err(format!("cannot lock the folder {} (is another command running?): {error}", folder.display()));
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Puts `text` in the place of the file in one step; mode and owner stay.
fn replace(path: &Path, folder: &Path, text: &str) -> Result<(), String> {
    let old = std::fs::metadata(path).ok();
    let says = |error: std::io::Error| error.to_string();
    let mut new = tempfile::Builder::new().prefix(".routes").suffix(".new").tempfile_in(folder).map_err(says)?;
    new.write_all(text.as_bytes()).map_err(says)?;
    if let Some(old) = old.as_ref() {
        let mine = new.as_file().metadata().map_err(says)?;
        if (mine.uid(), mine.gid()) != (old.uid(), old.gid()) {
            std::os::unix::fs::fchown(new.as_file(), Some(old.uid()), Some(old.gid())).map_err(|error| {
                format!("belongs to uid {} gid {}; run this as that user or as root: {error}", old.uid(), old.gid())
            })?;
        }
    }
    let mode = old.map_or(NEW_MODE, |old| old.mode() & 0o7777);
    new.as_file().set_permissions(std::fs::Permissions::from_mode(mode)).map_err(says)?;
    new.as_file().sync_all().map_err(says)?;
    new.persist(path).map_err(|error| error.error.to_string())?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(says)
}
