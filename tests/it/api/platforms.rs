//! Changes of platforms through the API.

use serde_json::json;
use vsphere_simulator::Simulator;

use super::*;
use crate::rig::small;

struct Desk {
    api: Api,
    simulator: Simulator,
    admin: String,
}

impl Desk {
    async fn new() -> Self {
        let api = Api::new().await;
        Self {
            admin: api.token("admin", "admin", None).await,
            simulator: Simulator::start(small()).await.unwrap(),
            api,
        }
    }

    async fn send(&self, method: &str, path: &str, body: Value) -> Answer {
        self.api
            .ask(Ask::new(method, path).by(&self.admin).json(&body))
            .await
    }

    /// A platform that nobody collects, so that nothing but these requests speaks to it.
    fn body(&self) -> Value {
        let (user, password) = self.simulator.credentials();
        json!({ "name": "lab", "host": "127.0.0.1", "port": self.simulator.addr().port(), "user": user,
                "password": password, "ca_pem": self.simulator.ca_pem(), "active": false })
    }

    async fn added(&self) -> i64 {
        let answer = self.send("POST", "platforms/", self.body()).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.value()["platform"]["id"].as_i64().unwrap()
    }

    async fn stop(self) {
        self.api.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_platform_is_tried_kept_changed_and_removed_and_its_password_shows_nowhere() {
    let desk = Desk::new().await;
    let (_, password) = desk.simulator.credentials();
    let id = desk.added().await;
    let platform = format!("platforms/{id}/");

    let mut wrong = desk.body();
    wrong["name"] = json!("other");
    wrong["password"] = json!("not geheim");
    let refused = desk.send("POST", "platforms/", wrong).await;
    assert_eq!((refused.status, refused.code().as_str()), (422, "trial_failed"));
    assert!(
        refused.value()["detail"].as_str().unwrap().contains("[auth]"),
        "{refused:?}"
    );
    let again = desk.send("POST", "platforms/", desk.body()).await;
    assert_eq!((again.status, again.code().as_str()), (409, "name_taken"));

    let tested = desk
        .send("POST", &format!("{platform}test/"), json!({}))
        .await
        .value();
    assert_eq!(
        (&tested["ok"], &tested["trial"]["vms"]),
        (&json!(true), &json!(13)),
        "{tested}"
    );
    let bad = desk
        .send(
            "PUT",
            &format!("{platform}credentials/"),
            json!({ "password": "wrong" }),
        )
        .await;
    assert_eq!((bad.status, bad.code().as_str()), (422, "trial_failed"));
    let good = desk
        .send(
            "PUT",
            &format!("{platform}credentials/"),
            json!({ "password": password }),
        )
        .await;
    assert_eq!(good.status, 200, "{good:?}");
    let changed = desk
        .send("PATCH", &platform, json!({ "exclude": ["**/web-1"] }))
        .await
        .value();
    assert_eq!(changed["platform"]["exclude"], json!(["**/web-1"]));
    let stale = desk
        .send(
            "PATCH",
            &platform,
            json!({ "port": 1, "untested": true, "revision": 1 }),
        )
        .await;
    assert_eq!((stale.status, stale.code().as_str()), (409, "changed_meanwhile"));
    // The stored password is sent to where it was sent before, and nowhere else.
    for elsewhere in [
        json!({ "host": "localhost", "untested": true }),
        json!({ "port": 1, "untested": true }),
        json!({ "tls_verify": false }),
    ] {
        let answer = desk.send("PATCH", &platform, elsewhere.clone()).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (422, "password_needed"),
            "{elsewhere}"
        );
    }
    let (port, ca) = (desk.simulator.addr().port(), desk.simulator.ca_pem());
    let anew = json!({ "host": "localhost", "port": port, "ca_pem": ca, "password": password });
    let moved = desk.send("PATCH", &platform, anew).await;
    assert_eq!(moved.status, 200, "{moved:?}");
    let nothing = desk.send("PATCH", &platform, json!({})).await;
    assert_eq!(
        (nothing.status, nothing.code().as_str()),
        (422, "nothing_to_change")
    );
    let paused = desk
        .send(
            "POST",
            &format!("{platform}maintenance/"),
            json!({ "enabled": true }),
        )
        .await
        .value();
    assert_eq!(
        (&paused["maintenance"], &paused["status"]),
        (&json!(true), &json!("maintenance"))
    );
    let unconfirmed = desk.send("DELETE", &platform, json!({})).await;
    assert_eq!(
        (unconfirmed.status, unconfirmed.code().as_str()),
        (422, "not_confirmed")
    );
    let removed = desk
        .api
        .ask(Ask::new("DELETE", &format!("{platform}?confirm=lab")).by(&desk.admin))
        .await;
    assert_eq!(removed.status, 204, "{removed:?}");
    assert_eq!(
        desk.send("POST", &format!("{platform}sync/"), json!({}))
            .await
            .status,
        404
    );

    // What was asked and what came of it, without a secret.
    let rows = desk
        .api
        .sql
        .query(
            "SELECT concat_ws(' ', action, entry, outcome, code), concat(before, after, detail) FROM virt_audit_log \
             WHERE platform = 'lab' ORDER BY audit_id",
            &[],
        )
        .await
        .unwrap();
    let entries: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(
        entries,
        [
            "add_platform intent",
            "add_platform outcome ok",
            "add_platform intent",
            "add_platform outcome error name_taken",
            "test_platform intent",
            "test_platform outcome ok",
            "set_credentials intent",
            "set_credentials outcome error trial_failed",
            "set_credentials intent",
            "set_credentials outcome ok",
            "change_platform intent",
            "change_platform outcome ok",
            "change_platform intent",
            "change_platform outcome ok",
            "pause_platform intent",
            "pause_platform outcome ok",
            "remove_platform intent",
            "remove_platform outcome ok",
        ]
    );
    for row in &rows {
        let text: String = row.get(1);
        assert!(!text.contains("geheim"), "{text}");
    }
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn platforms_of_the_configuration_are_read_only_but_for_maintenance() {
    let desk = Desk::new().await;
    let east: i32 = desk
        .api
        .sql
        .query_one("SELECT platform_id FROM virt_platform WHERE name = 'east'", &[])
        .await
        .unwrap()
        .get(0);
    let platform = format!("platforms/{east}/");
    for (method, path, body) in [
        ("PATCH", platform.clone(), json!({ "port": 444 })),
        ("PATCH", platform.clone(), json!({ "active": false })),
        (
            "PUT",
            format!("{platform}credentials/"),
            json!({ "password": "x" }),
        ),
    ] {
        let answer = desk.send(method, &path, body.clone()).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (409, "provisioned"),
            "{body}: {answer:?}"
        );
        let detail = answer.value()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("config.toml"), "{detail}");
    }
    let paused = desk
        .send(
            "POST",
            &format!("{platform}maintenance/"),
            json!({ "enabled": true }),
        )
        .await;
    assert_eq!(paused.status, 200, "{paused:?}");
    let elsewhere = desk.send("POST", &format!("{platform}test/"), json!({})).await;
    assert_eq!((elsewhere.status, elsewhere.code().as_str()), (409, "not_here"));
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_a_platform_is_refused_before_anything_is_done() {
    let desk = Desk::new().await;
    let with = |key: &str, value: Value| {
        let mut body = desk.body();
        body[key] = value;
        body
    };
    for (key, value, status, code) in [
        ("name", json!("a b"), 400, "bad_body"),
        ("name", json!(""), 400, "bad_body"),
        ("name", json!(7), 400, "bad_body"),
        ("host", json!("https://vc"), 400, "bad_body"),
        ("host", json!("a\u{0}b"), 400, "bad_body"),
        ("host", json!("h".repeat(256)), 400, "bad_body"),
        ("user", json!(""), 400, "bad_body"),
        ("password", json!(""), 400, "bad_body"),
        ("password", json!("two\nlines"), 400, "bad_body"),
        ("port", json!(0), 400, "bad_body"),
        ("port", json!(65536), 400, "bad_body"),
        ("port", json!(443.5), 400, "bad_body"),
        ("port", json!(null), 400, "bad_body"),
        ("type", json!("hyperv"), 400, "bad_body"),
        ("include", json!(["no slash"]), 400, "bad_body"),
        ("datacenters", json!([" "]), 400, "bad_body"),
        ("ca_pem", json!("no certificate"), 422, "bad_trust"),
        ("thumbprint", json!("5f".repeat(32)), 422, "trust_ambiguous"),
        ("colour", json!("blue"), 400, "bad_body"),
    ] {
        let answer = desk.send("POST", "platforms/", with(key, value.clone())).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (status, code),
            "{key} {value}: {answer:?}"
        );
    }
    let limited = desk.api.token("limited", "admin", Some(&["east"])).await;
    let answer = desk
        .api
        .ask(Ask::post("platforms/").by(&limited).json(&desk.body()))
        .await;
    assert_eq!((answer.status, answer.code().as_str()), (403, "forbidden"));
    let denied = "SELECT count(*) FROM virt_audit_log WHERE (entry, actor, action, code, target) = \
                  ('denied', 'limited', 'add_platform', 'forbidden', 'lab')";
    assert_eq!(desk.api.count(denied).await, 1, "an attempt is written down");
    assert_eq!(desk.api.count("SELECT count(*) FROM virt_platform").await, 2);
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_collects_the_same_server_is_told_to_those_alone_who_may_see_it() {
    let desk = Desk::new().await;
    let id = desk.added().await;
    desk.api
        .sql
        .execute(
            "UPDATE virt_platform SET identity = $1 WHERE name IN ('east', 'west')",
            &[&desk.simulator.truth().identity],
        )
        .await
        .unwrap();
    let credentials = json!({ "password": desk.simulator.credentials().1 });
    let mut seen = Vec::new();
    for (name, scope) in [
        ("all", None),
        ("two", Some(&["lab", "east"][..])),
        ("one", Some(&["lab"])),
    ] {
        let token = desk.api.token(name, "admin", scope).await;
        let path = format!("platforms/{id}/credentials/");
        let answer = desk
            .api
            .ask(Ask::new("PUT", &path).by(&token).json(&credentials))
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
        seen.push(answer.value()["also_collected_by"].clone());
    }
    assert_eq!(seen, [json!(["east", "west"]), json!(["east"]), json!([])]);
    desk.stop().await;
}
