//! What is expected of a cell, by what the fault does and whom it hits, and not by what was seen.
//!
//! * What only comes later is all the same: the session goes on to its end.
//! * Any other fault is one of its own leg, and found in its own stage: nothing of a later stage can pass a leg on which nothing passes, or
//!   on which a byte is altered behind the key exchange.
//! * Before the keys are in use not everything is protected: lines before an identification (RFC 4253 section 4.2) and padding may be
//!   altered, and the session then goes on unharmed.
//! * A client that has said that it leaves is why the session ends, whatever happens then.

use super::{Cell, Fault, Leg, Stage};

/// How a session may end.
pub struct Expected {
    /// It may, or must, go on to its end with everything equal.
    pub goes_on: bool,
    /// Sides and stages of the end line otherwise.
    pub ends: &'static [(&'static str, &'static str)],
}

/// What is expected of a cell.
pub fn expected(cell: Cell) -> Expected {
    if matches!(cell.fault, Fault::Latency | Fault::Rate | Fault::Slices) {
        return Expected { goes_on: true, ends: &[] };
    }
    let alters = matches!(cell.fault, Fault::Flip | Fault::Garbage | Fault::Twice);
    let goes_on = cell.stage == Stage::Close || (alters && cell.stage <= Stage::Exchange);
    // A reset may come so early that the connection, which is there, is no good from the beginning.
    let at_once = (cell.fault, cell.stage) == (Fault::Reset, Stage::Connect);
    let ends: &[_] = match (cell.leg, cell.stage) {
        (Leg::Downstream, Stage::Connect) if at_once => &[("downstream", "accept"), ("downstream", "exchange")],
        (Leg::Downstream, Stage::Connect | Stage::Identify | Stage::Exchange) => &[("downstream", "exchange")],
        (Leg::Downstream, Stage::LogIn) => &[("downstream", "prove")],
        (Leg::Downstream, Stage::Open) => &[("downstream", "open")],
        (Leg::Downstream, _) => &[("downstream", "relay")],
        (Leg::Upstream, Stage::Connect) if at_once => &[("upstream", "dial"), ("upstream", "trust")],
        (Leg::Upstream, Stage::Connect | Stage::Identify | Stage::Exchange) => &[("upstream", "trust")],
        (Leg::Upstream, Stage::LogIn) => &[("upstream", "log in")],
        (Leg::Upstream, Stage::Open) => &[("upstream", "open")],
        (Leg::Upstream, Stage::Idle | Stage::Put | Stage::Get) => &[("upstream", "relay")],
        (Leg::Upstream, Stage::Close) => &[("downstream", "relay")],
    };
    Expected { goes_on, ends }
}
