//! No secret is printed, whatever happens: each one that the collector is given is a word of its own, and is looked
//! for in everything that it writes.
//!
//! The real binary, with logs at the most talkative level. Wrong passwords, certificates and databases, sessions that
//! end, connections that are cut, and replies that break off; then log files, metrics, every table, the log of
//! the database with every statement and parameter, what each command wrote and the API answered, arguments and
//! environment. That no core file is written, and that a panic tells nothing of what was being worked on, has tests of
//! its own: `security.rs`, and `src/cli/panics.rs`.
#![expect(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail loudly and have no supervisor"
)]

use std::path::Path;
use std::time::Duration;

use support::collector::{Collector, Platform, Settings, Trust};
use support::database::{Database, Role};
use support::process;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_postgres::Client;
use virt_collector::config::PlatformKind;
use virt_collector::secret::{Place, Secret, key_file};
use virt_collector::store;
use virt_collector::store::registry::Address;
use vsphere_simulator::{Action, Rule, Simulator, Spec};

mod places;
mod secrets;

use places::{Api, behind, dump, refusing_database, run, server_log};
use secrets::{Secrets, forms};

/// For whatever should happen soon, on a machine as slow as it likes.
const DEADLINE: Duration = Duration::from_secs(90);

/// The commands that this test runs. Another one is to be added here, with what it may be asked.
const COMMANDS: [&str; 11] = [
    "run",
    "check",
    "completions",
    "gaps",
    "key",
    "migrate",
    "platform",
    "status",
    "sync",
    "token",
    "vm",
];

