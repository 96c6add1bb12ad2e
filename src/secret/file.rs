//! A secret on the first line of a file of its own.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::secret::{Secret, credential};

/// A password and notes below it; whatever is larger is another file.
const SIZE_LIMIT: usize = 16 * 1024;

/// Why a secret could not be read from its file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others may read the file.
    #[error("{path} can be read by everyone (mode {mode:o}); run: chmod o-rwx {path}")]
    WorldReadable {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Far more than a password.
    #[error("{path} is longer than {} KiB; it must hold the password on its first line", SIZE_LIMIT / 1024)]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// The file holds nothing.
    #[error("{path} is empty; it must hold the password on its first line")]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

impl FileError {
    /// True where there is no such file.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Reads a secret from the first line of a file, which must not be readable by everyone. Where systemd has handed a
/// copy of it to this service, that is read.
///
/// # Errors
/// When the file cannot be read, is open to everyone, or its first line is empty.
pub fn read_file(path: &Path) -> Result<Secret, FileError> {
    match credential::copy_of(path) {
        Some(copy) => read(&copy),
        None => read(path),
    }
}

fn read(path: &Path) -> Result<Secret, FileError> {
    let failed = |source| FileError::Read {
        path: path.to_owned(),
        source,
    };
    // What is looked at is what is read, whatever gets its name meanwhile.
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o007 != 0 {
        return Err(FileError::WorldReadable {
            path: path.to_owned(),
            mode,
        });
    }
    // A buffer that grows would leave what it held behind.
    let mut text = Zeroizing::new(String::with_capacity(SIZE_LIMIT + 1));
    let mut bounded = file.take(SIZE_LIMIT as u64 + 1);
    bounded.read_to_string(&mut text).map_err(failed)?;
    if text.len() > SIZE_LIMIT {
        return Err(FileError::TooLong {
            path: path.to_owned(),
        });
    }
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(Secret::new(line)),
        _ => Err(FileError::Empty {
            path: path.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::*;

    fn file(text: &str, mode: u32) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.as_file()
            .set_permissions(fs::Permissions::from_mode(mode))
            .unwrap();
        file
    }

    #[test]
    fn a_secret_is_the_first_line_and_is_never_printed() {
        let file = file("p&w<\u{e4}> \nnote\n", 0o640);
        let secret = read_file(file.path()).unwrap();
        assert_eq!(secret.expose(), "p&w<\u{e4}> ");
        assert_eq!(format!("{secret:?}"), "[REDACTED]");
    }

    #[test]
    fn a_file_that_everyone_can_read_or_that_is_empty_or_no_file_of_a_password_is_refused() {
        assert!(matches!(
            read_file(file("x\n", 0o644).path()),
            Err(FileError::WorldReadable { .. })
        ));
        assert!(matches!(
            read_file(file("\nx", 0o600).path()),
            Err(FileError::Empty { .. })
        ));
        let longest = format!("x\n{}", "#".repeat(SIZE_LIMIT - 2));
        assert_eq!(read_file(file(&longest, 0o600).path()).unwrap().expose(), "x");
        assert!(matches!(
            read_file(file(&format!("{longest}#"), 0o600).path()),
            Err(FileError::TooLong { .. })
        ));
        assert!(matches!(
            read_file(Path::new("/nonexistent")),
            Err(FileError::Read { .. })
        ));
    }
}
