//! What a platform keeps for outages that are longer than an hour.

use serde::Serialize;

use crate::cli::counted;
use crate::inventory::Trial;
use crate::model::columns::Column;
use crate::model::ids::EntityKind;

/// The 5-minute statistics of a platform.
#[derive(Debug, Serialize)]
pub(super) struct FiveMinutes {
    enabled: bool,
    /// Unset where there are no levels.
    level: Option<u8>,
    kept_seconds: u64,
    columns: Vec<Columns>,
}

/// What they hold of one table.
#[derive(Debug, Serialize)]
struct Columns {
    /// `host` or `vm`.
    kind: &'static str,
    /// Columns of samples.
    of: usize,
    kept: Vec<&'static str>,
    added_by_level_2: Vec<&'static str>,
}

impl FiveMinutes {
    pub(super) const fn are_kept(&self) -> bool {
        self.enabled
    }

    pub(super) fn of(trial: &Trial) -> Self {
        let Some(rollups) = &trial.rollups else {
            return Self {
                enabled: false,
                level: None,
                kept_seconds: 0,
                columns: Vec::new(),
            };
        };
        let columns = EntityKind::ALL.into_iter().rev().map(|kind| {
            let added = rollups.added_by_level_two.iter();
            Columns {
                kind: kind.as_str(),
                of: Column::of(kind).len(),
                kept: rollups.counters.columns(kind),
                added_by_level_2: added
                    .filter(|(of, _)| *of == kind)
                    .map(|(_, column)| *column)
                    .collect(),
            }
        });
        Self {
            enabled: true,
            level: rollups.level,
            kept_seconds: rollups.kept.as_secs(),
            columns: columns.collect(),
        }
    }

    /// For people, one line for each table.
    pub(super) fn lines(&self) -> Vec<String> {
        if !self.enabled {
            return vec![
                "5-minute statistics are disabled: what is missing for longer than an hour cannot be had; \
                 enable them in vCenter's general settings, Statistics"
                    .to_owned(),
            ];
        }
        let level = self
            .level
            .map_or_else(|| "no levels".to_owned(), |level| format!("level {level}"));
        let days = self.kept_seconds / 86_400;
        let kept = if self.kept_seconds.is_multiple_of(86_400) {
            counted(usize::try_from(days).unwrap_or(usize::MAX), "day")
        } else {
            format!("{} hours", self.kept_seconds / 3_600)
        };
        let mut lines = Vec::new();
        for Columns {
            kind,
            of,
            kept: columns,
            added_by_level_2,
        } in &self.columns
        {
            let table = if *kind == EntityKind::Vm.as_str() {
                "VM"
            } else {
                kind
            };
            let which = if columns.len() == *of {
                format!("all {of} {table} columns")
            } else {
                let names = columns.join(", ");
                format!("{} of {of} {table} columns: {names}", columns.len())
            };
            lines.push(format!("5-minute statistics: {level}, kept {kept}: {which}"));
            if !added_by_level_2.is_empty() {
                lines.push(format!("level 2 would add: {}", added_by_level_2.join(", ")));
            }
        }
        lines
    }
}
