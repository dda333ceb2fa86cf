//! The memory of a packet, and the only place that touches it.
//!
//! Loads and stores here are unaligned on purpose (an IP header behind an Ethernet header is) and one instruction each:
//! the program is compiled for kernels of machines that allow that.

use aya_ebpf::{
    bindings::xdp_md,
    helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail},
};

/// Where a program's run keeps its packet: what its functions pass on to each other.
pub(crate) type Context = *mut xdp_md;

/// A packet as the driver has it, from the Ethernet header on.
pub(crate) struct Frame {
    context: Context,
    start: usize,
    end: usize,
}

/// What a frame may be read and written as: a word.
pub(crate) trait Plain: Copy {}

impl Plain for u8 {}
impl Plain for u16 {}
impl Plain for u32 {}
impl Plain for u64 {}

/// The highest offset that is looked at: the verifier follows one only within 16 bits.
const MOST_OFFSET: usize = 0x7fff;

impl Frame {
    /// The frame of this run of the program.
    #[inline(always)]
    pub(crate) fn of(context: Context) -> Self {
        // SAFETY: the context is what this run was given. The reads are volatile, or the compiler would make one function
        // read them and pass them on to others as numbers, and then they are no addresses any more to the verifier.
        let (start, end) =
            unsafe { ((&raw const (*context).data).read_volatile(), (&raw const (*context).data_end).read_volatile()) };
        Self { context, start: start as usize, end: end as usize }
    }

    /// Length in bytes.
    #[inline(always)]
    pub(crate) fn length(&self) -> usize {
        self.end - self.start
    }

    /// Index of the interface it came in by.
    #[inline(always)]
    pub(crate) fn interface(&self) -> u32 {
        // SAFETY: as in `of`.
        unsafe { (*self.context).ingress_ifindex }
    }

    /// Whether there are at least `length` bytes. The verifier wants this asked before any load or store.
    #[inline(always)]
    pub(crate) fn holds(&self, length: usize) -> bool {
        self.start + length <= self.end
    }

    /// Reads what stands at an offset that [`Frame::holds`] was asked about.
    #[inline(always)]
    pub(crate) fn load<T: Plain>(&self, at: usize) -> T {
        // SAFETY: the verifier refuses a program that could get here without a check of the bounds.
        unsafe { ((self.start + at) as *const T).read_unaligned() }
    }

    /// The rest of the frame from an offset that the compiler does not know.
    #[inline(always)]
    pub(crate) fn from(&self, at: usize) -> Self {
        Self { context: self.context, start: self.start + (at & MOST_OFFSET), end: self.end }
    }

    /// The frame from one byte before an offset that the compiler does not know, if there is a byte at the offset; it
    /// stands at 1 then. The verifier learns nothing from the question for one byte at 0.
    #[inline(always)]
    pub(crate) fn byte_before(&self, at: usize) -> Option<Self> {
        let rest = self.from(at - 1);
        rest.holds(2).then_some(rest)
    }

    /// Writes at an offset that [`Frame::holds`] was asked about.
    #[inline(always)]
    pub(crate) fn store<T: Plain>(&self, at: usize, value: T) {
        // SAFETY: as in `load`.
        unsafe { ((self.start + at) as *mut T).write_unaligned(value) }
    }

    /// Moves the start of the frame, up to cut bytes off and down to make room; `None` when there is none, and then
    /// nothing has changed.
    #[inline(always)]
    pub(crate) fn move_start(&self, by: i32) -> Option<Self> {
        // SAFETY: the context is the one this run was given.
        let result = unsafe { bpf_xdp_adjust_head(self.context, by) };
        (result == 0).then(|| Self::of(self.context))
    }

    /// Moves the end of the frame: down to cut bytes off, up to add zeros; `None` when there is no room, and then nothing
    /// has changed.
    #[inline(always)]
    pub(crate) fn move_end(&self, by: i32) -> Option<Self> {
        // SAFETY: as in `move_start`.
        let result = unsafe { bpf_xdp_adjust_tail(self.context, by) };
        (result == 0).then(|| Self::of(self.context))
    }
}
