//! What `top` shows: looks at sessions become rows, and rows the lines of a screen. Pure: no terminal, no clock. Whatever a peer has named is
//! escaped where a row is made of it.

use std::collections::HashMap;

use crate::admin::sessions::{Everywhere, Seen, age, arrow, size};
use crate::error::shown;
use crate::live::{Slow, Snapshot, Transfer};

/// The columns. A file's name is last: however wide its characters are, it moves nothing.
pub const HEADING: [&str; 8] = ["SESSION", "USER", "WAY", "DONE", "RATE", "LEFT", "SLOW", "FILE"];

const FILE: usize = 7;

/// The columns that a narrow terminal does without, the first ones first: `LEFT`, `SLOW`, `WAY`, `USER`, `RATE`.
const SPARE: [usize; 5] = [5, 6, 2, 1, 4];

/// Columns of the screen that a file's name has at least, before others are left out.
const MIN_FILE: usize = 12;

/// Widest name of a session or a user.
const MAX_NAME: usize = 20;

/// Most lines about what could not be seen.
const MAX_FAULTS: usize = 2;

/// How far the times of two looks at the same open file may differ, in seconds: they have milliseconds.
const SAME: f64 = 0.003;

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// All sessions in one line.
    Total,
    /// What could not be seen.
    Fault,
    /// The columns' names.
    Heading,
    /// An open file.
    Transfer,
    /// A session without one; how much is not shown.
    Other,
}

/// An open file, or a session without one.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Which of them.
    pub line: Line,
    /// Bytes a second.
    pub rate: f64,
    /// The columns of [`HEADING`], not cut.
    pub cells: [String; 8],
}

/// The last look, from which the next has its rates. It is as large as that look.
#[derive(Default)]
pub struct Rates(HashMap<String, Vec<Known>>);

/// An open file as it was seen.
struct Known {
    file: Transfer,
    /// When it was opened, in seconds of its session.
    opened: f64,
    rate: f64,
}

impl Rates {
    /// Takes a look. The files come first, the fastest first, and then the sessions that have none.
    pub fn rows(&mut self, sessions: &[Seen]) -> Vec<Row> {
        let (mut files, mut others) = (Vec::new(), Vec::new());
        let mut known = HashMap::new();
        for seen in sessions {
            let now: Vec<_> = seen.session.transfers.iter().map(|file| self.known(seen, file)).collect();
            files.extend(now.iter().map(|known| transfer(seen, known)));
            others.extend(other(seen));
            known.insert(seen.name(), now);
        }
        self.0 = known;
        files.sort_by(|a: &Row, b| b.rate.total_cmp(&a.rate));
        files.append(&mut others);
        files
    }

    /// How fast a file moves: since the last look, or since it was opened. Another node's file that nobody has written of since is as fast as it was.
    fn known(&self, seen: &Seen, file: &Transfer) -> Known {
        let opened = seen.session.seconds - file.seconds;
        let is_it = |known: &&Known| {
            (&known.file.path, known.file.direction) == (&file.path, file.direction) && (known.opened - opened).abs() < SAME
        };
        let rate = match self.0.get(&seen.name()).and_then(|known| known.iter().find(is_it)) {
            Some(before) if file.seconds - before.file.seconds < SAME => before.rate,
            Some(before) => file.bytes.saturating_sub(before.file.bytes) as f64 / (file.seconds - before.file.seconds),
            None if file.seconds > 0.0 => file.bytes as f64 / file.seconds,
            None => 0.0,
        };
        Known { file: file.clone(), opened, rate }
    }
}

fn transfer(seen: &Seen, known: &Known) -> Row {
    let Known { file, rate, .. } = known;
    let left = file.size.map(|whole| whole.saturating_sub(file.offset)).filter(|left| *left > 0 && *rate >= 1.0);
    let slow = slow(&seen.session);
    let cells = [
        seen.name(),
        seen.user(),
        arrow(file).into(),
        done(file),
        speed(*rate as u64),
        left.map(|left| age(left as f64 / rate).replace(" min", "").replace(' ', "")).unwrap_or_default(),
        slow,
        shown(&file.path),
    ];
    Row { line: Line::Transfer, rate: *rate, cells }
}

