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

/// One line with its end. Where `colours` are wanted, escape sequences stay: whoever wrote the line has seen to those
/// that are not its own.
#[must_use]
pub fn logged(text: &str, colours: bool) -> Cow<'_, str> {
    match text.strip_suffix('\n') {
        None => escaped(text, |character| colours && character == '\u{1b}'),
        Some(body) => match escaped(body, |character| colours && character == '\u{1b}') {
            Cow::Borrowed(_) => Cow::Borrowed(text),
            Cow::Owned(mut escaped) => {
                escaped.push('\n');
                Cow::Owned(escaped)
            }
        },
    }
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
        assert_eq!(logged("a\u{1b}b", false), "a\\u001bb");
    }
}
