//! Where the CPU time of a process goes, as `perf` sees it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What a symbol or its shared object contains, and the stage that this makes it part of; the first that fits counts.
const STAGES: &[(&str, &str)] = &[
    ("kernel", "[kernel"),
    ("gunzip", "zlib_rs"),
    ("gunzip", "miniz_oxide"),
    ("gunzip", "flate2"),
    ("tls", "rustls"),
    ("tls", "aws_lc"),
    ("tls", "aesni"),
    ("tls", "aes_"),
    ("tls", "gcm_"),
    ("tls", "sha"),
    ("encode", "store::copy"),
    ("encode", "round"),
    ("database", "postgres"),
    ("decode", "vsphere::perf"),
    ("decode", "soap::xml"),
    ("decode", "quick_xml"),
    ("decode", "memchr"),
    ("decode", "from_utf8"),
    ("decode", "Window"),
    ("flush", "ingest::"),
    ("poll", "virt_collector::"),
    ("http", "reqwest"),
    ("http", "hyper"),
    ("http", "http"),
    ("libc", "libc.so"),
];

/// `perf record` on a process, under way.
#[derive(Debug)]
pub(crate) struct Recording {
    perf: Child,
    file: PathBuf,
}

impl Recording {
    /// Starts it; ends by itself after so many seconds.
    pub(crate) fn start(pid: u32, seconds: u64, directory: &Path) -> Self {
        let file = directory.join("perf.data");
        let perf = Command::new("perf")
            .args([
                "record",
                "-e",
                "cpu-clock",
                "-F",
                "997",
                "-p",
                &pid.to_string(),
                "-o",
            ])
            .arg(&file)
            .args(["--", "sleep", &seconds.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("STAGES=1 needs perf on the PATH");
        Self { perf, file }
    }

    /// Percent of the samples in each stage, the largest first.
    pub(crate) fn finish(mut self) -> String {
        self.perf.wait().unwrap();
        let report = Command::new("perf")
            .args([
                "report",
                "--no-children",
                "--stdio",
                "-F",
                "overhead,dso,sym",
                "-t",
                "|",
                "-i",
            ])
            .arg(&self.file)
            .stderr(Stdio::null())
            .output()
            .unwrap();
        let mut shares: BTreeMap<&str, f64> = BTreeMap::new();
        for line in String::from_utf8_lossy(&report.stdout).lines() {
            let Some((share, symbol)) = line.split_once('|') else {
                continue;
            };
            let Ok(share) = share.trim().trim_end_matches('%').parse::<f64>() else {
                continue;
            };
            let stage = STAGES.iter().find(|(_, part)| symbol.contains(part));
            *shares
                .entry(stage.map_or("rest", |(stage, _)| stage))
                .or_default() += share;
        }
        let mut shares: Vec<_> = shares.into_iter().collect();
        shares.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        shares.iter().fold(String::new(), |mut text, (stage, share)| {
            write!(text, " {stage}={share:.0}%").unwrap();
            text
        })
    }
}
