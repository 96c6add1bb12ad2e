//! Inventories with odd names and with holes, read at intervals and told by change tracking.

use super::*;

#[tokio::test]
async fn names_of_any_kind_are_stored_harmless_and_steer_no_log() {
    let hostile = [
        (
            "vm-00001",
            "'; DROP TABLE virt_vm; --",
            "'; DROP TABLE virt_vm; --",
        ),
        (
            "vm-00002",
            "\u{1b}[31mred\u{7}\n",
            "\u{fffd}[31mred\u{fffd}\u{fffd}",
        ),
        ("vm-00003", "&quot;&apos;&lt;b&gt;&amp;", "\"'<b>&"),
        ("vm-00004", "a&#0;b&#x1;c", "a\u{fffd}b\u{fffd}c"),
        (
            "vm-00005",
            "\u{202e}txt.exe \u{1f600}",
            "\u{202e}txt.exe \u{1f600}",
        ),
    ];
    let pair = Pair::start("names", small()).await;
    let rules = pair.sick().rules();
    let add = |action: Action| {
        rules.add(Rule::on("WaitForUpdatesEx", action));
    };
    for (name, raw, _) in hostile {
        add(Action::Replace {
            find: format!(">{name}<"),
            with: format!(">{raw}<"),
        });
    }
    add(Action::BreakUtf8 {
        after: ">vm-00006".to_owned(),
    });
    add(Action::Replace {
        find: ">vm-00007<".to_owned(),
        with: format!(">{}<", "x".repeat(1 << 20)),
    });
    let discover = async || {
        let platform = pair.app.platform(&pair.sick_name).unwrap();
        let found = platform.discover_now();
        tokio::time::timeout(DEADLINE, found).await.unwrap().unwrap()
    };
    // A new session reads everything anew.
    let read_anew = async || {
        pair.sick().sessions().expire_all();
        wait::until("everything to be read anew", async || {
            match discover().await.error {
                None => Ok(()),
                Some(error) => Err(error),
            }
        })
        .await;
    };
    read_anew().await;
    let client = pair.rig.client().await;
    let names = async || -> Vec<String> {
        let rows = client
            .query(
                "SELECT coalesce(v.name, '') FROM virt_vm v JOIN virt_platform p USING (platform_id) \
                 WHERE p.name = $1 AND v.removed_at IS NULL ORDER BY v.moref",
                &[&pair.sick_name],
            )
            .await
            .unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    };
    let stored = names().await;
    for (name, _, wanted) in hostile {
        assert!(stored.iter().any(|stored| stored == wanted), "{name}: {stored:?}");
    }
    assert!(stored.iter().any(|name| name == "vm-00006\u{fffd}"), "{stored:?}");
    assert!(
        stored.iter().any(|name| *name == "x".repeat(255)),
        "a name of a megabyte is cut"
    );
    // Everyone a megabyte: a page is more than may be read at once, so that smaller ones are asked for.
    rules.clear();
    let before = pair.sick().calls().count("CreateFilter");
    add(Action::Replace {
        find: ">vm-0".to_owned(),
        with: format!(">{}", "y".repeat(1 << 20)),
    });
    read_anew().await;
    assert!(
        pair.sick().calls().count("CreateFilter") >= before + 2,
        "asked again"
    );
    let stored = names().await;
    let n_cut = stored.iter().filter(|name| **name == "y".repeat(255)).count();
    assert!(n_cut >= 10, "{n_cut} of {}", stored.len());
    rules.clear();
    pair.pass(3 * MINUTE);
    assert_eq!(pair.poll(&pair.sick_name).await.error, None);
    let verdict = pair.rig.verdict_of(&pair.sick_name, pair.sick()).await;
    assert_told_truth("names", &verdict, (0, 0));
    let lines = pair.log.lines(&[]);
    assert!(
        lines
            .iter()
            .all(|line| !line.contains('\u{1b}') && line.len() < 16 * 1024)
    );
    pair.app.stop().await.unwrap();
}

