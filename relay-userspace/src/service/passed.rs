//! Sockets that the manager has opened for the relay: those of the admin interface.
//!
//! Only those. Each shard has sockets of its own for every address that clients reach it by, with SO_REUSEPORT; the kernel
//! lets only one user share a port like that, and the manager's is root.

#![allow(unsafe_code, reason = "descriptors that are numbers become sockets here, and nowhere else")]

use std::ffi::OsStr;
use std::io;
use std::net::TcpListener;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{AddressFamily, SocketType, sockopt};

use super::{Variables, is_this_process};
use crate::printable;

/// The number of the first one (`SD_LISTEN_FDS_START`).
const FIRST: RawFd = 3;
/// More would be a mistake.
const MOST: RawFd = 16;
/// What they are called (`FileDescriptorName=`).
const NAME: &str = "admin";

/// Sockets that listen, one of each kind at most.
#[derive(Debug, Default)]
pub struct Passed {
    /// In place of what `--admin-socket` would open.
    pub unix: Option<UnixListener>,
    /// In place of what `--admin` would open.
    pub tcp: Option<TcpListener>,
}

/// Why sockets that were passed are of no use.
#[derive(Debug, thiserror::Error)]
pub enum PassedError {
    /// Not a number of sockets.
    #[error("LISTEN_FDS={0}: a number from 0 to {MOST} is needed")]
    Count(String),
    /// A socket is called something else, or nothing.
    #[error("the service manager passes a socket named {0:?}: only {NAME:?} is of use (FileDescriptorName={NAME})")]
    Name(String),
    /// There are two of a kind.
    #[error("the service manager passes more than one {0} socket named {NAME:?}: one is of use")]
    Twice(&'static str),
    /// It is something else.
    #[error(
        "what the service manager passes as {NAME:?} is no stream socket that listens, of Unix or TCP (ListenStream=)"
    )]
    Kind,
    /// It is not even that.
    #[error("the socket {NAME:?} that the service manager passes: {0}")]
    Io(#[from] io::Error),
}

impl Passed {
    /// Those that these variables tell of. To be called once, before this process opens anything.
    pub fn of(variables: &Variables) -> Result<Self, PassedError> {
        let mut passed = Self::default();
        if !variables.listen_pid.as_deref().is_some_and(is_this_process) {
            return Ok(passed);
        }
        let count = text(variables.listen_fds.as_deref());
        let number = count.parse().ok().filter(|number| (0..=MOST).contains(number));
        let number: RawFd = number.ok_or_else(|| PassedError::Count(printable::clean(&count)))?;
        let names = text(variables.listen_fdnames.as_deref());
        let mut names = names.split(':');
        for descriptor in FIRST..FIRST + number {
            let name = names.next().unwrap_or_default();
            if name != NAME {
                return Err(PassedError::Name(name.to_owned()));
            }
            passed.take(descriptor)?;
        }
        Ok(passed)
    }

    fn take(&mut self, descriptor: RawFd) -> Result<(), PassedError> {
        // SAFETY: of a number that nothing is open by, fcntl(2) says so, and does no more.
        if unsafe { libc::fcntl(descriptor, libc::F_GETFD) } < 0 {
            return Err(io::Error::last_os_error().into());
        }
        // SAFETY: it is open, and the manager has given it to this process, which has not opened anything itself.
        let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };
        fcntl_setfd(&socket, FdFlags::CLOEXEC).map_err(io::Error::from)?;
        self.add(socket)
    }

    fn add(&mut self, socket: OwnedFd) -> Result<(), PassedError> {
        let is_stream = sockopt::socket_type(&socket).is_ok_and(|kind| kind == SocketType::STREAM);
        if !is_stream || !sockopt::socket_acceptconn(&socket).unwrap_or(false) {
            return Err(PassedError::Kind);
        }
        match sockopt::socket_domain(&socket).map_err(io::Error::from)? {
            AddressFamily::UNIX if self.unix.is_some() => Err(PassedError::Twice("Unix")),
            AddressFamily::UNIX => {
                let listener = UnixListener::from(socket);
                listener.set_nonblocking(true)?;
                self.unix = Some(listener);
                Ok(())
            }
            AddressFamily::INET | AddressFamily::INET6 if self.tcp.is_some() => Err(PassedError::Twice("TCP")),
            AddressFamily::INET | AddressFamily::INET6 => {
                let listener = TcpListener::from(socket);
                listener.set_nonblocking(true)?;
                self.tcp = Some(listener);
                Ok(())
            }
            _ => Err(PassedError::Kind),
        }
    }
}

/// What a variable says; nothing, if it is not there.
fn text(value: Option<&OsStr>) -> String {
    value.map(|value| value.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixStream};

    use super::*;

    #[test]
    fn each_kind_is_taken_once_and_nothing_else() {
        let tcp = || OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap());
        let unix = |name: &str| {
            let name = format!("hairpin-passed-{name}-{}", std::process::id());
            OwnedFd::from(UnixListener::bind_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap())
        };
        let mut passed = Passed::default();
        passed.add(tcp()).unwrap();
        passed.add(unix("a")).unwrap();
        assert!(passed.tcp.is_some() && passed.unix.is_some());
        assert!(matches!(passed.add(tcp()), Err(PassedError::Twice("TCP"))));
        assert!(matches!(passed.add(unix("b")), Err(PassedError::Twice("Unix"))));
        let (connected, _other) = UnixStream::pair().unwrap();
        let others = [UdpSocket::bind("127.0.0.1:0").unwrap().into(), connected.into(), device()];
        for other in others {
            assert!(matches!(passed.add(other), Err(PassedError::Kind)));
        }
    }

    fn device() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn a_number_that_nothing_is_open_by_is_no_socket() {
        let error = Passed::default().take(RawFd::MAX).unwrap_err();
        assert!(matches!(&error, PassedError::Io(error) if error.raw_os_error() == Some(libc::EBADF)), "{error}");
    }

    #[test]
    fn only_what_is_for_this_process_is_looked_at() {
        let of = |pid: u32, fds: &str, names: Option<&str>| {
            let [listen_pid, listen_fds] = [pid.to_string(), fds.to_owned()].map(|value| Some(value.into()));
            let listen_fdnames = names.map(Into::into);
            Passed::of(&Variables { listen_pid, listen_fds, listen_fdnames, ..Variables::default() })
        };
        let own = std::process::id();
        assert!(of(own + 1, "nonsense", None).is_ok());
        assert!(of(own, "0", None).is_ok());
        for count in ["", "-1", "17", "one"] {
            assert!(matches!(of(own, count, None), Err(PassedError::Count(_))), "{count}");
        }
        for names in [None, Some(""), Some("hairpin.socket"), Some("turn:admin")] {
            assert!(matches!(of(own, "1", names), Err(PassedError::Name(_))), "{names:?}");
        }
    }
}
