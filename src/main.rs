//! The program `sftpproxy`.
fn main() {}
