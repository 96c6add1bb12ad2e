//! Connections.

use super::*;

#[test]
fn settings_that_make_no_sense_are_refused_without_showing_the_password() {
    for (url, part) in [
        (
            "postgresql://virt_writer:hush@db/virt",
            "the url holds a password",
        ),
        (
            "host=db user=virt_writer password=hush dbname=virt",
            "the url holds a password",
        ),
        (
            "postgresql://virt_writer@db/virt?sslmode=disable",
            "sslmode stands in the url",
        ),
        ("dbname=virt", "names no host"),
        ("host=db prot=5432", "invalid connection string"),
        ("https://db/virt", "invalid connection string"),
    ] {
        let error = settings_for(url, "a").expect_err(url);
        let said = said(&error);
        assert!(said.contains(part) && !said.contains("hush"), "{url}: {said}");
        assert!(!format!("{error:?}").contains("hush"), "{url}");
    }
}

#[test]
fn the_owner_fits_into_an_application_name() {
    let longest = "x".repeat(Owner::MAX_LENGTH);
    assert!(format!("virt-collector/{}/migrate", Owner::new(&longest).unwrap()).len() <= 63);
    for wrong in ["", "a/b", "a b", &format!("{longest}x")] {
        assert!(Owner::new(wrong).is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn a_connection_that_cannot_be_made_says_what_to_look_at() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let stranger = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 256];
                drop(stream.read(&mut request).await);
                drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await);
                // With what is unread the connection would be reset, answer and all.
                drop(stream.shutdown().await);
                while stream.read(&mut request).await.is_ok_and(|n| n > 0) {}
            }
        });
        port
    };
    for (url, parts) in [
        (
            format!("host=127.0.0.1 port={stranger} user=virt_writer dbname=virt"),
            ["is no PostgreSQL", "127.0.0.1"],
        ),
        (
            format!("host=127.0.0.1 port={closed} user=virt_writer dbname=virt"),
            ["nothing listens there", "127.0.0.1"],
        ),
        (
            "host=/nonexistent user=virt_writer dbname=virt".to_owned(),
            ["there is no such socket", "/nonexistent"],
        ),
        (
            "host=no-such-host.invalid user=virt_writer dbname=virt".to_owned(),
            ["could not be resolved", "no-such-host.invalid"],
        ),
    ] {
        let (database, account) = configured(&url, None, DatabaseTls::Disable);
        let store = Database::new(Settings::new(&database, &account, &owner("a")).unwrap()).unwrap();
        for error in [
            store.probe().await.unwrap_err(),
            store.writer().await.unwrap_err(),
        ] {
            let said = said(&error);
            assert!(parts.iter().all(|part| said.contains(part)), "{said}");
            assert_eq!(error.class(), Class::Connection, "{said}");
            assert_eq!(said.lines().count(), 1, "{said}");
        }
    }
}

#[tokio::test]
async fn an_account_or_database_that_does_not_exist_is_named() {
    let fixture = Fixture::bare().await;
    let url = fixture.database.url(Role::Superuser);
    let store = Database::new(settings_for(&url.replace(fixture.database.name(), "virt_none"), "a").unwrap())
        .unwrap();
    let error = store.probe().await.unwrap_err();
    assert!(
        said(&error)
            .contains("create the database, then run the SQL of virt-collector migrate --bootstrap-sql"),
        "{}",
        said(&error)
    );
    assert!(said(&error).contains("3D000"), "{}", said(&error));
}

#[tokio::test]
async fn the_password_file_is_read_at_each_connection() {
    let fixture = Fixture::bare().await;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let (database, account) = configured(
        &fixture.database.url(Role::Writer),
        Some(file.path()),
        DatabaseTls::Auto { ca_file: None },
    );
    let settings = Settings::new(&database, &account, &owner("a")).unwrap();
    let store = Database::new(settings.clone()).unwrap();
    for error in [
        store.probe().await.unwrap_err(),
        migrate::plan(&settings).await.unwrap_err(),
    ] {
        assert!(
            said(&error).contains("it must hold the password on its first line"),
            "{}",
            said(&error)
        );
        assert_eq!(error.class(), Class::Auth);
    }
    file.write_all(b"hush\n").unwrap();
    store.probe().await.unwrap();
    assert!(!format!("{settings:?}{store:?}").contains("hush"));
    file.as_file()
        .set_permissions(std::fs::Permissions::from_mode(0o644))
        .unwrap();
    let error = store.writer().await.unwrap_err();
    assert!(said(&error).contains("chmod o-rwx"), "{}", said(&error));
}

