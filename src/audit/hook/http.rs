//! The hook that is an address: POST with the line as its body. 2xx is taken, anything that time may mend is tried again.

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use ureq::Agent;
use ureq::http::Uri;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::Failure;
use crate::audit::lane::Line;
use crate::error::shown;
use crate::secret::Secret;

/// How much of an answer's body is read: enough to use the connection again, and nobody looks at it.
const MAX_BODY: u64 = 16 * 1024;

/// Someone to post to.
pub struct Poster {
    agent: Agent,
    url: Secret,
}

impl Poster {
    /// Checks the address and, for https, reads the system's root certificates, or those of `SSL_CERT_FILE`.
    pub fn new(url: &Secret) -> Result<Self, String> {
        let parsed: Option<Uri> = url.expose_str().and_then(|text| text.parse().ok());
        let uri = parsed.filter(|uri| uri.host().is_some_and(|host| !host.is_empty()));
        let uri = uri.ok_or("SFTPPROXY_HOOK: not a URL (the value is not shown)")?;
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            // Where the events go is what the operator has said, not what an answer says.
            .max_redirects(0)
            .user_agent(concat!("sftpproxy/", env!("CARGO_PKG_VERSION")));
        if uri.scheme_str() == Some("https") {
            config = config.tls_config(tls()?);
        }
        Ok(Self { agent: config.build().new_agent(), url: url.clone() })
    }

    /// Posts a line within the limit, name look-up and answer included.
    pub fn post(&self, line: &Line, limit: Duration) -> Result<(), Failure> {
        let url = self.url.expose_str().unwrap_or_default();
        let request = self.agent.post(url).header("Content-Type", "application/json");
        let answer = request.config().timeout_global(Some(limit)).build().send(line.json.as_bytes());
        // What ureq says of an error may repeat the address, which may have a password in it: the kind of error is enough.
        let mut answer = answer.map_err(|error| Failure::Again(reason(&error, limit)))?;
        let status = answer.status().as_u16();
        let mut body = Vec::new();
        let _ = answer.body_mut().as_reader().take(MAX_BODY).read_to_end(&mut body);
        match status {
            200..=299 => Ok(()),
            // RFC 9110 section 15.5.9 and RFC 6585 section 4: both are of the moment.
            408 | 429 => Err(Failure::Again(format!("the answer was {status}"))),
            300..=499 => Err(Failure::Never(format!("the answer was {status}"))),
            _ => Err(Failure::Again(format!("the answer was {status}"))),
        }
    }
}

fn reason(error: &ureq::Error, limit: Duration) -> String {
    let untrusted =
        |error: &rustls::Error| format!("TLS: {}; for a private CA name its file in SSL_CERT_FILE", shown(&error.to_string()));
    match error {
        ureq::Error::Timeout(_) => format!("no answer within {} s (SFTPPROXY_HOOK_TIMEOUT)", limit.as_secs_f32()),
        ureq::Error::Rustls(error) => untrusted(error),
        ureq::Error::Io(error) => match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(inner) => untrusted(inner),
            None => format!("no connection: {}", shown(&error.to_string())),
        },
        ureq::Error::HostNotFound => "the host's name is not known".into(),
        ureq::Error::ConnectionFailed => "no connection".into(),
        _ => "the address or the answer is not HTTP as it should be".into(),
    }
}

fn tls() -> Result<TlsConfig, String> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        return Err("SFTPPROXY_HOOK: no root certificates for https; install ca-certificates or set SSL_CERT_FILE".into());
    }
    let certificates: Vec<_> = found.certs.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = RootCerts::new_with_certs(&certificates);
    Ok(TlsConfig::builder().unversioned_rustls_crypto_provider(provider).root_certs(roots).build())
}
