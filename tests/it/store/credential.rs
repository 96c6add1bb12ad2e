//! Sealed passwords as rows.

use virt_collector::secret::{KeyRing, Place, Secret};
use virt_collector::store::credential::Credential;

use super::*;
use virt_collector::store::registry::Address;

async fn registered(store: &Database, name: &str) -> PlatformId {
    store
        .provision_platform(name, &Address::new(PlatformKind::VCenter, "vc.example.com", 443))
        .await
        .unwrap()
        .unwrap()
}

#[tokio::test]
async fn a_sealed_password_is_stored_read_replaced_and_removed() {
    let fixture = Fixture::new().await;
    let store = fixture.store("a");
    let ring = KeyRing::generate().unwrap();
    let seal = |platform: PlatformId, password: &str| {
        ring.seal(Place::password_of(platform.0), &Secret::new(password))
            .unwrap()
    };
    let (munich, berlin) = (
        registered(&store, "munich").await,
        registered(&store, "berlin").await,
    );
    assert_eq!(store.credential(berlin).await.unwrap(), None);
    assert_eq!(store.credentials().await.unwrap(), []);

    let sealed = seal(berlin, "one");
    store.put_credential(berlin, &sealed).await.unwrap();
    assert_eq!(
        store.credential(berlin).await.unwrap().as_deref(),
        Some(sealed.bytes())
    );
    assert_eq!(store.credential(munich).await.unwrap(), None);
    let replaced = seal(berlin, "two");
    store.put_credential(berlin, &replaced).await.unwrap();
    store
        .put_credential(munich, &seal(munich, "three"))
        .await
        .unwrap();
    let all = store.credentials().await.unwrap();
    assert_eq!(
        all[0],
        Credential {
            platform: berlin,
            name: "berlin".to_owned(),
            sealed: replaced.bytes().to_vec(),
        }
    );
    assert_eq!(all.len(), 2);
    let key: String = fixture
        .sql
        .query_one(
            "SELECT key_id FROM virt_platform_credential WHERE platform_id = $1",
            &[&berlin.0],
        )
        .await
        .unwrap()
        .get(0);
    assert_eq!(key, ring.primary().to_string());

    assert!(store.delete_credential(berlin).await.unwrap());
    assert!(!store.delete_credential(berlin).await.unwrap());
    assert_eq!(store.credential(berlin).await.unwrap(), None);

    // Of a platform that is not there.
    let unknown = PlatformId(4711);
    let refused = store
        .put_credential(unknown, &seal(unknown, "four"))
        .await
        .unwrap_err();
    assert_eq!(refused.class(), Class::Data, "{}", said(&refused));
}

#[tokio::test]
async fn collectors_hear_of_a_new_password_and_not_of_a_new_seal() {
    let fixture = Fixture::new().await;
    let store = fixture.store("a");
    let mut ring = KeyRing::generate().unwrap();
    let platform = registered(&store, "berlin").await;
    let place = Place::password_of(platform.0);
    let revision = "SELECT revision FROM virt_platform";
    let before = fixture.number(revision).await;
    store
        .put_credential(platform, &ring.seal(place, &Secret::new("one")).unwrap())
        .await
        .unwrap();
    assert_eq!(fixture.number(revision).await, before + 1);

    let key = ring.add().unwrap();
    ring.promote(key).unwrap();
    let read = store.credentials().await.unwrap().remove(0);
    let password = ring.open(place, &read.sealed).unwrap();
    let anew = ring.seal(place, &password).unwrap();
    assert!(store.reseal_credential(&read, &anew).await.unwrap());
    assert_eq!(fixture.number(revision).await, before + 1);
    assert_eq!(
        store.credential(platform).await.unwrap().as_deref(),
        Some(anew.bytes())
    );
}

#[tokio::test]
async fn a_password_that_was_set_meanwhile_is_not_replaced_by_a_new_seal_of_the_one_before() {
    let fixture = Fixture::new().await;
    let store = fixture.store("a");
    let ring = KeyRing::generate().unwrap();
    let platform = registered(&store, "berlin").await;
    let place = Place::password_of(platform.0);
    let seal = |password: &str| ring.seal(place, &Secret::new(password)).unwrap();
    store.put_credential(platform, &seal("one")).await.unwrap();
    let read = store.credentials().await.unwrap().remove(0);

    store.put_credential(platform, &seal("two")).await.unwrap();
    assert!(!store.reseal_credential(&read, &seal("one")).await.unwrap());
    let stored = store.credential(platform).await.unwrap().unwrap();
    assert_eq!(ring.open(place, &stored).unwrap().expose(), "two");
    store.delete_credential(platform).await.unwrap();
    assert!(!store.reseal_credential(&read, &seal("one")).await.unwrap());
    assert_eq!(store.credential(platform).await.unwrap(), None);
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
