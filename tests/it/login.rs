//! Who gets in: the contract's section "Login", with a hostile client against the program itself.
//!
//! libssh leaves some bad requests without an answer. Then the session must end, at the latest when the time for a login is over, which
//! these worlds set to 2 s.

use std::process::Command;

use sftpproxy::identity::Fingerprint;
use sftpproxy::wire::{put_string, put_u32};

use crate::raw::login::userauth;
use crate::raw::transport::closed;
use crate::raw::{Answer, Channel, Client, Key, Login, SERVICE_REQUEST, USERAUTH_SUCCESS};
use crate::world::process::run;
use crate::world::sshd::Sshd;
use crate::world::{Kind, Setup, World, keys, route_to};

/// Two users, each with an upstream of the own, and a key that is nobody's.
struct Site {
    world: World,
    alice: Key,
    bob: Key,
    nobody: Key,
    bobs: Sshd,
    sessions: std::cell::Cell<usize>,
}

impl Site {
    fn start() -> Self {
        Self::with(&[])
    }

    fn with(settings: &[(&str, &str)]) -> Self {
        Self::over(Kind::File, settings)
    }

    fn over(store: Kind, settings: &[(&str, &str)]) -> Self {
        let settings: Vec<_> = [("LOGIN_TIMEOUT", "2")].iter().chain(settings).copied().collect();
        let world = World::with(Setup { store, settings: &settings, ..Setup::default() });
        let bobs = Sshd::start(&world.folder.path().join("bobs"), "bobs", &[]);
        let site = Self {
            world,
            bobs,
            alice: Key::ed25519(),
            bob: Key::ed25519(),
            nobody: Key::ed25519(),
            sessions: std::cell::Cell::default(),
        };
        admit(&site.world, "alice", &site.alice);
        site.world.store.put("bob", &[&on_disk(&site.world, "bob", &site.bob)], &route_to(&site.bobs));
        site
    }

    fn connect(&self) -> Client {
        self.sessions.set(self.sessions.get() + 1);
        Client::connect(("127.0.0.1", self.world.router.port)).unwrap()
    }

    /// The end line of the session that was connected last.
    #[track_caller]
    fn end(&self) -> String {
        self.world.router.wait_for_line(&format!("end session={} ", self.sessions.get()))
    }

    /// A client that does this on a connection of its own is not let in: no success, no channel, and the session ends in time.
    #[track_caller]
    fn refuses(&self, what: &str, attack: impl FnOnce(&mut Client) -> Answer) -> String {
        let mut client = self.connect();
        let answer = attack(&mut client);
        assert_ne!(answer, Answer::Success, "{what}");
        if answer != Answer::Disconnected {
            let opened = client.open("session", 1 << 20, 1 << 15, &[]);
            assert!(!matches!(opened, Ok(Ok(_))), "{what}: a channel is open");
        }
        let rest = client.until_closed().unwrap_or_else(|error| panic!("{what}: the session goes on: {error}"));
        assert!(rest.iter().all(|packet| packet[0] != USERAUTH_SUCCESS), "{what}");
        let end = self.end();
        assert!(end.contains("stage=\"prove\"") && end.contains("up=0 down=0"), "{what}: {end}");
        let proven = format!("proven session={} ", self.sessions.get());
        assert!(!self.world.router.lines().iter().any(|line| line.contains(&proven)), "{what}");
        end
    }

    /// The session is this user's by this key: in the log, and by where a file lands.
    #[track_caller]
    fn belongs_to(&self, client: &mut Client, user: &str, key: &Key) {
        let channel = client.open_sftp().unwrap();
        make_file(client, &channel, "mark");
        let proven = self.world.router.wait_for_line(&format!("proven session={} ", self.sessions.get()));
        let fingerprint = Fingerprint::of(&key.blob()).to_string();
        assert!(proven.contains(&format!("user=\"{user}\"")) && proven.contains(&fingerprint), "{proven}");
        let (alices, bobs) = (self.world.sshd.files.join("mark"), self.bobs.files.join("mark"));
        assert_eq!((alices.exists(), bobs.exists()), (user == "alice", user == "bob"));
        for mark in [alices, bobs] {
            let _ = std::fs::remove_file(mark);
        }
    }
}

