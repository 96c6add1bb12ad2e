//! Files of secrets as systemd hands them to the service.
//!
//! Owns: which credential is the copy of which file. The files themselves stay readable by root alone, and the
//! configuration names them, so that commands of root and the service understand the same configuration.

use std::path::{Path, PathBuf};

/// The copy of this file among the credentials of this service, where there is one.
pub(super) fn copy_of(path: &Path) -> Option<PathBuf> {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY")?;
    copy_in(Path::new(&credentials), path)
}

/// `LoadCredential=secrets:/etc/virt-collector/secrets` hands over each file of that directory as `secrets_NAME`,
/// `LoadCredential=NAME:/any/file` one file as `NAME`.
pub(super) fn copy_in(credentials: &Path, path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let directory = path
        .parent()
        .and_then(Path::file_name)
        .and_then(|name| name.to_str());
    let of_directory = directory.map(|directory| format!("{directory}_{name}"));
    of_directory
        .into_iter()
        .chain([name.to_owned()])
        .map(|credential| credentials.join(credential))
        .find(|credential| credential.exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_of_a_file_has_its_name_or_that_of_its_directory_and_itself() {
        let credentials = tempfile::tempdir().unwrap();
        let credential = |name: &str| credentials.path().join(name);
        let copy_of = |path: &str| copy_in(credentials.path(), Path::new(path));
        assert_eq!(copy_of("/etc/virt-collector/secrets/berlin.password"), None);

        std::fs::write(credential("berlin.password"), "one").unwrap();
        assert_eq!(
            copy_of("/etc/virt-collector/secrets/berlin.password"),
            Some(credential("berlin.password"))
        );
        assert_eq!(copy_of("paris.password"), None);

        // Of two, that of the directory: it is nearer to what the configuration says.
        std::fs::write(credential("secrets_berlin.password"), "two").unwrap();
        assert_eq!(
            copy_of("/etc/virt-collector/secrets/berlin.password"),
            Some(credential("secrets_berlin.password"))
        );
        assert_eq!(copy_of("berlin.password"), Some(credential("berlin.password")));
        assert_eq!(copy_of("/"), None);
    }
}