#[tokio::test]
async fn sessions_carry_the_owner_and_the_limits() {
    let platform = Platform::new().await;
    let rows = platform
        .fixture
        .sql
        .query(
            "SELECT DISTINCT application_name FROM pg_stat_activity WHERE datname = current_database() \
             AND usename = 'virt_writer' ORDER BY 1",
            &[],
        )
        .await
        .unwrap();
    let names: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let [writer, pool] = names.as_slice() else {
        panic!("{names:?}");
    };
    let number = writer.strip_prefix("virt-collector/a/copy-");
    assert!(
        number.is_some_and(|number| number.parse::<u64>().is_ok()),
        "{writer}"
    );
    assert_eq!(pool, "virt-collector/a/pool");

    // The server's own limits end a wait for a lock long before the client's deadline.
    platform
        .fixture
        .sql
        .batch_execute("BEGIN; LOCK TABLE virt_vm IN ACCESS EXCLUSIVE MODE")
        .await
        .unwrap();
    let start = Instant::now();
    let error = platform
        .store
        .sync_inventory(&platform.lease, &inventory(), stamp(0))
        .await
        .unwrap_err();
    assert_eq!(error.class(), Class::Retry, "{}", said(&error));
    assert!(
        (Duration::from_secs(4)..Duration::from_secs(60)).contains(&start.elapsed()),
        "{:?}",
        start.elapsed()
    );
}

/// A server that speaks just enough of the protocol: answers the request for TLS, then shakes hands if it can.
async fn tls_server(certificate: Option<rcgen::CertifiedKey<rcgen::KeyPair>>) -> u16 {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = certificate.map(|certificate| {
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(certificate.signing_key.serialize_der().into());
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.cert.der().clone()], key)
            .unwrap();
        tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config))
    });
    tokio::task::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 8];
            if stream.read_exact(&mut request).await.is_err() {
                continue;
            }
            match &acceptor {
                None => drop(stream.write_all(b"N").await),
                Some(acceptor) => {
                    if stream.write_all(b"S").await.is_ok() {
                        drop(acceptor.accept(stream).await);
                    }
                }
            }
        }
    });
    port
}

#[tokio::test]
async fn a_remote_server_must_have_a_certificate_that_is_trusted_and_for_its_name() {
    let certificate = |name: &str| rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let attempt = async |port: u16, ca_file: Option<&std::path::Path>| {
        let url = format!("host=localhost port={port} user=virt_writer dbname=virt");
        let (database, account) = configured(
            &url,
            None,
            DatabaseTls::VerifyFull {
                ca_file: ca_file.map(Into::into),
            },
        );
        let store = Database::new(Settings::new(&database, &account, &owner("a")).unwrap()).unwrap();
        said(&store.probe().await.unwrap_err())
    };
    let pem = |text: String| {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    };

    let said = attempt(tls_server(None).await, None).await;
    assert!(
        said.contains("does not support TLS") && said.contains("look at sslmode"),
        "{said}"
    );

    let ours = certificate("localhost");
    let ours_file = pem(ours.cert.pem());
    let port = tls_server(Some(ours)).await;
    let said = attempt(port, None).await;
    assert!(
        said.contains("set ca_file to the authority that signed it"),
        "{said}"
    );
    // Trusted: the next failure is that our server knows no more of the protocol.
    let said = attempt(port, Some(ours_file.path())).await;
    assert!(said.contains("the server closed the connection"), "{said}");

    let other = certificate("db.example.com");
    let other_file = pem(other.cert.pem());
    let said = attempt(tls_server(Some(other)).await, Some(other_file.path())).await;
    assert!(said.contains("its certificate is for another name"), "{said}");

    let (database, account) = configured(
        "host=localhost user=virt_writer",
        None,
        DatabaseTls::VerifyFull {
            ca_file: Some("/nonexistent.pem".into()),
        },
    );
    let error = Settings::new(&database, &account, &owner("a")).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("cannot read certificates from /nonexistent.pem"),
        "{error}"
    );
}

