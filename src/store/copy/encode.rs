//! Samples as the bytes of a binary COPY.
//!
//! Owns: the order of columns in COPY, and the one conversion from a [`Cell`] to a stored value. Written by hand
//! because it is the hottest loop of the collector: the driver's own writer takes four times the CPU.

use bytes::{BufMut as _, BytesMut};

use crate::model::columns::{Column, SqlType};
use crate::model::ids::{EntityId, EntityKind};
use crate::model::sample::{Cell, RowHead};
use crate::store::types::to_postgres_micros;

/// Signature, flags, length of the header's extension.
pub const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// In place of a row's number of fields: no more rows.
pub const TRAILER: &[u8] = &[0xff, 0xff];

/// The hypertable of a kind.
pub const fn table(kind: EntityKind) -> &'static str {
    match kind {
        EntityKind::Host => "virt_host_metrics",
        EntityKind::Vm => "virt_vm_metrics",
    }
}

/// A kind's columns in the order of its table, which is the order of the fields in a row: 8-byte columns, keys,
/// the others, and what every row carries.
pub fn columns(kind: EntityKind) -> Vec<&'static str> {
    let (wide, narrow) = split(kind);
    let name = |column: &Column| column.name;
    let mut names = vec!["collected_at"];
    names.extend(wide.iter().map(name));
    names.extend(match kind {
        EntityKind::Host => &["host_id"][..],
        EntityKind::Vm => &["vm_id", "host_id"],
    });
    names.extend(narrow.iter().map(name));
    names.push("interval_seconds");
    if kind == EntityKind::Vm {
        names.push("vcpu_count");
    }
    names
}

/// The counters' columns that stand before the keys, and those that stand after them.
fn split(kind: EntityKind) -> (&'static [Column], &'static [Column]) {
    let all = Column::of(kind);
    all.split_at(
        all.iter()
            .position(|column| column.sql_type != SqlType::BigInt)
            .unwrap_or(all.len()),
    )
}

/// Appends rows of one kind.
#[derive(Debug)]
pub struct Encoder {
    kind: EntityKind,
    wide: &'static [Column],
    narrow: &'static [Column],
    n_fields: i16,
    /// Values that no column of their type can hold, stored as NULL.
    pub out_of_range: u64,
}

impl Encoder {
    /// An encoder of this kind's rows.
    #[must_use]
    pub fn new(kind: EntityKind) -> Self {
        let (wide, narrow) = split(kind);
        let n_fields = i16::try_from(columns(kind).len()).unwrap_or(i16::MAX);
        Self {
            kind,
            wide,
            narrow,
            n_fields,
            out_of_range: 0,
        }
    }

    /// Appends one row.
    pub fn row(&mut self, out: &mut BytesMut, entity: EntityId, head: &RowHead, cells: &[Cell]) {
        // No field is longer than its length and eight bytes.
        out.reserve(2 + 12 * usize::from(self.n_fields.unsigned_abs()));
        out.put_i16(self.n_fields);
        out.put_i32(8);
        out.put_i64(to_postgres_micros(head.stamp));
        let (wide, narrow) = cells.split_at_checked(self.wide.len()).unwrap_or((cells, &[]));
        for (column, cell) in self.wide.iter().zip(wide) {
            self.out_of_range += u64::from(!put_cell(out, column.sql_type, *cell));
        }
        out.put_i32(4);
        out.put_i32(entity.id);
        if self.kind == EntityKind::Vm {
            match head.host {
                Some(host) => {
                    out.put_i32(4);
                    out.put_i32(host.0);
                }
                None => out.put_i32(NULL),
            }
        }
        for (column, cell) in self.narrow.iter().zip(narrow) {
            self.out_of_range += u64::from(!put_cell(out, column.sql_type, *cell));
        }
        // NOT NULL in the table: an interval of nine hours and more is stored as nine hours, and counted.
        let interval = i16::try_from(head.interval_seconds);
        self.out_of_range += u64::from(interval.is_err());
        out.put_i32(2);
        out.put_i16(interval.unwrap_or(i16::MAX));
        if self.kind == EntityKind::Vm {
            match i16::try_from(head.cpus) {
                Ok(cpus) if cpus > 0 => {
                    out.put_i32(2);
                    out.put_i16(cpus);
                }
                _ => out.put_i32(NULL),
            }
        }
    }
}

/// In place of a field's length.
const NULL: i32 = -1;

