//! The hostile client against a real sshd: what it can do, and that its attacks reach where they are meant to.

use std::fs;
use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::transport::KEXINIT;
use super::{Answer, Client, Key, Login, Offer, REQUEST_FAILURE, Transport};

/// An sshd that serves connections one by one, as inetd would have it: no port to choose, nothing to wait for.
struct Sshd {
    folder: tempfile::TempDir,
    children: Vec<Child>,
}

impl Sshd {
    fn new(authorized: &[&Key]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &path("host")]).status();
        assert!(made.unwrap().success());
        fs::write(path("authorized"), authorized.iter().map(|key| key.line() + "\n").collect::<String>()).unwrap();
        let config = format!(
            "HostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nSubsystem sftp internal-sftp\nPidFile none\n",
            path("host"),
            path("authorized")
        );
        fs::write(path("config"), config).unwrap();
        // The Debian package leaves this to its service; nobody else minds it.
        if nix::unistd::geteuid().is_root() {
            fs::create_dir_all("/run/sshd").unwrap();
        }
        Self { folder, children: Vec::new() }
    }

    fn connection(&mut self) -> TcpStream {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let server = OwnedFd::from(listener.accept().unwrap().0);
        let child = Command::new("/usr/sbin/sshd")
            .args([Path::new("-i"), Path::new("-e"), Path::new("-f"), &self.folder.path().join("config")])
            .stdin(server.try_clone().unwrap())
            .stdout(server)
            .stderr(Stdio::null())
            .spawn();
        self.children.push(child.expect("Debian package openssh-server"));
        client
    }

    fn client(&mut self) -> Client {
        Client::over(self.connection()).unwrap()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The account that runs the tests.
fn me() -> String {
    nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name
}

fn assert_sftp_answers(client: &mut Client) {
    let channel = client.open_sftp().unwrap();
    client.data(&channel, &[0, 0, 0, 5, 1, 0, 0, 0, 3]).unwrap();
    let version = client.recv_sftp(&channel).unwrap();
    assert_eq!(version[..5], [2, 0, 0, 0, 3]);
    // A second exchange of keys in mid-session, with more to come after it.
    client.exchange(&Offer::default()).unwrap();
    client.ignore(&[7; 3000]).unwrap();
    client.data(&channel, &[0, 0, 0, 10, 16, 0, 0, 0, 9, 0, 0, 0, 1, b'/']).unwrap();
    assert_eq!(client.recv_sftp(&channel).unwrap()[..5], [104, 0, 0, 0, 9]);
    client.eof(&channel).unwrap();
    assert_eq!(client.recv_data(&channel).unwrap(), b"");
}

#[test]
fn the_raw_client_logs_in_at_a_real_sshd_and_speaks_sftp() {
    let (ed25519, rsa) = (Key::ed25519(), Key::rsa(2048));
    let mut sshd = Sshd::new(&[&ed25519, &rsa]);
    for key in [&ed25519, &rsa] {
        let mut client = sshd.client();
        assert_eq!(client.probe(&me(), key.algorithm(), &key.blob()).unwrap(), Answer::KeyIsGood);
        assert_eq!(client.login(&Login::new(&me(), key)).unwrap(), Answer::Success);
        assert_sftp_answers(&mut client);
    }
    let mut transport = Transport::over(sshd.connection()).unwrap();
    transport.greet("SSH-2.0-lax", &Offer { strict: false, injected: vec![vec![2, 0, 0, 0, 0]], ..Offer::default() }).unwrap();
    let mut client = Client::keyed(transport);
    client.service("ssh-userauth").unwrap();
    assert_eq!(client.login(&Login::new(&me(), &ed25519)).unwrap(), Answer::Success);
    assert_sftp_answers(&mut client);
}

#[test]
fn a_real_sshd_refuses_each_forged_login_of_the_raw_client_and_then_takes_the_honest_one() {
    let (key, other, rsa) = (Key::ed25519(), Key::ed25519(), Key::rsa(2048));
    let mut sshd = Sshd::new(&[&key, &rsa]);
    let me = me();
    let honest = || Login::new(&me, &key);
    let foreign = sshd.client().session_id.clone();
    let forged: [(&str, Login<'_>); 7] = [
        ("another key's signature", Login { signer: &other, ..honest() }),
        ("a key that is nobody's", Login::new(&me, &other)),
        ("another user's name signed", Login { signed_user: Some("mallory"), ..honest() }),
        ("another session signed", Login { signed_session: Some(foreign), ..honest() }),
        ("another key signed", Login { signed_blob: Some(other.blob()), ..honest() }),
        ("a spoilt signature", Login { spoil: |signature| *signature.last_mut().unwrap() ^= 1, ..honest() }),
        ("SHA-1", Login { algorithm: "ssh-rsa", ..Login::new(&me, &rsa) }),
    ];
    for (what, login) in forged {
        let mut client = sshd.client();
        assert_eq!(client.login(&login).unwrap(), Answer::Failure("publickey".into()), "{what}");
        assert_eq!(client.login(&honest()).unwrap(), Answer::Success, "after {what}");
    }
    let mut client = sshd.client();
    assert_eq!(client.none(&me).unwrap(), Answer::Failure("publickey".into()));
    assert_eq!(client.password(&me, "secret").unwrap(), Answer::Failure("publickey".into()));
    assert_eq!(client.probe(&me, "ssh-dss", b"garbage").unwrap(), Answer::Failure("publickey".into()));
    assert_eq!(client.probe(&me, "ssh-ed25519", &other.blob()).unwrap(), Answer::Failure("publickey".into()));
}

#[test]
fn a_real_sshd_answers_the_raw_clients_other_mischief_as_the_standards_say() {
    let key = Key::ed25519();
    let mut sshd = Sshd::new(&[&key]);
    let mut client = sshd.client();
    assert_eq!(client.login(&Login::new(&me(), &key)).unwrap(), Answer::Success);
    assert_eq!(client.open("unheard-of", 1, 1, &[]).unwrap(), Err(2), "OpenSSH's answer, where RFC 4254 has 3");
    let channel = client.open("session", 0, 32_768, &[]).unwrap().unwrap();
    assert!(!client.request(&channel, "unheard-of", b"").unwrap());
    client.global_request("unheard-of", true, b"").unwrap();
    client.expect(REQUEST_FAILURE).unwrap();
    let mut spoilt = client.seal(&[2, 0, 0, 0, 0]);
    *spoilt.last_mut().unwrap() ^= 1;
    client.send_raw(&spoilt).unwrap();
    client.until_closed().unwrap();

    for (what, offer) in [
        ("no common cipher", Offer { ciphers: "none".into(), ..Offer::default() }),
        ("a packet amid strict key exchange", Offer { injected: vec![vec![2, 0, 0, 0, 0]], ..Offer::default() }),
        ("a point of zeros", Offer { point: Some(vec![0; 32]), ..Offer::default() }),
    ] {
        let mut transport = Transport::over(sshd.connection()).unwrap();
        let error = transport.greet("SSH-2.0-raw", &offer).unwrap_err();
        assert!(error.kind() != ErrorKind::WouldBlock, "{what}: {error}");
        assert!(transport.session_id.is_empty(), "{what}");
    }

    let mut transport = Transport::over(sshd.connection()).unwrap();
    transport.send_banner("GET / HTTP/1.1").unwrap();
    let mut said = String::new();
    transport.socket().read_to_string(&mut said).unwrap();
    assert!(said.starts_with("SSH-2.0-") && said.contains("Invalid"), "{said}");
    let mut transport = Transport::over(sshd.connection()).unwrap();
    transport.send_banner("SSH-2.0-raw").unwrap();
    transport.recv_banner().unwrap();
    assert_eq!(transport.recv_packet().unwrap()[0], KEXINIT);
    transport.send_raw(&[0xff; 64]).unwrap();
    transport.until_closed().unwrap();
}
