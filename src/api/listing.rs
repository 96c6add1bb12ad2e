//! Lists: what they may be asked for, and how they go on.
//!
//! All lists of the inventory know the same parameters, each list some of them. The cursor of a page says after which
//! key the next one begins, and of which list it is.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::api::context::Caller;
use crate::api::problem::Problem;
use crate::model::inventory::PowerState;
use crate::store::reading::{Filter, Listed, Page};

/// Rows of a page at most.
pub const LARGEST_PAGE: u16 = 500;

/// Rows of a page where nobody says.
pub const PAGE: u16 = 100;

/// Platforms in one question.
pub const MOST_PLATFORMS: usize = 100;

/// Characters of a name; vSphere allows 80, escaped up to 240.
pub const LONGEST_NAME: usize = 255;

/// A list and the parameters that it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct List {
    /// What is in it, in one word.
    pub of: &'static str,
    /// The parameters.
    pub parameters: &'static [&'static str],
}

/// Platforms.
pub const PLATFORMS: List = List {
    of: "platform",
    parameters: &["name", "name_contains", "removed", "limit", "cursor"],
};

/// Hosts.
pub const HOSTS: List = List {
    of: "host",
    parameters: &[
        "platform",
        "name",
        "name_contains",
        "power_state",
        "cluster",
        "datastore",
        "removed",
        "metrics",
        "limit",
        "cursor",
    ],
};

/// VMs.
pub const VMS: List = List {
    of: "vm",
    parameters: &[
        "platform",
        "name",
        "name_contains",
        "power_state",
        "cluster",
        "host",
        "datastore",
        "removed",
        "metrics",
        "limit",
        "cursor",
    ],
};

/// Datastores.
pub const DATASTORES: List = List {
    of: "datastore",
    parameters: &[
        "platform",
        "name",
        "name_contains",
        "cluster",
        "host",
        "removed",
        "limit",
        "cursor",
    ],
};

/// Clusters.
pub const CLUSTERS: List = List {
    of: "cluster",
    parameters: &["platform", "name", "name_contains", "removed", "limit", "cursor"],
};

/// The parameters of a list as they were written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    platform: Option<String>,
    name: Option<String>,
    name_contains: Option<String>,
    power_state: Option<String>,
    cluster: Option<i32>,
    host: Option<i32>,
    datastore: Option<i32>,
    removed: Option<bool>,
    metrics: Option<bool>,
    limit: Option<u16>,
    cursor: Option<String>,
}

/// What a list is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) filter: Filter,
    pub(super) page: Page,
    pub(super) metrics: bool,
}

/// A page, as it is sent.
#[derive(Debug, Serialize)]
pub(super) struct Sent<T> {
    items: Vec<T>,
    next_cursor: Option<String>,
}

impl List {
    /// What `caller` asks this list for.
    ///
    /// # Errors
    /// 400 where a parameter is not one of this list's, or makes no sense.
    pub(super) fn read(&self, asked: Asked, caller: &Caller) -> Result<Wanted, Problem> {
        self.refuse_foreign(&asked)?;
        let refuse = |detail: String| Problem::bad_request("bad_query", detail);
        let limit = asked.limit.unwrap_or(PAGE);
        if !(1..=LARGEST_PAGE).contains(&limit) {
            return Err(refuse(format!("limit must be from 1 to {LARGEST_PAGE}.")));
        }
        for (parameter, text) in [("name", &asked.name), ("name_contains", &asked.name_contains)] {
            let is_good = |text: &String| {
                (1..=LONGEST_NAME).contains(&text.chars().count()) && !text.contains(char::is_control)
            };
            if text.as_ref().is_some_and(|text| !is_good(text)) {
                return Err(refuse(format!(
                    "{parameter} must be 1 to {LONGEST_NAME} characters, none of them a control character."
                )));
            }
        }
        for (parameter, key) in [
            ("cluster", asked.cluster),
            ("host", asked.host),
            ("datastore", asked.datastore),
        ] {
            if key.is_some_and(|key| key < 1) {
                return Err(refuse(format!("{parameter} must be a key: a number from 1 up.")));
            }
        }
        let power_state = asked
            .power_state
            .map(|word| {
                let all = [
                    PowerState::On,
                    PowerState::Off,
                    PowerState::Suspended,
                    PowerState::Unknown,
                ];
                all.into_iter()
                    .find(|state| state.as_str() == word)
                    .ok_or_else(|| refuse("power_state must be on, off, suspended or unknown.".to_owned()))
            })
            .transpose()?;
        let platforms = asked.platform.as_deref().map(platforms).transpose()?;
        Ok(Wanted {
            filter: Filter {
                scope: caller.scope.names(),
                platforms: platforms.unwrap_or_default(),
                name: asked.name,
                name_contains: asked.name_contains,
                power_state,
                cluster: asked.cluster,
                host: asked.host,
                datastore: asked.datastore,
                removed: asked.removed.unwrap_or(false),
            },
            page: Page {
                after: asked
                    .cursor
                    .as_deref()
                    .map_or(Ok(0), |cursor| self.after(cursor))?,
                limit,
            },
            metrics: asked.metrics.unwrap_or(false),
        })
    }

