//! Dashboards of `sql/grafana` as Grafana reads them: their queries, with variables and macros put in.
//!
//! Owns: what Grafana's dashboard code does to `$variables`, and its PostgreSQL data source to `$__macros(...)` (with
//! the TimescaleDB switch on). A name that Grafana does not know is an error here, as it is there. Never does: run a
//! query.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

/// Why a dashboard or a query cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The files cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file is no JSON.
    #[error("{} is no JSON", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where not.
        #[source]
        source: serde_json::Error,
    },
    /// Something is not where Grafana looks for it.
    #[error("there is no {0}")]
    Missing(String),
    /// A macro or variable of a wrong name.
    #[error("unknown macro or variable {0:?}")]
    Unknown(String),
    /// A macro without what it needs, or with a time that cannot be written.
    #[error("{0:?} cannot be put in")]
    Macro(String),
}

/// A dashboard.
#[derive(Clone, Debug)]
pub struct Dashboard {
    /// Its file.
    pub file: String,
    /// All of it.
    pub json: Value,
}

/// A panel.
#[derive(Clone, Copy, Debug)]
pub struct Panel<'a> {
    /// All of it.
    pub json: &'a Value,
}

/// A variable that is chosen from the rows of a query, or a data source.
#[derive(Clone, Copy, Debug)]
pub struct Variable<'a> {
    /// All of it.
    pub json: &'a Value,
}

/// What a viewer has chosen.
#[derive(Clone, Debug)]
pub enum Choice {
    /// "All", with the text that stands for it, which Grafana puts in as it is.
    All(String),
    /// One value of a variable that takes one.
    One(String),
    /// Values of a variable that takes some.
    Some(Vec<String>),
}

/// A span of time, as chosen above a dashboard.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// Its start.
    pub from: Timestamp,
    /// Its end.
    pub to: Timestamp,
}

/// The dashboards of `sql/grafana`, in the order of their names.
///
/// # Errors
/// When one cannot be read.
pub fn dashboards() -> Result<Vec<Dashboard>, Error> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sql/grafana");
    let file = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::File { path, source }
    };
    let mut paths = std::fs::read_dir(&directory)
        .and_then(|entries| {
            entries
                .map(|entry| Ok(entry?.path()))
                .collect::<Result<Vec<_>, _>>()
        })
        .map_err(file(&directory))?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).map_err(file(&path))?;
            let json = serde_json::from_str(&text).map_err(|source| Error::Json {
                path: path.clone(),
                source,
            })?;
            Ok(Dashboard {
                file: path
                    .file_name()
                    .map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
                json,
            })
        })
        .collect()
}

fn list<'a>(json: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    json.pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice)
        .iter()
}

fn text<'a>(json: &'a Value, pointer: &str) -> Option<&'a str> {
    json.pointer(pointer).and_then(Value::as_str)
}

impl Dashboard {
    /// What links name it by.
    #[must_use]
    pub fn uid(&self) -> &str {
        text(&self.json, "/uid").unwrap_or_default()
    }

    /// Its panels, without the rows that group them.
    pub fn panels(&self) -> impl Iterator<Item = Panel<'_>> {
        list(&self.json, "/panels")
            .map(|json| Panel { json })
            .filter(|panel| panel.kind() != "row")
    }

    /// The SQL of what is marked in all of its graphs.
    pub fn annotations(&self) -> impl Iterator<Item = &str> {
        list(&self.json, "/annotations/list").filter_map(|mark| text(mark, "/target/rawSql"))
    }

    /// Its variables, each after those that it depends on.
    pub fn variables(&self) -> impl Iterator<Item = Variable<'_>> {
        list(&self.json, "/templating/list").map(|json| Variable { json })
    }

    /// The span that it opens with, up to now.
    ///
    /// # Errors
    /// When it is not of the form `now-24h`.
    pub fn default_span(&self) -> Result<SignedDuration, Error> {
        let from = text(&self.json, "/time/from").unwrap_or_default();
        let wrong = || Error::Missing(format!("span of the form now-24h in {}", self.file));
        let count = from.strip_prefix("now-").ok_or_else(wrong)?;
        let (count, unit) = count
            .split_at_checked(count.len().saturating_sub(1))
            .ok_or_else(wrong)?;
        let count: i64 = count.parse().map_err(|_not_a_number| wrong())?;
        match unit {
            "h" => Ok(SignedDuration::from_hours(count)),
            "d" => Ok(SignedDuration::from_hours(24 * count)),
            _ => Err(wrong()),
        }
    }
}

impl<'a> Panel<'a> {
    /// Its number.
    #[must_use]
    pub fn id(self) -> i64 {
        self.json
            .pointer("/id")
            .and_then(Value::as_i64)
            .unwrap_or_default()
    }

