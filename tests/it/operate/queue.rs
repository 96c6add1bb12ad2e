//! Asking: what gets into the queue, and what is written with it.

use super::*;
use virt_collector::model::operation::{Action as A, Code, End, Seen};
use virt_collector::store::lease::{Lease, Owner};
use virt_collector::store::operation::{Filter, Refused, RequestKey};
use virt_collector::store::{Error, LEASE_TTL};
use virt_collector::units::Stamp;

/// A database with an inventory and nobody who does anything.
struct Shelf {
    rig: Rig,
    store: Database,
    sql: Client,
    lease: Lease,
}

impl Shelf {
    async fn new() -> Self {
        let rig = Rig::new(small()).await;
        rig.start().await.stop().await;
        let (store, sql) = (rig.store(), rig.database.connect(Role::Superuser).await.unwrap());
        let token = "INSERT INTO virt_api_token (name, role, key_id, mac, expires_at) \
                     SELECT 'token ' || n, 'operator', 'k', 'm', 'infinity' FROM generate_series(1, 2) AS n";
        sql.batch_execute(token).await.unwrap();
        let platform = store
            .open_operations(virt_collector::model::ids::PlatformId(1))
            .await;
        assert_eq!(platform.unwrap(), []);
        let owner = Owner::new("tester").unwrap();
        let platform = sql
            .query_one("SELECT platform_id FROM virt_platform", &[])
            .await
            .unwrap();
        let platform = virt_collector::model::ids::PlatformId(platform.get(0));
        let lease = store.acquire_lease(platform, &owner).await.unwrap().unwrap();
        Self {
            rig,
            store,
            sql,
            lease,
        }
    }

    async fn vms(&self) -> Vec<VmId> {
        let rows = self
            .sql
            .query("SELECT vm_id FROM virt_vm ORDER BY vm_id", &[])
            .await
            .unwrap();
        rows.iter().map(|row| VmId(row.get(0))).collect()
    }

    async fn submit(&self, submission: &Submission<'_>) -> Submitted {
        self.store.submit_operation(submission).await.unwrap()
    }

    async fn count(&self, table: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM {table}");
        self.sql.query_one(&sql, &[]).await.unwrap().get(0)
    }

