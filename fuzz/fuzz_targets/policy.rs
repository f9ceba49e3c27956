//! The texts of a record, and what comes of them: no text makes the parser panic, and no read-only user gets anything changed.
#![no_main]

use sftpproxy::path::normal;
use sftpproxy::policy::{Act, FIELDS, Policy};
use sftpproxy::sftp::attributes::Attributes;
use sftpproxy::sftp::{KINDS, OpenFlags, Then};

libfuzzer_sys::fuzz_target!(|data: (&str, &str, u8, u32)| {
    let (text, path, field, flags) = data;
    let field = FIELDS[usize::from(field) % FIELDS.len()];
    let find = |name: &str| if name == field { Some(text) } else { (name == "read_only").then_some("yes") };
    let Ok(Some(policy)) = Policy::parse(find) else { return };
    if field == "read_only" {
        return;
    }
    let path = normal(b"/", path.as_bytes());
    for kind in KINDS {
        let flags = (kind.then == Then::Flags).then_some(OpenFlags(flags));
        let act = Act { kind, path: &path, second: Some(&path), flags, attributes: Attributes::default() };
        let changes = flags.map_or(kind.effect.changes(), OpenFlags::changes);
        assert!(!(changes && policy.judge(&act).is_ok()), "{}", kind.name);
    }
});