    /// Its heading.
    #[must_use]
    pub fn title(self) -> &'a str {
        text(self.json, "/title").unwrap_or_default()
    }

    /// What it is: timeseries, stat, table.
    #[must_use]
    pub fn kind(self) -> &'a str {
        text(self.json, "/type").unwrap_or_default()
    }

    /// The SQL of its queries.
    pub fn queries(self) -> impl Iterator<Item = &'a str> {
        list(self.json, "/targets").filter_map(|target| text(target, "/rawSql"))
    }
}

impl<'a> Variable<'a> {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'a str {
        text(self.json, "/name").unwrap_or_default()
    }

    /// The SQL that lists what can be chosen; `None` for the choice of a data source.
    #[must_use]
    pub fn query(self) -> Option<&'a str> {
        (text(self.json, "/type") == Some("query"))
            .then(|| text(self.json, "/query"))
            .flatten()
    }

    /// Whether it takes more than one value.
    #[must_use]
    pub fn is_multiple(self) -> bool {
        self.json.pointer("/multi").and_then(Value::as_bool) == Some(true)
    }

    /// What "All" stands for, where that can be chosen.
    #[must_use]
    pub fn all(self) -> Option<&'a str> {
        (self.json.pointer("/includeAll").and_then(Value::as_bool) == Some(true))
            .then(|| text(self.json, "/allValue"))
            .flatten()
    }
}

impl Range {
    /// The span that ends with a time.
    ///
    /// # Errors
    /// When it starts before time does.
    pub fn until(to: Timestamp, span: SignedDuration) -> Result<Self, Error> {
        let from = to
            .checked_sub(span)
            .map_err(|_out_of_range| Error::Macro(span.to_string()))?;
        Ok(Self { from, to })
    }

    /// `$__interval`: the width of one of 1,000 points, rounded to what a clock shows.
    fn interval_seconds(self) -> i64 {
        let width = self.to.duration_since(self.from).as_secs() / 1000;
        let steps = [
            1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1200, 1800, 3600, 7200, 10800, 21600, 43200,
        ];
        steps.into_iter().find(|step| *step >= width).unwrap_or(86_400)
    }
}

/// Puts variables and macros into a query, for a span of time.
///
/// # Errors
/// When it names what Grafana does not know.
pub fn expand(sql: &str, choices: &HashMap<String, Choice>, range: Range) -> Result<String, Error> {
    let interpolated = variables(sql, choices, range)?;
    macros(&interpolated, range)
}

