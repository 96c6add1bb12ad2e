//! `virt-collector status`: how everything stands, from the database; works while the service is down.
//!
//! On a terminal the table is drawn anew every two seconds, on a screen of its own, until Ctrl-C or `q`; what was seen
//! last stays when it ends. Elsewhere it is printed once.

use std::collections::BTreeMap;
use std::io;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use super::terminal::{Colour, Paint, Screen, bar, width};
use super::{COMMON, ConfigFile, Failure, Output, block_on, counted};
use crate::config::Config;
use crate::error::Chain;
use crate::plain;
use crate::store;
use crate::store::overview::{CollectorStanding, Overview, PlatformStanding};
use crate::store::{Database, Owner, Probe, Settings};

/// Between two looks.
const REFRESH: Duration = Duration::from_secs(2);

/// How soon a key is seen.
const KEYS: Duration = Duration::from_millis(100);

/// Freshness that is promised of 95 % of the samples, with some patience.
const LATE_SECONDS: f64 = 180.0;

/// How everything stands: platforms, collectors, database.
///
/// Reads the database alone, with the service's own account: works while the service is down. On a terminal it is drawn
/// anew every two seconds until Ctrl-C or q. Exits with 1 where the database cannot be used.
#[derive(Debug, Args)]
pub(super) struct Status {
    #[command(flatten)]
    file: ConfigFile,
    /// Print it once, also on a terminal.
    #[arg(long, conflicts_with = "watch")]
    once: bool,
    /// Print it every two seconds, also where output is no terminal.
    #[arg(long)]
    watch: bool,
    /// How the result is printed; json is printed once.
    #[arg(long, value_enum, default_value_t = Output::Text, help_heading = COMMON, conflicts_with = "watch")]
    output: Output,
}

/// One look.
struct Look {
    target: String,
    seen: Result<(Probe, Overview), store::Error>,
}

impl Status {
    pub(super) fn execute(self) -> Result<(), Failure> {
        let config = self.file.load()?;
        let settings = Settings::new(&config.database, &config.database.writer, &Owner::random())
            .map_err(Failure::settings)?;
        let lives = self.output == Output::Text && !self.once && io::stdout().is_terminal();
        block_on(async {
            let target = settings.target().to_owned();
            let database = Database::new(settings).map_err(Failure::other)?;
            if lives {
                return live(&database, &target, &config).await;
            }
            loop {
                let look = look(&database, &target).await;
                match self.output {
                    Output::Json => say!("{:#}", json(&look, &config)),
                    Output::Text => {
                        for line in lines(&look, &config, Paint::stdout(), &Seen::default()) {
                            say!("{line}");
                        }
                    }
                }
                if !self.watch {
                    return if look.seen.is_ok() {
                        Ok(())
                    } else {
                        Err(Failure::Told)
                    };
                }
                say!("");
                tokio::time::sleep(REFRESH).await;
            }
        })
    }
}

async fn look(database: &Database, target: &str) -> Look {
    let seen = async {
        let probe = database.ready().await?;
        Ok((probe, database.overview().await?))
    };
    Look {
        target: target.to_owned(),
        seen: seen.await,
    }
}

/// What a table that is drawn again and again knows beside the last look.
#[derive(Debug, Default)]
struct Seen {
    /// Columns of the terminal.
    width: Option<usize>,
    /// The most open gaps of each platform since it had none: what a back-fill has to do.
    most: BTreeMap<String, i64>,
}

impl Seen {
    fn learn(&mut self, look: &Look, width: Option<usize>) {
        self.width = width;
        let Ok((_, overview)) = &look.seen else { return };
        for platform in &overview.platforms {
            let most = self.most.entry(platform.name.clone()).or_default();
            *most = if platform.n_open_gaps == 0 {
                0
            } else {
                platform.n_open_gaps.max(*most)
            };
        }
    }

