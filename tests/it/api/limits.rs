//! How often somebody may ask, and what somebody gets who may not.

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_guesses_tokens_is_held_off_and_who_has_one_is_not() {
    let api = Api::new().await;
    let token = api.token("viewer", "viewer", None).await;
    let guess = |n: u32| {
        let guess = format!("vc_1_{}", "A".repeat(43));
        let guess = guess.replacen("vc_1", &format!("vc_{n}"), 1);
        Ask::get("operations/").by(&guess).from("203.0.113.7")
    };
    let mut seen = Vec::new();
    for n in 1..=20 {
        let answer = api.ask(guess(n)).await;
        seen.push(answer.status);
    }
    assert_eq!(seen[..5], [401; 5], "{seen:?}");
    let refused = seen.iter().filter(|status| **status == 429).count();
    // One comes back every 12 seconds.
    assert!(
        refused >= 10 && seen.iter().all(|status| matches!(status, 401 | 429)),
        "{seen:?}"
    );
    let held = api.ask(guess(1)).await;
    let wait: u64 = held.header("retry-after").parse().unwrap();
    assert!((1..=12).contains(&wait), "{held:?}");

    let good = api
        .ask(Ask::get("operations/").by(&token).from("203.0.113.7"))
        .await;
    assert_eq!(good.status, 200, "a valid token is served from there");
    let elsewhere = api.ask(guess(1).from("203.0.113.8")).await;
    assert_eq!(elsewhere.status, 401, "another address is another one");
    // Without a token nothing is guessed.
    for _ in 0..10 {
        let missing = api.ask(Ask::get("operations/").from("203.0.113.9")).await;
        assert_eq!(missing.status, 401);
        assert_eq!(
            missing.header("www-authenticate"),
            "Bearer realm=\"virt-collector\""
        );
    }
    for header in [
        "Basic dXNlcjpwYXNz",
        "Bearer",
        "bearer  x",
        "vc_1_x",
        "Bearer \u{7f}",
    ] {
        let ask = Ask::get("operations/").header("authorization", header);
        let answer = api.ask_loosely(ask).await;
        assert!(matches!(answer.status, 400 | 401), "{header:?}: {answer:?}");
    }
    let lower = Ask::get("operations/").header("authorization", &format!("bearer {token}"));
    assert_eq!(api.ask(lower).await.status, 200);
    let twice = Ask::get("operations/").by(&token).by(&token);
    assert_eq!(api.ask(twice).await.status, 401);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_and_an_address_may_ask_so_often_and_a_token_may_act_so_often() {
    let api = Api::with("", |config| {
        if let Some(api) = &mut config.api {
            api.limits.requests_per_second = 1;
            api.limits.actions_per_minute = 3;
        }
    })
    .await;
    let (one, other) = (
        api.token("one", "operator", None).await,
        api.token("other", "operator", None).await,
    );
    // From one address after the other: the token is what counts. How fast this machine is does not matter: of so
    // many at once some are too many.
    let by = async |token: &str| {
        let asked = (0..30).map(|_| api.ask(Ask::get("operations/").by(token)));
        let answers = futures_util::future::join_all(asked).await;
        answers.iter().filter(|answer| answer.status == 429).count()
    };
    assert!(by(&one).await > 0);
    assert_eq!(
        api.ask(Ask::get("operations/").by(&other)).await.status,
        200,
        "another token"
    );

    let asked = (0..30).map(|_| api.ask(Ask::get("/livez").from("198.51.100.1")));
    let answers = futures_util::future::join_all(asked).await;
    assert!(answers.iter().any(|answer| answer.status == 429));
    assert_eq!(
        api.ask(Ask::get("/livez").from("198.51.100.2")).await.status,
        200,
        "another address"
    );
    api.stop().await;

    let api = Api::with("", |config| {
        if let Some(api) = &mut config.api {
            api.limits.actions_per_minute = 3;
        }
    })
    .await;
    let token = api.token("one", "operator", None).await;
    let mut seen = Vec::new();
    for _ in 0..12 {
        let path = format!("vms/{}/power-on/", api.vm().await);
        let answer = api.ask(Ask::post(&path).by(&token)).await;
        seen.push(answer.status);
    }
    assert_eq!(seen[..3], [202; 3], "{seen:?}");
    assert!(seen.contains(&429), "{seen:?}");
    let accepted = i64::try_from(seen.iter().filter(|status| **status == 202).count()).unwrap();
    assert_eq!(api.count("SELECT count(*) FROM virt_operation").await, accepted);
    assert_eq!(
        api.ask(Ask::get("operations/").by(&token)).await.status,
        200,
        "reading goes on"
    );
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn denials_are_in_the_audit_log_but_cannot_fill_it() {
    let api = Api::new().await;
    let viewer = api.token("viewer", "viewer", None).await;
    let vm = api.vm().await;
    let path = format!("vms/{vm}/power-on/");
    let denied = api.ask(Ask::post(&path).by(&viewer).from("192.0.2.1")).await;
    assert_eq!((denied.status, denied.code().as_str()), (403, "forbidden"));
    let west = api.token("west", "operator", Some(&["west"])).await;
    let (hidden, absent) = (
        api.ask(Ask::post(&path).by(&west)).await,
        api.ask(Ask::post("vms/2000000000/power-on/").by(&west)).await,
    );
    let said = |answer: &Answer| {
        let mut problem = answer.value();
        problem["request_id"] = Value::Null;
        problem
            .to_string()
            .replace("2000000000", "N")
            .replace(&vm.to_string(), "N")
    };
    assert_eq!(said(&hidden), said(&absent), "nobody can tell which there is");
    let rows = api
        .sql
        .query(
            "SELECT actor, action, outcome, code, client FROM virt_audit_log WHERE entry = 'denied' ORDER BY audit_id",
            &[],
        )
        .await
        .unwrap();
    let rows: Vec<[String; 4]> = rows
        .iter()
        .map(|row| [row.get(0), row.get(1), row.get(2), row.get(3)])
        .collect();
    let expected = [
        ["viewer", "power_on", "denied", "forbidden"],
        ["west", "power_on", "denied", "not_found"],
    ];
    assert_eq!(rows, expected);

    // As long as a path may be: what nobody has asked for is not kept.
    let long = format!("vms/{}/power-on/", "x".repeat(10_000));
    assert_eq!(api.ask(Ask::post(&long)).await.status, 401);
    let longest = "SELECT max(length(target))::bigint FROM virt_audit_log WHERE entry = 'denied'";
    assert_eq!(api.count(longest).await, 256);

    let asked = (0..150).map(|_| api.ask(Ask::post(&path)));
    for answer in futures_util::future::join_all(asked).await {
        assert!(matches!(answer.status, 401 | 503), "{answer:?}");
    }
    let rows = api
        .count("SELECT count(*) FROM virt_audit_log WHERE entry = 'denied'")
        .await;
    // 60 a minute, and one more with each second that this takes.
    assert!((50..130).contains(&rows), "{rows}");
    let skipped = recorder().render();
    let skipped = skipped
        .lines()
        .find_map(|line| line.strip_prefix("virt_collector_api_audit_skipped_total "))
        .unwrap();
    assert_ne!(skipped, "0");
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_token_never_has_all_places_at_work_however_slow_its_requests_are() {
    let api = Api::new().await;
    let (greedy, other) = (
        api.token("greedy", "operator", None).await,
        api.token("other", "viewer", None).await,
    );
    let east = "SELECT platform_id::bigint FROM virt_platform WHERE name = 'east'";
    let path = format!("platforms/{}/sync/", api.count(east).await);
    // A body that is announced and never comes holds its request for as long as it may take. From the first that is
    // refused to the first that took too long, all places are taken that one token can have.
    let is_served = async || {
        let mut slow: FuturesUnordered<_> = (0..96)
            .map(|_| {
                let ask = Ask::post(&path).by(&greedy).header("content-length", "2");
                api.ask(ask.header("content-type", "application/json"))
            })
            .collect();
        let mut answer = slow.next().await.unwrap();
        while answer.status != 408 {
            assert!(matches!(answer.status, 429 | 503), "{answer:?}");
            answer = tokio::select! {
                Some(answer) = slow.next() => answer,
                answer = api.ask(Ask::get("operations/").by(&other)) => match answer.status {
                    200 => return true,
                    // Those of the greedy one that are yet to be recognised are in the way for a moment.
                    _ => answer,
                },
            };
        }
        false
    };
    let served = async { while !is_served().await {} };
    tokio::time::timeout(DEADLINE, served)
        .await
        .expect("the other one is served meanwhile");
    api.stop().await;
}
