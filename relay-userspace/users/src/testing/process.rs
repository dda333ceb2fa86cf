//! A server's process.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// A server's process, killed when this goes out of scope.
#[derive(Debug)]
pub(super) struct Process(Child);

impl Process {
    /// Starts a program that ends with this thread, as another user if one is named. What it says goes into a file.
    pub(super) fn start(user: Option<&str>, program: &Path, arguments: &[&str], log: &Path) -> std::io::Result<Self> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if let Some(user) = user {
            command.args(["--reuid", user, "--regid", user, "--clear-groups"]);
        }
        let log = fs::OpenOptions::new().create(true).append(true).open(log)?;
        command.arg(program).args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.spawn().map(Self)
    }

    /// Ends it at once.
    pub(super) fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// Tells it something.
    pub(super) fn signal(&self, signal: Signal) {
        signal_process(self.0.id(), signal);
    }

    /// Tells it and the processes that it has started something, itself first.
    pub(super) fn signal_all(&self, signal: Signal) {
        self.signal(signal);
        for child in children(self.0.id()) {
            signal_process(child, signal);
        }
    }

    /// Waits until it has ended.
    pub(super) fn wait(&mut self) {
        let _ = self.0.wait();
    }

    /// Whether it has ended by itself.
    pub(super) fn has_ended(&mut self) -> bool {
        self.0.try_wait().is_ok_and(|status| status.is_some())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn signal_process(id: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// The processes that a process has started.
fn children(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|id| parent_of(*id) == Some(parent)).collect()
}

fn parent_of(id: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name is in brackets, and may have any of them in it.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}
