//! What each payload begins with, so that its way can be measured.

/// Tells payloads of the load generator from anything else that a peer might send.
const MAGIC: [u8; 4] = *b"hpl1";

/// The beginning of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Which run of the generator: late packets of another one don't count.
    pub(super) run: u32,
    /// Which client sent it.
    pub(super) flow: u32,
    /// Counts the packets of the flow.
    pub(super) sequence: u32,
    /// When it was sent, in nanoseconds since the start of the run.
    pub(super) sent: u64,
}

impl Stamp {
    /// Length in bytes: the shortest payload there can be.
    pub(super) const LEN: usize = 24;

    pub(super) fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&self.run.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.flow.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[16..].copy_from_slice(&self.sent.to_be_bytes());
        bytes
    }

    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let (magic, rest) = payload.split_first_chunk::<4>()?;
        let (run, rest) = rest.split_first_chunk::<4>()?;
        let (flow, rest) = rest.split_first_chunk::<4>()?;
        let (sequence, rest) = rest.split_first_chunk::<4>()?;
        let sent = rest.first_chunk::<8>()?;
        (*magic == MAGIC).then(|| Self {
            run: u32::from_be_bytes(*run),
            flow: u32::from_be_bytes(*flow),
            sequence: u32::from_be_bytes(*sequence),
            sent: u64::from_be_bytes(*sent),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_survives_and_others_are_told_apart() {
        let stamp = Stamp { run: 0x0102_0304, flow: 5, sequence: u32::MAX, sent: 0x0a0b_0c0d_0e0f_1011 };
        let mut bytes = stamp.to_bytes().to_vec();
        assert_eq!(Stamp::parse(&bytes), Some(stamp));
        bytes.extend_from_slice(b"filler");
        assert_eq!(Stamp::parse(&bytes), Some(stamp));
        assert_eq!(Stamp::parse(&bytes[..Stamp::LEN - 1]), None);
        bytes[0] ^= 1;
        assert_eq!(Stamp::parse(&bytes), None);
    }
}
