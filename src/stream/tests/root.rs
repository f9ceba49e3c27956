//! What a user below a root sends, what the upstream gets, what it answers, and what the user sees of that.

use super::*;

fn rooted(fields: &[(&str, &str)]) -> Session {
    Session::begun(None, &[&[("root", "/srv/alice")], fields].concat())
}

/// The paths that the upstream gets.
fn sent(session: &mut Session, kind: &str, paths: &[&str]) -> Vec<String> {
    let strings: Vec<_> = paths.iter().map(|path| path.as_bytes()).collect();
    let before = session.up(&request(kind, 9, &strings, &[0; 8])).unwrap();
    assert!(!before.is_empty(), "refused: {kind} {paths:?} {:?}", session.answers.pop());
    session.down(&stated(9, FAILURE)).unwrap();
    let read = crate::sftp::request::Request::read(row(kind), &before[4..]).unwrap();
    let text = |path: &[u8]| String::from_utf8(path.to_vec()).unwrap();
    [read.path, read.second].into_iter().flatten().map(text).collect()
}

#[test]
fn each_path_goes_to_the_upstream_below_the_root_and_cannot_climb_out() {
    let mut session = rooted(&[("rules", "/=all")]);
    for kind in KINDS.iter().filter(|kind| kind.paths.len() == 1) {
        for (path, expected) in [
            ("x", "/srv/alice/x"),
            ("/x", "/srv/alice/x"),
            ("..", "/srv/alice"),
            ("/../../etc/passwd", "/srv/alice/etc/passwd"),
            ("a/../../../../etc", "/srv/alice/etc"),
            ("//..//./x/", "/srv/alice/x"),
            ("/srv/alice/x", "/srv/alice/srv/alice/x"),
        ] {
            if matches!(kind.short(), "remove" | "rmdir") && path == ".." {
                continue;
            }
            assert_eq!(sent(&mut session, kind.short(), &[path]), [expected], "{} {path}", kind.name);
        }
    }
    assert_eq!(sent(&mut session, "rename", &["../a", "/../b"]), ["/srv/alice/a", "/srv/alice/b"]);
    assert_eq!(sent(&mut session, "hardlink", &["a", "b"]), ["/srv/alice/a", "/srv/alice/b"]);
    assert_eq!(sent(&mut session, "expand-path", &["~/x"]), ["/srv/alice/x"]);
    assert_eq!(sent(&mut session, "realpath", &[""]), ["/srv/alice"]);
    // OpenSSH's order: the target, then the link.
    for (target, link, expected) in [
        ("/etc/passwd", "l", "/srv/alice/etc/passwd"),
        ("/../../etc", "l", "/srv/alice/etc"),
        ("f", "/d/l", "f"),
        ("../f", "/d/l", "../f"),
        ("x/../../f", "/d/l", "../f"),
    ] {
        assert_eq!(sent(&mut session, "symlink", &[target, link])[0], expected, "{target}");
    }
    for (kind, strings) in [
        ("symlink", [&b"../x"[..], b"l"]),
        ("symlink", [b"d/../../x", b"/l"]),
        ("symlink", [b"../../etc", b"/d/l"]),
        ("rename", [b"a\0b", b"c"]),
        ("rename", [b"", b"c"]),
        ("rename", [b"/", b"c"]),
    ] {
        session.refused(&request(kind, 9, &strings, b""));
    }
    assert_eq!(session.refused(&request("stat", 9, &[b""], b"")), (2, "No such file".into()));
    assert_eq!(session.refused(&request("stat", 9, &[&[b'x'; 4090]], b"")), (5, "Bad message".into()));
    assert_eq!(session.refused(&request("expand-path", 9, &[b"~root"], b"")).0, PERMISSION_DENIED);
    assert_eq!(session.refused(&request("home-directory", 9, &[b"root"], b"")).0, PERMISSION_DENIED);
    assert_eq!(rooted(&[]).refused(&request("symlink", 9, &[b"f", b"l"], b"")).0, PERMISSION_DENIED);
    let mut home = Session::begun(Some("/in"), &[("root", "/srv/alice")]);
    assert_eq!(sent(&mut home, "stat", &["x"]), ["/srv/alice/in/x"]);
    assert_eq!(sent(&mut home, "stat", &["../.."]), ["/srv/alice"]);
}