    fn refuse_foreign(&self, asked: &Asked) -> Result<(), Problem> {
        let given = [
            ("platform", asked.platform.is_some()),
            ("power_state", asked.power_state.is_some()),
            ("cluster", asked.cluster.is_some()),
            ("host", asked.host.is_some()),
            ("datastore", asked.datastore.is_some()),
            ("metrics", asked.metrics.is_some()),
        ];
        let foreign = given
            .into_iter()
            .find(|(name, given)| *given && !self.parameters.contains(name));
        match foreign {
            Some((name, _)) => Err(Problem::bad_request(
                "bad_query",
                format!(
                    "The list of {}s has no parameter {name}; it has {}.",
                    self.of,
                    self.parameters.join(", ")
                ),
            )),
            None => Ok(()),
        }
    }

    /// A page, as it is sent.
    pub(super) fn page<T, U>(&self, listed: Listed<T>, show: impl FnMut(T) -> U) -> Sent<U> {
        Sent {
            next_cursor: listed.next.map(|key| self.cursor(key)),
            items: listed.rows.into_iter().map(show).collect(),
        }
    }

    fn cursor(&self, after: i32) -> String {
        URL_SAFE_NO_PAD.encode(format!("{}:{after}", self.of))
    }

    fn after(&self, cursor: &str) -> Result<i32, Problem> {
        let key = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|bytes| {
            let text = String::from_utf8(bytes).ok()?;
            let (_, key) = text.split_once(':')?;
            let key: i32 = key.parse().ok()?;
            // As this list writes it, and no other way.
            (key > 0 && self.cursor(key) == cursor).then_some(key)
        });
        key.ok_or_else(|| {
            Problem::bad_request(
                "bad_cursor",
                format!(
                    "The cursor is not one of a page of {}s; take next_cursor of the page before, as it is.",
                    self.of
                ),
            )
        })
    }
}

fn platforms(text: &str) -> Result<Vec<i32>, Problem> {
    let keys: Option<Vec<i32>> = text
        .split(',')
        .map(|key| key.parse().ok().filter(|key| *key > 0))
        .collect();
    keys.filter(|keys| keys.len() <= MOST_PLATFORMS).ok_or_else(|| {
        Problem::bad_request(
            "bad_query",
            format!(
                "platform must be the key of a platform, or up to {MOST_PLATFORMS} of them with commas in between."
            ),
        )
    })
}

/// Whether a number in a path is a key.
///
/// # Errors
/// 400 where it is not.
pub(super) fn key(id: i32) -> Result<i32, Problem> {
    if id > 0 {
        Ok(id)
    } else {
        Err(Problem::bad_request(
            "bad_path",
            "The key in the path must be a number from 1 up.",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_back_by_its_own_list_alone() {
        assert_eq!(VMS.after(&VMS.cursor(17)).unwrap(), 17);
        let bad = |cursor: &str| VMS.after(cursor).unwrap_err();
        for cursor in [
            "",
            "x",
            "17",
            "%",
            &HOSTS.cursor(17),
            &URL_SAFE_NO_PAD.encode("vm:0"),
            &URL_SAFE_NO_PAD.encode("vm:-1"),
            &URL_SAFE_NO_PAD.encode("vm:+1"),
            &URL_SAFE_NO_PAD.encode("vm:99999999999"),
            &format!("{}=", VMS.cursor(1)),
        ] {
            assert_eq!(bad(cursor).code(), "bad_cursor", "{cursor}");
        }
    }

    #[test]
    fn platforms_are_keys_with_commas_in_between() {
        assert_eq!(platforms("1").unwrap(), [1]);
        assert_eq!(platforms("3,1,3").unwrap(), [3, 1, 3]);
        for bad in [
            "",
            ",",
            "1,",
            "0",
            "-1",
            "a",
            "1;2",
            "99999999999",
            &vec!["1"; 101].join(","),
        ] {
            assert_eq!(platforms(bad).unwrap_err().code(), "bad_query", "{bad}");
        }
    }
}
