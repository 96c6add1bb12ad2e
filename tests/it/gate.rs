//! A gate in a table: who writes a row of it waits inside his statement, as long as it is shut.
//!
//! A trigger waits, not a lock, so that no lock time-out ends the wait and no test depends on how fast it is opened.

use support::database::{Database, Role};
use tokio_postgres::Client;

use crate::wait::until;

/// The gate; a superuser's.
pub(crate) struct Gate(Client);

impl Gate {
    /// In front of a table, and shut.
    pub(crate) async fn shut(database: &Database, table: &str) -> Self {
        let sql = database.connect(Role::Superuser).await.unwrap();
        sql.batch_execute(&format!(
            "CREATE TABLE gate (is_shut boolean NOT NULL);
             INSERT INTO gate VALUES (true);
             GRANT SELECT ON gate TO PUBLIC;
             CREATE FUNCTION wait_at_gate() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 WHILE (SELECT is_shut FROM public.gate) LOOP
                     PERFORM pg_sleep(0.01);
                 END LOOP;
                 RETURN NEW;
             END $$;
             CREATE TRIGGER gate BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION wait_at_gate();"
        ))
        .await
        .unwrap();
        Self(sql)
    }

    /// Waits until somebody of the service stands in front of it.
    pub(crate) async fn reached(&self) {
        until("somebody waits at the gate", async || {
            match self.waiting().await {
                0 => Err("nobody".to_owned()),
                _ => Ok(()),
            }
        })
        .await;
    }

    /// Lets everybody through from now on.
    pub(crate) async fn open(&self) {
        self.0
            .batch_execute("UPDATE gate SET is_shut = false")
            .await
            .unwrap();
    }

    /// Waits until nobody of the service is inside any transaction.
    pub(crate) async fn passed(&self) {
        until("everybody has ended", async || match self.working().await {
            0 => Ok(()),
            n => Err(format!("{n} transactions")),
        })
        .await;
    }

    async fn waiting(&self) -> i64 {
        self.count("wait_event = 'PgSleep'").await
    }

    async fn working(&self) -> i64 {
        self.count("xact_start IS NOT NULL").await
    }

    async fn count(&self, who: &str) -> i64 {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
             AND application_name LIKE 'virt-collector/%' AND {who}"
        );
        self.0.query_one(&sql, &[]).await.unwrap().get(0)
    }
}