    /// How far the gaps of a platform are filled, where there are any.
    fn back_fill(&self, platform: &PlatformStanding) -> Option<String> {
        let most = u64::try_from(*self.most.get(&platform.name)?).ok()?;
        let left = u64::try_from(platform.n_open_gaps)
            .ok()
            .filter(|left| *left > 0)?;
        let done = most.saturating_sub(left);
        Some(format!(
            "{}: filling gaps [{}] {done}/{most}",
            platform.name,
            bar(done, most)
        ))
    }
}

/// Draws until somebody has seen enough.
async fn live(database: &Database, target: &str, config: &Config) -> Result<(), Failure> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::other)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::other)?;
    let paint = Paint::stdout();
    let screen = Screen::open();
    let mut last = look(database, target).await;
    let mut seen = Seen::default();
    loop {
        seen.learn(&last, width());
        let shown = lines(&last, config, paint, &seen);
        screen.draw(&shown, "q or Ctrl-C ends");
        let next = Instant::now() + REFRESH;
        let enough = loop {
            tokio::select! {
                _ = interrupt.recv() => break true,
                _ = terminate.recv() => break true,
                () = tokio::time::sleep(KEYS) => {}
            }
            if screen
                .pressed()
                .is_some_and(|key| matches!(key, b'q' | b'Q' | 3 | 4))
            {
                break true;
            }
            if Instant::now() >= next {
                break false;
            }
        };
        if enough {
            break;
        }
        last = tokio::select! {
            looked = look(database, target) => looked,
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
        };
    }
    drop(screen);
    for line in lines(&last, config, paint, &seen) {
        say!("{line}");
    }
    io::stdout().flush().map_err(Failure::other)
}

/// In one word, what is true of a platform now, and how good that is.
fn state(platform: &PlatformStanding, config: &Config) -> (String, Colour) {
    let is_here = config
        .platforms
        .iter()
        .any(|configured| configured.name == platform.name);
    match (&platform.class, platform.status.as_str()) {
        // It was taken out of the file; `platform remove` has it forgotten.
        _ if platform.is_configured && !platform.is_owned && !is_here => {
            ("not configured".to_owned(), Colour::Yellow)
        }
        _ if platform.in_maintenance => ("maintenance".to_owned(), Colour::Grey),
        _ if !platform.is_active => ("inactive".to_owned(), Colour::Grey),
        // Whatever its last owner said of it.
        _ if !platform.is_owned => ("no collector".to_owned(), Colour::Red),
        (Some(class), _) => (format!("error:{class}"), Colour::Red),
        (None, "connected") => ("connected".to_owned(), Colour::Green),
        (None, other) => (other.to_owned(), Colour::Yellow),
    }
}

