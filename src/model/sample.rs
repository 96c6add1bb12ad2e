//! Samples between the wire and the row.
//!
//! Invariant: a [`Window`]'s rows ascend strictly by stamp, and it holds `rows × columns` cells in the order of
//! the kind's column table ([`crate::model::columns`]). Built once, by `vsphere::perf`; encoded once, by
//! `store::copy`; nothing between re-models it.

use std::fmt;

use crate::model::columns::Column;
use crate::model::ids::{EntityId, HostId};
use crate::units::Stamp;

/// One stored number, or no data.
///
/// Inside, NULL is NaN: eight bytes a cell, and a sum over nothing stays nothing. Integers are exact up to 2^53.
#[derive(Clone, Copy)]
pub struct Cell(f64);

impl Cell {
    /// No data: stored as NULL.
    pub const NULL: Self = Self(f64::NAN);

    /// A number; not-a-number is no data.
    #[must_use]
    pub const fn new(value: f64) -> Self {
        Self(value)
    }

    /// The number, `None` where there is no data.
    #[must_use]
    pub fn get(self) -> Option<f64> {
        (!self.0.is_nan()).then_some(self.0)
    }

    /// True where there is no data.
    #[must_use]
    pub const fn is_null(self) -> bool {
        self.0.is_nan()
    }
}

impl PartialEq for Cell {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl fmt::Debug for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.get() {
            Some(value) => write!(f, "{value}"),
            None => f.write_str("NULL"),
        }
    }
}

/// What a row holds besides its cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowHead {
    /// End of the interval, in the source's clock.
    pub stamp: Stamp,
    /// Length of the interval.
    pub interval_seconds: u16,
    /// Where a VM ran at `stamp`; `None` if unknown, and always for hosts.
    pub host: Option<HostId>,
    /// vCPUs of a VM, threads of a host, as used in the conversions; 0 if unknown.
    pub cpus: u16,
    /// False while a series of the reply had no value here although it had one before: a sample that may still
    /// be filled in by the source.
    pub complete: bool,
}

/// Consecutive samples of one entity, as one answer held them.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// Whose samples.
    pub entity: EntityId,
    rows: Vec<RowHead>,
    cells: Vec<Cell>,
}

impl Window {
    /// An empty window with room for `rows`.
    #[must_use]
    pub fn with_capacity(entity: EntityId, rows: usize) -> Self {
        let n_columns = Column::of(entity.kind).len();
        Self {
            entity,
            rows: Vec::with_capacity(rows),
            cells: Vec::with_capacity(rows * n_columns),
        }
    }

    /// Appends a row. Rows that do not come after the last one are refused, and so are rows of another width:
    /// the invariant of the type is kept here and nowhere else.
    #[must_use = "a refused row has to be counted"]
    pub fn push(&mut self, head: RowHead, cells: &[Cell]) -> bool {
        let ascends = self.rows.last().is_none_or(|last| last.stamp < head.stamp);
        let fits = cells.len() == Column::of(self.entity.kind).len();
        if ascends && fits {
            self.rows.push(head);
            self.cells.extend_from_slice(cells);
        }
        ascends && fits
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True without rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows' heads, ascending.
    #[must_use]
    pub fn heads(&self) -> &[RowHead] {
        &self.rows
    }

    /// Rows with their cells, ascending.
    pub fn rows(&self) -> impl Iterator<Item = (&RowHead, &[Cell])> {
        self.rows
            .iter()
            .zip(self.cells.chunks_exact(Column::of(self.entity.kind).len()))
    }

    /// Keeps the rows that `keep` accepts, in order.
    pub fn retain(&mut self, mut keep: impl FnMut(&RowHead, &[Cell]) -> bool) {
        let n_columns = Column::of(self.entity.kind).len();
        let mut kept = 0;
        for index in 0..self.rows.len() {
            let cells = index * n_columns..(index + 1) * n_columns;
            let wanted = match (self.rows.get(index), self.cells.get(cells.clone())) {
                (Some(head), Some(row)) => keep(head, row),
                _ => false,
            };
            if wanted {
                self.rows.swap(kept, index);
                self.cells.copy_within(cells, kept * n_columns);
                kept += 1;
            }
        }
        self.rows.truncate(kept);
        self.cells.truncate(kept * n_columns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::VmId;

    fn head(seconds: i64) -> RowHead {
        RowHead {
            stamp: Stamp::from_seconds(seconds),
            interval_seconds: 20,
            host: None,
            cpus: 1,
            complete: true,
        }
    }

    #[test]
    fn a_window_ascends_and_keeps_rows_and_cells_together() {
        let entity = EntityId::from(VmId(7));
        let width = Column::of(entity.kind).len();
        let mut window = Window::with_capacity(entity, 4);
        for second in [20_i32, 40, 60, 80] {
            assert!(window.push(
                head(i64::from(second)),
                &vec![Cell::new(f64::from(second)); width]
            ));
        }
        assert!(!window.push(head(80), &vec![Cell::NULL; width]), "same stamp");
        assert!(!window.push(head(100), &[Cell::NULL]), "wrong width");
        window.retain(|head, _| head.stamp != Stamp::from_seconds(40));
        let left: Vec<_> = window
            .rows()
            .map(|(head, cells)| (head.stamp, cells[0].get()))
            .collect();
        assert_eq!(
            left,
            [(20, 20.0), (60, 60.0), (80, 80.0)].map(|(s, v)| (Stamp::from_seconds(s), Some(v)))
        );
    }
}