async fn until_sql(what: &str, sql: &Client, condition: &str) {
    process::until_sql(what, sql, condition, DEADLINE)
        .await
        .unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_is_in_logs_metrics_tables_or_output_whatever_fails() {
    let mut secrets = Secrets::default();
    let directory = tempfile::tempdir().unwrap();
    let database = Database::create().await.unwrap_or_else(|error| panic!("{error}"));
    let sql = database.connect(Role::Superuser).await.unwrap();
    // The server writes down all that it is told, in this database.
    let server_log = server_log(&sql).await;
    let before = server_log
        .as_ref()
        .map_or(0, |path| std::fs::metadata(path).unwrap().len());
    for setting in [
        "log_statement = 'all'",
        "log_min_duration_statement = 0",
        "log_min_messages = 'debug1'",
        "log_min_error_statement = 'debug5'",
        "log_error_verbosity = 'verbose'",
        "log_parameter_max_length = -1",
        "log_parameter_max_length_on_error = -1",
    ] {
        sql.batch_execute(&format!("ALTER DATABASE {} SET {setting}", database.name()))
            .await
            .unwrap();
    }

    // Platforms: one that is well, one whose password is wrong, one whose certificate is another.
    let small = |password: String| Spec {
        vms: 4,
        hosts: 1,
        password,
        ..Spec::default()
    };
    let simulator = Simulator::start(small(secrets.password("the platform's password")))
        .await
        .unwrap();
    let other = Simulator::start(small(secrets.password("the password that was not given")))
        .await
        .unwrap();
    let well = Platform::simulated("well", &simulator);
    let refused = Platform {
        name: "refused".to_owned(),
        password: secrets.password("a wrong password"),
        ..Platform::simulated("refused", &other)
    };
    let mistaken = Platform {
        name: "mistaken".to_owned(),
        password: secrets.password("the password for another certificate"),
        trust: Trust::Thumbprint("ab".repeat(32)),
        ..well.clone()
    };
    // The first answers to a query for samples break off, are none, and say that something is wrong.
    for action in [
        Action::Truncate { at: 500 },
        Action::Status {
            code: 503,
            body: None,
        },
        Action::Fault {
            fault: "RuntimeFault".to_owned(),
            message: "out of order".to_owned(),
        },
    ] {
        simulator.rules().add(Rule {
            method: Some("QueryPerf".to_owned()),
            object: None,
            skip: 0,
            times: Some(1),
            action,
        });
    }

    let api = process::free_address().unwrap();
    let settings = Settings {
        interval: Duration::from_secs(20),
        discovery_interval: Duration::from_secs(20),
        more: format!(
            "[log]\nlevel = \"trace\"\n[api]\nlisten = \"{api}\"\ntls_certificate_file = \"api.pem\"\n\
             tls_key_file = \"api.key\"\n"
        ),
        ..Settings::on(&database, vec![well, refused, mistaken]).unwrap()
    };
    let program = Path::new(env!("CARGO_BIN_EXE_virt-collector"));
    let mut collector = Collector::prepare(program, directory.path(), &settings).unwrap();
    let config = collector.config_file();
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(directory.path().join("api.pem"), made.cert.pem()).unwrap();
    let key = made.signing_key.serialize_pem();
    std::fs::write(directory.path().join("api.key"), &key).unwrap();
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(directory.path().join("api.key"), private).unwrap();
    for (index, line) in key.lines().filter(|line| line.len() == 64).enumerate() {
        secrets.add(&format!("line {index} of the API's private key"), line);
    }
    // Behind 36 bytes that say what it is.
    let number = made.signing_key.serialize_der().get(36..68).unwrap().to_vec();
    let digits = number
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>();
    secrets.add("the API's private key in digits", &digits);
    let list = number.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    secrets.add("the API's private key in bytes", &list);
    // The same with passwords for both accounts of the database, and with a database that refuses them.
    let written = std::fs::read_to_string(&config).unwrap();
    let with_passwords = |text: &str| {
        text.replacen(
            "[database]\n",
            "[database]\npassword_file = \"writer.password\"\n",
            1,
        )
        .replacen(
            "[database.owner]\n",
            "[database.owner]\npassword_file = \"owner.password\"\n",
            1,
        )
    };
    std::fs::write(&config, with_passwords(&written)).unwrap();
    for (file, what) in [
        ("writer.password", "the writer's database password"),
        ("owner.password", "the owner's database password"),
    ] {
        let path = directory.path().join(file);
        std::fs::write(&path, secrets.password(what) + "\n").unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
    let (refusing, told) = refusing_database().await;
    let elsewhere = directory.path().join("elsewhere.toml");
    let url = |role: &str| format!("postgresql://{role}@{refusing}/virt");
    std::fs::write(
        &elsewhere,
        with_passwords(&written)
            .replace(&database.url(Role::Writer), &url("virt_writer"))
            .replace(&database.url(Role::Owner), &url("virt_owner")),
    )
    .unwrap();

    // A key ring, and the password of a platform of the registry that is sealed with it.
    let mut said = run("migrate --dry-run", &config, None).await;
    said += &run("migrate", &config, None).await;
    said += &run("key init", &config, None).await;
    let loaded = virt_collector::config::Config::load(&config).unwrap();
    let of_writer = |account| store::Settings::new(&loaded.database, account, &store::Owner::random());
    let stored = store::Database::new(of_writer(&loaded.database.writer).unwrap()).unwrap();
    for (platform, damaged) in [("sealed", false), ("damaged", true)] {
        let address = Address::new(PlatformKind::VCenter, "vc.example.com", 443);
        let adding = stored.add_platform(platform, &address, true).await.unwrap();
        let place = Place::password_of(adding.id().0 + i32::from(damaged));
        let password = secrets.password(&format!("the {platform} password"));
        let ring = key_file::load(&loaded.keys.file).unwrap();
        let sealed = ring.seal(place, &Secret::new(password)).unwrap();
        adding.finish(&sealed).await.unwrap();
    }
    let given = directory.path().join("given.password");
    std::fs::write(&given, secrets.password("the password of added platforms") + "\n").unwrap();
    std::fs::set_permissions(&given, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();

    // A token, and one that is nobody's.
    let token = directory.path().join("token");
    said += &run(
        &format!(
            "token create canary --role admin --output-file {}",
            token.display()
        ),
        &config,
        None,
    )
    .await;
    let text = std::fs::read_to_string(&token).unwrap();
    // Behind the second one, it may hold more of them.
    secrets.add("a token", text.trim().splitn(3, '_').nth(2).unwrap());
    let guess = format!(
        "vc_1_{}",
        uuid::Uuid::new_v4()
            .simple()
            .to_string()
            .repeat(2)
            .get(..43)
            .unwrap()
    );
    secrets.add("a guessed token", &guess);

    // The service, while things go wrong.
    collector.start().await.unwrap();
    collector.ready(DEADLINE).await.unwrap();
    let status = |platform: &str, class: &str| {
        format!(
            "SELECT coalesce(status_class, status) = '{class}' FROM virt_platform WHERE name = '{platform}'"
        )
    };
    // The API, by who may and by who may not, and by who sends a password.
    for words in ["vm list", "vm list --output json", "vm show nobody"] {
        said += &run(
            &format!(
                "{words} --token-file {} --ca-file {}",
                token.display(),
                directory.path().join("api.pem").display()
            ),
            &config,
            None,
        )
        .await;
    }
    let sent = format!(
        "{{\"name\": \"sent\", \"host\": \"127.0.0.1\", \"user\": \"u\", \"untested\": true, \"password\": {}}}",
        serde_json::Value::from(secrets.password("a password that was sent to the API"))
    );
    let client = Api::new(api, made.cert.der());
    let base = "/api/virt-center";
    let bearer = |token: &str| format!("authorization: Bearer {token}\r\n");
    let json = "content-type: application/json\r\n";
    let mut answered = String::new();
    for (token, body, status) in [
        (text.trim(), sent.as_str(), "201"),
        (text.trim(), &sent.replacen("\"password\"", "\"pass\"", 1), "400"),
        (
            text.trim(),
            &sent.replacen("{\"name\": \"sent\"", "{\"name\": [", 1),
            "400",
        ),
        (guess.as_str(), &sent, "401"),
    ] {
        let request = format!("POST {base}/platforms/");
        let answer = client.ask(&request, &(bearer(token) + json), body).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        answered += &answer;
    }
    let again = format!(
        "{{\"password\": {}, \"untested\": true}}",
        serde_json::Value::from(secrets.password("a password that was set by the API"))
    );
    let id: i32 = sql
        .query_one("SELECT platform_id FROM virt_platform WHERE name = 'sent'", &[])
        .await
        .unwrap()
        .get(0);
    let request = format!("PUT {base}/platforms/{id}/credentials/");
    let answer = client.ask(&request, &(bearer(text.trim()) + json), &again).await;
    assert!(answer.starts_with("HTTP/1.1 2"), "{answer}");
    answered += &answer;
    // A token where none belongs, and secrets of others that came along.
    for what in [
        "a token in the query",
        "a cookie",
        "a password of another scheme",
        "a key of another proxy",
    ] {
        secrets.password(what);
    }
    let lost = |what: &str| secrets.0[what].clone();
    let query = format!("GET {base}/vms/?token={}", lost("a token in the query"));
    for headers in [
        bearer(text.trim()),
        bearer(text.trim()) + &format!("cookie: session={}\r\n", lost("a cookie")),
        format!(
            "authorization: Basic {}\r\n",
            lost("a password of another scheme")
        ),
        bearer(text.trim()) + &format!("x-api-key: {}\r\n", lost("a key of another proxy")),
    ] {
        answered += &client.ask(&query, &headers, "").await;
    }
    for path in [
        "/livez",
        "/readyz",
        "/openapi.json",
        "/nowhere",
        "/api/virt-center/platforms/",
        "/api/virt-center/vms/",
        "/api/virt-center/hosts/",
        "/api/virt-center/operations/",
        "/api/virt-center/audit/",
        "/api/virt-center/vms/2147483647/",
    ] {
        answered += &client.ask(&format!("GET {path}"), &bearer(text.trim()), "").await;
    }
    until_sql(
        "the wrong password to be refused",
        &sql,
        &status("refused", "auth"),
    )
    .await;
    until_sql(
        "the other certificate to be seen",
        &sql,
        &status("mistaken", "tls"),
    )
    .await;
    let rows = "SELECT count(*) > 0 FROM virt_vm_metrics";
    until_sql("samples", &sql, rows).await;
    let logins = simulator.sessions().stats().logins;
    simulator.sessions().expire_all();
    process::until("another login", DEADLINE, || async {
        let stats = simulator.sessions().stats();
        if stats.logins > logins {
            Ok(())
        } else {
            Err(format!("{stats:?}"))
        }
    })
    .await
    .unwrap();
    sql.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'virt_writer' \
         AND datname = current_database()",
        &[],
    )
    .await
    .unwrap();
    let log = collector.log();
    process::until("the lost connection in the log", DEADLINE, || async {
        let log = std::fs::read_to_string(&log).unwrap();
        if log.contains("connection lost") {
            Ok(())
        } else {
            Err(format!("{} bytes", log.len()))
        }
    })
    .await
    .unwrap();

    // What others see of the process.
    let pid = collector.pid().unwrap();
    let mut seen = String::new();
    for file in ["cmdline", "environ", "limits"] {
        match std::fs::read(format!("/proc/{pid}/{file}")) {
            Ok(bytes) => seen.push_str(&String::from_utf8_lossy(&bytes)),
            // Not even its own account looks in, only root.
            Err(error) => assert_eq!(
                (file, error.kind()),
                ("environ", std::io::ErrorKind::PermissionDenied)
            ),
        }
    }
    let mut metrics = collector.metrics().await.unwrap();
    for page in ["livez", "readyz", "nothing"] {
        let mut stream = TcpStream::connect(settings.listen).await.unwrap();
        let request = format!("GET /{page} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.read_to_string(&mut metrics).await.unwrap();
    }
    assert!(metrics.contains("virt_collector_logins_total"), "{metrics}");
    collector.end(DEADLINE).await.unwrap();

    // Each command, where it goes well, where the database refuses the password, and where nothing can be written.
    let ring = || std::fs::read_to_string(&loaded.keys.file).unwrap();
    let mut rings = ring();
    let names = |rings: &str| -> Vec<String> {
        let words = rings.split_whitespace().filter(|word| word.len() == 16);
        words.map(str::to_owned).collect()
    };
    let first = names(&rings).remove(0);
    said += &run("key add", &config, None).await;
    let second = names(&ring()).into_iter().find(|key| *key != first).unwrap();
    let (given, port) = (given.display(), simulator.addr().port());
    for words in [
        "check",
        "check --output json",
        "completions fish",
        "man",
        "status",
        "status --output json",
        "gaps",
        "gaps list --output json",
        "gaps --verify",
        "gaps retry",
        "platform list",
        "platform list --output json",
        "platform show sealed",
        "platform show damaged --output json",
        "platform test damaged",
        "platform test refused --output json",
        &format!("platform edit sealed --user u --untested --password-file {given}"),
        &format!("platform edit damaged --user u --port 1 --host 127.0.0.1 --password-file {given}"),
        &format!(
            "platform add added --host 127.0.0.1 --port {port} --user u --tls-verify false --password-file {given}"
        ),
        &format!(
            "platform add added --host 127.0.0.1 --user u --untested --output json --password-file {given}"
        ),
        "platform maintenance sealed on",
        "platform maintenance sealed off --output json",
        "platform deactivate sealed",
        "platform activate sealed",
        "platform accept-identity sealed --yes",
        "platform remove added",
        "platform remove added --yes",
        "sync sealed",
        "sync nobody --output json",
        "token list",
        "token list --output json",
        "token revoke canary",
        "key init",
        "key list",
        "key list --output json",
        "key verify",
        "key verify --output json",
        &format!("key promote {second}"),
        "key rewrap",
        "key rewrap --output json",
        &format!("key retire {first}"),
        "migrate",
    ] {
        said += &run(words, &config, None).await;
    }
    rings += &ring();
    for words in [
        "check",
        "status",
        "gaps",
        "key list",
        "key verify",
        "migrate",
        "platform list",
        "sync sealed",
        "token list",
    ] {
        said += &run(words, &elsewhere, None).await;
        said += &run(words, &config, Some(Path::new("/dev/full"))).await;
    }
    let words = run("--help", &config, None).await;
    let listed: Vec<&str> = words
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        // Words that go on in the next line are further to the right.
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|word| !word.is_empty() && *word != "help")
        .collect();
    for command in &listed {
        assert!(COMMANDS.contains(command), "this test does not run {command} yet");
    }
    assert_eq!(listed.len(), COMMANDS.len(), "{words}");

    for (index, key) in rings
        .split_whitespace()
        .filter(|word| word.len() == 64)
        .enumerate()
    {
        secrets.add(&format!("line {index} of the key ring"), key);
    }
    for (index, cookie) in simulator.sessions().cookies().iter().enumerate() {
        secrets.add(&format!("cookie {index}"), cookie);
    }
    let log = std::fs::read_to_string(&log).unwrap();
    let tables = dump(&sql).await;
    let server_said = server_log.as_ref().map(|path| behind(path, before));

    // All of it was used, and would be found.
    assert!(simulator.sessions().cookies().len() >= 2);
    assert!(other.sessions().stats().failed_logins > 0);
    for what in ["the writer's database password", "the owner's database password"] {
        assert!(
            told.lock().unwrap().contains(&secrets.0[what]),
            "{what} was not sent"
        );
    }
    assert!(!said.contains("panicked"), "{said}");
    for part in [
        "cannot write all of the result",
        "FAILED",
        "still seals the password",
        "password authentication failed",
    ] {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
    for part in [
        "HTTP/1.1 201",
        "bad_body",
        "unauthenticated",
        "bad_query",
        "\"sent\"",
    ] {
        assert!(answered.contains(part), "{part} is not in\n{answered}");
    }
    if let Some(server_said) = &server_said {
        // The seal, as the parameter of a statement.
        for part in [
            "INSERT INTO virt_platform_credential",
            "parameters: $1 = ",
            "'\\x02",
        ] {
            assert!(server_said.contains(part), "{part} is not in the server's log");
        }
    } else {
        eprintln!("not run: the server's log is no file that can be read here");
    }
    let core = seen.lines().find(|line| line.starts_with("Max core file size"));
    assert_eq!(
        core.map(|line| line.split_whitespace().filter(|word| *word == "0").count()),
        Some(2),
        "{core:?}"
    );
    for part in ["TRACE", "DEBUG", "refused", "HTTP 503", "connection lost"] {
        assert!(log.contains(part), "{part} is not in the log");
    }
    assert!(
        tables.contains("-- public.virt_platform_credential") && tables.contains("\\\\x01"),
        "{tables}"
    );
    for (what, secret) in &secrets.0 {
        for form in forms(secret) {
            assert!(secrets.found_in(&format!("x{form}y")).contains(&what.as_str()));
        }
    }

    let leaks: Vec<(&str, Vec<&str>)> = [
        ("the log", &log),
        ("/metrics", &metrics),
        ("a table", &tables),
        ("the log of the database", &server_said.unwrap_or_default()),
        ("what commands wrote", &said),
        ("what the API answered", &answered),
        ("arguments or environment", &seen),
    ]
    .into_iter()
    .map(|(place, text)| (place, secrets.found_in(text)))
    .filter(|(_, found)| !found.is_empty())
    .collect();
    assert!(leaks.is_empty(), "{leaks:#?}");
}
