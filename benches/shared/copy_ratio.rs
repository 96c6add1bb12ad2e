//! What storing a flush costs the server, beside its own COPY of a ready file into the same table.

use std::io::Write as _;

use bytes::BytesMut;
use support::database::Database as TestDatabase;
use virt_collector::model::columns::Column;
use virt_collector::model::ids::{EntityId, EntityKind, VmId};
use virt_collector::model::sample::{Cell, RowHead, Window};
use virt_collector::store::copy::encode;
use virt_collector::store::{Database, Flush, Lease, Writer};
use virt_collector::units::Stamp;

use crate::cost::{Ratio, cpu_seconds};
use crate::leased::Leased;

/// A poll of 10,000 VMs with two rows each.
const VMS: i32 = 10_000;
const ROWS: i64 = 2;

/// 2026-01-31T00:00:00Z: the start of a chunk.
const START: i64 = 1_769_817_600;

/// A migrated database with a platform, and a writer for it.
pub(crate) struct Store {
    pub(crate) database: Database,
    pub(crate) writer: Writer,
    pub(crate) lease: Lease,
    pub(crate) sql: tokio_postgres::Client,
    pid: i32,
    // Last: it goes when nobody is connected any more.
    _fresh: TestDatabase,
}

impl Store {
    pub(crate) async fn new() -> Self {
        let Leased {
            store: database,
            lease,
            sql,
            fresh,
        } = Leased::new().await;
        let writer = database.writer().await.unwrap();
        sql.execute(
            "INSERT INTO virt_vm (platform_id, moref, power_state, is_connected, is_template, first_seen_at)
             SELECT $1, 'vm-' || n, 'on', true, false, now() FROM generate_series(1, $2) AS n",
            &[&lease.platform.0, &VMS],
        )
        .await
        .unwrap();
        let pid: i32 = sql
            .query_one(
                "SELECT pid FROM pg_stat_activity \
                 WHERE datname = current_database() AND application_name LIKE '%copy%'",
                &[],
            )
            .await
            .unwrap()
            .get(0);
        Self {
            database,
            writer,
            lease,
            sql,
            pid,
            _fresh: fresh,
        }
    }
}

/// The windows of a poll, the `turn`th behind one another.
pub(crate) fn windows(turn: i64) -> Vec<Window> {
    let columns = Column::of(EntityKind::Vm).len();
    (1..=VMS)
        .map(|vm| {
            let entity = EntityId::from(VmId(vm));
            let mut window = Window::with_capacity(entity, 2);
            for row in 0..ROWS {
                let head = RowHead {
                    stamp: Stamp::from_seconds(START + 20 * (turn * ROWS + row)),
                    interval_seconds: 20,
                    host: None,
                    cpus: 4,
                    complete: true,
                };
                let cells: Vec<Cell> = (0_i32..)
                    .take(columns)
                    .map(|column| Cell::new(f64::from(vm * 31 + column * 1009)))
                    .collect();
                assert!(window.push(head, &cells));
            }
            window
        })
        .collect()
}

/// The rows as one binary COPY.
pub(crate) fn encoded(windows: &[Window]) -> BytesMut {
    let mut encoder = encode::Encoder::new(EntityKind::Vm);
    let mut bytes = BytesMut::from(encode::HEADER);
    for window in windows {
        for (head, cells) in window.rows() {
            encoder.row(&mut bytes, window.entity, head, cells);
        }
    }
    bytes.extend_from_slice(encode::TRAILER);
    bytes
}

/// CPU time of the server for its own COPY of a file over that for a flush of the same number of rows.
pub(crate) async fn measure(pairs: i64) -> Ratio {
    let mut store = Store::new().await;
    let directory = tempfile::Builder::new().prefix("virt-copy-").tempdir().unwrap();
    // The server, which may be another user, reads the file.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory.path(), open).unwrap();
    let file = directory.path().join("rows");
    let server: i32 = store
        .sql
        .query_one("SELECT pg_backend_pid()", &[])
        .await
        .unwrap()
        .get(0);
    let statement = format!(
        "COPY {} ({}) FROM '{}' (FORMAT binary)",
        encode::table(EntityKind::Vm),
        encode::columns(EntityKind::Vm).join(", "),
        file.display()
    );
    let mut ratios = Vec::new();
    // The first pair warms up: it makes the chunk and loads what a backend loads once.
    for pair in 0..=pairs {
        let (first, second) = (2 * pair, 2 * pair + 1);
        let [by_flush, by_file] = if pair % 2 == 0 {
            [first, second]
        } else {
            [second, first]
        };
        std::fs::File::create(&file)
            .and_then(|mut out| out.write_all(&encoded(&windows(by_file))))
            .unwrap();
        let flush = Flush {
            windows: windows(by_flush),
            ..Flush::default()
        };
        let mut ours = 0.0;
        let mut own = 0.0;
        for turn in [first, second] {
            if turn == by_flush {
                let before = backend_cpu(store.pid);
                store.writer.write(&store.lease, &flush).await.unwrap();
                ours = backend_cpu(store.pid) - before;
            } else {
                let before = backend_cpu(server);
                store.sql.batch_execute(&statement).await.unwrap();
                own = backend_cpu(server) - before;
            }
        }
        if pair > 0 {
            println!(
                "copy: microseconds of server CPU per row: flush {:.2}, own file {:.2}",
                ours * 1e6 / f64::from(VMS) / ROWS as f64,
                own * 1e6 / f64::from(VMS) / ROWS as f64
            );
            ratios.push(own / ours);
        }
    }
    let end = Stamp::from_seconds(START + 86_400);
    let marks = store
        .database
        .watermarks(store.lease.platform, end)
        .await
        .unwrap();
    assert_eq!(marks.len(), usize::try_from(VMS).unwrap());
    Ratio::from_pairs(ratios)
}

/// CPU seconds of a backend, which has one thread.
fn backend_cpu(pid: i32) -> f64 {
    cpu_seconds(&format!("/proc/{pid}/schedstat"))
}