/// Appends a cell; false where the column cannot hold its value and NULL was appended instead. One such value must
/// not make the server refuse the whole batch.
fn put_cell(out: &mut BytesMut, sql_type: SqlType, cell: Cell) -> bool {
    /// 2^63: the first double above all of `bigint`.
    const BIGINT_END: f64 = 9_223_372_036_854_775_808.0;

    let Some(value) = cell.get() else {
        out.put_i32(NULL);
        return true;
    };
    let whole = value.round();
    match sql_type {
        SqlType::BigInt if (-BIGINT_END..BIGINT_END).contains(&whole) => {
            #[expect(clippy::cast_possible_truncation, reason = "a whole number inside the range")]
            let whole = whole as i64;
            out.put_i32(8);
            out.put_i64(whole);
        }
        SqlType::Integer if (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&whole) => {
            #[expect(clippy::cast_possible_truncation, reason = "a whole number inside the range")]
            let whole = whole as i32;
            out.put_i32(4);
            out.put_i32(whole);
        }
        SqlType::Real if value.abs() <= f64::from(f32::MAX) => {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "the column is real: rounded to 24 bits by design"
            )]
            let rounded = value as f32;
            out.put_i32(4);
            out.put_f32(rounded);
        }
        SqlType::BigInt | SqlType::Integer | SqlType::Real => {
            out.put_i32(NULL);
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::{HostId, VmId};
    use crate::units::Stamp;

    fn field(bytes: &[u8]) -> Vec<u8> {
        let mut field = i32::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
        field.extend(bytes);
        field
    }

    #[test]
    fn a_row_is_these_bytes() {
        let kind = EntityKind::Vm;
        let width = Column::of(kind).len();
        let at = |name: &str| {
            Column::of(kind)
                .iter()
                .position(|column| column.name == name)
                .unwrap()
        };
        let mut cells = vec![Cell::NULL; width];
        cells[at("memory_active_kib")] = Cell::new(4_294_967_296.0);
        cells[at("cpu_usage_mhz")] = Cell::new(2900.0);
        cells[at("cpu_usage_percent")] = Cell::new(14.14);
        let head = RowHead {
            // 2000-01-01T00:00:20Z: 20 s after PostgreSQL's epoch.
            stamp: Stamp::from_seconds(946_684_820),
            interval_seconds: 20,
            host: Some(HostId(3)),
            cpus: 4,
            complete: true,
        };
        let mut out = BytesMut::new();
        let mut encoder = Encoder::new(kind);
        encoder.row(&mut out, VmId(7).into(), &head, &cells);

        let null = vec![0xff; 4];
        let mut expected = 38_i16.to_be_bytes().to_vec();
        expected.extend(field(&20_000_000_i64.to_be_bytes()));
        for name in columns(kind).into_iter().skip(1) {
            expected.extend(match name {
                "memory_active_kib" => field(&[0, 0, 0, 1, 0, 0, 0, 0]),
                "vm_id" => field(&[0, 0, 0, 7]),
                "host_id" => field(&[0, 0, 0, 3]),
                "cpu_usage_mhz" => field(&[0, 0, 0x0b, 0x54]),
                // 14.14 as the nearest IEEE 754 single.
                "cpu_usage_percent" => field(&[0x41, 0x62, 0x3d, 0x71]),
                "interval_seconds" => field(&[0, 20]),
                "vcpu_count" => field(&[0, 4]),
                _ => null.clone(),
            });
        }
        assert_eq!(out, expected);
        assert_eq!(encoder.out_of_range, 0);
    }

    #[test]
    fn a_value_that_its_column_cannot_hold_becomes_null_and_is_reported() {
        for (sql_type, value, fits) in [
            (SqlType::Integer, 2_147_483_647.0, true),
            (SqlType::Integer, 2_147_483_648.0, false),
            (SqlType::Integer, -2_147_483_648.0, true),
            (SqlType::Integer, -2_147_483_649.0, false),
            (SqlType::BigInt, -9_223_372_036_854_775_808.0, true),
            (SqlType::BigInt, 9_223_372_036_854_775_808.0, false),
            (SqlType::BigInt, f64::INFINITY, false),
            (SqlType::Real, 3.4e38, true),
            (SqlType::Real, 1e39, false),
            (SqlType::Real, f64::NEG_INFINITY, false),
        ] {
            let mut out = BytesMut::new();
            assert_eq!(
                put_cell(&mut out, sql_type, Cell::new(value)),
                fits,
                "{sql_type:?} {value}"
            );
            assert_eq!(out[..4] == [0xff; 4], !fits, "{sql_type:?} {value}");
        }
    }
}
