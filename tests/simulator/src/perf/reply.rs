//! One entity's part of a QueryPerf reply, in `normal` or `csv` form.

use crate::grid;
use crate::soap::{QuerySpec, escape, moref};

pub(super) fn begin(
    out: &mut String,
    spec: &QuerySpec<'_>,
    kind: &str,
    stamps: impl Iterator<Item = i64>,
    interval: i64,
) {
    let mut digits = itoa::Buffer::new();
    let interval = digits.format(interval);
    if spec.csv {
        out.push_str("<returnval xsi:type=\"PerfEntityMetricCSV\">");
    } else {
        out.push_str("<returnval xsi:type=\"PerfEntityMetric\">");
    }
    moref(out, "entity", kind, &spec.entity.value);
    if spec.csv {
        out.push_str("<sampleInfoCSV>");
        for (number, stamp) in stamps.enumerate() {
            if number > 0 {
                out.push(',');
            }
            out.push_str(interval);
            out.push(',');
            grid::push_stamp(out, stamp);
        }
        out.push_str("</sampleInfoCSV>");
    } else {
        for stamp in stamps {
            out.push_str("<sampleInfo><timestamp>");
            grid::push_stamp(out, stamp);
            out.push_str("</timestamp><interval>");
            out.push_str(interval);
            out.push_str("</interval></sampleInfo>");
        }
    }
}

pub(super) fn series(
    out: &mut String,
    csv: bool,
    key: i32,
    instance: &str,
    cells: impl Iterator<Item = Option<i64>>,
) {
    let mut digits = itoa::Buffer::new();
    identity(out, csv, key, instance);
    if csv {
        out.push_str("<value>");
        for (number, cell) in cells.enumerate() {
            if number > 0 {
                out.push(',');
            }
            // An empty cell is empty here and -1 in the other form, which has no way to be empty.
            if let Some(value) = cell {
                out.push_str(digits.format(value));
            }
        }
        out.push_str("</value>");
    } else {
        for cell in cells {
            out.push_str("<value>");
            out.push_str(digits.format(cell.unwrap_or(-1)));
            out.push_str("</value>");
        }
    }
    out.push_str("</value>\n");
}

/// A series in `csv` form whose cells are text already.
pub(super) fn prepared(out: &mut String, key: i32, instance: &str, cells: &str) {
    identity(out, true, key, instance);
    out.push_str("<value>");
    out.push_str(cells);
    out.push_str("</value></value>\n");
}

fn identity(out: &mut String, csv: bool, key: i32, instance: &str) {
    out.push_str(if csv {
        "<value><id><counterId>"
    } else {
        "<value xsi:type=\"PerfMetricIntSeries\"><id><counterId>"
    });
    out.push_str(itoa::Buffer::new().format(key));
    out.push_str("</counterId><instance>");
    escape(out, instance);
    out.push_str("</instance></id>");
}

pub(super) fn end(out: &mut String) {
    out.push_str("</returnval>\n");
}