fn lines(look: &Look, config: &Config, paint: Paint, seen: &Seen) -> Vec<String> {
    let (probe, overview) = match &look.seen {
        Ok(seen) => seen,
        Err(error) => {
            let word = paint.paint(Colour::Red, "not usable");
            return vec![format!("database  {word}: {}", Chain(error))];
        }
    };
    let mut lines = vec![
        format!(
            "database   {} ({:.1} GB)",
            look.target,
            overview.size_bytes as f64 / 1e9
        ),
        format!("           {probe}"),
        String::new(),
    ];
    let header = [
        "PLATFORM", "STATUS", "OWNER", "NEWEST", "LAG", "HOSTS", "VMS", "GAPS", "SINCE",
    ];
    let mut table = vec![header.map(|word| (word.to_owned(), Colour::Grey)).to_vec()];
    table.extend(
        overview
            .platforms
            .iter()
            .map(|platform| row(platform, overview, config)),
    );
    let missing = config
        .platforms
        .iter()
        .filter(|platform| overview.platforms.iter().all(|row| row.name != platform.name));
    for platform in missing {
        let mut cells = vec![
            (platform.name.clone(), Colour::Green),
            ("never collected".to_owned(), Colour::Yellow),
        ];
        cells.resize(header.len(), ("-".to_owned(), Colour::Grey));
        table.push(cells);
    }
    if table.len() == 1 {
        lines.push("no platforms: add one to config.toml, or with virt-collector platform add".to_owned());
    } else {
        lines.extend(aligned(&table, paint));
    }
    for platform in &overview.platforms {
        if let Some(reason) = platform.reason.as_ref().filter(|_| platform.class.is_some()) {
            lines.push(String::new());
            let line = format!("{}: {}", platform.name, plain::line(reason));
            lines.push(cut(&line, seen.width.unwrap_or(usize::MAX)));
        }
        lines.extend(seen.back_fill(platform));
    }
    lines.push(String::new());
    let (alive, gone): (Vec<_>, Vec<_>) = overview
        .collectors
        .iter()
        .partition(|collector| collector.is_alive);
    if alive.is_empty() {
        let word = paint.paint(Colour::Red, "none runs");
        lines.push(format!(
            "collectors {word}; start one: systemctl start virt-collector"
        ));
    }
    for (index, collector) in alive.into_iter().enumerate() {
        let head = if index == 0 { "collectors" } else { "" };
        let CollectorStanding {
            host_name,
            n_platforms,
            ..
        } = collector;
        lines.push(format!(
            "{head:<10} {}: holds {}",
            plain::line(host_name),
            counted(*n_platforms, "platform")
        ));
    }
    for collector in gone
        .into_iter()
        .filter(|collector| collector.gone_seconds < 3600.0)
    {
        let age = age(Some(collector.gone_seconds));
        let word = paint.paint(Colour::Yellow, "gone");
        lines.push(format!(
            "{:<10} {}: {word} for {age}, without a farewell",
            "",
            plain::line(&collector.host_name)
        ));
    }
    lines
}

fn row(platform: &PlatformStanding, overview: &Overview, config: &Config) -> Vec<(String, Colour)> {
    let plain = |text: String| (text, Colour::Green);
    let (word, colour) = state(platform, config);
    let late = |seconds: Option<f64>| {
        let is_late = platform.is_owned && seconds.is_none_or(|seconds| seconds > LATE_SECONDS);
        if is_late { Colour::Yellow } else { Colour::Green }
    };
    let gaps = match (platform.n_open_gaps, platform.oldest_gap_age_seconds) {
        (0, _) => plain("none".to_owned()),
        (n, oldest) => (format!("{n} open, {}", age(oldest)), Colour::Yellow),
    };
    let since = overview.now.micros_since(platform.since) as f64 / 1e6;
    vec![
        plain(platform.name.clone()),
        (word, colour),
        plain(platform.owner.clone().unwrap_or_else(|| "-".to_owned())),
        (
            age(platform.newest_age_seconds),
            late(platform.newest_age_seconds),
        ),
        (age(platform.lag_seconds), late(platform.lag_seconds)),
        plain(platform.n_hosts.to_string()),
        plain(platform.n_vms.to_string()),
        gaps,
        plain(age(Some(since))),
    ]
}

/// Columns as wide as their widest cell. Green is the colour of what needs no colour here.
fn aligned(table: &[Vec<(String, Colour)>], paint: Paint) -> Vec<String> {
    let n_columns = table.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..n_columns)
        .map(|column| {
            let cells = table.iter().filter_map(|row| row.get(column));
            cells.map(|(text, _)| text.chars().count()).max().unwrap_or(0)
        })
        .collect();
    table
        .iter()
        .map(|row| {
            let cells = row
                .iter()
                .zip(&widths)
                .enumerate()
                .map(|(column, ((text, colour), width))| {
                    let padded = format!("{:<width$}", plain::line(text));
                    // The status in its colour, whatever it is; of the others only what should be looked at.
                    if column == 1 || *colour != Colour::Green {
                        paint.paint(*colour, &padded)
                    } else {
                        padded
                    }
                });
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        })
        .collect()
}

