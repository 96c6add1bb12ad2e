//! The table of live rows.

use support::program::say;
use tokio_postgres::Client;

/// Counts all rows: shown, and therefore asked, less often once that takes long.
const LIVE: &str = "\
SELECT p.name, p.status, h.entities, v.entities, coalesce(h.rows, 0) + coalesce(v.rows, 0),
       to_char(greatest(h.newest, v.newest) AT TIME ZONE 'UTC', 'HH24:MI:SS'),
       ceil(extract(epoch FROM clock_timestamp() - greatest(h.newest, v.newest)))::bigint,
       (SELECT count(*) FROM virt_collection_gap AS g WHERE g.platform_id = p.platform_id AND g.state = 'open')
FROM virt_platform AS p
LEFT JOIN (
    SELECT platform_id, count(*) AS entities, sum(n)::bigint AS rows, max(newest) AS newest
    FROM (SELECT host_id, count(*) AS n, max(collected_at) AS newest FROM virt_host_metrics GROUP BY host_id) AS m
    JOIN virt_host USING (host_id) GROUP BY platform_id
) AS h USING (platform_id)
LEFT JOIN (
    SELECT platform_id, count(*) AS entities, sum(n)::bigint AS rows, max(newest) AS newest
    FROM (SELECT vm_id, count(*) AS n, max(collected_at) AS newest FROM virt_vm_metrics GROUP BY vm_id) AS m
    JOIN virt_vm USING (vm_id) GROUP BY platform_id
) AS v USING (platform_id)
ORDER BY p.name";

/// A line of the table.
pub(crate) struct Live {
    platform: String,
    status: String,
    hosts: i64,
    vms: i64,
    rows: i64,
    newest: Option<String>,
    lag: Option<i64>,
    open: i64,
}

/// A line for each platform, as the database has it now.
pub(crate) async fn read(reader: &Client) -> Result<Vec<Live>, tokio_postgres::Error> {
    Ok(reader.query(LIVE, &[]).await?.iter().map(Live::read).collect())
}

impl Live {
    fn read(row: &tokio_postgres::Row) -> Self {
        Self {
            platform: row.get(0),
            status: row.get(1),
            hosts: row.get::<_, Option<i64>>(2).unwrap_or(0),
            vms: row.get::<_, Option<i64>>(3).unwrap_or(0),
            rows: row.get(4),
            newest: row.get(5),
            lag: row.get(6),
            open: row.get(7),
        }
    }

    pub(crate) fn sentence(&self) -> String {
        let Self {
            platform,
            status,
            hosts,
            vms,
            open,
            ..
        } = self;
        let gaps = if *open == 1 { "gap" } else { "gaps" };
        match (&self.newest, self.lag) {
            (Some(newest), Some(lag)) => format!(
                "{platform} {status}: {hosts} hosts, {vms} VMs, {} rows, newest sample {newest} UTC ({lag} s ago), \
                 {open} open {gaps}",
                grouped(self.rows)
            ),
            _ => format!("{platform} {status}: no rows yet"),
        }
    }
}

/// Draws the table over the one before, and returns its height.
pub(crate) fn draw(platforms: &[Live], lines_above: usize) -> usize {
    let mut table = vec![format!(
        "{:<10} {:<12} {:>5} {:>6} {:>12} {:>14} {:>6} {:>10}",
        "platform", "status", "hosts", "VMs", "rows", "newest sample", "lag", "open gaps"
    )];
    table.extend(platforms.iter().map(|live| {
        let newest = live
            .newest
            .as_ref()
            .map_or_else(|| "-".to_owned(), |newest| format!("{newest} UTC"));
        let lag = live.lag.map_or_else(|| "-".to_owned(), |lag| format!("{lag} s"));
        format!(
            "{:<10} {:<12} {:>5} {:>6} {:>12} {newest:>14} {lag:>6} {:>10}",
            live.platform,
            live.status,
            live.hosts,
            live.vms,
            grouped(live.rows),
            grouped(live.open)
        )
    }));
    let up = if lines_above > 0 {
        format!("\x1b[{lines_above}A")
    } else {
        String::new()
    };
    say(format_args!("{up}\x1b[2K{}", table.join("\n\x1b[2K")));
    table.len()
}

/// 1234567 as 1,234,567.
fn grouped(number: i64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }
}
