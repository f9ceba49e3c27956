//! Any bytes as the beginning of a connection from a balancer: framed within its bound, read or refused, never more taken than is there.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sftpproxy::proxy::{missing, parse};

fuzz_target!(|bytes: &[u8]| {
    let mut have = 0;
    while let Ok(more @ 1..) = missing(&bytes[..have]) {
        if have + more > bytes.len() {
            return;
        }
        have += more;
        assert!(have <= 16 + 4096);
    }
    let _ = parse(&bytes[..have]);
    let _ = parse(bytes);
});
