//! The store against a real TimescaleDB.
#![expect(
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "helpers of tests may fail loudly and have no supervisor"
)]

use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use support::database::{Database as TestDatabase, Role};
use tokio::time::Instant;
use tokio_postgres::Client;
use virt_collector::config::{Account, Database as DatabaseConfig, DatabaseTls, PlatformKind};
use virt_collector::error::{Chain, Disposition};
use virt_collector::model::columns::{Column, Instances, SqlType};
use virt_collector::model::gap::{GapId, NewGap, Reason, Step};
use virt_collector::model::ids::{EntityId, EntityKind, HostId, MoRef, PlatformId, VmId};
use virt_collector::model::inventory::{Host, Inventory, PowerState, Vm};
use virt_collector::model::sample::{Cell, RowHead, Window};
use virt_collector::model::status::{ErrorClass, PlatformState, PlatformStatus};
use virt_collector::store::copy::encode;
use virt_collector::store::{
    Class, Database, Edition, Error, Flush, LEASE_TTL, Lease, Owner, Pinned, SchemaState, Settings, Writer,
    migrate,
};
use virt_collector::units::{Conversion, Stamp};

/// 2026-01-31T10:00:00Z, in the middle of a chunk.
const NOON: i64 = 1_769_853_600;

fn stamp(seconds: i64) -> Stamp {
    Stamp::from_seconds(NOON + seconds)
}

fn owner(name: &str) -> Owner {
    Owner::new(name).unwrap()
}

fn configured(
    url: &str,
    password_file: Option<&std::path::Path>,
    tls: DatabaseTls,
) -> (DatabaseConfig, Account) {
    let account = Account {
        url: url.to_owned(),
        password_file: password_file.map(Into::into),
    };
    (
        DatabaseConfig {
            writer: account.clone(),
            owner: None,
            tls,
        },
        account,
    )
}

fn settings_for(url: &str, name: &str) -> Result<Settings, Error> {
    let (database, account) = configured(url, None, DatabaseTls::Auto { ca_file: None });
    Settings::new(&database, &account, &owner(name))
}

fn said(error: &Error) -> String {
    Chain(error).to_string()
}

/// A migrated database, gone at the end of the test.
struct Fixture {
    database: TestDatabase,
    /// A superuser's session, to look and to break things.
    sql: Client,
}

impl Fixture {
    async fn bare() -> Self {
        // What is wrong with the variable or the server stands in the error.
        let database = TestDatabase::create()
            .await
            .unwrap_or_else(|error| panic!("{}", Chain(&error)));
        let sql = database.connect(Role::Superuser).await.unwrap();
        Self { database, sql }
    }

    async fn new() -> Self {
        let fixture = Self::bare().await;
        migrate::apply(&fixture.settings(Role::Owner, "migration"))
            .await
            .unwrap();
        fixture
    }

    fn settings(&self, role: Role, name: &str) -> Settings {
        settings_for(&self.database.url(role), name).unwrap()
    }

    fn store(&self, name: &str) -> Database {
        Database::new(self.settings(Role::Writer, name)).unwrap()
    }

    async fn number(&self, sql: &str) -> i64 {
        self.sql.query_one(sql, &[]).await.unwrap().get(0)
    }
}

/// A migrated database with a platform whose lease `a` holds, two hosts and three VMs, and a writer.
struct Platform {
    fixture: Fixture,
    store: Database,
    writer: Writer,
    lease: Lease,
    hosts: Vec<HostId>,
    vms: Vec<VmId>,
}

impl Platform {
    async fn new() -> Self {
        let fixture = Fixture::new().await;
        let store = fixture.store("a");
        let platform = store
            .register_platform("lab", PlatformKind::VCenter, "vc", 443)
            .await
            .unwrap();
        let lease = store.acquire_lease(platform, &owner("a")).await.unwrap().unwrap();
        let known = store
            .sync_inventory(&lease, &inventory(), stamp(-7200))
            .await
            .unwrap();
        let writer = store.writer().await.unwrap();
        Self {
            hosts: known.hosts.iter().map(|host| host.id).collect(),
            vms: known.vms.iter().map(|vm| vm.id).collect(),
            fixture,
            store,
            writer,
            lease,
        }
    }

    async fn rows(&self) -> (i64, i64, i64) {
        let row = self
            .fixture
            .sql
            .query_one(
                "SELECT (SELECT count(*) FROM virt_host_metrics), (SELECT count(*) FROM virt_vm_metrics), \
                 (SELECT count(*) FROM virt_collection_gap)",
                &[],
            )
            .await
            .unwrap();
        (row.get(0), row.get(1), row.get(2))
    }

    /// The problems that the chain's own check sees.
    async fn breaks(&self) -> Vec<String> {
        let rows = self
            .fixture
            .sql
            .query("SELECT problem FROM virt_chain_break() ORDER BY 1", &[])
            .await
            .unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }
}

fn host(moref: &str) -> Host {
    Host {
        moref: MoRef::new(moref),
        name: Some(format!("name of {moref}")),
        uuid: Some(format!("uuid of {moref}")),
        power: PowerState::On,
        connected: true,
        maintenance: false,
        threads: Some(32),
    }
}

fn vm(moref: &str, host: &str) -> Vm {
    Vm {
        moref: MoRef::new(moref),
        name: Some(format!("name of {moref}")),
        instance_uuid: Some(format!("instance of {moref}")),
        bios_uuid: Some(format!("bios of {moref}")),
        power: PowerState::On,
        connected: true,
        host: Some(MoRef::new(host)),
        vcpus: Some(4),
        memory_mib: Some(8192),
        template: false,
    }
}

fn inventory() -> Inventory {
    Inventory {
        hosts: vec![host("host-1"), host("host-2")],
        vms: vec![vm("vm-1", "host-1"), vm("vm-2", "host-1"), vm("vm-3", "host-2")],
    }
}

fn window_of(entity: impl Into<EntityId>, stamps: impl IntoIterator<Item = i64>, value: f64) -> Window {
    let entity = entity.into();
    let mut window = Window::with_capacity(entity, 8);
    let cells = vec![Cell::new(value); Column::of(entity.kind).len()];
    for seconds in stamps {
        let host = (entity.kind == EntityKind::Vm).then_some(HostId(1));
        let head = RowHead {
            stamp: stamp(seconds),
            interval_seconds: 20,
            host,
            cpus: 4,
            complete: true,
        };
        assert!(window.push(head, &cells));
    }
    window
}

