//! JSON on one line, in which no text of a peer can steer a terminal or turn the reading direction.
//!
//! serde_json escapes what RFC 8259 section 7 wants escaped: quotes, backslashes and U+0000 to U+001F, so that a line stays one line.
//! Here the rest is escaped that a log does not show as it is (see `error::shown`). The text that a reader of JSON gets is the same.

use std::io;

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

/// The value as one line, without its end.
pub fn line(value: &impl Serialize) -> String {
    let mut out = Vec::with_capacity(512);
    let written = value.serialize(&mut Serializer::with_formatter(&mut out, OneLine));
    // A vector takes every byte, and an event has no map with keys that are no text.
    debug_assert!(written.is_ok(), "{written:?}");
    String::from_utf8(out).unwrap_or_default()
}

struct OneLine;

impl Formatter for OneLine {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut plain = 0;
        for (at, character) in fragment.char_indices().filter(|(_, character)| is_steering(*character)) {
            writer.write_all(&fragment.as_bytes()[plain..at])?;
            write!(writer, "\\u{:04x}", character as u32)?;
            plain = at + character.len_utf8();
        }
        writer.write_all(&fragment.as_bytes()[plain..])
    }
}

/// DEL, the C1 controls, bidirectional marks, and what some readers of lines take for the end of one.
fn is_steering(character: char) -> bool {
    matches!(character, '\u{7f}'..='\u{9f}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_steer_a_terminal_is_escaped_and_reads_as_it_was() {
        let text = "a\u{1b}[2J\n\u{9b}2J\u{202e}\u{2028}\u{7f}\"\\ü漢🦀\0";
        let line = line(&text);
        assert_eq!(line, "\"a\\u001b[2J\\n\\u009b2J\\u202e\\u2028\\u007f\\\"\\\\ü漢🦀\\u0000\"");
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
    }
}
