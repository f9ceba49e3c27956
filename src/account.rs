//! Whom the process runs as: from root to the configured account, once, with every step checked.

use std::ffi::CString;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::{Gid, Group, Uid, User, getresgid, getresuid, initgroups, setgroups, setresgid, setresuid};

/// The account to become, looked up before anything is given up.
pub struct Account {
    user: Uid,
    group: Gid,
    /// Name and home, when the user is in the password database.
    entry: Option<User>,
}

impl Account {
    /// Looks up a user and a group, each a number or a name; without a group, the user's own.
    pub fn find(user: &str, group: Option<&str>) -> Result<Self, String> {
        let says = |what: &str| format!("SFTPPROXY_USERID = \"{}\": {what}", crate::error::shown(user));
        let entry = match user.parse() {
            Ok(number) => User::from_uid(Uid::from_raw(number)),
            Err(_) => User::from_name(user),
        };
        let entry = entry.map_err(|error| says(&error.to_string()))?;
        let number = user.parse().ok().map(Uid::from_raw);
        let user = entry.as_ref().map(|entry| entry.uid).or(number).ok_or_else(|| says("there is no such user"))?;
        let group = match group {
            Some(group) => find_group(group)?,
            None => entry.as_ref().map(|entry| entry.gid).ok_or_else(|| says("has no entry; set SFTPPROXY_GROUPID too"))?,
        };
        Ok(Self { user, group, entry })
    }

    /// The account's home directory.
    pub fn home(&self) -> Option<PathBuf> {
        self.entry.as_ref().map(|entry| entry.dir.clone())
    }

    /// Makes a folder in which root and the account may both make files, and the account cannot remove root's: host keys that root has made
    /// stay root's. One that is there stays as it is.
    pub fn make_room(&self, folder: &Path) -> io::Result<()> {
        if folder.as_os_str().is_empty() || folder.exists() {
            return Ok(());
        }
        folder.parent().map_or(Ok(()), fs::create_dir_all)?;
        DirBuilder::new().mode(0o700).create(folder)?;
        // The account may own the folder around it, and must not put another in its place meanwhile.
        let flags = OFlag::O_NOFOLLOW | OFlag::O_DIRECTORY;
        let made = OpenOptions::new().read(true).custom_flags(flags.bits()).open(folder)?;
        fchown(&made, None, Some(self.group.as_raw()))?;
        made.set_permissions(Permissions::from_mode(0o1770))
    }

    /// Becomes the account, groups first, and makes sure that there is no way back. Before any other thread exists.
    pub fn become_it(&self) -> Result<(), String> {
        let failed = |what: &'static str| move |error: nix::errno::Errno| format!("cannot drop privileges: {what}: {error}");
        match &self.entry {
            Some(entry) => {
                let name = CString::new(entry.name.as_str()).map_err(|_| "cannot drop privileges: a name with NUL")?;
                initgroups(&name, self.group).map_err(failed("initgroups"))?;
            }
            None => setgroups(&[self.group]).map_err(failed("setgroups"))?,
        }
        setresgid(self.group, self.group, self.group).map_err(failed("setresgid"))?;
        setresuid(self.user, self.user, self.user).map_err(failed("setresuid"))?;
        let users = getresuid().map_err(failed("getresuid"))?;
        let groups = getresgid().map_err(failed("getresgid"))?;
        let all = [users.real, users.effective, users.saved].iter().all(|user| *user == self.user)
            && [groups.real, groups.effective, groups.saved].iter().all(|group| *group == self.group);
        if !all || (!self.user.is_root() && setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).is_ok()) {
            return Err("cannot drop privileges: they did not go".into());
        }
        nix::sys::prctl::set_no_new_privs().map_err(failed("no_new_privs"))
    }
}

fn find_group(group: &str) -> Result<Gid, String> {
    if let Ok(number) = group.parse() {
        return Ok(Gid::from_raw(number));
    }
    match Group::from_name(group) {
        Ok(Some(entry)) => Ok(entry.gid),
        Ok(None) => Err(format!("SFTPPROXY_GROUPID = \"{}\": there is no such group", crate::error::shown(group))),
        Err(error) => Err(format!("SFTPPROXY_GROUPID = \"{}\": {error}", crate::error::shown(group))),
    }
}
