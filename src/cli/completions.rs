//! `virt-collector completions`, and the hidden `man`: what a package ships, written from the arguments themselves.

use std::io;
use std::io::Write as _;

use clap::{Args, CommandFactory as _, ValueEnum};
use clap_complete::aot::Shell;
use clap_mangen::Man;

use super::{Arguments, Failure, printed};

/// The name that is typed.
const NAME: &str = "virt-collector";

/// Print a completion script for a shell.
///
/// For example, for all users of a machine: virt-collector completions bash >
/// /usr/share/bash-completion/completions/virt-collector
#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell.
    #[arg(value_enum)]
    shell: Shells,
}

/// Shells that operators use.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shells {
    Bash,
    Zsh,
    Fish,
}

impl Completions {
    pub(super) fn execute(self) -> Result<(), Failure> {
        let shell = match self.shell {
            Shells::Bash => Shell::Bash,
            Shells::Zsh => Shell::Zsh,
            Shells::Fish => Shell::Fish,
        };
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Arguments::command(), NAME, &mut script);
        write_out(&script);
        Ok(())
    }
}

/// Print the manual page: all commands in one, section 8.
#[derive(Debug, Args)]
pub(super) struct Manual {}

impl Manual {
    pub(super) fn execute(self) -> Result<(), Failure> {
        let Self {} = self;
        let mut page = Vec::new();
        write_page(&mut page).map_err(Failure::other)?;
        write_out(&page);
        Ok(())
    }
}

/// One page for all: an operator looks for a word, not for the page that may have it.
fn write_page(page: &mut Vec<u8>) -> io::Result<()> {
    let mut command = Arguments::command();
    command.build();
    let man = Man::new(command.clone())
        .section("8")
        .manual("System administration");
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    writeln!(page, ".SH COMMANDS")?;
    for sub in command.get_subcommands() {
        write_command(page, sub, NAME, 1)?;
    }
    page.write_all(ENDING.as_bytes())
}

/// A command with its options, then those below it. Options that hold for all of them stand once, with the first.
fn write_command(page: &mut Vec<u8>, command: &clap::Command, before: &str, depth: usize) -> io::Result<()> {
    if command.is_hide_set() || command.get_name() == "help" {
        return Ok(());
    }
    let name = format!("{before} {}", command.get_name());
    writeln!(page, ".SS \"{}\"", escape(&name))?;
    let about = command.get_long_about().or_else(|| command.get_about());
    if let Some(about) = about {
        writeln!(page, "{}", escape(&about.to_string()).replace("\n\n", "\n.PP\n"))?;
    }
    let is_told = |argument: &clap::Arg| {
        argument.is_hide_set()
            || argument.get_id() == "help"
            || argument.get_id() == "config"
            || (argument.is_global_set() && depth > 1)
    };
    let arguments = command.get_arguments().filter(|argument| !is_told(argument));
    for argument in arguments {
        let value = argument
            .get_value_names()
            .filter(|_| argument.get_action().takes_values())
            .and_then(|names| names.first())
            .map(ToString::to_string);
        let words = match (argument.get_long(), value) {
            (Some(long), Some(value)) => format!("\\fB\\-\\-{}\\fR \\fI{}\\fR", escape(long), escape(&value)),
            (Some(long), None) => format!("\\fB\\-\\-{}\\fR", escape(long)),
            (None, value) => format!("\\fI{}\\fR", escape(&value.unwrap_or_default())),
        };
        let help = argument.get_long_help().or_else(|| argument.get_help());
        writeln!(page, ".TP\n{words}")?;
        writeln!(
            page,
            "{}",
            escape(&help.map(ToString::to_string).unwrap_or_default()).replace("\n\n", "\n.IP\n")
        )?;
        if argument.get_action().takes_values() {
            write_values(page, argument)?;
        }
    }
    for sub in command.get_subcommands() {
        write_command(page, sub, &name, depth + 1)?;
    }
    Ok(())
}

/// What may be given, and what stands for it where it is not.
fn write_values(page: &mut Vec<u8>, argument: &clap::Arg) -> io::Result<()> {
    for value in argument.get_possible_values() {
        let help = value.get_help().map(|help| format!(": {help}"));
        let line = format!("{}{}", value.get_name(), help.unwrap_or_default());
        writeln!(page, ".br\n{}", escape(&line))?;
    }
    let defaults: Vec<_> = argument
        .get_default_values()
        .iter()
        .map(|value| value.to_string_lossy())
        .collect();
    if !defaults.is_empty() {
        writeln!(page, ".br\nDefault: {}", escape(&defaults.join(" ")))?;
    }
    Ok(())
}

/// As roff reads it: no line is a request, no hyphen is typographic.
fn escape(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    let lines = text.lines().map(|line| match line.chars().next() {
        Some('.' | '\'') => format!("\\&{line}"),
        _ => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

const ENDING: &str = r#".SH OPTIONS
.TP
\fB\-\-config\fR \fIFILE\fR
The configuration file, of every command. Without it, /etc/virt\-collector/config.toml.
.SH SIGNALS
.TP
SIGTERM, SIGINT
.B run
ends: polls come to their end, rows are written, sessions log out. A second one ends it at once.
.TP
SIGHUP
.B run
reads its configuration again, as
.B systemctl reload virt\-collector
asks it to. Where something is wrong with it, the one before stays in force, and one line of the log says why.
.SH EXIT STATUS
0 well, 64 wrong usage, 78 wrong configuration, 1 anything else.
.SH ENVIRONMENT
.TP
NO_COLOR
No colours, whatever its value, unless that is empty. There are none either where output is no terminal.
.SH FILES
.TP
/etc/virt\-collector/config.toml
The configuration. Every key, with its default, stands in config.example.toml.
.TP
/etc/virt\-collector/secrets/
Passwords and the key ring, for root alone. systemd hands the service copies when it starts.
.TP
/usr/share/virt\-collector/
Bootstrap SQL, dashboards, alert rules.
.SH SEE ALSO
.BR systemctl (1),
.BR journalctl (1),
.BR psql (1)
"#;

fn write_out(bytes: &[u8]) {
    printed(io::stdout().write_all(bytes));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_every_command_and_no_line_of_text_is_a_request() {
        let mut page = Vec::new();
        write_page(&mut page).unwrap();
        let page = String::from_utf8(page).unwrap();
        for words in [
            "virt\\-collector run",
            "virt\\-collector check",
            "virt\\-collector platform add",
            "virt\\-collector key rewrap",
            "virt\\-collector vm snapshot create",
        ] {
            assert!(page.contains(&format!(".SS \"{words}\"")), "{words}\n{page}");
        }
        assert!(!page.contains("\\-collector man\""), "it is hidden");
        let known = [
            "SH", "SS", "TP", "PP", "IP", "TH", "B", "BR", "RS", "RE", "br", "ie", "el", "ds",
        ];
        for line in page
            .lines()
            .filter(|line| line.starts_with('.') || line.starts_with('\''))
        {
            let request = line
                .trim_start_matches(['.', '\''])
                .split_whitespace()
                .next()
                .unwrap_or_default();
            assert!(known.contains(&request), "{line}");
        }
    }

    #[test]
    fn text_is_escaped_as_roff_reads_it() {
        assert_eq!(escape(".x a-b\\c\n'y"), "\\&.x a\\-b\\ec\n\\&'y");
    }
}
