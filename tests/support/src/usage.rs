//! What the kernel counts of a process: memory, open descriptors, time on a processor.
//!
//! Owns: reading `/proc`. Never does: judging.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::process::Error;

fn file(path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::File {
        path: path.to_owned(),
        source,
    }
}

/// Resident memory, KiB.
///
/// # Errors
/// When the process does not run.
pub fn resident_kib(pid: u32) -> Result<u64, Error> {
    status(pid, "VmRSS:")
}

/// The most resident memory that it ever had, KiB.
///
/// # Errors
/// When the process does not run.
pub fn most_resident_kib(pid: u32) -> Result<u64, Error> {
    status(pid, "VmHWM:")
}

/// Memory of its own, KiB: what no file gives back.
///
/// # Errors
/// When the process does not run.
pub fn anonymous_kib(pid: u32) -> Result<u64, Error> {
    status(pid, "RssAnon:")
}

fn status(pid: u32, key: &str) -> Result<u64, Error> {
    let path = PathBuf::from(format!("/proc/{pid}/status"));
    let text = std::fs::read_to_string(&path).map_err(file(&path))?;
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .ok_or_else(|| file(&path)(io::Error::other(format!("there is no {key}"))))
}

/// Open file descriptors.
///
/// # Errors
/// When the process does not run, or shows them to root alone.
pub fn descriptors(pid: u32) -> Result<usize, Error> {
    let path = PathBuf::from(format!("/proc/{pid}/fd"));
    Ok(std::fs::read_dir(&path).map_err(file(&path))?.count())
}

/// Time on a processor.
///
/// # Errors
/// When the process does not run.
pub fn worked(pid: u32) -> Result<Duration, Error> {
    let path = PathBuf::from(format!("/proc/{pid}/stat"));
    let text = std::fs::read_to_string(&path).map_err(file(&path))?;
    // Behind the name, which may hold anything, the 12th and 13th are user's and system's time in hundredths.
    let ticks = |behind: &str| -> Option<u64> {
        let mut numbers = behind.split_whitespace().skip(11);
        Some(numbers.next()?.parse::<u64>().ok()? + numbers.next()?.parse::<u64>().ok()?)
    };
    let ticks = text.rsplit_once(')').and_then(|(_, behind)| ticks(behind));
    let ticks = ticks.ok_or_else(|| file(&path)(io::Error::other("there is no time in it")))?;
    Ok(Duration::from_millis(10 * ticks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_its_own_descriptors_time_and_memory() {
        let own = std::process::id();
        let before = descriptors(own).unwrap();
        let more: Vec<std::fs::File> = (0..50)
            .map(|_| std::fs::File::open("/dev/null").unwrap())
            .collect();
        // Other tests of this process open and close some as well.
        assert!(descriptors(own).unwrap() >= before.saturating_sub(20) + more.len());
        for memory in [resident_kib, most_resident_kib, anonymous_kib] {
            assert!(memory(own).unwrap() > 100);
        }
        assert!(worked(own).is_ok());
    }

    #[test]
    fn of_a_process_that_is_none_it_says_which_file_is_not_there() {
        let error = resident_kib(u32::MAX).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot use /proc/{}/status", u32::MAX));
    }
}
