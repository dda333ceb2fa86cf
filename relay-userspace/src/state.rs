//! The state directory: what must survive a restart.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::random::{self, NoRandomness};
use crate::service::directory as service_directory;

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
    /// What should be the file of the secret is something else.
    #[error("--state-dir: {0} is not a file; remove it and a new secret will be made")]
    NotAFile(PathBuf),
    /// The file of the secret can be read by others.
    #[error("--state-dir: {0} can be read by other users; run chmod 600 on it, or delete it for a new secret")]
    Exposed(PathBuf),
    /// The system has no random bytes.
    #[error(transparent)]
    Random(#[from] NoRandomness),
}

/// Where state is kept unless `--state-dir` says otherwise. `None` if the environment does not tell.
pub fn default_directory() -> Option<PathBuf> {
    if let Some(directory) = service_directory("STATE_DIRECTORY") {
        return Some(directory);
    }
    if rustix::process::geteuid().is_root() {
        return Some(PathBuf::from("/var/lib/hairpin"));
    }
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
    state.map(|state| state.join("hairpin"))
}

/// The secret of this relay: made at the first start, the same ever after. Of two first starts at the same time, one
/// makes it and both return it.
pub fn auth_secret(directory: &Path) -> Result<String, StateError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(failed(directory))?;
    let path = directory.join("auth-secret");
    if let Some(secret) = read_secret(&path)? {
        return Ok(secret);
    }
    write_secret(directory, &path)?;
    // What is read back is the secret of whoever came first.
    read_secret(&path)?.ok_or_else(|| failed(&path)(io::ErrorKind::NotFound.into()))
}

/// The secret that is kept, if any is.
fn read_secret(path: &Path) -> Result<Option<String>, StateError> {
    // Without waiting: a pipe that somebody has put there would keep the relay from starting, and from stopping.
    let mut file = match OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(path)(error)),
    };
    let metadata = file.metadata().map_err(failed(path))?;
    if !metadata.is_file() {
        return Err(StateError::NotAFile(path.to_owned()));
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(StateError::Exposed(path.to_owned()));
    }
    let mut secret = String::new();
    file.read_to_string(&mut secret).map_err(failed(path))?;
    let secret = secret.trim();
    if secret.is_empty() { Err(StateError::EmptySecret(path.to_owned())) } else { Ok(Some(secret.to_owned())) }
}

/// Keeps a new secret at `path`, unless there is one by now.
fn write_secret(directory: &Path, path: &Path) -> Result<(), StateError> {
    // Written under another name first, so that a crash leaves no half of a secret. A random name: process ids come
    // again, in containers at each start.
    let temporary = directory.join(format!(".auth-secret.{}", hexadecimal(&random::bytes::<8>()?)));
    let written = write_new(&temporary, &hexadecimal(&random::bytes::<32>()?)).map_err(failed(&temporary));
    // Unlike renaming, linking never replaces the secret of another start that was faster.
    let kept = written.and_then(|()| match fs::hard_link(&temporary, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(path)(error)),
        _ => Ok(()),
    });
    // If this fails, so has the rest, which is told; the remainder is readable by its owner only.
    let _ = fs::remove_file(&temporary);
    kept
}

fn write_new(path: &Path, line: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(line.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()
}

fn failed(path: &Path) -> impl Fn(io::Error) -> StateError {
    move |source| StateError::Io { path: path.to_owned(), source }
}

fn hexadecimal(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
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

    #[test]
    fn what_a_crash_has_left_is_in_nobodys_way() {
        let directory = Directory::new("crash");
        fs::create_dir(&directory.0).unwrap();
        fs::write(directory.0.join(format!(".auth-secret.{}", std::process::id())), "half").unwrap();
        assert_eq!(auth_secret(&directory.0).unwrap().len(), 64);
    }

    #[test]
    fn a_secret_that_cannot_be_kept_leaves_nothing_behind() {
        let directory = Directory::new("dangling");
        fs::create_dir(&directory.0).unwrap();
        let path = directory.0.join("auth-secret");
        std::os::unix::fs::symlink("nowhere", &path).unwrap();
        let error = auth_secret(&directory.0).unwrap_err();
        assert!(matches!(&error, StateError::Io { path: named, .. } if *named == path), "{error}");
        assert_eq!(fs::read_dir(&directory.0).unwrap().count(), 1, "the link alone");
    }

    #[test]
    fn first_starts_at_the_same_time_agree() {
        for round in 0..50 {
            let directory = Directory::new(&format!("race-{round}"));
            let start = std::sync::Barrier::new(8);
            let secrets: Vec<String> = std::thread::scope(|scope| {
                let begin = || {
                    start.wait();
                    auth_secret(&directory.0).unwrap()
                };
                let threads: Vec<_> = (0..8).map(|_| scope.spawn(begin)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert!(secrets.iter().all(|secret| *secret == secrets[0]), "{secrets:?}");
            assert_eq!(fs::read_dir(&directory.0).unwrap().count(), 1, "no temporary file is left");
        }
    }

    #[test]
    fn a_pipe_in_place_of_the_secret_is_refused_at_once() {
        let directory = Directory::new("pipe");
        fs::create_dir_all(&directory.0).unwrap();
        let made = std::process::Command::new("mkfifo").arg(directory.0.join("auth-secret")).status().unwrap();
        assert!(made.success());
        assert!(matches!(auth_secret(&directory.0), Err(StateError::NotAFile(_))));
    }
}
