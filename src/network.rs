//! Networks of addresses: lists that an operator writes, and the block of addresses that counts as one source.
//!
//! Pure. An IPv4 address within IPv6 (`::ffff:192.0.2.1`) is the IPv4 address everywhere.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::error::shown;

/// Most networks of a list: an operator writes them, and each connection is compared with all.
const MAX_NETWORKS: usize = 1000;

/// A list of networks; the empty one contains nobody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// Reads networks and addresses, separated by commas or white space. The error names the word that is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let words = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty());
        let networks: Vec<_> = words.map(parse_network).collect::<Result<_, _>>()?;
        if networks.len() > MAX_NETWORKS {
            return Err(format!("more than {MAX_NETWORKS} networks"));
        }
        Ok(Self(networks))
    }

    /// Whether an address is in one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<_> = self.0.iter().map(IpNet::to_string).collect();
        f.write_str(&texts.join(","))
    }
}

/// Reads one network, `203.0.113.0/24`, or an address, which is a network of its own.
pub fn parse_network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address.to_canonical()));
    }
    let network = text.parse::<IpNet>().map_err(|_| format!("\"{}\" is neither an address nor a network", shown(text)))?;
    if network != network.trunc() {
        // Most likely a mistake in the length, and far more or fewer addresses than were meant.
        return Err(format!("\"{}\" has bits behind its prefix; did you mean {}?", shown(text), network.trunc()));
    }
    Ok(network)
}

/// How many bits of an address say whose it is: who has one address often has the whole block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocks {
    /// Of IPv4, 1 to 32.
    pub v4: u8,
    /// Of IPv6, 1 to 128.
    pub v6: u8,
}

impl Blocks {
    /// Reads `32:64`.
    pub fn parse(text: &str) -> Option<Self> {
        let (v4, v6) = text.split_once(':')?;
        let within = |text: &str, most| text.parse().ok().filter(|bits| (1..=most).contains(bits));
        Some(Self { v4: within(v4, 32)?, v6: within(v6, 128)? })
    }

    /// The block that an address belongs to.
    pub fn source(self, address: IpAddr) -> IpNet {
        let address = address.to_canonical();
        let bits = if address.is_ipv4() { self.v4 } else { self.v6 };
        IpNet::new(address, bits).unwrap_or_else(|_| IpNet::from(address)).trunc()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_networks_are_read_whole_or_refused_with_the_word_that_is_wrong() {
        let list = Networks::parse("192.0.2.0/24, 2001:db8::/32\n198.51.100.7").unwrap();
        for (address, is_in) in [
            ("192.0.2.255", true),
            ("::ffff:192.0.2.1", true),
            ("192.0.3.0", false),
            ("2001:db8:ffff::1", true),
            ("2001:db9::", false),
            ("198.51.100.7", true),
            ("198.51.100.8", false),
        ] {
            assert_eq!(list.contains(address.parse().unwrap()), is_in, "{address}");
        }
        assert_eq!(list.to_string(), "192.0.2.0/24,2001:db8::/32,198.51.100.7/32");
        assert!(Networks::parse("").unwrap().is_empty());
        assert!(Networks::parse("192.0.2.0/24 here").unwrap_err().contains("\"here\""));
        assert!(Networks::parse("192.0.2.7/24").unwrap_err().contains("did you mean 192.0.2.0/24"));
        assert!(Networks::parse("192.0.2.0/33").is_err());
        assert!(Networks::parse(&"10.0.0.1,".repeat(MAX_NETWORKS + 1)).is_err());
    }

    #[test]
    fn an_address_belongs_to_its_block() {
        let blocks = Blocks::parse("32:64").unwrap();
        for (address, source) in
            [("192.0.2.1", "192.0.2.1/32"), ("::ffff:192.0.2.1", "192.0.2.1/32"), ("2001:db8:1:2:3::4", "2001:db8:1:2::/64")]
        {
            assert_eq!(blocks.source(address.parse().unwrap()).to_string(), source);
        }
        assert_eq!(Blocks::parse("24:48").unwrap().source("192.0.2.1".parse().unwrap()).to_string(), "192.0.2.0/24");
        for bad in ["32", "0:64", "33:64", "32:129", "a:b", ""] {
            assert_eq!(Blocks::parse(bad), None, "{bad}");
        }
    }
}
