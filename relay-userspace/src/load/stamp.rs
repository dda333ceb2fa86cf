//! What each payload begins with, so that its way can be measured.

/// The beginning of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Which run of the generator, by a random number: what anybody else sends does not count.
    pub(super) run: u32,
    /// Which client sent it.
    pub(super) flow: u32,
    /// Counts the packets of the flow.
    pub(super) sequence: u64,
    /// When it was sent, in nanoseconds since the start of the run.
    pub(super) sent: u64,
}

impl Stamp {
    /// Length in bytes: the shortest payload there can be.
    pub(super) const LEN: usize = 24;

    pub(super) fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..4].copy_from_slice(&self.run.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.flow.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[16..].copy_from_slice(&self.sent.to_be_bytes());
        bytes
    }

    /// Reads the stamp of a packet of this run.
    pub(super) fn parse(payload: &[u8], this_run: u32) -> Option<Self> {
        let (run, rest) = payload.split_first_chunk()?;
        let (flow, rest) = rest.split_first_chunk()?;
        let (sequence, rest) = rest.split_first_chunk()?;
        let sent = rest.first_chunk()?;
        let run = u32::from_be_bytes(*run);
        (run == this_run).then(|| Self {
            run,
            flow: u32::from_be_bytes(*flow),
            sequence: u64::from_be_bytes(*sequence),
            sent: u64::from_be_bytes(*sent),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_survives_and_others_are_told_apart() {
        let stamp = Stamp { run: 0x0102_0304, flow: 5, sequence: u64::MAX - 1, sent: 0x0a0b_0c0d_0e0f_1011 };
        let mut bytes = stamp.to_bytes().to_vec();
        assert_eq!(Stamp::parse(&bytes, 0x0102_0304), Some(stamp));
        bytes.extend_from_slice(b"filler");
        assert_eq!(Stamp::parse(&bytes, 0x0102_0304), Some(stamp));
        assert_eq!(Stamp::parse(&bytes[..Stamp::LEN - 1], 0x0102_0304), None);
        assert_eq!(Stamp::parse(&bytes, 0x0102_0305), None);
    }
}
