//! How a password comes in: asked for without echo, from standard input, or from a file.
//!
//! Never does: arguments or the environment; both are visible to others.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read};
use std::path::PathBuf;

use clap::Args;
use zeroize::Zeroizing;

use super::Failure;
use crate::secret;
use crate::secret::Secret;

/// More than any server takes.
const LIMIT: usize = 4096;

/// Where the password comes from; a terminal is asked where neither is given.
#[derive(Debug, Args)]
pub(super) struct PasswordArgs {
    /// Read the password from standard input: all of it, but for one line end.
    #[arg(long, conflicts_with = "password_file")]
    password_stdin: bool,
    /// Read the password from the first line of this file, which must not be readable by everyone.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

/// Why there is no password.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(
        "cannot ask for the password on a terminal; give it with --password-stdin or --password-file FILE"
    )]
    NoTerminal(#[source] io::Error),
    #[error("no password was typed")]
    NotTyped(#[source] io::Error),
    #[error(
        "standard input is a terminal, which would show the password; leave out --password-stdin and be asked"
    )]
    Shown,
    #[error("cannot read the password from standard input")]
    Read(#[source] io::Error),
    #[error("the password is empty")]
    Empty,
    #[error("the password is longer than {LIMIT} bytes")]
    TooLong,
    #[error("the password is not UTF-8 text")]
    NotText,
    #[error("standard input holds more than one line; it must hold the password alone")]
    Lines,
}

impl PasswordArgs {
    /// True where the arguments say where it comes from.
    pub(super) const fn given(&self) -> bool {
        self.password_stdin || self.password_file.is_some()
    }

    /// The password. `prompt` is what a person is asked.
    pub(super) fn read(&self, prompt: &str) -> Result<Secret, Failure> {
        if let Some(path) = &self.password_file {
            return secret::read_file(path).map_err(Failure::other);
        }
        if self.password_stdin {
            let stdin = io::stdin();
            if stdin.is_terminal() {
                return Err(Failure::other(Error::Shown));
            }
            return alone(stdin.lock()).map_err(Failure::other);
        }
        ask(prompt).map_err(Failure::other)
    }
}

/// Asks on the terminal of this process, wherever standard input and output go.
fn ask(prompt: &str) -> Result<Secret, Error> {
    File::open("/dev/tty").map_err(Error::NoTerminal)?;
    let typed = Zeroizing::new(rpassword::prompt_password(prompt).map_err(Error::NotTyped)?);
    if typed.is_empty() {
        return Err(Error::Empty);
    }
    Ok(Secret::new(typed.as_str()))
}

/// Everything that comes is the password, but for one line end.
fn alone(input: impl Read) -> Result<Secret, Error> {
    // A buffer that grows would leave what it held behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(LIMIT + 2));
    input
        .take(LIMIT as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(Error::Read)?;
    if bytes.len() > LIMIT {
        return Err(Error::TooLong);
    }
    let Ok(text) = str::from_utf8(&bytes) else {
        return Err(Error::NotText);
    };
    let line = text.strip_suffix('\n').unwrap_or(text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() {
        return Err(Error::Empty);
    }
    if line.contains('\n') {
        return Err(Error::Lines);
    }
    Ok(Secret::new(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_input_is_the_password_but_for_one_line_end() {
        for (input, password) in [
            ("geheim", "geheim"),
            ("geheim\n", "geheim"),
            ("geheim\r\n", "geheim"),
            (" p&w <\u{e4}> \n", " p&w <\u{e4}> "),
        ] {
            assert_eq!(alone(input.as_bytes()).unwrap().expose(), password);
        }
        assert_eq!(alone("x".repeat(LIMIT).as_bytes()).unwrap().expose().len(), LIMIT);
    }

    #[test]
    fn what_cannot_be_a_password_is_refused_without_being_shown() {
        for (input, error) in [
            (b"".to_vec(), "empty"),
            (b"\n".to_vec(), "empty"),
            (b"geheim\nnote\n".to_vec(), "more than one line"),
            (b"geheim\n\n".to_vec(), "more than one line"),
            (b"geheim\xff".to_vec(), "not UTF-8"),
            (b"geheim".repeat(LIMIT), "longer than 4096"),
        ] {
            let refused = alone(input.as_slice()).unwrap_err();
            let said = format!("{refused} {refused:?}");
            assert!(said.contains(error) && !said.contains("geheim"), "{said}");
        }
    }
}
