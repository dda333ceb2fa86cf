//! Ctrl-C ends the sending early; what was measured so far is still the result.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Whether the user has asked to stop. From the first call on, Ctrl-C no longer ends the process.
pub(super) fn requested() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    let for_thread = Arc::clone(&flag);
    // It sleeps until the signal or the end of the process. Without it, Ctrl-C ends the process as always.
    let _ = thread::Builder::new().name("interrupt".to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        if let Ok(runtime) = runtime
            && runtime.block_on(async { tokio::signal::ctrl_c().await }).is_ok()
        {
            for_thread.store(true, Ordering::Relaxed);
        }
    });
    flag
}