/// Notes who writes which table, and how long its session lets a COMMIT wait. With the rights of a superuser.
const WITNESS: &str = "\
CREATE TABLE witness (written text, application text, setting text, source text);
CREATE FUNCTION witness() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO public.witness
    SELECT TG_TABLE_NAME, current_setting('application_name'), setting, source
    FROM pg_catalog.pg_settings WHERE name = 'synchronous_commit';
    RETURN NULL;
END
$$;
DO $$
DECLARE
    written regclass;
BEGIN
    FOR written IN SELECT oid FROM pg_class
                   WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname LIKE 'virt\\_%'
    LOOP
        EXECUTE format('CREATE TRIGGER witness AFTER INSERT OR UPDATE OR DELETE ON %s EXECUTE FUNCTION witness()', written);
    END LOOP;
END
$$";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_commit_of_the_daemon_lasts_whatever_the_server_says_and_will_say() {
    // Where a standby is waited for or not is the operator's choice; that the disk is waited for is ours.
    for (said, kept) in [("off", "on"), ("local", "local")] {
        let rig = Rig::new(small()).await;
        let sql = rig.database.connect(Role::Superuser).await.unwrap();
        let database = rig.database.name();
        let changed = format!("ALTER DATABASE {database} SET synchronous_commit = {said}; {WITNESS}");
        sql.batch_execute(&changed).await.unwrap();
        let daemon = rig.start().await;
        daemon.make_rollups().await;
        daemon.stop().await;
        let rows = sql
            .query(
                "SELECT DISTINCT setting, source, array_agg(DISTINCT written),
                        array_agg(DISTINCT regexp_replace(application, '^virt-collector/[^/]*/|[0-9]+$', '', 'g'))
                 FROM witness GROUP BY 1, 2",
                &[],
            )
            .await
            .unwrap();
        let [row] = rows.as_slice() else {
            panic!("{said}: sessions differ: {rows:?}");
        };
        // A session that has set it itself is out of reach of `ALTER SYSTEM` and a reload.
        let (setting, source): (&str, &str) = (row.get(0), row.get(1));
        assert_eq!((setting, source), (kept, "session"), "{said}");
        let (written, sessions): (Vec<String>, Vec<String>) = (row.get(2), row.get(3));
        for table in [
            "virt_vm_metrics",
            "virt_vm",
            "virt_platform",
            "virt_platform_lease",
        ] {
            assert!(written.iter().any(|name| name == table), "{table}: {written:?}");
        }
        assert!(
            sessions.starts_with(&["copy-".to_owned(), "pool".to_owned()]),
            "{sessions:?}"
        );
    }
}

/// Every account of the database may notify. Who listens is told of all of it, but not of each.
#[tokio::test]
async fn notifications_without_end_are_a_reason_to_look_ten_times_a_second_at_most() {
    let fixture = Fixture::new().await;
    let listener = fixture.store("a").listen_to_registry().await.unwrap();
    let began = Instant::now();
    let notify = async {
        for _ in 0..1_000 {
            fixture.sql.batch_execute("NOTIFY virt_registry").await.unwrap();
        }
    };
    let count = async {
        let mut heard = 0_u128;
        loop {
            assert!(listener.heard().await);
            heard += 1;
            let most = began.elapsed().as_millis() / 100 + 1;
            assert!(heard <= most, "{heard} times, of {most} at most");
        }
    };
    tokio::select! {
        () = notify => {}
        () = count => {}
    }
    // The last one is not lost in the pause.
    fixture.sql.batch_execute("NOTIFY virt_registry").await.unwrap();
    assert!(listener.heard().await);
}
