//! COPY.

use super::*;
use crate::wait::until;

/// Values at the edges of each type, by what the database must then hold.
fn edges(sql_type: SqlType) -> Vec<(Cell, Option<f64>)> {
    let value = |value: f64| (Cell::new(value), Some(value));
    let refused = |value: f64| (Cell::new(value), None);
    let mut edges = vec![(Cell::NULL, None), value(0.0), value(1.0), value(-1.0)];
    edges.extend(match sql_type {
        SqlType::BigInt => vec![
            value(9_007_199_254_740_991.0),
            value(-9_223_372_036_854_775_808.0),
            value(9_223_372_036_854_774_784.0),
            refused(9_223_372_036_854_775_808.0),
        ],
        SqlType::Integer => {
            vec![
                value(2_147_483_647.0),
                value(-2_147_483_648.0),
                refused(2_147_483_648.0),
                refused(-2_147_483_649.0),
            ]
        }
        SqlType::Real => vec![
            (Cell::new(14.14), Some(f64::from(14.14_f32))),
            value(f64::from(f32::MAX)),
            value(f64::from(f32::MIN)),
            refused(1e39),
        ],
    });
    edges
}

#[tokio::test]
async fn every_column_comes_back_as_it_was_written_also_at_the_edges_of_its_type() {
    let mut platform = Platform::new().await;
    let n_rows = edges(SqlType::Real).len();
    let mut windows = Vec::new();
    let mut expected: BTreeMap<(EntityId, usize), Vec<Option<f64>>> = BTreeMap::new();
    let mut n_refused = 0;
    for entity in [EntityId::from(platform.hosts[1]), platform.vms[2].into()] {
        let mut window = Window::with_capacity(entity, n_rows);
        for row in 0..n_rows {
            let mut cells = Vec::new();
            let mut values = Vec::new();
            for (index, column) in Column::of(entity.kind).iter().enumerate() {
                // Another edge in each column of a row.
                let (cell, value) = edges(column.sql_type)[(row + index) % n_rows];
                n_refused += u64::from(cell.get().is_some() && value.is_none());
                cells.push(cell);
                values.push(value);
            }
            let seconds = i64::try_from(row).unwrap() * 20;
            let host = (row % 2 == 0 && entity.kind == EntityKind::Vm).then(|| platform.hosts[1]);
            let cpus = if row == 1 { 0 } else { 8 };
            let head = RowHead {
                stamp: stamp(seconds),
                interval_seconds: 20,
                host,
                cpus,
                complete: true,
            };
            assert!(window.push(head, &cells));
            expected.insert((entity, row), values);
        }
        windows.push(window);
    }
    // Sent in the wrong order on purpose: the writer sorts.
    windows.reverse();
    let written = platform
        .writer
        .write(&platform.lease, &flush(windows))
        .await
        .unwrap();
    assert_eq!(
        (written.host_rows, written.vm_rows),
        (n_rows as u64, n_rows as u64)
    );
    assert_eq!(written.out_of_range, n_refused);
    assert!(n_refused > 10, "{n_refused}");

    for kind in EntityKind::ALL {
        let columns: Vec<String> = Column::of(kind)
            .iter()
            .map(|column| format!("{}::numeric::text", column.name))
            .collect();
        let columns: Vec<String> = columns
            .into_iter()
            .zip(Column::of(kind))
            // A numeric made from a real has six digits only; from the double it is exact.
            .map(|(text, column)| match column.sql_type {
                SqlType::Real => format!("{}::float8::text", column.name),
                SqlType::BigInt | SqlType::Integer => text,
            })
            .collect();
        let (placement, entity) = match kind {
            EntityKind::Host => ("NULL::int, NULL::smallint", EntityId::from(platform.hosts[1])),
            EntityKind::Vm => ("host_id, vcpu_count", platform.vms[2].into()),
        };
        let sql = format!(
            "SELECT extract(epoch FROM collected_at)::bigint, {kind}_id, interval_seconds, {placement}, {} \
             FROM virt_{kind}_metrics ORDER BY collected_at",
            columns.join(", ")
        );
        let rows = platform.fixture.sql.query(&sql, &[]).await.unwrap();
        assert_eq!(rows.len(), n_rows);
        for (index, row) in rows.iter().enumerate() {
            assert_eq!(row.get::<_, i64>(0), NOON + i64::try_from(index).unwrap() * 20);
            assert_eq!(row.get::<_, i32>(1), entity.id);
            assert_eq!(row.get::<_, i16>(2), 20);
            if kind == EntityKind::Vm {
                assert_eq!(
                    row.get::<_, Option<i32>>(3),
                    (index % 2 == 0).then_some(platform.hosts[1].0)
                );
                assert_eq!(row.get::<_, Option<i16>>(4), (index != 1).then_some(8));
            }
            let values = &expected[&(entity, index)];
            for (position, (column, value)) in Column::of(kind).iter().zip(values).enumerate() {
                let text: Option<String> = row.get(5 + position);
                let stored = text.map(|text| text.parse::<f64>().unwrap());
                assert_eq!(stored, *value, "{kind} {} in row {index}", column.name);
            }
        }
    }
}

