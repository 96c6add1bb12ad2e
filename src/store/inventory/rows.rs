//! Objects as rows: one statement for all changed rows of a table, one for all new ones.
//!
//! Owns: the two statements, made from a table's columns. A row is written only if a column differs; for the same
//! reason there is no `ON CONFLICT`: it would lock every row and use up an identity value per row and sync.

use std::borrow::Cow;
use std::fmt::Write as _;

use tokio_postgres::types::{ToSql, Type};

use crate::store::connect::{Checkout, Parameter};
use crate::store::error::Error;
use crate::units::Stamp;

/// The values of one column, one per object.
#[derive(Debug)]
pub(super) enum Values<'a> {
    Text(Vec<Option<Cow<'a, str>>>),
    Int(Vec<Option<i32>>),
    Long(Vec<Option<i64>>),
    Flag(Vec<Option<bool>>),
    Time(Vec<Option<Stamp>>),
}

impl Values<'_> {
    pub(super) fn parameter(&self) -> Parameter<'_> {
        let (values, kind): (&(dyn ToSql + Sync), Type) = match self {
            Self::Text(values) => (values, Type::TEXT_ARRAY),
            Self::Int(values) => (values, Type::INT4_ARRAY),
            Self::Long(values) => (values, Type::INT8_ARRAY),
            Self::Flag(values) => (values, Type::BOOL_ARRAY),
            Self::Time(values) => (values, Type::TIMESTAMPTZ_ARRAY),
        };
        (values, kind)
    }
}

/// One column of a reading.
#[derive(Debug)]
pub(super) struct Column<'a> {
    name: &'static str,
    values: Values<'a>,
    /// A missing value keeps the stored one.
    keep: bool,
    /// Part of what a row is known by.
    key: bool,
    /// What the value is turned into, for types that no array parameter can carry.
    cast: &'static str,
}

impl<'a> Column<'a> {
    /// A column whose value goes when the server has none.
    pub(super) const fn new(name: &'static str, values: Values<'a>) -> Self {
        Self {
            name,
            values,
            keep: false,
            key: false,
            cast: "",
        }
    }

    /// A column that keeps its value while the server has none.
    pub(super) fn kept(name: &'static str, values: Values<'a>) -> Self {
        Self {
            keep: true,
            ..Self::new(name, values)
        }
    }

    /// A column that rows are known by.
    pub(super) fn key(name: &'static str, values: Values<'a>) -> Self {
        Self {
            key: true,
            ..Self::new(name, values)
        }
    }

    /// The same column, its text turned into another type.
    pub(super) fn cast(self, cast: &'static str) -> Self {
        Self { cast, ..self }
    }

    fn seen(&self) -> String {
        format!("seen.{}{}", self.name, self.cast)
    }

    fn value(&self) -> String {
        if self.keep {
            format!("coalesce({}, stored.{})", self.seen(), self.name)
        } else {
            self.seen()
        }
    }
}

/// A column that follows from others: what it becomes in a row that is there, and in a new one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Derived {
    pub(super) name: &'static str,
    pub(super) on_update: &'static str,
    pub(super) on_insert: &'static str,
}

/// A reading of one table. In its statements `$1` is the platform and `$2` the time of the reading.
#[derive(Debug)]
pub(super) struct Reading<'a> {
    pub(super) table: &'static str,
    pub(super) columns: Vec<Column<'a>>,
    pub(super) derived: Option<Derived>,
    /// The table has a column for the platform, which is part of the key.
    pub(super) of_platform: bool,
}

impl Reading<'_> {
    /// Writes what has changed and what is new.
    pub(super) async fn write(
        &self,
        connection: &Checkout,
        platform: &Parameter<'_>,
        now: &Parameter<'_>,
    ) -> Result<(), Error> {
        let mut parameters = vec![platform.clone(), now.clone()];
        parameters.extend(self.columns.iter().map(|column| column.values.parameter()));
        connection.execute(&self.update(), &parameters).await?;
        connection.execute(&self.insert(), &parameters).await?;
        Ok(())
    }

    /// `unnest($3, ...) AS seen (...)`
    fn source(&self) -> String {
        let mut numbers = String::new();
        let mut names = String::new();
        for (number, column) in (3..).zip(&self.columns) {
            let comma = if number == 3 { "" } else { ", " };
            // Writing to a String cannot fail.
            write!(numbers, "{comma}${number}").unwrap_or_default();
            write!(names, "{comma}{}", column.name).unwrap_or_default();
        }
        format!("unnest({numbers}) AS seen ({names})")
    }

    fn same(&self) -> String {
        let keys = self.columns.iter().filter(|column| column.key);
        let mut all: Vec<String> = keys
            .map(|key| format!("stored.{0} = seen.{0}", key.name))
            .collect();
        if self.of_platform {
            all.push("stored.platform_id = $1".to_owned());
        }
        all.join(" AND ")
    }

    fn update(&self) -> String {
        let plain: Vec<&Column<'_>> = self.columns.iter().filter(|column| !column.key).collect();
        let list = |each: &dyn Fn(&Column<'_>) -> String| -> String {
            plain.iter().map(|column| each(column) + ", ").collect::<String>()
        };
        let derived = self
            .derived
            .map(|derived| format!("{} = {}, ", derived.name, derived.on_update))
            .unwrap_or_default();
        format!(
            "UPDATE {} AS stored SET {}{derived}removed_at = NULL FROM {} WHERE {} \
             AND ({}stored.removed_at) IS DISTINCT FROM ({}NULL::timestamptz)",
            self.table,
            list(&|column| format!("{} = {}", column.name, column.value())),
            self.source(),
            self.same(),
            list(&|column| format!("stored.{}", column.name)),
            list(&|column| column.value()),
        )
    }

    fn insert(&self) -> String {
        let names = |prefix: &str, cast: bool| -> String {
            let all = self.columns.iter().map(|column| {
                let cast = if cast { column.cast } else { "" };
                format!("{prefix}{}{cast}, ", column.name)
            });
            all.collect()
        };
        let (platform, key) = if self.of_platform {
            ("platform_id, ", "$1, ")
        } else {
            ("", "")
        };
        let (derived, value) = self.derived.map_or_else(Default::default, |derived| {
            (format!("{}, ", derived.name), format!("{}, ", derived.on_insert))
        });
        format!(
            "INSERT INTO {table} ({platform}{}{derived}first_seen_at) SELECT {key}{}{value}$2 FROM {} \
             WHERE NOT EXISTS (SELECT FROM {table} AS stored WHERE {})",
            names("", false),
            names("seen.", true),
            self.source(),
            self.same(),
            table = self.table,
        )
    }
}
