//! A token of the admin API, and the MAC that ties it to its rights.
//!
//! ```text
//! token   = "vc_" row "_" base64url(32 random bytes)
//! covered = row (4 bytes, big endian), the 32 bytes, name, role, platforms, expiry (8 bytes, microseconds)
//! ```
//!
//! A text is covered behind its length, the list of platforms behind its number, so that no two rows cover the same
//! bytes. The MAC is HMAC-SHA256 with a key that is derived from one of the ring for this purpose alone. It is
//! compared by the `hmac` crate's `verify_slice`, whose time does not depend on where the first difference is: that
//! is the one place where a token is compared, and nothing of one is looked up anywhere but its row's number.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::secret::Secret;
use crate::secret::key_ring::{KeyRing, UnknownKey};
use crate::secret::seal::{Key, KeyId, SealError, random};

const PREFIX: &str = "vc_";
const BYTES: usize = 32;
const ENCODED: usize = 43;
const PURPOSE: &[u8] = b"virt-collector api token 1\0";

/// Who shows it may do what its row says.
pub struct Token {
    row: i32,
    bytes: Zeroizing<[u8; BYTES]>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({} [REDACTED])", self.row)
    }
}

impl Token {
    /// A new one for a row.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn generate(row: i32) -> Result<Self, SealError> {
        let mut bytes = Zeroizing::new([0; BYTES]);
        random(&mut *bytes)?;
        Ok(Self { row, bytes })
    }

    /// Reads what [`Token::text`] writes; nothing else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (row, encoded) = text.strip_prefix(PREFIX)?.split_once('_')?;
        if encoded.len() != ENCODED {
            return None;
        }
        let number: i32 = row.parse().ok().filter(|number| *number > 0)?;
        if number.to_string() != row {
            return None;
        }
        let mut bytes = Zeroizing::new([0; BYTES]);
        match URL_SAFE_NO_PAD.decode_slice(encoded, &mut *bytes) {
            Ok(BYTES) => Some(Self { row: number, bytes }),
            _ => None,
        }
    }

    /// What its owner is given.
    #[must_use]
    pub fn text(&self) -> Secret {
        let encoded = Zeroizing::new(URL_SAFE_NO_PAD.encode(*self.bytes));
        Secret::new(format!("{PREFIX}{}_{}", self.row, *encoded))
    }

    /// The row that says what it may do.
    #[must_use]
    pub const fn row(&self) -> i32 {
        self.row
    }
}

/// What a token's row says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its role.
    pub role: &'a str,
    /// The platforms that it is limited to; `None` for all.
    pub platforms: Option<&'a [String]>,
    /// When it ends, in microseconds since 1970.
    pub expires_at: i64,
}

/// A MAC, for the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenMac {
    /// The key that it was made with.
    pub key: KeyId,
    /// The MAC.
    pub mac: [u8; 32],
}

impl KeyRing {
    /// Ties a token to its row, with the primary key.
    #[must_use]
    pub fn sign_token(&self, token: &Token, grant: &Grant<'_>) -> TokenMac {
        let key = self.primary_key();
        TokenMac {
            key: key.id(),
            mac: covering(key, token, grant).finalize().into_bytes().into(),
        }
    }

    /// True where the token belongs to the row that was read, and the row is as it was written.
    ///
    /// # Errors
    /// When the key is not in the ring.
    pub fn verify_token(
        &self,
        token: &Token,
        grant: &Grant<'_>,
        key: KeyId,
        mac: &[u8],
    ) -> Result<bool, UnknownKey> {
        let key = self.key(key)?;
        Ok(covering(key, token, grant).verify_slice(mac).is_ok())
    }
}

fn covering(key: &Key, token: &Token, grant: &Grant<'_>) -> Hmac<Sha256> {
    let Grant {
        name,
        role,
        platforms,
        expires_at,
    } = *grant;
    let mut mac = key.derive(PURPOSE);
    mac.update(&token.row.to_be_bytes());
    mac.update(&*token.bytes);
    text(&mut mac, name);
    text(&mut mac, role);
    match platforms {
        None => mac.update(&u64::MAX.to_be_bytes()),
        Some(platforms) => {
            mac.update(&(platforms.len() as u64).to_be_bytes());
            for platform in platforms {
                text(&mut mac, platform);
            }
        }
    }
    mac.update(&expires_at.to_be_bytes());
    mac
}

