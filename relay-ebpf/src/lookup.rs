//! The one lookup: from addresses, ports and channel to the record that says what to send.

use hairpin_common::{maps::Rewrite, verdict::Verdict};

use crate::{clock, family::Family};

/// What this program needs of a [`Rewrite`], in wire words.
pub(crate) struct Record<F: Family> {
    /// Index of the allocation's counters.
    pub allocation: u32,
    /// Source and destination to send with.
    pub addresses: F::Addresses,
    /// Source and destination port, as in the UDP header.
    pub ports: u32,
    /// Channel to send in, or 0.
    pub channel: u16,
    /// Difference to the UDP checksum, lengths aside.
    pub delta: u16,
    /// Index of the next hop.
    pub next_hop: u16,
}

/// The record for this key that is whole, in force, and asks for nothing this program cannot do.
#[inline(always)]
pub(crate) fn lookup<F: Family>(key: &F::Key) -> Result<Record<F>, Verdict> {
    let entry = F::find(key).ok_or(Verdict::NoFlow)?;
    let (record, head) = read::<F>(entry);
    if !head.is_whole(F::tag(key)) {
        return Err(Verdict::Torn);
    }
    if clock::now() >= head.expires {
        return Err(Verdict::Expired);
    }
    if head.family_and_flags != u16::from_ne_bytes([F::VERSION, 0]) {
        return Err(Verdict::Unsupported);
    }
    Ok(record)
}

/// What says whether the rest may be used.
struct Head {
    tag: u32,
    generation: u32,
    expires: u32,
    family_and_flags: u16,
    seal: u32,
}

impl Head {
    /// As [`Rewrite::is_whole`].
    #[inline(always)]
    fn is_whole(&self, tag: u32) -> bool {
        self.tag == tag && self.seal == Rewrite::seal_of(tag, self.generation)
    }
}

/// Copies a record that the daemon may be writing right now: every field once, the seal last.
#[inline(always)]
fn read<F: Family>(entry: *const Rewrite) -> (Record<F>, Head) {
    // SAFETY: the map's values are records. A pair of fields that is read as one word is aligned for it, since the first
    // is at an even offset of the pair's size. The reads are volatile, so the compiler keeps each of them, and their
    // order; what another CPU changes in between shows in the seal.
    unsafe {
        let tag = (&raw const (*entry).tag).read_volatile();
        let generation = (&raw const (*entry).generation).read_volatile();
        let expires = (&raw const (*entry).expires).read_volatile();
        let record = Record {
            allocation: (&raw const (*entry).allocation).read_volatile(),
            addresses: F::addresses(entry),
            ports: (&raw const (*entry).source_port).cast::<u32>().read_volatile(),
            channel: (&raw const (*entry).channel).cast::<u16>().read_volatile(),
            delta: (&raw const (*entry).delta).cast::<u16>().read_volatile(),
            next_hop: (&raw const (*entry).next_hop).read_volatile(),
        };
        let family_and_flags = (&raw const (*entry).family).cast::<u16>().read_volatile();
        let seal = (&raw const (*entry).seal).read_volatile();
        (record, Head { tag, generation, expires, family_and_flags, seal })
    }
}