    async fn end(&self, operation: &Operation) {
        let end = End::Failed(Code::Expired, "of a test".to_owned());
        assert!(
            self.store
                .finish_operation(&self.lease, operation, &end)
                .await
                .unwrap()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_enters_the_queue_is_told_to_the_collector_with_its_intent_and_the_vm_as_it_was() {
    let shelf = Shelf::new().await;
    let listener = shelf.store.listen_to_operations().await.unwrap();
    let vm = vm_id(&shelf.sql, VM).await;
    let action = new_snapshot("first");
    let asked = ask(&shelf.store, vm, &action).await;
    assert!(tokio::time::timeout(LONG, listener.heard()).await.unwrap());
    assert_eq!(
        (asked.state, &asked.action, asked.vm),
        (State::Queued, &action, vm)
    );
    assert_eq!(
        (asked.platform_name.as_str(), asked.vm_moref.as_str()),
        ("lab", VM)
    );
    assert!(asked.vm_name.is_some() && asked.vm_instance_uuid.is_some());
    assert_eq!(shelf.store.operation(asked.id).await.unwrap().unwrap(), asked);
    let open = shelf.store.open_operations(asked.platform).await.unwrap();
    assert_eq!(open, std::slice::from_ref(&asked));
    assert_eq!(
        audit(&shelf.sql, asked.id).await,
        [format!("intent {ACTOR} create_snapshot lab {VM}")]
    );
    let sql = "SELECT client, request_id, target_name, after ->> 'name' FROM virt_audit_log";
    let row = shelf.sql.query_one(sql, &[]).await.unwrap();
    let seen: [String; 4] = [0, 1, 2, 3].map(|column| row.get(column));
    assert_eq!(
        seen,
        [
            "192.0.2.7",
            "request-1",
            asked.vm_name.as_deref().unwrap(),
            "first"
        ]
    );
    let ends = shelf.store.listen_to_ends_of_operations().await.unwrap();
    shelf.end(&asked).await;
    assert!(tokio::time::timeout(LONG, ends.heard()).await.unwrap());
    assert_eq!(shelf.store.operation(Uuid::now_v7()).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_open_action_per_vm_and_a_bounded_number_per_platform_however_many_ask_at_once() {
    let shelf = Shelf::new().await;
    let vms = shelf.vms().await;
    let all = vms.iter().flat_map(|vm| [*vm; 3]).map(|vm| {
        let store = shelf.store.clone();
        async move {
            store
                .submit_operation(&submission(vm, &A::PowerOn))
                .await
                .unwrap()
        }
    });
    let results = futures_util::future::join_all(all).await;
    let taken: Vec<&Operation> = results
        .iter()
        .filter_map(|result| match result {
            Submitted::New(operation) => Some(&**operation),
            _ => None,
        })
        .collect();
    assert_eq!(taken.len(), MOST_OPEN as usize);
    for result in &results {
        match result {
            Submitted::New(_) => {}
            Submitted::Refused(Refused::VmBusy { operation }) => {
                assert!(taken.iter().any(|taken| taken.id == *operation));
            }
            Submitted::Refused(Refused::PlatformFull { open }) => assert_eq!(*open, MOST_OPEN),
            other => panic!("{other:?}"),
        }
    }
    // What was refused left nothing behind.
    assert_eq!(shelf.count("virt_operation").await, i64::from(MOST_OPEN));
    assert_eq!(shelf.count("virt_audit_log").await, i64::from(MOST_OPEN));
    let first = taken[0];
    shelf.end(first).await;
    ask(&shelf.store, first.vm, &A::PowerOn).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_sent_again_has_the_same_answer_and_another_one_may_not_use_its_key() {
    let shelf = Shelf::new().await;
    let vms = shelf.vms().await;
    let digest = [7; 32];
    let keyed = |vm, token, digest| Submission {
        key: Some(RequestKey {
            token,
            key: "the key",
            digest,
        }),
        ..submission(vm, &A::PowerOff)
    };
    let Submitted::New(first) = shelf.submit(&keyed(vms[0], 1, &digest)).await else {
        panic!("not taken");
    };
    let again = async || match shelf.submit(&keyed(vms[0], 1, &digest)).await {
        Submitted::Before(operation) => *operation,
        other => panic!("{other:?}"),
    };
    assert_eq!(again().await, *first);
    // Also when it has ended, and when the VM is gone.
    shelf.end(&first).await;
    assert_eq!(again().await.state, State::Failed);
    let gone = "UPDATE virt_vm SET removed_at = clock_timestamp() WHERE vm_id = $1";
    shelf.sql.execute(gone, &[&vms[0].0]).await.unwrap();
    assert_eq!(again().await.id, first.id);

    let reused = Submitted::Refused(Refused::KeyReused);
    assert_eq!(shelf.submit(&keyed(vms[1], 1, &[8; 32])).await, reused);
    // Keys are each token's own, and forgotten after a day.
    assert!(matches!(
        shelf.submit(&keyed(vms[1], 2, &digest)).await,
        Submitted::New(_)
    ));
    let old =
        "UPDATE virt_api_idempotency SET created_at = created_at - INTERVAL '25 hours' WHERE token_id = 1";
    shelf.sql.batch_execute(old).await.unwrap();
    assert!(matches!(
        shelf.submit(&keyed(vms[2], 1, &[8; 32])).await,
        Submitted::New(_)
    ));
    assert_eq!(shelf.count("virt_api_idempotency").await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_request_twice_at_once_is_one_operation() {
    let shelf = Shelf::new().await;
    let vm = shelf.vms().await[0];
    let asked = (0..6).map(|_| {
        let store = shelf.store.clone();
        async move {
            let key = RequestKey {
                token: 1,
                key: "twice",
                digest: &[1; 32],
            };
            let submission = Submission {
                key: Some(key),
                ..submission(vm, &A::PowerOff)
            };
            store.submit_operation(&submission).await.unwrap()
        }
    });
    let results = futures_util::future::join_all(asked).await;
    let mut n_new = 0;
    let mut ids = std::collections::BTreeSet::new();
    for result in results {
        match result {
            Submitted::New(operation) => {
                n_new += 1;
                ids.insert(operation.id);
            }
            Submitted::Before(operation) => {
                ids.insert(operation.id);
            }
            Submitted::Refused(refused) => panic!("{refused:?}"),
        }
    }
    assert_eq!((n_new, ids.len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vm_that_is_gone_unconfirmed_or_paused_is_not_acted_upon() {
    let shelf = Shelf::new().await;
    let vms = shelf.vms().await;
    let refused = |refused| Submitted::Refused(refused);
    assert_eq!(
        shelf.submit(&submission(VmId(99_999), &A::PowerOn)).await,
        refused(Refused::NoVm)
    );
    let confirmed = |name| Submission {
        confirmed: Some(name),
        ..submission(vms[0], &A::PowerOff)
    };
    assert_eq!(
        shelf.submit(&confirmed("another name")).await,
        refused(Refused::NotConfirmed)
    );
    let gone = "UPDATE virt_vm SET removed_at = clock_timestamp() WHERE vm_id = $1";
    shelf.sql.execute(gone, &[&vms[1].0]).await.unwrap();
    assert_eq!(
        shelf.submit(&submission(vms[1], &A::PowerOn)).await,
        refused(Refused::NoVm)
    );
    shelf
        .sql
        .batch_execute("UPDATE virt_platform SET in_maintenance = TRUE")
        .await
        .unwrap();
    assert_eq!(
        shelf.submit(&submission(vms[0], &A::PowerOn)).await,
        refused(Refused::PlatformPaused)
    );
    assert_eq!(shelf.count("virt_operation").await, 0);
    shelf
        .sql
        .batch_execute("UPDATE virt_platform SET in_maintenance = FALSE")
        .await
        .unwrap();
    let name = "SELECT name FROM virt_vm WHERE vm_id = $1";
    let name: String = shelf.sql.query_one(name, &[&vms[0].0]).await.unwrap().get(0);
    assert!(matches!(shelf.submit(&confirmed(&name)).await, Submitted::New(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_intent_in_the_audit_log_nothing_is_queued() {
    let shelf = Shelf::new().await;
    let vm = shelf.vms().await[0];
    let broken = "ALTER TABLE virt_audit_log ADD CHECK (entry <> 'intent') NOT VALID";
    shelf.sql.batch_execute(broken).await.unwrap();
    shelf
        .store
        .submit_operation(&submission(vm, &A::PowerOff))
        .await
        .unwrap_err();
    assert_eq!(shelf.count("virt_operation").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_step_is_behind_the_fence_and_sent_is_written_once() {
    let shelf = Shelf::new().await;
    let vm = shelf.vms().await[0];
    let asked = ask(&shelf.store, vm, &A::PowerOff).await;
    let (store, id, time) = (&shelf.store, asked.id, Stamp::from_seconds(1_769_853_600));
    let seen = Seen {
        power_state: "on".to_owned(),
        ..Seen::default()
    };
    let deposed = Lease {
        epoch: shelf.lease.epoch - 1,
        ..shelf.lease.clone()
    };
    let end = End::Unknown(Code::AnswerLost, "nobody knows".to_owned());
    let refused = [
        store.claim_operation(&deposed, id, LEASE_TTL).await,
        store.mark_sent(&deposed, id, time, &seen).await,
        store.note_accepted(&deposed, id, None).await,
        store.note_progress(&deposed, id, Some(1), None).await,
        store.finish_operation(&deposed, &asked, &end).await,
    ];
    for refused in refused {
        assert!(matches!(refused, Err(Error::Fenced { .. })), "{refused:?}");
    }
    assert_eq!(store.operation(id).await.unwrap().unwrap(), asked);

    let lease = &shelf.lease;
    assert!(
        !store.mark_sent(lease, id, time, &seen).await.unwrap(),
        "it was not taken up"
    );
    assert!(store.claim_operation(lease, id, LEASE_TTL).await.unwrap());
    assert!(!store.claim_operation(lease, id, LEASE_TTL).await.unwrap());
    assert!(store.mark_sent(lease, id, time, &seen).await.unwrap());
    // The same attempt again, whose COMMIT had no reply; another one must not send.
    assert!(store.mark_sent(lease, id, time, &seen).await.unwrap());
    let later = time.plus(Duration::from_secs(1));
    assert!(!store.mark_sent(lease, id, later, &seen).await.unwrap());
    assert!(store.finish_operation(lease, &asked, &end).await.unwrap());
    assert!(!store.finish_operation(lease, &asked, &end).await.unwrap());
    let ended = store.operation(id).await.unwrap().unwrap();
    assert_eq!(unknown(&ended, &["nobody knows"]), "answer_lost");
    assert_eq!(
        (ended.sent_at_source, ended.seen_before),
        (Some(time), Some(seen))
    );
    assert_eq!(shelf.count("virt_audit_log").await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_are_listed_newest_first_page_by_page_and_by_filter() {
    let shelf = Shelf::new().await;
    let vms = shelf.vms().await;
    let mut asked = Vec::new();
    for vm in vms.iter().take(5) {
        asked.push(ask(&shelf.store, *vm, &A::PowerOff).await.id);
    }
    asked.reverse();
    let mut filter = Filter::default();
    let mut listed = Vec::new();
    loop {
        let page = shelf.store.operations(&filter, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        filter.before = Some((last.created_at, last.id));
        listed.extend(page.iter().map(|operation| operation.id));
    }
    assert_eq!(listed, asked);
    let n = async |filter: Filter| shelf.store.operations(&filter, 100).await.unwrap().len();
    let of = |platforms: &[i32]| Filter {
        platforms: Some(
            platforms
                .iter()
                .copied()
                .map(virt_collector::model::ids::PlatformId)
                .collect(),
        ),
        ..Filter::default()
    };
    assert_eq!(n(of(&[])).await, 0);
    assert_eq!(n(of(&[shelf.lease.platform.0])).await, 5);
    assert_eq!(n(of(&[shelf.lease.platform.0 + 1])).await, 0);
    let vm = Filter {
        vm: Some(vms[1]),
        ..Filter::default()
    };
    assert_eq!(n(vm).await, 1);
    let state = |state| Filter {
        state: Some(state),
        ..Filter::default()
    };
    assert_eq!(n(state(State::Queued)).await, 5);
    assert_eq!(n(state(State::Failed)).await, 0);
    drop(shelf.rig);
}
