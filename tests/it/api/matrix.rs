//! Every route x every role x in and out of scope x every kind of token, from the table that the daemon itself uses.

use serde_json::json;
use virt_collector::api::rights::{ROUTES, Right, Role, Route};

use super::*;

/// What is asked of a route, so that somebody with every right gets what he asks for.
struct Example {
    path: String,
    body: Option<Value>,
    status: u16,
    /// What somebody gets who has the right, but not for this platform.
    elsewhere: u16,
}

/// Each route with one request. Another route is to be added here.
async fn example(api: &Api, route: &Route) -> Example {
    let needs_its_own = route.path.contains("/vms/{id}/") || route.path.contains("/operations/{id}/");
    let vm = if needs_its_own {
        api.vm().await
    } else {
        api.vm_named("east-1").await
    };
    let name = api.name_of(vm).await;
    if route.path.starts_with("/api/virt-center/platforms/") {
        return of_platform(api, route).await;
    }
    let one = |table: &str| {
        let key = table.strip_prefix("virt_").unwrap().to_owned();
        format!(
            "SELECT min(o.{key}_id) FROM {table} o JOIN virt_platform p USING (platform_id) WHERE p.name = 'east'"
        )
    };
    let list_or_one = |path: String, status| Example {
        elsewhere: if route.path.contains("{id}") { 404 } else { 200 },
        path,
        body: None,
        status,
    };
    for (action, table) in [
        ("read_hosts", "virt_host"),
        ("read_datastores", "virt_datastore"),
        ("read_clusters", "virt_cluster"),
        ("read_vms", "virt_vm"),
    ] {
        if route.action == action {
            let id: i32 = api.sql.query_one(&one(table), &[]).await.unwrap().get(0);
            return list_or_one(route.path.replace("{id}", &id.to_string()), 200);
        }
    }
    let path = route
        .path
        .replace("/vms/{id}/", &format!("/vms/{vm}/"))
        .replace("{moref}", "snapshot-1");
    let (body, status, elsewhere) = match (route.method.as_str(), route.action) {
        (_, "read_health" | "read_document") | ("GET", "read_audit") => (None, 200, 200),
        ("GET", "read_snapshots") => (None, 200, 404),
        ("GET", "read_operations") if route.path.contains("{id}") => {
            let operation = queued(api, vm).await;
            let path = path.replace("{id}", &operation);
            return Example {
                path,
                body: None,
                status: 200,
                elsewhere: 404,
            };
        }
        ("GET", "read_operations") => (None, 200, 200),
        ("POST", "power_on" | "suspend" | "shutdown_guest" | "reboot_guest") => (None, 202, 404),
        ("POST", "create_snapshot") => (Some(json!({ "name": "before" })), 202, 404),
        ("POST", "power_off" | "reset" | "revert_snapshot")
        | ("DELETE", "remove_snapshot" | "remove_all_snapshots") => {
            (Some(json!({ "confirm": name })), 202, 404)
        }
        _ => panic!("{} {} has no example", route.method, route.path),
    };
    Example {
        path,
        body,
        status,
        elsewhere,
    }
}

/// Platform `north`, which nobody collects, is there before each request but the one that adds it.
async fn of_platform(api: &Api, route: &Route) -> Example {
    api.sql
        .batch_execute(
            "INSERT INTO virt_platform (name, type, host, port, user_name, source, is_active) \
             VALUES ('north', 'vcenter', '127.0.0.1', 1, 'u', 'registry', false) \
             ON CONFLICT (name) DO UPDATE SET removed_at = NULL, in_maintenance = false",
        )
        .await
        .unwrap();
    let id: i32 = api
        .sql
        .query_one("SELECT platform_id FROM virt_platform WHERE name = 'north'", &[])
        .await
        .unwrap()
        .get(0);
    let untested = json!({ "user": "other", "untested": true });
    let (body, status, elsewhere) = match route.action {
        "read_platforms" if !route.path.contains("{id}") => (None, 200, 200),
        "read_platforms" => (None, 200, 404),
        "add_platform" => {
            api.sql
                .execute(
                    "UPDATE virt_platform SET removed_at = now() WHERE name = 'north'",
                    &[],
                )
                .await
                .unwrap();
            let body = json!({ "name": "north", "host": "127.0.0.1", "port": 1, "user": "u", "password": "geheim",
                               "untested": true, "active": false });
            (Some(body), 201, 403)
        }
        "change_platform" => (Some(untested), 200, 404),
        "remove_platform" => (Some(json!({ "confirm": "north" })), 204, 404),
        "pause_platform" => (Some(json!({ "enabled": true })), 200, 404),
        "set_credentials" => (Some(json!({ "password": "geheim", "untested": true })), 200, 404),
        "test_platform" => (None, 200, 404),
        "sync_platform" => (None, 202, 404),
        other => panic!("{other} has no example"),
    };
    Example {
        path: route.path.replace("{id}", &id.to_string()),
        body,
        status,
        elsewhere,
    }
}