#[tokio::test]
async fn an_inventory_with_holes_removes_nobody_and_stops_nothing() {
    let pair = Pair::start("holes", small()).await;
    let withhold = |path: Option<&str>, of: Option<&str>, fault: Option<&str>| Action::Withhold {
        path: path.map(str::to_owned),
        of: of.map(str::to_owned),
        fault: fault.map(str::to_owned),
    };
    let vm = pair.sick().world().running_vms().remove(0);
    let client = pair.rig.client().await;
    let n_there = async || -> i64 {
        client
            .query_one(
                "SELECT count(*) FROM virt_vm v JOIN virt_platform p USING (platform_id) \
                 WHERE p.name = $1 AND v.removed_at IS NULL",
                &[&pair.sick_name],
            )
            .await
            .unwrap()
            .get(0)
    };
    let before = n_there().await;
    let page = |text: &str| body(text, "text/xml; charset=utf-8");
    let nothing = "<soapenv:Envelope xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\"><soapenv:Body>\
                   <RetrievePropertiesExResponse xmlns=\"urn:vim25\"></RetrievePropertiesExResponse>\
                   </soapenv:Body></soapenv:Envelope>";
    let rounds: Vec<(&str, Action, [bool; 2])> = vec![
        (
            "no host of anybody",
            withhold(Some("runtime.host"), None, None),
            [true, true],
        ),
        (
            "no names",
            withhold(Some("name"), None, Some("NoPermission")),
            [true, true],
        ),
        (
            "no identifiers",
            withhold(Some("summary.config.instanceUuid"), None, None),
            [true, true],
        ),
        (
            "one of whom nothing is told",
            withhold(None, Some(&vm), Some("NoPermission")),
            [true, true],
        ),
        (
            "an expired session in every property",
            withhold(None, None, Some("NotAuthenticated")),
            [false, false],
        ),
        (
            "an expired session's answer",
            page(include_str!("../fixtures/expired_session.xml")),
            [false, false],
        ),
        ("half an inventory", Action::Truncate { at: 900 }, [false, false]),
        // The answer to another method is none.
        ("an inventory of nobody", page(nothing), [true, false]),
    ];
    let discover = async || {
        let platform = pair.app.platform(&pair.sick_name).unwrap();
        let found = platform.discover_now();
        let report = tokio::time::timeout(DEADLINE, found).await.unwrap().unwrap();
        report.error
    };
    // What is read at intervals, and what a new session is told about everything.
    for method in ["RetrievePropertiesEx", "WaitForUpdatesEx"] {
        for (name, action, works) in &rounds {
            pair.sick().rules().add(Rule::on(method, action.clone()));
            if method == "RetrievePropertiesEx" {
                assert_eq!(discover().await.is_none(), works[0], "{name}");
            } else {
                pair.sick().sessions().expire_all();
                let before = pair.sick().calls().count("CreateFilter");
                wait::until("everything to be told anew", async || {
                    let error = discover().await;
                    let n_read = pair.sick().calls().count("CreateFilter") - before;
                    // The first failure is that of the session that has expired.
                    match error.is_none() == works[1] && n_read > 0 {
                        true => Ok(()),
                        false => Err(format!("{name}: {error:?}, read {n_read} times")),
                    }
                })
                .await;
            }
            assert_eq!(n_there().await, before, "{name}");
            pair.recover().await;
            wait::until("it is read again", async || discover().await.map_or(Ok(()), Err)).await;
        }
    }
    pair.pass(3 * MINUTE);
    assert_eq!(pair.poll(&pair.sick_name).await.error, None);
    assert_eq!(pair.poll(&pair.well_name).await.error, None);
    let verdict = pair.rig.verdict_of(&pair.well_name, &pair.well).await;
    assert_told_truth("the healthy one", &verdict, (0, 0));
    pair.app.stop().await.unwrap();
}
