//! How failures are printed and what may be done about them.
//!
//! Owns: [`Chain`], the one printer of an error with its causes, and [`Disposition`], the answer every boundary
//! error gives to "what now?". Never does: logging; an error is logged once, where it is consumed.

use std::error::Error;
use std::fmt;
use std::time::Duration;

/// Prints an error and all its sources, separated by `: `.
///
/// The Display of our errors never repeats the source, so that a chain reads as one sentence. Some libraries do
/// repeat it; a source that is already the tail of what was printed is left out.
#[derive(Debug)]
pub struct Chain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut printed = self.0.to_string();
        f.write_str(&printed)?;
        let mut next = self.0.source();
        while let Some(error) = next {
            let text = error.to_string();
            if !printed.ends_with(&text) {
                write!(f, ": {text}")?;
            }
            printed = text;
            next = error.source();
        }
        Ok(())
    }
}

/// What the caller of a failed operation should do. Policy lives in the error; loops only obey.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// The session is gone: log in once more and repeat.
    Relogin,
    /// Passing trouble: repeat after the loop's own back-off.
    Retry,
    /// Passing trouble with a known earliest time: repeat not before this has passed.
    RetryAfter(Duration),
    /// The request was too much for the server: ask for less.
    Shrink,
    /// One entity of the request is at fault: split until it stands alone.
    Split,
    /// The only entity asked for is at fault: leave it out, explain it.
    SkipEntity,
    /// Repeating the same request cannot succeed until a person changes something.
    Permanent,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("inner: cause")]
    struct Inner(#[source] Cause);

    #[derive(Debug, thiserror::Error)]
    #[error("cause")]
    struct Cause;

    #[test]
    fn a_chain_names_each_cause_once() {
        assert_eq!(Chain(&Outer(Inner(Cause))).to_string(), "outer: inner: cause");
    }
}
