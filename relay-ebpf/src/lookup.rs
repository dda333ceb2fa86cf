//! The one lookup: from addresses, ports and channel to the record that says what to send.

use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use hairpin_common::{
    maps::{Rewrite, tick},
    verdict::Verdict,
};

use crate::family::Family;

/// A copy of the record for this key that is whole, in force, and asks for nothing this program cannot do.
#[inline(always)]
pub(crate) fn lookup<F: Family>(key: &F::Key) -> Result<Rewrite, Verdict> {
    let entry = F::find(key).ok_or(Verdict::NoFlow)?;
    // SAFETY: the map's values have this type. The daemon may be writing to it right now, so it is copied once, in
    // whole, and only the copy is looked at.
    let record = unsafe { entry.read_volatile() };
    if !record.is_whole(F::tag(key)) {
        return Err(Verdict::Torn);
    }
    // SAFETY: the helper has no preconditions.
    if tick(unsafe { bpf_ktime_get_coarse_ns() }) >= record.expires {
        return Err(Verdict::Expired);
    }
    if record.family != F::VERSION || record.flags != 0 {
        return Err(Verdict::Unsupported);
    }
    Ok(record)
}