/// What else is said of a session: that it has no file, or more than are told.
fn other(seen: &Seen) -> Option<Row> {
    let session = &seen.session;
    let what = match (session.more_transfers, session.transfers.is_empty()) {
        (0, false) => return None,
        (0, true) => format!("({})", session.state.name()),
        (more, _) => format!("(and {more} files more)"),
    };
    let rate = session.up_rate.saturating_add(session.down_rate);
    let nothing = String::new;
    let cells = [seen.name(), seen.user(), nothing(), nothing(), speed(rate), nothing(), slow(session), what];
    Some(Row { line: Line::Other, rate: rate as f64, cells })
}

fn slow(session: &Snapshot) -> String {
    session.slow.map_or("", Slow::name).into()
}

/// Where a file is, of how much, and the percentage; a size of nothing is none.
fn done(file: &Transfer) -> String {
    let at = short(file.offset);
    match file.size.filter(|whole| *whole > 0) {
        Some(whole) => {
            let percent = u128::from(file.offset.min(whole)) * 100 / u128::from(whole);
            format!("{at} of {} {percent}%", short(whole))
        }
        None => at,
    }
}

fn speed(rate: u64) -> String {
    if rate == 0 { String::new() } else { format!("{}/s", short(rate)) }
}

/// `512M` for `512 MiB`.
fn short(bytes: u64) -> String {
    size(bytes).replace(' ', "").replace("iB", "")
}

/// The screen: at most `height` lines of at most `width` characters.
pub fn lines(all: &Everywhere, rows: &[Row], width: usize, height: usize) -> Vec<(Line, String)> {
    let mut lines = vec![(Line::Total, total(all, rows, width))];
    lines.extend(all.missing.iter().take(MAX_FAULTS).map(|fault| (Line::Fault, cut(&shown(fault), width))));
    let columns = columns(rows, width);
    let heading = HEADING.map(str::to_owned);
    lines.push((Line::Heading, format!("{:width$}", line(&heading, &columns, width))));
    let room = height.saturating_sub(lines.len());
    let fit = if rows.len() > room { room.saturating_sub(1) } else { rows.len() };
    lines.extend(rows[..fit].iter().map(|row| (row.line, line(&row.cells, &columns, width))));
    if fit < rows.len() {
        lines.push((Line::Other, cut(&format!("and {} lines more", rows.len() - fit), width)));
    }
    lines.truncate(height);
    lines
}

fn total(all: &Everywhere, rows: &[Row], width: usize) -> String {
    let sum = |rate: fn(&Snapshot) -> u64| all.sessions.iter().map(|seen| rate(&seen.session)).fold(0, u64::saturating_add);
    let (up, down) = (size(sum(|session| session.up_rate)), size(sum(|session| session.down_rate)));
    let files = rows.iter().filter(|row| row.line == Line::Transfer).count();
    let here = all.here.as_deref().map_or_else(|| "no router".into(), |node| cut(&shown(node), MAX_NAME));
    let text = format!("{here}: {} sessions, {files} files, up {up}/s, down {down}/s", all.sessions.len());
    let (keys, taken) = ("q ends", text.chars().count());
    if taken + 2 + keys.len() > width { cut_end(&text, width) } else { format!("{text}{keys:>rest$}", rest = width - taken) }
}

/// The columns that are shown, each with its width.
fn columns(rows: &[Row], width: usize) -> Vec<(usize, usize)> {
    let of = |column: usize| {
        let cells = rows.iter().map(|row| row.cells[column].chars().count().min(MAX_NAME));
        (column, cells.max().unwrap_or_default().max(HEADING[column].len()))
    };
    let mut columns: Vec<_> = (0..FILE).map(of).collect();
    let taken = |columns: &[(usize, usize)]| columns.iter().map(|(_, width)| width + 2).sum::<usize>();
    for spare in SPARE {
        if taken(&columns) + MIN_FILE > width {
            columns.retain(|(column, _)| *column != spare);
        }
    }
    columns.push((FILE, width.saturating_sub(taken(&columns))));
    columns
}

