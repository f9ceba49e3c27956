//! The keys that a client offers, or that the store has: whose each is, asked as a login asks, and why it does not let in.

use super::super::print::{Judged, State};
use super::Walk;
use crate::downstream::Verdict;
use crate::error::shown;
use crate::identity::{Fingerprint, Offered, PublicKey};
use crate::login;
use crate::store::{RouteStore as _, StoredKey};

impl Walk<'_> {
    /// The keys that a client offers.
    pub(super) fn offered(&mut self, keys: Vec<PublicKey>) {
        let most = self.context.config.downstream.max_offered_keys as usize;
        let mut let_in = false;
        for (number, key) in keys.iter().enumerate() {
            if number == most {
                let text = format!("the client is disconnected after {most} keys (SFTPPROXY_MAX_OFFERED_KEYS)");
                return self.step("key", State::Bad, text, Some("offer the right one first".into()));
            }
            // The first that fits wins.
            let_in = let_in || self.judge(key);
        }
    }

    /// Every key that the store has of the user.
    pub(super) fn stored(&mut self) {
        let stored = match self.keys() {
            Some(stored) => stored,
            None => return,
        };
        let theirs: Vec<_> = stored.into_iter().filter(|entry| entry.user == self.user.as_str()).collect();
        if theirs.is_empty() {
            let user = shown(self.user.as_str());
            let text = format!("the store has no key of user \"{user}\"");
            return self.step("key", State::Bad, text, Some(format!("sftpproxy key add {user} FILE")));
        }
        for entry in &theirs {
            let judged = Judged::new(entry, &|_| true);
            match (&judged.dead, &judged.key) {
                (None, Some(key)) => drop(self.judge(key)),
                (reason, _) => {
                    let reason = reason.as_deref().unwrap_or_default();
                    let [kind, print, _] = &judged.row()[..] else { continue };
                    let text = format!("dead entry {kind} {print}: {reason}");
                    self.step("key", State::Bad, text, Some(self.replace(&judged)));
                }
            }
        }
        // One that fits is enough: the others are what else there is.
        if self.steps.iter().any(|step| step.name == "key" && step.state == State::Good) {
            self.steps
                .iter_mut()
                .filter(|step| step.name == "key" && step.state == State::Bad)
                .for_each(|step| step.state = State::Note);
        }
    }

    /// A key of which only the fingerprint is known: logins are not asked by that, so the store's list is searched.
    pub(super) fn fingerprint(&mut self, print: &Fingerprint) {
        let Some(stored) = self.keys() else { return };
        let key = |entry: &StoredKey| Judged::new(entry, &|_| true).key.filter(|key| key.fingerprint() == *print);
        match stored.iter().find_map(key) {
            Some(key) => drop(self.judge(&key)),
            None => {
                let text = format!("nobody has a key with the fingerprint {print}");
                let advice = format!("sftpproxy key add {} FILE", shown(self.user.as_str()));
                self.step("key", State::Bad, text, Some(advice));
            }
        }
    }

    fn keys(&mut self) -> Option<Vec<StoredKey>> {
        match self.store.keys() {
            Ok(keys) => Some(keys),
            Err(error) => {
                self.step("key", State::Unknown, error.what, Some(self.until_it_answers()));
                None
            }
        }
    }

    /// Asks what a login asks of one key. `true` = the user would be let in with it.
    fn judge(&mut self, key: &PublicKey) -> bool {
        let name = format!("{} {}", key.kind(), key.fingerprint());
        if let Err(reason) = login::accepts(key, &self.context.config.downstream) {
            self.step("key", State::Bad, format!("{name}: {reason}"), Some("make an ed25519 key: ssh-keygen -t ed25519".into()));
            return false;
        }
        let offered = Offered { user: self.user.clone(), key: key.clone() };
        let user = shown(self.user.as_str());
        match login::judge(&self.store, &offered) {
            Verdict::Theirs => {
                self.step("key", State::Good, format!("{name} is {user}'s, if the client proves it"), None);
                return true;
            }
            Verdict::Unknown(reason) => {
                let advice = format!("the session ends; {}", self.until_it_answers());
                self.step("key", State::Unknown, format!("{name}: {reason}"), Some(advice));
            }
            Verdict::Refused(reason) => {
                let advice = self.refused_key(key);
                self.step("key", State::Bad, format!("{name}: {reason}"), Some(advice));
            }
        }
        false
    }

    /// What to do about a key that is not the user's.
    fn refused_key(&self, key: &PublicKey) -> String {
        let (user, print) = (shown(self.user.as_str()), key.fingerprint());
        let stored = self.store.keys().unwrap_or_default();
        let mut judged =
            stored.iter().map(|entry| Judged::new(entry, &|_| true)).filter(|judged| judged.key.as_ref() == Some(key));
        match judged.next() {
            Some(judged) if judged.dead.is_some() => self.replace(&judged),
            Some(judged) => {
                let owner = shown(&judged.stored.user);
                format!("log in as {owner}, or: sftpproxy key remove {owner} {print}, then: sftpproxy key add {user} FILE")
            }
            None => format!("sftpproxy key add {user} FILE"),
        }
    }

    fn replace(&self, judged: &Judged<'_>) -> String {
        let owner = shown(&judged.stored.user);
        let what = judged.key.as_ref().map_or_else(|| "BASE64".to_owned(), |key| key.fingerprint().to_string());
        format!("sftpproxy key remove {owner} {what}, then: sftpproxy key add {} FILE", shown(self.user.as_str()))
    }
}
