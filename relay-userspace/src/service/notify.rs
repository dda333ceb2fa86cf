//! What the manager is told, in datagrams of lines `NAME=value`.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use super::{TELL, Variables};
use crate::clock::monotonic_nanoseconds;
use crate::printable;

/// How long the manager shall wait for the next word of a relay that drains before it ends: longer than any pause between two.
const MORE_TIME: Duration = Duration::from_secs(30);

/// The service manager that has started this process, if any.
#[derive(Debug, Default)]
pub struct Manager {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
    /// What it has heard last about how the relay is.
    status: String,
    /// Whether it has not heard yet that the relay serves.
    owes_ready: bool,
    has_failed: bool,
}

impl Manager {
    /// The one that has set these variables.
    pub fn of(variables: &Variables) -> Self {
        let Some(name) = &variables.notify_socket else { return Self::default() };
        match connect(name) {
            Ok(socket) => Self { socket: Some(socket), watchdog: variables.watchdog(), ..Self::default() },
            Err(error) => {
                let name = printable::clean(&name.to_string_lossy());
                tracing::warn!("NOTIFY_SOCKET {name}: {error}; the service manager is told nothing");
                Self::default()
            }
        }
    }

    /// Whether there is one.
    pub(crate) fn is_there(&self) -> bool {
        self.socket.is_some()
    }

    /// How often it wants to hear of the relay.
    pub(crate) fn period(&self) -> Duration {
        self.watchdog.map_or(TELL, |watchdog| (watchdog / 2).clamp(Duration::from_millis(1), TELL))
    }

    /// The relay serves.
    pub(crate) fn ready(&mut self) {
        self.owes_ready = !self.send("READY=1");
    }

    /// Tells again what a manager that did not listen has to know.
    pub(crate) fn remind(&mut self) {
        if self.owes_ready {
            self.ready();
        }
    }

    /// The relay follows another configuration, until it is ready again.
    pub(crate) fn reloading(&mut self) {
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic_nanoseconds() / 1000));
    }

    /// The relay ends.
    pub(crate) fn stopping(&mut self) {
        self.send("STOPPING=1\nSTATUS=stopping");
    }

    /// How the relay is, in one line.
    pub(crate) fn status(&mut self, status: &str) {
        if self.status != status && self.send(&format!("STATUS={}", printable::clean(status))) {
            status.clone_into(&mut self.status);
        }
    }

    /// The relay and all of its shards do what they should.
    pub(crate) fn alive(&mut self) {
        if self.watchdog.is_some() {
            self.send("WATCHDOG=1");
        }
    }

    /// The relay was told to end, and has reason not to be killed yet.
    pub(crate) fn more_time(&mut self) {
        self.send(&format!("EXTEND_TIMEOUT_USEC={}", MORE_TIME.as_micros()));
    }

    /// Whether nobody is left who should hear it and did not.
    fn send(&mut self, lines: &str) -> bool {
        let Some(socket) = &self.socket else { return true };
        let result = socket.send(lines.as_bytes());
        if let Err(error) = &result
            && !self.has_failed
        {
            tracing::warn!(%error, "the service manager cannot be told how the relay is");
        }
        self.has_failed = result.is_err();
        !self.has_failed
    }
}

/// A path, or a name of the abstract kind after an `@`. It never waits: the thread that tells also serves the admin interface.
fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes() {
        [b'@', abstract_name @ ..] => SocketAddr::from_abstract_name(abstract_name)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "a path or @NAME is needed")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(watchdog: Option<Duration>) -> (Manager, UnixDatagram) {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        (Manager { socket: Some(ours), watchdog, ..Manager::default() }, theirs)
    }

    fn told(manager: &UnixDatagram) -> Option<String> {
        let mut buffer = [0; 256];
        manager.recv(&mut buffer).ok().map(|length| String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    #[test]
    fn a_status_is_told_once_and_in_one_line() {
        let (mut manager, theirs) = pair(None);
        manager.status("good");
        manager.status("good");
        manager.status("bad:\nworse");
        assert_eq!(told(&theirs).unwrap(), "STATUS=good");
        assert_eq!(told(&theirs).unwrap(), "STATUS=bad:\\u{a}worse");
        assert_eq!(told(&theirs), None);
    }

    #[test]
    fn who_does_not_listen_holds_up_nobody_and_is_told_again() {
        let name = format!("hairpin-notify-{}", std::process::id());
        let theirs = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let variables = Variables { notify_socket: Some(format!("@{name}").into()), ..Variables::default() };
        let mut manager = Manager::of(&variables);
        let flags = rustix::fs::fcntl_getfl(manager.socket.as_ref().unwrap()).unwrap();
        assert!(flags.contains(rustix::fs::OFlags::NONBLOCK), "it would wait");
        while manager.send("WATCHDOG=1") {}
        manager.ready();
        manager.status("good");
        while let Some(heard) = told(&theirs) {
            assert_eq!(heard, "WATCHDOG=1");
        }
        for _ in 0..2 {
            manager.remind();
            manager.status("good");
        }
        let heard: Vec<_> = std::iter::from_fn(|| told(&theirs)).collect();
        assert_eq!(heard, ["READY=1", "STATUS=good"]);
    }

    #[test]
    fn signs_of_life_are_for_who_waits_for_them_twice_in_its_time() {
        let (mut manager, theirs) = pair(None);
        manager.alive();
        assert_eq!((told(&theirs), manager.period()), (None, TELL));
        let (mut manager, theirs) = pair(Some(Duration::from_secs(2)));
        manager.alive();
        assert_eq!((told(&theirs).as_deref(), manager.period()), (Some("WATCHDOG=1"), Duration::from_secs(1)));
        assert_eq!(pair(Some(Duration::from_secs(60))).0.period(), TELL);
    }

    #[test]
    fn who_has_no_manager_tells_nobody_and_a_bad_name_is_no_manager() {
        assert!(!Manager::of(&Variables::default()).is_there());
        for name in ["", "vsock:2:1", "/nonexistent/notify"] {
            let variables = Variables { notify_socket: Some(name.into()), ..Variables::default() };
            assert!(!Manager::of(&variables).is_there(), "{name}");
        }
        Manager::default().ready();
    }
}
