//! Remote paths: what a relative one means for a user with a start directory.
//!
//! Pure. The upstream's file system is not known here, so nothing is normalised: `..` and symbolic links are the upstream's to
//! follow, exactly as it would from a working directory of its own. Paths are bytes; they need not be text.

/// The path that means from anywhere what `path` means from `home`; `None` = the same bytes, because the path is absolute or
/// empty (`stat("")` fails wherever it stands, and must go on failing).
///
/// `.` becomes `home/.` and not `home`: it refuses to be removed or renamed, and is never a symbolic link, just like `.` itself.
pub fn resolve(home: &str, path: &[u8]) -> Option<Vec<u8>> {
    if path.is_empty() || path[0] == b'/' {
        return None;
    }
    let path = without_dots(path);
    let mut whole = Vec::with_capacity(home.len() + 1 + path.len());
    whole.extend_from_slice(home.as_bytes());
    if !home.ends_with('/') {
        whole.push(b'/');
    }
    whole.extend_from_slice(path);
    Some(whole)
}

/// The same for requests that ask for a path and not for a file: there `""` and `.` are the start directory itself.
pub fn resolve_start(home: &str, path: &[u8]) -> Option<Vec<u8>> {
    if path.is_empty() || path == b"." {
        return Some(home.as_bytes().to_vec());
    }
    resolve(home, path)
}

/// `./x` without its `./`, as long as something remains.
fn without_dots(mut path: &[u8]) -> &[u8] {
    while let Some(rest) = path.strip_prefix(b"./") {
        let slashes = rest.iter().take_while(|&&byte| byte == b'/').count();
        if slashes == rest.len() {
            break;
        }
        path = &rest[slashes..];
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(path: Option<Vec<u8>>) -> String {
        path.map_or("as it is".into(), |path| String::from_utf8(path).unwrap())
    }

    #[test]
    fn relative_paths_are_resolved_against_home_and_others_are_left_alone() {
        for (home, path, expected) in [
            ("/srv", "x", "/srv/x"),
            ("/srv", "./x", "/srv/x"),
            ("/srv", ".//./x", "/srv/x"),
            ("/srv", ".", "/srv/."),
            ("/srv", "./", "/srv/./"),
            ("/srv", "./.", "/srv/."),
            ("/srv", ".x", "/srv/.x"),
            ("/srv", "..", "/srv/.."),
            ("/srv", "../x", "/srv/../x"),
            ("/srv", "a/../b", "/srv/a/../b"),
            ("/srv", "~", "/srv/~"),
            ("/srv", "x/", "/srv/x/"),
            ("/srv", "a b", "/srv/a b"),
            ("/", "x", "/x"),
            ("/", ".", "/."),
            ("/", ".//x", "/x"),
            ("up", "x", "up/x"),
            ("/srv", "", "as it is"),
            ("/srv", "/x", "as it is"),
            ("/srv", "//x", "as it is"),
        ] {
            assert_eq!(shown(resolve(home, path.as_bytes())), expected, "{home} {path}");
        }
        assert_eq!(resolve("/srv", b"\xff\0"), Some(b"/srv/\xff\0".to_vec()));
    }

    #[test]
    fn the_start_directory_is_home_itself() {
        for (home, path, expected) in
            [("/srv", "", "/srv"), ("/srv", ".", "/srv"), ("/", ".", "/"), ("/srv", "x", "/srv/x"), ("/srv", "/", "as it is")]
        {
            assert_eq!(shown(resolve_start(home, path.as_bytes())), expected, "{home} {path}");
        }
    }
}
