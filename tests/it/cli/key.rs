//! `virt-collector key`, from the first key to the retirement of the first.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use support::database::{Database, Role};
use support::process;
use tokio_postgres::Client;
use virt_collector::app::App;
use virt_collector::collect::live::PollReport;
use virt_collector::config::{Config, PlatformKind};
use virt_collector::model::ids::PlatformId;
use virt_collector::secret::{Place, Secret, key_file};
use virt_collector::store;
use virt_collector::store::registry::Address;

use super::run;
use crate::rig::{PLATFORM, Rig, assert_whole, recorder, small};

/// A migrated database, a configuration that names it, and whoever runs commands there.
struct Operator {
    directory: tempfile::TempDir,
    database: Database,
    store: store::Database,
    sql: Client,
}

impl Operator {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::create().await.unwrap_or_else(|error| panic!("{error}"));
        let path = directory.path().join("config.toml");
        let text = format!(
            "[database]\nurl = \"{}\"\n[database.owner]\nurl = \"{}\"\n",
            database.url(Role::Writer),
            database.url(Role::Owner)
        );
        std::fs::write(&path, &text).unwrap();
        let config = virt_collector::config::Config::load(&path).unwrap();
        let settings =
            |account| store::Settings::new(&config.database, account, &store::Owner::random()).unwrap();
        store::migrate::apply(&settings(config.database.owner.as_ref().unwrap()))
            .await
            .unwrap();
        Self {
            sql: database.connect(Role::Superuser).await.unwrap(),
            store: store::Database::new(settings(&config.database.writer)).unwrap(),
            directory,
            database,
        }
    }

    fn key(&self, words: &str) -> (i32, String) {
        let config = self.directory.path().join("config.toml");
        let arguments: Vec<&str> = std::iter::once("key")
            .chain(words.split_whitespace())
            .chain(["--config", config.to_str().unwrap()])
            .collect();
        run(&arguments)
    }

    #[track_caller]
    fn json(&self, words: &str) -> serde_json::Value {
        let (code, text) = self.key(&format!("{words} --output json"));
        assert_eq!(code, 0, "{text}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    fn ring(&self) -> PathBuf {
        self.directory.path().join("keyring")
    }

    /// Stores a password as the commands of the registry do.
    async fn set_password(&self, platform: &str, password: &str) {
        let ring = key_file::load(&self.ring()).unwrap();
        let seal = |id: PlatformId| {
            ring.seal(Place::password_of(id.0), &Secret::new(password))
                .unwrap()
        };
        let address = Address::new(PlatformKind::VCenter, "vc.example.com", 443);
        if let Ok(row) = self.store.registered_platform(platform).await {
            let sealed = Some(&seal(row.id));
            self.store.edit_platform(&row, &address, sealed).await.unwrap();
        } else {
            let adding = self.store.add_platform(platform, &address, true).await.unwrap();
            let sealed = seal(adding.id());
            adding.finish(&sealed).await.unwrap();
        }
    }
}

