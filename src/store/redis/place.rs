//! Where Redis is and how to log in there, as the settings say it. Pure: nothing is connected.
//!
//! One server has a host and a port or one of the crate's URLs. Several have URLs of ours, in the spelling that most programs share:
//! `redis+sentinel://[USER:PASSWORD@]HOST[:PORT],…/SERVICE[/DATABASE]` and `redis+cluster://[USER:PASSWORD@]HOST:PORT,…`, `rediss+…` with TLS.
//! The crate knows neither. No fault here shows a URL: there may be a password in it.

use std::fmt;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _};

use crate::config;
use crate::secret::Secret;
use crate::store::StoreError;

/// Where sentinels listen unless it is said.
const SENTINEL_PORT: u16 = 26379;

/// Where servers do.
const SERVER_PORT: u16 = 6379;

/// Sentinels or nodes that a URL may name: more than any site has.
const MOST: usize = 64;

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// What is sent with AUTH.
#[derive(Debug, Clone, Default)]
pub struct Login {
    /// Of an ACL user.
    pub user: Option<String>,
    /// `None` = nothing is sent.
    pub password: Option<Secret>,
}

/// One server or several.
#[derive(Debug, Clone)]
pub enum Servers {
    /// One.
    One(ConnectionInfo),
    /// Sentinels say which one.
    Sentinel {
        /// What they call the master and its replicas.
        service: String,
        /// Where they are.
        at: Vec<Address>,
        /// Theirs, which is not the servers'.
        login: Login,
    },
    /// A cluster, by some of its nodes.
    Cluster(Vec<Address>),
}

/// All of it.
#[derive(Debug, Clone)]
pub struct Place {
    /// Where.
    pub servers: Servers,
    /// Of the servers.
    pub login: Login,
    /// Whether [`Address`]es are spoken to with TLS.
    pub tls: bool,
    /// Database number.
    pub db: i64,
    /// Whether replicas may answer what logins ask.
    pub replicas: bool,
    /// The settings to look at when nobody answers.
    pub setting: &'static str,
}

impl Place {
    /// From the settings.
    pub fn read(config: &config::Redis) -> Result<Self, StoreError> {
        let mut place = match &config.url {
            Some(url) => from_url(url, config.db)?,
            None => {
                let host = config.host.trim_matches(['[', ']']).to_owned();
                let info = (host, config.port).into_connection_info().map_err(|error| StoreError::new(error.to_string()))?;
                one(info, config.db, "SFTPPROXY_REDIS_HOST and SFTPPROXY_REDIS_PORT")
            }
        };
        if place.login.password.is_none() {
            place.login.password.clone_from(&config.password);
        }
        Ok(place)
    }

    /// Kind, address and database, without secrets.
    pub fn describe(&self) -> String {
        match &self.servers {
            Servers::One(info) => format!("redis {} database {}", address(info), self.db),
            Servers::Sentinel { service, at, .. } => format!("redis {service} of sentinels {} database {}", list(at), self.db),
            Servers::Cluster(at) => format!("redis cluster {}", list(at)),
        }
    }
}

fn address(info: &ConnectionInfo) -> String {
    match info.addr() {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            Address { host: host.clone(), port: *port }.to_string()
        }
        address => address.to_string(),
    }
}

fn list(at: &[Address]) -> String {
    at.iter().map(Address::to_string).collect::<Vec<_>>().join(",")
}

fn one(info: ConnectionInfo, db: i64, setting: &'static str) -> Place {
    let login = info.redis_settings();
    let login = Login {
        user: login.username().map(str::to_owned),
        password: login.password().map(|text| Secret::new(text.as_bytes().to_vec())),
    };
    Place { servers: Servers::One(info), login, tls: false, db, replicas: false, setting }
}

fn fault(reason: &str) -> StoreError {
    StoreError::new(format!("SFTPPROXY_REDIS_URL: {reason} (the value is not shown)"))
}

fn from_url(url: &Secret, db: i64) -> Result<Place, StoreError> {
    let text = url.expose_str().ok_or_else(|| fault("not a URL of Redis"))?;
    match text.split_once("://") {
        Some(("redis+sentinel", rest)) => of_several(rest, false, |several| sentinel(several, db)),
        Some(("rediss+sentinel", rest)) => of_several(rest, true, |several| sentinel(several, db)),
        Some(("redis+cluster", rest)) => of_several(rest, false, cluster),
        Some(("rediss+cluster", rest)) => of_several(rest, true, cluster),
        _ => of_one(text, db),
    }
}

