//! Text that comes from elsewhere, and must be no more than text where it is shown.
//!
//! Owns: which characters steer a terminal, forge a line or hide what stands there, and how they are shown instead.
//! Never does: changing what is stored; names keep every character but those that no name has.

use std::borrow::Cow;
use std::fmt::Write as _;

/// True for control characters, other ends of lines, and what turns the direction of writing.
fn steers(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text on one line: what steers is shown as `\u001b`, which means the same in JSON.
#[must_use]
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false)
}

/// The same, of several lines.
#[must_use]
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |character| matches!(character, '\n' | '\t'))
}

/// The same, of which colours stay.
#[must_use]
pub fn painted(text: &str) -> Cow<'_, str> {
    with_colours(text, |part| lines(part))
}

/// One event of a log with its end, which becomes one line whatever is in it.
#[must_use]
pub fn logged(event: &str, colours: bool) -> Cow<'_, str> {
    let (body, end) = match event.strip_suffix('\n') {
        Some(body) => (body, "\n"),
        None => (event, ""),
    };
    let shown = if colours {
        with_colours(body, |part| line(part))
    } else {
        line(body)
    };
    match shown {
        Cow::Borrowed(_) => Cow::Borrowed(event),
        Cow::Owned(shown) => Cow::Owned(shown + end),
    }
}

/// Each part between escapes by itself; an escape stays where it begins a colour.
fn with_colours<'a>(text: &'a str, plain: impl Fn(&'a str) -> Cow<'a, str>) -> Cow<'a, str> {
    let mut parts = text.split('\u{1b}');
    let first = plain(parts.next().unwrap_or_default());
    let mut shown = first.into_owned();
    for part in parts {
        shown.push_str(if is_colour(part) { "\u{1b}" } else { "\\u001b" });
        shown.push_str(&plain(part));
    }
    if shown == text {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(shown)
    }
}

/// What follows an escape: a colour, bold, dim, italic, or the end of these. Nothing that hides a text.
fn is_colour(sequence: &str) -> bool {
    let is_known = |number: &str| matches!(number.parse(), Ok(0_u8..=3 | 30..=37 | 90..=97));
    sequence
        .strip_prefix('[')
        .and_then(|sequence| sequence.split_once('m'))
        .is_some_and(|(numbers, _)| numbers.split(';').all(is_known))
}

fn escaped(text: &str, stays: impl Fn(char) -> bool) -> Cow<'_, str> {
    let steers = |character: char| steers(character) && !stays(character);
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if steers(character) {
            // Writing to a String cannot fail.
            write!(escaped, "\\u{:04x}", u32::from(character)).unwrap_or_default();
        } else {
            escaped.push(character);
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_is_shown_and_everything_else_stays() {
        for plain in [
            "",
            "web-1",
            "B\u{fc}ro \u{1f600} \u{5d0}\u{5d1}",
            "a\\u001b",
            "{\"a\": \"b\"}",
        ] {
            assert!(matches!(line(plain), Cow::Borrowed(same) if same == plain));
        }
        for (text, shown) in [
            ("\u{1b}[31mred\u{7}", "\\u001b[31mred\\u0007"),
            ("a\nb\rc\td\0", "a\\u000ab\\u000dc\\u0009d\\u0000"),
            ("\u{9b}31m\u{7f}", "\\u009b31m\\u007f"),
            ("\u{202e}txt.exe\u{2066}", "\\u202etxt.exe\\u2066"),
            ("a\u{2028}b\u{85}c", "a\\u2028b\\u0085c"),
        ] {
            assert_eq!(line(text), shown);
        }
        assert_eq!(lines("a\n\tb\r\u{1b}c"), "a\n\tb\\u000d\\u001bc");
        // In JSON the escaped form is the character.
        let json = serde_json::to_string("\u{9b}\u{202e}x").unwrap_or_default();
        assert_eq!(
            serde_json::from_str::<String>(&lines(&json)).ok().as_deref(),
            Some("\u{9b}\u{202e}x")
        );
    }

    #[test]
    fn an_event_is_one_line() {
        assert!(matches!(logged("INFO all well\n", false), Cow::Borrowed(_)));
        assert_eq!(
            logged("WARN \u{1b}[1mx\u{1b}[0m\n<3>forged\r\n", true),
            "WARN \u{1b}[1mx\u{1b}[0m\\u000a<3>forged\\u000d\n"
        );
        assert_eq!(logged("a\u{1b}[1mb", false), "a\\u001b[1mb");
        assert!(matches!(
            logged("\u{1b}[32mINFO\u{1b}[0m\n", true),
            Cow::Borrowed(_)
        ));
    }

    #[test]
    fn of_sequences_only_colours_stay() {
        let colours = "\u{1b}[1;31mFAILED\u{1b}[0m  why\n\u{1b}[90mnote\u{1b}[0m";
        assert_eq!(painted(colours), colours);
        assert_eq!(
            painted("a\u{1b}]0;title\u{7}\u{1b}[2J\u{1b}[8m\u{1b}[1;8m\u{9b}31mb\u{1b}"),
            "a\\u001b]0;title\\u0007\\u001b[2J\\u001b[8m\\u001b[1;8m\\u009b31mb\\u001b"
        );
    }
}