/// `12 s`, `3 min`, `5 h`, `2 d`.
fn age(seconds: Option<f64>) -> String {
    match seconds {
        None => "none".to_owned(),
        Some(seconds) if seconds < 120.0 => format!("{:.0} s", seconds.max(0.0)),
        Some(seconds) if seconds < 7200.0 => format!("{:.0} min", seconds / 60.0),
        Some(seconds) if seconds < 172_800.0 => format!("{:.0} h", seconds / 3600.0),
        Some(seconds) => format!("{:.0} d", seconds / 86_400.0),
    }
}

fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{kept}\u{2026}")
}

fn json(look: &Look, config: &Config) -> Value {
    let (probe, overview) = match &look.seen {
        Ok(seen) => seen,
        Err(error) => {
            return json!({ "database": { "ok": false, "target": look.target, "message": Chain(error).to_string() } });
        }
    };
    let platforms: Vec<Value> = overview
        .platforms
        .iter()
        .map(|platform| {
            let PlatformStanding {
                name,
                kind,
                host,
                is_configured,
                is_active,
                in_maintenance,
                status,
                class,
                reason,
                since,
                version,
                owner,
                is_owned,
                n_hosts,
                n_vms,
                n_live,
                newest,
                newest_age_seconds,
                lag_seconds,
                n_open_gaps,
                oldest_gap_age_seconds,
            } = platform;
            json!({
                "name": name, "type": kind, "host": host, "source": if *is_configured { "config" } else { "registry" },
                "active": is_active, "maintenance": in_maintenance, "state": state(platform, config).0, "status": status,
                "class": class, "reason": reason, "since": since.to_string(), "version": version, "owner": owner,
                "owned": is_owned, "hosts": n_hosts, "vms": n_vms, "running": n_live,
                "newest_sample": newest.map(|newest| newest.to_string()), "newest_sample_age_seconds": newest_age_seconds,
                "lag_seconds": lag_seconds, "open_gaps": n_open_gaps, "oldest_gap_age_seconds": oldest_gap_age_seconds,
            })
        })
        .collect();
    let collectors: Vec<Value> = overview
        .collectors
        .iter()
        .map(|collector| {
            json!({
                "owner": collector.owner, "host": collector.host_name, "alive": collector.is_alive,
                "platforms": collector.n_platforms,
            })
        })
        .collect();
    json!({
        "now": overview.now.to_string(),
        "database": { "ok": true, "target": look.target, "postgres": probe.postgres, "timescaledb": probe.timescale,
                      "edition": probe.edition.as_str(), "bytes": overview.size_bytes },
        "platforms": platforms,
        "collectors": collectors,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_told_in_the_unit_that_fits() {
        for (seconds, text) in [
            (None, "none"),
            (Some(-3.0), "0 s"),
            (Some(119.0), "119 s"),
            (Some(120.0), "2 min"),
            (Some(7200.0), "2 h"),
            (Some(864_000.0), "10 d"),
        ] {
            assert_eq!(age(seconds), text);
        }
    }

    #[test]
    fn a_back_fill_is_measured_by_the_most_gaps_that_there_were() {
        let platform = |n_open_gaps| PlatformStanding {
            name: "lab".to_owned(),
            kind: "vcenter".to_owned(),
            host: "vc".to_owned(),
            is_configured: true,
            is_active: true,
            in_maintenance: false,
            status: "connected".to_owned(),
            class: None,
            reason: None,
            since: crate::units::Stamp::from_micros(0),
            version: None,
            owner: None,
            is_owned: true,
            n_hosts: 1,
            n_vms: 1,
            n_live: 2,
            newest: None,
            newest_age_seconds: None,
            lag_seconds: None,
            n_open_gaps,
            oldest_gap_age_seconds: None,
        };
        let mut seen = Seen::default();
        seen.most.insert("lab".to_owned(), 12);
        assert_eq!(
            seen.back_fill(&platform(3)).as_deref(),
            Some("lab: filling gaps [##################......] 9/12")
        );
        assert_eq!(seen.back_fill(&platform(0)), None);
    }

    #[test]
    fn a_line_is_cut_where_the_terminal_ends() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdefg", 6), "abcde\u{2026}");
    }
}
