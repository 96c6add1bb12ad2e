//! `config.example.toml` is the manual of the configuration: it has every key, and the defaults it names are true.

use std::path::Path;

use virt_collector::config::Config;

const PATH: &str = "/etc/virt-collector/config.toml";

fn example() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config.example.toml")).unwrap()
}

fn parse(text: &str) -> Config {
    Config::parse(text, Path::new(PATH)).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Commented-out keys, `#key = value`; prose has a space behind the `#`.
fn is_default(line: &str) -> bool {
    line.strip_prefix('#')
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()))
}

#[test]
fn every_default_of_the_example_is_the_default() {
    let as_written = parse(&example());
    for line in example().lines().filter(|line| is_default(line)) {
        // The three kinds of trust exclude each other and have examples, not defaults; so have the keys of an
        // API that is off.
        if [
            "ca_file",
            "thumbprint",
            "tls_certificate_file",
            "tls_key_file",
            "listen = \"127.0.0.1:9274\"",
        ]
        .iter()
        .any(|key| line.starts_with(&format!("#{key}")))
        {
            continue;
        }
        let spelled_out = example().replacen(&format!("\n{line}\n"), &format!("\n{}\n", &line[1..]), 1);
        assert_ne!(spelled_out, example(), "{line}");
        assert_eq!(parse(&spelled_out), as_written, "{line} is not the default");
    }
}

#[test]
fn the_example_has_every_key() {
    // A wrong type for an unknown key says "unknown field"; the error lists the keys that there are.
    for table in [
        "",
        "[database]",
        "[database.owner]",
        "[keys]",
        "[collection]",
        "[inventory]",
        "[retention]",
        "[admin]",
        "[api]",
        "[log]",
        "[[platform]]",
    ] {
        let text = if table.is_empty() {
            format!("no_such_key = 1\n{}", example())
        } else {
            example().replacen(
                &format!("\n{table}\n"),
                &format!("\n{table}\nno_such_key = 1\n"),
                1,
            )
        };
        let error = Config::parse(&text, Path::new(PATH)).unwrap_err().to_string();
        let expected = error
            .split_once("expected one of")
            .or_else(|| error.split_once("expected "))
            .unwrap()
            .1;
        let keys: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
        assert!(!keys.is_empty(), "{error}");
        for key in keys {
            let documented = example().lines().any(|line| {
                let line = line.strip_prefix('#').unwrap_or(line);
                line.starts_with(&format!("{key} ="))
                    || line == format!("[{key}]")
                    || line == format!("[[{key}]]")
                    || line == format!("[database.{key}]")
            });
            assert!(documented, "{key} of {table} is not in config.example.toml");
        }
    }
}
