//! Programs with a time limit, whose output is kept.

use std::fmt;
use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long [`run`] waits.
pub const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);

/// A running program. It is killed when this goes out of scope.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    output: [Output; 2],
}

/// A program that has ended, or was killed because its time was over.
#[derive(Debug)]
pub struct Finished {
    /// How it was started.
    pub name: String,
    /// How it ended; `None` when it had to be killed.
    pub status: Option<ExitStatus>,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

#[derive(Debug)]
struct Output {
    text: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

/// Runs a program to its end, for at most [`PATIENCE`].
pub fn run(command: &mut Command) -> Finished {
    run_for(command, PATIENCE)
}

/// Runs a program to its end, or kills it.
pub fn run_for(command: &mut Command, limit: Duration) -> Finished {
    Process::spawn(command).wait(limit)
}

impl Process {
    /// Starts a program.
    pub fn spawn(command: &mut Command) -> Self {
        Self::start(command, Stdio::null())
    }

    /// Starts a program that is told something over its standard input.
    pub fn spawn_with_input(command: &mut Command) -> (Self, ChildStdin) {
        let mut process = Self::start(command, Stdio::piped());
        let input = process.child.stdin.take().expect("just asked for a pipe");
        (process, input)
    }

    fn start(command: &mut Command, input: Stdio) -> Self {
        let name = format!("{command:?}").replace('"', "");
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("`{name}` does not start: {error}"));
        let stdout = child.stdout.take().expect("just asked for a pipe");
        let stderr = child.stderr.take().expect("just asked for a pipe");
        Self { child, name, output: [Output::collect(stdout), Output::collect(stderr)] }
    }

    /// Its process id; `ip netns exec` and `setpriv` keep theirs for the program they start.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        self.output[0].so_far()
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        self.output[1].so_far()
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap_or_else(|error| panic!("signal to `{}`: {error}", self.name));
    }

    /// Waits for its end, or kills it.
    pub fn wait(mut self, limit: Duration) -> Finished {
        let end = Instant::now() + limit;
        // At least once: a program that ended by itself was not killed, however little time there is.
        let mut status = self.child.try_wait().expect("the child is ours");
        while status.is_none() && Instant::now() < end {
            thread::sleep(POLL);
            status = self.child.try_wait().expect("the child is ours");
        }
        if status.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let [stdout, stderr] = &mut self.output;
        Finished { name: self.name.clone(), status, stdout: stdout.finish(), stderr: stderr.finish() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Finished {
    /// The exit code, if the program ended by itself.
    pub fn code(&self) -> Option<i32> {
        self.status.and_then(|status| status.code())
    }

    /// Standard output, when the exit code is 0.
    ///
    /// # Panics
    /// When it is not, with everything the program said.
    pub fn expect_success(self) -> String {
        assert_eq!(self.code(), Some(0), "{self}");
        self.stdout
    }

    /// Standard output, when the exit code is 0, or else everything the program said.
    ///
    /// # Errors
    /// When it is not 0.
    pub fn into_result(self) -> Result<String, String> {
        if self.code() == Some(0) { Ok(self.stdout) } else { Err(self.to_string()) }
    }

    /// Checks that it was refused in one line on standard error with all of these words in it, and said nothing else.
    ///
    /// # Panics
    /// When it was not.
    #[track_caller]
    pub fn expect_one_line(&self, code: i32, words: &[&str]) {
        let lines: Vec<_> = self.stderr.lines().collect();
        assert_eq!(self.code(), Some(code), "{self}");
        assert_eq!(lines.len(), 1, "one line is enough: {self}");
        for word in words {
            assert!(lines[0].contains(word), "`{word}` is not named: {self}");
        }
        assert_eq!(self.stdout, "", "{self}");
    }
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            Some(status) => writeln!(f, "`{}`: {status}", self.name)?,
            None => writeln!(f, "`{}`: killed, its time was over", self.name)?,
        }
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            for line in text.lines() {
                writeln!(f, "  {name}: {line}")?;
            }
        }
        Ok(())
    }
}

impl Output {
    fn collect(pipe: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let sink = Arc::clone(&text);
        let reader = thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while pipe.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                sink.lock().expect("no reader panics").push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        });
        Self { text, reader: Some(reader) }
    }

    fn so_far(&self) -> String {
        self.text.lock().expect("no reader panics").clone()
    }

    /// Everything, after the program has ended. A grandchild may still hold the pipe: it is not waited for.
    fn finish(&mut self) -> String {
        let end = Instant::now() + Duration::from_secs(1);
        while self.reader.as_ref().is_some_and(|reader| !reader.is_finished()) && Instant::now() < end {
            thread::sleep(POLL);
        }
        self.reader = None;
        self.so_far()
    }
}
