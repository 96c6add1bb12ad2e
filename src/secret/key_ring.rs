//! Several keys, one of which seals.
//!
//! Owns: which key seals, which ones open, and their form as text. Never does: files; that is
//! [`crate::secret::key_file`].
//!
//! Invariant: a ring has exactly one primary key, by its type.

use zeroize::Zeroizing;

use crate::secret::Secret;
use crate::secret::seal::{Envelope, Key, KeyId, OpenError, Place, SealError, Sealed, from_hex};

/// What the file starts with. Lines that start with `#` mean nothing.
const HEADER: &str = "\
# The key ring of virt-collector: it seals the passwords of platforms in the database.
# Whoever has this file and the database has the passwords; without this file they are lost. Keep a copy of it, but
# not where the database's backups are. `virt-collector key` changes it: one line per key, the primary key seals.
";
const PRIMARY: &str = "primary";
const SECONDARY: &str = "secondary";

/// Keys: the primary one seals, all of them open.
#[derive(Debug)]
pub struct KeyRing {
    primary: Key,
    others: Vec<Key>,
}

/// A text that is no key ring. Names lines, never what is in them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// Not `ID primary|secondary KEY`.
    #[error(
        "line {line} is not a key: it must be its name, the word primary or secondary, and 64 hexadecimal digits"
    )]
    Line {
        /// The line, from 1.
        line: usize,
    },
    /// A key's name is made of the key.
    #[error(
        "line {line} holds another key than its name says: the line is damaged, bring back a copy of the file"
    )]
    Damaged {
        /// The line, from 1.
        line: usize,
    },
    /// A key stands twice.
    #[error("key {key} stands twice: remove one of the lines")]
    Twice {
        /// The key.
        key: KeyId,
    },
    /// Two primary keys.
    #[error("keys {one} and {other} are both marked primary: mark one of them secondary")]
    TwoPrimaries {
        /// The first.
        one: KeyId,
        /// The second.
        other: KeyId,
    },
    /// No primary key.
    #[error("no key is marked primary: mark the one that is to seal")]
    NoPrimary,
}

/// The ring does not have a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the key ring has no key {key}; `virt-collector key list` shows those that it has")]
pub struct UnknownKey {
    /// The key.
    pub key: KeyId,
}

/// Why a key stays in the ring.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RetireError {
    /// It is not there.
    #[error(transparent)]
    Unknown(#[from] UnknownKey),
    /// It seals.
    #[error("key {key} is the primary key: promote another one first")]
    Primary {
        /// The key.
        key: KeyId,
    },
}

