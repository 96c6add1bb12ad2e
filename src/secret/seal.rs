//! One key, and what it seals.
//!
//! Owns: the envelope and what its tag covers. Never does: choosing a key; that is the ring's.
//!
//! ```text
//! envelope = form (1 byte, 1 or 2) | key id (8) | nonce (24, random) | ciphertext | tag (16)
//! covered  = ciphertext, and unencrypted: table name, 0, row (4 bytes, big endian), form, key id;
//!            form 2 also: SHA-256 of the server that it may be shown to (32)
//! ```
//!
//! XChaCha20-Poly1305. Its nonce is long enough to be drawn at random without counting. Since table and row are
//! covered, an envelope opens only where it was made for: a row that is copied over another does not. Since the server
//! is, too, whoever can write the database cannot have a password sent to a server of their own.

use std::fmt;
use std::io;
use std::str::FromStr;

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{KeyInit, Tag, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac as _};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize as _, Zeroizing};

use crate::secret::Secret;

/// Of a place alone. What earlier versions sealed; it opens for ever.
const OF_PLACE: u8 = 1;
/// Of a place, and a server that it may be shown to.
const OF_SERVER: u8 = 2;
const ID_BYTES: usize = 8;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
const KEY_BYTES: usize = 32;

/// What stands in front of the key when its name is made, so that the name tells nothing that another hash of the
/// same key would.
const ID_DOMAIN: &[u8] = b"virt-collector key id 1\0";

/// Name of a key: the beginning of a hash of it, as 16 hexadecimal digits. A damaged key does not have its name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; ID_BYTES]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no name of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key's name is 16 hexadecimal digits, as `virt-collector key list` shows them")]
pub struct NotAKeyId;

impl FromStr for KeyId {
    type Err = NotAKeyId;

    fn from_str(text: &str) -> Result<Self, NotAKeyId> {
        from_hex(text).map(|bytes| Self(*bytes)).ok_or(NotAKeyId)
    }
}

/// Exactly `N` bytes in hexadecimal digits.
pub(super) fn from_hex<const N: usize>(text: &str) -> Option<Zeroizing<[u8; N]>>
where
    [u8; N]: zeroize::Zeroize,
{
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = Zeroizing::new([0; N]);
    let (pairs, _none_left) = text.as_bytes().as_chunks::<2>();
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        let digit = |digit: &u8| char::from(*digit).to_digit(16);
        *byte = u8::try_from(digit(high)? << 4 | digit(low)?).ok()?;
    }
    Some(bytes)
}

/// A key, wiped when dropped.
pub(super) struct Key {
    id: KeyId,
    bytes: Zeroizing<[u8; KEY_BYTES]>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({} [REDACTED])", self.id)
    }
}

impl Key {
    /// A new one, from the operating system's randomness.
    pub(super) fn generate() -> Result<Self, SealError> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        random(&mut *bytes)?;
        Ok(Self::new(bytes))
    }

    pub(super) fn new(bytes: Zeroizing<[u8; KEY_BYTES]>) -> Self {
        let hash: [u8; 32] = Sha256::new()
            .chain_update(ID_DOMAIN)
            .chain_update(*bytes)
            .finalize()
            .into();
        let (parts, _none_left) = hash.as_chunks();
        let id = parts.first().copied().unwrap_or_default();
        Self { id: KeyId(id), bytes }
    }

    pub(super) const fn id(&self) -> KeyId {
        self.id
    }

    /// For its file, which is the one place that it is written to.
    pub(super) fn hex(&self) -> Zeroizing<String> {
        use std::fmt::Write as _;

        let mut text = Zeroizing::new(String::with_capacity(2 * KEY_BYTES));
        for byte in *self.bytes {
            // Writing to a String cannot fail.
            write!(text, "{byte:02x}").unwrap_or_default();
        }
        text
    }

    /// A key for another purpose, from which this one cannot be found.
    pub(super) fn derive(&self, purpose: &[u8]) -> Hmac<Sha256> {
        let mut derived: [u8; KEY_BYTES] = hmac(&self.bytes)
            .chain_update(purpose)
            .finalize()
            .into_bytes()
            .into();
        let keyed = hmac(&derived);
        derived.zeroize();
        keyed
    }

    pub(super) fn seal(&self, place: Place, secret: &Secret) -> Result<Sealed, SealError> {
        let form = place.form();
        let mut nonce = [0; NONCE_BYTES];
        random(&mut nonce)?;
        let mut text = Zeroizing::new(secret.expose().as_bytes().to_vec());
        let tag = XChaCha20Poly1305::new((&*self.bytes).into())
            .encrypt_inout_detached(
                &XNonce::from(nonce),
                &place.covered(form, self.id),
                text.as_mut_slice().into(),
            )
            .map_err(|chacha20poly1305::Error| SealError::TooLong)?;
        let mut bytes = Vec::with_capacity(1 + ID_BYTES + NONCE_BYTES + text.len() + TAG_BYTES);
        bytes.push(form);
        bytes.extend_from_slice(&self.id.0);
        bytes.extend_from_slice(&nonce);
        bytes.extend_from_slice(&text);
        bytes.extend_from_slice(&tag);
        Ok(Sealed { key: self.id, bytes })
    }

    pub(super) fn open(&self, place: Place, envelope: &Envelope<'_>) -> Result<Secret, OpenError> {
        let refused = OpenError::DoesNotOpen { key: self.id };
        let mut text = Zeroizing::new(envelope.ciphertext.to_vec());
        let opened = XChaCha20Poly1305::new((&*self.bytes).into()).decrypt_inout_detached(
            &XNonce::from(*envelope.nonce),
            &place.covered(envelope.form, self.id),
            text.as_mut_slice().into(),
            &Tag::from(*envelope.tag),
        );
        match (opened, str::from_utf8(&text)) {
            (Ok(()), Ok(text)) => Ok(Secret::new(text)),
            _ => Err(refused),
        }
    }
}

