use super::*;
use crate::path::normal;
use crate::sftp::attributes::{OWNER, PERMISSIONS, TIMES};
use crate::sftp::{KINDS, Then};

fn policy(fields: &[(&str, &str)]) -> Policy {
    let find = |name: &str| fields.iter().find(|(field, _)| *field == name).map(|(_, text)| *text);
    Policy::parse(find).unwrap().unwrap()
}

fn faults(fields: &[(&str, &str)]) -> String {
    let find = |name: &str| fields.iter().find(|(field, _)| *field == name).map(|(_, text)| *text);
    Policy::parse(find).unwrap_err().join("; ")
}

fn row(name: &str) -> &'static Kind {
    KINDS.iter().find(|kind| kind.short() == name).unwrap()
}

const NOTHING: Attributes = Attributes { flags: 0, size: None };

fn act(name: &str, path: &'static str) -> Act<'static> {
    let kind = row(name);
    let second = (kind.paths.len() == 2).then_some(&b"/other"[..]);
    let flags = (kind.then == Then::Flags).then_some(OpenFlags(OpenFlags::READ));
    Act { kind, path: path.as_bytes(), second, flags, attributes: NOTHING }
}

fn said(result: Result<Allowed, Refusal>) -> String {
    result.map_or_else(|refusal| refusal.text.into_owned(), |_| "allowed".into())
}

/// Flags of OPEN as they may go to the upstream, or the refusal.
fn opened(policy: &Policy, path: &'static str, flags: u32) -> Result<u32, String> {
    let judged = policy.judge(&Act { flags: Some(OpenFlags(flags)), ..act("open", path) });
    judged.map(|allowed| allowed.flags.unwrap().0).map_err(|refusal| refusal.text.into_owned())
}

const R: u32 = OpenFlags::READ;
const W: u32 = OpenFlags::WRITE;
const A: u32 = OpenFlags::APPEND;
const C: u32 = OpenFlags::CREATE;
const T: u32 = OpenFlags::TRUNCATE;
const X: u32 = OpenFlags::EXCLUSIVE;

#[test]
fn no_field_is_no_policy_and_an_unknown_word_refuses_the_record_and_is_named() {
    assert_eq!(Policy::parse(|_| None), Ok(None));
    assert_eq!(Policy::parse(|name| (name == "read_only").then_some("no")), Ok(None));
    for (field, text, named) in [
        ("read_only", "maybe", "read_only: \"maybe\""),
        ("upload_only", "1", "upload_only: \"1\""),
        ("root", "srv", "root: \"srv\""),
        ("root", "/srv/../etc", "root: \"/srv/../etc\""),
        ("rules", "/a=list,fly", "rules: \"fly\""),
        ("rules", "/a=", "rules: \"\""),
        ("rules", "/a", "rules: \"/a\""),
        ("rules", "a=list", "rules: \"a\""),
        ("rules", "/a=list; /a/=read", "rules: \"/a\""),
        ("rules", ";", "rules: there is no rule"),
        ("allow", "[", "allow: \"[\""),
        ("deny", "a/b", "deny: \"a/b\""),
        ("deny", "*.{a,b}", "deny: \"*.{a\""),
        ("max_file_size", "10 MB", "max_file_size: \"10 MB\""),
        ("max_file_size", "-1", "max_file_size: \"-1\""),
        ("max_file_size", "+1", "max_file_size: \"+1\""),
        ("max_file_size", "99999999999T", "max_file_size:"),
        ("extensions", "fsync, fly", "extensions: \"fly\""),
    ] {
        let fault = faults(&[(field, text)]);
        assert!(fault.starts_with(named), "{fault}");
    }
    assert!(faults(&[("read_only", "yes"), ("upload_only", "yes")]).starts_with("upload_only:"));
    let all = faults(&[("read_only", "x"), ("deny", "a/b"), ("root", "x")]);
    assert!(["read_only:", "deny:", "root:"].iter().all(|field| all.contains(field)), "{all}");
    assert_eq!(policy(&[("max_file_size", "10M")]).max_file_size, Some(10 << 20));
    assert_eq!(policy(&[("max_file_size", "12")]).max_file_size, Some(12));
    assert_eq!(policy(&[("root", "/srv//alice/./")]).root(), Some("/srv/alice"));
    let many: String = (0..=MAX_RULES).map(|n| format!("/{n}=list;")).collect();
    assert!(faults(&[("rules", &many)]).contains("more than"));
}

/// Everything that a request of this kind can be: each flag, each attribute.
fn variants(kind: &'static Kind) -> Vec<(Option<OpenFlags>, Attributes)> {
    let flags: Vec<_> = match kind.then {
        Then::Flags => (0..128).map(|flags| Some(OpenFlags(flags))).chain([Some(OpenFlags(u32::MAX))]).collect(),
        _ => vec![None],
    };
    let attributes: Vec<_> = match kind.then {
        Then::Attributes | Then::Flags | Then::HandleAttributes => (0..16).collect(),
        _ => vec![0],
    };
    let size = |flags: u32| (flags & SIZE != 0).then_some(0);
    let all = |given: Option<OpenFlags>| attributes.iter().map(move |&flags| (given, Attributes { flags, size: size(flags) }));
    flags.iter().flat_map(|&given| all(given).collect::<Vec<_>>()).collect()
}

/// Every request of every kind that a policy allows, with paths and with a handle that was opened for reading.
fn allowed(policy: &Policy, path: &'static str) -> Vec<(&'static Kind, Option<OpenFlags>, Attributes)> {
    let opened = policy.judge(&act("open", path)).map(|allowed| allowed.grant).unwrap_or_default();
    let listed = policy.judge(&act("opendir", path)).map(|allowed| allowed.grant).unwrap_or_default();
    let mut found = Vec::new();
    for kind in KINDS {
        for (flags, attributes) in variants(kind) {
            let passes = if kind.then.is_handle() {
                [opened, listed, Grant::default()].into_iter().any(|grant| {
                    let source = (kind.then == Then::Copy).then_some(opened);
                    policy.judge_use(&Use { kind, grant, source, attributes, end: Some(0) }).is_ok()
                })
            } else {
                policy.judge(&Act { flags, attributes, ..act(kind.short(), path) }).is_ok()
            };
            if passes {
                found.push((kind, flags, attributes));
            }
        }
    }
    found
}

#[test]
fn nothing_that_changes_anything_passes_for_a_read_only_user_whatever_its_flags() {
    for fields in [
        vec![("read_only", "yes")],
        vec![("read_only", "yes"), ("rules", "/=all")],
        vec![("rules", "/=list,read")],
        vec![("read_only", "yes"), ("root", "/srv")],
    ] {
        let policy = policy(&fields);
        let allowed = allowed(&policy, "/a/b");
        for (kind, flags, attributes) in &allowed {
            let changes = flags.map_or(kind.effect.changes(), OpenFlags::changes) && kind.effect != Effect::Session;
            assert!(!changes, "{} passes with {flags:?} {attributes:?} under {fields:?}", kind.name);
        }
        // It is still good for something: all that only looks or reads passes.
        for kind in KINDS.iter().filter(|kind| !kind.effect.changes()) {
            let passes = allowed.iter().any(|(other, ..)| *other == kind);
            let below_a_root = kind.short() == "home-directory" && policy.root().is_some();
            assert_eq!(passes, !below_a_root, "{} under {fields:?}", kind.name);
        }
        assert!(allowed.iter().any(|(kind, flags, _)| kind.short() == "open" && *flags == Some(OpenFlags(R))));
    }
    let text = said(policy(&[("read_only", "yes")]).judge(&act("rename", "/a")));
    assert_eq!(text, "read-only: rename is not allowed");
    assert_eq!(opened(&policy(&[("read_only", "yes")]), "/a", W), Err("read-only: open (overwrite) is not allowed".into()));
}

#[test]
fn a_user_without_any_right_gets_nothing_but_the_session() {
    let policy = policy(&[("rules", "/else=all")]);
    for (kind, flags, attributes) in allowed(&policy, "/a") {
        let harmless = kind.effect == Effect::Session || kind.effect == Effect::Accounts || kind.short().starts_with("fstat");
        assert!(harmless, "{} {flags:?} {attributes:?}", kind.name);
    }
    assert_eq!(said(policy.judge(&act("stat", "/"))), "allowed", "the way to where something is allowed");
    assert_eq!(said(policy.judge(&act("stat", "/a"))), "rules: stat is not allowed here");
    assert_eq!(said(policy.judge(&act("opendir", "/"))), "rules: opendir (list) is not allowed");
}

#[test]
fn a_drop_box_takes_new_files_and_gives_nothing() {
    let policy = policy(&[("upload_only", "yes")]);
    // The upstream refuses a file that is there: it is told to.
    assert_eq!(opened(&policy, "/a", W | C | T), Ok(W | C | T | X));
    assert_eq!(opened(&policy, "/a", W | C | X), Ok(W | C | X));
    for flags in [R, 0, W, W | T, R | W | C, C, A, W | A] {
        assert!(opened(&policy, "/a", flags).unwrap_err().starts_with("upload-only: open ("), "{flags}");
    }
    for name in ["opendir", "remove", "rmdir", "rename", "posix-rename", "setstat", "lsetstat", "hardlink", "symlink"] {
        assert!(said(policy.judge(&act(name, "/a"))).starts_with("upload-only: "), "{name}");
    }
    for name in ["mkdir", "stat", "lstat", "realpath"] {
        assert_eq!(said(policy.judge(&act(name, "/a"))), "allowed", "{name}");
    }
    let judged = policy.judge(&Act { flags: Some(OpenFlags(W | C)), ..act("open", "/a") }).unwrap();
    let deed = |name, attributes| Use { kind: row(name), grant: judged.grant, source: None, attributes, end: Some(9) };
    assert_eq!(policy.judge_use(&deed("write", NOTHING)), Ok(()));
    assert_eq!(policy.judge_use(&deed("fsync", NOTHING)), Ok(()));
    assert_eq!(policy.judge_use(&deed("fsetstat", Attributes { flags: SIZE, size: Some(0) })), Ok(()));
    assert!(policy.judge_use(&deed("read", NOTHING)).is_err());
    assert!(policy.judge_use(&deed("readdir", NOTHING)).is_err());
    for flags in [PERMISSIONS, TIMES, OWNER, SIZE | TIMES, 0] {
        assert!(policy.judge_use(&deed("fsetstat", Attributes { flags, size: Some(0) })).is_err(), "{flags}");
    }
}

#[test]
fn open_is_told_to_the_upstream_as_create_and_overwrite_allow_it() {
    for (rights, flags, expected) in [
        ("create,overwrite", W | C | T, Some(W | C | T)),
        ("create", W | C, Some(W | C | X)),
        ("create", W | C | X, Some(W | C | X)),
        ("create", W, None),
        ("create", W | T, None),
        ("overwrite", W | C | T, Some(W | T)),
        ("overwrite", W | C | X, None),
        ("overwrite", W, Some(W)),
        ("read", R, Some(R)),
        ("read", R | T, None),
        ("read", R | C, None),
        ("read", A, None),
        ("read", R | 64, None),
        ("overwrite", R | W, None),
        ("overwrite", A, None),
        ("read,overwrite", A, Some(A)),
        ("delete,rename,mkdir,list,attributes,link", 0, None),
    ] {
        let policy = policy(&[("rules", &format!("/={rights}"))]);
        assert_eq!(opened(&policy, "/a", flags).ok(), expected, "{rights} {flags}");
    }
    let policy = policy(&[("rules", "/=create")]);
    let with = |flags| Act { flags: Some(OpenFlags(W | C)), attributes: Attributes { flags, size: None }, ..act("open", "/a") };
    assert_eq!(said(policy.judge(&with(PERMISSIONS))), "allowed");
    assert_eq!(said(policy.judge(&with(TIMES))), "rules: open (attributes) is not allowed");
}

#[test]
fn the_longest_prefix_counts_and_a_place_with_rules_of_its_own_cannot_be_moved_or_linked() {
    let policy = policy(&[("rules", "/=all; /a/secret=none; /in=create,list; /in/mine/=all")]);
    for (name, path, expected) in [
        ("open", "/a/x", "allowed"),
        ("open", "/a/secret", "rules: open (read) is not allowed"),
        ("open", "/a/secret/x", "rules: open (read) is not allowed"),
        ("open", "/a/secrets", "allowed"),
        ("open", "/in/x", "rules: open (read) is not allowed"),
        ("open", "/in/mine/x", "allowed"),
        ("rename", "/a", "rules: rename is not allowed, there are other rules below"),
        ("rename", "/", "rules: rename is not allowed, there are other rules below"),
        ("rename", "/a/x", "allowed"),
        ("symlink", "/a", "rules: symlink is not allowed, there are other rules below"),
        ("symlink", "/a/secret/x", "rules: symlink (link) is not allowed"),
        ("hardlink", "/in/x", "rules: hardlink (link) is not allowed"),
        ("posix-rename", "/a/x", "allowed"),
        ("remove", "/in/x", "rules: remove (delete) is not allowed"),
        ("mkdir", "/in/x", "rules: mkdir is not allowed"),
    ] {
        assert_eq!(said(policy.judge(&act(name, path))), expected, "{name} {path}");
    }
    let to = |path: &'static [u8]| Act { second: Some(path), ..act("rename", "/x") };
    assert_eq!(said(policy.judge(&to(b"/in/x"))), "rules: rename is not allowed");
}

#[test]
fn five_hundred_spellings_of_a_path_are_the_same_path() {
    let policy = policy(&[("rules", "/=all; /in/secret=none")]);
    let joints = ["/", "//", "/./", "/x/../", "/././/", "/../", "/x/y/../../", "/..//../"];
    let between = ["/", "//", "/./", "/x/../", "/.//./", "/\u{e9}/../", "/..../../", "/x/./../", "///"];
    let ends = ["", "/", "/.", "//", "/x/..", "/./", "/file"];
    let (mut spellings, mut seen) = (0, std::collections::BTreeSet::new());
    for first in joints {
        for second in between {
            for end in ends {
                for start in ["", "in/..", "/out/../.."] {
                    let path = format!("{start}{first}in{second}secret{end}");
                    // A relative path starts at home, which is / here.
                    let normal = normal(b"/", path.as_bytes());
                    let verdict = policy.judge(&Act { path: &normal, ..act("open", "/") });
                    assert_eq!(said(verdict), "rules: open (read) is not allowed", "{path}");
                    spellings += usize::from(seen.insert(path));
                }
            }
        }
    }
    assert!(spellings >= 500, "{spellings}");
    // These are others, however alike they look.
    for path in [
        "/in/secre",
        "/in/secrets",
        "/in/Secret",
        "/in/%73ecret",
        "/in\\secret",
        "/in/secret\u{0301}",
        "/in/secret ",
        "/in/ secret",
        "in/sec/ret",
    ] {
        let normal = normal(b"/", path.as_bytes());
        assert_eq!(said(policy.judge(&Act { path: &normal, ..act("open", "/") })), "allowed", "{path}");
    }
    for path in [&b"/in/secret/\xff\xfe"[..], b"/in//secret/\xc0\xae", b"/\xff/../in/secret"] {
        assert!(policy.judge(&Act { path: &normal(b"/", path), ..act("open", "/") }).is_err());
    }
}

#[test]
fn names_are_allowed_and_denied_by_patterns_without_regard_to_case() {
    let policy = policy(&[("allow", "*.csv, report-?"), ("deny", ".*, *.exe.csv")]);
    for (name, path, expected) in [
        ("open", "/a.csv", "allowed"),
        ("open", "/dir/A.CSV", "allowed"),
        ("open", "/report-1", "allowed"),
        ("open", "/report-10", "allow: open is not allowed for this name"),
        ("open", "/a.csv/b", "allow: open is not allowed for this name"),
        ("open", "/.a.csv", "deny: open is not allowed for this name"),
        ("open", "/.ssh/a.csv", "deny: open is not allowed for this name"),
        ("stat", "/.ssh/x", "deny: stat is not allowed for this name"),
        ("open", "/a.Exe.csv", "deny: open is not allowed for this name"),
        ("rename", "/a.csv", "allow: rename is not allowed for this name"),
        ("opendir", "/dir", "allowed"),
        ("mkdir", "/dir", "allowed"),
        ("stat", "/x", "allowed"),
    ] {
        assert_eq!(said(policy.judge(&act(name, path))), expected, "{name} {path}");
    }
    assert!(policy.judge(&Act { path: b"/\xff.CSV", ..act("open", "/") }).is_ok());
    assert!(policy.judge(&Act { path: b"/.\xff", ..act("stat", "/") }).is_err());
}

#[test]
fn no_file_gets_larger_than_it_may() {
    let policy = policy(&[("max_file_size", "1000")]);
    let grant = policy.judge(&Act { flags: Some(OpenFlags(W | C)), ..act("open", "/a") }).unwrap().grant;
    let deed = |name: &str, end| {
        let kind = row(name);
        let size = (kind.then == Then::HandleAttributes).then_some(end).flatten();
        let attributes = Attributes { flags: u32::from(size.is_some()), size };
        let source = (kind.then == Then::Copy).then_some(Grant { rights: Rights::ALL, flags: OpenFlags(R) });
        policy.judge_use(&Use { kind, grant, source, attributes, end }).map_err(|refusal| refusal.text.into_owned())
    };
    let too_large = || Err("max_file_size: a file has at most 1000 bytes".to_owned());
    for name in ["write", "copy-data", "fsetstat"] {
        assert_eq!((deed(name, Some(1000)), deed(name, Some(1001))), (Ok(()), too_large()), "{name}");
    }
    assert_eq!(deed("copy-data", None), Err("max_file_size: the size is not known".into()));
    assert_eq!(deed("write", None), Err("max_file_size: the size is not known".into()));
    let sized = |size| Act { attributes: Attributes { flags: SIZE, size: Some(size) }, ..act("setstat", "/a") };
    assert!(policy.judge(&sized(1000)).is_ok() && policy.judge(&sized(1001)).is_err());
    assert!(opened(&policy, "/a", W | A).unwrap_err().contains("append"));
    assert!(!policy.announces(row("copy-data")));
}

#[test]
fn extensions_are_allowed_by_name_and_announced_when_they_are_of_use() {
    let some = policy(&[("extensions", "fsync, posix-rename@openssh.com")]);
    assert!(some.announces(row("fsync")) && some.announces(row("posix-rename")) && !some.announces(row("statvfs")));
    assert_eq!(some.judge(&act("statvfs", "/")).unwrap_err().code, OP_UNSUPPORTED);
    assert!(some.judge(&act("posix-rename", "/a")).is_ok());
    assert!(!policy(&[("extensions", "none")]).announces(row("limits")));
    let reader = policy(&[("read_only", "yes")]);
    for kind in KINDS.iter().filter(|kind| kind.number == EXTENDED) {
        assert_eq!(reader.announces(kind), !kind.effect.changes(), "{}", kind.name);
    }
    let rooted = policy(&[("root", "/srv")]);
    assert!(
        !rooted.announces(row("home-directory"))
            && !rooted.announces(row("hardlink"))
            && rooted.announces(row("users-groups-by-id"))
    );
    assert!(rooted.judge(&act("home-directory", "")).is_err());
    assert_eq!(said(rooted.judge(&act("symlink", "/a"))), "root: symlink (link) is not allowed");
    for name in ["rename", "posix-rename", "rmdir", "remove"] {
        assert!(said(rooted.judge(&act(name, "/"))).starts_with("root: "), "{name}");
    }
}
