//! Against a server at a Unix socket that says what a test wants.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;

use super::*;
use crate::admission::{MAX_BANS, MAX_WHY};

/// More than a busy machine needs, and less than for ever.
const LONG: Duration = Duration::from_secs(30);

/// A connection to a server that does this with its end of it, once it has been asked something.
fn to(serve: impl FnOnce(&mut UnixStream) + Send + 'static) -> Connection {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let mut connection = Connection::open(&ConnectionAddr::Unix(path), Instant::now() + LONG).unwrap();
    connection.set_limit(LONG);
    let (mut stream, _) = listener.accept().unwrap();
    thread::spawn(move || {
        let mut asked = [0; 1024];
        if stream.read(&mut asked).is_ok_and(|count| count > 0) {
            serve(&mut stream);
        }
        // Nothing more, but not the end either.
        let _ = io::copy(&mut stream, &mut io::sink());
    });
    connection
}

fn says(what: &'static [u8]) -> Connection {
    to(|stream| stream.write_all(what).unwrap())
}

/// First the one, then the other for ever.
fn endless(first: &'static [u8], then: &'static [u8]) -> impl FnOnce(&mut UnixStream) + Send {
    |stream| {
        let then = then.repeat(16 * 1024);
        let mut said = stream.write_all(first);
        while said.is_ok() {
            said = stream.write_all(&then);
        }
    }
}

/// First the one, then a byte now and then for ever.
fn drip(first: &'static [u8]) -> impl FnOnce(&mut UnixStream) + Send {
    |stream| {
        let mut said = stream.write_all(first);
        while said.is_ok() {
            thread::sleep(Duration::from_millis(20));
            said = stream.write_all(b"a");
        }
    }
}

#[test]
fn an_answer_without_end_is_read_as_far_as_any_may_go_and_the_connection_is_closed() {
    for (first, then) in [
        (&b"$2147483647\r\n"[..], &b"a"[..]),
        (b"*2147483647\r\n", b":1\r\n"),
        (b"*2147483647\r\n", b"$-1\r\n"),
        (b"*2147483647\r\n", b"*1\r\n+a\r\n"),
        (b"", b"%0\r\n"),
    ] {
        let mut connection = to(endless(first, then));
        // A pipeline has no more than one command.
        let error = connection.req_packed_commands(b"x", 0, usize::MAX).unwrap_err();
        assert!(is_too_much(&error) && !error.is_timeout() && !error.is_connection_dropped(), "{first:?}: {error}");
        assert!(!connection.is_open(), "{first:?}");
        assert!(cmd("GET").exec(&mut connection).unwrap_err().is_connection_dropped(), "{first:?}: asked again");
    }
}

#[test]
fn a_line_without_end_ends_at_one_limit_or_the_other() {
    // Each piece of it has the crate look through all of it again.
    let mut connection = to(endless(b"+", b"a"));
    connection.set_limit(Duration::from_millis(300));
    let error = connection.req_packed_command(b"x").unwrap_err();
    assert!((is_too_much(&error) || error.is_timeout()) && !connection.is_open(), "{error}");
}

#[test]
fn what_is_made_of_an_answer_is_no_larger_than_its_weights_take_it_for() {
    assert!(4 * size_of::<Value>() <= LIST + LINE, "{}", size_of::<Value>());
}

#[test]
fn an_answer_that_comes_a_byte_at_a_time_is_late_at_the_limit_wherever_it_is() {
    for first in [&b""[..], b"$2147483647\r\n", b"*2147483647\r\n:1\r\n:"] {
        let mut connection = to(drip(first));
        connection.set_limit(Duration::from_millis(300));
        let started = Instant::now();
        let error = connection.req_packed_command(b"x").unwrap_err();
        assert!(started.elapsed() < LONG, "{first:?}: {:?}", started.elapsed());
        assert!((error.is_timeout() || error.kind() == ErrorKind::Parse) && !connection.is_open(), "{first:?}: {error}");
    }
}

#[test]
fn a_handshake_of_tls_that_never_ends_is_left_at_the_limit() {
    // A record is announced, and the most of it does not come.
    for serve in [drip(b"\x16\x03\x03\x3f\xff\x02\x00\x3f\xfb\x03\x03"), drip(b"")] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || serve(&mut UnixStream::from(OwnedFd::from(listener.accept().unwrap().0))));
        let to = ConnectionAddr::TcpTls { host: "127.0.0.1".into(), port, insecure: false, tls_params: None };
        let started = Instant::now();
        assert!(Connection::open(&to, Instant::now() + Duration::from_millis(500)).is_err());
        assert!(started.elapsed() < LONG, "{:?}", started.elapsed());
    }
}

