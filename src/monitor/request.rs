//! One HTTP request (RFC 9112) and its answer on a connection that is closed afterwards. Small on purpose: GET and HEAD without a body,
//! a head of bounded size, one deadline for all of it, whatever the other side does.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, TcpStream};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Largest head of a request in bytes; browsers send some 500.
pub const MAX_HEAD: usize = 8 * 1024;

/// Most fields of a head; browsers send some 15.
pub const MAX_FIELDS: usize = 64;

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Request {
    /// Whether only the head of the answer is wanted.
    pub head_only: bool,
    /// The path, without what follows `?`.
    pub path: String,
    /// The field `Host`.
    pub host: String,
    /// The token that was shown: `Authorization: Bearer TOKEN`, or as the password of `Basic`, which is what browsers ask a person for.
    pub token: Option<Vec<u8>>,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Code and words of the status.
    pub status: (u16, &'static str),
    /// Type of the body.
    pub kind: &'static str,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// 200 with a body.
    pub fn ok(kind: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self { status: (200, "OK"), kind, body: body.into() }
    }

    /// Words with a status.
    pub fn text(status: (u16, &'static str), text: &str) -> Self {
        Self { status, kind: "text/plain; charset=utf-8", body: format!("{text}\n").into_bytes() }
    }
}

/// Reads the request; the error is the answer to what is none. `None` = the other side has gone or takes too long.
pub fn read(stream: &mut TcpStream, deadline: Instant) -> Option<Result<Request, Answer>> {
    let mut head = Vec::with_capacity(MAX_HEAD);
    let mut piece = [0; 1024];
    loop {
        match parse(&head) {
            Ok(None) if head.len() >= MAX_HEAD => {
                return Some(Err(Answer::text((431, "Request Header Fields Too Large"), "the head of the request is too large")));
            }
            Ok(None) => {}
            Ok(Some(request)) => return Some(Ok(request)),
            Err(answer) => return Some(Err(answer)),
        }
        let room = piece.len().min(MAX_HEAD - head.len());
        stream.set_read_timeout(Some(left(deadline)?)).ok()?;
        match stream.read(&mut piece[..room]) {
            Ok(0) => return None,
            Ok(count) => head.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

fn left(deadline: Instant) -> Option<std::time::Duration> {
    Some(deadline.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
}

/// The request of a whole head; `None` = more must come.
pub fn parse(head: &[u8]) -> Result<Option<Request>, Answer> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut fields);
    let bad = |_| Answer::text((400, "Bad Request"), "not a request of HTTP/1.1");
    if parsed.parse(head).map_err(bad)?.is_partial() {
        return Ok(None);
    }
    let mut request = Request::default();
    match parsed.method {
        Some("GET") => {}
        Some("HEAD") => request.head_only = true,
        _ => return Err(Answer::text((405, "Method Not Allowed"), "only GET and HEAD are answered")),
    }
    request.path = parsed.path.unwrap_or_default().split('?').next().unwrap_or_default().to_owned();
    for field in parsed.headers.iter() {
        if field.name.eq_ignore_ascii_case("host") {
            request.host = String::from_utf8_lossy(field.value).into_owned();
        } else if field.name.eq_ignore_ascii_case("authorization") {
            request.token = token(field.value);
        }
    }
    Ok(Some(request))
}

/// The token in a field `Authorization` (RFC 6750 section 2.1, RFC 7617).
fn token(value: &[u8]) -> Option<Vec<u8>> {
    let at = value.iter().position(|byte| *byte == b' ')?;
    let (scheme, rest) = (&value[..at], value[at..].trim_ascii());
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Some(rest.to_vec());
    }
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let pair = STANDARD.decode(rest).ok()?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    Some(pair[colon + 1..].to_vec())
}

/// Whether `Host` names this machine by an address or as localhost. Another name may be one that a hostile page has made lead here, so
/// that a browser on this machine takes what it reads for the page's own.
pub fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

/// What a browser may do with an answer: nothing but show it with our own script and style, and ask here again.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// Writes the answer, as far as the other side takes it in time.
pub fn write(stream: &mut TcpStream, answer: &Answer, head_only: bool, deadline: Instant) -> io::Result<()> {
    let Answer { status: (code, words), kind, body } = answer;
    let ask = if *code == 401 { "WWW-Authenticate: Basic realm=\"sftpproxy\", charset=\"UTF-8\"\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 {code} {words}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\nCache-Control: no-store\r\n\
         X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\nContent-Security-Policy: {POLICY}\r\n\
         Cross-Origin-Resource-Policy: same-origin\r\n{ask}\r\n",
        body.len()
    );
    let mut bytes = head.into_bytes();
    if !head_only {
        bytes.extend_from_slice(body);
    }
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        stream.set_write_timeout(Some(left(deadline).ok_or(ErrorKind::TimedOut)?))?;
        match stream.write(rest) {
            Ok(count) => rest = &rest[count..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    stream.shutdown(std::net::Shutdown::Write)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(head: &str) -> Result<Option<Request>, u16> {
        parse(head.as_bytes()).map_err(|answer| answer.status.0)
    }

    #[test]
    fn a_request_is_read_as_it_comes_and_nothing_else_is_one() {
        let request = Request { path: "/metrics".into(), host: "127.0.0.1:9922".into(), ..Request::default() };
        let whole = "GET /metrics?x=1 HTTP/1.1\r\nhost: 127.0.0.1:9922\r\n\r\n";
        assert_eq!(parsed(whole), Ok(Some(request.clone())));
        (0..whole.len()).for_each(|end| assert_eq!(parsed(&whole[..end]), Ok(None), "{end}"));
        assert_eq!(parsed(&whole.replace("GET", "HEAD")), Ok(Some(Request { head_only: true, ..request })));
        assert_eq!(parsed(&whole.replace("GET", "POST")), Err(405));
        for bad in ["\0", "GET / HTTP/1.1\r\nno field\r\n\r\n", "SSH-2.0-OpenSSH_9.2\r\n", "GET / SSH-2.0\r\n\r\n"] {
            assert_eq!(parsed(bad), Err(400), "{bad}");
        }
        let many: String = (0..=MAX_FIELDS).map(|number| format!("f{number}: x\r\n")).collect();
        assert_eq!(parsed(&format!("GET / HTTP/1.1\r\n{many}\r\n")), Err(400));
    }

    #[test]
    fn a_token_is_shown_as_programs_and_as_browsers_do() {
        for (value, expected) in [
            ("Bearer secret-token", Some("secret-token")),
            ("bearer  secret-token ", Some("secret-token")),
            ("Basic YW55Ym9keTpzZWNyZXQtdG9rZW4=", Some("secret-token")),
            ("Basic OmE6Yg==", Some("a:b")),
            ("Basic !", None),
            ("Digest secret-token", None),
            ("secret-token", None),
        ] {
            assert_eq!(token(value.as_bytes()).as_deref(), expected.map(str::as_bytes), "{value}");
        }
    }

    #[test]
    fn a_name_that_others_can_make_lead_here_is_not_local() {
        for (host, local) in [
            ("localhost", true),
            ("LOCALHOST:9922", true),
            ("127.0.0.1:9922", true),
            ("[::1]:9922", true),
            ("rebound.example:9922", false),
            ("localhost.example", false),
            ("", false),
        ] {
            assert_eq!(is_local(host), local, "{host}");
        }
    }
}
