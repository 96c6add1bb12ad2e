//! A group with a limit of memory.

use std::path::{Path, PathBuf};

use super::{file, words};
use crate::drill::Error;

/// A control group with a limit of memory. Dropped when nothing runs in it, it is gone.
#[derive(Debug)]
pub(in crate::drill) struct MemoryGroup {
    path: PathBuf,
    version: Version,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl MemoryGroup {
    /// A group of this name at the root of whichever hierarchy has memory.
    pub(in crate::drill) fn make(name: &str) -> Result<Self, Error> {
        let root = Path::new("/sys/fs/cgroup");
        let subtree = std::fs::read_to_string(root.join("cgroup.subtree_control")).unwrap_or_default();
        let (parent, version) = if root.join("memory/memory.limit_in_bytes").is_file() {
            (root.join("memory"), Version::One)
        } else if subtree
            .split_whitespace()
            .any(|controller| controller == "memory")
        {
            (root.to_owned(), Version::Two)
        } else {
            return Err(Error::NotRun("no control groups of memory here".to_owned()));
        };
        let path = parent.join(name);
        match std::fs::create_dir(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(Error::NotRun(format!(
                "no control group {}: {error}",
                path.display()
            ))),
            _ => Ok(Self { path, version }),
        }
    }

    /// The words before the command line of a process that lives in it.
    pub(in crate::drill) fn by(&self) -> Vec<String> {
        let path = self.path.display().to_string();
        let script = "echo $$ >\"$0/cgroup.procs\" && exec \"$@\"";
        words(["sh", "-c", script, &path])
    }

    /// What squeezing is here.
    pub(in crate::drill) const fn squeeze_is(&self) -> &'static str {
        match self.version {
            Version::One => "standing still at the limit (cgroup v1 has no MemoryHigh)",
            Version::Two => "MemoryHigh",
        }
    }

    /// Above this it gets on slowly, or not at all; it is not killed.
    pub(in crate::drill) fn squeeze(&self, kib: u64) -> Result<(), Error> {
        match self.version {
            Version::One => {
                self.write("memory.oom_control", "1")?;
                self.write("memory.limit_in_bytes", &(kib * 1024).to_string())
            }
            Version::Two => self.write("memory.high", &(kib * 1024).to_string()),
        }
    }

    /// Above this it is killed.
    pub(in crate::drill) fn limit(&self, kib: u64) -> Result<(), Error> {
        let bytes = (kib * 1024).to_string();
        match self.version {
            Version::One => {
                self.write("memory.oom_control", "0")?;
                self.write("memory.limit_in_bytes", &bytes)
            }
            Version::Two => {
                self.write("memory.swap.max", "0")?;
                self.write("memory.max", &bytes)
            }
        }
    }

    /// As much as it likes.
    pub(in crate::drill) fn relax(&self) -> Result<(), Error> {
        match self.version {
            Version::One => {
                self.write("memory.limit_in_bytes", "-1")?;
                self.write("memory.oom_control", "0")
            }
            Version::Two => {
                self.write("memory.high", "max")?;
                self.write("memory.max", "max")
            }
        }
    }

    /// Whether it has met its bound since it was squeezed.
    pub(in crate::drill) fn is_squeezed(&self) -> Result<bool, Error> {
        Ok(match self.version {
            Version::One => self.number("memory.oom_control", "under_oom")? > 0,
            Version::Two => self.number("memory.events", "high")? > 0,
        })
    }

    /// Processes that were killed for it.
    pub(in crate::drill) fn killed(&self) -> Result<u64, Error> {
        match self.version {
            Version::One => self.number("memory.oom_control", "oom_kill"),
            Version::Two => self.number("memory.events", "oom_kill"),
        }
    }

    fn write(&self, name: &str, text: &str) -> Result<(), Error> {
        let path = self.path.join(name);
        std::fs::write(&path, text).map_err(file(&path))
    }

    fn number(&self, name: &str, key: &str) -> Result<u64, Error> {
        let path = self.path.join(name);
        let text = std::fs::read_to_string(&path).map_err(file(&path))?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{key} ")));
        line.and_then(|number| number.trim().parse().ok())
            .ok_or(Error::Nothing("number of the control group"))
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // What still runs in it keeps it; the next one of this name takes it.
        self.relax().unwrap_or_default();
        std::fs::remove_dir(&self.path).unwrap_or_default();
    }
}
