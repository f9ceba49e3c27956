//! A stream of replies to one request of each kind with the ids 0 to 40, below a root. The first byte says where it is cut.
#![no_main]

use std::sync::Arc;
use std::time::Instant;

use sftpproxy::ledger::{Asked, Ledger, Subject};
use sftpproxy::policy::Policy;
use sftpproxy::sftp::KINDS;
use sftpproxy::sftp::frame::{LENGTH_FIELD, MAX_PACKET};
use sftpproxy::stream::replies::Replies;
use sftpproxy::stream::requests::Books;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((at, stream)) = data.split_first() else { return };
    let policy = Policy::parse(|field| (field == "root").then_some("/srv")).unwrap();
    let (mut replies, mut ledger, now) = (Replies::new(policy.map(Arc::new)), Ledger::default(), Instant::now());
    for (id, kind) in (0..).zip(KINDS) {
        let subject = Some(Box::new(Subject::new(b"/srv/x", None, None, now)));
        ledger.enter(id, Asked { kind: Some(kind), file: None, offset: 0, length: 9, subject, at: now }).unwrap();
    }
    for part in stream.chunks(usize::from(*at) + 1) {
        let mut buffer = part.to_vec();
        if replies.pass(&mut buffer, Books { ledger: &mut ledger, now }, &mut |_| ()).is_err() {
            break;
        }
        assert!(replies.held() < LENGTH_FIELD + MAX_PACKET);
    }
    ledger.end(now, &mut |_| ());
});
