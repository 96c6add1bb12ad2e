//! What a package ships of the command line: completions and the manual page.

use std::io::Write as _;
use std::process::{Command, Stdio};

use super::run;

#[test]
fn each_shell_gets_a_script_that_knows_the_commands() {
    for (shell, mark) in [
        ("bash", "complete -F "),
        ("zsh", "#compdef virt-collector"),
        ("fish", "complete -c virt-collector"),
    ] {
        let (code, script) = run(&["completions", shell]);
        assert_eq!(code, 0, "{script}");
        for word in [mark, "check", "status", "snapshot", "--config"] {
            // fish writes options by their names alone.
            let word = if shell == "fish" {
                word.trim_start_matches('-')
            } else {
                word
            };
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    assert_eq!(run(&["completions", "tcsh"]).0, 64);

    // Where there is a bash, it must take its script.
    let (_, script) = run(&["completions", "bash"]);
    let bash = Command::new("bash").args(["-n"]).stdin(Stdio::piped()).spawn();
    if let Ok(mut bash) = bash {
        bash.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        assert!(bash.wait().unwrap().success());
    }
}

#[test]
fn the_manual_page_is_roff_and_no_part_of_the_help() {
    let (code, page) = run(&["man"]);
    assert_eq!(code, 0, "{page}");
    assert!(page.contains(".TH virt-collector 8"), "{page}");
    for value in [
        "\nshutdown\\-guest: Ask the guest to shut down\n",
        "\nDefault: 90d\n",
    ] {
        assert!(page.contains(value), "{value:?}\n{page}");
    }
    let (_, help) = run(&["--help"]);
    assert!(!help.contains("\n  man "), "{help}");
}
