//! What this process may do, beyond what its user may.

use rustix::thread::{capabilities, set_capabilities};

/// Uses all capabilities that the program's file or the caller permits. A container's image permits those that the kernel path
/// takes without having them in force: else the program could not even be started where the runtime withholds one.
///
/// Capabilities belong to threads: call it before there is a second one.
pub fn use_permitted() {
    let Ok(mut sets) = capabilities(None) else { return };
    sets.effective = sets.permitted;
    // What is missing then is told by whoever needs it.
    let _ = set_capabilities(None, sets);
}
