//! What somebody can do who has one thing in hand: an account of the database, a name on a platform, an account on the
//! machine. With the real program and the real database.
#![expect(clippy::disallowed_methods, reason = "helpers of tests have no supervisor")]

use std::path::{Path, PathBuf};
use std::process::Command;

use support::database::{Database, Role};
use tokio_postgres::Client;
use virt_collector::config::Config;
use virt_collector::secret::{Place, Secret, key_file};
use virt_collector::store;
use vsphere_simulator::Simulator;

use crate::cli::status::on_a_terminal;
use crate::rig::small;

/// A migrated database and a configuration that names it.
struct House {
    directory: tempfile::TempDir,
    database: Database,
    sql: Client,
}

impl House {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::create().await.unwrap_or_else(|error| panic!("{error}"));
        let text = format!(
            "[database]\nurl = \"{}\"\n[database.owner]\nurl = \"{}\"\n",
            database.url(Role::Writer),
            database.url(Role::Owner)
        );
        let path = directory.path().join("config.toml");
        std::fs::write(&path, &text).unwrap();
        let config = Config::load(&path).unwrap();
        let owner = config.database.owner.as_ref().unwrap();
        let settings = store::Settings::new(&config.database, owner, &store::Owner::random()).unwrap();
        store::migrate::apply(&settings).await.unwrap();
        Self {
            sql: database.connect(Role::Superuser).await.unwrap(),
            directory,
            database,
        }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    /// A command, off the runtime's threads: simulators answer on them.
    async fn run(&self, words: &str) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_virt-collector"));
        command
            .args(words.split_whitespace())
            .arg("--config")
            .arg(self.path("config.toml"));
        let output = tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (
            output.status.code().unwrap(),
            text + &String::from_utf8_lossy(&output.stderr),
        )
    }

    async fn well(&self, words: &str) -> String {
        let (code, text) = self.run(words).await;
        assert_eq!(code, 0, "{words}: {text}");
        text
    }

    async fn change(&self, sql: &str) {
        self.sql.batch_execute(sql).await.unwrap();
    }
}

async fn connect(house: &House, role: &str) -> Client {
    let url = house.database.url(Role::Reader);
    let url = url.replace("user=virt_reader", &format!("user={role}"));
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
        .await
        .unwrap();
    drop(tokio::spawn(connection));
    client
}

/// What each account of the database may do of what an attacker would try: `w` the service's, `r` that of dashboards,
/// `-` somebody else's.
const TRIED: &[(&str, &str)] = &[
    // Out of the database.
    ("SELECT pg_read_file('/etc/passwd')", ""),
    ("SELECT pg_ls_dir('.')", ""),
    ("SELECT lo_import('/etc/passwd')", ""),
    ("COPY (SELECT 1) TO '/tmp/virt-collector-attack'", ""),
    ("COPY (SELECT 1) TO PROGRAM 'id'", ""),
    ("CREATE EXTENSION dblink", ""),
    ("SELECT pg_reload_conf()", ""),
    ("SELECT rolpassword FROM pg_authid", ""),
    // Up.
    ("SET ROLE virt_owner", ""),
    ("ALTER TABLE virt_vm OWNER TO CURRENT_USER", ""),
    ("ALTER TABLE virt_vm_metrics DISABLE TRIGGER ALL", ""),
    ("CREATE OR REPLACE VIEW virt_vm_latest AS SELECT 1", ""),
    ("CREATE POLICY mine ON virt_vm", ""),
    // In front of what others call.
    ("CREATE SCHEMA mine", ""),
    ("CREATE TABLE public.mine (x int)", ""),
    (
        "CREATE FUNCTION public.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "",
    ),
    ("CREATE TEMPORARY TABLE virt_vm (x int)", "w"),
    // Open to every account of a server, whatever it is granted.
    ("SELECT lo_from_bytea(0, 'x')", "wr-"),
    ("NOTIFY virt_registry", "wr-"),
    // Secrets, even sealed.
    ("SELECT FROM virt_platform_credential", "w"),
    ("SELECT FROM virt_api_token", "w"),
    ("SELECT FROM virt_api_idempotency", "w"),
    ("SELECT FROM virt_operation", "w"),
    ("SELECT FROM virt_audit_log", "w"),
    ("SELECT FROM virt_vm", "wr"),
    ("SELECT FROM virt_vm_latest", "r"),
    // What was done is not undone.
    ("UPDATE virt_audit_log SET actor = 'x'", ""),
    ("DELETE FROM virt_audit_log", ""),
    ("TRUNCATE virt_audit_log", ""),
    (
        "INSERT INTO virt_audit_log (at, entry, actor, request_id, action) VALUES (now(), 'intent', 'x', 'x', 'x')",
        "",
    ),
    ("SELECT setval('virt_audit_log_audit_id_seq', 1)", ""),
    // More than a token was given.
    ("UPDATE virt_api_token SET role = 'admin'", ""),
    ("UPDATE virt_api_token SET platforms = NULL", ""),
    ("UPDATE virt_api_token SET expires_at = now()", ""),
    ("UPDATE virt_api_token SET mac = ''", ""),
    ("DELETE FROM virt_api_token", ""),
    ("UPDATE virt_api_token SET revoked_at = NULL", "w"),
    // Samples.
    ("UPDATE virt_vm_metrics SET cpu_usage_percent = 0", ""),
    ("DELETE FROM virt_vm_metrics", ""),
    ("TRUNCATE virt_vm_metrics", ""),
    ("SELECT drop_chunks('virt_vm_metrics', now())", ""),
    (
        "SELECT * FROM virt_drop_chunks('virt_vm_metrics', '30 days')",
        "w",
    ),
    ("SELECT virt_compress_after('7 days')", "w"),
    // Where passwords are sent; they do not open there.
    ("UPDATE virt_platform SET host = 'elsewhere'", "w"),
];

