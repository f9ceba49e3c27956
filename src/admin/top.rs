//! `top`: the transfers that run, looked at again every second, until somebody presses `q`. What is drawn is made in [`draw`].
//!
//! Where nobody watches, it prints one table and ends. It only looks: sessions are ended by `sessions kick`.

use std::io::{self, IsTerminal as _, Stdout, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Effects, Style};
use clap::{Arg, ArgAction, ArgMatches, Command};
use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyModifiers};
use crossterm::style::Print;
use crossterm::terminal::{self, Clear, ClearType, DisableLineWrap, EnableLineWrap, EnterAlternateScreen, LeaveAlternateScreen};
use crossterm::{execute, queue};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use self::draw::{HEADING, Line, Rates};
use super::sessions::{self, Everywhere, everywhere};
use super::{Console, Context, Trouble, json_option, print};

mod draw;

/// How long a signal may go unnoticed.
const BEAT: Duration = Duration::from_millis(200);

/// What a terminal is taken for that does not say how large it is.
const SIZE: (u16, u16) = (80, 24);

/// The command.
pub fn command() -> Command {
    let interval = Arg::new("interval").long("interval").value_name("SECONDS").default_value("1");
    Command::new("top")
        .about("Watch transfers: file, progress, rate, time left, who is slow")
        .arg(interval.value_parser(clap::value_parser!(u64).range(1..=60)).help("How often to look, 1 to 60"))
        .arg(Arg::new("once").long("once").action(ArgAction::SetTrue).help("Print one table and end, as without a terminal"))
        .arg(json_option().help("Print JSON once, as sessions list does"))
        .after_help("q, Esc and Ctrl-C end it. Exit codes: 0 done, 1 no router of this machine answers, 2 bad arguments")
}

/// `top`.
pub fn run(matches: &ArgMatches, context: &Context<'_>, console: &mut Console<'_>) -> Result<(), Trouble> {
    if matches.get_flag("json") {
        return sessions::list(matches, context, console);
    }
    let all = everywhere(context)?;
    if matches.get_flag("once") || !console.interactive || !io::stdout().is_terminal() {
        for line in &all.missing {
            writeln!(console.err, "{line}")?;
        }
        let rows: Vec<_> = Rates::default().rows(&all.sessions).into_iter().map(|row| row.cells.to_vec()).collect();
        return Ok(print::table(console.out, &HEADING, &rows)?);
    }
    let every = Duration::from_secs(matches.get_one("interval").copied().unwrap_or(1));
    watch(all, every, context, console.colour)
}

/// Draws and looks again until it is to end.
fn watch(first: Everywhere, every: Duration, context: &Context<'_>, colour: bool) -> Result<(), Trouble> {
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&ended))?;
    }
    let mut screen = Screen::enter(colour)?;
    let (mut all, mut rates) = (first, Rates::default());
    loop {
        let next = Instant::now() + every;
        let rows = rates.rows(&all.sessions);
        loop {
            let (width, height) = size();
            screen.draw(&draw::lines(&all, &rows, width, height))?;
            match wait(next, &ended)? {
                Wake::Look => break,
                Wake::Resized => {}
                Wake::End => return Ok(()),
            }
        }
        // A router that is gone for now may come back, as after an upgrade.
        all = everywhere(context).unwrap_or_else(|trouble| {
            let missing = match trouble {
                Trouble::Failed(reason) => vec![reason],
                Trouble::Refused(reasons) => reasons,
                Trouble::Negative => Vec::new(),
            };
            Everywhere { client: None, older: Vec::new(), here: None, sessions: Vec::new(), missing }
        });
    }
}

/// Columns and rows of the terminal.
fn size() -> (usize, usize) {
    let (width, height) = terminal::size().ok().filter(|(width, height)| *width > 0 && *height > 0).unwrap_or(SIZE);
    (width.into(), height.into())
}

/// What there is to do.
enum Wake {
    Look,
    Resized,
    End,
}

/// Waits until the next look is due, or something happens before.
fn wait(next: Instant, ended: &AtomicBool) -> io::Result<Wake> {
    loop {
        let left = next.saturating_duration_since(Instant::now());
        if ended.load(Ordering::Relaxed) {
            return Ok(Wake::End);
        }
        if left.is_zero() {
            return Ok(Wake::Look);
        }
        if event::poll(left.min(BEAT))? {
            match event::read()? {
                Event::Key(key) if ends(key) => return Ok(Wake::End),
                Event::Resize(..) => return Ok(Wake::Resized),
                _ => {}
            }
        }
    }
}

fn ends(key: KeyEvent) -> bool {
    match key.code {
        KeyCode::Char('c') => key.modifiers.contains(KeyModifiers::CONTROL),
        code => [KeyCode::Char('q'), KeyCode::Esc].contains(&code),
    }
}

/// The terminal while it is ours. It is given back when this is dropped, and before a panic is told.
struct Screen {
    out: Stdout,
    colour: bool,
    ours: Arc<AtomicBool>,
}

impl Screen {
    fn enter(colour: bool) -> io::Result<Self> {
        let ours = Arc::new(AtomicBool::new(true));
        let (of_hook, before) = (Arc::clone(&ours), std::panic::take_hook());
        std::panic::set_hook(Box::new(move |panic| {
            leave(&of_hook);
            before(panic);
        }));
        let mut screen = Self { out: io::stdout(), colour, ours };
        terminal::enable_raw_mode()?;
        execute!(screen.out, EnterAlternateScreen, DisableLineWrap, Hide)?;
        Ok(screen)
    }

    /// Draws all lines at once, so that nothing flickers.
    fn draw(&mut self, lines: &[(Line, String)]) -> io::Result<()> {
        for (row, (line, text)) in (0u16..).zip(lines) {
            let style = if self.colour { style(*line) } else { Style::new() };
            queue!(self.out, MoveTo(0, row), Clear(ClearType::CurrentLine), Print(format_args!("{style}{text}{style:#}")))?;
        }
        if let Ok(below) = u16::try_from(lines.len()) {
            queue!(self.out, MoveTo(0, below), Clear(ClearType::FromCursorDown))?;
        }
        self.out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        leave(&self.ours);
    }
}

/// Gives the terminal back, once. Nobody is left to tell when this fails.
fn leave(ours: &AtomicBool) {
    if ours.swap(false, Ordering::Relaxed) {
        let _ = execute!(io::stdout(), Show, EnableLineWrap, LeaveAlternateScreen);
        let _ = terminal::disable_raw_mode();
    }
}

fn style(line: Line) -> Style {
    match line {
        Line::Total => Style::new().bold(),
        Line::Fault => AnsiColor::Yellow.on_default(),
        Line::Heading => Style::new().effects(Effects::INVERT),
        Line::Transfer => Style::new(),
        Line::Other => Style::new().dimmed(),
    }
}

#[cfg(test)]
mod tests;
