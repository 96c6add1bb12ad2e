//! Sealed passwords as rows.

use virt_collector::secret::{KeyRing, Place, Sealed, Secret};
use virt_collector::store::credential::Credential;
use virt_collector::store::registry::Address;

use super::*;

fn address() -> Address {
    Address::new(PlatformKind::VCenter, "vc.example.com", 443)
}

fn seal(ring: &KeyRing, platform: PlatformId, password: &str) -> Sealed {
    ring.seal(Place::password_of(platform.0), &Secret::new(password))
        .unwrap()
}

/// A platform of the registry with a password.
async fn added(store: &Database, ring: &KeyRing, name: &str, password: &str) -> PlatformId {
    let adding = store.add_platform(name, &address(), true).await.unwrap();
    let id = adding.id();
    let sealed = seal(ring, id, password);
    adding.finish(&sealed).await.unwrap();
    id
}

#[tokio::test]
async fn a_new_seal_takes_the_place_of_the_one_that_was_read_and_collectors_hear_of_it() {
    let fixture = Fixture::new().await;
    let store = fixture.store("a");
    let mut ring = KeyRing::generate().unwrap();
    assert_eq!(store.credentials().await.unwrap(), []);
    let munich = added(&store, &ring, "munich", "one").await;
    let berlin = added(&store, &ring, "berlin", "two").await;
    let read = store.credentials().await.unwrap();
    let names: Vec<(PlatformId, &str)> = read
        .iter()
        .map(|Credential { platform, name, .. }| (*platform, name.as_str()))
        .collect();
    assert_eq!(names, [(berlin, "berlin"), (munich, "munich")]);

    let key = ring.add().unwrap();
    ring.promote(key).unwrap();
    let password = ring.open(Place::password_of(berlin.0), &read[0].sealed).unwrap();
    let listener = store.listen_to_registry().await.unwrap();
    let anew = seal(&ring, berlin, password.expose());
    assert!(store.reseal_credential(&read[0], &anew).await.unwrap());
    assert!(listener.heard().await);
    let stored = store.credentials().await.unwrap();
    assert_eq!(stored[0].sealed, anew.bytes());
    assert_eq!(stored[1], read[1]);
    let keys = "SELECT count(*) FROM virt_platform_credential WHERE key_id = ";
    for id in ring.ids() {
        assert_eq!(fixture.number(&format!("{keys}'{id}'")).await, 1, "{id}");
    }
}

#[tokio::test]
async fn a_password_that_was_set_meanwhile_is_not_replaced_by_a_new_seal_of_the_one_before() {
    let fixture = Fixture::new().await;
    let store = fixture.store("a");
    let ring = KeyRing::generate().unwrap();
    let platform = added(&store, &ring, "berlin", "one").await;
    let read = store.credentials().await.unwrap().remove(0);

    let row = store.registered_platform("berlin").await.unwrap();
    let set = seal(&ring, platform, "two");
    store.edit_platform(&row, &address(), Some(&set)).await.unwrap();
    let late = seal(&ring, platform, "one");
    assert!(!store.reseal_credential(&read, &late).await.unwrap());
    let stored = store.credentials().await.unwrap().remove(0);
    assert_eq!(stored.sealed, set.bytes());

    // Nor does it come back after its platform was removed.
    let row = store.registered_platform("berlin").await.unwrap();
    store.remove_platform(&row).await.unwrap();
    assert!(!store.reseal_credential(&stored, &late).await.unwrap());
    assert_eq!(store.credentials().await.unwrap(), []);
}

#[tokio::test]
async fn who_reads_dashboards_reads_no_sealed_password() {
    let fixture = Fixture::new().await;
    let reader = fixture.database.connect(Role::Reader).await.unwrap();
    let refused = reader
        .query("SELECT sealed FROM virt_platform_credential", &[])
        .await
        .unwrap_err();
    assert_eq!(
        refused.code().map(tokio_postgres::error::SqlState::code),
        Some("42501"),
        "{refused}"
    );
}
