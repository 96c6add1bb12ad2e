//! What a platform contributes: some of its datacenters, some of its hosts and VMs.
//!
//! Owns: the form of patterns, and what they match. Never does: finding out where an object is.
//!
//! A path is the one that every vSphere client writes: datacenter (with the folders that it is in), `host` or `vm`,
//! folders or the cluster, name: `/Berlin/vm/Production/web-1`, `/Berlin/host/Cluster-1/esx-1`. It is compared name
//! by name, never as one text: `*` stands for any characters of one name, `**` for any number of names, none
//! included. A name that has a slash in it is written as vSphere writes it, `web%2f1`; `%25` is a percent sign and
//! `%5c` a backslash. Letters are compared as they are.

use std::fmt;
use std::str::FromStr;

/// Longer than any path that a server can hold.
const CHARACTERS_LIMIT: usize = 4096;

/// Patterns of one list. Each is compared with every host and VM.
const PATTERNS_LIMIT: usize = 1000;

/// Which objects of a platform are stored and polled; by default all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Names of the datacenters that count; empty for all. Clusters, resource pools and datastores go with theirs.
    pub datacenters: Vec<String>,
    /// Patterns of which a host or VM has to match one; empty for all.
    pub include: Vec<Pattern>,
    /// Patterns of which a host or VM must match none.
    pub exclude: Vec<Pattern>,
}

/// Why a text is no filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A datacenter without a name.
    #[error("datacenters: a name is empty; write names as the vSphere Client shows them, such as \"Berlin\"")]
    Datacenter,
    /// A pattern of one of the lists.
    #[error("{list}: {source}")]
    Pattern {
        /// The list's name.
        list: &'static str,
        /// What is wrong with it.
        source: BadPattern,
    },
    /// Too many of them.
    #[error("{list}: {found} entries are more than {PATTERNS_LIMIT}; use * and ** to say it with fewer")]
    TooMany {
        /// The list's name.
        list: &'static str,
        /// Its length.
        found: usize,
    },
}

impl Filter {
    /// Reads the three lists as they are written in configuration and registry.
    ///
    /// # Errors
    /// When a datacenter has no name, a pattern cannot be read, or a list is too long.
    pub fn parse(
        datacenters: Vec<String>,
        include: &[impl AsRef<str>],
        exclude: &[impl AsRef<str>],
    ) -> Result<Self, Error> {
        short_enough("datacenters", datacenters.len())?;
        if datacenters.iter().any(|name| name.trim().is_empty()) {
            return Err(Error::Datacenter);
        }
        Ok(Self {
            datacenters,
            include: patterns("include", include)?,
            exclude: patterns("exclude", exclude)?,
        })
    }

    /// True if every object passes.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.datacenters.is_empty() && self.include.is_empty() && self.exclude.is_empty()
    }

    /// Whether a datacenter, and what is in it, counts; `None` is the datacenter of what is in none, as far as can
    /// be seen.
    #[must_use]
    pub fn takes_datacenter(&self, name: Option<&str>) -> bool {
        self.datacenters.is_empty()
            || name.is_some_and(|name| self.datacenters.iter().any(|wanted| wanted == name))
    }

    /// Whether a host or VM of a datacenter that counts does so itself. `path` holds the names from the outside in.
    #[must_use]
    pub fn takes_path(&self, path: &[&str]) -> bool {
        let any = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(path));
        (self.include.is_empty() || any(&self.include)) && !any(&self.exclude)
    }
}

fn short_enough(list: &'static str, found: usize) -> Result<(), Error> {
    if found > PATTERNS_LIMIT {
        return Err(Error::TooMany { list, found });
    }
    Ok(())
}

fn patterns(list: &'static str, texts: &[impl AsRef<str>]) -> Result<Vec<Pattern>, Error> {
    short_enough(list, texts.len())?;
    texts
        .iter()
        .map(|text| {
            text.as_ref()
                .parse()
                .map_err(|source| Error::Pattern { list, source })
        })
        .collect()
}

/// A pattern of inventory paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    /// What stands between the `**`: one run of names if there is no `**`.
    runs: Vec<Vec<Name>>,
}

/// A text that is no pattern, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("bad pattern {text:?}: {reason}")]
pub struct BadPattern {
    text: String,
    reason: &'static str,
}

impl Pattern {
    /// Whether it matches a path, its names from the outside in.
    #[must_use]
    pub fn matches(&self, path: &[&str]) -> bool {
        let Some((first, others)) = self.runs.split_first() else {
            return false;
        };
        let Some((last, middle)) = others.split_last() else {
            return path.len() == first.len() && run_matches(first, path);
        };
        let Some((start, rest)) = path.split_at_checked(first.len()) else {
            return false;
        };
        let behind = rest.len().checked_sub(last.len());
        let Some((mut rest, end)) = behind.and_then(|behind| rest.split_at_checked(behind)) else {
            return false;
        };
        for run in middle {
            // The first place will do: whatever follows could as well be there behind a later one.
            let found = rest.windows(run.len()).position(|names| run_matches(run, names));
            let after = found.and_then(|found| rest.get(found + run.len()..));
            let Some(after) = after else { return false };
            rest = after;
        }
        run_matches(first, start) && run_matches(last, end)
    }
}

