//! Which node of a cluster has which entry: the slot of an entry, and the map of slots as a node tells it. Pure.
//!
//! Redis Cluster specification, "Key distribution model" and "MOVED redirection".

use std::collections::BTreeSet;

use redis::{RedisError, Value};

use super::place::{Address, parse};

/// Slots of every cluster.
pub const SLOTS: u16 = 16_384;

/// Ranges that are read at most: a cluster has no more than slots.
const MOST: usize = SLOTS as usize;

/// The slot of an entry: CRC-16/XMODEM of its name, or of what stands between the first `{` and the next `}`, if anything does.
pub fn slot(entry: &[u8]) -> u16 {
    let tag = entry.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &entry[open + 1..];
        rest.iter().position(|byte| *byte == b'}').filter(|close| *close > 0).map(|close| &rest[..close])
    });
    let step = |crc: u16, byte: &u8| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 })
    };
    tag.unwrap_or(entry).iter().fold(0, step) % SLOTS
}

/// Who has which slots: for each range its master, then the replicas.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Map(Vec<(u16, u16, Vec<Address>)>);

impl Map {
    /// Reads the answer to `CLUSTER SLOTS` of the node at `asked`, whose host stands for itself where none is given.
    pub fn read(told: &Value, asked: &str) -> Self {
        let Value::Array(ranges) = told else { return Self::default() };
        Self(ranges.iter().take(MOST).filter_map(|range| read_range(range, asked)).collect())
    }

    /// Whether nobody has anything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Who has this slot: the master, then its replicas.
    pub fn nodes(&self, slot: u16) -> Option<&[Address]> {
        self.0.iter().find(|(from, to, _)| (*from..=*to).contains(&slot)).map(|(_, _, nodes)| &nodes[..])
    }

    /// The first slot that nobody has.
    pub fn hole(&self) -> Option<u16> {
        let mut ranges: Vec<_> = self.0.iter().map(|(from, to, _)| (*from, *to)).collect();
        ranges.sort_unstable();
        let reach = |next: u16, (from, to): (u16, u16)| if from <= next { next.max(to.saturating_add(1)) } else { next };
        Some(ranges.into_iter().fold(0, reach)).filter(|next| *next < SLOTS)
    }

    /// Every master.
    pub fn masters(&self) -> BTreeSet<&Address> {
        self.0.iter().filter_map(|(_, _, nodes)| nodes.first()).collect()
    }

    /// Every node.
    pub fn all(&self) -> BTreeSet<&Address> {
        self.0.iter().flat_map(|(_, _, nodes)| nodes).collect()
    }
}

fn read_range(range: &Value, asked: &str) -> Option<(u16, u16, Vec<Address>)> {
    let Value::Array(parts) = range else { return None };
    let [Value::Int(from), Value::Int(to), nodes @ ..] = &parts[..] else { return None };
    let nodes: Vec<_> = nodes.iter().filter_map(|node| read_node(node, asked)).collect();
    (!nodes.is_empty()).then_some((u16::try_from(*from).ok()?, u16::try_from(*to).ok()?, nodes))
}

/// `?` is a node that does not know its own address. What is no host is no node.
fn read_node(node: &Value, asked: &str) -> Option<Address> {
    let Value::Array(parts) = node else { return None };
    let [host, Value::Int(port), ..] = &parts[..] else { return None };
    let host = match host {
        Value::BulkString(host) => std::str::from_utf8(host).ok()?,
        Value::SimpleString(host) => host,
        Value::Nil => "",
        _ => return None,
    };
    let host = if host.is_empty() { asked } else { host };
    crate::route::check_host(host).ok()?;
    Some(Address { host: host.to_owned(), port: u16::try_from(*port).ok()? })
}

/// Where an answer MOVED or ASK of the node at `asked` sends to.
pub fn sent_to(error: &RedisError, asked: &Address) -> Option<Address> {
    let (to, _) = error.redirect_node()?;
    match to.rsplit_once(':')? {
        ("", port) => Some(Address { host: asked.host.clone(), port: port.parse().ok()? }),
        // An IPv6 address stands there without brackets.
        (host, port) if host.contains(':') && !host.starts_with('[') => parse(&format!("[{host}]:{port}"), None),
        _ => parse(to, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str, port: u16) -> Address {
        Address { host: host.into(), port }
    }

    #[test]
    fn slots_are_those_of_the_specification() {
        // What redis-cli CLUSTER KEYSLOT says.
        for (entry, wanted) in [("123456789", 12_739), ("", 0), ("foo", 12_182), ("{foo}bar", 12_182), ("a{foo}b{c}", 12_182)] {
            assert_eq!(slot(entry.as_bytes()), wanted, "{entry}");
        }
        assert_ne!(slot(b"{}foo"), slot(b"{}bar"));
        assert_eq!(slot(b"foo{"), slot(b"foo{"));
    }

    #[test]
    fn a_map_is_read_as_nodes_of_all_kinds_tell_it() {
        let node = |host: Value, port| Value::Array(vec![host, Value::Int(port), Value::BulkString(b"id".to_vec())]);
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let range = |from, to, nodes: Vec<Value>| Value::Array([vec![Value::Int(from), Value::Int(to)], nodes].concat());
        let told = Value::Array(vec![
            range(0, 99, vec![node(text("10.0.0.1"), 1), node(text("::1"), 2)]),
            range(100, 199, vec![node(Value::Nil, 3), node(text("?"), 4)]),
            range(200, 299, vec![node(text("?"), 4)]),
            Value::Nil,
            range(-1, 70_000, vec![node(text("x"), 5)]),
            range(300, 399, vec![node(text("x\nforged"), 5)]),
        ]);
        let map = Map::read(&told, "asked");
        assert_eq!(map.nodes(99).unwrap(), [at("10.0.0.1", 1), at("::1", 2)]);
        assert_eq!(map.nodes(100).unwrap(), [at("asked", 3)]);
        assert_eq!((map.nodes(250), map.nodes(16_000)), (None, None));
        assert_eq!((map.masters().len(), map.all().len()), (2, 3));
        assert_eq!(map.hole(), Some(200));
        let whole = Value::Array(vec![range(8192, 16_383, vec![node(text("b"), 1)]), range(0, 8191, vec![node(text("a"), 1)])]);
        assert_eq!(Map::read(&whole, "x").hole(), None);
        assert!(Map::read(&Value::Okay, "x").is_empty());
    }

    #[test]
    fn an_answer_that_sends_elsewhere_is_read_with_every_kind_of_address() {
        for (detail, wanted) in [
            ("5 10.0.0.1:7", Some(at("10.0.0.1", 7))),
            ("5 :7", Some(at("asked", 7))),
            ("5 ::1:7", Some(at("::1", 7))),
            ("5 node-1.example:7", Some(at("node-1.example", 7))),
            ("5 nobody", None),
            ("5", None),
        ] {
            let error = redis::make_extension_error("MOVED".into(), Some(detail.into()));
            let error = if error.redirect_node().is_some() || wanted.is_none() {
                error
            } else {
                let kind = redis::ErrorKind::Server(redis::ServerErrorKind::Moved);
                RedisError::from((kind, "sent elsewhere", detail.to_owned()))
            };
            assert_eq!(sent_to(&error, &at("asked", 1)), wanted, "{detail}");
        }
    }
}
