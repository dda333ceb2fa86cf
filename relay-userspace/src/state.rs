//! The state directory: what must survive a restart.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ring::rand::{SecureRandom, SystemRandom};

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file or directory cannot be made, read or written.
    #[error("--state-dir: {path}: {source}; choose a directory that this user may write")]
    Io {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file of the secret holds none.
    #[error("--state-dir: {0} is empty; delete it and a new secret will be made")]
    EmptySecret(PathBuf),
    /// The file of the secret can be read by others.
    #[error("--state-dir: {0} can be read by other users; run chmod 600 on it, or delete it for a new secret")]
    Exposed(PathBuf),
    /// The system has no random bytes.
    #[error("the system gives no random bytes")]
    Random,
}

/// Where state is kept unless `--state-dir` says otherwise.
pub fn default_directory() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/hairpin");
    }
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).or_else(home).unwrap_or_default().join("hairpin")
}

/// The secret of this relay: made at the first start, the same ever after.
pub fn auth_secret(directory: &Path) -> Result<String, StateError> {
    let path = directory.join("auth-secret");
    let failed = |source| StateError::Io { path: path.clone(), source };
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|source| StateError::Io { path: directory.to_owned(), source })?;
    match fs::read_to_string(&path) {
        Ok(secret) => {
            let mode = fs::metadata(&path).map_err(failed)?.permissions().mode();
            if mode & 0o077 != 0 {
                return Err(StateError::Exposed(path));
            }
            let secret = secret.trim().to_owned();
            if secret.is_empty() { Err(StateError::EmptySecret(path)) } else { Ok(secret) }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let secret = random_secret()?;
            // Written under another name and renamed, so that a crash leaves no half of a secret.
            let temporary = directory.join(format!(".auth-secret.{}", std::process::id()));
            let write = || {
                let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
                file.write_all(secret.as_bytes())?;
                file.write_all(b"\n")?;
                file.sync_all()?;
                fs::rename(&temporary, &path)
            };
            write().map_err(failed)?;
            Ok(secret)
        }
        Err(error) => Err(failed(error)),
    }
}

/// 256 random bits in hexadecimal.
fn random_secret() -> Result<String, StateError> {
    let mut bytes = [0_u8; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| StateError::Random)?;
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    Ok(digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("hairpin-state-{name}-{}", std::process::id())))
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_secret_is_made_once_and_for_its_owner_only() {
        let directory = Directory::new("once");
        let first = auth_secret(&directory.0).unwrap();
        assert_eq!(first.len(), 64);
        assert_eq!(auth_secret(&directory.0).unwrap(), first);
        let mode = fs::metadata(directory.0.join("auth-secret")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(&directory.0).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        let directory = Directory::new("exposed");
        auth_secret(&directory.0).unwrap();
        let path = directory.0.join("auth-secret");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(auth_secret(&directory.0), Err(StateError::Exposed(_))));
    }

    #[test]
    fn an_empty_secret_is_refused() {
        let directory = Directory::new("empty");
        auth_secret(&directory.0).unwrap();
        fs::write(directory.0.join("auth-secret"), "\n").unwrap();
        assert!(matches!(auth_secret(&directory.0), Err(StateError::EmptySecret(_))));
    }
}
