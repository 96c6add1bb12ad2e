//! The commands of this program in the README's running text and tables: each exists, with the options it is given.

use std::collections::BTreeSet;
use std::process::Command;

use super::readme;

/// What stands between back-ticks outside of fenced blocks, on one line.
pub(super) fn spans(text: &str) -> Vec<String> {
    let mut outside = String::new();
    for (index, part) in text.split("```").enumerate() {
        if index % 2 == 0 {
            outside.push_str(part);
        }
    }
    let spans = outside.split('`').skip(1).step_by(2);
    spans
        .map(|span| span.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

#[test]
fn every_command_in_the_text_is_one_and_has_the_options_that_it_is_given() {
    let readme = readme();
    let mut commands: BTreeSet<String> = spans(&readme)
        .iter()
        .filter_map(|span| span.strip_prefix("virt-collector "))
        .map(str::to_owned)
        .collect();
    // The table of platforms leaves the first word out.
    let (_, table) = readme.split_once("\n### Platforms\n").unwrap();
    let (table, _) = table.split_once("\n### ").unwrap();
    commands.extend(
        spans(table)
            .into_iter()
            .filter(|span| span.starts_with("platform ")),
    );
    assert!(commands.len() >= 25, "{commands:?}");

    for command in commands {
        let words: Vec<&str> = command.split(' ').collect();
        let path = words.iter().take_while(|word| {
            word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-')
        });
        let output = Command::new(env!("CARGO_BIN_EXE_virt-collector"))
            .args(path)
            .arg("--help")
            .output()
            .unwrap();
        let help = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{command}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        for option in words.iter().filter(|word| word.starts_with("--")) {
            assert!(
                help.contains(option.trim_end_matches(',')),
                "{command}: no {option} in\n{help}"
            );
        }
    }
}
