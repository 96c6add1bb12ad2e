//! Watermarks, chain, views.

use super::*;

#[tokio::test]
async fn a_watermark_is_the_newest_real_time_row_of_each_entity() {
    let mut platform = Platform::new().await;
    let day = 24 * 3600;
    let (host, vms) = (platform.hosts[0], platform.vms.clone());
    let windows = vec![
        window_of(host, [0, 20, 40], 1.0),
        window_of(vms[0], [-2 * day, -40, -20], 1.0),
        // A roll-up is newer than the newest sample: it does not count.
        rolled_up(vms[0], 300),
        // Two days old: beyond the bound.
        window_of(vms[1], [-2 * day], 1.0),
    ];
    platform
        .writer
        .write(&platform.lease, &flush(windows))
        .await
        .unwrap();
    let sorted = |mut newest: Vec<(EntityId, Stamp)>| {
        newest.sort();
        newest
    };
    let newest = sorted(
        platform
            .store
            .watermarks(platform.lease.platform, stamp(60))
            .await
            .unwrap(),
    );
    assert_eq!(newest, [(host.into(), stamp(40)), (vms[0].into(), stamp(-20))]);
    let all: Vec<EntityId> = vms
        .iter()
        .map(|vm| EntityId::from(*vm))
        .chain([platform.hosts[1].into()])
        .collect();
    let newest = sorted(platform.store.watermarks_unbounded(&all).await.unwrap());
    assert_eq!(
        newest,
        [(vms[0].into(), stamp(-20)), (vms[1].into(), stamp(-2 * day))]
    );
    assert_eq!(platform.store.watermarks_unbounded(&[]).await.unwrap(), []);

    // A VM that was removed within the bound is still asked for: its last samples may be there to be had.
    let mut without = inventory();
    without.vms.remove(0);
    platform
        .store
        .sync_inventory(&platform.lease, &without, stamp(60))
        .await
        .unwrap();
    assert_eq!(
        platform
            .store
            .watermarks(platform.lease.platform, stamp(60))
            .await
            .unwrap()
            .len(),
        2
    );
    let other = platform.other().await.platform;
    assert_eq!(platform.store.watermarks(other, stamp(60)).await.unwrap(), []);
}

