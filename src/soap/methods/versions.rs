//! Which version of the API is spoken.
//!
//! A newer server answers an older version by hiding what is newer, so the highest version whose definitions the
//! requests here were written against is the one that shows most and surprises least.

use crate::soap::xml;
use crate::soap::xml::Reader;

/// The oldest version spoken: also the one in which a server without a list of versions is greeted.
pub(crate) const OLDEST: &str = "6.5";

/// Versions from [`OLDEST`] up to every 9.0.x are spoken; the methods used have not changed in between.
const RANGE: std::ops::RangeInclusive<(u32, u32)> = (6, 5)..=(9, 0);

/// The highest version of the server's list that is spoken here; `None` where there is none, or no list.
pub(crate) fn choose(list: &str) -> Option<String> {
    let offered = read(list).ok()?;
    offered
        .into_iter()
        .filter_map(|version| Some((parse(&version)?, version)))
        .max()
        .map(|(_, version)| version)
}

fn parse(version: &str) -> Option<Vec<u32>> {
    let numbers: Vec<u32> = version
        .split('.')
        // A number may begin with "+", a version may not.
        .map(|part| {
            part.bytes()
                .all(|byte| byte.is_ascii_digit())
                .then(|| part.parse().ok())?
        })
        .collect::<Option<_>>()?;
    match numbers.as_slice() {
        [major, minor, ..] if RANGE.contains(&(*major, *minor)) => Some(numbers),
        _ => None,
    }
}

/// All versions of the namespace `urn:vim25`.
fn read(list: &str) -> Result<Vec<String>, xml::Error> {
    let mut xml = Reader::new(list);
    let mut versions = Vec::new();
    let root = xml.root()?;
    if root.name() != "namespaces" {
        return Err(xml::Error::unexpected("namespaces", root.name()));
    }
    while let Some(_namespace) = xml.next_child()? {
        let mut ours = false;
        let mut offered = Vec::new();
        while let Some(part) = xml.next_child()? {
            match part.name() {
                "name" => ours = xml.text()? == "urn:vim25",
                "version" => offered.push(xml.text()?.into_owned()),
                "priorVersions" => {
                    while let Some(_version) = xml.next_child()? {
                        offered.push(xml.text()?.into_owned());
                    }
                }
                _ => xml.skip()?,
            }
        }
        if ours {
            versions.append(&mut offered);
        }
    }
    xml.finish()?;
    Ok(versions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(current: &str, prior: &[&str]) -> String {
        let prior: String = prior
            .iter()
            .map(|version| format!("<version>{version}</version>"))
            .collect();
        format!(
            "<?xml version=\"1.0\"?><namespaces version=\"1.0\"><namespace><name>urn:vim2</name>\
             <version>8.0.9.9</version></namespace><namespace><name>urn:vim25</name><version>{current}</version>\
             <priorVersions>{prior}</priorVersions></namespace></namespaces>"
        )
    }

    #[test]
    fn the_highest_version_that_both_sides_speak_is_chosen() {
        assert_eq!(
            choose(&list("8.0.3.0", &["8.0.2.0", "7.0", "6.5"])).as_deref(),
            Some("8.0.3.0")
        );
        assert_eq!(
            choose(&list("11.0.0.0", &["10.2", "9.0.1.0", "8.0.10.0", "8.0.9"])).as_deref(),
            Some("9.0.1.0")
        );
        assert_eq!(choose(&list("6.5", &["6.0", "5.5"])).as_deref(), Some("6.5"));
        assert_eq!(choose(&list("6.0", &["5.5"])), None);
        assert_eq!(
            choose("<namespaces><namespace><name>urn:vim25</name><version>7.0</version>"),
            None,
            "cut"
        );
        assert_eq!(choose("<html/>"), None);
    }
}