fn text(mac: &mut Hmac<Sha256>, text: &str) {
    mac.update(&(text.len() as u64).to_be_bytes());
    mac.update(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRANT: Grant<'_> = Grant {
        name: "night job",
        role: "operator",
        platforms: None,
        expires_at: 1_800_000_000_000_000,
    };

    #[test]
    fn a_token_is_read_as_it_was_written_and_in_no_other_form() {
        let token = Token::generate(7).unwrap();
        let text = token.text();
        let text = text.expose();
        assert!(
            text.starts_with("vc_7_") && text.len() == 5 + 43,
            "{}",
            text.len()
        );
        let read = Token::parse(text).unwrap();
        assert_eq!((read.row, *read.bytes), (7, *token.bytes));
        assert!(!format!("{token:?}").contains(text.get(5..).unwrap()));

        let encoded = text.get(5..).unwrap();
        for other in [
            String::new(),
            encoded.to_owned(),
            format!("vc_{encoded}"),
            format!("vc_07_{encoded}"),
            format!("vc_+7_{encoded}"),
            format!("vc_-7_{encoded}"),
            format!("vc_0_{encoded}"),
            format!("vc_99999999999_{encoded}"),
            format!("VC_7_{encoded}"),
            format!("{text}="),
            format!("{text} "),
            format!(" {text}"),
            format!("vc_7_{}", "A".repeat(42)),
            format!("vc_7_{}+", "A".repeat(42)),
            // The last two bits belong to no byte.
            format!("vc_7_{}B", "A".repeat(42)),
            format!("vc_7_{}", "\u{e4}".repeat(21) + "A"),
        ] {
            assert!(Token::parse(&other).is_none(), "{other:?}");
        }
    }

    #[test]
    fn a_mac_holds_for_one_token_one_row_and_one_key() {
        let mut ring = KeyRing::generate().unwrap();
        let token = Token::generate(7).unwrap();
        let TokenMac { key, mac } = ring.sign_token(&token, &GRANT);
        assert_eq!(ring.verify_token(&token, &GRANT, key, &mac), Ok(true));

        let (one, two) = (
            ["a".to_owned(), "bc".to_owned()],
            ["ab".to_owned(), "c".to_owned()],
        );
        let mut seen = vec![mac];
        for grant in [
            Grant {
                name: "night jo",
                ..GRANT
            },
            Grant {
                role: "admin",
                ..GRANT
            },
            Grant {
                expires_at: GRANT.expires_at + 1,
                ..GRANT
            },
            Grant {
                platforms: Some(&[]),
                ..GRANT
            },
            Grant {
                platforms: Some(&one),
                ..GRANT
            },
            Grant {
                platforms: Some(&two),
                ..GRANT
            },
            Grant {
                name: "night job\0",
                role: "operator",
                ..GRANT
            },
            Grant {
                name: "night joboperator",
                role: "",
                ..GRANT
            },
        ] {
            assert_eq!(
                ring.verify_token(&token, &grant, key, &mac),
                Ok(false),
                "{grant:?}"
            );
            let other = ring.sign_token(&token, &grant).mac;
            assert!(!seen.contains(&other), "{grant:?}");
            seen.push(other);
        }
        for other in [
            Token::generate(7).unwrap(),
            Token {
                row: 8,
                bytes: token.bytes.clone(),
            },
        ] {
            assert_eq!(
                ring.verify_token(&other, &GRANT, key, &mac),
                Ok(false),
                "{other:?}"
            );
        }
        for n in 0..mac.len() {
            let mut damaged = mac;
            damaged[n] ^= 1;
            assert_eq!(ring.verify_token(&token, &GRANT, key, &damaged), Ok(false));
            assert_eq!(ring.verify_token(&token, &GRANT, key, &mac[..n]), Ok(false));
        }

        let second = ring.add().unwrap();
        ring.promote(second).unwrap();
        assert_eq!(
            ring.verify_token(&token, &GRANT, key, &mac),
            Ok(true),
            "until its key is retired"
        );
        assert_eq!(ring.verify_token(&token, &GRANT, second, &mac), Ok(false));
        ring.retire(key).unwrap();
        assert_eq!(
            ring.verify_token(&token, &GRANT, key, &mac),
            Err(UnknownKey { key })
        );
    }
}
