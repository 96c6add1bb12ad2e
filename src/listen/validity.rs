//! Until when a certificate is good: the one date of it that nobody else reads for us.
//!
//! Owns: finding `notAfter` in the DER of an X.509 certificate. Never does: judging the certificate; whoever connects
//! does. Wire bytes cannot panic it: what is not as X.509 has it has no date.

use crate::units::Stamp;

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// `[0] EXPLICIT`, the version, which version 1 leaves out.
const VERSION: u8 = 0xa0;

/// The date; `None` where there is none at its place.
pub(super) fn not_after(certificate: &[u8]) -> Option<Stamp> {
    let (certificate, _) = element(certificate, SEQUENCE)?;
    let (to_be_signed, _) = element(certificate, SEQUENCE)?;
    let rest = element(to_be_signed, VERSION).map_or(to_be_signed, |(_, rest)| rest);
    let (_serial, rest) = element(rest, INTEGER)?;
    let (_algorithm, rest) = element(rest, SEQUENCE)?;
    let (_issuer, rest) = element(rest, SEQUENCE)?;
    let (validity, _) = element(rest, SEQUENCE)?;
    let (_not_before, rest) = time(validity)?;
    let (not_after, _) = time(rest)?;
    not_after.parse().ok()
}

/// Content of the element in front, if it has this tag, and what follows it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let (length, rest) = rest.split_first()?;
    let (length, rest) = match *length {
        short @ 0..=0x7f => (usize::from(short), rest),
        long @ 0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(long & 0x0f))?;
            let length = digits
                .iter()
                .fold(0_usize, |length, digit| (length << 8) | usize::from(*digit));
            (length, rest)
        }
        _ => return None,
    };
    (*first == tag).then(|| rest.split_at_checked(length))?
}

/// A time as RFC 5280 lets certificates have it, `YYMMDDHHMMSSZ` or with four digits of the year, as RFC 3339 has it.
fn time(bytes: &[u8]) -> Option<(String, &[u8])> {
    let short = element(bytes, UTC_TIME);
    let (text, rest) = short.or_else(|| element(bytes, GENERALIZED_TIME))?;
    let text = str::from_utf8(text).ok()?;
    let (year, of_year) = if short.is_some() {
        let (year, of_year) = text.split_at_checked(2)?;
        let century = if year < "50" { "20" } else { "19" };
        (format!("{century}{year}"), of_year)
    } else {
        let (year, of_year) = text.split_at_checked(4)?;
        (year.to_owned(), of_year)
    };
    let mut pairs = of_year.as_bytes().chunks(2).map(str::from_utf8);
    let mut pair = || pairs.next()?.ok();
    let [month, day, hour, minute, second] = [pair()?, pair()?, pair()?, pair()?, pair()?];
    let zone = pair()?;
    Some((
        format!("{year}-{month}-{day}T{hour}:{minute}:{second}{zone}"),
        rest,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn until(year: i32) -> Vec<u8> {
        let mut parameters = rcgen::CertificateParams::new(["collector.example.com".to_owned()]).unwrap();
        parameters.not_after = rcgen::date_time_ymd(year, 5, 31);
        let key = rcgen::KeyPair::generate().unwrap();
        parameters.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_end_of_a_certificate_is_read_before_and_after_2050() {
        for (year, expected) in [
            (2031, "2031-05-31T00:00:00Z"),
            (2049, "2049-05-31T00:00:00Z"),
            (2050, "2050-05-31T00:00:00Z"),
        ] {
            assert_eq!(not_after(&until(year)), Some(expected.parse().unwrap()));
        }
    }

    #[test]
    fn a_certificate_that_is_cut_or_is_none_has_no_end() {
        let whole = until(2031);
        for length in 0..whole.len() {
            assert_eq!(not_after(&whole[..length]), None, "{length} bytes");
        }
        // Whatever a byte is instead, it is another date or none, and no panic.
        for place in 0..whole.len() {
            for byte in [0x00, 0x30, 0x7f, 0x80, 0x84, 0xff] {
                let mut changed = whole.clone();
                changed[place] = byte;
                not_after(&changed);
            }
        }
    }
}
