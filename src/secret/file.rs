//! A secret on the first line of a file of its own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::secret::{Secret, credential};

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
    /// The file holds nothing.
    #[error("{path} is empty; it must hold the password on its first line")]
    Empty {
        /// The file.
        path: PathBuf,
    },
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
    use std::os::unix::fs::PermissionsExt as _;

    let read = |source| FileError::Read {
        path: path.to_owned(),
        source,
    };
    let mode = fs::metadata(path).map_err(read)?.permissions().mode() & 0o777;
    if mode & 0o007 != 0 {
        return Err(FileError::WorldReadable {
            path: path.to_owned(),
            mode,
        });
    }
    let text = Zeroizing::new(fs::read_to_string(path).map_err(read)?);
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(Secret::new(line)),
        _ => Err(FileError::Empty {
            path: path.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;

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
    fn a_file_that_everyone_can_read_or_that_is_empty_is_refused() {
        assert!(matches!(
            read_file(file("x\n", 0o644).path()),
            Err(FileError::WorldReadable { .. })
        ));
        assert!(matches!(
            read_file(file("\nx", 0o600).path()),
            Err(FileError::Empty { .. })
        ));
        assert!(matches!(
            read_file(Path::new("/nonexistent")),
            Err(FileError::Read { .. })
        ));
    }
}