#[test]
fn paths_in_answers_are_those_that_the_user_knows_wherever_the_stream_is_split() {
    for (kind, asked, answered, expected) in [
        ("realpath", ".", "/srv/alice", Some("/")),
        ("realpath", "x", "/srv/alice/y", Some("/y")),
        // The root is reached through a symbolic link, or the path leads out: it is told as it was asked for.
        ("realpath", "x/..//z", "/mnt/data/alice/z", Some("/z")),
        ("realpath", "x", "/srv/alicex", Some("/x")),
        ("expand-path", "~", "/srv/alice", Some("/")),
        ("expand-path", "~/x", "/srv/alice/x", Some("/x")),
        ("readlink", "/d/l", "f", Some("f")),
        ("readlink", "/d/l", "../f", Some("../f")),
        ("readlink", "/d/l", "/srv/alice/f", Some("/f")),
        ("readlink", "/d/l", "/srv/alice", Some("/")),
        ("readlink", "/d/l", "../../f", None),
        ("readlink", "/d/l", "/etc/passwd", None),
        ("readlink", "/d/l", "/srv/alice/../bob", None),
    ] {
        let reply = [name(7, answered), stated(8, OK)].concat();
        for at in 0..reply.len() {
            let mut session = rooted(&[]);
            session.up(&[request(kind, 7, &[asked.as_bytes()], b""), request("mkdir", 8, &[b"m"], &[0; 4])].concat()).unwrap();
            let mut got = session.down(&reply[..at]).unwrap();
            got.extend(session.down(&reply[at..]).unwrap());
            let first = match expected {
                Some(path) => name(7, path),
                None => {
                    let mut refusal = Vec::new();
                    crate::sftp::reply::put_status(&mut refusal, 7, PERMISSION_DENIED, "the link leads out of the root");
                    refusal
                }
            };
            assert_eq!(got, [first, stated(8, OK)].concat(), "{kind} {asked} {answered} split at {at}");
            assert_eq!(session.finished()[0].code, Some(if expected.is_some() { OK } else { PERMISSION_DENIED }));
        }
    }
    // Entries of a directory are names and pass as they are.
    let mut session = rooted(&[]);
    session.up(&request("opendir", 1, &[b"/"], b"")).unwrap();
    session.down(&reply(HANDLE, 1, &[b"d"], b"")).unwrap();
    session.exchange(request("readdir", 2, &[b"d"], b""), name(2, "/srv/alice/odd"));
}

#[test]
fn relative_paths_are_judged_where_they_lead_and_sent_so() {
    let mut session = Session::begun(Some("/in"), &[("rules", "/in=list,create; /out=read")]);
    assert_eq!(sent(&mut session, "stat", &["a/../b"]), ["/in/b"]);
    assert_eq!(sent(&mut session, "stat", &["../out/x"]), ["/out/x"]);
    assert_eq!(session.refused(&request("stat", 9, &[b"../etc"], b"")).1, "rules: stat is not allowed here");
    let flags = |packet: &[u8]| packet[packet.len() - 8..packet.len() - 4].to_vec();
    let packet = session.up(&open(1, "f", 0x1a)).unwrap();
    assert_eq!(flags(&packet), 0x3a_u32.to_be_bytes(), "EXCL is set for who may create and not overwrite");
    assert_eq!(session.refused(&open(2, "../out/x", 0x1a)).1, "rules: open (create) is not allowed");
    session.down(&stated(1, FAILURE)).unwrap();
    assert_eq!(session.finished().iter().find(|one| !one.refused && one.flags.is_some()).unwrap().flags.unwrap().0, 0x3a);
    // Without home, who is judged by path starts at the top.
    let mut session = Session::begun(None, &[("rules", "/in=list")]);
    assert_eq!(sent(&mut session, "opendir", &["in"]), ["/in"]);
}
