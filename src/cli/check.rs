//! `virt-collector check`: tries everything that the configuration names, one line per thing, a fix for each failure.
//!
//! | part | tries |
//! |---|---|
//! | [`here`] | what is on this machine: files of secrets, the key ring, addresses to listen on |
//! | [`database`] | the database, from the connection to the rights of the account |
//! | [`platform`] | one platform, from the connection to its counters |
//! | [`statistics`] | what it keeps for outages that are longer than an hour |
//!
//! Each part adds lines to the [`Report`], which prints them as they come. What depends on something that failed is not
//! tried, and has no line.

mod database;
mod here;
mod platform;
mod statistics;

use clap::Args;
use serde::Serialize;

use super::terminal::{Colour, Paint, hanging, width};
use super::{COMMON, ConfigFile, Failure, Output, block_on, counted};
use crate::config::Config;
use crate::error::Chain;
use crate::plain;
use crate::store::{Owner, Settings};

pub(super) use platform::trial_sentence;
use statistics::FiveMinutes;

/// Try the configuration: files, database, schema, and each platform with its password and certificate.
///
/// Changes nothing. Prints one line per thing; a failure says what to do. Exits with 0 when all is well, 78 when the
/// configuration itself is wrong, 1 otherwise.
#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    file: ConfigFile,
    /// How the result is printed.
    #[arg(long, value_enum, default_value_t = Output::Text, help_heading = COMMON)]
    output: Output,
}

/// Where the message of a line begins.
const MESSAGE: usize = 38;

/// How something fared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    /// As it should be.
    Ok,
    /// It works, and somebody should know this.
    Note,
    /// It does not work; the message says what to do.
    Failed,
}

impl Level {
    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Failed => "FAILED",
        }
    }

    const fn colour(self) -> Colour {
        match self {
            Self::Ok => Colour::Green,
            Self::Note => Colour::Yellow,
            Self::Failed => Colour::Red,
        }
    }
}

/// One thing that was tried.
#[derive(Debug, Serialize)]
struct Tried {
    /// `config`, `database`, `keys`, `admin`, `api`, or a platform's name.
    name: String,
    /// What of it.
    thing: &'static str,
    level: Level,
    /// What was found, or what is wrong and what to do.
    message: String,
    /// False where it failed, for programs that want to know no more.
    ok: bool,
    /// For a platform in error: unreachable, tls, auth, permission, timeout or identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'static str>,
    /// For a platform: what it keeps for outages longer than an hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    five_minute_statistics: Option<FiveMinutes>,
}

impl Tried {
    fn new(name: &str, thing: &'static str, level: Level, message: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            thing,
            level,
            message: message.into(),
            ok: level != Level::Failed,
            class: None,
            five_minute_statistics: None,
        }
    }

    fn well(name: &str, thing: &'static str, message: impl Into<String>) -> Self {
        Self::new(name, thing, Level::Ok, message)
    }

    fn note(name: &str, thing: &'static str, message: impl Into<String>) -> Self {
        Self::new(name, thing, Level::Note, message)
    }

    fn failed(name: &str, thing: &'static str, message: impl Into<String>) -> Self {
        Self::new(name, thing, Level::Failed, message)
    }

    /// `message` where it went well, what is wrong where not.
    fn of<E: std::error::Error + 'static>(
        name: &str,
        thing: &'static str,
        tried: Result<impl Into<String>, E>,
    ) -> Self {
        match tried {
            Ok(message) => Self::well(name, thing, message),
            Err(error) => Self::failed(name, thing, Chain(&error).to_string()),
        }
    }
}

/// What was tried so far. Lines are printed as they come; JSON comes whole at the end.
struct Report {
    output: Output,
    paint: Paint,
    tried: Vec<Tried>,
}

impl Report {
    fn new(output: Output) -> Self {
        Self {
            output,
            paint: Paint::stdout(),
            tried: Vec::new(),
        }
    }

    fn add(&mut self, tried: Tried) {
        if self.output == Output::Text {
            let Tried {
                name,
                thing,
                level,
                message,
                ok: _,
                class: _,
                five_minute_statistics: _,
            } = &tried;
            // A name stands once, in front of what was tried of it.
            let is_first = self.tried.last().is_none_or(|before| before.name != *name);
            let shown = if is_first { name } else { "" };
            let word = self.paint.paint(level.colour(), &format!("{:<6}", level.word()));
            let message = hanging(&plain::line(message), MESSAGE, width());
            say!("{shown:<16} {thing:<12} {word}  {message}");
        }
        self.tried.push(tried);
    }

    fn is_well(&self) -> bool {
        self.tried.iter().all(|tried| tried.ok)
    }

    /// The last word.
    fn end(self) -> Result<(), Failure> {
        let ok = self.is_well();
        let n = |level| self.tried.iter().filter(|tried| tried.level == level).count();
        match self.output {
            Output::Json => {
                let document = serde_json::json!({ "ok": ok, "checks": self.tried });
                say!("{document:#}");
            }
            Output::Text if ok => say!("\nall well{}", and_notes(n(Level::Note))),
            Output::Text => say!(
                "\n{} failed{}",
                counted(n(Level::Failed), "check"),
                and_notes(n(Level::Note))
            ),
        }
        if ok { Ok(()) } else { Err(Failure::Told) }
    }
}

fn and_notes(n: usize) -> String {
    if n == 0 {
        String::new()
    } else {
        format!(", {}", counted(n, "note"))
    }
}

impl Check {
    pub(super) fn execute(self) -> Result<(), Failure> {
        let mut report = Report::new(self.output);
        let (config, settings) = self.settings().inspect_err(|failure| {
            // For programs it is one of the things that were tried; people read it from standard error.
            if self.output == Output::Json {
                let tried = [Tried::failed("config", "file", Chain(failure).to_string())];
                let document = serde_json::json!({ "ok": false, "checks": tried });
                say!("{document:#}");
            }
        })?;
        let path = self.file.config.display();
        let platforms = match config.platforms.len() {
            0 => "names no platform; what was added by command is tried below".to_owned(),
            n => counted(n, "platform"),
        };
        report.add(Tried::well("config", "file", format!("{path}: {platforms}")));
        here::secrets(&config, &mut report);
        block_on(async {
            let found = database::examine(&config, settings, &mut report).await;
            here::key_ring(&config.keys.file, &found.credentials, &mut report);
            here::listeners(&config, &mut report).await;
            let is_configured = |name: &str| config.platforms.iter().any(|platform| platform.name == name);
            let registered = found.registered(&config.keys.file);
            let registered = registered
                .iter()
                .filter(|platform| !is_configured(&platform.name));
            for platform in config.platforms.iter().chain(registered) {
                platform::examine(platform, &config.collection, &mut report).await;
            }
            if config.platforms.is_empty() && found.has_no_platform {
                let message = "none yet, so nothing is collected: virt-collector platform add";
                report.add(Tried::note("platforms", "", message));
            }
            report.end()
        })
    }

    fn settings(&self) -> Result<(Config, Settings), Failure> {
        let config = self.file.load()?;
        let settings = Settings::new(&config.database, &config.database.writer, &Owner::random());
        Ok((config, settings.map_err(Failure::settings)?))
    }
}
