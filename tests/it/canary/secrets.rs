//! The words that must not be found, and the forms in which they would be.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What must not be found, by what it is.
#[derive(Default)]
pub(super) struct Secrets(pub(super) BTreeMap<String, String>);

impl Secrets {
    /// A word that nothing else holds, among characters that have to be escaped on several ways.
    pub(super) fn password(&mut self, of: &str) -> String {
        let word = format!("Kanari{}", uuid::Uuid::new_v4().simple());
        self.add(of, &word);
        format!("{word} & <\"\u{fc}\">")
    }

    pub(super) fn add(&mut self, what: &str, secret: &str) {
        assert!(secret.len() >= 32, "{what} is too short to be unique");
        self.0.insert(what.to_owned(), secret.to_owned());
    }

    /// Which secrets a text holds: as they are, as hexadecimal digits, as a list of bytes, or in base64, whatever stands before them.
    pub(super) fn found_in(&self, text: &str) -> Vec<&str> {
        self.0
            .iter()
            .filter(|(_, secret)| forms(secret).iter().any(|form| text.contains(form)))
            .map(|(what, _)| what.as_str())
            .collect()
    }
}

pub(super) fn forms(secret: &str) -> Vec<String> {
    let hex = |upper: bool| {
        secret.bytes().fold(String::new(), |mut text, byte| {
            if upper {
                write!(text, "{byte:02X}").unwrap();
            } else {
                write!(text, "{byte:02x}").unwrap();
            }
            text
        })
    };
    let bytes: Vec<String> = secret.bytes().map(|byte| byte.to_string()).collect();
    let mut forms = vec![secret.to_owned(), hex(false), hex(true), bytes.join(", ")];
    for skip in 0..3 {
        // Three bytes are four digits: in one of three places, a secret's digits follow from it alone.
        let bytes = &secret.as_bytes()[skip..];
        forms.push(base64(&bytes[..bytes.len() / 3 * 3]));
    }
    forms
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    bytes
        .chunks_exact(3)
        .flat_map(|three| {
            let number = u32::from(three[0]) << 16 | u32::from(three[1]) << 8 | u32::from(three[2]);
            [18, 12, 6, 0].map(|shift| char::from(DIGITS[(number >> shift & 63) as usize]))
        })
        .collect()
}
