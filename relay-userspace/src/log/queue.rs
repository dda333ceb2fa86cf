//! The way of a line from whoever logs to whoever reads.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait: more than come in the time that a healthy reader takes to look.
const ROOM: usize = 4096;
/// How often the end of the process looks whether all is written.
const LOOK: Duration = Duration::from_millis(1);

/// The end that lines are put in at.
#[derive(Clone)]
pub(super) struct Queue {
    lines: SyncSender<Vec<u8>>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    /// Lines that wait.
    waiting: AtomicU64,
    /// Lines that were lost.
    dropped: AtomicU64,
}

impl Queue {
    /// Starts the thread that writes.
    pub(super) fn start(mut sink: impl Write + Send + 'static) -> io::Result<Self> {
        let (lines, arriving) = mpsc::sync_channel::<Vec<u8>>(ROOM);
        let counts = Arc::new(Counts::default());
        let written = Arc::clone(&counts);
        thread::Builder::new().name("log".to_owned()).spawn(move || {
            for line in arriving {
                if sink.write_all(&line).is_err() {
                    written.dropped.fetch_add(1, Ordering::Relaxed);
                }
                written.waiting.fetch_sub(1, Ordering::Release);
            }
        })?;
        Ok(Self { lines, counts })
    }

    /// How many lines were lost.
    pub(super) fn dropped(&self) -> u64 {
        self.counts.dropped.load(Ordering::Relaxed)
    }

    /// Waits until nothing waits, or the time is over.
    pub(super) fn flush(&self, patience: Duration) {
        let end = Instant::now() + patience;
        while self.counts.waiting.load(Ordering::Acquire) > 0 && Instant::now() < end {
            thread::sleep(LOOK);
        }
    }
}

/// Each write is a whole line: so the library does it.
impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.counts.waiting.fetch_add(1, Ordering::Relaxed);
        if self.lines.try_send(line.to_vec()).is_err() {
            self.counts.waiting.fetch_sub(1, Ordering::Release);
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Queue {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A reader that takes nothing as long as the lock is held.
    #[derive(Clone, Default)]
    struct Reader(Arc<Mutex<Vec<u8>>>);

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_arrive_in_their_order() {
        let reader = Reader::default();
        let mut queue = Queue::start(reader.clone()).unwrap();
        for line in ["a\n", "b\n", "c\n"] {
            queue.write_all(line.as_bytes()).unwrap();
        }
        Queue::flush(&queue, Duration::from_secs(60));
        assert_eq!(*reader.0.lock().unwrap(), b"a\nb\nc\n");
        assert_eq!(queue.dropped(), 0);
    }

    #[test]
    fn a_reader_that_is_stuck_costs_lines_and_no_time() {
        let reader = Reader::default();
        let mut queue = Queue::start(reader.clone()).unwrap();
        let stuck = reader.0.lock().unwrap();
        for _ in 0..ROOM + 10 {
            queue.write_all(b"line\n").unwrap();
        }
        // One line may be in the hands of the thread.
        assert!((9..=10).contains(&queue.dropped()), "{}", queue.dropped());
        Queue::flush(&queue, Duration::ZERO);
        drop(stuck);
        Queue::flush(&queue, Duration::from_secs(60));
        let lines = reader.0.lock().unwrap().len() as u64 / 5;
        assert_eq!(lines + queue.dropped(), ROOM as u64 + 10);
    }

    #[test]
    fn what_cannot_be_written_is_counted() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut queue = Queue::start(Full).unwrap();
        queue.write_all(b"line\n").unwrap();
        Queue::flush(&queue, Duration::from_secs(60));
        assert_eq!(queue.dropped(), 1);
    }
}