fn run_matches(run: &[Name], names: &[&str]) -> bool {
    run.iter().zip(names).all(|(pattern, name)| pattern.matches(name))
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Pattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Self, BadPattern> {
        let runs = runs(text).map_err(|reason| BadPattern {
            text: text.chars().take(100).collect(),
            reason,
        })?;
        Ok(Self {
            text: text.to_owned(),
            runs,
        })
    }
}

fn runs(text: &str) -> Result<Vec<Vec<Name>>, &'static str> {
    if text.chars().count() > CHARACTERS_LIMIT {
        return Err("it is longer than any path");
    }
    if text.chars().any(char::is_control) {
        return Err("it holds a control character");
    }
    let names = match text.strip_prefix('/') {
        Some(names) => names,
        None if text == "**" || text.starts_with("**/") => text,
        None => return Err("begin with / and a datacenter, as in \"/Berlin/vm/*\", or with **/"),
    };
    let mut runs = Vec::new();
    let mut run = Vec::new();
    for name in names.split('/') {
        match name {
            "" => return Err("a name is empty; write no slash at the end, and none twice"),
            // Two in a row mean what one does.
            "**" if run.is_empty() && !runs.is_empty() => {}
            "**" => runs.push(std::mem::take(&mut run)),
            name if name.contains("**") => return Err("** stands for whole names; within one, write *"),
            name => run.push(Name::new(name)),
        }
    }
    runs.push(run);
    Ok(runs)
}

/// A pattern of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Name {
    /// What stands between the `*`: one piece if there is no `*`.
    pieces: Vec<String>,
}

impl Name {
    fn new(text: &str) -> Self {
        Self {
            pieces: text.split('*').map(unescaped).collect(),
        }
    }

    fn matches(&self, name: &str) -> bool {
        let Some((first, others)) = self.pieces.split_first() else {
            return false;
        };
        let Some((last, middle)) = others.split_last() else {
            return name == first;
        };
        let within = name
            .strip_prefix(first.as_str())
            .and_then(|rest| rest.strip_suffix(last.as_str()));
        let Some(mut rest) = within else { return false };
        for piece in middle {
            let Some((_, after)) = rest.split_once(piece.as_str()) else {
                return false;
            };
            rest = after;
        }
        true
    }
}

/// The name that vSphere writes in this way. A percent sign that begins no escape is one.
#[must_use]
pub fn unescaped(escaped: &str) -> String {
    let mut name = String::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some((before, after)) = rest.split_once('%') {
        name.push_str(before);
        let decoded = match after.as_bytes() {
            [b'2', b'f' | b'F', ..] => Some('/'),
            [b'5', b'c' | b'C', ..] => Some('\\'),
            [b'2', b'5', ..] => Some('%'),
            _ => None,
        };
        name.push(decoded.unwrap_or('%'));
        rest = if decoded.is_some() {
            after.get(2..).unwrap_or_default()
        } else {
            after
        };
    }
    name.push_str(rest);
    name
}