/// A URL without a database means `db` (the contract's 1), not Redis' own 0: who moves from host and port to a URL keeps the data.
fn of_one(url: &str, db: i64) -> Result<Place, StoreError> {
    let url = redis::parse_redis_url(url).ok_or_else(|| fault("not a URL of Redis"))?;
    let local = url.scheme().ends_with("unix");
    let named = if local { url.query_pairs().any(|(name, _)| name == "db") } else { !url.path().trim_matches('/').is_empty() };
    // The crate would drop these in silence.
    if local && (!url.username().is_empty() || url.password().is_some()) {
        return Err(fault("give user and password of a socket as ?user=…&pass=…"));
    }
    if url.query_pairs().any(|(name, _)| name == "read") {
        return Err(fault("?read= is for redis+sentinel:// and redis+cluster://, one server has no replicas that are known"));
    }
    let info = url.into_connection_info().map_err(|error| fault(&error.to_string()))?;
    if matches!(info.addr(), ConnectionAddr::TcpTls { insecure: true, .. }) {
        return Err(fault("#insecure is not supported; for a private CA name its file in SSL_CERT_FILE"));
    }
    let db = if named { info.redis_settings().db() } else { db };
    Ok(one(info, db, "SFTPPROXY_REDIS_URL"))
}

/// The parts of a URL of several.
struct Several {
    hosts: String,
    /// What stands between the `/` behind the hosts.
    path: Vec<String>,
    login: Login,
    /// Of the sentinels.
    other: Login,
    replicas: bool,
}

fn of_several(
    rest: &str,
    tls: bool,
    servers: impl FnOnce(Several) -> Result<(Servers, Login, i64, bool), StoreError>,
) -> Result<Place, StoreError> {
    let (servers, login, db, replicas) = servers(several(rest)?)?;
    Ok(Place { servers, login, tls, db, replicas, setting: "SFTPPROXY_REDIS_URL" })
}

/// A list of hosts is no host for the crate that reads URLs, so it reads the rest.
fn several(rest: &str) -> Result<Several, StoreError> {
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let (login, hosts) = authority.rsplit_once('@').map_or(("", authority), |(login, hosts)| (login, hosts));
    let at = if login.is_empty() { "" } else { "@" };
    let url = redis::parse_redis_url(&format!("redis://{login}{at}h{tail}")).ok_or_else(|| fault("not a URL of Redis"))?;
    if url.fragment().is_some() {
        return Err(fault("nothing may follow a #; for a private CA name its file in SSL_CERT_FILE"));
    }
    let path: Vec<_> = url.path().split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
    let (mut other, mut replicas) = (Login::default(), false);
    for (name, value) in url.query_pairs() {
        match (&*name, &*value) {
            ("sentinel_username", user) => other.user = Some(user.to_owned()),
            ("sentinel_password", password) => other.password = Some(Secret::new(password.as_bytes().to_vec())),
            ("read", "master") => replicas = false,
            ("read", "replica") => replicas = true,
            _ => return Err(fault("after the ? only read=master, read=replica, sentinel_username=… and sentinel_password=…")),
        }
    }
    // The crate takes a path of its own for the database, and decodes user and password.
    let mut bare = url;
    bare.set_path("");
    bare.set_query(None);
    let info = bare.into_connection_info().map_err(|error| fault(&error.to_string()))?;
    Ok(Several { hosts: hosts.to_owned(), path, login: one(info, 0, "").login, other, replicas })
}

fn sentinel(several: Several, db: i64) -> Result<(Servers, Login, i64, bool), StoreError> {
    let at = addresses(&several.hosts, Some(SENTINEL_PORT))?;
    let (service, db) = match &several.path[..] {
        [service] => (service, db),
        [service, db] => (service, db.parse().map_err(|_| fault("what follows the service is the number of a database"))?),
        _ => {
            return Err(fault(
                "wanted is redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DATABASE, the service as the sentinels call it",
            ));
        }
    };
    // What `sentinel monitor` takes for a name.
    if !service.chars().all(|character| character.is_ascii_alphanumeric() || ".-_".contains(character)) {
        return Err(fault("the service's name has letters, digits, dots, dashes and underscores only"));
    }
    let servers = Servers::Sentinel { service: service.clone(), at, login: several.other };
    Ok((servers, several.login, db, several.replicas))
}

