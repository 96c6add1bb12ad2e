//! Bad input of every kind gets a problem that helps, and nothing of it a 500.

use serde_json::json;

use super::*;

/// A status and a code for each request.
async fn expect(api: &Api, cases: Vec<(Ask, u16, &str)>) {
    for (ask, status, code) in cases {
        let answer = api.ask(ask.clone()).await;
        let said = format!("{ask:?}: {answer:?} {}", String::from_utf8_lossy(&answer.body));
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_paths_queries_headers_and_bodies_are_refused_in_words_that_help() {
    let api = Api::new().await;
    let token = api.token("admin", "admin", None).await;
    let get = |path: &str| Ask::get(path).by(&token);
    let post = |path: &str| Ask::post(path).by(&token);
    let vm = api.vm().await;
    let on = format!("vms/{vm}/power-on/");
    let create = format!("vms/{vm}/snapshots/");
    let named = |name: String| post(&create).json(&json!({ "name": name }));
    let raw = |body: &[u8]| {
        post(&create)
            .header("content-type", "application/json")
            .body(body)
    };
    let deep = format!("{{\"name\": {}1{}}}", "[".repeat(5_000), "]".repeat(5_000));
    expect(
        &api,
        vec![
            // Path.
            (post("vms/x/power-on/"), 400, "bad_path"),
            (post("vms/1.5/power-on/"), 400, "bad_path"),
            (post("vms/99999999999/power-on/"), 400, "bad_path"),
            (post("vms/%FF/power-on/"), 400, "bad_path"),
            (post("vms/1%2F2/power-on/"), 400, "bad_path"),
            (post("vms/%00/power-on/"), 400, "bad_path"),
            (post("vms/-1/power-on/"), 404, "not_found"),
            (post("vms/0/power-on/"), 404, "not_found"),
            (post("vms/2000000000/power-on/"), 404, "not_found"),
            (get("operations/17/"), 400, "bad_path"),
            (
                get("operations/01935a6f-2f2e-7b21-9f0e-0c8f6c1d2e3f/"),
                404,
                "not_found",
            ),
            (
                post(&format!("vms/{vm}/snapshots/a%20b/revert/")).json(&json!({ "confirm": "x" })),
                400,
                "bad_path",
            ),
            (
                post(&format!("vms/{vm}/snapshots/%3Cx%3E/revert/")),
                400,
                "bad_path",
            ),
            (
                post(&format!("vms/{vm}/snapshots/{}/revert/", "a".repeat(65))),
                400,
                "bad_path",
            ),
            // Query.
            (get("operations/?limit=x"), 400, "bad_query"),
            (get("operations/?limit=0"), 400, "bad_query"),
            (get("operations/?limit=501"), 400, "bad_query"),
            (get("operations/?limit=-1"), 400, "bad_query"),
            (get("operations/?limit="), 400, "bad_query"),
            (get("operations/?limit=5&limit=6"), 400, "bad_query"),
            (get("operations/?state=done"), 400, "bad_query"),
            (get("operations/?Limit=5"), 400, "bad_query"),
            (get("operations/?vm=%FF"), 400, "bad_query"),
            (get("operations/?%"), 400, "bad_query"),
            (get("operations/?cursor=%00"), 400, "bad_query"),
            (get("operations/?cursor=nonsense"), 400, "bad_cursor"),
            (get("operations/?cursor=1.2"), 400, "bad_cursor"),
            (
                get("operations/?cursor=-9000000000000000000.01912f9e-5a5a-7000-8000-000000000000"),
                400,
                "bad_cursor",
            ),
            (get("audit/?cursor=x"), 400, "bad_cursor"),
            (get("audit/?since=-009000-01-01T00:00:00Z"), 400, "bad_query"),
            (get("audit/?operation=x"), 400, "bad_query"),
            (get("audit/?since=yesterday"), 400, "bad_query"),
            (get("audit/?since=2026-01-01T00:00:00+01:00"), 400, "bad_query"),
            (get("audit/?entry=everything"), 400, "bad_query"),
            (post(&format!("{on}?force=1")), 400, "bad_query"),
            (
                Ask::new("DELETE", &format!("{create}snapshot-1/?children=perhaps")).by(&token),
                400,
                "bad_query",
            ),
            // Headers.
            (
                get("operations/").header("accept", "text/html"),
                406,
                "not_acceptable",
            ),
            (
                get("operations/").header("accept", "application/json;q=0"),
                406,
                "not_acceptable",
            ),
            (
                post(&on).header("idempotency-key", ""),
                400,
                "bad_idempotency_key",
            ),
            (
                post(&on).header("idempotency-key", "a b"),
                400,
                "bad_idempotency_key",
            ),
            (
                post(&on).header("idempotency-key", &"k".repeat(256)),
                400,
                "bad_idempotency_key",
            ),
            (
                post(&on)
                    .header("idempotency-key", "a")
                    .header("idempotency-key", "b"),
                400,
                "bad_idempotency_key",
            ),
            (get("operations/").body("{}"), 400, "unexpected_body"),
            // Method.
            (Ask::new("PUT", &on).by(&token), 405, "method_not_allowed"),
            (Ask::new("GET", &on).by(&token), 405, "method_not_allowed"),
            (Ask::new("BREW", &on).by(&token), 405, "method_not_allowed"),
            // Body.
            (post(&create), 400, "bad_body"),
            (raw(b"{"), 400, "bad_body"),
            (raw(b"[]"), 400, "bad_body"),
            (raw(b"[\"before\"]"), 400, "bad_body"),
            (raw(b"null"), 400, "bad_body"),
            (raw(b"\"name\""), 400, "bad_body"),
            (raw(b"{\"name\": \"\xff\"}"), 400, "bad_body"),
            (raw(b"{\"name\": \"a\"} {}"), 400, "bad_body"),
            (raw(b"{\"name\": \"a\"}]"), 400, "bad_body"),
            (raw(b"{\"name\": \"a\", \"name\": \"b\"}"), 400, "bad_body"),
            (raw(b"{\"name\": 7}"), 400, "bad_body"),
            (raw(b"{\"name\": null}"), 400, "bad_body"),
            (raw(b"{\"name\": \"a\", \"memory\": \"yes\"}"), 400, "bad_body"),
            (raw(b"{\"name\": \"a\", \"memory\": 1}"), 400, "bad_body"),
            (raw(b"{\"name\": \"a\", \"colour\": \"red\"}"), 400, "bad_body"),
            (raw(b"{\"name\": \"\\ud800\"}"), 400, "bad_body"),
            (raw(deep.as_bytes()), 400, "bad_body"),
            (raw(b"\xef\xbb\xbf{\"name\": \"a\"}"), 400, "bad_body"),
            (named(String::new()), 422, "bad_value"),
            (named("x".repeat(81)), 422, "bad_value"),
            (named("a\nb".to_owned()), 422, "bad_value"),
            (named("a\u{0}b".to_owned()), 422, "bad_value"),
            (named("a\u{ffff}b".to_owned()), 422, "bad_value"),
            (
                post(&create).json(&json!({ "name": "a", "description": "x".repeat(1025) })),
                422,
                "bad_value",
            ),
            (post(&create).body("name=before"), 415, "not_json"),
            (
                post(&create).header("content-type", "text/json").body("{}"),
                415,
                "not_json",
            ),
            (
                post(&create)
                    .header("content-type", "application/json; charset=latin1")
                    .body("{}"),
                415,
                "not_json",
            ),
            (raw(b"{}").header("content-encoding", "gzip"), 415, "not_json"),
            (raw(&vec![b' '; 64 * 1024 + 1]), 413, "body_too_long"),
        ],
    )
    .await;
    assert_eq!(api.count("SELECT count(*) FROM virt_operation").await, 0);
    assert_eq!(
        api.count("SELECT count(*) FROM virt_audit_log WHERE entry <> 'denied'")
            .await,
        0
    );

    // And what only looks unusual is taken.
    for (ask, status) in [
        (
            get("operations/").header("accept", "text/html, application/*;q=0.5"),
            200,
        ),
        (get("operations/?"), 200),
        (get("operations/?limit=1&platform=1&vm=2&state=queued"), 200),
        (
            get("audit/?since=2026-01-01T00:00:00%2B01:00&until=2099-01-01T00:00:00Z&entry=denied"),
            200,
        ),
        (post(&on).header("content-type", "text/plain").body(""), 202),
        (
            post(&format!("vms/{}/snapshots/", api.vm().await))
                .header("content-type", "Application/JSON; Charset=\"UTF-8\"")
                .body("\n {\"name\": \"\u{e4}\u{1f600}\", \"description\": \"a\\nb\", \"quiesce\": true}\n"),
            202,
        ),
    ] {
        let answer = api.ask(ask.clone()).await;
        assert_eq!(answer.status, status, "{ask:?}: {answer:?}");
    }
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_keeps_the_name_that_its_sender_gives_it_where_that_is_plain() {
    let api = Api::new().await;
    let token = api.token("operator", "operator", None).await;
    for (given, is_kept) in [
        ("backup-2026.11:26_a", true),
        (&"x".repeat(64), true),
        (&"x".repeat(65), false),
        ("", false),
        ("a b", false),
        ("a\"b", false),
        ("<script>", false),
    ] {
        let ask = Ask::get("operations/").by(&token).header("x-request-id", given);
        let answer = api.ask(ask).await;
        assert_eq!(answer.header("x-request-id") == given, is_kept, "{given:?}");
        if !is_kept {
            let made = uuid::Uuid::parse_str(answer.header("x-request-id")).unwrap();
            assert_eq!(made.get_version_num(), 7);
        }
    }
    let path = format!("vms/{}/power-on/", api.vm().await);
    let answer = api
        .ask(Ask::post(&path).by(&token).header("x-request-id", "change-17"))
        .await;
    assert_eq!(
        (answer.status, &answer.value()["request_id"]),
        (202, &json!("change-17"))
    );
    let row = api
        .sql
        .query_one(
            "SELECT entry, actor, action FROM virt_audit_log WHERE request_id = 'change-17'",
            &[],
        )
        .await
        .unwrap();
    let row: [String; 3] = [row.get(0), row.get(1), row.get(2)];
    assert_eq!(row, ["intent", "operator", "power_on"]);
    api.stop().await;
}
