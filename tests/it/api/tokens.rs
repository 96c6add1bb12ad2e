//! Tokens from the command line to their end, and that nobody gets in by the database alone.

use std::process::{Command, Output};

use serde_json::json;

use super::*;
use crate::wait;

fn virt_collector(api: &Api, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_virt-collector"))
        .args(words)
        .arg("--config")
        .arg(api.directory.path().join("config.toml"))
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn ok(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

async fn status(api: &Api, token: &str) -> u16 {
    api.ask(Ask::get("operations/").by(token)).await.status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_made_shown_once_listed_used_and_revoked() {
    use std::os::unix::fs::PermissionsExt as _;

    let api = Api::new().await;
    let printed = ok(&virt_collector(
        &api,
        &["token", "create", "night", "--role", "operator"],
    ));
    let token = printed.strip_suffix('\n').unwrap();
    assert!(Token::parse(token).is_some(), "the token alone: {printed:?}");
    assert_eq!(status(&api, token).await, 200);

    let file = api.directory.path().join("token");
    let path = file.to_str().unwrap();
    let create = [
        "token",
        "create",
        "west",
        "--role",
        "viewer",
        "--platform",
        "west",
        "--expires",
        "2h",
    ];
    let made = virt_collector(
        &api,
        &[&create[..], &["--output-file", path, "--output", "json"]].concat(),
    );
    let shown: Value = serde_json::from_str(&ok(&made)).unwrap();
    assert_eq!(
        (&shown["name"], &shown["platforms"]),
        (&json!("west"), &json!(["west"]))
    );
    let written = std::fs::read_to_string(&file).unwrap();
    assert_eq!(
        std::fs::metadata(&file).unwrap().permissions().mode() & 0o7777,
        0o600
    );
    let west = written.strip_suffix('\n').unwrap();
    assert!(!text(&made.stdout).contains(west) && !text(&made.stderr).contains(west));
    assert_eq!(status(&api, west).await, 200);

    for (words, code, says) in [
        (&["create", "night", "--role", "viewer"][..], 1, "was made before"),
        (
            &["create", "x", "--role", "root"],
            64,
            "possible values: viewer, operator, admin, auditor",
        ),
        (&["create", "x"], 64, "--role"),
        (&["create", "a b", "--role", "viewer"], 64, "use 1 to 63 letters"),
        (
            &["create", "x", "--role", "viewer", "--platform", "north"],
            1,
            "no platform north",
        ),
        (
            &["create", "x", "--role", "viewer", "--expires", "0d"],
            64,
            "1m to 3660d",
        ),
        (
            &["create", "x", "--role", "viewer", "--output-file", path],
            1,
            "No token was made",
        ),
        (&["revoke", "nobody"], 1, "no token \"nobody\""),
    ] {
        let output = virt_collector(&api, &[&["token"], words].concat());
        let said = text(&output.stderr);
        assert!(
            output.status.code() == Some(code) && said.contains(says),
            "{words:?}: {said}"
        );
    }

    let listed: Value =
        serde_json::from_str(&ok(&virt_collector(&api, &["token", "list", "--output", "json"]))).unwrap();
    let listed = listed["tokens"].as_array().unwrap().clone();
    let states: Vec<(&str, &str)> = listed
        .iter()
        .map(|row| (row["name"].as_str().unwrap(), row["state"].as_str().unwrap()))
        .collect();
    assert_eq!(states, [("night", "valid"), ("west", "valid")]);
    let used = listed[0]["last_used_at"].as_str().unwrap();
    assert!(used.ends_with(":00Z"), "to the minute: {used}");

    ok(&virt_collector(&api, &["token", "revoke", "night"]));
    wait::until("the token is refused", async || match status(&api, token).await {
        401 => Ok(()),
        other => Err(other.to_string()),
    })
    .await;
    assert_eq!(status(&api, west).await, 200);
    let again = virt_collector(&api, &["token", "revoke", "night"]);
    assert_eq!(again.status.code(), Some(1));
    let list = ok(&virt_collector(&api, &["token", "list"]));
    assert!(
        list.contains("night                    operator revoked"),
        "{list}"
    );
    let everything = list + &text(&made.stderr);
    assert!(!everything.contains(token) && !everything.contains(west));
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_ties_tokens_stays_until_they_are_revoked() {
    let api = Api::new().await;
    let token = api.token("old", "viewer", None).await;
    let first = api.ring().primary().to_string();
    ok(&virt_collector(&api, &["key", "add"]));
    let second = api
        .ring()
        .ids()
        .map(|key| key.to_string())
        .find(|key| *key != first)
        .unwrap();
    ok(&virt_collector(&api, &["key", "promote", &second]));
    let list: Value =
        serde_json::from_str(&ok(&virt_collector(&api, &["key", "list", "--output", "json"]))).unwrap();
    assert_eq!(
        (&list["keys"][0]["tokens"], &list["keys"][1]["tokens"]),
        (&json!(0), &json!(1))
    );
    let refused = virt_collector(&api, &["key", "retire", &first]);
    let said = text(&refused.stderr);
    assert!(
        refused.status.code() == Some(1) && said.contains("still ties the token old"),
        "{said}"
    );
    assert_eq!(status(&api, &token).await, 200);

    let new = ok(&virt_collector(
        &api,
        &["token", "create", "new", "--role", "viewer"],
    ));
    ok(&virt_collector(&api, &["token", "revoke", "old"]));
    ok(&virt_collector(&api, &["key", "retire", &first]));
    assert_eq!(status(&api, new.trim()).await, 200);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_writes_the_database_without_the_key_lets_nobody_in_and_raises_nobody() {
    let api = Api::new().await;
    let token = api.token("viewer", "viewer", Some(&["west"])).await;
    api.token("admin", "admin", None).await;
    assert_eq!(status(&api, &token).await, 200);
    for (change, undo) in [
        ("role = 'admin'", "role = 'viewer'"),
        ("platforms = NULL", "platforms = '{west}'"),
        ("platforms = '{east}'", "platforms = '{west}'"),
        ("platforms = '{west,east}'", "platforms = '{west}'"),
        ("name = 'root'", "name = 'viewer'"),
        (
            "expires_at = expires_at + interval '1 day'",
            "expires_at = expires_at - interval '1 day'",
        ),
        ("mac = decode(repeat('00', 32), 'hex')", ""),
    ] {
        let update = async |what: &str| {
            let sql = format!(
                "UPDATE virt_api_token SET {what} WHERE token_id = (SELECT min(token_id) FROM virt_api_token)"
            );
            api.sql.execute(&sql, &[]).await.unwrap();
        };
        update(change).await;
        wait::until("the changed row is refused", async || {
            match status(&api, &token).await {
                401 => Ok(()),
                other => Err(format!("{change}: {other}")),
            }
        })
        .await;
        if !undo.is_empty() {
            update(undo).await;
            wait::until("the row is as it was", async || {
                match status(&api, &token).await {
                    200 => Ok(()),
                    other => Err(format!("{undo}: {other}")),
                }
            })
            .await;
        }
    }
    // The row of another token, in its place.
    let copy =
        "UPDATE virt_api_token SET mac = other.mac, key_id = other.key_id, role = 'admin', platforms = NULL
                FROM virt_api_token other WHERE virt_api_token.name = 'viewer' AND other.name = 'admin'";
    api.sql.execute(copy, &[]).await.unwrap();
    wait::until("the copied row is refused", async || {
        match status(&api, &token).await {
            401 => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_database_key_ring_or_audit_log_nobody_gets_in_and_nothing_is_done() {
    let api = Api::new().await;
    let token = api.token("operator", "operator", None).await;
    assert_eq!(status(&api, &token).await, 200);
    let reaches = async |expected: u16, code: &str| {
        wait::until(code, async || {
            let answer = api.ask(Ask::get("operations/").by(&token)).await;
            if answer.status == expected && (expected == 200 || answer.code() == code) {
                Ok(())
            } else {
                Err(format!("{answer:?}"))
            }
        })
        .await;
    };

    // No entry, no action.
    let path = format!("vms/{}/power-on/", api.vm().await);
    let revoke = "REVOKE INSERT ON virt_audit_log FROM virt_writer;
                  REVOKE INSERT (entry, actor, client, request_id, action, platform, target, target_name, operation_id,
                  outcome, code, detail, before, after) ON virt_audit_log FROM virt_writer";
    api.sql.batch_execute(revoke).await.unwrap();
    let refused = api.ask(Ask::post(&path).by(&token)).await;
    assert_eq!((refused.status, refused.code().as_str()), (500, "internal"));
    assert!(
        !text(&refused.body).contains("virt_audit_log"),
        "without detail: {refused:?}"
    );
    assert_eq!(api.count("SELECT count(*) FROM virt_operation").await, 0);
    let denied = api.ask(Ask::post(&path)).await;
    assert_eq!(denied.status, 401, "a denial stands without its entry");
    let metrics = recorder().render();
    let failures = metrics
        .lines()
        .find_map(|line| line.strip_prefix("virt_collector_api_audit_failures_total "));
    assert!(failures.unwrap().parse::<u64>().unwrap() >= 2, "{failures:?}");

    let ring = api.directory.path().join("keyring");
    let away = api.directory.path().join("keyring.away");
    std::fs::rename(&ring, &away).unwrap();
    reaches(503, "keys_unavailable").await;
    std::fs::rename(&away, &ring).unwrap();
    reaches(200, "").await;

    let name: String = api
        .sql
        .query_one("SELECT current_database()", &[])
        .await
        .unwrap()
        .get(0);
    // A database is closed from another one.
    let url = std::env::var(support::database::VARIABLE).unwrap();
    let (server, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::task::spawn(connection);
    let set = async |allow: bool| {
        let alter = format!("ALTER DATABASE \"{name}\" ALLOW_CONNECTIONS {allow}");
        server.batch_execute(&alter).await.unwrap();
    };
    set(false).await;
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1";
    server.execute(end, &[&name]).await.unwrap();
    reaches(503, "database_unavailable").await;
    assert_eq!(api.ask(Ask::get("/livez")).await.status, 200);
    set(true).await;
    reaches(200, "").await;
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_log_is_added_to_and_never_changed() {
    let api = Api::new().await;
    let token = api.token("operator", "operator", None).await;
    let path = format!("vms/{}/power-on/", api.vm().await);
    assert_eq!(api.ask(Ask::post(&path).by(&token)).await.status, 202);
    let writer = api.database.connect(Role::Writer).await.unwrap();
    assert_eq!(
        writer
            .query("SELECT * FROM virt_audit_log", &[])
            .await
            .unwrap()
            .len(),
        1
    );
    for sql in [
        "UPDATE virt_audit_log SET actor = 'somebody else'",
        "UPDATE virt_audit_log SET outcome = 'ok'",
        "DELETE FROM virt_audit_log",
        "TRUNCATE virt_audit_log",
        "INSERT INTO virt_audit_log (at, entry, actor, request_id, action) VALUES ('2020-01-01', 'intent', 'a', 'b', 'c')",
        "INSERT INTO virt_audit_log (audit_id, entry, actor, request_id, action) OVERRIDING SYSTEM VALUE \
         VALUES (1, 'intent', 'a', 'b', 'c')",
        "DROP TABLE virt_audit_log",
        "ALTER TABLE virt_audit_log DISABLE TRIGGER ALL",
        "UPDATE virt_api_token SET role = 'admin'",
        "UPDATE virt_api_token SET expires_at = 'infinity'",
        "DELETE FROM virt_api_token",
    ] {
        let refused = writer.batch_execute(sql).await.unwrap_err();
        assert_eq!(refused.code().unwrap().code(), "42501", "{sql}: {refused}");
    }
    let reader = api.database.connect(Role::Reader).await.unwrap();
    for table in [
        "virt_audit_log",
        "virt_api_token",
        "virt_operation",
        "virt_api_idempotency",
    ] {
        let refused = reader
            .batch_execute(&format!("SELECT * FROM {table}"))
            .await
            .unwrap_err();
        assert_eq!(refused.code().unwrap().code(), "42501", "{table}");
    }
    api.stop().await;
}