#[test]
fn who_reads_nothing_holds_a_command_no_longer_than_the_limit() {
    let mut connection = to(|_| thread::sleep(LONG));
    connection.set_limit(Duration::from_millis(300));
    let error = connection.req_packed_command(&vec![b'x'; 64 * 1024 * 1024]).unwrap_err();
    assert!(error.is_timeout() && !connection.is_open(), "{error}");
}

#[test]
fn as_many_bans_as_there_may_be_are_an_answer() {
    let mut connection = to(|stream| {
        let network = "2001:db8:1234:5678::/64";
        let member = format!("{network} {}", "w".repeat(MAX_WHY / 3));
        let row = format!("${}\r\n{member}\r\n$13\r\n1764265255123\r\n", member.len());
        write!(stream, "*{}\r\n", 2 * MAX_BANS).and_then(|()| stream.write_all(row.repeat(MAX_BANS).as_bytes())).unwrap();
    });
    let Value::Array(rows) = connection.req_packed_command(b"x").unwrap() else { panic!("no array") };
    assert_eq!(rows.len(), 2 * MAX_BANS);
}

#[test]
fn a_transaction_that_is_refused_says_why_and_the_connection_goes_on() {
    let mut connection = says(b"+OK\r\n+QUEUED\r\n-NOPERM no right to set\r\n-EXECABORT Transaction discarded\r\n+OK\r\n");
    let mut pipeline = redis::pipe();
    pipeline.atomic().cmd("GET").arg("a").cmd("SET").arg("a").arg("b");
    let error = pipeline.exec(&mut connection).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Server(ServerErrorKind::ExecAbort));
    assert_eq!(error.detail(), Some("NOPERM no right to set"));
    assert!(connection.is_open());
    assert_eq!(cmd("x").query(&mut connection), Ok("OK".to_owned()));
}

#[test]
fn a_refusal_leaves_the_connection_open_and_what_is_no_answer_does_not() {
    for (said, open) in [
        (&b"-ERR no\r\n"[..], true),
        (b"*1\r\n-ERR no\r\n", true),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", false),
        (b">2\r\n+message\r\n+a\r\n", false),
    ] {
        let mut connection = says(said);
        assert!(cmd("GET").query::<String>(&mut connection).is_err(), "{said:?}");
        assert_eq!(connection.is_open(), open, "{said:?}");
    }
    let mut connection = to(|stream| stream.shutdown(std::net::Shutdown::Both).unwrap());
    assert!(cmd("GET").exec(&mut connection).unwrap_err().is_connection_dropped() && !connection.is_open());
}

#[test]
fn who_listens_hears_messages_in_their_order_and_silence_is_no_fault() {
    let (said, rest) = ("*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n", "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\n");
    let text = format!("{said}{rest}1\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\nb\r\n:2\r\n{rest}2\r\n{rest}");
    let mut listening = Listening::new(says(Box::leak(text.into_boxed_str()).as_bytes()));
    assert_eq!(listening.subscribe("SUBSCRIBE", &["a".into(), "b".into()]), Ok(true));
    let mut heard =
        || listening.message(Duration::from_millis(50)).map(|message| message.map(|message| message.get_payload::<String>()));
    for wanted in [Some(Ok("1".to_owned())), Some(Ok("2".to_owned())), None, None] {
        assert_eq!(heard(), Ok(wanted));
    }
    // The third one has begun: nobody knows what belongs to it.
    listening.connection.set_limit(Duration::from_millis(50));
    assert!(listening.ping().unwrap_err().is_timeout() && !listening.connection.is_open());
    let mut listening = Listening::new(says(b"-NOPERM no right\r\n"));
    assert_eq!(listening.subscribe("SUBSCRIBE", &["a".into(), "b".into()]), Ok(false));
}

#[test]
fn a_message_that_has_begun_is_bounded_like_an_answer() {
    const HEAD: &[u8] = b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2147483647\r\n";
    let listening = |serve| {
        let mut listening = Listening::new(serve);
        listening.connection.set_limit(Duration::from_secs(2));
        listening.connection.say(b"x").unwrap();
        listening
    };
    let error = listening(to(endless(HEAD, b"a"))).message(LONG).unwrap_err();
    assert!(is_too_much(&error) || error.is_timeout(), "{error}");
    let started = Instant::now();
    let error = listening(to(drip(HEAD))).message(3 * LONG).unwrap_err();
    assert!(error.is_timeout() && started.elapsed() < 2 * LONG, "{error}");
    // So are all those together that come instead of an answer.
    let error = listening(to(endless(b"", b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\na\r\n"))).ping().unwrap_err();
    assert!(is_too_much(&error) || error.is_timeout(), "{error}");
}
