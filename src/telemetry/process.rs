//! What the kernel says of this process: CPU, memory, descriptors.
//!
//! Owns: reading `/proc/self`, which the unit's sandbox leaves readable. Never does: naming metrics; [`metrics`] does.
//! Read when somebody asks for the metrics, never by a loop.
//!
//! [`metrics`]: super::metrics

use std::fs;

/// Clock ticks per second, as the kernel tells times to programs: this many on every Linux that Rust knows.
const TICKS_PER_SECOND: u64 = 100;

/// What was read. What could not be read is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// CPU time since the start, in whole seconds.
    pub(super) cpu_seconds: Option<u64>,
    /// Memory in use that is resident.
    pub(super) resident_bytes: Option<usize>,
    /// Open descriptors.
    pub(super) open_fds: Option<usize>,
    /// How many there may be.
    pub(super) max_fds: Option<usize>,
}

impl Usage {
    /// As it is now.
    pub(super) fn now() -> Self {
        let read = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).ok();
        Self {
            cpu_seconds: read("stat").as_deref().and_then(cpu_seconds),
            resident_bytes: read("status").as_deref().and_then(resident_bytes),
            // The directory that is read is one of them.
            open_fds: fs::read_dir("/proc/self/fd")
                .ok()
                .map(|open| open.count().saturating_sub(1)),
            max_fds: read("limits").as_deref().and_then(max_fds),
        }
    }
}

/// Of `/proc/self/stat`: `1 (any name) S ...`, where the name may hold blanks and brackets, and `utime` and `stime` are
/// the 12th and 13th word behind it.
fn cpu_seconds(stat: &str) -> Option<u64> {
    let (_, words) = stat.rsplit_once(')')?;
    let mut words = words.split_ascii_whitespace().skip(11);
    let user: u64 = words.next()?.parse().ok()?;
    let system: u64 = words.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

/// Of `/proc/self/status`: `VmRSS:     1234 kB`.
fn resident_bytes(status: &str) -> Option<usize> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: usize = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kib.checked_mul(1024)
}

/// Of `/proc/self/limits`: `Max open files            1024                 524288               files`, the first of
/// them in force. None where there is no limit.
fn max_fds(limits: &str) -> Option<usize> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_writes_is_understood() {
        let stat =
            "4711 (virt) (x) collector) S 1 4711 4711 0 -1 4194560 9000 0 12 0 6150 1890 0 0 20 0 9 0 1 2 3";
        assert_eq!(cpu_seconds(stat), Some(80));
        let status = "Name:\tvirt-collector\nVmHWM:\t   99000 kB\nVmRSS:\t   46080 kB\nThreads:\t9\n";
        assert_eq!(resident_bytes(status), Some(45 * 1024 * 1024));
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max processes             512                  512                  processes \n\
                      Max open files            65536                524288               files     \n";
        assert_eq!(max_fds(limits), Some(65_536));
        let unlimited = limits.replace("65536 ", "unlimited ");
        assert_eq!(max_fds(&unlimited), None);
    }

    #[test]
    fn what_it_does_not_write_is_unknown() {
        for text in [
            "",
            "4711 (x",
            "4711 (x) S 1 2 3",
            "VmRSS:\t12 MB",
            "Max open files",
        ] {
            assert_eq!(
                (cpu_seconds(text), resident_bytes(text), max_fds(text)),
                (None, None, None),
                "{text}"
            );
        }
    }
}
