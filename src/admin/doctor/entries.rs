//! What in the store nobody can log in with: keys that are none, keys without a user, users without a key.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::admin::print::Judged;
use crate::admin::{Trouble, refused};
use crate::error::shown;
use crate::identity::UserName;
use crate::store::RouteStore;

/// An entry that is dead.
pub struct Dead {
    user: String,
    /// What it is, fit to be shown.
    entry: String,
    reason: String,
}

impl Dead {
    /// User, entry, reason; escaped.
    pub fn row(&self) -> Vec<String> {
        vec![shown(&self.user), self.entry.clone(), self.reason.clone()]
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        json!({ "user": self.user, "entry": self.entry, "reason": self.reason })
    }
}

/// Finds them: of these users, or of all if none is named. A named user of whom there is nothing is refused.
pub fn look(store: &dyn RouteStore, named: &[UserName]) -> Result<Vec<Dead>, Trouble> {
    let (stored, users) = (store.keys()?, store.users()?);
    let known: HashSet<&str> = users.iter().map(UserName::as_str).collect();
    let holders: HashSet<&str> = stored.iter().map(|key| key.user.as_str()).collect();
    let mut names = named.iter().map(UserName::as_str);
    if let Some(user) = names.find(|user| !known.contains(user) && !holders.contains(user)) {
        return Err(refused(format!("there is no user \"{}\"", shown(user))));
    }
    let wanted = |user: &str| named.is_empty() || named.iter().any(|named| named.as_str() == user);
    let judged: Vec<_> = stored.iter().map(|key| Judged::new(key, &|user| known.contains(user.as_str()))).collect();
    let alive: HashSet<&str> = judged.iter().filter(|key| key.dead.is_none()).map(|key| key.stored.user.as_str()).collect();
    let keys = judged.iter().filter(|key| wanted(&key.stored.user)).filter_map(|key| {
        let [kind, print, _] = &key.row()[..] else { return None };
        Some(Dead { user: key.stored.user.clone(), entry: format!("key {kind} {print}"), reason: key.dead.clone()? })
    });
    let keyless = users.iter().map(UserName::as_str).filter(|user| wanted(user) && !alive.contains(user)).map(|user| Dead {
        user: user.to_owned(),
        entry: "record".into(),
        reason: format!("the user has no key; add one with: sftpproxy key add {} FILE", shown(user)),
    });
    let mut dead: Vec<_> = keys.chain(keyless).collect();
    dead.sort_by(|a, b| (&a.user, &a.entry).cmp(&(&b.user, &b.entry)));
    Ok(dead)
}
