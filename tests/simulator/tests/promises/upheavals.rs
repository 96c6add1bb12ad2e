//! A server that starts, shows another certificate, stands in another zone, or is late.

use std::time::Duration;

use vsphere_simulator::{Action, Rule, Spec, TlsMode, ZoneChange};

use crate::support::{Client, csv, envelope, spec, time};
use crate::{START, frozen, retrieve, start, view};

fn stamps_of(vm: &str, bounds: &str, usage: i32, interval: u32) -> String {
    let tail = format!("<intervalId>{interval}</intervalId><format>csv</format>");
    spec("VirtualMachine", vm, bounds, &[(usage, "")], &tail)
}

#[tokio::test]
async fn a_server_that_starts_shows_nothing_then_a_part_then_all_and_its_samples_went_on() {
    let sim = start(frozen()).await;
    let client = Client::login(&sim).await;
    let usage = client.counters().await["cpu.usage.average"];
    let view = view(&client, "group-d1").await;
    let shown = async || {
        let page = client.call(&retrieve(&view, &["name"], "")).await;
        page.body.matches("<objects>").count()
    };
    let all = shown().await;
    sim.world().load(0);
    assert_eq!(shown().await, 0);
    let refused = client.perf(&stamps_of("vm-10001", "", usage, 20)).await;
    assert!(refused.body.contains("ManagedObjectNotFound"), "{}", refused.body);
    sim.clock().advance(Duration::from_secs(60));
    sim.world().load(60);
    let part = shown().await;
    assert!(0 < part && part < all, "{part} of {all}");
    sim.world().load(100);
    assert_eq!(shown().await, all);
    let reply = client.perf(&stamps_of("vm-10001", "", usage, 20)).await;
    let stamps = csv(&reply.body).remove(0).stamps;
    assert!(
        stamps.windows(2).all(|pair| pair[1] - pair[0] == 20),
        "{stamps:?}"
    );
    sim.shutdown().await;
}

#[tokio::test]
async fn a_vm_that_is_registered_again_is_the_same_machine_under_another_reference() {
    let sim = start(frozen()).await;
    let client = Client::login(&sim).await;
    let view = view(&client, "group-d1").await;
    let instance = async |moref: &str| {
        let page = client
            .call(&retrieve(&view, &["summary.config.instanceUuid"], ""))
            .await;
        let at = page.body.find(&format!(">{moref}<"))?;
        let rest = page.body[at..].split("<val xsi:type=\"xsd:string\">").nth(1)?;
        rest.split('<').next().map(str::to_owned)
    };
    let before = instance("vm-10003").await.expect("uuid");
    let moref = sim.world().re_register("vm-10003").expect("again");
    assert_eq!(instance("vm-10003").await, None);
    assert_eq!(instance(&moref).await, Some(before));
    let truth = sim.truth();
    let (old, new) = (
        truth.entity("vm-10003").expect("old"),
        truth.entity(&moref).expect("new"),
    );
    assert_eq!(old.name(), new.name());
    assert_eq!(old.record().profile, new.record().profile);
    assert!(sim.world().re_register("vm-10003").is_err());
    sim.shutdown().await;
}

#[tokio::test]
async fn a_server_in_another_zone_tells_the_same_instants_over_the_end_of_its_summer_time() {
    let sim = start(frozen()).await;
    let client = Client::login(&sim).await;
    let usage = client.counters().await["cpu.usage.average"];
    let query = stamps_of("vm-10001", "", usage, 20);
    let plain = client.perf(&query).await;
    let change = ZoneChange {
        at: START - 1800,
        minutes: 60,
    };
    sim.rules().add(Rule {
        method: None,
        ..Rule::on(
            "",
            Action::Zone {
                minutes: 120,
                change: Some(change),
            },
        )
    });
    let zoned = client.perf(&query).await;
    assert!(zoned.body.contains("+02:00") && zoned.body.contains("+01:00"));
    assert!(!zoned.body.contains(&time(START - 5)), "nothing in UTC");
    assert_eq!(csv(&plain.body)[0].stamps, csv(&zoned.body)[0].stamps);
    sim.shutdown().await;
}

#[tokio::test]
async fn the_certificate_can_become_another_and_the_first_one_again() {
    let sim = start(Spec::default()).await;
    let client = Client::login(&sim).await;
    let thumbprint = sim.leaf_sha256_thumbprint();
    let greeting = envelope(
        "<CurrentTime xmlns=\"urn:vim25\"><_this type=\"ServiceInstance\">ServiceInstance</_this></CurrentTime>",
    );
    for mode in [
        TlsMode::Expired,
        TlsMode::NotYetValid,
        TlsMode::OtherName,
        TlsMode::SelfSigned,
        TlsMode::Tls11,
        TlsMode::Reset,
    ] {
        sim.set_tls(mode).expect("another");
        let calls = sim.calls().recent().len();
        assert!(client.post(&greeting).await.is_err(), "{mode:?}");
        assert_eq!(sim.calls().recent().len(), calls, "{mode:?}");
    }
    sim.set_tls(TlsMode::TestCa).expect("the first one");
    assert_eq!(client.post(&greeting).await.expect("reply").status, 200);
    assert_eq!(sim.leaf_sha256_thumbprint(), thumbprint);
    sim.shutdown().await;
}

#[tokio::test]
async fn rollups_can_be_later_than_usual() {
    let sim = start(frozen()).await;
    let client = Client::login(&sim).await;
    let usage = client.counters().await["cpu.usage.average"];
    let bounds = format!("<startTime>{}</startTime>", time(START - 7200));
    let query = stamps_of("vm-10001", &bounds, usage, 300);
    let newest = async || {
        let reply = client.perf(&query).await;
        csv(&reply.body).remove(0).stamps.last().copied()
    };
    let usual = newest().await.expect("stamps");
    sim.world().delay_rollups(Duration::from_secs(15 * 60));
    assert_eq!(newest().await, Some(usual - 900));
    sim.clock().advance(Duration::from_secs(15 * 60));
    assert_eq!(newest().await, Some(usual));
    sim.shutdown().await;
}
