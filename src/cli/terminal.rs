//! What a terminal shows beside plain lines: colours, and how far long work has come.
//!
//! Owns: whether there is a terminal, and `NO_COLOR`. Never does: deciding what is said. Where output is no terminal,
//! nothing here writes an escape sequence.

use std::io;
use std::io::{IsTerminal, Write as _};
use std::time::Duration;

use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr,
};
use tokio::time::Instant;

use crate::plain;

/// The colours that have a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Colour {
    /// Well.
    Green,
    /// Worth a look.
    Yellow,
    /// Wrong.
    Red,
    /// Beside the point.
    Grey,
}

/// Paints words, where that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Paint(bool);

impl Paint {
    /// For standard output.
    pub(super) fn stdout() -> Self {
        Self(io::stdout().is_terminal() && wants_colour())
    }

    pub(super) fn paint(self, colour: Colour, word: &str) -> String {
        if !self.0 {
            return word.to_owned();
        }
        let code = match colour {
            Colour::Green => 32,
            Colour::Yellow => 33,
            Colour::Red => 31,
            Colour::Grey => 90,
        };
        format!("\x1b[{code}m{word}\x1b[0m")
    }
}

/// As <https://no-color.org> has it: any value but an empty one.
fn wants_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && !is_dumb()
}

fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// Characters between the brackets.
const BAR: usize = 24;

/// Characters that a column needs to be read.
const LEAST_ROOM: usize = 30;

/// Between two drawings.
const DRAW: Duration = Duration::from_millis(100);

/// How far long work has come: a bar on standard error where that is a terminal, nothing elsewhere. Results are lines
/// of their own, on standard output.
#[derive(Debug)]
pub(super) struct Progress {
    what: &'static str,
    total: u64,
    done: u64,
    shown: bool,
    drawn: Option<Instant>,
}

impl Progress {
    pub(super) fn new(what: &'static str, total: usize) -> Self {
        let mut progress = Self {
            what,
            total: u64::try_from(total).unwrap_or(u64::MAX),
            done: 0,
            shown: total > 0 && shows_progress(),
            drawn: None,
        };
        progress.draw("");
        progress
    }

    /// What is being worked on.
    pub(super) fn at(&mut self, item: &str) {
        self.drawn = None;
        self.draw(item);
    }

    /// One more is done.
    pub(super) fn step(&mut self, item: &str) {
        self.done += 1;
        if self.done >= self.total {
            self.drawn = None;
        }
        self.draw(item);
    }

    /// A line of text stands above the bar, which goes on below it.
    pub(super) fn line(&mut self, line: &str) {
        self.clear();
        say!("{line}");
        self.drawn = None;
        self.draw("");
    }

    fn draw(&mut self, item: &str) {
        if !self.shown || self.drawn.is_some_and(|at| at.elapsed() < DRAW) {
            return;
        }
        self.drawn = Some(Instant::now());
        let bar = bar(self.done, self.total);
        // Whoever closed the terminal sees no bar.
        write!(
            io::stderr(),
            "\r\x1b[K{} [{bar}] {}/{} {item}",
            self.what,
            self.done,
            self.total
        )
        .and_then(|()| io::stderr().flush())
        .unwrap_or_default();
    }