fn hmac(key: &[u8; KEY_BYTES]) -> Hmac<Sha256> {
    // A key that is shorter than a block of the hash is filled up with zeros.
    let mut block = Zeroizing::new([0; 64]);
    let (filled, _zeros) = block.split_at_mut(KEY_BYTES);
    filled.copy_from_slice(key);
    Hmac::new(&(*block).into())
}

pub(super) fn random(bytes: &mut [u8]) -> Result<(), SealError> {
    getrandom::fill(bytes).map_err(|source| SealError::Random {
        source: source.into(),
    })
}

/// Where in the database a sealed text stands, and which server it may be shown to. It opens nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    table: &'static str,
    row: i32,
    server: Option<[u8; 32]>,
}

impl Place {
    /// The password of a platform, by the platform's key.
    #[must_use]
    pub const fn password_of(platform_id: i32) -> Self {
        Self {
            table: "virt_platform_credential",
            row: platform_id,
            server: None,
        }
    }

    /// The same, where it is for one server alone: everything that says which one, and how it is known.
    #[must_use]
    pub fn shown_to(self, server: &[&str]) -> Self {
        let mut hash = Sha256::new();
        for part in server {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self {
            server: Some(hash.finalize().into()),
            ..self
        }
    }

    const fn form(self) -> u8 {
        match self.server {
            None => OF_PLACE,
            Some(_) => OF_SERVER,
        }
    }

    /// What the tag covers besides the ciphertext. Only the table's name has no fixed length, and no name holds a 0.
    /// Form 2 for no server covers what no seal does.
    fn covered(self, form: u8, key: KeyId) -> Vec<u8> {
        let mut covered = self.table.as_bytes().to_vec();
        covered.push(0);
        covered.extend_from_slice(&self.row.to_be_bytes());
        covered.push(form);
        covered.extend_from_slice(&key.0);
        if form == OF_SERVER {
            covered.extend(self.server.into_iter().flatten());
        }
        covered
    }
}

/// A sealed text.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed {
    key: KeyId,
    bytes: Vec<u8>,
}

impl Sealed {
    /// The key that sealed it.
    #[must_use]
    pub const fn key(&self) -> KeyId {
        self.key
    }

    /// The envelope, for the database.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes, key {})", self.bytes.len(), self.key)
    }
}

/// An envelope, taken apart but not opened.
pub(super) struct Envelope<'a> {
    form: u8,
    key: KeyId,
    nonce: &'a [u8; NONCE_BYTES],
    ciphertext: &'a [u8],
    tag: &'a [u8; TAG_BYTES],
}

impl<'a> Envelope<'a> {
    pub(super) fn parse(sealed: &'a [u8]) -> Result<Self, OpenError> {
        let truncated = OpenError::Truncated { bytes: sealed.len() };
        match sealed.first() {
            None => return Err(truncated),
            Some(&(OF_PLACE | OF_SERVER)) => {}
            Some(&form) => return Err(OpenError::UnknownForm { form }),
        }
        let parts = || {
            let (form, rest) = sealed.split_first()?;
            let (key, rest) = rest.split_first_chunk()?;
            let (nonce, rest) = rest.split_first_chunk()?;
            let (ciphertext, tag) = rest.split_last_chunk()?;
            Some(Self {
                form: *form,
                key: KeyId(*key),
                nonce,
                ciphertext,
                tag,
            })
        };
        parts().ok_or(truncated)
    }