#[tokio::test]
async fn whole_numbers_are_exact() {
    let mut platform = Platform::new().await;
    let exact = 9_007_199_254_740_991.0;
    platform
        .writer
        .write(
            &platform.lease,
            &flush(vec![window_of(platform.vms[0], [0], exact)]),
        )
        .await
        .unwrap();
    let row = platform
        .fixture
        .sql
        .query_one("SELECT memory_active_kib FROM virt_vm_metrics", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, i64>(0), 9_007_199_254_740_991);
}

#[tokio::test]
async fn a_large_flush_is_stored_completely_in_many_chunks() {
    let mut platform = Platform::new().await;
    // An hour of 150 entities: some megabytes, over a border of days, through both tables.
    let windows: Vec<Window> = (0..150)
        .map(|id| {
            let entity = if id % 3 == 0 {
                EntityId::from(HostId(id))
            } else {
                VmId(id).into()
            };
            window_of(
                entity,
                (0..180).map(|step| 50_400 + step * 20 - 1800),
                f64::from(id),
            )
        })
        .collect();
    let written = platform
        .writer
        .write(&platform.lease, &flush(windows))
        .await
        .unwrap();
    assert_eq!(
        (written.host_rows, written.vm_rows, written.out_of_range),
        (50 * 180, 100 * 180, 0)
    );
    assert!(written.bytes > 4_000_000, "{}", written.bytes);
    assert_eq!(platform.rows().await, (50 * 180, 100 * 180, 0));
    assert_eq!(platform.breaks().await, Vec::<String>::new());
    let chunks = "SELECT count(*) FROM timescaledb_information.chunks";
    assert_eq!(platform.fixture.number(chunks).await, 4);
}

#[tokio::test]
async fn a_row_that_is_stored_already_fails_the_flush_as_a_whole_and_staging_leaves_it_out() {
    let mut platform = Platform::new().await;
    let vm = platform.vms[0];
    let stored = flush(vec![window_of(vm, [0, 20], 1.0)]);
    platform.writer.write(&platform.lease, &stored).await.unwrap();

    let again = Flush {
        windows: vec![
            window_of(platform.hosts[0], [20, 40], 2.0),
            window_of(vm, [20, 40, 60], 2.0),
            window_of(platform.vms[1], [60], 2.0),
        ],
        gaps_new: vec![gap(platform.vms[1], 0, 60, None)],
        ..Flush::default()
    };
    let error = platform.writer.write(&platform.lease, &again).await.unwrap_err();
    assert_eq!(error.class(), Class::Duplicate, "{}", said(&error));
    assert_eq!(error.disposition(), Disposition::Split);
    assert!(error.is_rolled_back());
    assert!(
        said(&error).starts_with("cannot store samples: duplicate key value"),
        "{}",
        said(&error)
    );
    assert_eq!(said(&error).lines().count(), 1, "{}", said(&error));
    assert_eq!(platform.rows().await, (0, 2, 0));

    assert!(platform.writer.is_usable());
    for duplicates in [1, 6] {
        let written = platform
            .writer
            .write_staged(&platform.lease, &again)
            .await
            .unwrap();
        assert_eq!(written.duplicates, duplicates);
        assert_eq!(written.host_rows + written.vm_rows, 6 - duplicates);
    }
    assert_eq!(platform.rows().await, (2, 5, 2));
    let first = "SELECT cpu_usage_mhz::bigint FROM virt_vm_metrics WHERE vm_id = 1 ORDER BY collected_at OFFSET 1 LIMIT 1";
    assert_eq!(
        platform.fixture.number(first).await,
        1,
        "what was stored first stays"
    );
    // The direct way still works on the same connection.
    platform
        .writer
        .write(&platform.lease, &flush(vec![window_of(vm, [80], 1.0)]))
        .await
        .unwrap();
}

