//! STUN messages of the relayed kinds, written and read byte by byte: shares nothing with the relay's own codec.

use std::net::{IpAddr, SocketAddr};

/// The magic cookie (RFC 8489 section 5).
pub const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
/// Binding request and success response (RFC 8489 section 5), Send and Data indication (RFC 8656 section 17).
pub const BINDING_REQUEST: u16 = 0x0001;
/// See [`BINDING_REQUEST`].
pub const BINDING_SUCCESS: u16 = 0x0101;
/// See [`BINDING_REQUEST`].
pub const SEND: u16 = 0x0016;
/// See [`BINDING_REQUEST`].
pub const DATA: u16 = 0x0017;

/// Types of attributes (RFC 8489 section 18.3, RFC 8656 section 18).
pub mod kind {
    /// XOR-PEER-ADDRESS.
    pub const XOR_PEER_ADDRESS: u16 = 0x0012;
    /// DATA.
    pub const DATA: u16 = 0x0013;
    /// DONT-FRAGMENT.
    pub const DONT_FRAGMENT: u16 = 0x001a;
    /// XOR-MAPPED-ADDRESS.
    pub const XOR_MAPPED_ADDRESS: u16 = 0x0020;
    /// SOFTWARE.
    pub const SOFTWARE: u16 = 0x8022;
    /// FINGERPRINT.
    pub const FINGERPRINT: u16 = 0x8028;
}

/// Twelve bytes that match a response to its request.
pub type TransactionId = [u8; 12];

/// A message in the making.
#[derive(Clone, Debug)]
pub struct Builder {
    bytes: Vec<u8>,
    /// What attributes are padded with.
    padding: u8,
}

impl Builder {
    /// A message without attributes, whose padding will be zero.
    pub fn new(message_type: u16, id: TransactionId) -> Self {
        Self::padded_with(0, message_type, id)
    }

    /// A message whose attributes are padded with this byte.
    pub fn padded_with(padding: u8, message_type: u16, id: TransactionId) -> Self {
        let bytes = [&message_type.to_be_bytes()[..], &[0; 2], &COOKIE, &id].concat();
        Self { bytes, padding }
    }

    /// Adds an attribute of any type.
    #[must_use]
    pub fn with(mut self, kind: u16, value: &[u8]) -> Self {
        self.bytes.extend(kind.to_be_bytes());
        self.bytes.extend(u16::try_from(value.len()).expect("a value of 16 bits' length").to_be_bytes());
        self.bytes.extend(value);
        let padded = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(padded, self.padding);
        self.set_length(0);
        self
    }

    /// Adds an attribute that holds an address, mixed with the transaction id.
    #[must_use]
    pub fn with_address(self, kind: u16, address: SocketAddr) -> Self {
        let id = self.bytes[8..20].try_into().expect("twelve bytes");
        let value = xor_address(address, id);
        self.with(kind, &value)
    }

    /// Adds a FINGERPRINT.
    #[must_use]
    pub fn with_fingerprint(mut self) -> Self {
        // The length that the sum covers counts the FINGERPRINT in (RFC 8489 section 14.7).
        self.set_length(8);
        let fingerprint = fingerprint(&self.bytes);
        self.with(kind::FINGERPRINT, &fingerprint)
    }

    /// The message.
    pub fn bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn set_length(&mut self, more: usize) {
        let length = u16::try_from(self.bytes.len() - 20 + more).expect("a message of 16 bits' length");
        self.bytes[2..4].copy_from_slice(&length.to_be_bytes());
    }
}

/// A Send indication as most clients write it.
pub fn send_indication(peer: SocketAddr, data: &[u8], id: TransactionId) -> Vec<u8> {
    Builder::new(SEND, id).with_address(kind::XOR_PEER_ADDRESS, peer).with(kind::DATA, data).bytes()
}

/// A Data indication as the relay writes it.
pub fn data_indication(peer: SocketAddr, data: &[u8], id: TransactionId) -> Vec<u8> {
    Builder::new(DATA, id).with_address(kind::XOR_PEER_ADDRESS, peer).with(kind::DATA, data).bytes()
}

/// A Binding request that asks for nothing else.
pub fn binding_request(id: TransactionId, fingerprint: bool) -> Vec<u8> {
    let request = Builder::new(BINDING_REQUEST, id);
    if fingerprint { request.with_fingerprint() } else { request }.bytes()
}

/// The answer to a Binding request.
pub fn binding_response(client: SocketAddr, id: TransactionId, fingerprint: bool) -> Vec<u8> {
    let response = Builder::new(BINDING_SUCCESS, id).with_address(kind::XOR_MAPPED_ADDRESS, client);
    if fingerprint { response.with_fingerprint() } else { response }.bytes()
}

/// A ChannelData message without padding (RFC 8656 section 12.4).
pub fn channel_data(number: u16, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).expect("a datagram");
    [&number.to_be_bytes()[..], &length.to_be_bytes(), data].concat()
}

