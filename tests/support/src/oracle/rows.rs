//! Reads stored rows in bulk: binary COPY, decoded by hand, one entity after the other.
//!
//! Owns: the wire form and the names of the metric tables' leading columns. Never does: judging a row.

use std::fmt::Write as _;
use std::pin::pin;

use futures_util::StreamExt as _;
use tokio_postgres::Client;
use vsphere_simulator::EntityKind;

use super::columns::rules;
use super::{Error, MICROS};

/// PostgreSQL counts from 2000-01-01.
const EPOCH_OFFSET_MICROS: i64 = 946_684_800 * MICROS;

/// Entities per COPY: so few that the index gives the order, so many that the round trip does not count.
const ENTITIES_PER_COPY: usize = 400;

/// One stored row.
#[derive(Clone, Debug, Default)]
pub(crate) struct Row {
    /// Key of its entity.
    pub(crate) entity: i64,
    /// `collected_at`, microseconds since the epoch.
    pub(crate) at: i64,
    /// `interval_seconds`.
    pub(crate) interval: Option<i64>,
    /// `host_id` of a VM's row.
    pub(crate) host: Option<i64>,
    /// `vcpu_count` of a VM's row.
    pub(crate) vcpus: Option<i64>,
    /// The measured columns in the order of the oracle's table.
    pub(crate) cells: Vec<Option<f64>>,
}

/// Table, key column and the columns before the measured ones.
pub(crate) struct Table {
    pub(crate) name: &'static str,
    pub(crate) key: &'static str,
    pub(crate) host: &'static str,
    pub(crate) vcpus: &'static str,
}

/// Where the rows of a kind are.
pub(crate) const fn table(kind: EntityKind) -> Table {
    match kind {
        EntityKind::Host => Table {
            name: "virt_host_metrics",
            key: "host_id",
            host: "NULL",
            vcpus: "NULL",
        },
        EntityKind::Vm => Table {
            name: "virt_vm_metrics",
            key: "vm_id",
            host: "host_id",
            vcpus: "vcpu_count",
        },
    }
}

/// The table's measured columns must be those that the oracle knows, or it would be blind to some.
pub(crate) async fn check_columns(client: &Client, kind: EntityKind) -> Result<(), Error> {
    const LEADING: [&str; 5] = [
        "collected_at",
        "interval_seconds",
        "host_id",
        "vm_id",
        "vcpu_count",
    ];
    let table = table(kind);
    let names = client
        .query(
            "SELECT attname::text FROM pg_attribute \
             WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped",
            &[&table.name],
        )
        .await?;
    let names: Vec<String> = names
        .iter()
        .map(|row| row.get(0))
        .filter(|name: &String| !LEADING.contains(&name.as_str()))
        .collect();
    let known = rules(kind);
    let unknown = names
        .iter()
        .find(|name| known.iter().all(|rule| rule.name != **name));
    let absent = known
        .iter()
        .find(|rule| names.iter().all(|name| name != rule.name));
    match unknown.map(String::as_str).or(absent.map(|rule| rule.name)) {
        None => Ok(()),
        Some(column) => Err(Error::Columns {
            table: table.name,
            column: column.to_owned(),
        }),
    }
}

/// Calls `each` with all rows of each of `entities`, ascending by time; entities without rows are left out.
pub(crate) async fn each_entity(
    client: &Client,
    kind: EntityKind,
    entities: &[i64],
    mut each: impl FnMut(i64, &[Row]),
) -> Result<(), Error> {
    let table = table(kind);
    let mut rows: Vec<Row> = Vec::new();
    for batch in entities.chunks(ENTITIES_PER_COPY) {
        let keys = batch.iter().map(i64::to_string).collect::<Vec<_>>().join(",");
        let mut sql = format!(
            "COPY (SELECT {key}::int8, collected_at, interval_seconds::int8, {host}::int8, {vcpus}::int8",
            key = table.key,
            host = table.host,
            vcpus = table.vcpus
        );
        for rule in rules(kind) {
            // Writing to a String cannot fail.
            write!(sql, ", {}::float8", rule.name).unwrap_or_default();
        }
        write!(
            sql,
            " FROM {name} WHERE {key} IN ({keys}) ORDER BY {key}, collected_at) TO STDOUT (FORMAT binary)",
            name = table.name,
            key = table.key
        )
        .unwrap_or_default();

        let mut stream = pin!(client.copy_out(sql.as_str()).await?);
        let mut decoder = Decoder::new(rules(kind).len());
        while let Some(bytes) = stream.next().await {
            decoder.buffer.extend_from_slice(&bytes?);
            while let Some(row) = decoder.next_row()? {
                if let Some(before) = rows
                    .last()
                    .map(|row| row.entity)
                    .filter(|before| *before != row.entity)
                {
                    each(before, &rows);
                    rows.clear();
                }
                rows.push(row);
            }
            decoder.compact();
        }
        if let Some(before) = rows.last().map(|row| row.entity) {
            each(before, &rows);
            rows.clear();
        }
    }
    Ok(())
}

/// Takes rows out of the bytes of a binary COPY, wherever the messages were cut.
struct Decoder {
    buffer: Vec<u8>,
    position: usize,
    measured: usize,
    header_read: bool,
}

impl Decoder {
    fn new(measured: usize) -> Self {
        Self {
            buffer: Vec::new(),
            position: 0,
            measured,
            header_read: false,
        }
    }

    fn compact(&mut self) {
        self.buffer.drain(..self.position);
        self.position = 0;
    }

    /// The next whole row; `None` at the end of what has come.
    fn next_row(&mut self) -> Result<Option<Row>, Error> {
        /// Signature, flags and the length of an extension that nobody uses.
        const HEADER: usize = 19;
        if !self.header_read {
            if self.buffer.len() < HEADER {
                return Ok(None);
            }
            self.position = HEADER;
            self.header_read = true;
        }
        let mut cursor = Cursor(self.buffer.get(self.position..).unwrap_or_default());
        let Some(fields) = cursor.take::<2>().map(i16::from_be_bytes) else {
            return Ok(None);
        };
        if fields == -1 {
            self.position += 2;
            return Ok(None);
        }
        let mut row = Row {
            cells: Vec::with_capacity(self.measured),
            ..Row::default()
        };
        for index in 0..fields {
            let Some(length) = cursor.take::<4>().map(i32::from_be_bytes) else {
                return Ok(None);
            };
            let field = match length {
                -1 => None,
                8 => match cursor.take::<8>() {
                    Some(bytes) => Some(bytes),
                    None => return Ok(None),
                },
                _ => return Err(Error::Copy("a field that is not eight bytes long")),
            };
            let integer = field.map(i64::from_be_bytes);
            match index {
                0 => row.entity = integer.ok_or(Error::Copy("a row without entity"))?,
                1 => {
                    let at = integer.ok_or(Error::Copy("a row without time"))?;
                    row.at = at.saturating_add(EPOCH_OFFSET_MICROS);
                }
                2 => row.interval = integer,
                3 => row.host = integer,
                4 => row.vcpus = integer,
                _ => row.cells.push(field.map(f64::from_be_bytes)),
            }
        }
        self.position = self.buffer.len() - cursor.0.len();
        Ok(Some(row))
    }
}

struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }
}