    fn clear(&self) {
        if self.shown {
            erase();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

/// That something is waited for which nobody knows the length of: a line on standard error with the seconds so far where
/// that is a terminal, nothing elsewhere.
#[derive(Debug)]
pub(super) struct Waiting {
    what: String,
    since: Instant,
    shown: bool,
}

impl Waiting {
    pub(super) fn new(what: String) -> Self {
        let waiting = Self {
            what,
            since: Instant::now(),
            shown: shows_progress(),
        };
        waiting.tick();
        waiting
    }

    /// It goes on.
    pub(super) fn tick(&self) {
        if self.shown {
            let seconds = self.since.elapsed().as_secs();
            // Whoever closed the terminal sees no line.
            write!(io::stderr(), "\r\x1b[K{}: {seconds} s", self.what)
                .and_then(|()| io::stderr().flush())
                .unwrap_or_default();
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.shown {
            erase();
        }
    }
}

fn shows_progress() -> bool {
    io::stderr().is_terminal() && !is_dumb()
}

/// The line that the cursor is in.
fn erase() {
    write!(io::stderr(), "\r\x1b[K")
        .and_then(|()| io::stderr().flush())
        .unwrap_or_default();
}

/// A bar without its brackets.
pub(super) fn bar(done: u64, total: u64) -> String {
    let total = total.max(1);
    let filled = u128::from(done.min(total)) * BAR as u128 / u128::from(total);
    let filled = usize::try_from(filled).unwrap_or(BAR);
    format!("{}{}", "#".repeat(filled), ".".repeat(BAR - filled))
}

/// Columns of the terminal that standard output is.
pub(super) fn width() -> Option<usize> {
    let size = tcgetwinsize(io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|width| *width > 0)
}

/// Words of a column that begins at `indent` and ends where the terminal does: what does not fit stands below, in that
/// column. Where there is no terminal, or next to no room, all is one line.
pub(super) fn hanging(text: &str, indent: usize, width: Option<usize>) -> String {
    let Some(room) = width
        .and_then(|width| width.checked_sub(indent))
        .filter(|room| *room >= LEAST_ROOM)
    else {
        return text.to_owned();
    };
    let mut shown = String::with_capacity(text.len());
    let mut used = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if used > 0 && used + 1 + length > room {
            shown.push('\n');
            shown.push_str(&" ".repeat(indent));
            used = 0;
        } else if used > 0 {
            shown.push(' ');
            used += 1;
        }
        shown.push_str(word);
        used += length;
    }
    shown
}

/// A screen of its own, which is as if it had never been when it ends; keys are seen without Enter.
#[derive(Debug)]
pub(super) struct Screen {
    /// As the terminal was.
    before: Option<Termios>,
}

impl Screen {
    pub(super) fn open() -> Self {
        let before = tcgetattr(io::stdin()).ok();
        if let Some(before) = &before {
            let mut now = before.clone();
            // Ctrl-C stays a signal. A read gives what is there, and does not wait.
            now.local_modes &= !(LocalModes::ICANON | LocalModes::ECHO);
            now.special_codes[SpecialCodeIndex::VMIN] = 0;
            now.special_codes[SpecialCodeIndex::VTIME] = 0;
            tcsetattr(io::stdin(), OptionalActions::Now, &now).unwrap_or_default();
        }
        // What is wider than the terminal ends at its edge, or drawing it again would scroll.
        write_escape("\x1b[?1049h\x1b[?25l\x1b[?7l");
        Self { before }
    }

    /// Draws these lines in place of those before, as many as fit.
    pub(super) fn draw(&self, lines: &[String], foot: &str) {
        let rows = tcgetwinsize(io::stdout()).map_or(24, |size| usize::from(size.ws_row).max(3));
        let mut text = String::from("\x1b[H");
        for line in lines.iter().take(rows - 2) {
            text.push_str(&plain::painted(line));
            text.push_str("\x1b[K\r\n");
        }
        text.push_str("\x1b[K\r\n");
        text.push_str(foot);
        text.push_str("\x1b[K\x1b[J");
        write_escape(&text);
    }

    /// A key that was pressed since the last look.
    pub(super) fn pressed(&self) -> Option<u8> {
        self.before.as_ref()?;
        let mut key = [0];
        match rustix::io::read(io::stdin(), &mut key) {
            Ok(1) => key.first().copied(),
            Ok(_) | Err(_) => None,
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        write_escape("\x1b[?7h\x1b[?25h\x1b[?1049l");
        if let Some(before) = &self.before {
            tcsetattr(io::stdin(), OptionalActions::Now, before).unwrap_or_default();
        }
    }
}

/// Whoever closed the terminal sees nothing more.
fn write_escape(text: &str) {
    write!(io::stdout(), "{text}")
        .and_then(|()| io::stdout().flush())
        .unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_always_as_wide_and_full_at_the_end_alone() {
        for (done, total, filled) in [
            (0, 3, 0),
            (1, 3, 8),
            (3, 3, BAR),
            (9, 3, BAR),
            (0, 0, 0),
            (999, 1000, 23),
        ] {
            let bar = bar(done, total);
            assert_eq!(bar.len(), BAR);
            assert_eq!(bar.matches('#').count(), filled, "{done}/{total}");
        }
    }

    #[test]
    fn what_does_not_fit_stands_below_in_its_column() {
        let text = "one two three four five six seven eight nine";
        assert_eq!(hanging(text, 4, None), text);
        assert_eq!(hanging(text, 4, Some(33)), text);
        assert_eq!(
            hanging(text, 4, Some(34)),
            "one two three four five six\n    seven eight nine"
        );
        let long = "x".repeat(40);
        assert_eq!(
            hanging(&format!("a {long} b"), 1, Some(31)),
            format!("a\n {long}\n b")
        );
    }

    #[test]
    fn every_colour_is_one_that_reaches_the_terminal() {
        for colour in [Colour::Green, Colour::Yellow, Colour::Red, Colour::Grey] {
            let painted = Paint(true).paint(colour, "FAILED");
            assert_eq!(plain::painted(&painted), painted);
        }
    }

    #[test]
    fn words_are_painted_only_where_that_is_wanted() {
        assert_eq!(Paint(false).paint(Colour::Red, "FAILED"), "FAILED");
        assert_eq!(Paint(true).paint(Colour::Red, "FAILED"), "\x1b[31mFAILED\x1b[0m");
    }
}
