//! A migrated database with a platform whose lease nobody takes away.

use support::database::{Database as TestDatabase, Role};
use virt_collector::config;
use virt_collector::store::registry::Address;
use virt_collector::store::{Database, Lease, Owner, Settings, migrate};

pub(crate) struct Leased {
    pub(crate) store: Database,
    pub(crate) lease: Lease,
    /// A superuser's connection.
    pub(crate) sql: tokio_postgres::Client,
    // Last: it goes when nobody is connected any more.
    pub(crate) fresh: TestDatabase,
}

impl Leased {
    pub(crate) async fn new() -> Self {
        let fresh = TestDatabase::create().await.unwrap();
        let settings = |role: Role| {
            let account = config::Account {
                url: fresh.url(role),
                password_file: None,
            };
            let database = config::Database {
                writer: account.clone(),
                owner: None,
                tls: config::DatabaseTls::Auto { ca_file: None },
            };
            Settings::new(&database, &account, &Owner::new("bench").unwrap()).unwrap()
        };
        migrate::apply(&settings(Role::Owner)).await.unwrap();
        let store = Database::new(settings(Role::Writer)).unwrap();
        let address = Address::new(config::PlatformKind::VCenter, "localhost", 443);
        let platform = store
            .provision_platform("bench", &address)
            .await
            .unwrap()
            .unwrap();
        let owner = Owner::new("bench").unwrap();
        let lease = store.acquire_lease(platform, &owner).await.unwrap().unwrap();
        let sql = fresh.connect(Role::Superuser).await.unwrap();
        sql.batch_execute("UPDATE virt_platform_lease SET until = 'infinity'")
            .await
            .unwrap();
        Self {
            store,
            lease,
            sql,
            fresh,
        }
    }
}
