#![no_main]
libfuzzer_sys::fuzz_target!(|line: &str| drop(sftpproxy::identity::PublicKey::from_line(line)));
