//! Where the application data is: plain in UDP, or in ChannelData (RFC 8656 section 12.4).

use hairpin_common::{
    checksum::{Sum, word},
    verdict::Verdict,
    wire::{CHANNEL_DATA_LEN, ChannelDataHeader, Datagram, UDP_LEN},
};

use crate::{family::Family, frame::Frame, parse::Packet};

/// ChannelData over UDP may be padded to a multiple of four bytes (RFC 8656 section 12.5), not more.
const MAX_PADDING: u16 = 3;

/// The application data of a datagram.
pub(crate) struct Payload {
    /// Its channel, as a wire word; 0 in a plain datagram.
    pub channel: u16,
    /// Its length in bytes.
    pub length: u16,
    /// How many bytes follow it that are not to be relayed.
    pub padding: u16,
    /// The padding's part of the UDP checksum.
    padding_sum: Sum,
}

impl Payload {
    /// Finds it.
    #[inline(always)]
    pub(crate) fn find<F: Family>(frame: &Frame, packet: &Packet) -> Result<Self, Verdict> {
        let length = packet.udp_length - UDP_LEN as u16;
        if !packet.to_listener {
            return Ok(Self { channel: 0, length, padding: 0, padding_sum: Sum::ZERO });
        }

        let start = packet.layer3 + F::HEADER_LEN + UDP_LEN;
        if length < CHANNEL_DATA_LEN as u16 || !frame.holds(start + CHANNEL_DATA_LEN) {
            return Err(Verdict::Control);
        }
        let bytes: [u8; CHANNEL_DATA_LEN] = frame.load(start);
        if Datagram::of(bytes[0]) != Datagram::ChannelData {
            return Err(Verdict::Control);
        }
        let header = ChannelDataHeader::parse(bytes);
        let Some(padding @ 0..=MAX_PADDING) = (length - CHANNEL_DATA_LEN as u16).checked_sub(header.length) else {
            return Err(Verdict::Malformed);
        };
        let mut payload =
            Self { channel: word(header.channel), length: header.length, padding, padding_sum: Sum::ZERO };
        if padding != 0 {
            payload.padding_sum = sum_padding(frame, start + CHANNEL_DATA_LEN, header.length, padding)?;
        }
        Ok(payload)
    }

    /// What leaving the old framing and entering the new one adds to the UDP checksum, besides the record's own `delta`.
    #[inline(always)]
    pub(crate) fn delta(&self, delta: u16) -> Sum {
        // A change of the UDP length counts twice: it is in the header and in the pseudo header.
        let sum = Sum::ZERO.add(delta);
        if self.channel == 0 {
            sum.add(word(2 * CHANNEL_DATA_LEN as u16)).add(word(self.length))
        } else {
            let sum = sum.sub(word(2 * CHANNEL_DATA_LEN as u16)).sub(word(self.length));
            if self.padding == 0 {
                return sum;
            }
            sum.sub(word(2 * self.padding)).sub(self.padding_sum.fold())
        }
    }
}

/// Sums up to three bytes behind `length` bytes of data. A byte at an odd place counts as the low half of its word.
#[inline(always)]
fn sum_padding(frame: &Frame, data: usize, length: u16, padding: u16) -> Result<Sum, Verdict> {
    let mut sum = Sum::ZERO;
    for index in 0..MAX_PADDING {
        if index >= padding {
            break;
        }
        let place = length as usize + index as usize;
        // Known to be there since the lengths were checked; the verifier cannot follow that.
        let Some(byte) = frame.byte(data, place) else { return Err(Verdict::Malformed) };
        sum = sum.add(u16::from_ne_bytes(if place & 1 == 0 { [byte, 0] } else { [0, byte] }));
    }
    Ok(sum)
}