/// An operation on a VM, in the queue.
async fn queued(api: &Api, vm: i32) -> String {
    let id = uuid::Uuid::now_v7().to_string();
    api.sql
        .execute(
            "INSERT INTO virt_operation (operation_id, platform_id, vm_id, action, requested_by, request_id)
             SELECT $1::text::uuid, platform_id, vm_id, 'power_on', 'test', 'test' FROM virt_vm WHERE vm_id = $2",
            &[&id, &vm],
        )
        .await
        .unwrap();
    id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_lets_in_those_who_may_and_nobody_else() {
    let api = Api::new().await;
    let mut tokens = Vec::new();
    for role in Role::ALL {
        let word = role.as_str();
        for (scope, platforms, is_in) in [
            ("everywhere", None, true),
            ("here", Some(&["east", "north"][..]), true),
            ("elsewhere", Some(&["west"][..]), false),
        ] {
            let token = api.token(&format!("{word}-{scope}"), word, platforms).await;
            tokens.push((role, is_in, token));
        }
    }
    let revoked = api.token("revoked", "admin", None).await;
    assert!(api.store.revoke_token("revoked").await.unwrap());
    let expired = ended(&api).await;
    let good = api.token("good", "admin", None).await;
    let (head, last) = good.split_at(good.len() - 1);
    let altered = format!("{head}{}", if last == "A" { "E" } else { "A" });
    let strangers = [
        ("revoked", revoked),
        ("expired", expired),
        ("altered", altered),
        ("of another row", good.replacen("vc_", "vc_9", 1)),
        ("nonsense", "vc_1_nonsense".to_owned()),
    ];

    let mut asked = 0;
    for route in ROUTES {
        let what = format!("{} {}", route.method, route.path);
        let method = route.method.as_str();
        let ask = |example: &Example| {
            let ask = Ask::new(method, &example.path);
            match &example.body {
                Some(body) => ask.json(body),
                None => ask,
            }
        };
        for (role, is_in, token) in &tokens {
            let example = example(&api, route).await;
            let expected = if !role.has(route.right) {
                403
            } else if *is_in {
                example.status
            } else {
                example.elsewhere
            };
            let answer = api.ask(ask(&example).by(token)).await;
            assert_eq!(
                answer.status, expected,
                "{what} by {role}, in scope: {is_in}: {answer:?}"
            );
            asked += 1;
        }
        let example = example(&api, route).await;
        let expected = if route.right == Right::Open {
            example.status
        } else {
            401
        };
        let answer = api.ask(ask(&example)).await;
        assert_eq!(answer.status, expected, "{what} without a token: {answer:?}");
        for (kind, token) in &strangers {
            let answer = api.ask(ask(&example).by(token)).await;
            assert_eq!(
                answer.status, expected,
                "{what} with a token that is {kind}: {answer:?}"
            );
            asked += 1;
        }
    }
    println!("{asked} requests to {} routes", ROUTES.len());
    // Whoever was let in to act left an intent, and nobody else did.
    let acted = ROUTES
        .iter()
        .filter(|route| route.right.is_action())
        .map(|route| 2 * Role::ALL.iter().filter(|role| role.has(route.right)).count());
    let expected = i64::try_from(acted.sum::<usize>()).unwrap();
    let intents = api
        .count("SELECT count(*) FROM virt_audit_log WHERE entry = 'intent' AND operation_id IS NOT NULL")
        .await;
    // Of changes of platforms as well; and each of these has its outcome.
    let changed = ROUTES
        .iter()
        .filter(|route| matches!(route.right, Right::Refresh | Right::Manage))
        .map(|route| 2 * Role::ALL.iter().filter(|role| role.has(route.right)).count());
    let changed = i64::try_from(changed.sum::<usize>()).unwrap();
    for entry in ["intent", "outcome"] {
        let sql =
            format!("SELECT count(*) FROM virt_audit_log WHERE entry = '{entry}' AND operation_id IS NULL");
        assert_eq!(api.count(&sql).await, changed, "{entry}");
    }
    let operations = api
        .count("SELECT count(*) FROM virt_operation WHERE requested_by <> 'test'")
        .await;
    assert_eq!((intents, operations), (expected, expected));
    api.stop().await;
}

/// A token that was good until long ago.
async fn ended(api: &Api) -> String {
    let long_ago = Stamp::from_micros(1_700_000_000_000_000);
    token_until(&api.store, &api.ring(), "ended", "admin", None, Some(long_ago)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_is_the_same_with_and_without_its_slash_and_what_is_outside_the_table_is_not_there() {
    let api = Api::new().await;
    let admin = api.token("admin", "admin", None).await;
    for route in ROUTES.iter().filter(|route| route.path.starts_with(BASE)) {
        let example = example(&api, route).await;
        let bare = example.path.strip_suffix('/').unwrap();
        // Without what it needs, a wrong method is told in both forms.
        let answer = api.ask(Ask::new("PROPFIND", bare).by(&admin)).await;
        assert_eq!(answer.status, 405, "{bare}");
        assert!(
            answer.header("allow").contains(route.method.as_str()),
            "{answer:?}"
        );
        let other = api.ask(Ask::new("PROPFIND", &example.path).by(&admin)).await;
        assert_eq!(
            (other.status, other.header("allow")),
            (405, answer.header("allow"))
        );
        if route.method == "GET" {
            let example = self::example(&api, route).await;
            let bare = example.path.strip_suffix('/').unwrap();
            assert_eq!(api.ask(Ask::get(bare).by(&admin)).await.status, 200, "{bare}");
            let head = api.ask_loosely(Ask::new("HEAD", &example.path).by(&admin)).await;
            assert_eq!((head.status, head.body.len()), (200, 0), "{bare}");
            let unasked = api.ask(Ask::get(&format!("{bare}?bogus=1")).by(&admin)).await;
            assert_eq!(
                (unasked.status, unasked.code().as_str()),
                (400, "bad_query"),
                "{bare}"
            );
        } else {
            let unasked = api
                .ask(
                    Ask::new(route.method.as_str(), &example.path)
                        .by(&admin)
                        .json(&json!({ "bogus": 1 })),
                )
                .await;
            assert_eq!(
                (unasked.status, unasked.code().as_str()),
                (400, "bad_body"),
                "{bare}"
            );
        }
    }
    for path in [
        "/",
        "/api",
        "/api/",
        "/api/virt-center",
        "/api/virt-center/",
        "/metrics",
        "/admin",
        "/robots.txt",
        "/api/virt-center//operations/",
        "/api/virt-center/operations//",
        "/api/virt-center/operations/%2e%2e/audit/",
        "/api/virt-center/../virt-center/audit/",
        "/api/virt-center/./audit/",
        "/api/virt-center/AUDIT/",
        "/api/virt-center/audit%2f",
        "/livez/",
        "/livez/../api/virt-center/audit/",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "/api/virt-center/vms/1/power-on/now/",
        "/api/virt-center/vms/1/snapshots/a/b/revert/",
        "/api/virt-center/audit;x=1/",
        "/api/virt-center/audit/%00",
    ] {
        for method in ["GET", "POST", "DELETE", "OPTIONS", "TRACE"] {
            let answer = api.ask(Ask::new(method, path).by(&admin)).await;
            let is_gone = answer.status == 404 || (answer.status == 400 && path.ends_with("operations//"));
            assert!(is_gone || answer.status == 405, "{method} {path}: {answer:?}");
        }
        assert_ne!(api.ask(Ask::get(path).by(&admin)).await.status, 200, "{path}");
    }
    api.stop().await;
}