fn line(cells: &[String; 8], columns: &[(usize, usize)], width: usize) -> String {
    let cells: Vec<_> = columns.iter().map(|(column, room)| format!("{:room$}", cut(&cells[*column], *room))).collect();
    cut_end(cells.join("  ").trim_end(), width)
}

/// The text without its middle where it is too long. Of a path the end says more.
fn cut(text: &str, width: usize) -> String {
    let count = text.chars().count();
    if count <= width {
        return text.to_owned();
    }
    let Some(kept) = width.checked_sub(1) else { return String::new() };
    let front = kept / 3;
    text.chars().take(front).chain(['…']).chain(text.chars().skip(count - (kept - front))).collect()
}

fn cut_end(text: &str, width: usize) -> String {
    text.chars().take(width).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::Direction;

    const GIB: u64 = 1 << 30;

    fn file(path: &str, offset: u64, size: Option<u64>, seconds: f64) -> Transfer {
        Transfer { path: path.into(), direction: Direction::Down, offset, size, bytes: offset, seconds, idle: 0.0 }
    }

    /// A session that has run for as long as its files are open, and one second.
    fn seen(number: u64, transfers: Vec<Transfer>) -> Seen {
        let seconds = transfers.first().map_or(0.0, |file| file.seconds) + 1.0;
        let session = serde_json::json!({
            "session": number, "peer": "192.0.2.7:1", "since": "2026-11-27T13:00:00Z", "seconds": seconds, "state": "relaying",
            "user": "alice", "up": 0, "down": 0, "up_rate": 1 << 20, "down_rate": 2 << 20, "slow": "limit", "transfers": transfers,
        });
        Seen { elsewhere: None, session: serde_json::from_value(session).unwrap() }
    }

    fn everywhere(sessions: Vec<Seen>) -> Everywhere {
        Everywhere { client: None, older: Vec::new(), here: Some("web1".into()), sessions, missing: Vec::new() }
    }

    /// The screen after one look.
    fn screen(sessions: Vec<Seen>, width: usize, height: usize) -> Vec<String> {
        let all = everywhere(sessions);
        let drawn = lines(&all, &Rates::default().rows(&all.sessions), width, height);
        assert!(drawn.len() <= height, "{drawn:#?}");
        assert!(drawn.iter().all(|(_, text)| text.chars().count() <= width), "{width}: {drawn:#?}");
        drawn.into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn a_transfer_has_its_name_progress_rate_and_time_left() {
        let drawn = screen(vec![seen(6, vec![file("/srv/alice/orders.tar", GIB / 4, Some(GIB), 10.0)])], 100, 10);
        assert_eq!(drawn[0].trim_end_matches("q ends").trim_end(), "web1: 1 sessions, 1 files, up 1.0 MiB/s, down 2.0 MiB/s");
        assert_eq!(drawn[0].chars().count(), 100);
        assert_eq!(drawn[1].trim_end(), "SESSION  USER   WAY   DONE              RATE   LEFT  SLOW   FILE");
        assert_eq!(drawn[2], "6        alice  down  256M of 1.0G 25%  26M/s  30s   limit  /srv/alice/orders.tar");
    }

    #[test]
    fn sizes_that_are_unknown_reached_overtaken_or_nothing_and_sessions_that_are_none() {
        for (offset, size, done) in [
            (512, None, "512B"),
            (0, Some(0), "0B"),
            (GIB, Some(GIB), "1.0G of 1.0G 100%"),
            (2 * GIB, Some(GIB), "2.0G of 1.0G 100%"),
            (u64::MAX - 1, Some(u64::MAX), "16384P of 16384P 99%"),
        ] {
            let row = Rates::default().rows(&[seen(6, vec![file("/f", offset, size, 2.0)])]).remove(0);
            assert_eq!(row.cells[3], done);
            assert!(row.cells[5].is_empty() || offset == u64::MAX - 1, "nothing is left: {row:?}");
        }
        let still = Rates::default().rows(&[seen(6, vec![file("/f", 0, Some(GIB), 0.0)])]).remove(0);
        assert_eq!((still.cells[4].as_str(), still.cells[5].as_str()), ("", ""), "nobody knows when");
        let drawn = screen(Vec::new(), 80, 24);
        assert!(drawn.len() == 2 && drawn[0].starts_with("web1: 0 sessions, 0 files, up 0 B/s"), "{drawn:?}");
    }

    #[test]
    fn rates_are_of_the_time_between_two_looks_at_the_same_open_file() {
        let mut rates = Rates::default();
        let mut rate = |file| rates.rows(&[seen(6, vec![file])])[0].rate;
        assert_eq!(rate(file("/f", 1000, None, 10.0)), 100.0, "since it was opened");
        assert_eq!(rate(file("/f", 5000, None, 12.0)), 2000.0);
        assert_eq!(rate(file("/f", 5000, None, 12.0)), 2000.0, "the same look again");
        assert_eq!(rate(file("/f", 5000, None, 13.0)), 0.0);
        assert_eq!(rate(file("/g", 5000, None, 14.0)), 5000.0 / 14.0);
        let again = |seconds, opened| {
            let mut session = seen(6, vec![file("/f", 8000, None, seconds)]);
            session.session.seconds = seconds + opened;
            session
        };
        let mut rates = Rates::default();
        rates.rows(&[again(4.0, 1.0)]);
        assert_eq!(rates.rows(&[again(2.0, 9.0)])[0].rate, 4000.0, "opened anew");
    }

    #[test]
    fn the_fastest_comes_first_and_who_has_no_file_last() {
        let mut many = seen(9, vec![file("/slow", 10, None, 10.0)]);
        many.session.more_transfers = 5;
        let sessions = [seen(7, Vec::new()), many, seen(8, vec![file("/fast", GIB, None, 10.0)])];
        let rows = Rates::default().rows(&sessions);
        let of = |column: usize| rows.iter().map(|row| row.cells[column].as_str()).collect::<Vec<_>>();
        assert_eq!(of(FILE), ["/fast", "/slow", "(relaying)", "(and 5 files more)"]);
        assert_eq!(of(0), ["8", "9", "7", "9"]);
        assert_eq!(rows.iter().filter(|row| row.line == Line::Other).count(), 2);
    }

    #[test]
    fn every_screen_is_as_small_as_it_has_to_be() {
        let sessions = || {
            let long = format!("/srv/{}/orders.tar", "folder/".repeat(60));
            (0..30).map(|number| seen(number, vec![file(&long, GIB / 2, Some(GIB), 9.0)])).collect::<Vec<_>>()
        };
        for width in 0..130 {
            for height in [0, 1, 2, 3, 24, 40] {
                screen(sessions(), width, height);
                screen(Vec::new(), width, height);
            }
        }
        let drawn = screen(sessions(), 80, 24);
        assert!(drawn[2].contains("512M of 1.0G 50%") && drawn[2].contains('…') && drawn[2].ends_with("ders.tar"), "{drawn:#?}");
        assert_eq!((drawn.len(), drawn[23].as_str()), (24, "and 9 lines more"));
        let narrow = screen(sessions(), 40, 24);
        assert!(narrow[2].contains("50%") && narrow[2].ends_with(".tar") && !narrow[1].contains("USER"), "{narrow:#?}");
    }

    #[test]
    fn what_peers_have_named_reaches_no_terminal_unescaped() {
        let mut session = seen(6, vec![file("/a\u{1b}]0;owned\u{7}\u{9b}2J\n\u{202e}b", 1, None, 1.0)]);
        session.elsewhere = Some("no\u{1b}de".into());
        session.session.user = Some("al\u{1b}ice".into());
        let mut all = everywhere(vec![session]);
        (all.here, all.missing) = (Some("we\u{1b}b".into()), vec!["fau\u{1b}lt".into()]);
        let drawn = lines(&all, &Rates::default().rows(&all.sessions), 200, 24);
        for (_, text) in &drawn {
            assert!(!text.chars().any(|letter| letter.is_control() || letter == '\u{202e}'), "{text:?}");
        }
        assert!(drawn[3].1.contains(r"/a\u{1b}]0;owned"), "{drawn:?}");
    }
}