    pub(super) const fn key(&self) -> KeyId {
        self.key
    }

    /// Whether it opens for one server alone.
    pub(super) const fn is_of_server(&self) -> bool {
        self.form == OF_SERVER
    }
}

/// The key that a sealed text asks for.
///
/// # Errors
/// When it is no envelope that this version knows.
pub fn key_of(sealed: &[u8]) -> Result<KeyId, OpenError> {
    Envelope::parse(sealed).map(|envelope| envelope.key())
}

/// Why a text could not be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The operating system gave no random bytes.
    #[error("the operating system gives no random bytes")]
    Random {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// More than the cipher takes at once (256 GiB).
    #[error("the text is too long to be sealed")]
    TooLong,
}

/// Why a sealed text does not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The first byte is none that this version knows.
    #[error(
        "the sealed password has form {form}, which this virt-collector does not know: it comes from a newer one, or \
         is damaged"
    )]
    UnknownForm {
        /// The byte.
        form: u8,
    },
    /// Less than an envelope.
    #[error("the sealed password is cut short, {bytes} bytes are left: set the password anew")]
    Truncated {
        /// Its length.
        bytes: usize,
    },
    /// The ring does not have the key.
    #[error(
        "the sealed password asks for key {key}, which the key ring does not have: bring back the key file that has \
         it, or set the password anew"
    )]
    MissingKey {
        /// The key.
        key: KeyId,
    },
    /// The tag does not fit.
    #[error(
        "key {key} does not open the sealed password: it was sealed for another platform or another server, or is \
         damaged; set the password anew"
    )]
    DoesNotOpen {
        /// The key.
        key: KeyId,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWORD: &str = "geheim & <\u{fc}>";
    const PLACE: Place = Place::password_of(7);

    /// Of the key of 32 bytes 0x2a.
    const KNOWN_ID: &str = "87fa3a56e3ce8e13";
    /// The password, sealed with that key for that place by libsodium, with the nonce 00 01 02 .. 17.
    const KNOWN: &str = "0187fa3a56e3ce8e13000102030405060708090a0b0c0d0e0f101112131415161721969ec7635208fb4448bbc40bceaa\
        7de04bc73c9377276092743c463a";

    fn key(fill: u8) -> Key {
        Key::new(Zeroizing::new([fill; KEY_BYTES]))
    }

    fn open(key: &Key, place: Place, sealed: &[u8]) -> Result<String, OpenError> {
        let envelope = Envelope::parse(sealed)?;
        if envelope.key() != key.id() {
            return Err(OpenError::MissingKey { key: envelope.key() });
        }
        key.open(place, &envelope)
            .map(|secret| secret.expose().to_owned())
    }

    /// Sealed by another implementation: what is stored today must open with every later version.
    #[test]
    fn an_envelope_of_form_1_opens_for_ever() {
        let key = key(0x2a);
        assert_eq!(key.id().to_string(), KNOWN_ID);
        let sealed = from_hex::<62>(KNOWN).unwrap();
        assert_eq!(open(&key, PLACE, &*sealed), Ok(PASSWORD.to_owned()));
    }

    #[test]
    fn every_flipped_bit_every_missing_and_every_extra_byte_is_rejected() {
        let key = key(1);
        let sealed = key.seal(PLACE, &Secret::new(PASSWORD)).unwrap().bytes;
        assert_eq!(open(&key, PLACE, &sealed), Ok(PASSWORD.to_owned()));
        let does_not_open = Err(OpenError::DoesNotOpen { key: key.id() });

        for bit in 0..8 * sealed.len() {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let rejected = open(&key, PLACE, &flipped);
            match bit / 8 {
                // For no server, the other form covers something else.
                0 if flipped[0] == OF_SERVER => assert_eq!(rejected, does_not_open),
                0 => assert_eq!(rejected, Err(OpenError::UnknownForm { form: flipped[0] })),
                1..=ID_BYTES => {
                    assert!(
                        matches!(rejected, Err(OpenError::MissingKey { key: other }) if other != key.id())
                    );
                }
                _ => assert_eq!(rejected, does_not_open, "bit {bit}"),
            }
        }
        let least = 1 + ID_BYTES + NONCE_BYTES + TAG_BYTES;
        for bytes in 0..sealed.len() {
            let rejected = open(&key, PLACE, &sealed[..bytes]);
            if bytes < least {
                assert_eq!(rejected, Err(OpenError::Truncated { bytes }));
            } else {
                assert_eq!(rejected, does_not_open, "{bytes} bytes");
            }
        }
        for byte in 0..=255 {
            let mut longer = sealed.clone();
            longer.push(byte);
            assert_eq!(open(&key, PLACE, &longer), does_not_open, "{byte} appended");
        }
    }

    #[test]
    fn an_envelope_opens_only_where_it_was_made_for_and_only_with_its_key() {
        let key = key(1);
        let sealed = key.seal(PLACE, &Secret::new(PASSWORD)).unwrap().bytes;
        let does_not_open = Err(OpenError::DoesNotOpen { key: key.id() });
        for row in [0, 6, 8, -7, i32::MAX] {
            assert_eq!(
                open(&key, Place::password_of(row), &sealed),
                does_not_open,
                "{row}"
            );
        }
        let elsewhere = Place {
            table: "virt_api_token",
            row: 7,
            server: None,
        };
        assert_eq!(open(&key, elsewhere, &sealed), does_not_open);

        // Another key under the same name.
        let impostor = Key {
            id: key.id(),
            bytes: Zeroizing::new([2; KEY_BYTES]),
        };
        assert_eq!(open(&impostor, PLACE, &sealed), does_not_open);
    }

    /// The same by a server, which an envelope of form 1 knows nothing of.
    #[test]
    fn a_password_that_is_for_one_server_is_for_no_other_and_cannot_be_made_to_be_for_any() {
        let key = key(1);
        let here = PLACE.shown_to(&["vc.example.com", "443", "system"]);
        let does_not_open = Err(OpenError::DoesNotOpen { key: key.id() });
        let sealed = key.seal(here, &Secret::new(PASSWORD)).unwrap().bytes;
        assert_eq!(open(&key, here, &sealed), Ok(PASSWORD.to_owned()));
        for elsewhere in [
            PLACE,
            Place::password_of(8).shown_to(&["vc.example.com", "443", "system"]),
            PLACE.shown_to(&["vc.example.org", "443", "system"]),
            PLACE.shown_to(&["vc.example.com", "444", "system"]),
            PLACE.shown_to(&["vc.example.com", "443", "off"]),
            PLACE.shown_to(&["vc.example.com443", "", "system"]),
            PLACE.shown_to(&["vc.example.com", "443"]),
        ] {
            assert_eq!(open(&key, elsewhere, &sealed), does_not_open, "{elsewhere:?}");
        }
        let mut of_place = sealed;
        of_place[0] = OF_PLACE;
        assert_eq!(open(&key, here, &of_place), does_not_open);

        let earlier = key.seal(PLACE, &Secret::new(PASSWORD)).unwrap().bytes;
        assert_eq!(open(&key, here, &earlier), Ok(PASSWORD.to_owned()));
        let mut of_server = earlier;
        of_server[0] = OF_SERVER;
        for place in [PLACE, here] {
            assert_eq!(open(&key, place, &of_server), does_not_open);
        }
    }

    #[test]
    fn two_seals_of_one_password_have_nothing_in_common() {
        let key = Key::generate().unwrap();
        let seal = || key.seal(PLACE, &Secret::new(PASSWORD)).unwrap().bytes;
        let (one, other) = (seal(), seal());
        assert_ne!(
            one[1 + ID_BYTES..][..NONCE_BYTES],
            other[1 + ID_BYTES..][..NONCE_BYTES]
        );
        assert_ne!(
            one[1 + ID_BYTES + NONCE_BYTES..],
            other[1 + ID_BYTES + NONCE_BYTES..]
        );
        assert_ne!(Key::generate().unwrap().id(), key.id());
        for seal in [one, other] {
            assert!(!seal.windows(6).any(|bytes| bytes == b"geheim"));
        }
    }

    #[test]
    fn an_empty_and_a_long_password_come_back() {
        let key = key(1);
        for password in [String::new(), "x".repeat(100_000)] {
            let sealed = key.seal(PLACE, &Secret::new(password.as_str())).unwrap();
            assert_eq!(key_of(sealed.bytes()), Ok(key.id()));
            assert_eq!(open(&key, PLACE, sealed.bytes()), Ok(password));
        }
    }

    #[test]
    fn debug_shows_no_key_and_no_ciphertext() {
        let key = key(0xab);
        let sealed = key.seal(PLACE, &Secret::new(PASSWORD)).unwrap();
        let shown = format!("{key:?} {sealed:?}");
        assert_eq!(
            shown,
            format!(
                "Key({id} [REDACTED]) Sealed({n} bytes, key {id})",
                id = key.id(),
                n = sealed.bytes.len()
            )
        );
    }
}