#[tokio::test]
async fn watermarks_are_found_through_the_unique_index_and_only_in_chunks_within_the_bound() {
    let mut platform = Platform::new().await;
    let day = 24 * 3600;
    // A fleet over five days, so that a scan would be dearer than the index.
    let many = Inventory {
        hosts: inventory().hosts,
        vms: (0..300).map(|n| vm(&format!("vm-{n}"), "host-1")).collect(),
        ..Inventory::default()
    };
    let known = platform
        .store
        .sync_inventory(&platform.lease, &many, stamp(0))
        .await
        .unwrap();
    let windows = known.vms.iter().map(|vm| {
        window_of(
            vm.id,
            (-5..=0).flat_map(|d| (0..30).map(move |n| d * day + n * 20)),
            1.0,
        )
    });
    platform
        .writer
        .write(&platform.lease, &flush(windows.collect()))
        .await
        .unwrap();
    platform
        .fixture
        .sql
        .batch_execute("ANALYZE virt_vm; ANALYZE virt_vm_metrics")
        .await
        .unwrap();

    let reader = platform.fixture.database.connect(Role::Writer).await.unwrap();
    let explain = format!(
        "EXPLAIN (ANALYZE, COSTS off, TIMING off) {}",
        virt_collector::store::watermark::BOUNDED_SQL
    );
    let (id, bound) = (platform.lease.platform.0, (NOON - 25 * 3600) as f64);
    let explain = explain
        .replace("$1", &id.to_string())
        .replace("$2", &format!("to_timestamp({bound})"));
    let plan: Vec<String> = reader
        .query(&explain, &[])
        .await
        .unwrap()
        .iter()
        .map(|row| row.get(0))
        .collect();
    let plan = plan.join("\n");
    assert!(!plan.contains("Seq Scan on _hyper"), "{plan}");
    assert!(plan.contains("virt_vm_metrics_key"), "{plan}");
    let chunks = plan
        .lines()
        .filter(|line| line.contains("virt_vm_metrics_key") && !line.contains("never"))
        .count();
    assert!(
        chunks <= 2,
        "25 hours lie in two or three days, the newest first\n{plan}"
    );

    let start = Instant::now();
    let newest = platform
        .store
        .watermarks(platform.lease.platform, stamp(600))
        .await
        .unwrap();
    assert_eq!(newest.len(), 300);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[tokio::test]
async fn the_check_of_the_chain_sees_every_kind_of_break_and_nothing_else() {
    let mut platform = Platform::new().await;
    let vm = platform.vms[0];
    let host = platform.hosts[0];
    // Touching rows, a jitter below half an interval, a spanned step, a roll-up inside the chain.
    let sound = Flush {
        windows: vec![
            window_of(vm, [0, 20, 41, 59, 80, 200, 220], 1.0),
            window_of(host, [0, 20], 1.0),
            rolled_up(host, 340),
            window_of(host, [360], 1.0),
        ],
        gaps_new: vec![
            gap(vm, 80, 200, Some(Reason::NotPublished)),
            gap(host, 20, 340, Some(Reason::RollupEdge)),
        ],
        ..Flush::default()
    };
    // From 20 to the start of the roll-up at 40: less than half of its own interval, but one sample is missing.
    platform.writer.write(&platform.lease, &sound).await.unwrap();
    assert_eq!(platform.breaks().await, Vec::<String>::new());

    let broken = async |platform: &mut Platform, flush: Flush, problem: &str| {
        let before = platform.breaks().await.len();
        platform.writer.write(&platform.lease, &flush).await.unwrap();
        let after = platform.breaks().await;
        assert_eq!(after.len(), before + 1, "{problem}: {after:?}");
        assert!(after.iter().any(|found| found == problem), "{problem}: {after:?}");
    };
    broken(
        &mut platform,
        flush(vec![window_of(vm, [280], 1.0)]),
        "unexplained",
    )
    .await;
    let partly = Flush {
        gaps_new: vec![gap(vm, 220, 260, None)],
        ..Flush::default()
    };
    platform.writer.write(&platform.lease, &partly).await.unwrap();
    assert_eq!(
        platform.breaks().await,
        ["unexplained"],
        "a gap row must span the step"
    );
    let twice = Flush {
        windows: vec![window_of(host, [500], 1.0)],
        gaps_new: vec![
            gap(host, 360, 500, None),
            gap(host, 360, 500, Some(Reason::Expired)),
        ],
        ..Flush::default()
    };
    broken(&mut platform, twice, "explained more than once").await;
    let vm = platform.vms[1];
    broken(
        &mut platform,
        flush(vec![rolled_up(vm, 300), window_of(vm, [305], 1.0)]),
        "overlap",
    )
    .await;
    broken(&mut platform, flush(vec![rolled_up(vm, 640)]), "unexplained").await;
    let inside = Flush {
        windows: vec![window_of(platform.vms[2], [0, 20, 40], 1.0)],
        gaps_new: vec![gap(platform.vms[2], 0, 40, None)],
        ..Flush::default()
    };
    broken(&mut platform, inside, "samples inside a gap").await;
    let bounded = "SELECT count(*) FROM virt_chain_break(to_timestamp(0), to_timestamp(1))";
    assert_eq!(platform.fixture.number(bounded).await, 0);
}

#[tokio::test]
async fn one_outage_is_one_line_however_many_vms_it_touches() {
    let mut platform = Platform::new().await;
    let outage = |n: i32| gap(VmId(n), i64::from(n % 3) * 20, 3000 + i64::from(n % 5) * 20, None);
    let mut gaps_new: Vec<NewGap> = (0..1000).map(outage).collect();
    gaps_new.push(gap(platform.hosts[0], 40, 3020, None));
    gaps_new.push(gap(VmId(7), 10_000, 10_100, None));
    gaps_new.push(gap(VmId(8), 0, 100, Some(Reason::NotPublished)));
    gaps_new.push(gap(VmId(9), 0, 100, Some(Reason::PoweredOff)));
    gaps_new.push(gap(VmId(9), 200, 300, Some(Reason::Removed)));
    platform
        .writer
        .write(
            &platform.lease,
            &Flush {
                gaps_new,
                ..Flush::default()
            },
        )
        .await
        .unwrap();
    let open_ended = "INSERT INTO virt_collection_gap (platform_id, entity_kind, entity_id, from_time, state, reason) \
                      SELECT platform_id, 'vm', 10, to_timestamp(1769853600), 'explained', 'not_published' FROM virt_platform";
    platform.fixture.sql.batch_execute(open_ended).await.unwrap();
    let rows = platform
        .fixture
        .sql
        .query(
            "SELECT state, reason, hosts, vms, gaps, to_time IS NULL, \
             extract(epoch FROM from_time)::bigint, extract(epoch FROM to_time)::bigint \
             FROM virt_collection_gap_summary ORDER BY state DESC, from_time, to_time",
            &[],
        )
        .await
        .unwrap();
    type Line = (String, Option<String>, i64, i64, i64, bool);
    let lines: Vec<Line> = rows
        .iter()
        .map(|r| (r.get(0), r.get(1), r.get(2), r.get(3), r.get(4), r.get(5)))
        .collect();
    let (open, explained) = ("open".to_owned(), "explained".to_owned());
    let unpublished = Some("not_published".to_owned());
    assert_eq!(
        lines,
        [
            (open.clone(), None, 1, 1000, 1001, false),
            (open, None, 0, 1, 1, false),
            (explained.clone(), unpublished.clone(), 0, 1, 1, false),
            (explained, unpublished, 0, 1, 1, true),
        ]
    );
    assert_eq!(
        (rows[0].get::<_, i64>(6), rows[0].get::<_, i64>(7)),
        (NOON, NOON + 3080)
    );
}