fn cluster(several: Several) -> Result<(Servers, Login, i64, bool), StoreError> {
    if several.other.user.is_some() || several.other.password.is_some() {
        return Err(fault("a cluster has no sentinels"));
    }
    if several.path.iter().any(|part| part != "0") {
        return Err(fault("a cluster has database 0 only: move the entries there and leave the number away"));
    }
    Ok((Servers::Cluster(addresses(&several.hosts, Some(SERVER_PORT))?), several.login, 0, several.replicas))
}

fn addresses(hosts: &str, port: Option<u16>) -> Result<Vec<Address>, StoreError> {
    let wanted = || fault("the hosts are HOST:PORT, with a comma between two, an IPv6 address in brackets");
    let at: Vec<_> = hosts.split(',').map(|host| parse(host, port)).collect::<Option<_>>().ok_or_else(wanted)?;
    if at.len() > MOST { Err(fault("more hosts than there can be")) } else { Ok(at) }
}

/// `HOST:PORT`, or only a host when there is a usual port.
pub fn parse(text: &str, usual: Option<u16>) -> Option<Address> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, if port.is_empty() { port } else { port.strip_prefix(':')? })
        }
        None => text.split_once(':').unwrap_or((text, "")),
    };
    let port = if port.is_empty() { usual? } else { port.parse().ok().filter(|port| *port != 0)? };
    crate::route::check_host(host).ok()?;
    Some(Address { host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<Place, StoreError> {
        from_url(&Secret::new(url.as_bytes().to_vec()), 1)
    }

    fn password(login: &Login) -> Option<&str> {
        login.password.as_ref().and_then(Secret::expose_str)
    }

    #[test]
    fn urls_of_several_servers_are_read_with_everything_in_them() {
        let place =
            read("rediss+sentinel://router:a%40b@s1,s2:5000,[::1]:7/my-master_1/3?sentinel_username=x&sentinel_password=c%2Fd&read=replica")
                .unwrap();
        assert_eq!(place.describe(), "redis my-master_1 of sentinels s1:26379,s2:5000,[::1]:7 database 3");
        assert_eq!((place.tls, place.db, place.replicas), (true, 3, true));
        assert_eq!((place.login.user.as_deref(), password(&place.login)), (Some("router"), Some("a@b")));
        let Servers::Sentinel { login, .. } = &place.servers else { panic!("no sentinels") };
        assert_eq!((login.user.as_deref(), password(login)), (Some("x"), Some("c/d")));
        let place = read("redis+sentinel://:pw@s1/m").unwrap();
        assert_eq!((place.db, place.replicas, place.login.user.as_deref()), (1, false, None));
        assert_eq!(password(&place.login), Some("pw"));
        for url in ["redis+cluster://:pw@10.0.0.1:7000,10.0.0.2", "redis+cluster://:pw@10.0.0.1:7000,10.0.0.2/0"] {
            let place = read(url).unwrap();
            assert_eq!((place.describe().as_str(), place.db), ("redis cluster 10.0.0.1:7000,10.0.0.2:6379", 0));
            assert_eq!(password(&place.login), Some("pw"));
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_the_reason_and_without_the_value() {
        for (url, part) in [
            ("redis+sentinel://s3cret@s1:26379", "/SERVICE/DATABASE"),
            ("redis+sentinel://:s3cret@s1/m/1/2", "/SERVICE/DATABASE"),
            ("redis+sentinel://:s3cret@s1/m/x", "number of a database"),
            ("redis+sentinel://:s3cret@s1/my%20master", "letters, digits"),
            ("redis+sentinel://:s3cret@s1:0/m", "HOST:PORT"),
            ("redis+sentinel://:s3cret@s1,,s2/m", "HOST:PORT"),
            ("redis+sentinel://:s3cret@::1/m", "HOST:PORT"),
            ("redis+sentinel://:s3cret@[::1]7/m", "HOST:PORT"),
            ("redis+sentinel://:s3cret@/m", "HOST:PORT"),
            ("redis+sentinel://:s3cret@s1/m?read=both", "read=replica"),
            ("redis+sentinel://s1/m?password=s3cret", "sentinel_password"),
            ("rediss+sentinel://:s3cret@s1/m#insecure", "SSL_CERT_FILE"),
            ("redis+cluster://:s3cret@h:1/1", "database 0 only"),
            ("redis+cluster://h:1?sentinel_password=s3cret", "no sentinels"),
            ("redis://:s3cret@h?read=replica", "redis+sentinel://"),
        ] {
            let error = read(url).unwrap_err().what;
            assert!(error.contains(part) && error.contains("SFTPPROXY_REDIS_URL") && !error.contains("s3cret"), "{url}: {error}");
        }
    }
}