/// The public half in a file, as the store of the world takes it.
pub fn on_disk(world: &World, name: &str, key: &Key) -> keys::Key {
    let private = world.folder.path().join(format!("raw-{name}"));
    std::fs::write(private.with_extension("pub"), key.line()).unwrap();
    keys::Key { private }
}

/// Gives the hostile client's key a route to the world's upstream.
pub fn admit(world: &World, user: &str, key: &Key) {
    world.add_user(user, &on_disk(world, user, key));
}

/// Makes an empty file by SFTP.
fn make_file(client: &mut Client, channel: &Channel, name: &str) {
    client.data(channel, &[0, 0, 0, 5, 1, 0, 0, 0, 3]).unwrap();
    assert_eq!(client.recv_sftp(channel).unwrap()[0], 2, "VERSION");
    let mut body = vec![3, 0, 0, 0, 1];
    put_string(&mut body, name.as_bytes());
    put_u32(&mut body, 0x1a); // WRITE, CREAT, TRUNC
    put_u32(&mut body, 0);
    let mut packet = Vec::new();
    put_string(&mut packet, &body);
    client.data(channel, &packet).unwrap();
    assert_eq!(client.recv_sftp(channel).unwrap()[0], 102, "HANDLE");
}

#[test]
fn who_has_only_the_public_half_of_a_key_is_told_that_it_would_do_and_gets_no_session() {
    let site = Site::start();
    site.refuses("an offer alone", |client| client.probe("alice", "ssh-ed25519", &site.alice.blob()).unwrap());
    site.refuses("a hundred offers", |client| {
        (0..15).map(|_| client.probe("alice", "ssh-ed25519", &site.alice.blob()).unwrap()).last().unwrap()
    });
    let mut client = site.connect();
    assert_eq!(client.probe("alice", "ssh-ed25519", &site.alice.blob()).unwrap(), Answer::KeyIsGood);
    assert_eq!(client.login(&Login::new("alice", &site.alice)).unwrap(), Answer::Success);
    site.belongs_to(&mut client, "alice", &site.alice);
}

