//! Platforms, hosts, VMs, datastores and clusters, as they are read.

use serde_json::json;

use super::*;

async fn page(api: &Api, token: &str, path: &str) -> Value {
    let answer = api.ask(Ask::get(path).by(token)).await;
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer.value()
}

fn names(page: &Value) -> Vec<String> {
    let items = page["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| item["name"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_is_walked_page_by_page_within_the_scope_of_the_token() {
    let api = Api::new().await;
    let token = api.token("east", "viewer", Some(&["east"])).await;
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let found = page(&api, &token, &format!("vms/?limit=70{cursor}")).await;
        seen.extend(names(&found));
        match found["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let expected: Vec<String> = (1..=300).map(|n| format!("east-{n}")).collect();
    assert_eq!(seen, expected);
    assert_eq!(names(&page(&api, &token, "platforms/").await), ["east"]);
    assert_eq!(names(&page(&api, &token, "hosts/").await), ["esx of east"]);
    assert_eq!(names(&page(&api, &token, "datastores/").await), ["store of east"]);
    assert_eq!(names(&page(&api, &token, "clusters/").await), ["C of east"]);
    // Whatever is asked for.
    let west: i32 = api
        .sql
        .query_one("SELECT platform_id FROM virt_platform WHERE name = 'west'", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(
        page(&api, &token, &format!("vms/?platform={west}")).await["items"],
        json!([])
    );
    let vm = api.vm_named("west-1").await;
    let hidden = api.ask(Ask::get(&format!("vms/{vm}/")).by(&token)).await;
    let absent = api.ask(Ask::get("vms/2000000000/").by(&token)).await;
    assert_eq!((hidden.status, absent.status), (404, 404));
    assert_eq!(hidden.code(), absent.code());
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_that_make_no_sense_are_refused_and_say_what_would() {
    let api = Api::new().await;
    let token = api.token("viewer", "viewer", None).await;
    for (path, code, word) in [
        ("vms/?limit=0", "bad_query", "1 to 500"),
        ("vms/?limit=501", "bad_query", "1 to 500"),
        ("vms/?limit=many", "bad_query", "limit"),
        ("vms/?cursor=17", "bad_cursor", "next_cursor"),
        ("vms/?cursor=", "bad_cursor", "next_cursor"),
        ("vms/?platform=east", "bad_query", "key of a platform"),
        ("vms/?platform=", "bad_query", "key of a platform"),
        ("vms/?power_state=running", "bad_query", "suspended"),
        ("vms/?host=0", "bad_query", "from 1 up"),
        ("vms/?name=", "bad_query", "1 to 255"),
        ("vms/?name=%0A", "bad_query", "control"),
        ("vms/?name=a&name=b", "bad_query", "duplicate"),
        ("vms/?removed=yes", "bad_query", "removed"),
        (
            "clusters/?power_state=on",
            "bad_query",
            "no parameter power_state",
        ),
        ("hosts/?host=1", "bad_query", "no parameter host"),
        ("vms/0/", "bad_path", "from 1 up"),
        ("vms/-1/", "bad_path", "from 1 up"),
        ("vms/one/", "bad_path", "one"),
        ("vms/99999999999/", "bad_path", "99999999999"),
    ] {
        let answer = api.ask(Ask::get(path).by(&token)).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, code),
            "{path}: {answer:?}"
        );
        let detail = answer.value()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(word), "{path}: {detail}");
    }
    // The cursor of another list is none of this one.
    let hosts = page(&api, &token, "hosts/?limit=1").await;
    let cursor = hosts["next_cursor"].as_str().unwrap();
    let answer = api
        .ask(Ask::get(&format!("vms/?cursor={cursor}")).by(&token))
        .await;
    assert_eq!(answer.code(), "bad_cursor");
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vm_comes_with_its_newest_sample_disks_and_adapters() {
    let api = Api::new().await;
    let token = api.token("viewer", "viewer", None).await;
    let vm = api.vm_named("east-5").await;
    api.sql
        .batch_execute(&format!(
            "INSERT INTO virt_vm_metrics (collected_at, vm_id, interval_seconds, cpu_usage_percent, memory_active_kib) \
             VALUES (now() - interval '30 s', {vm}, 20, 12.5, 5000000000), (now() - interval '50 s', {vm}, 20, 1, 1); \
             INSERT INTO virt_vm_disk (vm_id, disk_key, label, first_seen_at, removed_at) \
             VALUES ({vm}, 2000, 'Hard disk 1', now(), NULL), ({vm}, 2001, 'Hard disk 2', now(), now()); \
             INSERT INTO virt_vm_nic (vm_id, nic_key, ip_addresses, first_seen_at) \
             VALUES ({vm}, 4000, '{{192.0.2.1}}', now())"
        ))
        .await
        .unwrap();
    let shown = page(&api, &token, &format!("vms/{vm}")).await;
    assert_eq!(shown["metrics"]["cpu_usage_percent"], 12.5);
    assert_eq!(shown["metrics"]["memory_active_kib"], 5_000_000_000_i64);
    assert_eq!(shown["metrics"]["disk_read_iops"], Value::Null);
    assert_eq!(shown["disks"].as_array().unwrap().len(), 1);
    assert_eq!(shown["disks"][0]["label"], "Hard disk 1");
    assert_eq!(shown["nics"][0]["ip_addresses"], json!(["192.0.2.1"]));
    let with = page(&api, &token, "vms/?name=east-5&metrics=true").await;
    assert_eq!(with["items"][0]["metrics"], shown["metrics"]);
    let without = page(&api, &token, "vms/?name=east-5").await;
    assert_eq!(without["items"][0]["metrics"], Value::Null);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_document_is_open_to_everybody_and_names_every_route() {
    let api = Api::new().await;
    let answer = api.ask(Ask::get("/openapi.json")).await;
    let document = answer.value();
    assert_eq!((answer.status, &document["openapi"]), (200, &json!("3.1.0")));
    for route in virt_collector::api::rights::ROUTES {
        let method = route.method.as_str().to_ascii_lowercase();
        assert!(
            document["paths"][route.path][&method].is_object(),
            "{method} {}",
            route.path
        );
    }
    api.stop().await;
}
