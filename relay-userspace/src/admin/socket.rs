//! The Unix socket: for its owner only, in place of one that a dead process has left, gone at the end.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net;
use std::path::{Path, PathBuf};

use axum::serve::Listener;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream, unix};

use crate::service::directory as service_directory;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 64;

/// Where the socket of a relay is that runs as root, or as a service of the system.
pub fn system_socket() -> &'static Path {
    Path::new("/run/hairpin/admin.sock")
}

/// Where the socket is unless `--admin-socket` says otherwise, for the relay and for who asks it. `None` if the
/// environment does not tell.
pub fn default_socket() -> Option<PathBuf> {
    if let Some(directory) = service_directory("RUNTIME_DIRECTORY") {
        return Some(directory.join("admin.sock"));
    }
    if rustix::process::geteuid().is_root() {
        return Some(system_socket().to_owned());
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    Some(runtime?.join("hairpin/admin.sock"))
}

/// A Unix socket that listens. Dropping it removes its file, if it has made it.
#[derive(Debug)]
pub(super) struct AdminListener {
    listener: UnixListener,
    #[expect(dead_code, reason = "removes the file at the end")]
    file: Option<OwnFile>,
}

/// A file of a socket that this process has made.
#[derive(Debug)]
struct OwnFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

/// Why there can be no socket at a path.
#[derive(Debug, thiserror::Error)]
pub(super) enum SocketError {
    #[error("another process answers there; stop it, or choose another path")]
    Alive,
    #[error("there is something that is not a socket; remove it, or choose another path")]
    NotASocket,
    #[error("{0}; choose another path, or `off`")]
    Io(#[from] io::Error),
}

impl AdminListener {
    /// Listens at a path.
    pub(super) fn bind(path: &Path) -> Result<Self, SocketError> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
        }
        remove_dead(path)?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
        socket.bind(&SockAddr::unix(path)?)?;
        // Nobody can connect before it listens, so nobody has connected while others were allowed to.
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        socket.listen(BACKLOG)?;
        let listener = UnixListener::from_std(net::UnixListener::from(socket))?;
        Ok(Self { listener, file: Some(OwnFile { path: path.to_owned(), identity: identity(path)? }) })
    }

    /// One that is open already. Whoever has made its file says whom it is for, and removes it.
    pub(super) fn passed(listener: net::UnixListener) -> io::Result<Self> {
        Ok(Self { listener: UnixListener::from_std(listener)?, file: None })
    }
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        // Somebody may have removed it, and another relay may have made its own.
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Listener for AdminListener {
    type Io = UnixStream;
    type Addr = unix::SocketAddr;

    async fn accept(&mut self) -> (UnixStream, unix::SocketAddr) {
        Listener::accept(&mut self.listener).await
    }

    fn local_addr(&self) -> io::Result<unix::SocketAddr> {
        self.listener.local_addr()
    }
}

/// Whether a process of this network namespace listens at a path. Nobody is asked: where a service manager has opened the
/// socket, a connection would start a relay.
pub fn is_listened_to(path: &Path) -> bool {
    fs::read_to_string("/proc/net/unix")
        .is_ok_and(|sockets| sockets.lines().any(|line| listener_of(line) == Some(path)))
}

/// The path of a socket that listens, of a line of `/proc/net/unix`.
fn listener_of(line: &str) -> Option<&Path> {
    const ACCEPTS: &str = "00010000";
    // Number, count, protocol, flags, type, state and inode come before the path, in which there may be spaces.
    let (numbers, path) = line.split_at(line.find(" /")? + 1);
    (numbers.split_whitespace().nth(3)? == ACCEPTS).then(|| Path::new(path))
}

/// Removes the socket of a process that has ended without doing so.
fn remove_dead(path: &Path) -> Result<(), SocketError> {
    match fs::symlink_metadata(path) {
        Ok(file) if file.file_type().is_socket() => {}
        Ok(_) => return Err(SocketError::NotASocket),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    if probe(path)? { Err(SocketError::Alive) } else { Ok(fs::remove_file(path)?) }
}

/// Whether a process listens at a socket.
fn probe(path: &Path) -> io::Result<bool> {
    // Without waiting: one whose queue is full answers late, but is alive.
    let probe = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(false),
        Err(error) => Err(error),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_is_seen_without_asking() {
        let folder = Folder::new("listens");
        fs::create_dir(&folder.0).unwrap();
        let path = folder.0.join("a socket");
        assert!(!is_listened_to(&path));
        let listener = net::UnixListener::bind(&path).unwrap();
        let _client = net::UnixStream::connect(&path).unwrap();
        assert!(is_listened_to(&path));
        drop(listener);
        assert!(!is_listened_to(&path), "its file is still there");
        let small = "0000000000000000: 00000002 00000000 00010000 0001 01    42 /run/a b.sock";
        assert_eq!(listener_of(small), Some(Path::new("/run/a b.sock")));
        assert_eq!(listener_of(&small.replace("00010000", "00000000")), None);
        assert_eq!(listener_of("0000000000000000: 00000003 00000000 00000000 0001 03    50"), None);
    }

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("hairpin-socket-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn it_is_for_its_owner_in_a_folder_for_all_and_goes_with_the_relay() {
        let folder = Folder::new("modes");
        let path = folder.0.join("a/b/admin.sock");
        let listener = AdminListener::bind(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o755);
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn one_of_a_dead_process_is_replaced_and_one_of_a_living_is_not() {
        let folder = Folder::new("dead");
        fs::create_dir_all(&folder.0).unwrap();
        let path = folder.0.join("admin.sock");
        // The library leaves the file where it is, as a process does that is killed.
        drop(net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let first = AdminListener::bind(&path).unwrap();
        assert!(matches!(AdminListener::bind(&path), Err(SocketError::Alive)));
        assert!(path.exists(), "the living one is left alone");
        drop(first);
    }

    #[tokio::test]
    async fn what_is_no_socket_is_never_removed() {
        let folder = Folder::new("file");
        fs::create_dir_all(&folder.0).unwrap();
        let path = folder.0.join("admin.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(AdminListener::bind(&path), Err(SocketError::NotASocket)));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        assert!(matches!(AdminListener::bind(&path), Err(SocketError::NotASocket)));
    }

    #[tokio::test]
    async fn the_socket_of_a_successor_stays() {
        let folder = Folder::new("successor");
        let path = folder.0.join("admin.sock");
        let first = AdminListener::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let second = AdminListener::bind(&path).unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());
    }
}
