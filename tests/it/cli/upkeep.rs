//! What is kept, who reads it, and what is deleted for good, from the shell.

use super::*;
use crate::wait::until;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_says_what_it_keeps_and_a_platform_in_maintenance_is_wiped_and_starts_anew() {
    let rig = Rig::new(small()).await;
    let daemon = rig.start().await;
    let client = rig.database.connect(Role::Superuser).await.unwrap();
    let number = async |sql: &str| client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0);
    until("what is kept, in the database", async || {
        let told = "SELECT count(*) FROM virt_retention WHERE relation LIKE '%metrics' AND keep = INTERVAL '30 days'";
        match number(told).await {
            3 => Ok(()),
            other => Err(format!("{other} of 3")),
        }
    })
    .await;
    daemon.stop().await;

    let path = rig.directory.path().join("config.toml");
    let path = path.to_str().unwrap();
    let write = |more: &str| {
        let text = format!(
            "[database]\nurl = \"{}\"\n[database.owner]\nurl = \"{}\"\n{more}",
            rig.database.url(Role::Writer),
            rig.database.url(Role::Owner)
        );
        std::fs::write(path, text).unwrap();
    };
    write("");
    let (code, text) = run(&["check", "--config", path]);
    assert_eq!(code, 0, "{text}");
    let kept =
        "samples 30 days, roll-ups by 5 minutes 180 days, by hour 730 days, by day for ever; samples are ";
    assert!(text.contains("retention") && text.contains(kept), "{text}");
    write("[retention]\nraw = \"60d\"\n");
    let (_, text) = run(&["check", "--config", path]);
    assert!(
        text.contains("samples 60 days") && text.contains("the service has others"),
        "{text}"
    );
    write("[retention]\nraw = \"1d\"\n");
    let (code, text) = run(&["check", "--config", path]);
    assert_eq!(code, 78, "{text}");
    assert!(
        text.contains("gaps of up to 25 hours are filled afterwards"),
        "{text}"
    );

    write("");
    let wipe = |confirm: &str| run(&["platform", "wipe", "lab", "--confirm", confirm, "--config", path]);
    let (code, text) = wipe("lap");
    assert_eq!(code, 64, "{text}");
    let (code, text) = wipe("lab");
    assert_eq!(code, 1, "{text}");
    assert!(
        text.contains("virt-collector platform maintenance lab on"),
        "{text}"
    );
    let samples = number("SELECT count(*) FROM virt_vm_metrics").await;
    assert!(samples > 0);
    assert_eq!(
        run(&["platform", "maintenance", "lab", "on", "--config", path]).0,
        0
    );
    // A collector that still has it is waited for.
    client
        .batch_execute("UPDATE virt_platform_lease SET until = clock_timestamp() + INTERVAL '2 s'")
        .await
        .unwrap();
    let (code, text) = wipe("lab");
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("virt_vm_metrics from ")
            && text.contains("lab: wiped; it starts anew when its maintenance ends"),
        "{text}"
    );
    let total: i64 = text
        .lines()
        .find_map(|line| line.strip_prefix("virt_vm_metrics  ")?.trim().parse().ok())
        .unwrap();
    assert_eq!(total, samples);
    assert_eq!(number("SELECT count(*) FROM virt_vm").await, 0);
    assert_eq!(
        number("SELECT count(*) FROM virt_audit_log WHERE action = 'platform.wipe'").await,
        2
    );

    // It does: what the source still holds is read as on the first evening.
    assert_eq!(
        run(&["platform", "maintenance", "lab", "off", "--config", path]).0,
        0
    );
    let daemon = rig.start().await;
    assert_clean(&rig.verdict().await);
    assert_eq!(number("SELECT count(*) FROM virt_vm_metrics").await, samples);
    daemon.stop().await;
}

#[test]
fn an_account_that_reads_is_made_by_a_name_that_needs_no_quotes() {
    let (code, text) = run(&["migrate", "--reader", "no-such-name", "--print-sql"]);
    assert_eq!(code, 64, "{text}");
    let (code, text) = run(&["migrate", "--reader", "grafana", "--print-sql"]);
    assert_eq!(code, 0, "{text}");
    assert!(
        text.starts_with("SET virt.reader = 'grafana';\n") && text.contains("GRANT virt_reader TO"),
        "{text}"
    );
}
