//! What the nodes at one store know of each other: each writes its sessions there every few seconds, for so long that a node which is gone
//! is forgotten soon, and no more than [`MOST`] bytes of them.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::control::Desk;
use crate::error::shown;
use crate::event::json;
use crate::live::Snapshot;
use crate::session::World;
use crate::store::{RouteStore, StoreError};

/// Most bytes that a node writes: a thousand sessions with a transfer each.
pub const MOST: usize = 1024 * 1024;

/// Transfers of a session that are written; the router itself has more.
const TRANSFERS: usize = 4;

/// How many times as long as the interval what was written stays: one may come late.
const LIVES: u32 = 4;

/// A node's sessions as it has written them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub node: String,
    /// Its sessions, as many as fit.
    pub sessions: Vec<Snapshot>,
    /// Those that did not.
    #[serde(default)]
    pub more: usize,
}

impl Node {
    /// The line that is written, and how many sessions it has.
    fn line(node: &str, sessions: Vec<Snapshot>) -> String {
        let (mut kept, mut size, whole) = (Vec::new(), 0, sessions.len());
        for mut session in sessions {
            session.more_transfers += session.transfers.len().saturating_sub(TRANSFERS);
            session.transfers.truncate(TRANSFERS);
            size += json::line(&session).len() + 1;
            if size > MOST {
                break;
            }
            kept.push(session);
        }
        json::line(&Self { node: node.to_owned(), more: whole - kept.len(), sessions: kept })
    }
}

/// Writes this node's sessions when it is time. `last` is when that was done; a fault is told once.
pub fn publish(world: &World, desk: &Desk, last: &mut Published) {
    let interval = world.config.control.interval;
    if interval.is_zero() || !world.store.is_shared() || last.at.is_some_and(|at| at.elapsed() < interval) {
        return;
    }
    last.at = Some(Instant::now());
    let sessions = desk.registry.snapshots();
    if sessions.is_empty() && last.empty {
        return;
    }
    last.empty = sessions.is_empty();
    // Nothing is written of nobody: what was written before is forgotten at once.
    let node = desk.node();
    let line = if sessions.is_empty() { String::new() } else { Node::line(&node, sessions) };
    match world.store.publish(&node, &line, interval * LIVES) {
        Ok(()) => last.fault = false,
        Err(error) if !last.fault => {
            log::warn!("this node's sessions are not seen on other nodes: {error}");
            last.fault = true;
        }
        Err(_) => {}
    }
}

/// What was written last.
#[derive(Debug)]
pub struct Published {
    at: Option<Instant>,
    /// Nobody was there, and that was said.
    empty: bool,
    fault: bool,
}

impl Published {
    /// Nothing yet; `taken` = a router of this name may have written before this one.
    pub fn nothing(taken: bool) -> Self {
        Self { at: None, empty: !taken, fault: false }
    }

    /// It is time, whenever the last time was.
    pub fn hurry(&mut self) {
        self.at = None;
    }
}

/// The sessions of all nodes that have written some.
pub fn all(store: &dyn RouteStore) -> Result<Vec<Node>, StoreError> {
    let nodes = store.nodes()?;
    let read = |text: &String| match serde_json::from_str::<Node>(text) {
        Ok(node) => Some(node),
        Err(error) => {
            log::debug!("what a node has written is not understood: {}", shown(&error.to_string()));
            None
        }
    };
    Ok(nodes.iter().filter_map(read).collect())
}

/// How long a command waits until another node has written that it has done something.
pub fn patience(interval: Duration) -> Duration {
    interval + Duration::from_secs(3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::Live;
    use crate::relay::Control;

    #[test]
    fn a_node_writes_no_more_than_the_bound_and_says_what_is_missing() {
        let live = Live::new(1, "127.0.0.1:9".parse().unwrap(), Control::new().unwrap());
        let sessions: Vec<_> = (0..20_000).map(|session| Snapshot { session, ..live.snapshot() }).collect();
        let line = Node::line("here", sessions);
        assert!(line.len() <= MOST + 200, "{}", line.len());
        let node: Node = serde_json::from_str(&line).unwrap();
        assert!(node.more > 1000 && node.more + node.sessions.len() == 20_000, "{}", node.more);
    }
}
