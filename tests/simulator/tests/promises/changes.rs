//! Change tracking.

use std::time::Duration;

use vsphere_simulator::{Event, RingFate, Simulator};

use crate::support::{Client, Reply, all, one};
use crate::{frozen, start, view};

struct Tracking {
    client: Client,
    collector: String,
    filter: String,
}

impl Tracking {
    async fn new(simulator: &Simulator) -> Self {
        let client = Client::login(simulator).await;
        let view = view(&client, "group-d1").await;
        let made = client
            .call(r#"<CreatePropertyCollector xmlns="urn:vim25"><_this type="PropertyCollector">propertyCollector</_this></CreatePropertyCollector>"#)
            .await;
        let collector = one(&made.body, "returnval type=\"PropertyCollector\"", "returnval");
        let made = client
            .call(&format!(
                r#"<CreateFilter xmlns="urn:vim25"><_this type="PropertyCollector">{collector}</_this><spec><propSet><type>VirtualMachine</type><pathSet>name</pathSet><pathSet>overallStatus</pathSet><pathSet>runtime.powerState</pathSet><pathSet>snapshot</pathSet></propSet><objectSet><obj type="ContainerView">{view}</obj><skip>true</skip><selectSet xsi:type="TraversalSpec"><name>v</name><type>ContainerView</type><path>view</path><skip>false</skip></selectSet></objectSet></spec><partialUpdates>false</partialUpdates></CreateFilter>"#
            ))
            .await;
        let filter = one(&made.body, "returnval type=\"PropertyFilter\"", "returnval");
        Self {
            client,
            collector,
            filter,
        }
    }

    async fn wait(&self, version: &str, seconds: u32) -> Reply {
        self.client
            .call(&format!(
                r#"<WaitForUpdatesEx xmlns="urn:vim25"><_this type="PropertyCollector">{}</_this><version>{version}</version><options><maxWaitSeconds>{seconds}</maxWaitSeconds></options></WaitForUpdatesEx>"#,
                self.collector
            ))
            .await
    }

    async fn call(&self, method: &str, kind: &str, moref: &str) -> Reply {
        self.client
            .call(&format!(
                r#"<{method} xmlns="urn:vim25"><_this type="{kind}">{moref}</_this></{method}>"#
            ))
            .await
    }
}

#[tokio::test]
async fn a_filter_tells_everything_once_and_then_changes_only() {
    let mut spec = frozen();
    spec.page_size = 10;
    let simulator = start(spec).await;
    let tracking = Tracking::new(&simulator).await;
    let n_vms = simulator.world().vms().len() + 1;

    let (mut version, mut told) = (String::new(), 0);
    loop {
        let page = tracking.wait(&version, 0).await.body;
        let kinds = all(&page, "kind", "kind");
        assert!(
            kinds.len() <= 10 && kinds.iter().all(|kind| kind == "enter"),
            "{page}"
        );
        told += kinds.len();
        version = one(&page, "version", "version");
        if one(&page, "truncated", "truncated") == "false" {
            break;
        }
    }
    assert_eq!(told, n_vms, "a template is a VM too");
    let nothing = tracking.wait(&version, 0).await;
    assert!(!nothing.body.contains("returnval"), "{nothing:?}");

    let world = simulator.world();
    let [first, second, third] = [0, 1, 2].map(|n| world.vms()[n].clone());
    world.rename(&first, "other").expect("event");
    world.delete_vm(&second).expect("event");
    world
        .apply(Event::CreateSnapshot {
            vm: third.clone(),
            name: "before".to_owned(),
        })
        .expect("event");
    // Neither tracked nor told: the host is not asked for, the status changes in silence.
    world
        .move_vm(&third, &world.hosts()[1], RingFate::Kept)
        .expect("event");
    world
        .apply(Event::SetStatus {
            entity: world.vms()[5].clone(),
            status: "red".to_owned(),
        })
        .expect("event");
    let page = tracking.wait(&version, 0).await.body;
    assert_eq!(
        all(&page, "kind", "kind"),
        ["modify", "modify", "leave"],
        "{page}"
    );
    assert_eq!(all(&page, "changeSet><name", "name"), ["name", "snapshot"]);
    assert!(page.contains("<childSnapshotList>") || page.contains("<rootSnapshotList>"));
    let stale = tracking.wait(&version, 0).await;
    assert!(stale.status == 500 && stale.body.contains("InvalidCollectorVersion"));
    let filter = tracking.filter.clone();
    assert_eq!(
        tracking
            .call("DestroyPropertyFilter", "PropertyFilter", &filter)
            .await
            .status,
        200
    );
    assert_eq!(
        tracking
            .call("DestroyPropertyFilter", "PropertyFilter", &filter)
            .await
            .status,
        500
    );
    simulator.shutdown().await;
}

#[tokio::test]
async fn a_wait_ends_with_a_change_a_cancellation_or_its_session() {
    let simulator = start(frozen()).await;
    let tracking = Tracking::new(&simulator).await;
    let version = one(&tracking.wait("", 0).await.body, "version", "version");
    let world = simulator.world();
    let vm = world.vms().remove(0);

    let (told, ()) = tokio::join!(tracking.wait(&version, 60), async {
        // Whether before or during the wait does not matter.
        world.rename(&vm, "other").expect("event");
    });
    assert!(
        told.body.contains("<val xsi:type=\"xsd:string\">other</val>"),
        "{told:?}"
    );
    let version = one(&told.body, "version", "version");

    // A cancellation is for a call that waits: one that comes before it does nothing.
    let collector = tracking.collector.clone();
    let cancelled = async {
        loop {
            tracking
                .call("CancelWaitForUpdates", "PropertyCollector", &collector)
                .await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let told = tokio::select! {
        told = tracking.wait(&version, 60) => told,
        () = cancelled => panic!("it never ends"),
    };
    assert!(
        told.status == 500 && told.body.contains("RequestCanceled"),
        "{told:?}"
    );

    let (told, ()) = tokio::join!(tracking.wait(&version, 60), async {
        simulator.sessions().expire_all();
    });
    assert!(
        told.status == 500 && told.body.contains("NotAuthenticated"),
        "{told:?}"
    );
    simulator.shutdown().await;
}
