//! What a login would want of the upstream and give to it: the host key that is approved, and the router's own key.

use super::super::print::State;
use super::{Step, Walk};
use crate::error::{Fault, shown};
use crate::identity::PublicKey;
use crate::route::{Host, Pin, Route};
use crate::store::noted::Answer;
use crate::store::{RouteStore as _, Shelf};
use crate::upstream::{self, Basis, Credential, Note, Trust};

impl Walk<'_> {
    /// The upstream's entry in the store: pins and a key for all its users.
    pub(super) fn host(&mut self, route: &Route) -> Option<Host> {
        upstream::host(&self.store, route).map_err(|fault| self.no_host(route, fault)).ok()
    }

    pub(super) fn host_key(&mut self, route: &Route, host: &Host) {
        let trust = match Trust::find(route, host, self.context.upstream) {
            Ok(trust) => trust,
            Err(fault) => {
                return self.step("host key", State::Bad, fault.what, Some("let the router's account read the file".into()));
            }
        };
        let address = route.address();
        if trust.pins.is_empty() {
            let text = format!("none is approved: no pin in the record or of {address}, and not in {}", trust.basis);
            let advice = format!("sftpproxy host-key scan {address}, compare, then: sftpproxy host-key approve {address}");
            return self.step("host key", State::Bad, text, Some(advice));
        }
        let pins: Vec<_> = trust.pins.iter().map(Pin::shown).collect();
        let basis = match &trust.basis {
            Basis::Record => "the record (hostkey)".to_owned(),
            Basis::Host => format!("the entry of {address}"),
            Basis::KnownHosts(file) => file.clone(),
        };
        self.step("host key", State::Good, format!("must be {}, by {basis}", pins.join(" or ")), None);
        self.quarantine(&address);
    }

    /// What the upstream has shown to somebody else in the place of an approved key; each login is judged by what it is shown.
    fn quarantine(&mut self, address: &str) {
        if let Ok(entry) = self.store.entry(Shelf::Quarantine, address)
            && let Some(note) = Note::parse(&entry)
        {
            let text = format!("since {} {address} shows another key than the approved one: {:?}", shown(&note.since), note.key);
            self.step("quarantine", State::Warning, text, Some(format!("compare, then: sftpproxy host-key approve {address}")));
        } else {
            self.store.take();
        }
    }

    fn no_host(&mut self, route: &Route, fault: Fault) {
        let reads = self.store.take();
        let failed = reads.iter().any(|read| matches!(read.answer, Answer::Failed(_)));
        let (state, advice) = match failed {
            true => (State::Unknown, self.until_it_answers()),
            false => (State::Bad, format!("correct it: sftpproxy host-key approve {}", route.address())),
        };
        self.steps.push(Step { name: "host key", state, text: fault.what, reads, advice: Some(advice) });
    }

    pub(super) fn credential(&mut self, route: &Route, host: &Host) {
        let config = self.context.upstream;
        let credential = match Credential::find(route, host, config) {
            Ok(credential) => credential,
            Err(reason) => return self.step("credential", State::Bad, reason, None),
        };
        let mut found = Vec::new();
        for source in &credential.sources {
            match source.usable(config) {
                Ok(lines) if lines.is_empty() => found.push((false, format!("{source}: holds no keys"))),
                Ok(lines) => {
                    let name = |line: &String| PublicKey::from_line(line).map(|(key, _)| format!("{key:?}")).unwrap_or_default();
                    let names: Vec<_> = lines.iter().map(name).collect();
                    found.push((true, format!("{source}: {}, by the {}", names.join(", "), credential.chosen)));
                }
                Err(reason) => found.push((false, format!("{source}: {reason}"))),
            }
        }
        // They are tried one after the other; one that works is enough.
        let any = found.iter().any(|(good, _)| *good);
        for (good, text) in found {
            let state = match (good, any) {
                (true, _) => State::Good,
                (false, true) => State::Note,
                (false, false) => State::Bad,
            };
            let advice =
                (state == State::Bad).then(|| "a private key without passphrase, mode 0600, of the router's account".into());
            self.step("credential", state, text, advice);
        }
    }

    pub(super) fn upstream(&mut self, route: &Route) {
        let text = format!("{} was not asked", route.address());
        self.step("upstream", State::Note, text, Some(format!("sftpproxy doctor {} asks it", shown(self.user.as_str()))));
    }
}