#[tokio::test]
async fn gap_rows_change_in_the_transaction_of_the_samples() {
    let mut platform = Platform::new().await;
    let vm = platform.vms[0];
    let initial = Step {
        from: stamp(-3600),
        to: Some(stamp(0)),
        to_interval: 20,
        initial: true,
    };
    let opened = Flush {
        windows: vec![window_of(vm, [0], 1.0)],
        gaps_new: vec![
            NewGap {
                entity: vm.into(),
                step: initial,
                reason: None,
                hint: None,
                lane: GapLane::Ring,
                ask_after: None,
            },
            gap(platform.vms[1], -600, -300, Some(Reason::PoweredOff)),
            gap(platform.vms[2], -7200, 0, None),
            gap(platform.hosts[0], -60, 0, None),
        ],
        ..Flush::default()
    };
    platform.writer.write(&platform.lease, &opened).await.unwrap();
    let id = platform.lease.platform;
    let store = &platform.store;
    let (ring, now) = (GapLane::Ring, stamp(0));
    let open = store.open_gaps(id, ring, 10, Duration::ZERO, now).await.unwrap();
    let entities: Vec<EntityId> = open.iter().map(|gap| gap.entity).collect();
    assert_eq!(
        entities,
        [platform.vms[2].into(), vm.into(), platform.hosts[0].into()],
        "oldest first"
    );
    assert_eq!(open[1].step, initial);
    assert_eq!(
        store.open_gaps(id, ring, 1, Duration::ZERO, now).await.unwrap(),
        open[..1]
    );
    let oldest = open.iter().map(|gap| gap.step.from).min();
    assert_eq!(store.count_open_gaps(id).await.unwrap(), (3, oldest));

    // Worked: its samples are stored, the row is gone, the rest of it is a new one.
    let worked = Flush {
        windows: vec![window_of(vm, [-60, -40, -20], 1.0)],
        gaps_done: vec![open[1].id],
        gaps_new: vec![gap(vm, -3600, -60, Some(Reason::NotPublished))],
        gaps_asked: vec![open[0].id],
        speaking: Vec::new(),
    };
    platform.writer.write(&platform.lease, &worked).await.unwrap();
    assert_eq!(platform.rows().await, (0, 4, 4));
    let left = platform
        .store
        .open_gaps(id, ring, 10, Duration::from_secs(120), now)
        .await
        .unwrap();
    assert_eq!(left, [open[2]], "what was just asked for is not asked again yet");
    let asked =
        "SELECT count(*) FROM virt_collection_gap WHERE attempts = 1 AND asked_at <= clock_timestamp()";
    assert_eq!(platform.fixture.number(asked).await, 1);
    let explained =
        "SELECT count(*) FROM virt_collection_gap WHERE explained_at IS NOT NULL AND state = 'explained'";
    assert_eq!(platform.fixture.number(explained).await, 2);

    // A gap row that is gone already: nothing of the flush is stored.
    let error = platform.writer.write(&platform.lease, &worked).await.unwrap_err();
    assert_eq!(error.class(), Class::Duplicate);
    let gone = Flush {
        windows: vec![window_of(vm, [20], 1.0)],
        gaps_done: vec![open[1].id],
        ..Flush::default()
    };
    let error = platform.writer.write(&platform.lease, &gone).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::GapsChanged {
                expected: 1,
                found: 0
            }
        ),
        "{error:?}"
    );
    assert_eq!(platform.rows().await, (0, 4, 4));
    // Only gap rows, no samples.
    let only = Flush {
        gaps_done: vec![open[2].id],
        ..Flush::default()
    };
    platform.writer.write(&platform.lease, &only).await.unwrap();
    assert_eq!(platform.rows().await, (0, 4, 3));
}

