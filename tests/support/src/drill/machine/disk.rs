//! A small disk for a log, and no other.

use std::path::{Path, PathBuf};

use super::file;
use super::mounts::with_mounts;
use crate::drill::Error;

/// A disk of a process's own for its log, of a few blocks; every other file system is read-only to it.
#[derive(Debug)]
pub(in crate::drill) struct SmallDisk {
    directory: PathBuf,
}

impl SmallDisk {
    pub(in crate::drill) fn new(directory: &Path) -> Result<Self, Error> {
        let directory = directory.join("small-disk");
        std::fs::create_dir_all(&directory).map_err(file(&directory))?;
        Ok(Self { directory })
    }

    /// The words before the command line of a process that writes its log there.
    pub(in crate::drill) async fn by(&self) -> Result<Vec<String>, Error> {
        let script = "\
for mounted in $(cut -d ' ' -f 2 /proc/self/mounts); do mount -o remount,bind,ro \"$mounted\" 2>/dev/null; done
mount -t tmpfs -o size=64k,mode=700 tmpfs \"$0\" && exec >>\"$0/log\" 2>&1";
        with_mounts(script, &self.directory).await
    }

    /// The log, as the process's mounts have it.
    pub(in crate::drill) fn log(&self, pid: u32) -> Result<String, Error> {
        let path = self.inside(pid, "log");
        let bytes = std::fs::read(&path).map_err(file(&path))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Leaves no free byte.
    pub(in crate::drill) fn fill(&self, pid: u32) -> Result<(), Error> {
        use std::io::Write as _;
        let path = self.inside(pid, "fill");
        let mut filling = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(file(&path))?;
        loop {
            match filling.write(&[0; 512]) {
                Ok(n) if n > 0 => {}
                Err(error) if error.kind() != std::io::ErrorKind::StorageFull => {
                    return Err(file(&path)(error));
                }
                _ => return Ok(()),
            }
        }
    }

    /// Makes room.
    pub(in crate::drill) fn free(&self, pid: u32) -> Result<(), Error> {
        let path = self.inside(pid, "fill");
        std::fs::remove_file(&path).map_err(file(&path))
    }

    /// True where the process can write nothing beside its log.
    pub(in crate::drill) fn is_else_read_only(&self, pid: u32) -> bool {
        let beside = self.directory.with_file_name("beside");
        let seen =
            PathBuf::from(format!("/proc/{pid}/root")).join(beside.strip_prefix("/").unwrap_or(&beside));
        let written = std::fs::write(&seen, "");
        std::fs::remove_file(&beside).unwrap_or_default();
        written.is_err_and(|error| error.kind() == std::io::ErrorKind::ReadOnlyFilesystem)
    }

    fn inside(&self, pid: u32, name: &str) -> PathBuf {
        let directory = self.directory.strip_prefix("/").unwrap_or(&self.directory);
        PathBuf::from(format!("/proc/{pid}/root"))
            .join(directory)
            .join(name)
    }
}