fn word(value: &serde_json::Value) -> String {
    value.as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_key_is_replaced_without_a_password_being_lost_or_shown() {
    let operator = Operator::new().await;
    let mut said = String::new();
    let mut key = |words: &str| {
        let (code, text) = operator.key(words);
        said.push_str(&text);
        (code, text)
    };

    let (code, text) = key("list");
    assert!(code == 78 && text.contains("virt-collector key init"), "{text}");
    let (code, text) = key("init");
    assert_eq!(code, 0, "{text}");
    let mode = std::fs::metadata(operator.ring()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o400);
    let made = std::fs::read_to_string(operator.ring()).unwrap();
    let (code, text) = key("init");
    assert!(code == 1 && text.contains("exists already"), "{text}");
    assert_eq!(std::fs::read_to_string(operator.ring()).unwrap(), made);

    operator.set_password("berlin", "geheim-berlin").await;
    operator.set_password("munich", "geheim-munich").await;
    assert_eq!(key("verify").0, 0);
    let first = word(&operator.json("list")["keys"][0]["key"]);
    assert_eq!(
        operator.json("list"),
        serde_json::json!({
            "keys": [{ "key": first, "primary": true, "passwords": 2, "tokens": 0 }], "without_key": [],
        })
    );

    // A password set between the two keeps its key until it is rewrapped.
    let second = word(&operator.json("add")["added"]);
    operator.set_password("munich", "geheim-munich-2").await;
    let (code, text) = key(&format!("retire {first}"));
    assert!(code == 1 && text.contains("promote another one first"), "{text}");
    assert_eq!(key(&format!("promote {second}")).0, 0);
    let (code, text) = key(&format!("retire {first}"));
    assert!(
        code == 1 && text.contains("still seals the passwords of berlin, munich"),
        "{text}"
    );
    let (code, text) = key("verify");
    assert!(
        code == 0 && text.contains("which is not the primary one"),
        "{text}"
    );
    assert_eq!(
        operator.json("rewrap"),
        serde_json::json!({ "primary": second, "rewrapped": ["berlin", "munich"], "left": [] })
    );
    let (code, text) = key("rewrap");
    assert_eq!(
        (code, text),
        (
            0,
            format!("sealed 0 passwords anew with key {second}\nNext: virt-collector key retire {first}\n")
        )
    );
    assert_eq!(
        operator.json(&format!("retire {first}"))["retired"],
        first.as_str()
    );
    assert_eq!(
        operator.json("list")["keys"],
        serde_json::json!([{ "key": second, "primary": true, "passwords": 2, "tokens": 0 }])
    );
    let (code, text) = key("verify");
    assert_eq!(code, 0, "{text}");

    let ring = key_file::load(&operator.ring()).unwrap();
    for (credential, password) in operator
        .store
        .credentials()
        .await
        .unwrap()
        .iter()
        .zip(["geheim-berlin", "geheim-munich-2"])
    {
        let opened = ring.open(credential.place, &credential.sealed).unwrap();
        assert_eq!(opened.expose(), password);
    }
    let keys = made + &std::fs::read_to_string(operator.ring()).unwrap();
    let keys = keys.split_whitespace().filter(|word| word.len() == 64);
    for secret in keys.chain(["geheim"]) {
        assert!(!said.contains(secret), "{said}");
    }
}

#[tokio::test]
async fn a_password_that_does_not_open_is_named_with_its_reason_and_no_other_is() {
    let operator = Operator::new().await;
    assert_eq!(operator.key("init").0, 0);
    for platform in ["damaged", "moved", "short", "strange", "well"] {
        operator
            .set_password(platform, &format!("geheim-{platform}"))
            .await;
    }
    let first = word(&operator.json("list")["keys"][0]["key"]);
    let of = "WHERE platform_id = (SELECT platform_id FROM virt_platform WHERE name";
    operator
        .sql
        .batch_execute(&format!(
            "UPDATE virt_platform_credential SET sealed = set_bit(sealed, 300, 1 - get_bit(sealed, 300)) {of} = 'damaged');
             UPDATE virt_platform_credential SET sealed = substr(sealed, 1, 20) {of} = 'short');
             UPDATE virt_platform_credential SET sealed = set_byte(sealed, 3, get_byte(sealed, 3) # 255) {of} = 'strange');
             UPDATE virt_platform_credential
             SET sealed = (SELECT sealed FROM virt_platform_credential {of} = 'well')) {of} = 'moved');"
        ))
        .await
        .unwrap();

    let (code, text) = operator.key("verify");
    assert_eq!(code, 1, "{text}");
    for (platform, state, reason) in [
        ("damaged", "FAILED", "does not open the sealed password"),
        (
            "moved",
            "FAILED",
            "it was sealed for another platform or another server, or is damaged",
        ),
        ("short", "FAILED", "cut short, 20 bytes are left"),
        ("strange", "FAILED", "which the key ring does not have"),
        ("well", "ok", "opens with key"),
    ] {
        let line = text.lines().find(|line| line.starts_with(platform)).unwrap();
        assert!(line.contains(state) && line.contains(reason), "{line}");
    }
    assert_eq!(text.lines().count(), 5, "{text}");
    let (_, text) = operator.key("verify --output json");
    let verified: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&verified["ok"], &verified["passwords"][4]["ok"]),
        (&false.into(), &true.into())
    );
    assert!(!text.contains("geheim"), "{text}");

    // What does not open is left alone, and keeps its key from being retired as far as that can be told.
    let second = word(&operator.json("add")["added"]);
    assert_eq!(operator.key(&format!("promote {second}")).0, 0);
    let (code, text) = operator.key("rewrap --output json");
    assert_eq!(code, 1, "{text}");
    let outcome: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(outcome["rewrapped"], serde_json::json!(["well"]));
    assert_eq!(outcome["left"].as_array().unwrap().len(), 4, "{text}");
    let (code, text) = operator.key(&format!("retire {first}"));
    assert!(
        code == 1 && text.contains("still seals the passwords of damaged, moved"),
        "{text}"
    );
    let listed = operator.json("list");
    assert_eq!(listed["without_key"], serde_json::json!(["short", "strange"]));
}

