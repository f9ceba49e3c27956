//! At which bytes of a connection the stages of a session begin, as a session without a fault has shown: the sizes of its packets are the
//! same each time, since names have one length and all keys are Ed25519.

use super::{Cell, Leg, Stage};
use crate::world::toxic::{Direction, Relay, Strike};

const UP: usize = Direction::Up as usize;
const DOWN: usize = Direction::Down as usize;

/// SSH_MSG_NEWKEYS (RFC 4253 section 7.3).
const NEWKEYS: u8 = 21;

/// Bytes that are left at least of the last packet of a stage of authentication when the fault comes: its end, come twice, would be whole the
/// first time.
pub const LEFT: usize = 10;

/// Places in one leg.
#[derive(Debug)]
pub struct Places {
    leg: Leg,
    /// Where the identifications end, and where the last packets begin that are not encrypted.
    identified: [usize; 2],
    new_keys: [usize; 2],
    /// Where the turns begin in which authentication begins, and the channel is asked for.
    log_in: [usize; 2],
    open: [usize; 2],
    /// Where the turn before that begins.
    signed: [usize; 2],
}

impl Places {
    /// Of a relay whose newest connection carries a session on which VERSION has just come, and nothing since.
    pub fn of(relay: &Relay, leg: Leg) -> Self {
        let said = [relay.said(Direction::Up), relay.said(Direction::Down)];
        let identified = [0, 1].map(|way| said[way].iter().position(|&byte| byte == b'\n').expect("an identification") + 1);
        let new_keys = [0, 1].map(|way| new_keys(&said[way], identified[way]));
        let turns = relay.turns();
        // The service is asked for in the turn in which the keys come into use, or in one of its own right behind.
        let encrypted = new_keys[UP] + 4 + length(&said[UP], new_keys[UP]);
        let service = turns.iter().rposition(|turn| turn[UP] <= encrypted).expect("a turn");
        // OpenSSH's client: none, the key, the signature. The libraries: the key or not, the signature.
        let open = match leg {
            Leg::Downstream => service + 4,
            Leg::Upstream if crate::world::library() == "libssh" => service + 2,
            Leg::Upstream => service + 3,
        };
        assert!(open < turns.len(), "{leg:?}: {turns:?}");
        Self { leg, identified, new_keys, log_in: turns[service + 1], signed: turns[open - 1], open: turns[open] }
    }

    /// What is planned for a cell whose stage is one of the login; `None` = the test strikes.
    pub fn plan(&self, cell: Cell, random: &mut fastrand::Rng) -> Option<Strike> {
        let direction = cell.direction();
        let own = direction as usize;
        let (from, to) = match (cell.stage, direction, self.leg) {
            (Stage::Connect, ..) => ([0; 2], 0),
            (Stage::Identify, ..) => ([0; 2], self.identified[own] - 1),
            // What stands at the very end may be padding, and what is put in there begins the next packet.
            (Stage::Exchange, ..) => (only(own, self.identified[own]), self.new_keys[own] - 40),
            (Stage::LogIn, Direction::Up, _) => (self.log_in, self.open[UP] - LEFT),
            // The answer to the signature ends the stage for who gives it, and only when it has come for who gets it.
            (Stage::LogIn, Direction::Down, Leg::Downstream) => (self.log_in, self.signed[DOWN] - LEFT),
            (Stage::LogIn, Direction::Down, Leg::Upstream) => (self.log_in, self.log_in[DOWN] + 16),
            (Stage::Open, ..) => (self.open, self.open[own] + 16),
            _ => return None,
        };
        let mut after = from;
        // Not before the first byte of the stage has passed.
        if cell.stage >= Stage::LogIn {
            after[UP] += 1;
            after[DOWN] = if own == DOWN { from[DOWN] } else { 0 };
        }
        if cell.stage != Stage::Connect {
            after[own] = random.usize(from[own] + 1..to);
        }
        Some(Strike { toxic: cell.fault.toxic(random), direction, after })
    }
}

/// How many bytes from now the test's own strike comes.
pub fn more(cell: Cell, random: &mut fastrand::Rng) -> usize {
    match (cell.stage, cell.direction()) {
        (Stage::Put, Direction::Up) | (Stage::Get, Direction::Down) => random.usize(1..20_000),
        (Stage::Put, Direction::Down) | (Stage::Get, Direction::Up) => random.usize(1..40),
        (Stage::Close, _) => random.usize(1..20),
        _ => 0,
    }
}

fn only(own: usize, after: usize) -> [usize; 2] {
    let mut both = [0; 2];
    both[own] = after;
    both
}

/// Where NEWKEYS begins.
fn new_keys(said: &[u8], mut at: usize) -> usize {
    while said[at + 5] != NEWKEYS {
        at += 4 + length(said, at);
    }
    at
}

/// The length field of a packet that is not encrypted.
fn length(said: &[u8], at: usize) -> usize {
    u32::from_be_bytes(said[at..at + 4].try_into().expect("four bytes")) as usize
}