fn rolled_up(entity: impl Into<EntityId>, seconds: i64) -> Window {
    let entity = entity.into();
    let mut window = Window::with_capacity(entity, 1);
    let head = RowHead {
        stamp: stamp(seconds),
        interval_seconds: 300,
        host: None,
        cpus: 0,
        complete: true,
    };
    assert!(window.push(head, &vec![Cell::new(1.0); Column::of(entity.kind).len()]));
    window
}

fn flush(windows: Vec<Window>) -> Flush {
    Flush {
        windows,
        ..Flush::default()
    }
}

fn gap(entity: impl Into<EntityId>, from: i64, to: i64, reason: Option<Reason>) -> NewGap {
    let step = Step {
        from: stamp(from),
        to: Some(stamp(to)),
        initial: false,
    };
    NewGap {
        entity: entity.into(),
        step,
        reason,
        hint: None,
    }
}

// ---------------------------------------------------------------------------------------------------------------
// Migrations, catalogue, roles
// ---------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn migrations_apply_once_and_one_run_at_a_time() {
    let fixture = Fixture::bare().await;
    let settings = fixture.settings(Role::Owner, "migration");
    let plan = migrate::plan(&settings).await.unwrap();
    assert_eq!((plan.version, plan.pending.len()), (0, migrate::MIGRATIONS.len()));

    let (one, other) = tokio::join!(migrate::apply(&settings), migrate::apply(&settings));
    let applied = [one.unwrap().len(), other.unwrap().len()];
    assert_eq!(
        applied.iter().sum::<usize>(),
        migrate::MIGRATIONS.len(),
        "{applied:?}"
    );
    assert!(applied.contains(&0), "{applied:?}");

    assert!(migrate::apply(&settings).await.unwrap().is_empty());
    let plan = migrate::plan(&settings).await.unwrap();
    assert_eq!((plan.version, plan.pending.len()), (migrate::newest(), 0));

    let strangers = "SELECT count(*) FROM pg_class WHERE relname LIKE 'virt%' AND pg_get_userbyid(relowner) <> 'virt_owner'";
    assert_eq!(fixture.number(strangers).await, 0);
}

#[tokio::test]
async fn a_migration_that_fails_leaves_nothing() {
    let fixture = Fixture::bare().await;
    // In the way of the last tables of the first step.
    fixture
        .sql
        .batch_execute("CREATE TABLE virt_platform_lease (x int)")
        .await
        .unwrap();
    let error = migrate::apply(&fixture.settings(Role::Owner, "migration"))
        .await
        .unwrap_err();
    assert!(
        said(&error).contains("migration 1 (first) failed and was rolled back: relation"),
        "{}",
        said(&error)
    );
    assert_eq!(
        fixture
            .number("SELECT count(*) FROM pg_tables WHERE tablename LIKE 'virt%'")
            .await,
        1
    );
}

#[tokio::test]
async fn a_newer_schema_and_an_altered_migration_are_refused() {
    let fixture = Fixture::new().await;
    let settings = fixture.settings(Role::Owner, "migration");
    let store = fixture.store("a");
    assert_eq!(store.ready().await.unwrap().schema, SchemaState::Current);

    let newer =
        "INSERT INTO virt_schema_migration (version, name, sha256, took_ms) VALUES (999, 'later', 'x', 1)";
    fixture.sql.batch_execute(newer).await.unwrap();
    for error in [
        migrate::apply(&settings).await.unwrap_err(),
        migrate::plan(&settings).await.unwrap_err(),
        store.ready().await.unwrap_err(),
        store.writer().await.unwrap_err(),
    ] {
        assert!(
            said(&error).contains("schema is version 999, this virt-collector knows only"),
            "{}",
            said(&error)
        );
        assert_eq!(error.class(), Class::Schema);
    }

    let altered = "DELETE FROM virt_schema_migration WHERE version = 999; UPDATE virt_schema_migration SET sha256 = 'x'";
    fixture.sql.batch_execute(altered).await.unwrap();
    for error in [
        migrate::apply(&settings).await.unwrap_err(),
        store.writer().await.unwrap_err(),
    ] {
        assert!(
            said(&error).contains("migration 1 (first) was applied from another text"),
            "{}",
            said(&error)
        );
    }
}

#[tokio::test]
async fn a_database_that_is_not_ready_says_what_to_run() {
    let fixture = Fixture::bare().await;
    let store = fixture.store("a");
    let error = store.ready().await.unwrap_err();
    assert!(
        said(&error).contains("run virt-collector migrate"),
        "{}",
        said(&error)
    );

    fixture
        .sql
        .batch_execute("DROP EXTENSION timescaledb CASCADE")
        .await
        .unwrap();
    for error in [
        store.ready().await.unwrap_err(),
        migrate::apply(&fixture.settings(Role::Owner, "migration"))
            .await
            .unwrap_err(),
    ] {
        let said = said(&error);
        assert!(
            said.contains("is available but not created in database") && said.contains("CREATE EXTENSION"),
            "{said}"
        );
        assert_eq!(
            error.disposition(),
            Disposition::RetryAfter(Duration::from_secs(60))
        );
    }
}

#[tokio::test]
async fn an_account_that_may_not_act_as_owner_is_told_so() {
    let fixture = Fixture::bare().await;
    let error = migrate::apply(&fixture.settings(Role::Writer, "migration"))
        .await
        .unwrap_err();
    assert!(
        said(&error).contains("GRANT virt_owner TO virt_writer"),
        "{}",
        said(&error)
    );
    // A superuser may, and the tables belong to virt_owner all the same.
    migrate::apply(&fixture.settings(Role::Superuser, "migration"))
        .await
        .unwrap();
    let tables = "SELECT count(*) FROM pg_tables WHERE tablename = 'virt_vm' AND tableowner = 'virt_owner'";
    assert_eq!(fixture.number(tables).await, 1);
}