/// A path as a pattern is written; `path` holds the names from the outside in.
#[must_use]
pub fn written(path: &[&str]) -> String {
    let mut text = String::new();
    for name in path {
        text.push('/');
        // First the percent sign, which the others are written with.
        text.push_str(&name.replace('%', "%25").replace('/', "%2f").replace('\\', "%5c"));
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, path: &[&str]) -> bool {
        pattern.parse::<Pattern>().unwrap().matches(path)
    }

    const WEB: [&str; 4] = ["Berlin", "vm", "Production", "web-1"];

    #[test]
    fn a_star_stays_within_a_name_and_two_go_over_several() {
        for pattern in [
            "/Berlin/vm/Production/web-1",
            "/Berlin/vm/Production/*",
            "/*/vm/*/web-*",
            "/Berlin/**",
            "**",
            "/**",
            "**/web-1",
            "**/Production/**",
            "/Berlin/**/vm/**/w*b-*1",
            "/Berlin/vm/**/**/Production/web-1",
        ] {
            assert!(matches(pattern, &WEB), "{pattern}");
        }
        for pattern in [
            "/Berlin/vm/*",
            "/Berlin/*",
            "/berlin/**",
            "**/Production",
            "/vm/**",
            "/Berlin/vm/Production/web-1/**/x",
            "/Berlin/vm/Production/web-1*1",
            "/Berlin/vm/Production/**/Production/web-1",
        ] {
            assert!(!matches(pattern, &WEB), "{pattern}");
        }
    }

    #[test]
    fn a_slash_in_a_name_is_no_step_and_is_written_escaped() {
        let path = ["Berlin", "vm", "web/1"];
        assert!(matches("/Berlin/vm/web%2f1", &path));
        assert!(matches("/Berlin/vm/web%2F*", &path));
        assert!(!matches("/Berlin/vm/web/1", &path));
        assert!(matches("/Berlin/vm/*", &path));
        assert!(matches("/a/100%25 %5c 50%", &["a", "100% \\ 50%"]));
        let awkward = ["Berlin", "vm", "web/1", "100%25 \\ 50%"];
        assert_eq!(written(&awkward), "/Berlin/vm/web%2f1/100%2525 %5c 50%25");
        assert!(matches(&written(&awkward), &awkward));
    }

    #[test]
    fn a_bad_pattern_is_refused_in_a_sentence() {
        for (text, part) in [
            ("", "begin with /"),
            ("Berlin/vm", "begin with /"),
            ("**web", "begin with /"),
            ("/", "a name is empty"),
            ("/Berlin//web", "a name is empty"),
            ("/Berlin/", "a name is empty"),
            ("/Berlin/web**", "** stands for whole names"),
            ("/Berlin/\u{7}", "control character"),
        ] {
            let error = text.parse::<Pattern>().unwrap_err().to_string();
            assert!(
                error.contains(part) && error.contains(&format!("{text:?}")),
                "{error}"
            );
        }
        let long = format!("/{}", "x".repeat(CHARACTERS_LIMIT));
        assert!(long.parse::<Pattern>().unwrap_err().to_string().len() < 200);
        let error = Filter::parse(Vec::new(), &["**"], &["x"]).unwrap_err();
        assert!(
            error.to_string().starts_with("exclude: bad pattern \"x\""),
            "{error}"
        );
        let none: [&str; 0] = [];
        assert!(Filter::parse(vec![" ".to_owned()], &none, &none).is_err());
        assert!(Filter::parse(Vec::new(), &vec!["**"; 1001], &none).is_err());
    }

    #[test]
    fn a_filter_takes_what_is_included_and_not_excluded() {
        let filter = Filter::parse(vec!["Berlin".to_owned()], &["/*/vm/**"], &["**/web-1"]).unwrap();
        assert!(filter.takes_datacenter(Some("Berlin")));
        assert!(!filter.takes_datacenter(Some("Bonn")));
        assert!(!filter.takes_datacenter(None));
        assert!(filter.takes_path(&["Berlin", "vm", "web-2"]));
        assert!(!filter.takes_path(&WEB));
        assert!(!filter.takes_path(&["Berlin", "host", "esx-1"]));
        let open = Filter::default();
        assert!(open.is_open() && open.takes_datacenter(None) && open.takes_path(&WEB));
    }

    /// What the patterns mean, slowly.
    fn slowly(pattern: &[char], text: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('*', rest)) => (0..=text.len()).any(|skipped| slowly(rest, &text[skipped..])),
            Some((c, rest)) => text.first() == Some(c) && slowly(rest, &text[1..]),
        }
    }

    fn slowly_by_name(pattern: &[&str], path: &[&str]) -> bool {
        match pattern.split_first() {
            None => path.is_empty(),
            Some((&"**", rest)) => (0..=path.len()).any(|skipped| slowly_by_name(rest, &path[skipped..])),
            Some((name, rest)) => {
                let chars = |text: &str| text.chars().collect::<Vec<char>>();
                path.first()
                    .is_some_and(|first| slowly(&chars(name), &chars(first)))
                    && slowly_by_name(rest, &path[1..])
            }
        }
    }

    fn escaped(name: &str) -> String {
        name.replace('%', "%25").replace('/', "%2f").replace('\\', "%5c")
    }

    proptest! {
        #[test]
        fn matching_is_what_the_definition_says(
            pattern in prop::collection::vec("[ab*]{1,4}", 1..6),
            path in prop::collection::vec("[ab]{1,4}", 0..6),
        ) {
            let text = format!("/{}", pattern.join("/"));
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            let pattern: Vec<&str> = pattern.iter().map(String::as_str).collect();
            let bad = pattern.iter().any(|name| name.contains("**") && *name != "**");
            match text.parse::<Pattern>() {
                Ok(parsed) => {
                    prop_assert!(!bad);
                    prop_assert_eq!(parsed.matches(&path), slowly_by_name(&pattern, &path));
                }
                Err(_) => prop_assert!(bad),
            }
        }

        #[test]
        fn any_path_can_be_written_and_nothing_panics(
            path in prop::collection::vec("[^*\\p{Cc}]{1,6}", 1..6),
            text in "\\PC{0,20}",
        ) {
            let names: Vec<&str> = path.iter().map(String::as_str).collect();
            let written: String = path.iter().map(|name| format!("/{}", escaped(name))).collect();
            let pattern: Pattern = written.parse().unwrap();
            prop_assert!(pattern.matches(&names));
            prop_assert_eq!(pattern.to_string().parse::<Pattern>(), Ok(pattern));
            if let Ok(pattern) = text.parse::<Pattern>() {
                let matched = pattern.matches(&names);
                prop_assert!(!matched || pattern.to_string() == text);
            }
        }
    }
}