#[tokio::test]
async fn a_gap_of_another_platform_is_out_of_reach() {
    let mut platform = Platform::new().await;
    let lease = platform.other().await;
    let opened = Flush {
        gaps_new: vec![gap(platform.vms[0], 0, 100, None)],
        ..Flush::default()
    };
    platform.writer.write(&platform.lease, &opened).await.unwrap();
    let id: i64 = platform
        .fixture
        .number("SELECT gap_id FROM virt_collection_gap")
        .await;
    let done = Flush {
        gaps_done: vec![GapId(id)],
        ..Flush::default()
    };
    let error = platform.writer.write(&lease, &done).await.unwrap_err();
    assert!(matches!(error, Error::GapsChanged { .. }), "{error:?}");
}

#[tokio::test]
async fn every_reason_can_be_stored_and_no_other() {
    let mut platform = Platform::new().await;
    let gaps_new = (0..)
        .zip(Reason::ALL)
        .map(|(n, reason)| gap(platform.vms[0], n * 100, n * 100 + 60, Some(reason)));
    let all = Flush {
        gaps_new: gaps_new.collect(),
        ..Flush::default()
    };
    platform.writer.write(&platform.lease, &all).await.unwrap();
    let error = platform
        .fixture
        .sql
        .batch_execute("UPDATE virt_collection_gap SET reason = 'other'")
        .await
        .unwrap_err();
    assert_eq!(error.code().map(|code| code.code()), Some("23514"));
}

#[tokio::test]
async fn a_value_that_the_server_refuses_fails_the_flush_and_is_of_class_data() {
    let mut platform = Platform::new().await;
    let vm = platform.vms[0];
    let mut far = Window::with_capacity(vm.into(), 1);
    let head = RowHead {
        stamp: Stamp::from_micros(i64::MAX - 1),
        interval_seconds: 20,
        host: None,
        cpus: 1,
        complete: true,
    };
    assert!(far.push(head, &vec![Cell::NULL; Column::of(EntityKind::Vm).len()]));
    let poisoned = flush(vec![window_of(platform.vms[1], [0], 1.0), far]);
    let error = platform
        .writer
        .write(&platform.lease, &poisoned)
        .await
        .unwrap_err();
    assert_eq!(error.class(), Class::Data, "{}", said(&error));
    assert_eq!(platform.rows().await, (0, 0, 0));
    assert!(platform.writer.is_usable());
}