#[tokio::test]
async fn the_probe_names_versions_and_edition() {
    let fixture = Fixture::new().await;
    let probe = fixture.store("a").ready().await.unwrap();
    assert_eq!(probe.timescale, probe.timescale_available);
    let licence: String = fixture
        .sql
        .query_one("SHOW timescaledb.license", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(probe.edition == Edition::Community, licence == "timescale");
    assert!(probe.writable);
    assert_eq!(probe.database, fixture.database.name());
}

#[test]
fn released_migrations_never_change() {
    const RELEASED: &[(i32, &str, &str)] = &[
        (
            1,
            "first",
            "1a1e8772df7ac1845ba054a20320db996c98199e3ee11ca5bd55d3db92d7d724",
        ),
        (
            2,
            "gap_hint",
            "4a1c8610b3b3da630cc967849f9decf9a9ab679575cbf71ff86b973a5cdae873",
        ),
    ];
    let ours: Vec<(i32, &str, String)> = migrate::MIGRATIONS
        .iter()
        .map(|step| (step.version, step.name, step.sha256()))
        .collect();
    for ((version, name, sha256), ours) in RELEASED.iter().zip(&ours) {
        assert_eq!(
            (version, name, *sha256),
            (&ours.0, &ours.1, ours.2.as_str()),
            "write a new migration instead"
        );
    }
    assert_eq!(ours.len(), RELEASED.len(), "pin the new migration here");
    assert!(
        ours.iter().zip(1..).all(|(step, version)| step.0 == version),
        "versions count from 1 without holes"
    );
}

#[tokio::test]
async fn copied_columns_are_those_of_the_catalogue_in_name_order_and_type() {
    let fixture = Fixture::new().await;
    for kind in EntityKind::ALL {
        let table = format!("virt_{kind}_metrics");
        let catalogue = fixture
            .sql
            .query(
                "SELECT column_name::text, data_type::text FROM information_schema.columns \
                 WHERE table_schema = 'public' AND table_name = $1 ORDER BY ordinal_position",
                &[&table],
            )
            .await
            .unwrap();
        let catalogue: Vec<(String, String)> = catalogue.iter().map(|row| (row.get(0), row.get(1))).collect();
        let ours: Vec<(String, String)> = encode::columns(kind)
            .into_iter()
            .map(|name| {
                let sql_type = match (Column::of(kind).iter().find(|column| column.name == name), name) {
                    (Some(column), _) => column.sql_type.name(),
                    (None, "collected_at") => "timestamp with time zone",
                    (None, "interval_seconds" | "vcpu_count") => "smallint",
                    (None, _) => "integer",
                };
                (name.to_owned(), sql_type.to_owned())
            })
            .collect();
        assert_eq!(ours, catalogue, "{table}");
    }
}

/// What a column's comment must say.
fn described(kind: EntityKind, column: &Column) -> String {
    const UNITS: [(&str, &str); 9] = [
        ("_kibps", "KiB per second (1,024 bytes)"),
        ("_kib", "KiB (1,024 bytes)"),
        ("_mhz", "MHz"),
        ("_percent", "percent"),
        ("_iops", "operations per second"),
        ("_per_second", "per second"),
        ("_latency_ms", "milliseconds"),
        ("_watts", "watts"),
        ("_seconds", "seconds"),
    ];
    let unit = UNITS
        .iter()
        .find(|(suffix, _)| column.name.ends_with(suffix))
        .expect("a column's name carries its unit")
        .1;
    let instances = match column.instances {
        Instances::Aggregate => "aggregate".to_owned(),
        Instances::Sum => "sum over all instances".to_owned(),
        Instances::MeanWeightedBy(weight) => format!("mean over all instances weighted by {weight}"),
    };
    let cpus = if kind == EntityKind::Vm {
        "vCPUs"
    } else {
        "threads"
    };
    let conversion = match column.conversion {
        Conversion::AsIs => "as published".to_owned(),
        Conversion::Hundredths => "published / 100".to_owned(),
        Conversion::MebibytesToKibibytes => "published MB x 1,024".to_owned(),
        Conversion::PerSecond => "published / interval_seconds".to_owned(),
        Conversion::PercentOfTimePerCpu => {
            format!("published ms / (interval_seconds x 1,000 x {cpus}) x 100")
        }
    };
    let exactness = if column.sql_type == SqlType::Real {
        "rounded to 24 bits"
    } else {
        "exact"
    };
    let choice = if column.counter.starts_with("storageAdapter.") {
        "; from datastore.* instead where host_disk is \"datastore\""
    } else {
        ""
    };
    format!(
        "{unit}. {}, {instances}; {conversion}; {exactness}{choice}.",
        column.counter
    )
}

#[tokio::test]
async fn every_column_has_a_comment_and_those_of_counters_say_what_the_column_table_says() {
    let fixture = Fixture::new().await;
    let rows = fixture
        .sql
        .query(
            "SELECT c.relname::text, a.attname::text, col_description(c.oid, a.attnum), obj_description(c.oid) \
             FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid \
             WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v') \
               AND c.relname LIKE 'virt\\_%' AND a.attnum > 0 AND NOT a.attisdropped",
            &[],
        )
        .await
        .unwrap();
    assert!(rows.len() > 100, "{}", rows.len());
    let mut comments = HashMap::new();
    for row in &rows {
        let (table, column): (String, String) = (row.get(0), row.get(1));
        let comment: Option<String> = row.get(2);
        assert!(
            row.get::<_, Option<String>>(3).is_some(),
            "table {table} has no comment"
        );
        let comment = comment.unwrap_or_else(|| panic!("{table}.{column} has no comment"));
        comments.insert((table, column), comment);
    }
    for kind in EntityKind::ALL {
        for column in Column::of(kind) {
            let comment = &comments[&(format!("virt_{kind}_metrics"), column.name.to_owned())];
            assert_eq!(*comment, described(kind, column), "{}", column.name);
        }
    }
}

#[tokio::test]
async fn hypertables_are_cut_by_day_with_their_two_indexes_and_nothing_else() {
    let fixture = Fixture::new().await;
    let rows = fixture
        .sql
        .query(
            "SELECT i.tablename::text, i.indexname::text, i.indexdef FROM pg_indexes i \
             WHERE i.tablename IN ('virt_host_metrics', 'virt_vm_metrics') ORDER BY 1, 2",
            &[],
        )
        .await
        .unwrap();
    let indexes: Vec<String> = rows.iter().map(|row| row.get(2)).collect();
    assert_eq!(indexes.len(), 4, "{indexes:?}");
    for (index, part) in indexes.iter().zip([
        "UNIQUE INDEX virt_host_metrics_key ON public.virt_host_metrics USING btree (host_id, collected_at)",
        "USING brin (collected_at) WITH (pages_per_range='32', autosummarize='on')",
        "UNIQUE INDEX virt_vm_metrics_key ON public.virt_vm_metrics USING btree (vm_id, collected_at)",
        "USING brin (collected_at) WITH (pages_per_range='32', autosummarize='on')",
    ]) {
        assert!(index.contains(part), "{part}\n{index}");
    }
    let daily = "SELECT count(*) FROM timescaledb_information.dimensions \
                 WHERE hypertable_name LIKE 'virt%' AND time_interval = INTERVAL '1 day'";
    assert_eq!(fixture.number(daily).await, 2);
    let references = "SELECT count(*) FROM pg_constraint WHERE contype = 'f' \
                      AND (conrelid::regclass::text LIKE '%metrics' OR confrelid::regclass::text LIKE '%metrics')";
    assert_eq!(fixture.number(references).await, 0);
}

#[tokio::test]
async fn the_writer_can_do_what_the_service_does_and_no_more_and_the_reader_only_reads() {
    let mut platform = Platform::new().await;
    let window = window_of(platform.vms[0], [0], 1.0);
    platform
        .writer
        .write(&platform.lease, &flush(vec![window]))
        .await
        .unwrap();

    let writer = platform.fixture.database.connect(Role::Writer).await.unwrap();
    let reader = platform.fixture.database.connect(Role::Reader).await.unwrap();
    reader
        .batch_execute("SET default_transaction_read_only = off")
        .await
        .unwrap();
    let denied = async |client: &Client, sql: &str| {
        let error = client.batch_execute(sql).await.expect_err(sql);
        assert_eq!(
            error.code().map(|code| code.code()),
            Some("42501"),
            "{sql}: {error:?}"
        );
    };
    for sql in [
        "DELETE FROM virt_vm_metrics",
        "UPDATE virt_vm_metrics SET vcpu_count = 1",
        "TRUNCATE virt_vm_metrics",
        "DELETE FROM virt_host_metrics",
        "UPDATE virt_host_metrics SET power_watts = 1",
        "DELETE FROM virt_platform",
        "DELETE FROM virt_vm",
        "DELETE FROM virt_platform_lease",
        "INSERT INTO virt_schema_migration VALUES (2, 'x', 'x', now(), 1)",
        "CREATE TABLE mine (x int)",
        "CREATE TABLE public.mine (x int)",
        "DROP TABLE virt_vm",
        "SELECT drop_chunks('virt_vm_metrics', now())",
    ] {
        denied(&writer, sql).await;
    }
    for table in [
        "virt_platform",
        "virt_host",
        "virt_vm",
        "virt_host_metrics",
        "virt_vm_metrics",
        "virt_collection_gap",
        "virt_platform_lease",
        "virt_schema_migration",
        "virt_collection_gap_summary",
        "virt_chain_break()",
    ] {
        reader
            .batch_execute(&format!("SELECT * FROM {table}"))
            .await
            .unwrap_or_else(|error| panic!("{table}: {error:?}"));
        if !table.ends_with(')') && !table.ends_with("_summary") {
            denied(&reader, &format!("DELETE FROM {table}")).await;
        }
    }
    denied(&reader, "CREATE TABLE public.mine (x int)").await;

    // Tables of later versions are readable without another grant.
    let owner = platform.fixture.database.connect(Role::Owner).await.unwrap();
    owner
        .batch_execute("CREATE TABLE virt_later (x int)")
        .await
        .unwrap();
    reader.batch_execute("SELECT * FROM virt_later").await.unwrap();
    denied(&reader, "INSERT INTO virt_later VALUES (1)").await;
}

// ---------------------------------------------------------------------------------------------------------------
// Connections
// ---------------------------------------------------------------------------------------------------------------

#[test]
fn settings_that_make_no_sense_are_refused_without_showing_the_password() {
    for (url, part) in [
        (
            "postgresql://virt_writer:hush@db/virt",
            "the url holds a password",
        ),
        (
            "host=db user=virt_writer password=hush dbname=virt",
            "the url holds a password",
        ),
        (
            "postgresql://virt_writer@db/virt?sslmode=disable",
            "sslmode stands in the url",
        ),
        ("dbname=virt", "names no host"),
        ("host=db prot=5432", "invalid connection string"),
        ("https://db/virt", "invalid connection string"),
    ] {
        let error = settings_for(url, "a").expect_err(url);
        let said = said(&error);
        assert!(said.contains(part) && !said.contains("hush"), "{url}: {said}");
        assert!(!format!("{error:?}").contains("hush"), "{url}");
    }
}

#[test]
fn the_owner_fits_into_an_application_name() {
    let longest = "x".repeat(Owner::MAX_LENGTH);
    assert!(format!("virt-collector/{}/migrate", Owner::new(&longest).unwrap()).len() <= 63);
    for wrong in ["", "a/b", "a b", &format!("{longest}x")] {
        assert!(Owner::new(wrong).is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn a_connection_that_cannot_be_made_says_what_to_look_at() {
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    for (url, parts) in [
        (
            format!("host=127.0.0.1 port={closed} user=virt_writer dbname=virt"),
            ["nothing listens there", "127.0.0.1"],
        ),
        (
            "host=/nonexistent user=virt_writer dbname=virt".to_owned(),
            ["there is no such socket", "/nonexistent"],
        ),
        (
            "host=no-such-host.invalid user=virt_writer dbname=virt".to_owned(),
            ["could not be resolved", "no-such-host.invalid"],
        ),
    ] {
        let (database, account) = configured(&url, None, DatabaseTls::Disable);
        let store = Database::new(Settings::new(&database, &account, &owner("a")).unwrap()).unwrap();
        for error in [
            store.probe().await.unwrap_err(),
            store.writer().await.unwrap_err(),
        ] {
            let said = said(&error);
            assert!(parts.iter().all(|part| said.contains(part)), "{said}");
            assert_eq!(error.class(), Class::Connection, "{said}");
            assert_eq!(said.lines().count(), 1, "{said}");
        }
    }
}

#[tokio::test]
async fn an_account_or_database_that_does_not_exist_is_named() {
    let fixture = Fixture::bare().await;
    let url = fixture.database.url(Role::Superuser);
    let store = Database::new(settings_for(&url.replace(fixture.database.name(), "virt_none"), "a").unwrap())
        .unwrap();
    let error = store.probe().await.unwrap_err();
    assert!(
        said(&error).contains("create the database, then run sql/bootstrap.sql"),
        "{}",
        said(&error)
    );
    assert!(said(&error).contains("3D000"), "{}", said(&error));
}

#[tokio::test]
async fn the_password_file_is_read_at_each_connection() {
    let fixture = Fixture::bare().await;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let (database, account) = configured(
        &fixture.database.url(Role::Writer),
        Some(file.path()),
        DatabaseTls::Auto { ca_file: None },
    );
    let settings = Settings::new(&database, &account, &owner("a")).unwrap();
    let store = Database::new(settings.clone()).unwrap();
    for error in [
        store.probe().await.unwrap_err(),
        migrate::plan(&settings).await.unwrap_err(),
    ] {
        assert!(
            said(&error).contains("it must hold the password on its first line"),
            "{}",
            said(&error)
        );
        assert_eq!(error.class(), Class::Auth);
    }
    file.write_all(b"hush\n").unwrap();
    store.probe().await.unwrap();
    assert!(!format!("{settings:?}{store:?}").contains("hush"));
    file.as_file()
        .set_permissions(std::fs::Permissions::from_mode(0o644))
        .unwrap();
    let error = store.writer().await.unwrap_err();
    assert!(said(&error).contains("chmod o-rwx"), "{}", said(&error));
}

#[tokio::test]
async fn sessions_carry_the_owner_and_the_limits() {
    let platform = Platform::new().await;
    let rows = platform
        .fixture
        .sql
        .query(
            "SELECT DISTINCT application_name FROM pg_stat_activity WHERE datname = current_database() \
             AND usename = 'virt_writer' ORDER BY 1",
            &[],
        )
        .await
        .unwrap();
    let names: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(names, ["virt-collector/a/copy", "virt-collector/a/pool"]);

    // The server's own limits end a wait for a lock long before the client's deadline.
    platform
        .fixture
        .sql
        .batch_execute("BEGIN; LOCK TABLE virt_vm IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let start = Instant::now();
    let error = platform
        .store
        .sync_inventory(&platform.lease, &inventory(), stamp(0))
        .await
        .unwrap_err();
    assert_eq!(error.class(), Class::Retry, "{}", said(&error));
    assert!(
        (Duration::from_secs(4)..Duration::from_secs(8)).contains(&start.elapsed()),
        "{:?}",
        start.elapsed()
    );
}

/// A server that speaks just enough of the protocol: answers the request for TLS, then shakes hands if it can.
async fn tls_server(certificate: Option<rcgen::CertifiedKey<rcgen::KeyPair>>) -> u16 {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = certificate.map(|certificate| {
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(certificate.signing_key.serialize_der().into());
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.cert.der().clone()], key)
            .unwrap();
        tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config))
    });
    tokio::task::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 8];
            if stream.read_exact(&mut request).await.is_err() {
                continue;
            }
            match &acceptor {
                None => drop(stream.write_all(b"N").await),
                Some(acceptor) => {
                    if stream.write_all(b"S").await.is_ok() {
                        drop(acceptor.accept(stream).await);
                    }
                }
            }
        }
    });
    port
}