#[tokio::test]
async fn a_key_ring_that_cannot_be_used_says_why_and_what_to_do() {
    let operator = Operator::new().await;
    assert_eq!(operator.key("init").0, 0);
    let set_mode = |mode| {
        std::fs::set_permissions(operator.ring(), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    set_mode(0o644);
    for command in ["list", "add", "rewrap", "verify", "promote 0123456789abcdef"] {
        let (code, text) = operator.key(command);
        assert!(
            code == 78 && text.contains("run: chmod 0400"),
            "{command}: {code} {text}"
        );
    }
    set_mode(0o600);
    let (code, text) = operator.key("promote 0123456789abcdef");
    assert!(
        code == 1 && text.contains("has no key 0123456789abcdef"),
        "{text}"
    );
    assert_eq!(operator.key("retire geheim").0, 64);

    let text = std::fs::read_to_string(operator.ring()).unwrap();
    let key = text.split_whitespace().next_back().unwrap().to_owned();
    let other_digit = if key.ends_with('0') { "1" } else { "0" };
    let damaged = format!("{}{other_digit}\n", &text.trim_end()[..text.trim_end().len() - 1]);
    std::fs::write(operator.ring(), damaged).unwrap();
    let (code, said) = operator.key("verify");
    assert!(code == 78 && said.contains("line 4 holds another key"), "{said}");
    assert!(!said.contains(&key[8..]), "{said}");

    // Without the database nobody knows whether a key is in use.
    std::fs::write(operator.ring(), text).unwrap();
    let second = word(&operator.json("add")["added"]);
    operator.database.drop_now().await.unwrap();
    let config = operator.directory.path().join("config.toml");
    let (code, said) = run(&["key", "retire", &second, "--config", config.to_str().unwrap()]);
    assert!(code == 1 && said.contains("database"), "{said}");
    assert_eq!(
        key_file::load(&operator.directory.path().join("keyring"))
            .unwrap()
            .ids()
            .count(),
        2
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_key_is_replaced_no_sample_is_lost() {
    let rig = Rig::new(small()).await;
    let text = format!("[database]\nurl = \"{}\"\n", rig.database.url(Role::Writer));
    let path = rig.directory.path().join("config.toml");
    std::fs::write(&path, text).unwrap();
    // Off the runtime's threads: the simulator answers on them.
    let command = async |words: &str| {
        let words = words.to_owned();
        let path = path.clone();
        let (code, text) = tokio::task::spawn_blocking(move || {
            let mut words: Vec<&str> = words.split_whitespace().collect();
            words.extend(["--config", path.to_str().unwrap()]);
            run(&words)
        })
        .await
        .unwrap();
        assert_eq!(code, 0, "{text}");
        text
    };
    let keys = || -> Vec<String> {
        let ring = key_file::load(&rig.keys_file()).unwrap();
        ring.ids().map(|key| key.to_string()).collect()
    };
    let config = || Config {
        platforms: Vec::new(),
        ..rig.config()
    };
    command("key init").await;
    command(&format!(
        "platform add {PLATFORM} --host 127.0.0.1 --port {} --user {} --thumbprint {} --password-file {}",
        rig.simulator.addr().port(),
        rig.simulator.credentials().0,
        rig.simulator.leaf_sha256_thumbprint().unwrap(),
        rig.password_file().display()
    ))
    .await;
    let app = App::start(config(), recorder()).await.unwrap();
    polled(&app).await;
    // The hour before the first start, which the source forgets while the clock goes on.
    app.platform(PLATFORM).unwrap().back_fill_now().await.unwrap();

    command("key add").await;
    let [first, second] = keys().try_into().unwrap();
    rig.pass(Duration::from_secs(20 * 60));
    app.stop().await.unwrap();
    rig.pass(Duration::from_secs(10 * 60));
    let app = App::start(config(), recorder()).await.unwrap();
    polled(&app).await;

    command(&format!("key promote {second}")).await;
    command("key rewrap").await;
    command(&format!("key retire {first}")).await;
    assert_eq!(keys(), [second]);
    rig.pass(Duration::from_secs(2 * 60));
    // The platform was not stopped for it; its next login needs the key that is left.
    let logins = rig.simulator.sessions().stats().logins;
    rig.simulator.sessions().expire_all();
    polled(&app).await;
    assert_eq!(rig.simulator.sessions().stats().logins, logins + 1);
    app.platform(PLATFORM).unwrap().back_fill_now().await.unwrap();
    assert_whole(&rig.verdict().await);
    assert_eq!(rig.simulator.sessions().stats().failed_logins, 0);
    app.stop().await.unwrap();
}

/// Polls until a poll goes well: a platform that is being stopped has none, and one that starts has no session yet.
async fn polled(app: &App) {
    let poll = || async {
        let Some(platform) = app.platform(PLATFORM) else {
            return Err("it does not run".to_owned());
        };
        match platform.poll_now().await {
            Some(PollReport { error: None, .. }) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    };
    process::until("a poll that goes well", Duration::from_secs(60), poll)
        .await
        .unwrap_or_else(|error| panic!("{error}"));
}
