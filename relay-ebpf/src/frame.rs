//! The memory of a packet, and the only place that touches it.
//!
//! Loads and stores here are unaligned on purpose (an IP header behind an Ethernet header is) and one instruction each:
//! the program is compiled for kernels of machines that allow that.

use aya_ebpf::{
    helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail},
    programs::XdpContext,
};

/// A packet as the driver has it, from the Ethernet header on.
pub(crate) struct Frame<'a> {
    context: &'a XdpContext,
    start: usize,
    end: usize,
}

/// What a frame may be read and written as: a word, or four bytes.
pub(crate) trait Plain: Copy {}

impl Plain for u8 {}
impl Plain for u16 {}
impl Plain for u32 {}
impl Plain for u64 {}
impl Plain for [u8; 4] {}

impl<'a> Frame<'a> {
    /// The frame of this run of the program.
    #[inline(always)]
    pub(crate) fn of(context: &'a XdpContext) -> Self {
        Self { context, start: context.data(), end: context.data_end() }
    }

    /// Length in bytes.
    #[inline(always)]
    pub(crate) fn length(&self) -> usize {
        self.end - self.start
    }

    /// Index of the interface it came in by.
    #[inline(always)]
    pub(crate) fn interface(&self) -> u32 {
        self.context.ingress_ifindex() as u32
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

    /// Reads one byte at an offset the compiler does not know, `place` bytes behind `base`.
    #[inline(always)]
    pub(crate) fn byte(&self, base: usize, place: usize) -> Option<u8> {
        // The verifier follows an offset only within 16 bits.
        let place = place & 0x7fff;
        let byte = self.start + base + place;
        if byte + 1 > self.end {
            return None;
        }
        // SAFETY: just checked, and the verifier checks that.
        Some(unsafe { (byte as *const u8).read() })
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
        let result = unsafe { bpf_xdp_adjust_head(self.context.ctx, by) };
        (result == 0).then(|| Self::of(self.context))
    }

    /// Cuts bytes off the end.
    #[inline(always)]
    pub(crate) fn cut_end(&self, by: u32) -> Option<Self> {
        // SAFETY: as in `move_start`.
        let result = unsafe { bpf_xdp_adjust_tail(self.context.ctx, -(by as i32)) };
        (result == 0).then(|| Self::of(self.context))
    }
}