#[tokio::test]
async fn a_remote_server_must_have_a_certificate_that_is_trusted_and_for_its_name() {
    let certificate = |name: &str| rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let attempt = async |port: u16, ca_file: Option<&std::path::Path>| {
        let url = format!("host=localhost port={port} user=virt_writer dbname=virt");
        let (database, account) = configured(
            &url,
            None,
            DatabaseTls::VerifyFull {
                ca_file: ca_file.map(Into::into),
            },
        );
        let store = Database::new(Settings::new(&database, &account, &owner("a")).unwrap()).unwrap();
        said(&store.probe().await.unwrap_err())
    };
    let pem = |text: String| {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    };

    let said = attempt(tls_server(None).await, None).await;
    assert!(
        said.contains("does not support TLS") && said.contains("look at sslmode"),
        "{said}"
    );

    let ours = certificate("localhost");
    let ours_file = pem(ours.cert.pem());
    let port = tls_server(Some(ours)).await;
    let said = attempt(port, None).await;
    assert!(
        said.contains("set ca_file to the authority that signed it"),
        "{said}"
    );
    // Trusted: the next failure is that our server knows no more of the protocol.
    let said = attempt(port, Some(ours_file.path())).await;
    assert!(said.contains("the server closed the connection"), "{said}");

    let other = certificate("db.example.com");
    let other_file = pem(other.cert.pem());
    let said = attempt(tls_server(Some(other)).await, Some(other_file.path())).await;
    assert!(said.contains("its certificate is for another name"), "{said}");

    let (database, account) = configured(
        "host=localhost user=virt_writer",
        None,
        DatabaseTls::VerifyFull {
            ca_file: Some("/nonexistent.pem".into()),
        },
    );
    let error = Settings::new(&database, &account, &owner("a")).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("cannot read certificates from /nonexistent.pem"),
        "{error}"
    );
}

