//! The key ring as a file.
//!
//! Owns: where it is, who may read it, and that it is replaced as a whole. Never does: what is in it.
//!
//! A reader finds the file before a change or after it, never a part: a change is written beside it, flushed to the
//! disk, and takes its name. Two changes at once: the second is refused, by a lock on the directory.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::secret::credential;
use crate::secret::key_ring::{KeyRing, RingError};

/// Name of the credential that is the key ring, whatever the file is called.
const CREDENTIAL: &str = "keyring";

/// More than a hundred keys; whatever is larger is not a key ring.
const SIZE_LIMIT: usize = 16 * 1024;

/// Its owner reads it, and nobody writes it: changes come as a new file.
const MODE: u32 = 0o400;
const OTHERS: u32 = 0o007;
const OTHERS_OR_GROUP: u32 = 0o077;

/// Why there is no key ring, or why it was not changed.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// There is none.
    #[error(
        "there is no key ring at {path}: make one with `virt-collector key init`, or bring back its copy"
    )]
    Absent {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be read.
    #[error("cannot read the key ring {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A directory, a pipe, a device, or far too large.
    #[error("{path} is not a key ring: it must be a regular file of at most {} KiB", SIZE_LIMIT / 1024)]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// Others may read or write it.
    #[error("the key ring {path} is open to others (mode {mode:04o}); run: chmod 0400 {path}")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Its text makes no sense.
    #[error("the key ring {path} cannot be used")]
    Text {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: RingError,
    },
    /// It is there already.
    #[error("{path} exists already and is left as it is: a new key is added with `virt-collector key add`")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be written.
    #[error("cannot write the key ring {path}; it is as it was")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Somebody else is changing it.
    #[error("another command is changing the key ring {path}: run this one again")]
    Busy {
        /// The file.
        path: PathBuf,
    },
}

/// Reads the ring for sealing and opening: the copy of the file, or the credential `keyring`, where systemd has handed
/// one to this service, otherwise the file.
///
/// # Errors
/// When there is none, others may read it, or its text makes no sense.
pub fn load(path: &Path) -> Result<KeyRing, KeyFileError> {
    load_from(path, std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from))
}

fn load_from(path: &Path, credentials: Option<PathBuf>) -> Result<KeyRing, KeyFileError> {
    let credential = credentials.and_then(|directory| {
        credential::copy_in(&directory, path)
            .or_else(|| credential::copy_in(&directory, Path::new(CREDENTIAL)))
    });
    match credential {
        // Its directory is open to this service only; newer versions of systemd let the user in by an access list,
        // which shows among the bits of the group.
        Some(credential) => read(&credential, OTHERS),
        None => read(path, OTHERS_OR_GROUP),
    }
}

fn unreadable(path: &Path, source: io::Error) -> KeyFileError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound => KeyFileError::Absent { path },
        _ => KeyFileError::Read { path, source },
    }
}

