//! Migrations, catalogue, roles.

use super::*;

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
    // A session that has worked with the extension stumbles once over its loss.
    let store = fixture.store("b");
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
async fn a_database_in_which_the_roles_may_do_nothing_says_what_to_run() {
    let fixture = Fixture::bare().await;
    // Roles are those of the whole server: they are there, too, where the bootstrap SQL was run in another database.
    let database = fixture.database.name();
    fixture
        .sql
        .batch_execute(&format!(
            "ALTER DATABASE {database} OWNER TO CURRENT_USER; REVOKE CREATE ON SCHEMA public FROM virt_owner"
        ))
        .await
        .unwrap();
    let settings = fixture.settings(Role::Owner, "migration");
    for error in [
        migrate::plan(&settings).await.unwrap_err(),
        migrate::apply(&settings).await.unwrap_err(),
    ] {
        let said = said(&error);
        assert!(
            said.contains("may not make tables in database") && said.contains("migrate --bootstrap-sql"),
            "{said}"
        );
    }
}

#[tokio::test]
async fn an_account_that_is_no_member_is_told_of_which_role() {
    let fixture = Fixture::new().await;
    fixture
        .sql
        .batch_execute("REVOKE SELECT ON virt_schema_migration FROM virt_writer")
        .await
        .unwrap();
    let said = said(&fixture.store("a").ready().await.unwrap_err());
    assert!(
        said.contains("must be a member of virt_writer") && said.contains("42501"),
        "{said}"
    );
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
        (
            3,
            "collectors",
            "2373878355c7a7f4fea9bec95c938b83c41a20c170452bb600fb51969874a19b",
        ),
        (
            4,
            "inventory",
            "e62244da1b83af23fd3b47287a8e35b96d54d62ea541052dd9ef3baddefa1fca",
        ),
        (
            5,
            "registry",
            "460aa612206fb181c30e73beae5141c37bd554e396f4be974182994eee1f1899",
        ),
        (
            6,
            "admin_api",
            "e6051bb64b3e6e922269a11245af2d6cbfc69ffbdc1afc00fcb183c8ac6dc633",
        ),
        (
            7,
            "rollups",
            "3fbde2ccc55f00252bc31e6163ef78159b76feac6bd40378ad3668370d285dd7",
        ),
        (
            8,
            "rollup_lane",
            "2dc70fb94f1b5b70e5140f710ed774bca708f39ca3c9c7de6e3117b053f933af",
        ),
        (
            9,
            "views",
            "319a52c1b764c438a34fe86dd787972a78d5a387b650a72c00c14a6443d1d22d",
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
             WHERE i.tablename IN ('virt_datastore_metrics', 'virt_host_metrics', 'virt_vm_metrics') ORDER BY 1, 2",
            &[],
        )
        .await
        .unwrap();
    let indexes: Vec<String> = rows.iter().map(|row| row.get(2)).collect();
    assert_eq!(indexes.len(), 6, "{indexes:?}");
    for (index, part) in indexes.iter().zip([
        "UNIQUE INDEX virt_datastore_metrics_key ON public.virt_datastore_metrics USING btree (datastore_id, collected_at)",
        "USING brin (collected_at) WITH (pages_per_range='32', autosummarize='on')",
        "UNIQUE INDEX virt_host_metrics_key ON public.virt_host_metrics USING btree (host_id, collected_at)",
        "USING brin (collected_at) WITH (pages_per_range='32', autosummarize='on')",
        "UNIQUE INDEX virt_vm_metrics_key ON public.virt_vm_metrics USING btree (vm_id, collected_at)",
        "USING brin (collected_at) WITH (pages_per_range='32', autosummarize='on')",
    ]) {
        assert!(index.contains(part), "{part}\n{index}");
    }
    // Samples and 5 minutes, hours, days: chunks of rows by the million, and few of them.
    for (interval, tables) in [("1 day", 6), ("7 days", 3), ("90 days", 3)] {
        let cut = format!(
            "SELECT count(*) FROM timescaledb_information.dimensions \
             WHERE hypertable_name LIKE 'virt%' AND time_interval = INTERVAL '{interval}'"
        );
        assert_eq!(fixture.number(&cut).await, tables, "{interval}");
    }
    let rolled_up = "SELECT count(*), count(*) FILTER (WHERE indexdef LIKE 'CREATE UNIQUE INDEX %_key ON %_id, collected_at)'), \
                            count(*) FILTER (WHERE indexdef LIKE '% USING brin (collected_at) %') \
                     FROM pg_indexes WHERE tablename ~ '^virt_(host|vm|datastore)_metrics_(5m|1h|1d)$'";
    let row = fixture.sql.query_one(rolled_up, &[]).await.unwrap();
    let counts: [i64; 3] = [0, 1, 2].map(|column| row.get(column));
    assert_eq!(counts, [18, 9, 9]);
    let references = "SELECT count(*) FROM pg_constraint WHERE contype = 'f' \
                      AND (conrelid::regclass::text LIKE '%metrics%' OR confrelid::regclass::text LIKE '%metrics%')";
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
        "virt_datacenter",
        "virt_cluster",
        "virt_resource_pool",
        "virt_datastore",
        "virt_vm_disk",
        "virt_vm_nic",
        "virt_vm_snapshot",
        "virt_vm_placement",
        "virt_datastore_metrics",
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