// ---------------------------------------------------------------------------------------------------------------
// Lease and fence
// ---------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_lease_is_taken_once_renewed_and_given_up() {
    let fixture = Fixture::new().await;
    let (a, b) = (fixture.store("a"), fixture.store("b"));
    let platform = a
        .register_platform("lab", PlatformKind::Esxi, "esx", 443)
        .await
        .unwrap();

    let first = a.acquire_lease(platform, &owner("a")).await.unwrap().unwrap();
    assert_eq!(first.epoch, 1);
    assert_eq!(b.acquire_lease(platform, &owner("b")).await.unwrap(), None);
    a.renew_lease(&first).await.unwrap();
    let left = "SELECT extract(epoch FROM until - clock_timestamp())::float8 FROM virt_platform_lease";
    let left: f64 = fixture.sql.query_one(left, &[]).await.unwrap().get(0);
    assert!(
        (LEASE_TTL.as_secs_f64() - 5.0..=LEASE_TTL.as_secs_f64()).contains(&left),
        "{left}"
    );

    // The same owner after a restart takes over from itself at once, and fences what it left behind.
    let second = a.acquire_lease(platform, &owner("a")).await.unwrap().unwrap();
    assert_eq!(second.epoch, 2);
    assert!(matches!(a.renew_lease(&first).await, Err(Error::Fenced { .. })));

    a.release_lease(&second).await.unwrap();
    let third = b.acquire_lease(platform, &owner("b")).await.unwrap().unwrap();
    assert_eq!((third.epoch, third.owner.as_str()), (3, "b"));
    a.release_lease(&second).await.unwrap();
    b.renew_lease(&third).await.unwrap();
    let error = a.acquire_lease(PlatformId(99), &owner("a")).await.unwrap_err();
    assert!(matches!(error, Error::UnknownPlatform { .. }), "{}", said(&error));
    assert!(matches!(a.renew_lease(&second).await, Err(Error::Fenced { .. })));
}

/// Every write for a platform, with this lease.
async fn every_write(platform: &mut Platform, lease: &Lease) -> Vec<Result<(), Error>> {
    let vm = platform.vms[0];
    let samples = flush(vec![window_of(vm, [0, 20], 1.0)]);
    let gaps = Flush {
        gaps_new: vec![gap(vm, 0, 100, None)],
        ..Flush::default()
    };
    let mut results = vec![
        platform.writer.write(lease, &samples).await.map(drop),
        platform.writer.write(lease, &gaps).await.map(drop),
        platform.writer.write_staged(lease, &samples).await.map(drop),
    ];
    results.push(
        platform
            .store
            .set_status(lease, &PlatformStatus::of(PlatformState::Connected))
            .await,
    );
    results.push(platform.store.pin_identity(lease, "someone else").await.map(drop));
    results.push(
        platform
            .store
            .sync_inventory(lease, &inventory(), stamp(0))
            .await
            .map(drop),
    );
    results
}

