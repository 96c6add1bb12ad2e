//! A sealed password and where its keys are.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::secret::Secret;
use crate::secret::key_file::{self, KeyFileError};
use crate::secret::seal::{OpenError, Place};

/// The seal is opened when the password is needed, with the key ring as it is then: neither a new key nor a new seal
/// needs a restart. Clones share the seal. Two are equal if they stand in the same place; what they hold is not
/// compared.
#[derive(Clone)]
pub struct SealedPassword {
    keys: PathBuf,
    place: Place,
    envelope: Arc<Mutex<Option<Vec<u8>>>>,
}

impl PartialEq for SealedPassword {
    fn eq(&self, other: &Self) -> bool {
        (&self.keys, self.place) == (&other.keys, other.place)
    }
}

impl Eq for SealedPassword {}

impl fmt::Debug for SealedPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedPassword")
            .field("keys", &self.keys)
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

/// Why there is no password.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// None was ever sealed.
    #[error(
        "the registry holds no password for it; set one with `virt-collector platform edit NAME --password`"
    )]
    Absent,
    /// No key ring.
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    /// The seal does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl SealedPassword {
    /// What is sealed for `place`, whose key ring is in the file `keys`; `None` where nothing is.
    #[must_use]
    pub fn new(keys: PathBuf, place: Place, envelope: Option<Vec<u8>>) -> Self {
        Self {
            keys,
            place,
            envelope: Arc::new(Mutex::new(envelope)),
        }
    }

    /// The password.
    ///
    /// # Errors
    /// When nothing is sealed, the key ring cannot be read, or the seal does not open here.
    pub fn open(&self) -> Result<Secret, Error> {
        let envelope = self
            .envelope
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let envelope = envelope.ok_or(Error::Absent)?;
        Ok(key_file::load(&self.keys)?.open(self.place, &envelope)?)
    }

    /// Takes another's seal, as from the next time that it is opened, for all clones.
    pub fn renew(&self, from: &Self) {
        let envelope = from
            .envelope
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        *self.envelope.lock().unwrap_or_else(PoisonError::into_inner) = envelope;
    }
}
