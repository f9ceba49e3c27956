//! Remote paths: what a relative one means for a user with a start directory, and the one normaliser for everybody who judges a path
//! or puts it below a root.
//!
//! Pure. The upstream's file system is not known here, so [`resolve`] normalises nothing: `..` and symbolic links are the upstream's
//! to follow, exactly as it would from a working directory of its own. [`normal`] goes by the text alone; whoever uses it must send
//! what it gives. Paths are bytes; they need not be text.

/// Longest path that is judged or kept, in bytes: PATH_MAX of Linux. No system call of an upstream there takes a longer one.
pub const MAX_PATH: usize = 4096;

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

/// The absolute path without `.`, `..`, empty parts and a slash at its end that `path` means from the absolute directory `base`. `..`
/// at the top stays at the top, as in a changed root.
pub fn normal(base: &[u8], path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(base.len() + 1 + path.len());
    if path.first() != Some(&b'/') {
        step(&mut out, base);
    }
    step(&mut out, path);
    if out.is_empty() {
        out.push(b'/');
    }
    out
}

/// Walks `path` from the directory `out` ("" is the top); returns how often it tried to go above the top.
fn step(out: &mut Vec<u8>, path: &[u8]) -> usize {
    let mut above = 0;
    for part in path.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if out.is_empty() => above += 1,
            b".." => out.truncate(out.iter().rposition(|&byte| byte == b'/').unwrap_or(0)),
            _ => {
                out.push(b'/');
                out.extend_from_slice(part);
            }
        }
    }
    above
}

/// What the relative `target` of a symbolic link with the normal path `link` leads to; `None` = above the top.
pub fn target(link: &[u8], target: &[u8]) -> Option<Vec<u8>> {
    let mut out = link[..link.iter().rposition(|&byte| byte == b'/').unwrap_or(0)].to_vec();
    let above = step(&mut out, target);
    if out.is_empty() {
        out.push(b'/');
    }
    (above == 0).then_some(out)
}

/// The relative path with every `..` at its front; `.` if nothing remains. It leads where `path` leads by its text.
pub fn normal_relative(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if parts.last().is_some_and(|last| *last != b"..") => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    if parts.is_empty() { b".".to_vec() } else { parts.join(&b'/') }
}

/// Whether the normal `path` is `prefix`, normal too, or lies below it.
pub fn is_below(path: &[u8], prefix: &[u8]) -> bool {
    let prefix = if prefix == b"/" { b"" } else { prefix };
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// The upstream's path for the normal `path` that a user sees below `root`.
pub fn enter(root: &str, path: &[u8]) -> Vec<u8> {
    match (root, path) {
        ("/", _) => path.to_vec(),
        (_, b"/") => root.as_bytes().to_vec(),
        _ => [root.as_bytes(), path].concat(),
    }
}

/// What a user below `root` sees of the upstream's `path`; `None` = it is outside.
pub fn leave(root: &str, path: &[u8]) -> Option<Vec<u8>> {
    let whole = normal(b"/", path);
    if path.first() != Some(&b'/') || !is_below(&whole, root.as_bytes()) {
        return None;
    }
    let rest = if root == "/" { &whole } else { &whole[root.len()..] };
    Some(if rest.is_empty() { b"/".to_vec() } else { rest.to_vec() })
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

    #[test]
    fn a_normal_path_is_absolute_and_never_above_the_top() {
        for (base, path, expected) in [
            ("/", "", "/"),
            ("/", "/", "/"),
            ("/a", "b", "/a/b"),
            ("/a", "", "/a"),
            ("/a", ".", "/a"),
            ("/a", "..", "/"),
            ("/a", "../../../b", "/b"),
            ("/a", "/b//c/./d/", "/b/c/d"),
            ("/a", "/../..", "/"),
            ("/a", "b/../../c", "/c"),
            ("/a/", "...", "/a/..."),
            ("/a/../b", "..x", "/b/..x"),
        ] {
            assert_eq!(String::from_utf8(normal(base.as_bytes(), path.as_bytes())).unwrap(), expected, "{base} {path}");
        }
        assert_eq!(normal(b"/a", b"\xff\0/./x"), b"/a/\xff\0/x");
    }

    #[test]
    fn a_links_target_is_followed_by_its_text_and_not_above_the_top() {
        for (link, to, expected) in [
            ("/a/l", "x", Some("/a/x")),
            ("/a/l", "../x", Some("/x")),
            ("/a/l", "..", Some("/")),
            ("/a/l", "../../x", None),
            ("/a/l", "../../a/x", None),
            ("/l", "..", None),
            ("/l", "", Some("/")),
        ] {
            assert_eq!(target(link.as_bytes(), to.as_bytes()), expected.map(|path| path.as_bytes().to_vec()), "{link} {to}");
        }
        for (path, expected) in
            [("a/../b", "b"), ("../a/..", ".."), ("", "."), ("./a//b/", "a/b"), ("a/../../b", "../b"), ("../..", "../..")]
        {
            assert_eq!(String::from_utf8(normal_relative(path.as_bytes())).unwrap(), expected, "{path}");
        }
    }

    #[test]
    fn what_is_entered_below_a_root_is_left_again_and_what_is_beside_it_is_outside() {
        for root in ["/", "/srv", "/srv/alice"] {
            for path in ["/", "/x", "/x/y"] {
                assert_eq!(leave(root, &enter(root, path.as_bytes())), Some(path.as_bytes().to_vec()), "{root} {path}");
            }
        }
        for path in ["/srvx", "/", "srv/x", "", "/srv/../etc", "/sr"] {
            assert_eq!(leave("/srv", path.as_bytes()), None, "{path}");
        }
        assert!(is_below(b"/a/b", b"/a") && is_below(b"/a", b"/a") && is_below(b"/a", b"/") && !is_below(b"/ab", b"/a"));
    }
}