/// `${name}`, `${name:format}`, `$name`: what the browser does.
fn variables(sql: &str, choices: &HashMap<String, Choice>, range: Range) -> Result<String, Error> {
    let mut out = String::new();
    let mut rest = sql;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(inner) = after.strip_prefix('{') {
            let (inner, behind) = inner
                .split_once('}')
                .ok_or_else(|| Error::Unknown(format!("${{{inner}")))?;
            let (name, format) = inner.split_once(':').unwrap_or((inner, ""));
            out.push_str(&put_in(name, format, choices)?);
            rest = behind;
            continue;
        }
        let name_ends = after
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(after.len());
        let (name, behind) = after.split_at_checked(name_ends).unwrap_or((after, ""));
        rest = behind;
        match name {
            "__interval" => out.push_str(&format!("{}s", range.interval_seconds())),
            "__interval_ms" => out.push_str(&(range.interval_seconds() * 1000).to_string()),
            // The end of a regular expression, or the number of a parameter.
            "" => out.push('$'),
            _ if name.starts_with("__") && behind.starts_with('(') => {
                out.push('$');
                out.push_str(name);
            }
            _ => out.push_str(&put_in(name, "", choices)?),
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn put_in(name: &str, format: &str, choices: &HashMap<String, Choice>) -> Result<String, Error> {
    let unknown = || {
        Error::Unknown(if format.is_empty() {
            name.to_owned()
        } else {
            format!("{name}:{format}")
        })
    };
    let quoted = |value: &String| format!("'{}'", value.replace('\'', "''"));
    let values = match choices.get(name).ok_or_else(unknown)? {
        Choice::All(text) => return Ok(text.clone()),
        // The data source quotes what may be more than one value, and nothing else.
        Choice::One(value) if format.is_empty() => return Ok(value.clone()),
        Choice::One(value) => std::slice::from_ref(value),
        Choice::Some(values) => values.as_slice(),
    };
    match format {
        "csv" | "raw" => Ok(values.join(",")),
        "" | "sqlstring" => Ok(values.iter().map(quoted).collect::<Vec<_>>().join(",")),
        _ => Err(unknown()),
    }
}

/// `$__name(arguments)`: what the data source does. Arguments end at the first closing parenthesis, as there.
fn macros(sql: &str, range: Range) -> Result<String, Error> {
    let mut out = String::new();
    let mut rest = sql;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let name_ends = after
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(after.len());
        let (name, behind) = after.split_at_checked(name_ends).unwrap_or((after, ""));
        let called = behind.strip_prefix('(').and_then(|inner| inner.split_once(')'));
        match called {
            Some((arguments, behind)) if !name.is_empty() => {
                out.push_str(&evaluate(name, arguments, range)?);
                rest = behind;
            }
            _ => {
                out.push('$');
                out.push_str(name);
                rest = behind;
            }
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn evaluate(name: &str, arguments: &str, range: Range) -> Result<String, Error> {
    let arguments: Vec<&str> = arguments.split(',').map(str::trim).collect();
    let wrong = || Error::Macro(format!("${name}({})", arguments.join(", ")));
    let column = || {
        arguments
            .first()
            .filter(|column| !column.is_empty())
            .ok_or_else(wrong)
    };
    let width = || {
        arguments
            .get(1)
            .and_then(|width| seconds(width.trim_matches('\'')))
            .ok_or_else(wrong)
    };
    let Range { from, to } = range;
    Ok(match name {
        "__time" => format!("{} AS \"time\"", column()?),
        "__timeEpoch" => format!("extract(epoch from {}) as \"time\"", column()?),
        "__timeFilter" => format!("{} BETWEEN '{from}' AND '{to}'", column()?),
        "__timeFrom" => format!("'{from}'"),
        "__timeTo" => format!("'{to}'"),
        "__timeGroup" => format!("time_bucket('{}.000s',{})", width()?, column()?),
        "__timeGroupAlias" => format!("time_bucket('{}.000s',{}) AS \"time\"", width()?, column()?),
        "__unixEpochFilter" => {
            let column = column()?;
            format!(
                "{column} >= {} AND {column} <= {}",
                from.as_second(),
                to.as_second()
            )
        }
        "__unixEpochFrom" => from.as_second().to_string(),
        "__unixEpochTo" => to.as_second().to_string(),
        "__unixEpochGroup" => format!("floor(({0})/{1})*{1}", column()?, width()?),
        "__unixEpochGroupAlias" => format!("floor(({0})/{1})*{1} AS \"time\"", column()?, width()?),
        _ => return Err(Error::Unknown(name.to_owned())),
    })
}

/// `30s`, `5m`, `1h`, `7d`.
fn seconds(interval: &str) -> Option<i64> {
    let (count, unit) = interval.split_at_checked(interval.len().checked_sub(1)?)?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    Some(count.parse::<i64>().ok()? * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range() -> Range {
        Range::until(
            "2026-03-01T12:00:00Z".parse().unwrap(),
            SignedDuration::from_hours(24),
        )
        .unwrap()
    }

    fn choices() -> HashMap<String, Choice> {
        HashMap::from([
            ("host".to_owned(), Choice::One("7".to_owned())),
            (
                "name".to_owned(),
                Choice::Some(vec!["a".to_owned(), "o'b".to_owned()]),
            ),
            ("platform".to_owned(), Choice::All("SELECT 1".to_owned())),
        ])
    }

    #[test]
    fn variables_and_macros_become_what_grafana_sends() {
        let expanded = |sql: &str| expand(sql, &choices(), range()).unwrap();
        assert_eq!(expanded("id = $host AND x = ${host}"), "id = 7 AND x = 7");
        assert_eq!(expanded("IN (${name:sqlstring})"), "IN ('a','o''b')");
        assert_eq!(expanded("IN (${name:csv})"), "IN (a,o'b)");
        assert_eq!(expanded("IN ($name)"), "IN ('a','o''b')");
        assert_eq!(expanded("IN (${platform:csv})"), "IN (SELECT 1)");
        assert_eq!(
            expanded("$__timeFilter(t)"),
            "t BETWEEN '2026-02-28T12:00:00Z' AND '2026-03-01T12:00:00Z'"
        );
        assert_eq!(
            expanded("f($__timeFrom(), $__timeTo())"),
            "f('2026-02-28T12:00:00Z', '2026-03-01T12:00:00Z')"
        );
        assert_eq!(
            expanded("$__timeGroupAlias(t, $__interval)"),
            "time_bucket('120.000s',t) AS \"time\""
        );
        assert_eq!(expanded("name ~ 'x$'"), "name ~ 'x$'");
    }

    #[test]
    fn a_wrong_name_is_an_error() {
        for sql in [
            "$__timefilter(t)",
            "$__unixEpochNow()",
            "$hots",
            "${hots:csv}",
            "${name:sql}",
            "$__timeGroup(t)",
            "$__from",
        ] {
            assert!(expand(sql, &choices(), range()).is_err(), "{sql}");
        }
    }
}