#[tokio::test]
async fn rows_that_the_server_did_not_count_are_not_committed() {
    let mut platform = Platform::new().await;
    let swallow = "CREATE FUNCTION public.swallow() RETURNS trigger LANGUAGE plpgsql AS \
                   $$ BEGIN RETURN CASE WHEN NEW.vm_id = 2 THEN NULL ELSE NEW END; END $$; \
                   CREATE TRIGGER swallow BEFORE INSERT ON virt_vm_metrics \
                   FOR EACH ROW EXECUTE FUNCTION public.swallow()";
    platform.fixture.sql.batch_execute(swallow).await.unwrap();
    let windows = vec![window_of(VmId(1), [0], 1.0), window_of(VmId(2), [0], 1.0)];
    let error = platform
        .writer
        .write(&platform.lease, &flush(windows))
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::RowCount {
                sent: 2,
                stored: 1,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(platform.rows().await, (0, 0, 0));
}

/// Something that happens at COMMIT: a deferred trigger on a small table that the flush writes.
async fn at_commit(platform: &Platform, body: &str) {
    let sql = format!(
        "CREATE FUNCTION public.at_commit() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ \
         BEGIN {body}; RETURN NULL; END $$; \
         CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON virt_collection_gap DEFERRABLE INITIALLY DEFERRED \
         FOR EACH ROW EXECUTE FUNCTION public.at_commit()"
    );
    platform.fixture.sql.batch_execute(&sql).await.unwrap();
}

#[tokio::test]
async fn a_refused_commit_is_told_from_one_whose_outcome_nobody_knows() {
    let mut platform = Platform::new().await;
    let vm = platform.vms[0];
    let step = Flush {
        windows: vec![window_of(vm, [0, 100], 1.0)],
        gaps_new: vec![gap(vm, 0, 100, None)],
        ..Flush::default()
    };
    at_commit(&platform, "RAISE EXCEPTION 'not today' USING ERRCODE = '40001'").await;
    let error = platform.writer.write(&platform.lease, &step).await.unwrap_err();
    assert_eq!(
        (error.class(), error.is_rolled_back()),
        (Class::Retry, true),
        "{}",
        said(&error)
    );
    assert!(platform.writer.is_usable());
    assert_eq!(platform.rows().await, (0, 0, 0));

    platform
        .fixture
        .sql
        .batch_execute("DROP FUNCTION public.at_commit() CASCADE")
        .await
        .unwrap();
    at_commit(&platform, "PERFORM pg_terminate_backend(pg_backend_pid())").await;
    let error = platform.writer.write(&platform.lease, &step).await.unwrap_err();
    assert!(matches!(error, Error::CommitUnknown { .. }), "{}", said(&error));
    assert_eq!((error.class(), error.is_rolled_back()), (Class::Unknown, false));
    assert!(!platform.writer.is_usable());
}

#[tokio::test]
async fn a_write_that_is_dropped_half_way_stores_nothing_and_makes_the_writer_unusable() {
    let mut platform = Platform::new().await;
    // The COPY waits for this lock.
    platform
        .fixture
        .sql
        .batch_execute("BEGIN; LOCK TABLE virt_vm_metrics IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let samples = flush(vec![window_of(platform.vms[0], [0], 1.0)]);
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'virt_vm_metrics'::regclass \
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let half_way = until("the COPY waits", async || {
        match platform.fixture.number(waits).await {
            0 => Err("nobody waits".to_owned()),
            _ => Ok(()),
        }
    });
    tokio::select! {
        written = platform.writer.write(&platform.lease, &samples) => panic!("{written:?}"),
        () = half_way => {}
    }
    assert!(!platform.writer.is_usable());
    platform.writer = platform.store.writer().await.unwrap();
    platform.fixture.sql.batch_execute("COMMIT").await.unwrap();
    platform.writer.write(&platform.lease, &samples).await.unwrap();
    assert_eq!(platform.rows().await, (0, 1, 0));
}

#[tokio::test]
async fn a_lost_connection_is_noticed_and_the_next_writer_works() {
    let mut platform = Platform::new().await;
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE datname = current_database() AND usename = 'virt_writer'";
    platform.fixture.sql.batch_execute(end).await.unwrap();
    let samples = flush(vec![window_of(platform.vms[0], [0], 1.0)]);
    let error = platform
        .writer
        .write(&platform.lease, &samples)
        .await
        .unwrap_err();
    assert_eq!(
        (error.class(), error.is_rolled_back()),
        (Class::Connection, true),
        "{}",
        said(&error)
    );
    assert_eq!(error.disposition(), Disposition::Retry);
    assert!(!platform.writer.is_usable());
    platform.writer = platform.store.writer().await.unwrap();
    platform.writer.write(&platform.lease, &samples).await.unwrap();
    // The pool's connections were ended too; it gets over that by itself.
    platform.store.renew_lease(&platform.lease).await.unwrap();
}

#[tokio::test]
async fn a_read_only_server_is_its_own_class() {
    let mut platform = Platform::new().await;
    let name = platform.fixture.database.name();
    let read_only = format!("ALTER DATABASE {name} SET default_transaction_read_only = on");
    platform.fixture.sql.batch_execute(&read_only).await.unwrap();
    platform.writer = platform.store.writer().await.unwrap();
    let samples = flush(vec![window_of(platform.vms[0], [0], 1.0)]);
    let error = platform
        .writer
        .write(&platform.lease, &samples)
        .await
        .unwrap_err();
    assert_eq!(error.class(), Class::NotWritable, "{}", said(&error));
    let fresh = platform.fixture.store("c");
    assert!(!fresh.probe().await.unwrap().writable);
}