fn read(path: &Path, forbidden: u32) -> Result<KeyRing, KeyFileError> {
    let failed = |source| unreadable(path, source);
    let not_a_file = || KeyFileError::NotAFile {
        path: path.to_owned(),
    };
    // Before it is opened: to open a pipe would wait for its other end.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(not_a_file());
    }
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & forbidden != 0 {
        return Err(KeyFileError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    let size = usize::try_from(metadata.len())
        .ok()
        .filter(|size| *size <= SIZE_LIMIT)
        .ok_or_else(not_a_file)?;
    // A buffer that grows would leave what it held behind.
    let mut bytes = Zeroizing::new(vec![0; size]);
    (&file).read_exact(&mut bytes).map_err(failed)?;
    let Ok(text) = str::from_utf8(&bytes) else {
        return Err(not_a_file());
    };
    KeyRing::parse(text).map_err(|source| KeyFileError::Text {
        path: path.to_owned(),
        source,
    })
}

/// Writes a ring to a file that does not exist yet.
///
/// # Errors
/// When the file is there, or cannot be written.
pub fn create(path: &Path, ring: &KeyRing) -> Result<(), KeyFileError> {
    let place = Place::lock(path.to_owned())?;
    if fs::symlink_metadata(path).is_ok() {
        return Err(KeyFileError::Exists {
            path: path.to_owned(),
        });
    }
    place.write(ring, None)
}

/// Reads the file, lets `change` change the ring, and writes it back where that succeeds. Always the file, never a
/// credential, which is a copy.
///
/// # Errors
/// When the file cannot be read or written; whatever `change` says.
pub fn edit<T, E: From<KeyFileError>>(
    path: &Path,
    change: impl FnOnce(&mut KeyRing) -> Result<T, E>,
) -> Result<T, E> {
    // Where the path is a link, the file behind it is replaced, not the link.
    let place = Place::lock(fs::canonicalize(path).map_err(|source| unreadable(path, source))?)?;
    let mut ring = read(&place.path, OTHERS_OR_GROUP)?;
    let before = fs::metadata(&place.path).map_err(|source| unreadable(path, source))?;
    let changed = change(&mut ring)?;
    place.write(&ring, Some((before.uid(), before.gid())))?;
    Ok(changed)
}

/// A key file's name in its directory, which is locked while this lives.
struct Place {
    path: PathBuf,
    directory: File,
}

impl Place {
    fn lock(path: PathBuf) -> Result<Self, KeyFileError> {
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let locked = File::open(parent).and_then(|directory| match directory.try_lock() {
            Ok(()) => Ok(Some(directory)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        });
        match locked {
            Ok(Some(directory)) => Ok(Self { path, directory }),
            Ok(None) => Err(KeyFileError::Busy { path }),
            Err(source) => Err(KeyFileError::Write { path, source }),
        }
    }

    /// The file gets the owner that it had: whoever runs the command, the service must be able to read it.
    fn write(&self, ring: &KeyRing, owner: Option<(u32, u32)>) -> Result<(), KeyFileError> {
        let mut name = self.path.as_os_str().to_owned();
        name.push(".new");
        let new = PathBuf::from(name);
        let written = write_new(&new, ring, owner)
            .and_then(|()| fs::rename(&new, &self.path))
            // The new name reaches the disk, too.
            .and_then(|()| self.directory.sync_all());
        written.map_err(|source| {
            // Nothing that holds keys is left lying about. Where even that fails, it has the mode of the ring.
            drop(fs::remove_file(&new));
            KeyFileError::Write {
                path: self.path.clone(),
                source,
            }
        })
    }
}

fn write_new(new: &Path, ring: &KeyRing, owner: Option<(u32, u32)>) -> io::Result<()> {
    match fs::remove_file(new) {
        // Left by a run that was killed.
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(new)?;
    let made = file.metadata()?;
    if let Some((uid, gid)) = owner
        && (uid, gid) != (made.uid(), made.gid())
    {
        fchown(&file, Some(uid), Some(gid))?;
    }
    file.write_all(ring.text().as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use super::*;
    use crate::secret::UnknownKey;

    #[derive(Debug, thiserror::Error)]
    enum Failed {
        #[error(transparent)]
        File(#[from] KeyFileError),
        #[error(transparent)]
        Unknown(#[from] UnknownKey),
    }

    fn add(path: &Path) -> Result<(), KeyFileError> {
        edit(path, |ring| {
            ring.add().unwrap();
            Ok(())
        })
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn the_file_is_its_owners_alone_and_every_change_replaces_it_as_a_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keyring");
        assert!(matches!(load_from(&path, None), Err(KeyFileError::Absent { .. })));
        assert!(matches!(add(&path), Err(KeyFileError::Absent { .. })));

        let ring = KeyRing::generate().unwrap();
        create(&path, &ring).unwrap();
        let made = fs::metadata(&path).unwrap();
        assert_eq!(made.permissions().mode() & 0o7777, 0o400);
        assert_eq!(load_from(&path, None).unwrap().primary(), ring.primary());

        assert!(matches!(
            create(&path, &KeyRing::generate().unwrap()),
            Err(KeyFileError::Exists { .. })
        ));
        assert_eq!(load_from(&path, None).unwrap().primary(), ring.primary());

        // Left behind by a run that was killed.
        fs::write(directory.path().join("keyring.new"), "x").unwrap();
        add(&path).unwrap();
        assert_eq!(load_from(&path, None).unwrap().ids().count(), 2);
        let changed = fs::metadata(&path).unwrap();
        assert_eq!(changed.permissions().mode() & 0o7777, 0o400);
        assert_ne!(changed.ino(), made.ino());
        assert_eq!(names(directory.path()), ["keyring"]);

        // A change that comes to nothing leaves the file.
        let unknown = "0123456789abcdef".parse().unwrap();
        let refused: Result<(), Failed> = edit(&path, |ring| Ok(ring.promote(unknown)?));
        assert!(matches!(refused, Err(Failed::Unknown(_))));
        assert_eq!(fs::metadata(&path).unwrap().ino(), changed.ino());
    }

    #[test]
    fn a_file_that_anybody_else_may_open_is_refused_for_reading_and_for_changes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keyring");
        create(&path, &KeyRing::generate().unwrap()).unwrap();
        for mode in [0o404, 0o440, 0o420, 0o600 | 0o001, 0o644, 0o640, 0o777] {
            set_mode(&path, mode);
            for refused in [load_from(&path, None).map(drop), add(&path)] {
                let said = refused.unwrap_err().to_string();
                assert!(
                    said.contains(&format!("mode {mode:04o}")) && said.contains("run: chmod 0400 "),
                    "{said}"
                );
            }
        }
        for mode in [0o400, 0o600, 0o700] {
            set_mode(&path, mode);
            load_from(&path, None).unwrap();
        }
    }

    #[test]
    fn a_credential_of_the_service_is_taken_before_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let (path, credentials) = (
            directory.path().join("file"),
            directory.path().join("credentials"),
        );
        fs::create_dir(&credentials).unwrap();
        let [in_file, in_credential] = [(); 2].map(|()| KeyRing::generate().unwrap());
        create(&path, &in_file).unwrap();
        let from = |credentials: &Path| load_from(&path, Some(credentials.to_owned()));

        // The service has credentials, but none of this name.
        assert_eq!(from(&credentials).unwrap().primary(), in_file.primary());
        let credential = credentials.join("keyring");
        create(&credential, &in_credential).unwrap();
        assert_eq!(from(&credentials).unwrap().primary(), in_credential.primary());
        // Open by access list to the user of the service.
        set_mode(&credential, 0o440);
        assert_eq!(from(&credentials).unwrap().primary(), in_credential.primary());
        set_mode(&credential, 0o444);
        assert!(matches!(from(&credentials), Err(KeyFileError::Exposed { .. })));
    }

    #[test]
    fn what_is_no_file_of_text_is_refused_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        assert!(matches!(
            load_from(directory.path(), None),
            Err(KeyFileError::NotAFile { .. })
        ));
        // It would never end.
        assert!(matches!(
            load_from(Path::new("/dev/zero"), None),
            Err(KeyFileError::NotAFile { .. })
        ));
        for (name, bytes) in [("large", vec![b'#'; SIZE_LIMIT + 1]), ("binary", vec![0xff; 10])] {
            fs::write(path(name), bytes).unwrap();
            set_mode(&path(name), 0o600);
            assert!(
                matches!(load_from(&path(name), None), Err(KeyFileError::NotAFile { .. })),
                "{name}"
            );
        }
        fs::write(path("empty"), "").unwrap();
        set_mode(&path("empty"), 0o600);
        assert!(matches!(
            load_from(&path("empty"), None),
            Err(KeyFileError::Text { .. })
        ));
    }

    #[test]
    fn of_two_changes_at_once_the_second_is_refused_and_a_link_stays_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (directory.path().join("keyring"), directory.path().join("link"));
        create(&path, &KeyRing::generate().unwrap()).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        edit(&link, |ring| {
            ring.add().unwrap();
            assert!(matches!(add(&path), Err(KeyFileError::Busy { .. })));
            Ok::<_, KeyFileError>(())
        })
        .unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(load_from(&path, None).unwrap().ids().count(), 2);
    }

    #[test]
    fn a_file_that_cannot_be_written_is_left_as_it_was() {
        let absent = Path::new("/nonexistent/keyring");
        let refused = create(absent, &KeyRing::generate().unwrap());
        assert!(matches!(refused, Err(KeyFileError::Write { .. })), "{refused:?}");

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keyring");
        create(&path, &KeyRing::generate().unwrap()).unwrap();
        // In the way of the new file, and not to be removed like one.
        fs::create_dir(directory.path().join("keyring.new")).unwrap();
        assert!(matches!(add(&path), Err(KeyFileError::Write { .. })));
        assert_eq!(load_from(&path, None).unwrap().ids().count(), 1);
    }
}
