//! What records are looked up by, as words: see [`FlowKey`] for the kinds of keys.

use core::mem::offset_of;

use hairpin_common::maps::FlowKey;

use crate::{family::Address, transit::unforeseen};

/// A [`FlowKey`] in 64-bit words.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Key(pub [u64; size_of::<FlowKey>() / 8]);

/// Where a field of two bytes, or of one, stands in the last word.
const fn shift(offset: usize, size: usize) -> u32 {
    let place = offset - offset_of!(FlowKey, source_port);
    8 * (if cfg!(target_endian = "little") { place } else { 8 - size - place }) as u32
}

const SOURCE_PORT: u32 = shift(offset_of!(FlowKey, source_port), 2);
const DESTINATION_PORT: u32 = shift(offset_of!(FlowKey, destination_port), 2);
const PORTS: u32 = shift(offset_of!(FlowKey, source_port), 4);
const CHANNEL: u32 = shift(offset_of!(FlowKey, channel), 2);
const FAMILY: u32 = shift(offset_of!(FlowKey, family), 1);

impl Key {
    /// The key of a datagram without a channel. `ports` are as in the UDP header, `family` is the IP version.
    #[inline(always)]
    pub(crate) fn new([source, destination]: [Address; 2], ports: u32, family: u8) -> Self {
        let last = u64::from(ports) << PORTS | u64::from(family) << FAMILY;
        Self([source[0], source[1], destination[0], destination[1], last])
    }

    /// The same with this channel, a wire word, whatever there was before.
    #[inline(always)]
    pub(crate) fn with_channel(self, channel: u16) -> Self {
        let [a, b, c, d, last] = self.0;
        Self([a, b, c, d, last & !(0xffff << CHANNEL) | u64::from(channel) << CHANNEL])
    }

    /// The same with another, or no, source port.
    #[inline(always)]
    pub(crate) fn without_source_port(self) -> Self {
        let [a, b, c, d, last] = self.0;
        Self([a, b, c, d, last & !(0xffff << SOURCE_PORT)])
    }

    /// What marks the destination as an address of ours.
    #[inline(always)]
    pub(crate) fn of_destination(self) -> Self {
        let [_, _, c, d, last] = self.without_source_port().0;
        Self([unforeseen(0), unforeseen(0), c, d, last & !(0xffff << CHANNEL)])
    }

    /// The source address.
    #[inline(always)]
    pub(crate) fn source(&self) -> Address {
        [self.0[0], self.0[1]]
    }

    /// The destination address.
    #[inline(always)]
    pub(crate) fn destination(&self) -> Address {
        [self.0[2], self.0[3]]
    }

    /// The source port, as a wire word.
    #[inline(always)]
    pub(crate) fn source_port(&self) -> u16 {
        (self.0[4] >> SOURCE_PORT) as u16
    }

    /// The destination port, as a wire word.
    #[inline(always)]
    pub(crate) fn destination_port(&self) -> u16 {
        (self.0[4] >> DESTINATION_PORT) as u16
    }

    /// The IP version.
    #[inline(always)]
    pub(crate) fn family(&self) -> u8 {
        (self.0[4] >> FAMILY) as u8
    }
}

/// Both ports as in a UDP header, from their wire words.
#[inline(always)]
pub(crate) fn ports(source: u16, destination: u16) -> u32 {
    let [a, b] = source.to_ne_bytes();
    let [c, d] = destination.to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d])
}
