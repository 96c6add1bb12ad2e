//! The inventory, walked level by level as other clients do.

use vsphere_simulator::{Simulator, Spec};

use crate::support::{Client, all, one, spec};
use crate::{frozen, start};

/// The objects that a view shows, with these properties.
async fn seen(client: &Client, from: (&str, &str), recursive: bool, kind: &str, paths: &str) -> Vec<String> {
    let (container, moref) = from;
    let view = client
        .call(&format!(
            r#"<CreateContainerView xmlns="urn:vim25"><_this type="ViewManager">ViewManager</_this><container type="{container}">{moref}</container><type>{kind}</type><recursive>{recursive}</recursive></CreateContainerView>"#
        ))
        .await;
    let view = one(&view.body, "returnval type=\"ContainerView\"", "returnval");
    let paths: String = paths
        .split(' ')
        .map(|path| format!("<pathSet>{path}</pathSet>"))
        .collect();
    let reply = client
        .call(&format!(
            r#"<RetrievePropertiesEx xmlns="urn:vim25"><_this type="PropertyCollector">propertyCollector</_this><specSet><propSet><type>{kind}</type>{paths}</propSet><objectSet><obj type="ContainerView">{view}</obj><skip>true</skip><selectSet xsi:type="TraversalSpec"><type>ContainerView</type><path>view</path></selectSet></objectSet></specSet><options/></RetrievePropertiesEx>"#
        ))
        .await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    all(&reply.body, "objects", "objects")
}

fn property(object: &str, name: &str) -> Option<String> {
    let (_, rest) = object.split_once(&format!("<name>{name}</name>"))?;
    let (value, _) = rest.split_once("</propSet>")?;
    Some(value.to_owned())
}

/// A guest that tells nothing differs from one that is not there: `guest` is set, and so are its lists.
#[tokio::test]
async fn a_walk_from_folder_to_folder_finds_everything_with_what_other_clients_ask_of_it() {
    let simulator: Simulator = start(Spec { vms: 16, ..frozen() }).await;
    let client = Client::login(&simulator).await;
    let below = |from, kind| seen(&client, from, false, kind, "name parent customValue");
    let centers = below(("Folder", "group-d1"), "Datacenter").await;
    assert_eq!(centers.len(), 1);
    let folders = below(("Datacenter", "datacenter-3"), "Folder").await;
    assert_eq!(folders.len(), 4, "for VMs, hosts, datastores and networks");
    assert!(below(("Folder", "group-d1"), "VirtualMachine").await.is_empty());

    let vms = seen(
        &client,
        ("Folder", "group-v4"),
        true,
        "VirtualMachine",
        "name runtime.powerState config.uuid config.guestId guest.guestId guest.hostName guest.net \
         summary.customValue customValue",
    )
    .await;
    assert_eq!(vms.len(), 16 + 1, "with the template");
    let none = r#"<val xsi:type="ArrayOfCustomFieldValue"></val>"#;
    for vm in &vms {
        assert_eq!(property(vm, "customValue").as_deref(), Some(none));
        assert_eq!(property(vm, "summary.customValue").as_deref(), Some(none));
        let nets = property(vm, "guest.net").expect("a list, however short");
        let speaks = property(vm, "guest.hostName").is_some();
        assert_eq!(nets.contains("<GuestNicInfo>"), speaks, "{vm}");
        assert_eq!(property(vm, "guest.guestId").is_some(), speaks, "{vm}");
    }

    let hosts = ("Folder", "group-h5");
    let paths = "name parent summary.customValue customValue";
    assert_eq!(seen(&client, hosts, true, "HostSystem", paths).await.len(), 2);
    let paths = "name parent customValue";
    for kind in ["ClusterComputeResource", "ResourcePool"] {
        assert_eq!(seen(&client, hosts, true, kind, paths).await.len(), 1);
    }
    simulator.shutdown().await;
}

/// That is how a client names the datastore of a counter's instance.
#[tokio::test]
async fn a_datastores_volume_is_what_performance_counters_call_it() {
    let simulator = start(frozen()).await;
    let client = Client::login(&simulator).await;
    let folder = ("Folder", "group-s6");
    let stores = seen(&client, folder, true, "Datastore", "name parent info customValue").await;
    let volumes: Vec<String> = stores
        .iter()
        .map(|store| property(store, "info").expect("info"))
        .inspect(|info| assert!(info.contains("VmfsDatastoreInfo"), "{info}"))
        .map(|info| one(&info, "url", "url"))
        .collect();
    assert_eq!(volumes.len(), 2);
    let reads = client.counters().await["datastore.read.average"];
    let bounds = "<maxSample>1</maxSample>";
    let query = spec(
        "HostSystem",
        "host-1001",
        bounds,
        &[(reads, "*")],
        "<format>normal</format>",
    );
    let body = client.perf(&query).await.body;
    for instance in all(&body, "instance", "instance") {
        let url = format!("ds:///vmfs/volumes/{instance}/");
        assert!(volumes.contains(&url), "{url} is none of {volumes:?}");
    }
    assert_eq!(body.matches("<instance>").count(), 2);
    simulator.shutdown().await;
}