#[tokio::test]
async fn the_fence_refuses_every_write_of_a_deposed_owner_and_of_a_lease_that_ran_out() {
    let mut platform = Platform::new().await;
    let lease = platform.lease.clone();
    let refused = |results: Vec<Result<(), Error>>| {
        for result in results {
            assert!(matches!(result, Err(Error::Fenced { .. })), "{result:?}");
        }
    };

    platform
        .fixture
        .sql
        .batch_execute("UPDATE virt_platform_lease SET until = clock_timestamp()")
        .await
        .unwrap();
    refused(every_write(&mut platform, &lease).await);

    let other = platform.fixture.store("b");
    let taken = other
        .acquire_lease(lease.platform, &owner("b"))
        .await
        .unwrap()
        .unwrap();
    refused(every_write(&mut platform, &lease).await);
    let forged = Lease {
        epoch: taken.epoch,
        ..lease.clone()
    };
    refused(every_write(&mut platform, &forged).await);

    assert_eq!(platform.rows().await, (0, 0, 0));
    let touched = "SELECT count(*) FROM virt_platform WHERE identity IS NOT NULL OR status <> 'disconnected'";
    assert_eq!(platform.fixture.number(touched).await, 0);
    // A refusal leaves no open transaction behind, and the writer as good as before.
    let idle =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'";
    // The server hears of a closed connection a moment later.
    for _ in 0..50 {
        if platform.fixture.number(idle).await == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(platform.fixture.number(idle).await, 0);
    assert!(platform.writer.is_usable());
    for result in every_write(&mut platform, &taken).await.into_iter().take(2) {
        result.unwrap();
    }
}

#[tokio::test]
async fn a_take_over_waits_for_open_writes_and_then_ends_those_of_the_old_owner() {
    let platform = Platform::new().await;
    // A write of the old owner that got through the fence and then stands still.
    let mut stopped: tokio_postgres::Config = platform.fixture.database.url(Role::Writer).parse().unwrap();
    stopped.application_name("virt-collector/a/copy");
    let (stopped, connection) = stopped.connect(tokio_postgres::NoTls).await.unwrap();
    tokio::task::spawn(connection);
    stopped.batch_execute("BEGIN").await.unwrap();
    let fence = "SELECT 1 FROM virt_platform_lease FOR KEY SHARE";
    stopped.query_one(fence, &[]).await.unwrap();

    // It does not hold up a renewal.
    platform.store.renew_lease(&platform.lease).await.unwrap();
    platform
        .fixture
        .sql
        .batch_execute("UPDATE virt_platform_lease SET until = clock_timestamp()")
        .await
        .unwrap();

    let start = Instant::now();
    let other = platform.fixture.store("b");
    let taken = other
        .acquire_lease(platform.lease.platform, &owner("b"))
        .await
        .unwrap()
        .unwrap();
    let took = start.elapsed();
    assert_eq!(taken.epoch, 2);
    assert!(
        (Duration::from_secs(5)..Duration::from_secs(9)).contains(&took),
        "{took:?}"
    );
    assert!(
        stopped.batch_execute("COMMIT").await.is_err(),
        "the old owner's connection has ended"
    );
}

#[tokio::test]
async fn a_renewal_that_comes_during_a_take_over_wins_or_loses_cleanly() {
    let fixture = Fixture::new().await;
    let (a, b) = (fixture.store("a"), fixture.store("b"));
    let platform = a
        .register_platform("lab", PlatformKind::VCenter, "vc", 443)
        .await
        .unwrap();
    let mut lease = a.acquire_lease(platform, &owner("a")).await.unwrap().unwrap();
    for round in 0..20 {
        fixture
            .sql
            .batch_execute("UPDATE virt_platform_lease SET until = clock_timestamp()")
            .await
            .unwrap();
        let rival = owner(if round % 2 == 0 { "b" } else { "a" });
        let (renewed, taken) = tokio::join!(a.renew_lease(&lease), b.acquire_lease(platform, &rival));
        match (renewed, taken.unwrap()) {
            (Ok(()), None) => {}
            // The renewal came first and was overtaken: of its own name, or after the row was read as expired.
            (Ok(()), Some(taken)) if rival == lease.owner => lease = taken,
            (Err(Error::Fenced { .. }), Some(taken)) => lease = taken,
            other => panic!("round {round}: {other:?}"),
        }
        let holder: (String, i64) = {
            let row = fixture
                .sql
                .query_one("SELECT owner, epoch FROM virt_platform_lease", &[])
                .await
                .unwrap();
            (row.get(0), row.get(1))
        };
        assert_eq!(holder, (lease.owner.as_str().to_owned(), lease.epoch));
    }
}

// ---------------------------------------------------------------------------------------------------------------
// COPY
// ---------------------------------------------------------------------------------------------------------------

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
            },
            gap(platform.vms[1], -600, -300, Some(Reason::PoweredOff)),
            gap(platform.vms[2], -7200, 0, None),
            gap(platform.hosts[0], -60, 0, None),
        ],
        ..Flush::default()
    };
    platform.writer.write(&platform.lease, &opened).await.unwrap();
    let id = platform.lease.platform;
    let open = platform.store.open_gaps(id, 10, Duration::ZERO).await.unwrap();
    let entities: Vec<EntityId> = open.iter().map(|gap| gap.entity).collect();
    assert_eq!(
        entities,
        [platform.vms[2].into(), vm.into(), platform.hosts[0].into()],
        "oldest first"
    );
    assert_eq!(open[1].step, initial);
    assert_eq!(
        platform.store.open_gaps(id, 1, Duration::ZERO).await.unwrap(),
        open[..1]
    );
    let counts = platform.store.gap_counts().await.unwrap();
    assert_eq!((counts[0].open, counts[0].explained), (3, 1));
    assert_eq!(counts[0].oldest_open, Some(stamp(-7200)));

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
        .open_gaps(id, 10, Duration::from_secs(120))
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
    let other = platform
        .store
        .register_platform("other", PlatformKind::VCenter, "vc2", 443)
        .await
        .unwrap();
    let lease = platform
        .store
        .acquire_lease(other, &owner("a"))
        .await
        .unwrap()
        .unwrap();
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
    let write = platform.writer.write(&platform.lease, &samples);
    assert!(
        tokio::time::timeout(Duration::from_millis(300), write)
            .await
            .is_err()
    );
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

