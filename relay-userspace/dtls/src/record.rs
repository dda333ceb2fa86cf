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

/// What the records of a datagram are, without a look under their protection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plausible {
    /// All can be what they say they are, and none is protected.
    Clear,
    /// All can be what they say they are.
    Protected,
    /// One cannot be.
    No,
}

/// Whether all records of a datagram can be some of an association that protects with `overhead` bytes.
///
/// RFC 6347 section 4.1.2.7 wants invalid records dropped, since anybody can send them who knows the addresses. OpenSSL
/// does so with what has a wrong tag. It gives up for records too short to have one, and during a handshake for types
/// in the clear that have no place there.
pub(crate) fn plausible(mut datagram: &[u8], overhead: usize) -> Plausible {
    let mut plausible = Plausible::Clear;
    loop {
        let Some((record, rest)) = Record::parse(datagram) else { return Plausible::No };
        // ChangeCipherSpec, alert, handshake; application data only under keys. None is empty in the clear.
        let (types, least) = if record.epoch == 0 { (20..=22, 1) } else { (20..=23, overhead) };
        if !types.contains(&record.content_type) || record.fragment.len() < least {
            return Plausible::No;
        }
        if record.epoch != 0 {
            plausible = Plausible::Protected;
        }
        if rest.is_empty() {
            return plausible;
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
    fn only_application_data_needs_keys() {
        for content_type in 0..=255 {
            let clear = if matches!(content_type, 20..=22) { Plausible::Clear } else { Plausible::No };
            assert_eq!(plausible(&record(content_type, 0, b"x"), 24), clear);
            let protected = if matches!(content_type, 20..=23) { Plausible::Protected } else { Plausible::No };
            assert_eq!(plausible(&record(content_type, 1, &[0; 24]), 24), protected);
        }
    }

    #[test]
    fn what_is_too_short_to_be_protected_is_not_plausible() {
        for (len, overhead, expected) in [
            (24, 24, Plausible::Protected),
            (23, 24, Plausible::No),
            (16, 16, Plausible::Protected),
            (15, 16, Plausible::No),
        ] {
            assert_eq!(plausible(&record(23, 1, &vec![0; len]), overhead), expected, "{len} of {overhead}");
        }
        assert_eq!(plausible(&record(22, 0, b""), 24), Plausible::No);
    }

    #[test]
    fn all_records_of_a_datagram_count() {
        let (hello, finished) = (record(22, 0, b"x"), record(22, 1, &[0; 40]));
        assert_eq!(plausible(&[&hello[..], &hello].concat(), 24), Plausible::Clear);
        assert_eq!(plausible(&[&hello[..], &finished].concat(), 24), Plausible::Protected);
        assert_eq!(plausible(&[&finished[..], &hello].concat(), 24), Plausible::Protected);
        assert_eq!(plausible(&[&hello[..], &record(23, 0, b"x")].concat(), 24), Plausible::No);
        assert_eq!(plausible(&[&hello[..], b"tail"].concat(), 24), Plausible::No);
        assert_eq!(plausible(b"", 24), Plausible::No);
    }
}
