//! What is special about a routes file: it is written by hand too, and read again when it changes. Real files.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::time::{Duration, Instant};

use sftpproxy::identity::PublicKey;
use sftpproxy::route::Record;
use sftpproxy::store::file::FileStore;
use sftpproxy::store::{Aim, RouteStore};
use sftpproxy::wire::put_string;

use super::{key, line, name, record, wait_until, with_comment};

#[test]
fn in_a_routes_file_a_policy_may_be_written_with_toml_s_own_values() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("routes.toml");
    let fields = "read_only = true\nupload_only = false\nmax_file_size = 1000\nrules = [\"/in=create,list\", \"/out=read\"]\n\
                  allow = [\"*.csv\", \"x\"]\ndeny = [\".*\"]\nextensions = [\"fsync\"]\nhash = \"blake3\"\n";
    std::fs::write(&path, format!("[users.alice]\n{fields}")).unwrap();
    let record = FileStore::new(&path).unwrap().record(&name("alice")).unwrap().unwrap();
    for (field, text) in [
        ("read_only", "yes"),
        ("upload_only", "no"),
        ("max_file_size", "1000"),
        ("rules", "/in=create,list; /out=read"),
        ("allow", "*.csv, x"),
        ("deny", ".*"),
        ("extensions", "fsync"),
        ("hash", "blake3"),
    ] {
        assert_eq!(record[field], text);
    }
    for bad in ["read_only = 1", "rules = [1]", "home = true", "max_file_size = -1"] {
        std::fs::write(&path, format!("[users.alice]\n{bad}\n")).unwrap();
        assert!(FileStore::new(&path).is_err_and(|error| error.to_string().contains("line 2")), "{bad}");
    }
}

#[test]
fn the_routes_file_is_read_again_when_it_changes_and_a_bad_one_leaves_the_last_good_one_in_force() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("routes.toml");
    let write = |text: &str| std::fs::write(&path, text).unwrap();
    write(&format!("[users.alice]\nport = 1\nkeys = [\"{}\"]\n", line(1, "x")));
    let store = FileStore::new(&path).unwrap();
    assert_eq!(store.owner(&key(1)), Ok(Some(name("alice"))));
    let port = || store.record(&name("alice")).unwrap().unwrap()["port"].clone();
    // Same size, at once: only the clock's tick could tell them apart.
    for number in 2..10 {
        write(&format!("[users.alice]\nport = {number}\nkeys = [\"{}\"]\n", line(1, "x")));
        assert_eq!(port(), number.to_string());
    }
    let one = line(1, "x");
    for (text, line, part) in [
        ("[users.alice]\nport = 70000\n".to_owned(), 2, "port"),
        ("[users.alice]\n\nremote = \"a b\"\n".into(), 3, "remote"),
        ("[users.alice]\nport = 1\n[users.alice]\n".into(), 3, "duplicate"),
        ("# x\nusers = 3\n".into(), 2, "users"),
        ("[users.alice]\nkeys = [\n\"ssh-ed25519 AAAA\"]\n".into(), 3, "keys"),
        (format!("[users.a]\nkeys = [\"{one}\"]\n[users.b]\nkeys = \"{one}\"\n"), 4, "one key names one user"),
        ("[users.alice\n".into(), 1, ""),
        ("[users.\"a\\nb\"]\n".into(), 1, "control"),
    ] {
        write(&text);
        let error = store.check().unwrap_err();
        assert!(
            error.what.contains(&format!("{}: line {line}: ", path.display())) && error.what.contains(part),
            "{text}: {error}"
        );
        assert!(!error.what.contains('\n'), "{error}");
        assert_eq!((port().as_str(), store.owner(&key(1))), ("9", Ok(Some(name("alice")))), "{text}");
        assert!(FileStore::new(&path).is_err() && store.put(&name("x"), Aim::Create, &Record::new(), &[]).is_err(), "{text}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
    std::fs::remove_file(&path).unwrap();
    assert!(store.check().is_err());
    assert_eq!(port(), "9");
    write("[users.alice]\nport = 10\n");
    store.check().unwrap();
    assert_eq!((port().as_str(), store.owner(&key(1))), ("10", Ok(None)));
}

#[test]
fn a_routes_file_that_does_not_exist_yet_is_never_taken_for_no_such_user() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("routes.toml");
    let store = FileStore::new(&path).unwrap();
    assert!(store.check().is_err());
    let error = store.owner(&key(1)).unwrap_err();
    assert!(error.what.contains(path.to_str().unwrap()) && error.what.contains("user add"), "{error}");
    FileStore::new(&path).unwrap().put(&name("alice"), Aim::Create, &Record::new(), &[with_comment(1)]).unwrap();
    assert_eq!(store.owner(&key(1)), Ok(Some(name("alice"))));
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
}

