//! What systemd and the kernel do to a collector's process.
//!
//! | part | one job |
//! |---|---|
//! | `systemd` | the stand-in for systemd's socket |
//! | `mounts` | a process with mounts of its own |
//! | `names` | a process with names of its own, and a resolver that fails |
//! | `black_hole` | an address where nothing answers |
//! | `disk` | a small disk for a log, and no other |
//! | `memory` | a group with a limit of memory |
//!
//! Owns: doing it, mostly by words in front of a command line. Never does: knowing why.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Resource, Rlimit};

use super::Error;

mod black_hole;
mod disk;
mod memory;
mod mounts;
mod names;
mod systemd;

pub(super) use black_hole::BlackHole;
pub(super) use disk::SmallDisk;
pub(super) use memory::MemoryGroup;
pub(super) use names::Names;
pub(super) use systemd::Systemd;

fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::File {
        path: path.to_owned(),
        source,
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Words of a command line.
pub(super) fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

/// Lets a process have as many descriptors open as this one may.
pub(super) fn lift_descriptors(pid: u32) -> Result<(), Error> {
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let own = rustix::process::getrlimit(Resource::Nofile);
    let limit = Rlimit {
        current: own.maximum,
        maximum: own.maximum,
    };
    rustix::process::prlimit(process, Resource::Nofile, limit)
        .map_err(|source| file(Path::new("/proc/self/limits"))(source.into()))?;
    Ok(())
}
