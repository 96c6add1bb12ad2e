//! Secrets: text that must not be printed, reading it from where operators keep it, and sealing it for the database.
//!
//! Owns: [`Secret`], [`read_file`], the seal ([`Sealed`]) and the key ring ([`KeyRing`], [`key_file`]).
//! Never does: environment variables or arguments; both are visible to others. The one variable that is read is
//! systemd's `CREDENTIALS_DIRECTORY`, which names a directory and holds nothing secret.
//!
//! | part | one job |
//! |---|---|
//! | `credential` | the copy of a file that systemd hands over |
//! | `file` | a password on the first line of a file |
//! | `seal` | one key: a text into an envelope for one place of the database, and back |
//! | `key_ring` | several keys, one of which seals; all of them open |
//! | [`key_file`] | the ring as a file that nobody else may read, replaced as a whole |
//! | `sealed_password` | a seal with the file of its keys, opened when it is needed |
//! | `token` | a token of the admin API, and the MAC that ties it to its rights |
//!
//! Invariant: no error of this module holds a secret or a part of one.

mod credential;
mod file;
pub mod key_file;
mod key_ring;
mod seal;
mod sealed_password;
mod token;

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

pub use file::{FileError, read_file};
pub use key_file::KeyFileError;
pub use key_ring::{KeyRing, RetireError, RingError, UnknownKey};
pub use seal::{KeyId, OpenError, Place, SealError, Sealed, key_of};
pub use sealed_password::{Error as SealedPasswordError, SealedPassword};
pub use token::{Grant, Token, TokenMac};

/// A text that neither `Debug` nor `Display` shows, wiped when dropped.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Wraps a text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(SecretString::from(text.into()))
    }

    /// The text, for the one place that sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[REDACTED]")
    }
}