#[test]
fn a_routes_file_that_everybody_can_write_is_refused_and_modes_stay_through_a_change() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("routes.toml");
    std::fs::write(&path, "[users.alice]\n").unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    assert!(FileStore::new(&path).unwrap_err().what.contains("chmod o-w"));
    std::fs::set_permissions(&path, Permissions::from_mode(0o604)).unwrap();
    let link = folder.path().join("link.toml");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    FileStore::new(&link).unwrap().put(&name("bob"), Aim::Create, &Record::new(), &[]).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o604);
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(FileStore::new(&path).unwrap().users().unwrap().len(), 2);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "nothing is left lying about");
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(FileStore::new(&path).unwrap_err().what.contains("not a regular file"));
}

#[test]
fn our_changes_of_the_routes_file_keep_comments_order_and_spelling() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("routes.toml");
    let before = format!(
        "# Routes of our site.\n\n# Alice, accounting\n[users.alice]\nremote = '10.0.0.7' # the old host\nport = \"0x16\"\n\n# Zoë\n\
         [users.\"zoë\"] # since May\nport   =   2222   # hers\nunknown = 1\nkeys = [\n    \"{}\", # laptop\n    \"{}\", # desk\n]\n\n# end\n",
        line(1, "l"),
        line(2, "d")
    );
    std::fs::write(&path, before.replace("0x16", "22")).unwrap();
    let store = FileStore::new(&path).unwrap();
    let zoe = name("zoë");
    let same = record(&[("port", "22"), ("remote", "10.0.0.7")]);
    store.put(&name("alice"), Aim::Update, &same, &[]).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), before.replace("0x16", "22"));

    let pins = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU";
    store
        .put(&zoe, Aim::Update, &record(&[("port", "2223"), ("hostkey", &format!("{pins},{pins}"))]), &[with_comment(3)])
        .unwrap();
    store.put(&name("bob"), Aim::Create, &record(&[("remote", "h"), ("port", "1")]), &[with_comment(4)]).unwrap();
    assert!(store.remove_key("zoë", &key(2).base64()).unwrap());
    assert!(store.remove_user(&name("alice")).unwrap());
    let text = std::fs::read_to_string(&path).unwrap();
    for part in
        ["# Routes of our site.\n", "# Zoë\n", "# since May", "port   =   2223   # hers\n", "unknown = 1", "# laptop", "# end"]
    {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(text.contains(" l\", # laptop\n    \"") && !text.contains("# desk"), "{text}");
    assert!(!text.contains("accounting") && text.starts_with("# Routes") && text.find("zoë") < text.find("bob"), "{text}");
    assert_eq!(store.record(&zoe).unwrap().unwrap()["hostkey"], format!("{pins},{pins}"));
    assert_eq!(store.keys().unwrap().len(), 3, "{text}");
    // And a person can read it: one key a line.
    assert!(text.contains(&format!("\n    \"{}\",\n", line(4, "key 4"))), "{text}");
}

#[test]
fn users_in_inline_tables_and_a_single_key_work_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("routes.toml");
    std::fs::write(&path, format!("[users]\nalice = {{ port = 1, keys = \"{}\" }}\n", line(1, ""))).unwrap();
    let store = FileStore::new(&path).unwrap();
    store.put(&name("alice"), Aim::Update, &record(&[("home", "/x")]), &[with_comment(2)]).unwrap();
    store.put(&name("bob"), Aim::Create, &Record::new(), &[with_comment(3)]).unwrap();
    assert_eq!(store.keys().unwrap().len(), 3);
    assert!(store.remove_user(&name("alice")).unwrap());
    assert_eq!(store.users().unwrap(), [name("bob")]);
}

#[test]
fn looking_up_among_ten_thousand_users_of_a_file_costs_no_reading() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("routes.toml");
    let mut text = String::new();
    for number in 0..10_000_u32 {
        let mut blob = Vec::new();
        put_string(&mut blob, b"ssh-ed25519");
        put_string(&mut blob, &[&[7; 28][..], &number.to_be_bytes()].concat());
        let key = PublicKey::from_blob(&blob).unwrap().base64();
        text += &format!("[users.u{number}]\nremote = \"10.0.0.7\"\nport = 22\nkeys = [\"ssh-ed25519 {key}\"]\n\n");
    }
    std::fs::write(&path, text).unwrap();
    let past = std::time::SystemTime::now() - Duration::from_secs(60);
    std::fs::File::options().append(true).open(&path).unwrap().set_modified(past).unwrap();
    let store = FileStore::new(&path).unwrap();
    // The change time cannot be set: wait until the file is old enough for its stamp to be believed.
    wait_until("a thousand look-ups are quick", || {
        let start = Instant::now();
        assert!(
            (0..1000)
                .all(|number| store.record(&name(&format!("u{number}"))).unwrap().is_some() || start.elapsed().as_secs() > 5)
        );
        start.elapsed() < Duration::from_millis(500)
    });
}