#[tokio::test]
async fn each_account_of_the_database_can_do_what_is_said_of_it_and_nothing_else() {
    let house = House::new().await;
    // Somebody else's on the same server, who has been given nothing here.
    let stranger = format!(
        "stranger_{}",
        house.database.name().trim_start_matches("virt_test_")
    );
    house.change(&format!("CREATE ROLE {stranger} LOGIN")).await;
    for (role, mark) in [("virt_writer", 'w'), ("virt_reader", 'r'), (&*stranger, '-')] {
        let client = connect(&house, role).await;
        client
            .batch_execute("SET default_transaction_read_only = off")
            .await
            .unwrap();
        for (sql, allowed) in TRIED {
            client.batch_execute("BEGIN").await.unwrap();
            let done = client.batch_execute(sql).await;
            client.batch_execute("ROLLBACK").await.unwrap();
            let refused = done
                .as_ref()
                .err()
                .and_then(|error| error.code())
                .is_some_and(|code| code.code() == "42501");
            assert_eq!(done.is_ok(), allowed.contains(mark), "{role}: {sql}: {done:?}");
            assert_eq!(refused, !allowed.contains(mark), "{role}: {sql}: {done:?}");
        }
    }
    // What is younger than two days is nobody's to drop, nor is anything but samples.
    let writer = connect(&house, "virt_writer").await;
    for (relation, keep) in [
        ("virt_vm_metrics", "1 day"),
        ("virt_audit_log", "30 days"),
        ("pg_class", "30 days"),
    ] {
        let sql = format!("SELECT * FROM virt_drop_chunks('{relation}', '{keep}')");
        writer.batch_execute(&sql).await.expect_err(&sql);
    }
    // Whoever is new reads nothing, and nothing runs as its owner that anybody may call or whose names can be bent.
    for (what, query) in [
        (
            "readable by a stranger",
            format!(
                "SELECT oid::regclass::text FROM pg_class WHERE relkind IN ('r', 'v', 'p', 'm', 'S')
                 AND (relname LIKE 'virt%' OR relname LIKE '%hyper%chunk') AND relkind <> 'S'
                 AND has_table_privilege('{stranger}', oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')"
            ),
        ),
        (
            "run as the owner",
            format!(
                "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prosecdef
                 AND proname LIKE 'virt%' AND (has_function_privilege('{stranger}', oid, 'EXECUTE')
                 OR has_function_privilege('virt_reader', oid, 'EXECUTE')
                 OR NOT 'search_path=pg_catalog, public, pg_temp' = ANY (coalesce(proconfig, '{{}}')))"
            ),
        ),
    ] {
        let rows = house.sql.query(&query, &[]).await.unwrap();
        let found: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        assert!(found.is_empty(), "{what}: {found:?}");
    }
    house
        .change(&format!("DROP OWNED BY {stranger}; DROP ROLE {stranger}"))
        .await;
}

/// Whoever owns the database can put names of their own in front of those that scripts of a superuser call.
#[tokio::test]
async fn the_scripts_that_a_superuser_runs_run_nothing_that_the_owner_of_the_database_has_laid_out() {
    let house = House::new().await;
    let owner = house.database.connect(Role::Owner).await.unwrap();
    let (database, trapped) = (
        house.database.name(),
        "CREATE TABLE trap.trapped (who name, what text)",
    );
    owner
        .batch_execute(&format!(
            "CREATE SCHEMA trap; {trapped}; GRANT ALL ON SCHEMA trap TO PUBLIC"
        ))
        .await
        .unwrap();
    for (schema, name, parameters, returns, real) in [
        // In front of everything, by the search path of the database.
        (
            "trap",
            "current_database",
            "",
            "name",
            "pg_catalog.current_database()",
        ),
        (
            "trap",
            "current_setting",
            "text",
            "text",
            "pg_catalog.current_setting($1)",
        ),
        // Behind everything, and a better fit.
        (
            "public",
            "format",
            "text, name",
            "text",
            "pg_catalog.format($1, $2)",
        ),
        (
            "public",
            "format",
            "text, text",
            "text",
            "pg_catalog.format($1, $2)",
        ),
    ] {
        let sql = format!(
            "CREATE FUNCTION {schema}.{name}({parameters}) RETURNS {returns} LANGUAGE plpgsql AS $$ BEGIN
                 INSERT INTO trap.trapped VALUES (current_user, '{name}'); RETURN {real}; END $$"
        );
        owner.batch_execute(&sql).await.unwrap();
    }
    let path = "trap, pg_catalog, public";
    let sql = format!("ALTER DATABASE {database} SET search_path = {path}");
    owner.batch_execute(&sql).await.unwrap();

    let reader = format!("reader_{}", database.trim_start_matches("virt_test_"));
    let superuser = house.database.connect(Role::Superuser).await.unwrap();
    let name = store::reader::Name::new(&reader).unwrap();
    for script in [store::BOOTSTRAP_SQL, &store::reader::sql(&name)] {
        superuser.batch_execute(script).await.unwrap();
        let left = superuser.query_one("SHOW search_path", &[]).await.unwrap();
        assert_eq!(left.get::<_, &str>(0), path, "the session is as it was");
    }
    let rows = house
        .sql
        .query("SELECT format('%s as %s', what, who) FROM trap.trapped", &[])
        .await;
    let trapped: Vec<String> = rows.unwrap().iter().map(|row| row.get(0)).collect();
    house
        .change(&format!("DROP OWNED BY {reader}; DROP ROLE {reader}"))
        .await;
    assert!(trapped.is_empty(), "{trapped:?}");
}

/// A password file as an operator makes it.
fn write_password(path: &Path, password: &str) {
    std::fs::write(path, format!("{password}\n")).unwrap();
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_writes_the_database_has_no_password_sent_to_a_server_of_their_own() {
    let house = House::new().await;
    let (own, evil) = (
        Simulator::start(small()).await.unwrap(),
        Simulator::start(small()).await.unwrap(),
    );
    let (user, password) = own.credentials();
    write_password(&house.path("password"), password);
    house.well("key init").await;
    let (port, other) = (own.addr().port(), evil.addr().port());
    house
        .well(&format!(
            "platform add lab --host 127.0.0.1 --port {port} --user {user} --thumbprint {} --password-file {}",
            own.leaf_sha256_thumbprint().unwrap(),
            house.path("password").display()
        ))
        .await;
    house.well("platform test lab").await;

    // Every part that says whom the password is shown to, and the password of another platform in this one's place.
    let pinned = format!(
        "'{}'",
        own.leaf_sha256_thumbprint()
            .unwrap()
            .replace(':', "")
            .to_lowercase()
    );
    for (change, undo) in [
        (format!("port = {other}"), format!("port = {port}")),
        ("host = 'localhost'".to_owned(), "host = '127.0.0.1'".to_owned()),
        ("tls_verify = FALSE".to_owned(), "tls_verify = TRUE".to_owned()),
        (
            "tls_thumbprint = NULL".to_owned(),
            format!("tls_thumbprint = {pinned}"),
        ),
        (
            format!("port = {other}, tls_thumbprint = NULL, tls_verify = FALSE"),
            format!("port = {port}, tls_thumbprint = {pinned}, tls_verify = TRUE"),
        ),
    ] {
        house.change(&format!("UPDATE virt_platform SET {change}")).await;
        let (code, text) = house.run("platform test lab").await;
        assert!(code == 1 && text.contains("another server"), "{change}: {text}");
        let (code, text) = house.run("key verify").await;
        assert!(code == 1 && text.contains("another server"), "{change}: {text}");
        house.change(&format!("UPDATE virt_platform SET {undo}")).await;
        house.well("platform test lab").await;
    }
    let heard = evil.sessions().stats();
    assert_eq!((heard.logins, heard.failed_logins), (0, 0));

    // A person who has the key ring may move it: the seal follows.
    let moved = format!(
        "--port {other} --thumbprint {}",
        evil.leaf_sha256_thumbprint().unwrap()
    );
    house.well(&format!("platform edit lab {moved} --untested")).await;
    house.well("platform test lab").await;
    assert_eq!(evil.sessions().stats().logins, 1);

    // A seal of an earlier version knows no server. `key rewrap` makes it one that does.
    let ring = key_file::load(&house.path("keyring")).unwrap();
    let id: i32 = house
        .sql
        .query_one("SELECT platform_id FROM virt_platform", &[])
        .await
        .unwrap()
        .get(0);
    let earlier = ring.seal(Place::password_of(id), &Secret::new(password)).unwrap();
    house
        .sql
        .execute(
            "UPDATE virt_platform_credential SET sealed = $1",
            &[&earlier.bytes()],
        )
        .await
        .unwrap();
    house.well("platform test lab").await;
    let text = house.well("key rewrap").await;
    assert!(text.contains("sealed 1 password anew"), "{text}");
    house.well("platform test lab").await;
    house
        .change(&format!("UPDATE virt_platform SET port = {port}"))
        .await;
    let (code, text) = house.run("platform test lab").await;
    assert!(code == 1 && text.contains("another server"), "{text}");
}

/// Sequences that move the cursor, set the title, answer back, erase, ring, break the line, or turn the writing.
const STEERING: &str = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{1b}[c\u{9b}2J\r\n\u{202e}\u{2028}forged";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_a_platform_says_steers_the_terminal_of_who_looks() {
    let house = House::new().await;
    let evil = STEERING.replace('\'', "''");
    house
        .change(&format!(
            "INSERT INTO virt_platform (name, type, host, port, source, status, status_class, status_reason, version)
                 VALUES ('lab', 'vcenter', 'h', 443, 'registry', 'error', 'tls', '{evil}', '{evil}');
             INSERT INTO virt_vm (platform_id, moref, name, power_state, is_connected, is_template, first_seen_at)
                 SELECT platform_id, 'vm-1', '{evil}', 'on', TRUE, FALSE, now() FROM virt_platform;
             INSERT INTO virt_collection_gap (platform_id, entity_kind, entity_id, from_time, to_time, state)
                 SELECT platform_id, 'vm', vm_id, now() - INTERVAL '1 hour', now(), 'open' FROM virt_vm;
             INSERT INTO virt_collector (owner, host_name, platforms, until)
                 VALUES (repeat('a', 8), '{evil}', '{{lab}}', now() + INTERVAL '1 hour')"
        ))
        .await;
    house.well("key init").await;
    let config = house.path("config.toml").display().to_string();
    for words in [
        "status --once",
        "status --output json",
        "platform list",
        "platform list --output json",
        "platform show lab",
        "gaps list",
        "gaps list --output json",
        "check",
    ] {
        let asked = format!("{words} --config {config}");
        let (_, text) = tokio::task::spawn_blocking(move || on_a_terminal(&asked, &[], ""))
            .await
            .unwrap();
        for steers in [
            "\u{1b}]",
            "\u{1b}[2J",
            "\u{1b}[c",
            "\u{7}",
            "\u{9b}",
            "\u{202e}",
            "\u{2028}",
            "\n\\u202e",
        ] {
            assert!(!text.contains(steers), "{words}: {steers:?} in {text:?}");
        }
        if words != "check" {
            assert!(text.contains("forged"), "{words} does not show it: {text:?}");
        }
    }
}

/// Gone with the test, however that ends.
struct Child(std::process::Child);

impl Drop for Child {
    fn drop(&mut self) {
        drop(self.0.kill());
    }
}

/// Whatever the shell that it is started from allows.
#[tokio::test]
async fn what_is_in_its_memory_is_in_no_core_file() {
    use std::os::unix::process::ExitStatusExt as _;

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    // Nobody listens there: it waits for its database.
    std::fs::write(
        &path,
        "[database]\nurl = \"host=/nowhere user=x dbname=x\"\n[admin]\nlisten = \"127.0.0.1:0\"\n",
    )
    .unwrap();
    let child = Command::new("sh")
        .args(["-c", "ulimit -c unlimited; exec \"$0\" run --config \"$1\""])
        .arg(env!("CARGO_BIN_EXE_virt-collector"))
        .arg(&path)
        .current_dir(directory.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut child = Child(child);
    let limits = format!("/proc/{}/limits", child.0.id());
    crate::wait::until("no core file is allowed", async || {
        let text = std::fs::read_to_string(&limits).unwrap();
        let core = text.lines().find(|line| line.starts_with("Max core file size"));
        let words: Vec<&str> = core.unwrap_or_default().split_whitespace().collect();
        if words.get(4..6) == Some(&["0", "0"]) {
            Ok(())
        } else {
            Err(text)
        }
    })
    .await;
    let aborted = Command::new("kill")
        .args(["-ABRT", &child.0.id().to_string()])
        .status();
    assert!(aborted.unwrap().success());
    let status = child.0.wait().unwrap();
    assert_eq!(status.signal(), Some(6), "{status}");
    assert!(!status.core_dumped(), "{status}");
    let files: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
    assert_eq!(files.len(), 1, "{files:?}");
}
