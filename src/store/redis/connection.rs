//! A connection to one server: commands out, answers in, within a limit of time and one of size for each command. The bytes of commands and answers are
//! the redis crate's business; its own connection is not used, because it reads as long as bytes come.
//!
//! RESP2 only: nothing comes that was not asked for, but messages on channels, which are [`Listening`]'s. After any fault but a refusal of the server's the
//! connection is closed for good: what might still come would be taken for the answer to another question.

use std::collections::VecDeque;
use std::io::{self, Read, Write as _};
use std::time::{Duration, Instant};

use redis::{ConnectionAddr, ConnectionLike, ErrorKind, Msg, Parser, RedisError, RedisResult, ServerErrorKind, Value, cmd};

use super::socket::Socket;

/// What the answers to one command, or to the commands of one pipeline, may weigh: a byte 1, a line [`LINE`] more. The largest that there may honestly be
/// is [`MAX_BANS`](crate::admission::MAX_BANS) bans with reasons of some 70 bytes; what a node has written of its sessions is 1 MiB, a page of SCAN a few
/// hundred KiB, a user's record a few KiB.
pub const MOST: usize = 16 * 1024 * 1024;

/// The same of one message, or of those that come before an answer: the changes of 20,000 entries in one transaction. Who is told of more than that hears
/// nothing more on that connection, makes a new one and looks at everything.
const MOST_SAID: usize = 4 * 1024 * 1024;

/// What a line weighs beside its bytes: each value has one or two, and needs some 100 bytes of memory.
const LINE: usize = 32;

/// What a line weighs in addition that begins with one of [`LISTS`]: the crate makes room for four values at once.
const LIST: usize = 224;

/// What the first line of a list begins with, in RESP2 and RESP3. One within a text that begins a line of it weighs the same.
const LISTS: &[u8] = b"*%~|>";

/// How long what is asked may take.
#[derive(Debug, Clone, Copy)]
enum Limit {
    /// All of it until then.
    Until(Instant),
    /// Each command so long, from its first byte to the last one of its answer.
    Each(Duration),
}

/// A connection.
pub struct Connection {
    socket: Socket,
    parser: Parser,
    limit: Limit,
    open: bool,
}

impl Connection {
    /// Connects. That and what is asked then has to be done until that moment, unless another limit is [set](Self::set_limit).
    pub fn open(to: &ConnectionAddr, until: Instant) -> RedisResult<Self> {
        let socket = Socket::connect(to, until)?;
        Ok(Self { socket, parser: Parser::new(), limit: Limit::Until(until), open: true })
    }

    /// Each command may take so long, from now on.
    pub fn set_limit(&mut self, limit: Duration) {
        self.limit = Limit::Each(limit);
    }

    fn say(&mut self, commands: &[u8]) -> RedisResult<()> {
        if !self.open {
            return Err(io::Error::from(io::ErrorKind::NotConnected).into());
        }
        self.socket.set_until(match self.limit {
            Limit::Until(until) => until,
            Limit::Each(limit) => Instant::now() + limit,
        });
        let said = self.socket.write_all(commands).and_then(|()| self.socket.flush());
        self.open = said.is_ok();
        Ok(said?)
    }

    /// The next answer; `room` = what it may weigh, less what it does.
    fn hear(&mut self, room: &mut usize) -> RedisResult<Value> {
        self.read(room, None)?.ok_or_else(|| io::Error::from(io::ErrorKind::TimedOut).into())
    }