#[test]
fn a_signature_that_is_not_by_this_key_over_this_session_and_this_user_lets_nobody_in() {
    let site = Site::start();
    let rsa = Key::rsa(2048);
    admit(&site.world, "rsa", &rsa);
    let alice = || Login::new("alice", &site.alice);
    let foreign = {
        let client = site.connect();
        client.session_id.clone()
    };
    let forged: [(&str, Login<'_>); 10] = [
        ("a signature by another key", Login { signer: &site.nobody, ..alice() }),
        ("a signature by another user's key", Login { signer: &site.bob, ..alice() }),
        ("a spoilt signature", Login { spoil: |signature| *signature.last_mut().unwrap() ^= 1, ..alice() }),
        ("no signature at all", Login { spoil: Vec::clear, ..alice() }),
        ("half a signature", Login { spoil: |signature| signature.truncate(signature.len() / 2), ..alice() }),
        ("a signature for another user", Login { signed_user: Some("bob"), ..alice() }),
        ("a signature of another session", Login { signed_session: Some(foreign), ..alice() }),
        ("a signature over another key", Login { signed_blob: Some(site.bob.blob()), ..alice() }),
        ("a signature over another algorithm", Login { signed_algorithm: Some("rsa-sha2-256"), ..Login::new("rsa", &rsa) }),
        ("a signature named for another algorithm", Login { signature_algorithm: Some("ssh-rsa"), ..alice() }),
    ];
    for (what, login) in forged {
        site.refuses(what, |client| client.login(&login).unwrap());
        site.refuses(&format!("{what}, after a good offer"), |client| {
            client.probe(login.user, login.algorithm, &login.blob).unwrap();
            client.login(&login).unwrap()
        });
    }
    let mut client = site.connect();
    assert_eq!(client.login(&Login::new("rsa", &rsa)).unwrap(), Answer::Success, "the honest one");
}

#[test]
fn a_signed_request_without_an_offer_before_it_lets_in() {
    let site = Site::start();
    for (user, key) in [("alice", &site.alice), ("bob", &site.bob)] {
        let mut client = site.connect();
        assert_eq!(client.login(&Login::new(user, key)).unwrap(), Answer::Success);
        site.belongs_to(&mut client, user, key);
    }
}

#[test]
fn the_session_is_that_of_the_proven_key_whatever_was_offered_before_or_is_offered_after() {
    let site = Site::start();
    let offers: [(&str, &Key); 5] =
        [("bob", &site.bob), ("alice", &site.bob), ("bob", &site.alice), ("alice", &site.nobody), ("nobody", &site.nobody)];
    for (user, key) in offers {
        let mut client = site.connect();
        client.probe(user, "ssh-ed25519", &key.blob()).unwrap();
        assert_eq!(client.login(&Login::new("alice", &site.alice)).unwrap(), Answer::Success, "after {user}");
        site.belongs_to(&mut client, "alice", &site.alice);
    }
    for (user, key) in offers {
        let mut client = site.connect();
        assert_eq!(client.login(&Login::new("alice", &site.alice)).unwrap(), Answer::Success);
        // RFC 4252 section 5.3: ignored; libssh ends the session, which is allowed too.
        let mut late = userauth(user, "ssh-connection", "publickey");
        late.push(0);
        put_string(&mut late, b"ssh-ed25519");
        put_string(&mut late, &key.blob());
        client.send_packet(&late).unwrap();
        let signed = Login::new(user, key).packet(&client.session_id);
        let _ = client.send_packet(&signed);
        if let Ok(Ok(channel)) = client.open("session", 1 << 20, 1 << 15, &[])
            && client.subsystem(&channel, "sftp").is_ok()
        {
            make_file(&mut client, &channel, "late");
            assert!(!site.bobs.files.join("late").exists(), "{user} got in after alice");
        }
        drop(client);
        let end = site.end();
        assert!(end.contains("user=\"alice\""), "{end}");
    }
    assert!(!site.world.router.lines().iter().any(|line| line.contains("proven ") && !line.contains("user=\"alice\"")));
}

#[test]
fn an_offer_of_a_good_key_helps_no_signature_by_another() {
    let site = Site::start();
    site.refuses("alice's offered, nobody's proven", |client| {
        assert_eq!(client.probe("alice", "ssh-ed25519", &site.alice.blob()).unwrap(), Answer::KeyIsGood);
        client.login(&Login::new("alice", &site.nobody)).unwrap()
    });
    site.refuses("alice's offered, bob's proven as alice", |client| {
        assert_eq!(client.probe("alice", "ssh-ed25519", &site.alice.blob()).unwrap(), Answer::KeyIsGood);
        client.login(&Login::new("alice", &site.bob)).unwrap()
    });
    assert!(site.world.router.wait_for_line("refuse session=").contains("user=\"alice\""));
}

#[test]
fn the_user_name_that_counts_is_that_of_the_signed_request() {
    let site = Site::start();
    site.refuses("offered as alice, signed as bob", |client| {
        assert_eq!(client.probe("alice", "ssh-ed25519", &site.alice.blob()).unwrap(), Answer::KeyIsGood);
        client.login(&Login::new("bob", &site.alice)).unwrap()
    });
    site.refuses("offered and signed as another user", |client| {
        assert!(matches!(client.probe("bob", "ssh-ed25519", &site.alice.blob()).unwrap(), Answer::Failure(_)));
        client.login(&Login::new("bob", &site.alice)).unwrap()
    });
    site.refuses("a user who does not exist", |client| client.login(&Login::new("carol", &site.alice)).unwrap());
    site.refuses("upper case", |client| client.login(&Login::new("Alice", &site.alice)).unwrap());
    site.refuses("a space more", |client| client.login(&Login::new("alice ", &site.alice)).unwrap());
    site.refuses("no name", |client| client.login(&Login::new("", &site.alice)).unwrap());
    assert!(!site.world.router.wait_for_lines("refuse session=*reason=\"the key is another user's\"", 2).is_empty());
}

#[test]
fn a_sha_1_signature_is_refused_by_default_and_so_is_a_short_rsa_key() {
    let site = Site::start();
    let (rsa, short) = (Key::rsa(2048), Key::rsa(1024));
    admit(&site.world, "rsa", &rsa);
    admit(&site.world, "short", &short);
    site.refuses("SHA-1", |client| client.login(&Login { algorithm: "ssh-rsa", ..Login::new("rsa", &rsa) }).unwrap());
    site.refuses("SHA-1 inside rsa-sha2-512", |client| {
        client.login(&Login { signature_algorithm: Some("ssh-rsa"), ..Login::new("rsa", &rsa) }).unwrap()
    });
    for algorithm in ["rsa-sha2-512", "rsa-sha2-256"] {
        site.refuses("1024 bits", |client| client.login(&Login { algorithm, ..Login::new("short", &short) }).unwrap());
        let mut client = site.connect();
        let answer = client.login(&Login { algorithm, ..Login::new("rsa", &rsa) }).unwrap();
        assert_eq!(answer, Answer::Success, "{algorithm}");
    }
}

#[test]
fn what_is_no_key_is_refused_and_the_session_ends_in_time() {
    let site = Site::start();
    let mut dss = Vec::new();
    put_string(&mut dss, b"ssh-dss");
    (0..4).for_each(|_| put_string(&mut dss, &[1; 20]));
    let mut huge = Vec::new();
    put_string(&mut huge, b"ssh-ed25519");
    put_string(&mut huge, &[7; 30_000]);
    let blobs: [(&str, &str, &[u8]); 6] = [
        ("ssh-dss", "ssh-dss", &dss),
        ("garbage", "ssh-ed25519", b"garbage"),
        ("nothing", "ssh-ed25519", b""),
        ("a length beyond the end", "ssh-ed25519", &[0xff; 8]),
        ("30,000 bytes", "ssh-ed25519", &huge),
        ("an algorithm that nobody knows", "ssh-unheard-of", &dss),
    ];
    for (what, algorithm, blob) in blobs {
        site.refuses(what, |client| client.probe("alice", algorithm, blob).unwrap());
        site.refuses(what, |client| {
            client.login(&Login { algorithm, blob: blob.to_vec(), ..Login::new("alice", &site.alice) }).unwrap()
        });
    }
}

#[test]
fn a_user_certificate_is_refused_whoever_has_signed_it() {
    let mut site = Site::over(Kind::Redis, &[]);
    let folder = site.world.folder.path().to_owned();
    let ca = keys::ed25519("alice");
    let certify = |public: &std::path::Path| {
        run(Command::new("ssh-keygen").arg("-s").arg(&ca.private).args(["-q", "-I", "alice", "-n", "alice"]).arg(public))
            .success();
        let certificate = public.with_file_name(format!("{}-cert.pub", public.file_stem().unwrap().to_string_lossy()));
        std::fs::read_to_string(certificate).unwrap().split(' ').nth(1).unwrap().to_owned()
    };
    // By hand: alice's own key, certified by a key that is alice's too, and the certificate itself stands in the store.
    let base64 = certify(&on_disk(&site.world, "certified", &site.alice).public());
    site.world.store.redis().set(&format!("pysftpproxy:pubkey:{base64}"), "alice");
    let blob = openssl::base64::decode_block(&base64).unwrap();
    let algorithm = "ssh-ed25519-cert-v01@openssh.com";
    site.refuses("an offer", |client| client.probe("alice", algorithm, &blob).unwrap());
    for signature_algorithm in [Some("ssh-ed25519"), None] {
        site.refuses("a signature", |client| {
            let login = Login { algorithm, blob: blob.clone(), signature_algorithm, ..Login::new("alice", &site.alice) };
            client.login(&login).unwrap()
        });
    }
    // By ssh(1): a key that nobody has, with a certificate that alice's key has signed.
    let stranger = keys::Key { private: folder.join("stranger") };
    std::fs::copy(keys::ed25519("stranger").private, &stranger.private).unwrap();
    std::fs::copy(keys::ed25519("stranger").public(), stranger.public()).unwrap();
    certify(&stranger.public());
    let output = site.world.proxied_with("alice", &stranger).with_option("LogLevel=DEBUG1").sftp("pwd\n");
    assert_ne!(output.code, 0, "{output:?}");
    assert!(output.stderr.contains("CERT"), "ssh has not offered the certificate: {}", output.stderr);
    assert!(!site.world.router.lines().iter().any(|line| line.contains("proven session=")));
}

#[test]
fn no_method_but_publickey_lets_in() {
    let site = Site::start();
    let only = Answer::Failure("publickey".into());
    site.refuses("none", |client| {
        assert_eq!(client.none("alice").unwrap(), only);
        only.clone()
    });
    site.refuses("password", |client| client.password("alice", "secret").unwrap());
    site.refuses("an empty password", |client| client.password("alice", "").unwrap());
    site.refuses("keyboard-interactive", |client| {
        let mut request = userauth("alice", "ssh-connection", "keyboard-interactive");
        put_string(&mut request, b"");
        put_string(&mut request, b"");
        client.ask(&request).unwrap()
    });
    site.refuses("hostbased", |client| client.ask(&userauth("alice", "ssh-connection", "hostbased")).unwrap());
    site.refuses("gssapi", |client| client.ask(&userauth("alice", "ssh-connection", "gssapi-with-mic")).unwrap());
    site.refuses("another service", |client| {
        client.login(&Login { service: "ssh-unheard-of", ..Login::new("alice", &site.alice) }).unwrap()
    });
}

#[test]
fn a_client_that_declares_itself_logged_in_gets_no_channel() {
    // CVE-2018-10933.
    let site = Site::start();
    site.refuses("USERAUTH_SUCCESS", |client| {
        client.send_packet(&[USERAUTH_SUCCESS]).unwrap();
        Answer::Failure(String::new())
    });
    site.refuses("a good offer and USERAUTH_SUCCESS", |client| {
        assert_eq!(client.probe("alice", "ssh-ed25519", &site.alice.blob()).unwrap(), Answer::KeyIsGood);
        client.send_packet(&[USERAUTH_SUCCESS]).unwrap();
        Answer::KeyIsGood
    });
}

#[test]
fn no_channel_and_no_other_service_comes_before_the_login() {
    let site = Site::start();
    site.refuses("a channel at once", |_| Answer::Failure(String::new()));
    site.refuses("a request on a channel that is not there", |client| {
        let channel = Channel { ours: 0, theirs: 0, window: 0, max_packet: 0 };
        client.send_request(&channel, "subsystem", true, b"\0\0\0\x04sftp").unwrap();
        client.data(&channel, &[0, 0, 0, 5, 1, 0, 0, 0, 3]).unwrap_or(());
        Answer::Failure(String::new())
    });
    site.refuses("a global request", |client| {
        client.global_request("tcpip-forward", true, b"").unwrap();
        Answer::Failure(String::new())
    });
    site.refuses("the service ssh-connection", |client| {
        let mut request = vec![SERVICE_REQUEST];
        put_string(&mut request, b"ssh-connection");
        client.send_packet(&request).unwrap();
        Answer::Failure(String::new())
    });
}

#[test]
fn a_client_that_offers_too_many_keys_is_sent_away() {
    let site = Site::with(&[("MAX_OFFERED_KEYS", "3")]);
    let end = site.refuses("four keys", |client| {
        for _ in 0..3 {
            let answer = client.probe("alice", "ssh-ed25519", &Key::ed25519().blob()).unwrap();
            assert_eq!(answer, Answer::Failure("publickey".into()));
        }
        client.login(&Login::new("alice", &site.alice)).unwrap()
    });
    assert!(end.contains("side=downstream") && end.contains("more than 3 keys offered (SFTPPROXY_MAX_OFFERED_KEYS)"), "{end}");
    let mut client = site.connect();
    for _ in 0..2 {
        client.probe("alice", "ssh-ed25519", &Key::ed25519().blob()).unwrap();
    }
    assert_eq!(client.login(&Login::new("alice", &site.alice)).unwrap(), Answer::Success, "the third");
}

/// What of a log line stands outside quotes, where a reader looks for fields.
fn unquoted(line: &str) -> String {
    let unescaped = line.replace("\\\\", "").replace("\\\"", "");
    unescaped.split('"').step_by(2).collect()
}

#[test]
fn names_cannot_forge_or_flood_the_log() {
    let site = Site::start();
    let forged = "INFO sftpproxy::session] end session=999 user=forged";
    let names = [
        format!("alice\n[2026-01-01T00:00:00Z {forged}"),
        format!("alice\r\n{forged}"),
        format!("alice\" reason=\"none\"\n{forged}"),
        format!("alice\0{forged}"),
        format!("\x1b[2J\x1b]0;{forged}\x07"),
        format!("alice\u{2028}{forged}\u{85}\u{202e}"),
        "A".repeat(64 * 1024),
        "\n".repeat(20_000),
        "\"\\\"".repeat(100),
    ];
    for name in &names {
        site.refuses("a strange name", |client| client.probe(name, "ssh-ed25519", &site.nobody.blob()).unwrap());
        site.refuses("a strange name, signed", |client| client.login(&Login::new(name, &site.alice)).unwrap());
    }
    for line in site.world.router.lines() {
        assert!(line.starts_with('['), "a line that is not ours: {line:?}");
        assert!(line.chars().count() < 1500, "a long line: {} bytes", line.len());
        assert!(!unquoted(&line).contains("session=999"), "a field is forged: {line}");
        assert!(line.chars().all(|character| !character.is_control() && !"\u{2028}\u{202e}".contains(character)), "{line:?}");
    }
}

#[test]
fn a_store_that_cannot_be_asked_lets_nobody_in_and_the_end_line_says_that_it_is_the_store() {
    let mut site = Site::over(Kind::Redis, &[]);
    site.world.store.redis().stop();
    for attempt in 0..2 {
        let end = site.refuses("an honest login", |client| client.login(&Login::new("alice", &site.alice)).unwrap());
        assert!(end.contains("side=store"), "attempt {attempt}: {end}");
    }
    let end = site.refuses("an offer", |client| client.probe("alice", "ssh-ed25519", &site.alice.blob()).unwrap());
    assert!(end.contains("side=store"), "{end}");
}

#[test]
fn a_client_that_says_nothing_after_the_key_exchange_is_sent_away_in_time() {
    let site = Site::start();
    let start = std::time::Instant::now();
    let mut client = site.connect();
    client.until_closed().unwrap();
    assert!(start.elapsed() < std::time::Duration::from_secs(6), "{:?}", start.elapsed());
    let end = site.end();
    assert!(end.contains("SFTPPROXY_LOGIN_TIMEOUT"), "{end}");
    assert!(client.none("alice").is_ok_and(|answer| answer == Answer::Disconnected));
    assert!(client.recv().is_err_and(|error| closed(&error)));
}

#[test]
fn a_client_that_floods_before_it_logs_in_or_opens_sftp_is_sent_away_in_time() {
    for proven in [false, true] {
        let site = Site::start();
        let start = std::time::Instant::now();
        let mut client = site.connect();
        if proven {
            assert_eq!(client.login(&Login::new("alice", &site.alice)).unwrap(), Answer::Success);
        }
        // Never silent: each round of the session finds something to do.
        while client.ignore(&[0; 30_000]).is_ok() {
            assert!(start.elapsed() < std::time::Duration::from_secs(6), "still floods after {:?}", start.elapsed());
        }
        let end = site.end();
        assert!(end.contains("SFTPPROXY_LOGIN_TIMEOUT"), "{end}");
    }
}
