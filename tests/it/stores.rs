//! Both stores: the same table of cases. What is special about each is beside it: [`redis`] with a real redis-server, [`file`] with real files.

use sftpproxy::identity::{PublicKey, UserName};
use sftpproxy::route::Record;
use sftpproxy::store::file::FileStore;
use sftpproxy::store::{Aim, RouteStore};
use sftpproxy::wire::put_string;

use crate::world::process::{LIMIT, until};

mod file;
mod redis;

pub use redis::{Redis, make_ca};

#[track_caller]
fn wait_until(what: &str, done: impl FnMut() -> bool) {
    assert!(until(LIMIT, done), "waited in vain until {what}");
}

pub fn key(seed: u8) -> PublicKey {
    let mut blob = Vec::new();
    put_string(&mut blob, b"ssh-ed25519");
    put_string(&mut blob, &[seed; 32]);
    PublicKey::from_blob(&blob).unwrap()
}

pub fn line(seed: u8, comment: &str) -> String {
    format!("ssh-ed25519 {} {comment}", key(seed).base64())
}

pub fn name(text: &str) -> UserName {
    UserName::new(text).unwrap()
}

pub fn record(fields: &[(&str, &str)]) -> Record {
    fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn with_comment(seed: u8) -> (PublicKey, String) {
    (key(seed), format!("key {seed}"))
}

/// Runs `case` over both stores, each empty.
fn both(case: impl Fn(&dyn RouteStore)) {
    let redis = Redis::start(&[]);
    case(&redis.store());
    let folder = tempfile::tempdir().unwrap();
    case(&FileStore::new(folder.path().join("routes.toml")).unwrap());
}

#[test]
fn both_stores_keep_users_records_and_keys_alike() {
    both(|store| {
        let (alice, bob) = (name("alice"), name("Bob b:c*"));
        assert_eq!(store.users().unwrap(), []);
        assert_eq!(store.record(&alice).unwrap(), None);
        let fields = record(&[("remote", "10.0.0.7"), ("port", "32772"), ("user", "root"), ("home", "/srv \"x\"")]);
        store.put(&alice, Aim::Create, &fields, &[with_comment(1), with_comment(2)]).unwrap();
        store.put(&bob, Aim::Create, &record(&[("hostkey", "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU")]), &[]).unwrap();
        store.check().unwrap();
        assert_eq!(store.record(&alice).unwrap().unwrap(), fields);
        assert_eq!(store.users().unwrap(), [bob.clone(), alice.clone()]);
        assert_eq!(store.owner(&key(1)).unwrap(), Some(alice.clone()));
        assert_eq!(store.owner(&key(3)).unwrap(), None);

        // A change touches only what it names.
        store.put(&alice, Aim::Update, &record(&[("port", "23"), ("home", "")]), &[with_comment(2), with_comment(3)]).unwrap();
        let changed = record(&[("remote", "10.0.0.7"), ("port", "23"), ("user", "root")]);
        assert_eq!(store.record(&alice).unwrap().unwrap(), changed);
        assert_eq!(store.keys().unwrap().iter().filter(|key| key.user == "alice").count(), 3);

        assert!(store.remove_key("alice", &key(1).base64()).unwrap());
        assert!(!store.remove_key("alice", &key(1).base64()).unwrap());
        assert!(!store.remove_key("bob", &key(2).base64()).unwrap());
        assert_eq!(store.owner(&key(1)).unwrap(), None);
        assert!(store.remove_user(&alice).unwrap());
        assert!(!store.remove_user(&alice).unwrap());
        assert_eq!((store.owner(&key(2)).unwrap(), store.record(&alice).unwrap()), (None, None));
        assert_eq!((store.keys().unwrap(), store.users().unwrap()), (vec![], vec![bob]));
    });
}

#[test]
fn both_stores_keep_a_user_with_all_defaults_and_one_with_all_fields_unset() {
    both(|store| {
        store.put(&name("a"), Aim::Create, &Record::new(), &[]).unwrap();
        store.put(&name("b"), Aim::Create, &record(&[("port", "23")]), &[]).unwrap();
        store.put(&name("b"), Aim::Update, &record(&[("port", "")]), &[]).unwrap();
        assert_eq!(store.users().unwrap(), [name("a"), name("b")]);
        assert!(store.record(&name("b")).unwrap().unwrap().values().all(String::is_empty));
    });
}

#[test]
fn both_stores_write_nothing_when_one_key_is_another_users_or_the_aim_does_not_fit() {
    both(|store| {
        store.put(&name("alice"), Aim::Create, &record(&[("port", "1")]), &[with_comment(1)]).unwrap();
        let keys = [with_comment(2), with_comment(1), with_comment(3)];
        let error = store.put(&name("bob"), Aim::Create, &record(&[("port", "2")]), &keys).unwrap_err().to_string();
        assert!(error.contains("belongs to user \"alice\"") && error.contains(&key(1).fingerprint().to_string()), "{error}");
        let error =
            store.put(&name("alice"), Aim::Create, &record(&[("port", "3")]), &[with_comment(4)]).unwrap_err().to_string();
        assert!(error.contains("already"), "{error}");
        let error =
            store.put(&name("carol"), Aim::Update, &record(&[("port", "3")]), &[with_comment(4)]).unwrap_err().to_string();
        assert!(error.contains("no user"), "{error}");
        assert_eq!(store.users().unwrap(), [name("alice")]);
        assert_eq!(
            store.record(&name("alice")).unwrap().unwrap(),
            record(&[("port", "1")]).into_iter().chain(store_default(store)).collect()
        );
        assert_eq!(store.keys().unwrap().len(), 1);
    });
}

/// The redis store gives a record without `remote` an empty one, so that the hash never vanishes.
fn store_default(store: &dyn RouteStore) -> Record {
    if store.describe().starts_with("redis") { record(&[("remote", "")]) } else { Record::new() }
}

#[test]
fn both_stores_lose_nothing_to_writers_at_the_same_time() {
    let redis = Redis::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("routes.toml");
    let make: [&(dyn Fn() -> Box<dyn RouteStore> + Sync); 2] =
        [&|| Box::new(redis.store()), &|| Box::new(FileStore::new(&path).unwrap())];
    for make in make {
        std::thread::scope(|scope| {
            for writer in 0..3_u8 {
                scope.spawn(move || {
                    let store = make();
                    for number in 0..15_u8 {
                        let user = name(&format!("u{writer}-{number}"));
                        store.put(&user, Aim::Create, &Record::new(), &[with_comment(writer * 15 + number)]).unwrap();
                        // All change the same user too, each another field of it.
                        let (shared, field) = (name("shared"), ["user", "home", "key"][usize::from(writer)]);
                        let aim = if store.record(&shared).unwrap().is_some() { Aim::Update } else { Aim::Create };
                        let change = record(&[(field, &format!("x{number}"))]);
                        if store.put(&shared, aim, &change, &[]).is_err() {
                            store.put(&shared, Aim::Update, &change, &[]).unwrap();
                        }
                    }
                });
            }
        });
        let store = make();
        assert_eq!((store.users().unwrap().len(), store.keys().unwrap().len()), (46, 45));
        let shared = store.record(&name("shared")).unwrap().unwrap();
        assert!(["user", "home", "key"].iter().all(|field| shared[*field] == "x14"), "{shared:?}");
    }
}

#[test]
fn of_writers_who_want_the_same_key_at_the_same_time_exactly_one_gets_it_in_both_stores() {
    both(|store| {
        let barrier = std::sync::Barrier::new(4);
        let won = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let (barrier, won) = (&barrier, &won);
                scope.spawn(move || {
                    for round in 0..25 {
                        barrier.wait();
                        let user = name(&format!("u{writer}-{round}"));
                        let put = store.put(&user, Aim::Create, &Record::new(), &[with_comment(round)]);
                        won.fetch_add(usize::from(put.is_ok()), std::sync::atomic::Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!((won.into_inner(), store.users().unwrap().len(), store.keys().unwrap().len()), (25, 25, 25));
    });
}
