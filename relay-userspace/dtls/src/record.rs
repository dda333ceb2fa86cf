//! Records (RFC 6347 section 4.1), as far as they can be read without keys.

/// The handshake, in the record header's first byte.
pub(crate) const HANDSHAKE: u8 = 22;
/// The record header: content type, version, epoch, sequence number, length.
pub(crate) const HEADER_LEN: usize = 13;
/// The first byte of every version: they count down from 1.0, which is {254, 255}.
pub(crate) const VERSION_MAJOR: u8 = 254;

/// A record in a datagram.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'d> {
    pub(crate) content_type: u8,
    pub(crate) epoch: u16,
    pub(crate) sequence: [u8; 6],
    pub(crate) fragment: &'d [u8],
}

impl<'d> Record<'d> {
    /// Reads the first record of `datagram`; also what is behind it.
    pub(crate) fn parse(datagram: &'d [u8]) -> Option<(Self, &'d [u8])> {
        let (header, rest) = datagram.split_first_chunk::<HEADER_LEN>()?;
        let [content_type, major, _, epoch0, epoch1, s0, s1, s2, s3, s4, s5, len0, len1] = *header;
        let (fragment, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([len0, len1])))?;
        let epoch = u16::from_be_bytes([epoch0, epoch1]);
        let record = Self { content_type, epoch, sequence: [s0, s1, s2, s3, s4, s5], fragment };
        (major == VERSION_MAJOR).then_some((record, rest))
    }
}

/// Whether all that is in the datagram can be part of a handshake.
///
/// OpenSSL gives up a handshake for a record in the clear of a type that has no place there, which anybody can send who
/// knows the addresses. RFC 6347 section 4.1.2.7 lets us drop what is invalid.
pub(crate) fn can_be_handshake(mut datagram: &[u8]) -> bool {
    loop {
        let Some((record, rest)) = Record::parse(datagram) else { return false };
        // ChangeCipherSpec, alert, handshake; application data only under keys. No such record is empty in the clear.
        let known = match record.epoch {
            0 => (20..=HANDSHAKE).contains(&record.content_type) && !record.fragment.is_empty(),
            _ => (20..=23).contains(&record.content_type),
        };
        if !known {
            return false;
        }
        if rest.is_empty() {
            return true;
        }
        datagram = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(content_type: u8, epoch: u8, fragment: &[u8]) -> Vec<u8> {
        let len = u8::try_from(fragment.len()).unwrap();
        let header = [content_type, 254, 253, 0, epoch, 1, 2, 3, 4, 5, 6, 0, len];
        [&header[..], fragment].concat()
    }

    #[test]
    fn a_record_is_cut_out_of_its_datagram() {
        let datagram = [record(22, 1, b"north"), record(23, 2, b"")].concat();
        let (first, rest) = Record::parse(&datagram).unwrap();
        assert_eq!((first.content_type, first.epoch, first.sequence), (22, 1, [1, 2, 3, 4, 5, 6]));
        assert_eq!(first.fragment, b"north");
        assert_eq!(Record::parse(rest).unwrap().0.content_type, 23);
        assert!(Record::parse(&datagram[..17]).is_none());
    }

    #[test]
    fn a_handshake_has_only_its_own_types_in_the_clear() {
        for content_type in 0..=255 {
            assert_eq!(can_be_handshake(&record(content_type, 0, b"x")), matches!(content_type, 20..=22));
            assert_eq!(can_be_handshake(&record(content_type, 1, b"x")), matches!(content_type, 20..=23));
        }
        assert!(can_be_handshake(&[record(22, 0, b"x"), record(20, 0, b"x"), record(22, 1, b"x")].concat()));
        assert!(!can_be_handshake(&[record(22, 0, b"x"), record(23, 0, b"x")].concat()));
        assert!(!can_be_handshake(&[&record(22, 0, b"x")[..], b"tail"].concat()));
        assert!(!can_be_handshake(b""));
    }
}
