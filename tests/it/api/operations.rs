//! Actions as they are asked for, confirmed, repeated, waited for, and looked at.

use serde_json::json;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_action_is_answered_with_its_operation_which_can_be_followed() {
    let api = Api::new().await;
    let token = api.token("operator", "operator", Some(&["east"])).await;
    let vm = api.vm().await;
    let name = api.name_of(vm).await;
    let accepted = api.ask(Ask::post(&format!("vms/{vm}/power-on")).by(&token)).await;
    assert_eq!(accepted.status, 202, "{accepted:?}");
    let operation = accepted.value();
    let id = operation["id"].as_str().unwrap();
    assert_eq!(accepted.header("location"), format!("{BASE}/operations/{id}/"));
    assert_eq!(accepted.header("retry-after"), "2");
    assert_eq!(accepted.header("preference-applied"), "");
    for (key, value) in [
        ("vm_id", json!(vm)),
        ("vm_name", json!(name)),
        ("platform", json!("east")),
        ("action", json!("power_on")),
        ("arguments", json!({})),
        ("state", json!("queued")),
        ("requested_by", json!("operator")),
        ("progress", Value::Null),
        ("ended_at", Value::Null),
    ] {
        assert_eq!(operation[key], value, "{key} of {operation}");
    }
    let shown = api.ask(Ask::get(accepted.header("location")).by(&token)).await;
    assert_eq!((shown.status, shown.value()), (200, operation.clone()));

    // One at a time on a VM, whatever it is.
    let busy = api.ask(Ask::post(&format!("vms/{vm}/suspend/")).by(&token)).await;
    assert_eq!((busy.status, busy.code().as_str()), (409, "vm_busy"));
    assert!(busy.value()["detail"].as_str().unwrap().contains(id), "{busy:?}");

    // Whoever waits is answered when it ends.
    let waiting = {
        let ask = Ask::get(&format!("operations/{id}/"))
            .by(&token)
            .header("prefer", "wait=30");
        let stream = TcpStream::connect(api.address()).await.unwrap();
        tokio::task::spawn(async move { exchange(stream, &ask.bytes()).await })
    };
    let end =
        "UPDATE virt_operation SET state = 'succeeded', started_at = now(), ended_at = now(), progress = 100,
               result = '{\"already\": true}' WHERE operation_id = $1::text::uuid";
    api.sql.execute(end, &[&id]).await.unwrap();
    api.sql
        .execute("SELECT pg_notify('virt_operation_ended', $1)", &[&id])
        .await
        .unwrap();
    let ended = waiting.await.unwrap();
    ended.check();
    assert_eq!(
        (ended.status, ended.header("preference-applied")),
        (200, "wait=30")
    );
    assert_eq!(ended.value()["state"], "succeeded");
    assert_eq!(ended.value()["result"], json!({ "already": true }));

    // Whoever waits in vain gets what there is.
    let next = api
        .ask(
            Ask::post(&format!("vms/{vm}/suspend/"))
                .by(&token)
                .header("prefer", "wait=1"),
        )
        .await;
    assert_eq!((next.status, next.header("preference-applied")), (202, "wait=1"));
    assert_eq!(next.value()["state"], "queued");
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_while_the_service_is_told_to_stop_is_answered_with_how_far_it_is() {
    let api = Api::new().await;
    let token = api.token("operator", "operator", None).await;
    let waiter = api.token("waiter", "viewer", None).await;
    let vm = api.vm().await;
    let accepted = api.ask(Ask::post(&format!("vms/{vm}/suspend/")).by(&token)).await;
    let ask = Ask::get(accepted.header("location"))
        .by(&waiter)
        .header("prefer", "wait=30");
    let stream = TcpStream::connect(api.address()).await.unwrap();
    let waiting = tokio::task::spawn(async move { exchange(stream, &ask.bytes()).await });
    crate::wait::until("the waiter to be let in", async || {
        let used = "SELECT count(*) FROM virt_api_token WHERE name = 'waiter' AND last_used_at IS NOT NULL";
        match api.count(used).await {
            0 => Err("not yet".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
    api.stop().await;
    let told = waiting.await.unwrap();
    told.check();
    assert_eq!((told.status, &told.value()["state"]), (200, &json!("queued")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_destroys_is_confirmed_by_the_exact_name_of_the_vm() {
    let api = Api::new().await;
    let token = api.token("admin", "admin", None).await;
    let vm = api.vm().await;
    let name = api.name_of(vm).await;
    for (method, path) in [
        ("POST", format!("vms/{vm}/power-off/")),
        ("POST", format!("vms/{vm}/reset/")),
        ("POST", format!("vms/{vm}/snapshots/snapshot-1/revert/")),
        ("DELETE", format!("vms/{vm}/snapshots/snapshot-1/")),
        ("DELETE", format!("vms/{vm}/snapshots/")),
    ] {
        let ask = || Ask::new(method, &path).by(&token);
        for body in [
            json!({}),
            json!({ "confirm": null }),
            json!({ "confirm": "" }),
            json!({ "confirm": name.to_uppercase() }),
            json!({ "confirm": format!("{name} ") }),
        ] {
            let refused = api.ask(ask().json(&body)).await;
            let said = (refused.status, refused.code());
            assert_eq!(said, (422, "not_confirmed".to_owned()), "{method} {path} {body}");
        }
        let wrong = format!("{path}?confirm=west-1");
        if method == "DELETE" {
            assert_eq!(api.ask(Ask::new(method, &wrong).by(&token)).await.status, 422);
            let both = api
                .ask(
                    Ask::new(method, &wrong)
                        .by(&token)
                        .json(&json!({ "confirm": name })),
                )
                .await;
            assert_eq!((both.status, both.code().as_str()), (422, "contradiction"));
        } else {
            assert_eq!(api.ask(Ask::new(method, &wrong).by(&token)).await.status, 400);
        }
    }
    assert_eq!(api.count("SELECT count(*) FROM virt_operation").await, 0);
    let path = format!("vms/{vm}/snapshots/snapshot-1/?children=true&confirm={name}");
    let accepted = api.ask(Ask::new("DELETE", &path).by(&token)).await;
    assert_eq!(accepted.status, 202, "{accepted:?}");
    assert_eq!(
        accepted.value()["arguments"],
        json!({ "snapshot": "snapshot-1", "children": true })
    );
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_sent_again_under_its_key_is_the_same_request() {
    let api = Api::new().await;
    let token = api.token("operator", "operator", None).await;
    let other = api.token("other", "operator", None).await;
    let (vm, next) = (api.vm().await, api.vm().await);
    let ask = |vm: i32, token: &str| {
        Ask::post(&format!("vms/{vm}/snapshots/"))
            .by(token)
            .header("idempotency-key", "night-17")
            .json(&json!({ "name": "night" }))
    };
    let first = api.ask(ask(vm, &token)).await;
    assert_eq!(first.status, 202, "{first:?}");
    let again = api.ask(ask(vm, &token)).await;
    assert_eq!(
        (again.status, again.value()["id"].clone()),
        (202, first.value()["id"].clone())
    );
    assert_eq!(again.header("location"), first.header("location"));
    for different in [
        ask(next, &token),
        ask(vm, &token).json(&json!({ "name": "day" })),
        Ask::post(&format!("vms/{vm}/power-on/"))
            .by(&token)
            .header("idempotency-key", "night-17"),
    ] {
        let refused = api.ask(different).await;
        let said = (refused.status, refused.code());
        assert_eq!(said, (422, "idempotency_key_reused".to_owned()), "{refused:?}");
    }
    // Another token's key is another key.
    let theirs = api.ask(ask(next, &other)).await;
    assert_eq!(theirs.status, 202);
    assert_ne!(theirs.value()["id"], first.value()["id"]);
    assert_eq!(api.count("SELECT count(*) FROM virt_operation").await, 2);
    assert_eq!(
        api.count("SELECT count(*) FROM virt_audit_log WHERE entry = 'intent'")
            .await,
        2
    );

    // Ten at once are one.
    let vm = api.vm().await;
    let at_once = (0..10).map(|_| {
        api.ask(
            Ask::post(&format!("vms/{vm}/power-on/"))
                .by(&token)
                .header("idempotency-key", "once"),
        )
    });
    let answers = futures_util::future::join_all(at_once).await;
    for answer in &answers {
        let same = (answer.status, &answer.value()["id"]) == (202, &answers[0].value()["id"]);
        assert!(same, "{answer:?}");
    }
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_platform_that_is_paused_gone_or_busy_takes_no_action() {
    let api = Api::with("", |config| {
        if let Some(api) = &mut config.api {
            api.limits.open_operations = 2;
        }
    })
    .await;
    let token = api.token("operator", "operator", None).await;
    let on = |vm: i32| Ask::post(&format!("vms/{vm}/power-on/")).by(&token);
    for _ in 0..2 {
        assert_eq!(api.ask(on(api.vm().await)).await.status, 202);
    }
    let full = api.ask(on(api.vm().await)).await;
    assert_eq!((full.status, full.code().as_str()), (429, "platform_busy"));
    assert_eq!(
        api.ask(on(api.vm_named("west-1").await)).await.status,
        202,
        "another platform"
    );

    let set = async |what: &str| {
        let sql = format!("UPDATE virt_platform SET {what} WHERE name = 'west'");
        api.sql.execute(&sql, &[]).await.unwrap();
    };
    let vm = api.vm_named("west-2").await;
    for (change, undo) in [
        ("in_maintenance = true", "in_maintenance = false"),
        ("is_active = false", "is_active = true"),
    ] {
        set(change).await;
        let paused = api.ask(on(vm)).await;
        assert_eq!(
            (paused.status, paused.code().as_str()),
            (409, "platform_paused"),
            "{change}"
        );
        set(undo).await;
    }
    let gone = "UPDATE virt_vm SET removed_at = now() WHERE vm_id = $1";
    api.sql.execute(gone, &[&vm]).await.unwrap();
    assert_eq!(api.ask(on(vm)).await.status, 404);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_come_in_pages_and_show_what_is_in_scope_alone() {
    let api = Api::new().await;
    let admin = api.token("admin", "admin", None).await;
    let west = api.token("west", "admin", Some(&["west"])).await;
    for _ in 0..5 {
        let path = format!("vms/{}/power-on/", api.vm().await);
        assert_eq!(api.ask(Ask::post(&path).by(&admin)).await.status, 202);
    }
    let path = format!("vms/{}/power-on/", api.vm_named("west-1").await);
    assert_eq!(api.ask(Ask::post(&path).by(&west)).await.status, 202);
    assert_eq!(
        api.ask(Ask::get("operations/").from("10.9.9.9")).await.status,
        401
    );

    for list in ["operations/", "audit/?entry=intent"] {
        let pages = async |token: &str| {
            let (mut ids, mut cursor) = (Vec::new(), None::<String>);
            loop {
                let and = if list.contains('?') { '&' } else { '?' };
                let cursor_part = cursor
                    .map(|cursor| format!("&cursor={cursor}"))
                    .unwrap_or_default();
                let page = api
                    .ask(Ask::get(&format!("{list}{and}limit=2{cursor_part}")).by(token))
                    .await
                    .value();
                let items = page["items"].as_array().unwrap();
                assert!(items.len() <= 2);
                ids.extend(items.iter().map(|item| item["id"].to_string()));
                match page["next_cursor"].as_str() {
                    Some(next) => cursor = Some(next.to_owned()),
                    None => return ids,
                }
            }
        };
        let all = pages(&admin).await;
        let distinct: std::collections::BTreeSet<&String> = all.iter().collect();
        assert_eq!((all.len(), distinct.len()), (6, 6), "{list}");
        let theirs = pages(&west).await;
        assert_eq!(theirs.len(), 1, "{list}");
        assert_eq!(theirs[0], all[0], "newest first");
    }
    // What has no platform is not for a token that is limited to some.
    let denied = api.ask(Ask::get("audit/?entry=denied").by(&west)).await.value();
    assert_eq!(denied["items"], json!([]));
    let denied = api
        .ask(Ask::get("audit/?entry=denied&actor=").by(&admin))
        .await
        .value();
    let entry = &denied["items"][0];
    assert_eq!(
        (&entry["client"], &entry["code"], &entry["outcome"]),
        (&json!("10.9.9.9"), &json!("missing"), &json!("denied"))
    );
    let filtered = api
        .ask(Ask::get("operations/?state=queued&limit=500").by(&west))
        .await
        .value();
    assert_eq!(filtered["items"].as_array().unwrap().len(), 1);
    for (path, n) in [
        ("audit/?action=power_on&actor=west", 1),
        ("audit/?platform=east", 5),
        ("audit/?since=2099-01-01T00:00:00Z", 0),
        ("operations/?state=failed", 0),
    ] {
        let found = api.ask(Ask::get(path).by(&admin)).await.value();
        assert_eq!(found["items"].as_array().unwrap().len(), n, "{path}");
    }
    let tree = format!("vms/{}/snapshots/", api.vm_named("east-1").await);
    let tree = api.ask(Ask::get(&tree).by(&admin)).await.value();
    assert_eq!(tree["items"][0]["moref"], "snapshot-1");
    assert_eq!(tree["items"][0]["children"][0]["moref"], "snapshot-2");
    api.stop().await;
}
