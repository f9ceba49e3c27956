//! What looking at both streams costs: nanoseconds for a WRITE and its answer, a READ and its answer, and a STAT and its answer, as they
//! pass through the request stream, the ledger and the reply stream in buffers of 128 KiB. `cargo run --release --example stream_cost`

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sftpproxy::ledger::{Event, Ledger};
use sftpproxy::metrics::{Metrics, Seen, Tally};
use sftpproxy::policy::Policy;
use sftpproxy::stream::Heard;
use sftpproxy::stream::replies::Replies;
use sftpproxy::stream::requests::{Books, Requests};
use sftpproxy::wire::put_string;

const BUFFER: usize = 128 * 1024;
const ROUNDS: usize = 20_000;

fn framed(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_string(&mut out, body);
    out
}

/// A packet of this type and id with these fields.
fn packet(kind: u8, id: usize, fields: &[&[u8]]) -> Vec<u8> {
    framed(&[&[kind][..], &(id as u32).to_be_bytes(), &fields.concat()].concat())
}

/// Sends as many pairs as a buffer of requests has room for, again and again.
fn measure(what: &str, (policy, counted): (Option<&str>, bool), pair: impl Fn(usize) -> (Vec<u8>, Vec<u8>)) {
    let policy = policy.and_then(|rules| Policy::parse(|name| (name == "rules").then_some(rules)).unwrap()).map(Arc::new);
    let mut requests = policy.clone().map_or_else(|| Requests::new(None), |policy| Requests::judged(None, policy));
    let (mut replies, mut ledger, now) = (Replies::new(policy), Ledger::default().telling_answers(counted), Instant::now());
    let seen = Seen::new(&Metrics::new(Duration::ZERO, counted, 0));
    let open = packet(3, 1, &[&framed(b"/file"), &3_u32.to_be_bytes(), &[0; 4]]);
    let mut pass = |up: &mut Vec<u8>, down: &mut Vec<u8>| {
        for is_up in [true, false] {
            let mut tally = Tally::new(&seen);
            let mut told = |heard: Heard<'_>| match heard {
                Heard::Event(Event::Answered { kind, outcome, time }) => tally.answered(kind, outcome, time),
                heard => drop(black_box(heard)),
            };
            let books = Books { ledger: &mut ledger, now };
            if is_up {
                requests.pass(up, Some(books), &mut told).unwrap();
            } else {
                replies.pass(down, books, &mut told).unwrap();
            }
        }
    };
    pass(&mut framed(&[1, 0, 0, 0, 3]), &mut framed(&[2, 0, 0, 0, 3]));
    pass(&mut open.clone(), &mut packet(102, 1, &[&framed(b"hndl")]));

    let (mut up, mut down, mut count) = (Vec::new(), Vec::new(), 0);
    while up.len() + pair(count).0.len().max(pair(count).1.len()) <= BUFFER && count < 64 {
        let (request, reply) = pair(count);
        up.extend(request);
        down.extend(reply);
        count += 1;
    }
    let rounds = ROUNDS / count;
    let (mut best, mut copies) = (f64::MAX, 0.0);
    for _ in 0..20 {
        let mut spent = 0.0;
        for _ in 0..rounds {
            let (mut up, mut down) = (up.clone(), down.clone());
            let start = Instant::now();
            pass(&mut up, &mut down);
            spent += start.elapsed().as_secs_f64();
            copies += (up.len() + down.len()) as f64;
        }
        best = f64::min(best, spent / (rounds * count) as f64 * 1e9);
    }
    black_box(copies);
    println!("{what:40} {best:6.0} ns a pair, {count} pairs a buffer");
}

fn main() {
    let content = vec![7; 32 * 1024];
    let status = |id| packet(101, id, &[&0_u32.to_be_bytes(), &framed(b"Success"), &framed(b"")]);
    let offset = |id: usize| (id as u64 * 32 * 1024).to_be_bytes();
    let handle = framed(b"hndl");
    let rules = Some("/=all; /other=read");
    for (name, policy) in [("ledger", (None, false)), ("ledger and metrics", (None, true)), ("ledger and policy", (rules, false))]
    {
        measure(&format!("WRITE of 32 KiB, {name}"), policy, |id| {
            (packet(6, id, &[&handle, &offset(id), &framed(&content)]), status(id))
        });
        measure(&format!("WRITE of 1 KiB, {name}"), policy, |id| {
            (packet(6, id, &[&handle, &(id as u64 * 1024).to_be_bytes(), &framed(&content[..1024])]), status(id))
        });
        measure(&format!("READ of 32 KiB, {name}"), policy, |id| {
            let read = packet(5, id, &[&handle, &offset(id), &(32_u32 * 1024).to_be_bytes()]);
            (read, packet(103, id, &[&framed(&content)]))
        });
        measure(&format!("STAT, {name}"), policy, |id| {
            (packet(17, id, &[&framed(b"/some/where/a/file")]), packet(105, id, &[&[0; 4]]))
        });
    }
}