impl KeyRing {
    /// A ring of one new key.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn generate() -> Result<Self, SealError> {
        Ok(Self {
            primary: Key::generate()?,
            others: Vec::new(),
        })
    }

    /// Seals a text for one place, with the primary key.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn seal(&self, place: Place, secret: &Secret) -> Result<Sealed, SealError> {
        self.primary.seal(place, secret)
    }

    /// Opens what was sealed for the same place, with whichever key sealed it.
    ///
    /// # Errors
    /// When the key is not in the ring, when it was sealed for another place, when a single bit is another one.
    pub fn open(&self, place: Place, sealed: &[u8]) -> Result<Secret, OpenError> {
        let envelope = Envelope::parse(sealed)?;
        self.key(envelope.key())
            .map_err(|UnknownKey { key }| OpenError::MissingKey { key })?
            .open(place, &envelope)
    }

    /// Whether there is nothing better than this seal: it is of the primary key, and for one server alone.
    #[must_use]
    pub fn is_newest(&self, sealed: &[u8]) -> bool {
        Envelope::parse(sealed)
            .is_ok_and(|envelope| envelope.key() == self.primary() && envelope.is_of_server())
    }

    pub(super) const fn primary_key(&self) -> &Key {
        &self.primary
    }

    pub(super) fn key(&self, key: KeyId) -> Result<&Key, UnknownKey> {
        self.keys()
            .find(|candidate| candidate.id() == key)
            .ok_or(UnknownKey { key })
    }

    /// The key that seals.
    #[must_use]
    pub const fn primary(&self) -> KeyId {
        self.primary.id()
    }

    /// The names of all keys, the primary one first, then the newest.
    pub fn ids(&self) -> impl Iterator<Item = KeyId> {
        self.keys().map(Key::id)
    }

    /// Adds a new key, which opens but does not seal yet.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn add(&mut self) -> Result<KeyId, SealError> {
        let key = Key::generate()?;
        let id = key.id();
        self.others.insert(0, key);
        Ok(id)
    }

    /// Makes a key the one that seals. The one before keeps opening.
    ///
    /// # Errors
    /// When the ring does not have it.
    pub fn promote(&mut self, key: KeyId) -> Result<(), UnknownKey> {
        if self.primary.id() == key {
            return Ok(());
        }
        let promoted = self.position(key)?;
        let before = std::mem::replace(&mut self.primary, self.others.remove(promoted));
        self.others.insert(0, before);
        Ok(())
    }

    /// Removes a key. What it sealed does not open any more: it is for the caller to know that there is nothing.
    ///
    /// # Errors
    /// When the ring does not have it, or it is the primary one.
    pub fn retire(&mut self, key: KeyId) -> Result<(), RetireError> {
        if self.primary.id() == key {
            return Err(RetireError::Primary { key });
        }
        let retired = self.position(key)?;
        drop(self.others.remove(retired));
        Ok(())
    }

    /// Reads the form that [`KeyRing::text`] writes.
    ///
    /// # Errors
    /// When a line is no key, or there is not exactly one primary key.
    pub(super) fn parse(text: &str) -> Result<Self, RingError> {
        let mut primary: Option<Key> = None;
        let mut others: Vec<Key> = Vec::new();
        for (index, text) in text.lines().enumerate() {
            let line = index + 1;
            let mut words = text.split_whitespace().take_while(|_| !text.starts_with('#'));
            let Some(id) = words.next() else { continue };
            let (Ok(id), Some(state), Some(key), None) = (
                id.parse::<KeyId>(),
                words.next(),
                words.next().and_then(from_hex).map(Key::new),
                words.next(),
            ) else {
                return Err(RingError::Line { line });
            };
            if key.id() != id {
                return Err(RingError::Damaged { line });
            }
            if primary.iter().chain(&others).any(|other| other.id() == id) {
                return Err(RingError::Twice { key: id });
            }
            match (state, &primary) {
                (PRIMARY, None) => primary = Some(key),
                (PRIMARY, Some(one)) => {
                    return Err(RingError::TwoPrimaries {
                        one: one.id(),
                        other: id,
                    });
                }
                (SECONDARY, _) => others.push(key),
                _ => return Err(RingError::Line { line }),
            }
        }
        let primary = primary.ok_or(RingError::NoPrimary)?;
        Ok(Self { primary, others })
    }

    /// The file's text.
    pub(super) fn text(&self) -> Zeroizing<String> {
        // Known before the first key is written: a String that grows leaves what it held behind.
        let line = "0123456789abcdef secondary \n".len() + 64;
        let mut text = Zeroizing::new(String::with_capacity(
            HEADER.len() + line * (1 + self.others.len()),
        ));
        text.push_str(HEADER);
        for key in self.keys() {
            let state = if key.id() == self.primary.id() {
                PRIMARY
            } else {
                SECONDARY
            };
            text.push_str(&format!("{} {state} ", key.id()));
            text.push_str(&key.hex());
            text.push('\n');
        }
        text
    }

    fn keys(&self) -> impl Iterator<Item = &Key> {
        std::iter::once(&self.primary).chain(&self.others)
    }

    /// Among the others.
    fn position(&self, key: KeyId) -> Result<usize, UnknownKey> {
        self.others
            .iter()
            .position(|other| other.id() == key)
            .ok_or(UnknownKey { key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place::password_of(1);

    fn sealed_by(ring: &KeyRing) -> Sealed {
        ring.seal(PLACE, &Secret::new("geheim")).unwrap()
    }

    fn ids(ring: &KeyRing) -> Vec<KeyId> {
        ring.ids().collect()
    }

    /// The lines of the file that are keys.
    fn lines(ring: &KeyRing) -> Vec<String> {
        let text = ring.text();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(str::to_owned).collect()
    }

    #[test]
    fn a_rotation_keeps_every_seal_open_until_its_key_is_retired() {
        let mut ring = KeyRing::generate().unwrap();
        let first = ring.primary();
        let before = sealed_by(&ring);
        assert_eq!(before.key(), first);

        let second = ring.add().unwrap();
        assert_eq!((ring.primary(), ids(&ring)), (first, vec![first, second]));
        assert_eq!(sealed_by(&ring).key(), first);

        ring.promote(second).unwrap();
        ring.promote(second).unwrap();
        assert_eq!((ring.primary(), ids(&ring)), (second, vec![second, first]));
        let after = sealed_by(&ring);
        assert_eq!(after.key(), second);
        for sealed in [&before, &after] {
            assert_eq!(ring.open(PLACE, sealed.bytes()).unwrap().expose(), "geheim");
        }

        assert_eq!(ring.retire(second), Err(RetireError::Primary { key: second }));
        ring.retire(first).unwrap();
        let unknown = UnknownKey { key: first };
        assert_eq!(ring.promote(first), Err(unknown.clone()));
        assert_eq!(ring.retire(first), Err(RetireError::Unknown(unknown)));
        assert_eq!(
            ring.open(PLACE, before.bytes()).unwrap_err(),
            OpenError::MissingKey { key: first }
        );
        assert_eq!(ring.open(PLACE, after.bytes()).unwrap().expose(), "geheim");
    }

    #[test]
    fn a_ring_is_the_same_after_it_was_written_and_read() {
        let mut ring = KeyRing::generate().unwrap();
        let second = ring.add().unwrap();
        ring.add().unwrap();
        ring.promote(second).unwrap();
        let sealed = sealed_by(&ring);
        let read = KeyRing::parse(&ring.text()).unwrap();
        assert_eq!((read.primary(), ids(&read)), (ring.primary(), ids(&ring)));
        assert_eq!(read.open(PLACE, sealed.bytes()).unwrap().expose(), "geheim");
        assert_eq!(*read.text(), *ring.text());
    }

    #[test]
    fn a_text_that_is_no_ring_is_refused_by_line_and_never_quoted() {
        let mut ring = KeyRing::generate().unwrap();
        let second = ring.add().unwrap();
        let [one, other] = lines(&ring).try_into().unwrap();
        let id = ring.primary();
        let also_primary = other.replace(SECONDARY, PRIMARY);
        let digit = if one.ends_with('0') { "1" } else { "0" };
        let shortened = one.strip_suffix(|_: char| true).unwrap().to_owned();
        let damaged = format!("{shortened}{digit}");
        for (text, error) in [
            (String::new(), RingError::NoPrimary),
            (other.clone(), RingError::NoPrimary),
            (format!("# {one}"), RingError::NoPrimary),
            (
                format!("{one}\n{also_primary}"),
                RingError::TwoPrimaries {
                    one: id,
                    other: second,
                },
            ),
            (format!("{one}\n\n{one}"), RingError::Twice { key: id }),
            (format!("\n{damaged}"), RingError::Damaged { line: 2 }),
            (shortened, RingError::Line { line: 1 }),
            (format!("{one}0"), RingError::Line { line: 1 }),
            (format!("{one} note"), RingError::Line { line: 1 }),
            (one.replace(PRIMARY, "first"), RingError::Line { line: 1 }),
            (one.replace(PRIMARY, ""), RingError::Line { line: 1 }),
            (format!("{one}\nx"), RingError::Line { line: 2 }),
            (one.replace(' ', "\u{e4}"), RingError::Line { line: 1 }),
        ] {
            let refused = KeyRing::parse(&text).unwrap_err();
            assert_eq!(refused, error, "{text}");
            let key = one.split_whitespace().next_back().unwrap();
            let said = format!("{refused} {refused:?} {ring:?}");
            assert!(!said.contains(key.get(..8).unwrap()), "{said}");
        }
    }
}
