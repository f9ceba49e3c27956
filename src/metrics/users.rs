//! Series with a user's name in them, when the operator asks for them: no more than so many users, all others together under an empty name.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::family::{About, Family};
use super::labels::{Direction, Label};

/// What is counted of a user.
#[derive(Debug, Default)]
pub struct User {
    logins: AtomicU64,
    bytes: [AtomicU64; 2],
}

impl User {
    /// One more open upstream.
    pub fn logged_in(&self) {
        self.logins.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes were received.
    pub fn received(&self, direction: Direction, count: u64) {
        self.bytes[direction as usize].fetch_add(count, Ordering::Relaxed);
    }
}

/// The users with series of their own; a name is never forgotten, or its counters would begin again.
#[derive(Debug)]
pub struct Users {
    most: usize,
    logins: Part,
    bytes: Part,
    known: Arc<Mutex<HashMap<String, Arc<User>>>>,
}

/// The value of the label beside the name, if there is one, and the series'.
type Value = (Option<&'static str>, u64);

/// One of the families.
#[derive(Debug)]
struct Part {
    about: About,
    known: Arc<Mutex<HashMap<String, Arc<User>>>>,
    values: fn(&User) -> Vec<Value>,
}

impl Users {
    /// At most so many; 0 = none at all.
    pub fn new(most: usize) -> Self {
        let known = Arc::new(Mutex::new(HashMap::new()));
        let user = Label { name: "user", values: Vec::new() };
        let logins = Part {
            about: About::new("sftpproxy_user_logins", "Logins that succeeded, of each user", [user.clone()]),
            known: Arc::clone(&known),
            values: |user| vec![(None, user.logins.load(Ordering::Relaxed))],
        };
        let bytes = Part {
            about: About::new("sftpproxy_user_bytes", "SFTP bytes received, of each user", [user, Direction::label()]),
            known: Arc::clone(&known),
            values: |user| {
                let values = user.bytes.iter().map(|bytes| bytes.load(Ordering::Relaxed));
                Direction::label().values.into_iter().map(Some).zip(values).collect()
            },
        };
        Self { most, logins, bytes, known }
    }

    /// Both families.
    pub fn families(&self) -> [&dyn Family; 2] {
        [&self.logins, &self.bytes]
    }

    /// The series of a user who has proven a key; `None` = nobody has any. To be asked once a session.
    pub fn of(&self, name: &str) -> Option<Arc<User>> {
        if self.most == 0 {
            return None;
        }
        let mut known = lock(&self.known);
        let named = known.keys().filter(|name| !name.is_empty()).count();
        let name = if known.contains_key(name) || named < self.most { name } else { "" };
        Some(Arc::clone(known.entry(name.to_owned()).or_default()))
    }
}

fn lock(known: &Mutex<HashMap<String, Arc<User>>>) -> MutexGuard<'_, HashMap<String, Arc<User>>> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Family for Part {
    fn about(&self) -> &About {
        &self.about
    }

    fn shown(&self) -> (String, &'static str) {
        (format!("{}_total", self.about.name), "counter")
    }

    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut users: Vec<_> = lock(&self.known).iter().map(|(name, user)| (name.clone(), Arc::clone(user))).collect();
        if users.is_empty() {
            return Ok(());
        }
        users.sort_by(|one, two| one.0.cmp(&two.0));
        let mut metric = encoder.encode_descriptor(self.about.name, self.about.help, None, MetricType::Counter)?;
        for (name, user) in users {
            for (value, count) in (self.values)(&user) {
                let labels = self.about.labels.iter().map(|label| label.name);
                let pairs: Vec<_> = labels.zip([name.as_str()].into_iter().chain(value)).collect();
                metric.encode_family(&pairs)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
            }
        }
        Ok(())
    }
}
