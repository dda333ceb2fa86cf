//! A network namespace that is removed when its owner goes out of scope.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Begins every name, and is followed by the process id of the owner.
const PREFIX: &str = "hairpin-";
/// Where iproute2 keeps named namespaces.
const FOLDER: &str = "/run/netns";
/// What programs inside find in `/etc`, by the name of the namespace (`ip netns exec`). The folder itself may be anybody's, and stays.
const CONFIGURATION: &str = "/etc/netns";

/// A network namespace with its loopback interface up. Dropping it ends every process inside and removes it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes a namespace whose name ends in `role`.
    ///
    /// # Panics
    /// When this process may not: the lab needs root.
    pub fn new(role: &str) -> Self {
        static SWEEP: Once = Once::new();
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        SWEEP.call_once(remove_orphans);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}-{role}", std::process::id());
        ip(&format!("netns add {name}"));
        let namespace = Self { name };
        namespace.enter(|| {
            // A test must not wait for an answer to "does anybody have this address?", which takes a second or two.
            for scope in ["all", "default"] {
                set(&format!("net/ipv6/conf/{scope}/accept_dad"), "0");
                set(&format!("net/ipv6/conf/{scope}/dad_transmits"), "0");
            }
        });
        ip(&format!("-n {} link set lo up", namespace.name));
        namespace
    }

    /// The name, as `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that runs a program inside. The program ends with the thread that starts it, whatever happens to us. A
    /// relay among them shares the file system with others and with the host: it reads no file unless `--config` names one,
    /// and has no admin socket unless `--admin-socket` gives it a path of its own.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, "setpriv", "--pdeathsig", "KILL"]).arg(program);
        command.env("HAIRPIN_ADMIN_SOCKET", "off").env("HAIRPIN_CONFIG", "/dev/null");
        command
    }

    /// Has programs inside take this for their name server.
    ///
    /// # Panics
    /// When this process may not.
    pub fn resolve_by(&self, name_server: IpAddr) {
        let folder = Path::new(CONFIGURATION).join(&self.name);
        let written = fs::create_dir_all(&folder)
            .and_then(|()| fs::write(folder.join("resolv.conf"), format!("nameserver {name_server}\n")));
        written.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    }

    /// Runs code inside, on a thread of its own. Sockets that it opens and returns stay inside for all their life.
    pub fn enter<T: Send>(&self, code: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                let path = format!("{FOLDER}/{}", self.name);
                let file = File::open(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .unwrap_or_else(|error| panic!("entering {path}: {error}"));
                code()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// How many UDP sockets inside are bound to a port, of either family.
    pub fn udp_sockets(&self, port: u16) -> usize {
        let local = format!(":{port:04X}");
        self.enter(|| {
            // Not /proc/net: that is the namespace of the process, not of this thread.
            let tables = ["udp", "udp6"].map(|table| fs::read_to_string(format!("/proc/thread-self/net/{table}")));
            let tables = tables.map(|table| table.expect("the kernel lists its sockets"));
            let bound = |line: &&str| line.split_whitespace().nth(1).is_some_and(|address| address.ends_with(&local));
            tables.iter().flat_map(|table| table.lines()).filter(bound).count()
        })
    }

    /// Runs commands of `ip` inside, one a line.
    pub fn ip(&self, lines: &str) {
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            ip(&format!("-n {} {line}", self.name));
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
        forget(&self.name);
    }
}

/// Sets a kernel parameter of the network namespace that this thread is in.
pub(super) fn set(parameter: &str, value: &str) {
    let path = format!("/proc/sys/{parameter}");
    fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}"));
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split_whitespace()).output();
    let output = output.unwrap_or_else(|error| panic!("ip (of iproute2) does not start: {error}"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the lab needs root: `ip {arguments}` failed: {}", error.trim());
}

/// Ends what runs inside and removes the namespace. Also runs while a test panics, so it must not panic itself.
fn remove(name: &str) {
    let inside = Command::new("ip").args(["netns", "pids", name]).output();
    let inside = inside.map(|output| output.stdout).unwrap_or_default();
    for pid in String::from_utf8_lossy(&inside).split_whitespace().filter_map(|pid| pid.parse().ok()) {
        if let Some(pid) = Pid::from_raw(pid) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    if let Err(error) = Command::new("ip").args(["netns", "del", name]).status() {
        eprintln!("the namespace {name} was not removed: {error}");
    }
}

/// Removes what programs inside were to find. Must not panic, either.
fn forget(name: &str) {
    if let Err(error) = fs::remove_dir_all(Path::new(CONFIGURATION).join(name))
        && error.kind() != ErrorKind::NotFound
    {
        eprintln!("the files of the namespace {name} were not removed: {error}");
    }
}

/// Removes what a test process has left that was killed before it could.
fn remove_orphans() {
    orphans(FOLDER).for_each(|name| remove(&name));
    orphans(CONFIGURATION).for_each(|name| forget(&name));
}

/// What is named after a process that is not there any more.
fn orphans(folder: &str) -> impl Iterator<Item = String> {
    let names = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.filter_map(|name| name.into_string().ok()).filter(|name| {
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        let owner = owner.filter(|owner| owner.parse::<u32>().is_ok());
        owner.is_some_and(|owner| !fs::exists(format!("/proc/{owner}")).unwrap_or(true))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_namespace_end_with_it_and_those_of_a_killed_test_with_the_next() {
        let host = Namespace::new("resolver");
        host.resolve_by([192, 0, 2, 53].into());
        let seen = host.command("cat").arg("/etc/resolv.conf").output().expect("cat is there");
        assert_eq!(String::from_utf8_lossy(&seen.stdout), "nameserver 192.0.2.53\n", "{seen:?}");

        let mut ended = Command::new("true").spawn().expect("it is there");
        ended.wait().expect("it ends");
        let orphan = Path::new(CONFIGURATION).join(format!("{PREFIX}{}-0-orphan", ended.id()));
        fs::create_dir_all(&orphan).expect("the lab needs root");
        remove_orphans();
        assert!(!orphan.exists());

        let own = Path::new(CONFIGURATION).join(host.name());
        assert!(own.exists(), "it is in use");
        drop(host);
        assert!(!own.exists());
    }
}
