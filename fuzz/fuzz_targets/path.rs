//! Paths: a normal one is absolute, has no `..`, stays as it is, and a root is never left.
#![no_main]

use sftpproxy::path::{enter, is_below, leave, normal, normal_relative, target};

libfuzzer_sys::fuzz_target!(|paths: (&[u8], &[u8])| {
    let path = normal(&normal(b"/", paths.0), paths.1);
    assert!(path.starts_with(b"/") && (path.len() == 1 || !path.ends_with(b"/")));
    assert!(path.len() == 1 || path[1..].split(|&byte| byte == b'/').all(|part| !matches!(part, b"" | b"." | b"..")));
    assert_eq!(normal(b"/", &path), path);
    let sent = enter("/srv", &path);
    assert!(is_below(&sent, b"/srv"));
    assert_eq!(leave("/srv", &sent), Some(path.clone()));
    if !paths.1.starts_with(b"/") {
        // What is sent of a relative target leads where the target was judged to lead.
        assert_eq!(target(&path, paths.1), target(&path, &normal_relative(paths.1)));
    }
});
