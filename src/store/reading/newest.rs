//! The newest sample of an entity.

use std::sync::LazyLock;

use serde::ser::{Serialize, SerializeMap as _, Serializer};
use tokio_postgres::Row;

use crate::model::columns::{Column, SqlType};
use crate::model::ids::EntityKind;
use crate::store::connect::Checkout;
use crate::store::error::Error;
use crate::units::Stamp;

/// An older sample says nothing of now.
pub const NEWEST_MINUTES: u32 = 15;

/// A value of a sample.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
#[serde(untagged)]
pub enum Number {
    /// Exact.
    Integer(i64),
    /// Rounded to 24 bits.
    Real(f32),
}

/// The newest sample of a host or VM. In JSON, one member per column of its table.
#[derive(Debug, Clone, PartialEq)]
pub struct Newest {
    kind: EntityKind,
    /// End of its interval, in the clock of the platform.
    pub collected_at: Stamp,
    /// Length of its interval.
    pub interval_seconds: i16,
    /// In order of the columns; `None` where there is no data.
    pub values: Vec<Option<Number>>,
}

impl Newest {
    /// The values by name of their column.
    pub fn columns(&self) -> impl Iterator<Item = (&'static str, Option<Number>)> {
        let names = Column::of(self.kind).iter().map(|column| column.name);
        names.zip(self.values.iter().copied())
    }
}

impl Serialize for Newest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.values.len() + 2))?;
        map.serialize_entry("collected_at", &self.collected_at)?;
        map.serialize_entry("interval_seconds", &self.interval_seconds)?;
        for (name, value) in self.columns() {
            map.serialize_entry(name, &value)?;
        }
        map.end()
    }
}

/// `now()` is the same for the whole statement, so that chunks outside are left out before they are opened.
fn text(kind: EntityKind) -> String {
    let columns: String = Column::of(kind)
        .iter()
        .map(|column| format!(", sample.{}", column.name))
        .collect();
    format!(
        "SELECT entity.id, sample.collected_at, sample.interval_seconds{columns} \
         FROM unnest($1) AS entity (id) CROSS JOIN LATERAL ( \
             SELECT * FROM virt_{kind}_metrics AS stored \
             WHERE stored.{kind}_id = entity.id \
               AND stored.collected_at > now() - INTERVAL '{NEWEST_MINUTES} minutes' \
             ORDER BY stored.collected_at DESC LIMIT 1) AS sample"
    )
}

/// The statement, for EXPLAIN. Parameter: 1 the keys of the entities.
#[must_use]
pub fn newest_sql(kind: EntityKind) -> &'static str {
    static HOST: LazyLock<String> = LazyLock::new(|| text(EntityKind::Host));
    static VM: LazyLock<String> = LazyLock::new(|| text(EntityKind::Vm));
    match kind {
        EntityKind::Host => &HOST,
        EntityKind::Vm => &VM,
    }
}

pub(super) fn read(connection: &Checkout, kind: EntityKind, row: &Row) -> Result<(i32, Newest), Error> {
    let values = Column::of(kind)
        .iter()
        .zip(3..)
        .map(|(column, at)| {
            Ok(match column.sql_type {
                SqlType::BigInt => connection.read::<Option<i64>>(row, at)?.map(Number::Integer),
                SqlType::Integer => connection
                    .read::<Option<i32>>(row, at)?
                    .map(|value| Number::Integer(value.into())),
                SqlType::Real => connection.read::<Option<f32>>(row, at)?.map(Number::Real),
            })
        })
        .collect::<Result<_, Error>>()?;
    let newest = Newest {
        kind,
        collected_at: connection.read(row, 1)?,
        interval_seconds: connection.read(row, 2)?,
        values,
    };
    Ok((connection.read(row, 0)?, newest))
}
