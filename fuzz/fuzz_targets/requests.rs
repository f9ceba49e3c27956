#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| drop(sftpproxy::sftp::request::Requests::new(Some("/srv")).pass(&mut data.to_vec(), &mut |_| ())));
