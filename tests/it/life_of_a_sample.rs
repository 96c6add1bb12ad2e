//! The README's "Life of a sample", walked with one sample: the same value at every hop, under the same names.

use std::time::Duration;

use support::database::Role;
use virt_collector::collect::live_set::LiveSet;
use virt_collector::collect::window::{live_start, look_back};
use virt_collector::config::Config;
use virt_collector::ingest::chain::{self, Past, ServerTime};
use virt_collector::model::columns::Column;
use virt_collector::model::ids::EntityKind;
use virt_collector::model::rollup::Level;
use virt_collector::store::copy::Flush;
use virt_collector::store::rollup::Due;
use virt_collector::store::{Database, Owner, Settings};
use virt_collector::units::{REALTIME_SECONDS, Stamp};
use virt_collector::vsphere::{self, Estimator, Target, Vsphere};
use vsphere_simulator::Spec;

use crate::rig::{PLATFORM, Rig, small};
use virt_collector::store::registry::Address;

const COUNTER: &str = "cpu.ready.summation";
const COLUMN: &str = "cpu_ready_percent";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn life_of_a_sample() {
    let rig = Rig::new(Spec {
        vms: 1,
        hosts: 1,
        powered_off: Some(0),
        templates: 0,
        ..small()
    })
    .await;
    let Config {
        database: db,
        collection,
        platforms,
        ..
    } = rig.config();

    // What the source published: milliseconds of ready time over 20 s, summed over the vCPUs.
    let truth = rig.simulator.truth();
    let vm = truth
        .entities()
        .find(|entity| entity.kind() == vsphere_simulator::EntityKind::Vm)
        .unwrap();
    let newest = vm.samples(0, truth.now / 1_000_000 - 7).last().unwrap();
    let published = vm.value(COUNTER, "", newest.stamp).unwrap();
    let expected = published as f64 / (20.0 * 1000.0 * f64::from(newest.vcpus)) * 100.0;

    // The platform is ours, its inventory known, its VM in the live set.
    let settings = Settings::new(&db, &db.writer, &Owner::random()).unwrap();
    let database = Database::new(settings).unwrap();
    let platform = &platforms[0];
    let id = database
        .provision_platform(
            PLATFORM,
            &Address::new(platform.kind, &platform.host, platform.port),
        )
        .await
        .unwrap()
        .unwrap();
    let lease = database
        .acquire_lease(id, &Owner::random())
        .await
        .unwrap()
        .unwrap();
    let vsphere = Vsphere::new(vsphere::Options::new(platform, &collection)).unwrap();
    let at = ServerTime(vsphere.server_time().await.unwrap());
    let found = vsphere.discover().await.unwrap();
    let inventory = database.sync_inventory(&lease, &found, at.0).await.unwrap();
    let live = LiveSet::default().next_poll(&inventory);
    let subject = live
        .iter()
        .find(|subject| subject.entity.kind == EntityKind::Vm)
        .unwrap();
    assert_eq!(
        (subject.moref.as_str(), u32::from(subject.cpus)),
        (vm.moref(), newest.vcpus)
    );

    // collect::window: from the watermark, here one sample before the newest.
    let watermark = Stamp::from_seconds(newest.stamp - 20);
    let after = live_start(Some(watermark), false, at, look_back(collection.interval));
    assert_eq!(after, watermark);
    let target = Target {
        entity: subject.entity,
        moref: subject.moref.clone(),
        cpus: subject.cpus,
        placement: None,
        after,
        until: None,
    };

    // vsphere::plan: what the reply costs at worst.
    let counters = vsphere.counters().await.unwrap();
    let estimator = Estimator {
        counters: &counters,
        instances: vsphere.instances(),
        now: at.0,
        interval_seconds: REALTIME_SECONDS,
    };
    let targets = vec![target];
    assert!(estimator.cost_of_all(&targets).memory_bytes() > 0);

    // soap and vsphere::perf: one row, one cell of it is ours.
    let reply = vsphere.query(&targets, REALTIME_SECONDS).await.unwrap();
    let mut window = reply.windows.into_iter().next().unwrap();
    let column = Column::of(EntityKind::Vm)
        .iter()
        .position(|column| column.name == COLUMN)
        .unwrap();
    let (head, cells) = window.rows().next().unwrap();
    assert_eq!(head.stamp, Stamp::from_seconds(newest.stamp));
    assert_eq!(cells[column].get(), Some(expected));

    // ingest::chain: it touches the row before it.
    let extension = chain::extend(
        Past {
            watermark: Some(watermark),
            ..Past::default()
        },
        &mut window,
        at,
    );
    assert_eq!((window.len(), extension.gaps.len()), (1, 0));
    assert_eq!(extension.watermark, Some(Stamp::from_seconds(newest.stamp)));

    // store::copy: one transaction behind the fence.
    let mut writer = database.writer().await.unwrap();
    let flush = Flush {
        windows: vec![window],
        ..Flush::default()
    };
    let written = writer.write(&lease, &flush).await.unwrap();
    assert_eq!((written.host_rows, written.vm_rows), (0, 1));

    // The row.
    let reader = rig.database.connect(Role::Reader).await.unwrap();
    let row = reader
        .query_one(
            "SELECT extract(epoch FROM collected_at)::bigint, cpu_ready_percent, interval_seconds, vcpu_count \
             FROM virt_vm_metrics",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(row.get::<_, i64>(0), newest.stamp);
    assert_eq!(row.get::<_, f32>(1), expected as f32);
    assert_eq!(
        (row.get::<_, i16>(2), row.get::<_, i16>(3)),
        (20, newest.vcpus as i16)
    );
    assert_eq!(
        database.watermarks(id, at.0).await.unwrap(),
        [(subject.entity, Stamp::from_seconds(newest.stamp))]
    );

    // ingest::rollups: what the transaction noted becomes a bucket of each width.
    let made = database.roll_up(&lease, Due::Whenever).await.unwrap();
    assert_eq!(made.buckets, [1, 0, 0]);
    let bucket = reader
        .query_one(
            &format!("SELECT {COLUMN}, covered_seconds, collected_at FROM virt_vm_5m"),
            &[],
        )
        .await
        .unwrap();
    assert_eq!(bucket.get::<_, f64>(0), f64::from(expected as f32));
    assert_eq!(bucket.get::<_, i32>(1), 20);
    let end = Level::FiveMinutes.bucket(Stamp::from_seconds(newest.stamp));
    assert_eq!(bucket.get::<_, Stamp>(2), end);
    vsphere.close(Duration::from_secs(5)).await;
}