    /// What need not come may take so long (`rest`) once it has begun; `None` = it has not.
    fn read(&mut self, room: &mut usize, rest: Option<Duration>) -> RedisResult<Option<Value>> {
        let mut answer = Answer { socket: &mut self.socket, room, rest, begins: true, full: false };
        let fault = match self.parser.parse_value(&mut answer) {
            Ok(Value::Push { .. }) => (ErrorKind::Parse, "a push, which there is none of in RESP2").into(),
            Ok(value) => return Ok(Some(value)),
            Err(error) if error.is_timeout() && answer.rest.is_some() => return Ok(None),
            Err(_) if answer.full => (TOO_MUCH, "an answer that is larger than any may be").into(),
            Err(error) => error,
        };
        self.open = false;
        Err(fault)
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command(&mut self, command: &[u8]) -> RedisResult<Value> {
        self.say(command)?;
        self.hear(&mut MOST.clone())
    }

    /// `offset` answers are not asked for: of a transaction those that say that its commands have been queued, or why one has not.
    fn req_packed_commands(&mut self, commands: &[u8], offset: usize, count: usize) -> RedisResult<Vec<Value>> {
        self.say(commands)?;
        let (mut room, mut refused, mut answers) = (MOST, Vec::new(), Vec::new());
        for number in 0..offset + count {
            match self.hear(&mut room)? {
                Value::ServerError(error) if number < offset => {
                    refused.push(format!("{} {}", error.code(), error.details().unwrap_or_default()));
                }
                answer if number >= offset => answers.push(answer),
                _ => {}
            }
        }
        if refused.is_empty() {
            return Ok(answers);
        }
        Err((ErrorKind::Server(ServerErrorKind::ExecAbort), "nothing of the transaction was done", refused.join("; ")).into())
    }

    fn get_db(&self) -> i64 {
        // Nobody asks: the number is in the settings.
        0
    }

    fn check_connection(&mut self) -> bool {
        cmd("PING").exec(self).is_ok()
    }

    fn is_open(&self) -> bool {
        self.open
    }
}

/// The kind of [`is_too_much`], which nothing else has here.
const TOO_MUCH: ErrorKind = ErrorKind::Client;

/// Whether that is what becomes of an answer that weighs more than [`MOST`].
pub fn is_too_much(error: &RedisError) -> bool {
    error.kind() == TOO_MUCH
}

/// Where an answer comes from, and how far it has come.
struct Answer<'a> {
    socket: &'a mut Socket,
    /// What may still come.
    room: &'a mut usize,
    /// More has come.
    full: bool,
    /// The next byte is the first of a line.
    begins: bool,
    /// How long the rest may take once a byte has come; `None` = one has, or no more than that byte may.
    rest: Option<Duration>,
}

impl Answer<'_> {
    fn weigh(&mut self, bytes: &[u8]) -> usize {
        let mut weight = bytes.len();
        for byte in bytes {
            if self.begins && LISTS.contains(byte) {
                weight += LIST;
            }
            self.begins = *byte == b'\n';
            if self.begins {
                weight += LINE;
            }
        }
        weight
    }
}

impl Read for Answer<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.socket.read(buffer)?;
        if count > 0
            && let Some(rest) = self.rest.take()
        {
            self.socket.set_until(Instant::now() + rest);
        }
        let left = self.room.checked_sub(self.weigh(&buffer[..count]));
        self.full = left.is_none();
        *self.room = left.ok_or(io::ErrorKind::FileTooLarge)?;
        Ok(count)
    }
}

/// A connection that hears what is said on channels, and does nothing else any more.
pub struct Listening {
    connection: Connection,
    /// What was said before an answer came.
    waiting: VecDeque<Msg>,
}

impl Listening {
    /// To no channel yet.
    pub fn new(connection: Connection) -> Self {
        Self { connection, waiting: VecDeque::new() }
    }

    /// To these channels, or patterns of them, too; `false` = the server does not let us.
    pub fn subscribe(&mut self, command: &str, names: &[String]) -> RedisResult<bool> {
        self.connection.say(&cmd(command).arg(names).get_packed_command())?;
        let mut room = MOST_SAID;
        for _ in names {
            if let Value::ServerError(_) = self.answer(&mut room)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the server is there.
    pub fn ping(&mut self) -> RedisResult<()> {
        self.connection.say(&cmd("PING").get_packed_command())?;
        self.answer(&mut MOST_SAID.clone()).map(drop)
    }

    /// The next message; `None` = for so long there was none. One that has begun has to be whole as soon as any answer.
    pub fn message(&mut self, silence: Duration) -> RedisResult<Option<Msg>> {
        if let Some(message) = self.waiting.pop_front() {
            return Ok(Some(message));
        }
        let until = Instant::now() + silence;
        let rest = match self.connection.limit {
            Limit::Each(limit) => limit,
            Limit::Until(until) => until.saturating_duration_since(Instant::now()),
        };
        loop {
            self.connection.socket.set_until(until);
            let Some(value) = self.connection.read(&mut MOST_SAID.clone(), Some(rest))? else { return Ok(None) };
            if let Some(message) = Msg::from_owned_value(value) {
                return Ok(Some(message));
            }
        }
    }

    fn answer(&mut self, room: &mut usize) -> RedisResult<Value> {
        loop {
            let value = self.connection.hear(room)?;
            if !is_message(&value) {
                return Ok(value);
            }
            self.waiting.extend(Msg::from_owned_value(value));
        }
    }
}

fn is_message(value: &Value) -> bool {
    let Value::Array(parts) = value else { return false };
    matches!(parts.first(), Some(Value::BulkString(kind)) if [&b"message"[..], b"pmessage"].contains(&&kind[..]))
}

#[cfg(test)]
mod tests;
