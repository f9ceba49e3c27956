//! What requests do to what is known of open files: what makes one that cannot be proven later to be what the client was told. Pure.

use std::collections::BTreeMap;

use super::file::{Listed, Open};
use super::journal::{Entry, read_again};
use crate::sftp::{Effect, Then};

/// Notes what a request that is sent now does to what is known of open files.
pub fn note(files: &mut BTreeMap<u64, Open>, entry: &Entry) {
    let request = read_again(entry);
    let sets_size = || request.attributes().map_or(true, |attributes| attributes.size.is_some());
    if let Some(open) = entry.files[0].and_then(|file| files.get_mut(&file)) {
        match entry.kind.then {
            Then::Content => {
                let end = request.offset.saturating_add(request.length);
                open.farthest = Some(open.farthest.map_or(end, |farthest| farthest.max(end)));
            }
            Then::Copy => open.doubted("the upstream has copied into it"),
            Then::HandleAttributes if sets_size() => open.doubted("its size was set"),
            Then::HandleAttributes => open.attributes_set = true,
            _ if entry.kind.effect == Effect::List => open.listed = Some(Listed::Partly),
            _ => {}
        }
        return;
    }
    let sets = entry.kind.effect == Effect::Attributes;
    if !sets && !moves(entry.kind.effect) {
        return;
    }
    let sets_size = sets && sets_size();
    for path in [request.path, request.second].into_iter().flatten() {
        for open in files.values_mut().filter(|open| open.may_be(path)) {
            match (sets, sets_size) {
                (true, false) => open.attributes_set = true,
                (true, true) => open.doubted("its size was set"),
                (false, _) => open.doubted("it was renamed, replaced or removed"),
            }
        }
    }
}

/// Whether a path may be another file's afterwards.
fn moves(effect: Effect) -> bool {
    matches!(
        effect,
        Effect::Remove | Effect::RemoveDirectory | Effect::Rename | Effect::Replace | Effect::HardLink | Effect::SymbolicLink
    )
}

/// Why a file cannot be proven after this answer, which came before those of earlier requests: sent again, they would undo it.
pub fn overtakes<'a>(entry: &Entry, mut before: impl Iterator<Item = &'a Entry>) -> Option<&'static str> {
    let changes = |entry: &Entry| matches!(entry.kind.effect, Effect::Write | Effect::Copy | Effect::Attributes);
    let range = |entry: &Entry| {
        let request = read_again(entry);
        (request.offset, request.offset.saturating_add(request.length))
    };
    let file = entry.files[0]?;
    let both_write = |other: &Entry| [entry, other].iter().all(|entry| entry.kind.then == Then::Content);
    let apart = |other: &Entry| {
        let (one, two) = (range(entry), range(other));
        both_write(other) && (one.1 <= two.0 || two.1 <= one.0)
    };
    let undoes = |other: &Entry| other.files[0] == Some(file) && changes(other) && !apart(other);
    (changes(entry) && before.any(undoes)).then_some("the upstream answers changes of one place out of order")
}
