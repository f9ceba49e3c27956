//! A stream of requests under each policy, with answers of an upstream that opens everything: the first byte chooses.
#![no_main]

use std::sync::Arc;
use std::time::Instant;

use sftpproxy::ledger::{Answer, Ledger};
use sftpproxy::policy::Policy;
use sftpproxy::sftp::frame::{LENGTH_FIELD, MAX_PACKET};
use sftpproxy::stream::requests::{Books, Requests};

const POLICIES: [(&str, &str); 5] =
    [("read_only", "yes"), ("upload_only", "yes"), ("root", "/srv"), ("rules", "/=all; /in=list,create"), ("deny", "*.exe")];

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((choice, stream)) = data.split_first() else { return };
    let (name, text) = POLICIES[usize::from(*choice) % POLICIES.len()];
    let policy = Policy::parse(|field| (field == name).then_some(text)).unwrap().unwrap();
    let mut requests = Requests::judged(Some("/home"), Arc::new(policy));
    let (mut ledger, now) = (Ledger::default(), Instant::now());
    for part in stream.chunks(usize::from(*choice) + 1) {
        let mut buffer = part.to_vec();
        if requests.pass(&mut buffer, Some(Books { ledger: &mut ledger, now }), &mut |_| ()).is_err() {
            break;
        }
        assert!(requests.held() < LENGTH_FIELD + MAX_PACKET);
        for id in 0..4 {
            ledger.answer(id, Answer::Handle(b"hndl"), now, &mut |_| ());
        }
    }
    ledger.end(now, &mut |_| ());
});