// ---------------------------------------------------------------------------------------------------------------
// Watermarks, chain, views
// ---------------------------------------------------------------------------------------------------------------

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
    let other = platform
        .store
        .register_platform("other", PlatformKind::VCenter, "vc2", 443)
        .await
        .unwrap();
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
    // 20 -> start of the roll-up at 40: a step of one interval of 20 s, but not of 1.5 of its own.
    platform
        .writer
        .write(
            &platform.lease,
            &Flush {
                gaps_new: sound.gaps_new[..1].to_vec(),
                ..sound.clone()
            },
        )
        .await
        .unwrap();
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

// ---------------------------------------------------------------------------------------------------------------
// Inventory
// ---------------------------------------------------------------------------------------------------------------

/// The versions of all inventory rows: another one means that the row was written.
async fn versions(platform: &Platform) -> Vec<(String, String)> {
    let sql = "SELECT moref, ctid::text || xmin::text || xmax::text FROM virt_host UNION ALL \
               SELECT moref, ctid::text || xmin::text || xmax::text FROM virt_vm ORDER BY 1";
    let rows = platform.fixture.sql.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test]
async fn only_changed_objects_are_written() {
    let platform = Platform::new().await;
    let before = versions(&platform).await;
    let known = platform
        .store
        .sync_inventory(&platform.lease, &inventory(), stamp(0))
        .await
        .unwrap();
    assert_eq!(
        versions(&platform).await,
        before,
        "nothing changed, nothing is written or locked"
    );
    assert_eq!((known.hosts.len(), known.vms.len()), (2, 3));

    let mut changed = inventory();
    changed.vms[1].name = Some("renamed".to_owned());
    changed.hosts[1].maintenance = true;
    platform
        .store
        .sync_inventory(&platform.lease, &changed, stamp(20))
        .await
        .unwrap();
    let after = versions(&platform).await;
    let written: Vec<&str> = before
        .iter()
        .zip(&after)
        .filter(|(b, a)| b != a)
        .map(|(b, _)| b.0.as_str())
        .collect();
    assert_eq!(written, ["host-2", "vm-2"]);
    // Keys are not used up by rows that are there already.
    let next: i64 = platform
        .fixture
        .number("SELECT last_value FROM virt_vm_vm_id_seq")
        .await;
    assert_eq!(next, 3);
}

#[tokio::test]
async fn a_large_inventory_is_compared_quickly_also_before_the_first_analyze() {
    let platform = Platform::new().await;
    let many = Inventory {
        hosts: inventory().hosts,
        vms: (0..10_000).map(|n| vm(&format!("vm-{n}"), "host-1")).collect(),
    };
    for round in 0..2 {
        let start = Instant::now();
        let known = platform
            .store
            .sync_inventory(&platform.lease, &many, stamp(round))
            .await
            .unwrap();
        assert_eq!(known.vms.len(), 10_000);
        // 0.2 s each; every object against every other took 6 s.
        assert!(
            start.elapsed() < Duration::from_secs(3),
            "round {round}: {:?}",
            start.elapsed()
        );
    }
}