/// A message as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Class and method.
    pub message_type: u16,
    /// The transaction id.
    pub id: TransactionId,
    /// Type and value of all attributes, in order.
    pub attributes: Vec<(u16, &'a [u8])>,
    /// Where the FINGERPRINT is right: in front of nothing, with the right value.
    pub fingerprint: Option<bool>,
}

impl<'a> Message<'a> {
    /// Reads a datagram that is one whole message; `None` when it is not.
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        if bytes.len() < 20 || bytes[0] > 3 || bytes[4..8] != COOKIE {
            return None;
        }
        if usize::from(word(2)) != bytes.len() - 20 || !bytes.len().is_multiple_of(4) {
            return None;
        }
        let (mut attributes, mut fingerprint_found, mut at) = (Vec::new(), None, 20);
        while at < bytes.len() {
            let (kind, length) = (word(at), usize::from(word(at + 2)));
            let value = bytes.get(at + 4..at + 4 + length)?;
            let next = at + 4 + length.next_multiple_of(4);
            if next > bytes.len() {
                return None;
            }
            if kind == kind::FINGERPRINT {
                fingerprint_found = Some(next == bytes.len() && value == fingerprint(&bytes[..at]));
            }
            attributes.push((kind, value));
            at = next;
        }
        let id = bytes[8..20].try_into().expect("twelve bytes");
        Some(Self { message_type: word(0), id, attributes, fingerprint: fingerprint_found })
    }

    /// What a mixed address says; `None` when its value has not the right form.
    pub fn address(&self, value: &[u8]) -> Option<SocketAddr> {
        let ipv6 = match (value.get(1)?, value.len()) {
            (1, 8) => false,
            (2, 20) => true,
            _ => return None,
        };
        let mixed: Vec<u8> = value[2..4].iter().zip(COOKIE).map(|(byte, with)| byte ^ with).collect();
        let port = u16::from_be_bytes([mixed[0], mixed[1]]);
        let ip: Vec<u8> =
            value[4..].iter().zip(COOKIE.iter().chain(&self.id)).map(|(byte, with)| byte ^ with).collect();
        let ip = if ipv6 {
            IpAddr::from(<[u8; 16]>::try_from(ip).expect("sixteen bytes"))
        } else {
            IpAddr::from(<[u8; 4]>::try_from(ip).expect("four bytes"))
        };
        Some(SocketAddr::new(ip, port))
    }
}

/// The value of an attribute that holds an address (RFC 8489 section 14.2).
fn xor_address(address: SocketAddr, id: TransactionId) -> Vec<u8> {
    let (family, ip) = match address.ip() {
        IpAddr::V4(ip) => (1, ip.octets().to_vec()),
        IpAddr::V6(ip) => (2, ip.octets().to_vec()),
    };
    let port = address.port().to_be_bytes();
    let mut value = vec![0, family];
    value.extend(port.iter().zip(COOKIE).map(|(byte, with)| byte ^ with));
    value.extend(ip.iter().zip(COOKIE.iter().chain(&id)).map(|(byte, with)| byte ^ with));
    value
}

/// The value of a FINGERPRINT behind these bytes (RFC 8489 section 14.7).
fn fingerprint(covered: &[u8]) -> [u8; 4] {
    (crc32(covered) ^ 0x5354_554e).to_be_bytes()
}

/// CRC-32 of ITU-T V.42, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let mut remainder = u32::MAX;
    for byte in bytes {
        remainder ^= u32::from(*byte);
        for _ in 0..8 {
            let carry = remainder & 1 != 0;
            remainder >>= 1;
            if carry {
                remainder ^= 0xedb8_8320;
            }
        }
    }
    !remainder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_of_the_sum() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn messages_are_those_of_the_relay_s_own_codec() {
        use hairpin_proto::stun::attribute::{Data, XorMappedAddress, XorPeerAddress};
        use hairpin_proto::stun::{self, Class, MessageBuilder, Method};

        let id = [9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 0xaa, 0xbb];
        for address in ["192.0.2.1:32853", "[2001:db8:1234:5678:11:2233:4455:6677]:32853"] {
            let address: SocketAddr = address.parse().unwrap();
            let mut theirs = Vec::new();
            MessageBuilder::new(&mut theirs, Class::Indication, Method::SEND, stun::TransactionId(id))
                .with(&XorPeerAddress(address))
                .with(&Data(b"hello"))
                .finish(false);
            assert_eq!(send_indication(address, b"hello", id), theirs);
            let message = Message::read(&theirs).expect("a message");
            assert_eq!(message.address(message.attributes[0].1), Some(address));
            assert_eq!(message.attributes[1], (kind::DATA, &b"hello"[..]));
            for fingerprint in [false, true] {
                theirs.clear();
                MessageBuilder::new(&mut theirs, Class::Success, Method::BINDING, stun::TransactionId(id))
                    .with(&XorMappedAddress(address))
                    .finish(fingerprint);
                assert_eq!(binding_response(address, id, fingerprint), theirs);
                assert_eq!(Message::read(&theirs).expect("a message").fingerprint, fingerprint.then_some(true));
            }
        }
    }
}
