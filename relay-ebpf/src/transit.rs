//! A datagram on its way through the program: what it arrived with, and what is known about how it leaves.

use core::{arch::asm, mem::MaybeUninit};

use hairpin_common::{checksum::Sum, verdict::Verdict};

use crate::{family::Carried, key::Key, lookup::Record};

/// No allocation.
pub(crate) const NOBODY: u64 = u64::MAX;

/// Stands in front of an index of 32 bits that is not an allocation's but a media path's.
pub(crate) const OF_MEDIA: u64 = 1 << 32;

/// All that one stage of the program leaves to the next.
///
/// The kernel allows only aligned access to the stack, and the compiler likes to write neighbours that start as constants
/// at once; so those are all of eight bytes, and start as [`unforeseen`].
#[repr(C, align(8))]
pub(crate) struct Transit {
    /// What it arrived with. Between two relayed addresses: what it would arrive with at the second.
    pub key: Key,
    /// What to send; nothing before it is found.
    pub record: MaybeUninit<Record>,
    /// Where its application data is in the frame; until that is known, the payload of the UDP datagram.
    pub data: u64,
    /// Whose data it is on the way to a peer, if it is: [`NOBODY`]'s, or an index, with or without [`OF_MEDIA`].
    pub to_peer: u64,
    /// Whose data it is on the way to a client, likewise.
    pub to_client: u64,
    /// The interface to send from, unless it is the one it came in by: then 0.
    pub redirect: u64,
    /// Whether it has an IEEE 802.1Q tag.
    pub tagged: u64,
    /// What the new IP header inherits, with the hop limit as it was received.
    pub carried: Carried,
    /// What has been taken from and put into what the UDP checksum covers, lengths aside.
    pub sum: Sum,
    /// Length of the application data.
    pub length: u16,
    /// The UDP length as it was received: header and payload.
    pub udp_length: u16,
    /// The UDP checksum as it was received, a wire word.
    pub udp_checksum: u16,
    /// The tag's last two bytes, a wire word.
    pub tag: u16,
}

/// A number of which the compiler does not know what it is. Where several neighbours start as constants it would call a
/// function that writes them byte by byte, which takes as long as a fifth of the packet's whole way.
#[inline(always)]
pub(crate) fn unforeseen(number: u64) -> u64 {
    let copy;
    // SAFETY: a copy between registers.
    unsafe {
        asm!("{copy} = {number}", copy = lateout(reg) copy, number = in(reg) number, options(pure, nomem, nostack))
    }
    copy
}

impl Transit {
    /// Has the kernel's verifier forget which way this datagram has come, so that it looks at what follows once, and not
    /// once for each mixture of IP versions, tags and framings. For the processor nothing changes.
    #[inline(always)]
    pub(crate) fn forget(&mut self) {
        // Negative, so that it may have any bit set.
        let unknown = u64::from(self.udp_checksum).wrapping_neg();
        for field in [&mut self.to_peer, &mut self.to_client, &mut self.tagged, &mut self.data] {
            // SAFETY: arithmetic only; the second undoes the first.
            unsafe {
                asm!("{field} ^= {unknown}", "{field} ^= {unknown}", field = inout(reg) *field, unknown = in(reg) unknown);
            }
        }
    }

    /// How many relays it passes: two, if the peer of one client is another client's relayed address, or a leg.
    ///
    /// This and what follows is arithmetic, since each branch would be one more way for the verifier to follow to the end.
    #[inline(always)]
    pub(crate) fn hops(&self) -> u8 {
        const { assert!(NOBODY >> 63 == 1 && OF_MEDIA >> 63 == 0) };
        2 - ((self.to_peer | self.to_client) >> 63) as u8
    }

    /// Whether it leaves without any framing: to a peer, or by a leg of a media session.
    #[inline(always)]
    pub(crate) fn leaves_plain(&self) -> bool {
        self.to_client >> 32 != 0
    }

    /// The record, once it was found.
    #[inline(always)]
    pub(crate) fn record(&self) -> &Record {
        // SAFETY: what is read of it is only asked for after a lookup has filled it.
        unsafe { self.record.assume_init_ref() }
    }

    /// The index of what is done with it when it is sent, a [`Verdict`].
    #[inline(always)]
    pub(crate) fn verdict(&self) -> u32 {
        const VERDICTS: u64 = {
            const MEDIA: u64 = kind(OF_MEDIA);
            const CLIENT: u64 = kind(0);
            const NONE: u64 = kind(NOBODY);
            place(CLIENT, NONE, Verdict::ToPeer)
                | place(NONE, CLIENT, Verdict::ToClient)
                | place(CLIENT, CLIENT, Verdict::RelayToRelay)
                | place(MEDIA, NONE, Verdict::Media)
                | place(NONE, MEDIA, Verdict::Media)
                | place(MEDIA, MEDIA, Verdict::Media)
                | place(CLIENT, MEDIA, Verdict::ClientToMedia)
                | place(MEDIA, CLIENT, Verdict::MediaToClient)
                | place(NONE, NONE, Verdict::Binding)
        };
        (VERDICTS >> shift(kind(self.to_peer), kind(self.to_client))) as u32 & 0xf
    }
}

/// What stands in front of an index: nothing, or [`OF_MEDIA`], or all ones for [`NOBODY`]; as far as two bits tell.
#[inline(always)]
const fn kind(index: u64) -> u64 {
    index >> 32 & 3
}

/// Where the verdict of these kinds stands in a word.
#[inline(always)]
const fn shift(to_peer: u64, to_client: u64) -> u64 {
    to_peer << 4 | to_client << 2
}

/// The word of this verdict alone.
const fn place(to_peer: u64, to_client: u64, verdict: Verdict) -> u64 {
    assert!((verdict as u64) < 1 << 4);
    (verdict as u64) << shift(to_peer, to_client)
}