#[tokio::test]
async fn a_property_that_is_missing_keeps_its_value_but_a_state_does_not() {
    let platform = Platform::new().await;
    let bare = Inventory {
        hosts: vec![
            Host {
                name: None,
                uuid: None,
                threads: None,
                power: PowerState::Unknown,
                connected: false,
                ..host("host-1")
            },
            host("host-2"),
        ],
        vms: vec![
            Vm {
                name: None,
                instance_uuid: None,
                bios_uuid: None,
                vcpus: None,
                memory_mib: None,
                power: PowerState::Unknown,
                host: None,
                ..vm("vm-1", "host-1")
            },
            vm("vm-2", "host-1"),
            vm("vm-3", "host-2"),
        ],
    };
    let known = platform
        .store
        .sync_inventory(&platform.lease, &bare, stamp(0))
        .await
        .unwrap();
    assert_eq!(known.vms[0].placement, None);
    let row = platform
        .fixture
        .sql
        .query_one(
            "SELECT h.name, h.hardware_uuid, h.thread_count, h.power_state, h.is_connected, v.name, v.instance_uuid, \
             v.vcpu_count, v.memory_mib, v.power_state, v.host_id, v.host_since IS NULL \
             FROM virt_host h, virt_vm v WHERE h.moref = 'host-1' AND v.moref = 'vm-1'",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(row.get::<_, &str>(0), "name of host-1");
    assert_eq!(row.get::<_, &str>(1), "uuid of host-1");
    assert_eq!(
        (row.get::<_, i32>(2), row.get::<_, &str>(3), row.get::<_, bool>(4)),
        (32, "unknown", false)
    );
    assert_eq!(
        (row.get::<_, &str>(5), row.get::<_, &str>(6)),
        ("name of vm-1", "instance of vm-1")
    );
    assert_eq!((row.get::<_, i32>(7), row.get::<_, i64>(8)), (4, 8192));
    assert_eq!(
        (
            row.get::<_, &str>(9),
            row.get::<_, Option<i32>>(10),
            row.get::<_, bool>(11)
        ),
        ("unknown", None, true)
    );
}

#[tokio::test]
async fn placement_counts_from_when_it_was_first_seen() {
    let platform = Platform::new().await;
    let sync = async |vms: Vec<Vm>, seconds| {
        let inventory = Inventory {
            hosts: inventory().hosts,
            vms,
        };
        let known = platform
            .store
            .sync_inventory(&platform.lease, &inventory, stamp(seconds))
            .await
            .unwrap();
        known.vms[0].placement
    };
    let [first, second] = [platform.hosts[0], platform.hosts[1]];
    let others = || vec![vm("vm-2", "host-1"), vm("vm-3", "host-2")];
    let on = |host: &str| [vec![vm("vm-1", host)], others()].concat();
    assert_eq!(
        sync(on("host-1"), 0).await,
        Some((first, stamp(-7200))),
        "since first contact"
    );
    assert_eq!(sync(on("host-2"), 20).await, Some((second, stamp(20))), "moved");
    assert_eq!(sync(on("host-2"), 40).await, Some((second, stamp(20))));
    assert_eq!(
        sync(on("host-9"), 60).await,
        None,
        "a host that is not in the reading"
    );
    assert_eq!(sync(on("host-2"), 80).await, Some((second, stamp(80))));
    sync(others(), 100).await;
    assert_eq!(
        sync(on("host-2"), 120).await,
        Some((second, stamp(120))),
        "back after it was gone"
    );
}

#[tokio::test]
async fn what_vanishes_is_marked_never_deleted_and_an_empty_reading_removes_nothing() {
    let platform = Platform::new().await;
    let removed = async || {
        let sql = "SELECT moref FROM virt_host WHERE removed_at IS NOT NULL UNION ALL \
                   SELECT moref FROM virt_vm WHERE removed_at IS NOT NULL ORDER BY 1";
        let rows = platform.fixture.sql.query(sql, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect::<Vec<String>>()
    };
    let sync = async |inventory: &Inventory, seconds| {
        platform
            .store
            .sync_inventory(&platform.lease, inventory, stamp(seconds))
            .await
            .unwrap()
    };
    let known = sync(&Inventory::default(), 0).await;
    assert!(known.hosts.is_empty() && known.vms.is_empty());
    assert_eq!(removed().await, Vec::<String>::new());

    let mut less = inventory();
    less.vms.remove(0);
    less.hosts.remove(1);
    let known = sync(&less, 20).await;
    assert_eq!((known.hosts.len(), known.vms.len()), (1, 2));
    assert_eq!(removed().await, ["host-2", "vm-1"]);
    let at = "SELECT extract(epoch FROM removed_at)::bigint FROM virt_vm WHERE moref = 'vm-1'";
    assert_eq!(platform.fixture.number(at).await, NOON + 20);
    // Seen as gone once is enough: the time stays.
    sync(&less, 40).await;
    assert_eq!(platform.fixture.number(at).await, NOON + 20);

    let known = sync(&inventory(), 60).await;
    assert_eq!(removed().await, Vec::<String>::new());
    assert_eq!(known.vms[0].id, platform.vms[0], "the same row again");

    // Without any host, but with VMs: the hosts were not shown.
    sync(
        &Inventory {
            hosts: Vec::new(),
            vms: inventory().vms,
        },
        80,
    )
    .await;
    assert_eq!(removed().await, Vec::<String>::new());
    // The last VM of a platform may well be deleted.
    sync(
        &Inventory {
            hosts: inventory().hosts,
            vms: Vec::new(),
        },
        100,
    )
    .await;
    assert_eq!(removed().await, ["vm-1", "vm-2", "vm-3"]);
}

#[tokio::test]
async fn an_object_that_is_shown_twice_and_odd_names_are_stored_once_and_whole() {
    let platform = Platform::new().await;
    let mut odd = inventory();
    odd.vms.push(Vm {
        name: Some("caf\u{e9} \0'; DROP TABLE virt_vm --".to_owned()),
        ..vm("vm-1", "host-1")
    });
    let known = platform
        .store
        .sync_inventory(&platform.lease, &odd, stamp(0))
        .await
        .unwrap();
    assert_eq!(known.vms.len(), 3);
    let row = platform
        .fixture
        .sql
        .query_one("SELECT name FROM virt_vm WHERE moref = 'vm-1'", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, &str>(0), "caf\u{e9} '; DROP TABLE virt_vm --");
}

#[tokio::test]
async fn the_same_reference_on_two_platforms_is_two_objects() {
    let platform = Platform::new().await;
    let other = platform
        .store
        .register_platform("other", PlatformKind::VCenter, "vc2", 443)
        .await
        .unwrap();
    let lease = platform
        .store
        .acquire_lease(other, &owner("a"))
        .await
        .unwrap()
        .unwrap();
    let known = platform
        .store
        .sync_inventory(&lease, &inventory(), stamp(0))
        .await
        .unwrap();
    assert!(known.vms.iter().all(|vm| !platform.vms.contains(&vm.id)));
    assert_eq!(
        known.vms[0].placement.map(|(host, _)| host),
        Some(known.hosts[0].id)
    );
}

#[tokio::test]
async fn a_platform_keeps_its_key_and_its_identity() {
    let platform = Platform::new().await;
    let (store, lease) = (&platform.store, &platform.lease);
    let again = store
        .register_platform("lab", PlatformKind::VCenter, "vc.example.com", 8443)
        .await
        .unwrap();
    assert_eq!(again, lease.platform);
    let row = platform
        .fixture
        .sql
        .query_one("SELECT host, port FROM virt_platform", &[])
        .await
        .unwrap();
    assert_eq!(
        (row.get::<_, &str>(0), row.get::<_, i32>(1)),
        ("vc.example.com", 8443)
    );

    assert_eq!(store.pin_identity(lease, "uuid-1").await.unwrap(), Pinned::First);
    assert_eq!(store.pin_identity(lease, "uuid-1").await.unwrap(), Pinned::Same);
    assert_eq!(
        store.pin_identity(lease, "uuid-2").await.unwrap(),
        Pinned::Other("uuid-1".to_owned())
    );
    assert_eq!(store.pin_identity(lease, "uuid-1").await.unwrap(), Pinned::Same);
}

#[tokio::test]
async fn every_status_can_be_stored_and_its_time_is_that_of_the_change() {
    let platform = Platform::new().await;
    let set = async |status: PlatformStatus| {
        platform.store.set_status(&platform.lease, &status).await.unwrap();
        let sql = "SELECT status, status_class, status_reason, version, \
                   extract(epoch FROM status_since)::float8, last_success_at IS NOT NULL FROM virt_platform";
        let row = platform.fixture.sql.query_one(sql, &[]).await.unwrap();
        let words: [Option<String>; 4] = [0, 1, 2, 3].map(|column| row.get(column));
        (words, row.get::<_, f64>(4), row.get::<_, bool>(5))
    };
    for class in ErrorClass::ALL {
        let status = PlatformStatus {
            reason: Some("why".to_owned()),
            ..PlatformStatus::of(PlatformState::Error(class))
        };
        let (words, _, succeeded) = set(status).await;
        assert_eq!(
            words[..3],
            ["error", class.as_str(), "why"].map(|word| Some(word.to_owned()))
        );
        assert!(!succeeded);
    }
    let connected = PlatformStatus {
        version: Some("8.0.3".to_owned()),
        ..PlatformStatus::of(PlatformState::Connected)
    };
    let (_, since, succeeded) = set(connected).await;
    assert!(succeeded);
    let (words, still, _) = set(PlatformStatus::of(PlatformState::Connected)).await;
    assert_eq!(words[3].as_deref(), Some("8.0.3"), "what is not known now stays");
    assert!((since - still).abs() < 1e-6, "the same state: the same time");
    for state in [PlatformState::Maintenance, PlatformState::Disconnected] {
        assert_eq!(
            set(PlatformStatus::of(state)).await.0[0].as_deref(),
            Some(state.as_str())
        );
    }
    let nobody = Lease {
        platform: PlatformId(99),
        ..platform.lease.clone()
    };
    let error = platform
        .store
        .set_status(&nobody, &PlatformStatus::of(PlatformState::Connected))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Fenced { .. }));
}
