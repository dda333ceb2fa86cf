//! An ICE agent that is not ours and takes orders: as lines of JSON, or over HTTP if it is a page.
//!
//! An order is `{"do": NAME, ...}`, and what an agent says is `{"event": NAME, ...}`. They are in `tests/clients/ice`.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::Path;
use std::process::ChildStdin;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::namespace::Namespace;
use super::process::Process;
use super::python;

/// How long anything may take that has no time of its own.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(5);

/// A running agent. It is killed when this goes out of scope.
#[derive(Debug)]
pub struct Agent {
    process: Process,
    line: Line,
    /// What it has said and nobody has asked for yet.
    said: Vec<Value>,
}

/// How orders and events come through.
#[derive(Debug)]
enum Line {
    /// By the program's input and output; of the output, so many bytes are known.
    Pipe(ChildStdin, usize),
    /// By what serves the page.
    Page(Sender<Value>, Receiver<Value>),
}

impl Agent {
    /// Starts a script of `tests/clients/ice` in a namespace.
    pub fn start<I: AsRef<OsStr>>(
        namespace: &Namespace,
        interpreter: &Path,
        script: &str,
        arguments: impl IntoIterator<Item = I>,
    ) -> Self {
        let mut command = python::command(namespace, interpreter, &format!("ice/{script}"));
        let (process, input) = Process::spawn_with_input(command.args(arguments));
        Self { process, line: Line::Pipe(input, 0), said: Vec::new() }
    }

    /// A page in a browser, and how it is reached.
    pub(super) fn page(browser: Process, orders: Sender<Value>, events: Receiver<Value>) -> Self {
        Self { process: browser, line: Line::Page(orders, events), said: Vec::new() }
    }

    /// Gives an order, which is an object without `do`, or null.
    ///
    /// # Panics
    /// When the agent has ended.
    pub fn tell(&mut self, order: &str, values: &Value) {
        let mut order = json!({ "do": order });
        for (name, value) in values.as_object().into_iter().flatten() {
            order[name] = value.clone();
        }
        let told = match &mut self.line {
            Line::Pipe(input, _) => writeln!(input, "{order}").is_ok(),
            Line::Page(orders, _) => orders.send(order.clone()).is_ok(),
        };
        assert!(told, "nobody hears {order}: {}", self.output());
    }

    /// Waits for the next event of a name, whatever comes before it.
    ///
    /// # Panics
    /// When it does not come, or the agent says that it has failed.
    #[track_caller]
    pub fn hear(&mut self, event: &str) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.said.iter().position(|said| said["event"] == event) {
                return self.said.remove(at);
            }
            let failed = self.said.iter().find(|said| said["event"] == "failed");
            assert!(failed.is_none(), "waiting for `{event}`: {failed:?}\n{}", self.output());
            let is_over = !self.listen() || Instant::now() > end;
            assert!(!is_over, "no `{event}`, only {:?}\n{}", self.said, self.output());
        }
    }

    /// Gives an order and waits for the event that it leads to.
    ///
    /// # Panics
    /// As for [`Agent::tell`] and [`Agent::hear`].
    #[track_caller]
    pub fn ask(&mut self, order: &str, values: &Value, event: &str) -> Value {
        self.tell(order, values);
        self.hear(event)
    }

    /// What it has counted.
    ///
    /// # Panics
    /// When it says nothing.
    #[track_caller]
    pub fn report(&mut self) -> Value {
        self.ask("report", &Value::Null, "report")
    }

    /// Waits until its report is as it should be.
    ///
    /// # Panics
    /// When it never is.
    #[track_caller]
    pub fn wait_for(&mut self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            let report = self.report();
            if is_so(&report) {
                return report;
            }
            assert!(Instant::now() < end, "this did not become true: {what}\n{report:#}\n{}", self.output());
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Takes what has come, after waiting for a moment; false when nothing can come any more.
    fn listen(&mut self) -> bool {
        match &mut self.line {
            Line::Pipe(_, known) => {
                let output = self.process.stdout();
                let new = &output[*known..];
                let whole = new.rfind('\n').map_or(0, |end| end + 1);
                let events = new[..whole].lines().filter_map(|line| serde_json::from_str(line).ok());
                self.said.extend(events);
                *known += whole;
                if whole == 0 {
                    thread::sleep(POLL);
                }
                whole > 0 || self.process.is_running()
            }
            Line::Page(_, events) => match events.recv_timeout(POLL) {
                Ok(event) => {
                    self.said.push(event);
                    true
                }
                Err(RecvTimeoutError::Timeout) => self.process.is_running(),
                Err(RecvTimeoutError::Disconnected) => false,
            },
        }
    }

    fn output(&self) -> String {
        let output = [("stdout", self.process.stdout()), ("stderr", self.process.stderr())];
        // The last lines are enough.
        let last = output.map(|(name, text)| {
            let lines: Vec<_> = text.lines().map(|line| format!("  {name}: {line}")).collect();
            lines[lines.len().saturating_sub(10)..].join("\n")
        });
        last.join("\n")
    }
}
