//! Accounts for dashboards.

use virt_collector::store::reader::{self, Name, UNREADABLE};

use super::*;

/// Gone at the end of the test: roles belong to the whole server.
struct Account<'a> {
    fixture: &'a Fixture,
    name: Name,
}

impl<'a> Account<'a> {
    fn new(fixture: &'a Fixture, what: &str) -> Self {
        let unique = fixture.database.name().trim_start_matches("virt_test_");
        Self {
            fixture,
            name: Name::new(&format!("{what}_{unique}")).unwrap(),
        }
    }

    async fn connect(&self) -> Client {
        let url = self.fixture.database.url(Role::Reader);
        let url = url.replace("user=virt_reader", &format!("user={}", self.name));
        let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
            .await
            .unwrap();
        drop(tokio::spawn(connection));
        client
    }

    async fn gone(self) {
        let name = self.name;
        self.fixture
            .sql
            .batch_execute(&format!("DROP OWNED BY {name}; DROP ROLE {name}"))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn an_account_for_dashboards_reads_everything_but_secrets_and_writes_nothing() {
    let fixture = Fixture::new().await;
    let account = Account::new(&fixture, "grafana");
    let superuser = fixture.settings(Role::Superuser, "a");
    let readable = reader::apply(&superuser, &account.name).await.unwrap();
    let relations = fixture
        .texts("SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v') AND relname LIKE 'virt%'")
        .await;
    assert_eq!(
        readable,
        i64::try_from(relations.len() - UNREADABLE.len()).unwrap()
    );

    let client = account.connect().await;
    for relation in &relations {
        let read = client
            .batch_execute(&format!("SELECT * FROM {relation} LIMIT 1"))
            .await;
        assert_eq!(
            read.is_err(),
            UNREADABLE.contains(&relation.as_str()),
            "{relation}: {read:?}"
        );
    }
    for (setting, value) in [
        ("default_transaction_read_only", "on"),
        ("statement_timeout", "1min"),
        ("search_path", "public"),
        ("jit", "off"),
    ] {
        let row = client
            .query_one("SELECT current_setting($1)", &[&setting])
            .await
            .unwrap();
        assert_eq!(row.get::<_, String>(0), value, "{setting}");
    }
    client
        .batch_execute(
            "SELECT * FROM virt_vm_history(now() - INTERVAL '1 hour', now()); SELECT * FROM virt_vm_idle()",
        )
        .await
        .unwrap();
    // Read-only is a default, which it may take back: the grants are what holds.
    client
        .batch_execute("SET default_transaction_read_only = off")
        .await
        .unwrap();
    for relation in &relations {
        for verb in ["DELETE FROM {}", "TRUNCATE {}", "INSERT INTO {} DEFAULT VALUES"] {
            let sql = verb.replace("{}", relation);
            assert!(client.batch_execute(&sql).await.is_err(), "{sql}");
        }
    }
    for sql in [
        "CREATE TABLE mine (x int)",
        "SELECT * FROM virt_drop_chunks('virt_vm_metrics', '30 days')",
        "SELECT virt_compress_after('7 days')",
        "SET ROLE virt_writer",
        "SET ROLE virt_owner",
    ] {
        let error = client.batch_execute(sql).await.expect_err(sql);
        assert_eq!(
            error.code().map(|code| code.code()),
            Some("42501"),
            "{sql}: {error:?}"
        );
    }
    // virt_reader itself reads no more either.
    let reader = fixture.database.connect(Role::Reader).await.unwrap();
    for secret in UNREADABLE {
        assert!(
            reader
                .batch_execute(&format!("SELECT * FROM {secret}"))
                .await
                .is_err(),
            "{secret}"
        );
    }
    drop(client);
    account.gone().await;
}

#[tokio::test]
async fn an_account_is_repaired_and_one_that_does_more_than_read_is_refused() {
    let fixture = Fixture::new().await;
    let superuser = fixture.settings(Role::Superuser, "a");
    let account = Account::new(&fixture, "dash");
    let name = &account.name;
    let readable = reader::apply(&superuser, name).await.unwrap();
    // By hand, and by a restore that knew no roles.
    fixture
        .sql
        .batch_execute(&format!(
            "ALTER ROLE {name} NOLOGIN; REVOKE virt_reader FROM {name}; ALTER ROLE {name} IN DATABASE {} RESET ALL; \
             REVOKE SELECT ON virt_vm, virt_vm_latest FROM virt_reader",
            fixture.database.name()
        ))
        .await
        .unwrap();
    assert_eq!(reader::apply(&superuser, name).await.unwrap(), readable);
    let client = account.connect().await;
    client
        .batch_execute("SELECT * FROM virt_vm_latest")
        .await
        .unwrap();
    // The owner may not make accounts; where there is nothing to be made, it has nothing to be told.
    let owner = fixture.settings(Role::Owner, "a");
    assert_eq!(reader::apply(&owner, name).await.unwrap(), readable);
    let error = reader::apply(&owner, &Name::new("another_one").unwrap())
        .await
        .unwrap_err();
    let text = said(&error);
    assert!(
        text.contains("may not create accounts")
            && text.contains("migrate --reader another_one --print-sql | psql -d virt_test_"),
        "{text}"
    );

    for (more, part) in [
        (
            format!("GRANT virt_writer TO {name}"),
            "is a member of virt_writer",
        ),
        (
            format!("REVOKE virt_writer FROM {name}; ALTER ROLE {name} CREATEROLE"),
            "has rights of its own",
        ),
        (
            format!("ALTER ROLE {name} NOCREATEROLE; GRANT SELECT ON virt_api_token TO {name}"),
            "has rights of its own on virt_api_token: REVOKE ALL",
        ),
    ] {
        fixture.sql.batch_execute(&more).await.unwrap();
        let error = reader::apply(&superuser, name).await.unwrap_err();
        assert!(said(&error).contains(part), "{part}\n{}", said(&error));
    }
    for role in ["virt_writer", "virt_reader"] {
        let error = reader::apply(&superuser, &Name::new(role).unwrap())
            .await
            .unwrap_err();
        assert!(said(&error).contains("take another name"), "{}", said(&error));
    }
    drop(client);
    account.gone().await;
}
