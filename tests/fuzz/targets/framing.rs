//! A stream gives the same frames however it is cut into pieces, and no piece costs more than a look at a header.

#![no_main]

use arbitrary::{Result, Unstructured};
use hairpin_proto::framing::{Frame, MAX_FRAME};
use hairpin_proto::stun::{Message, ParseError};
use libfuzzer_sys::fuzz_target;

/// As much as may be looked at of a frame.
const HEADER: usize = 20;

/// What a stream is made of. Long messages come from few bytes.
enum Part {
    Stun { kind: u16, words: u16, body: Vec<u8> },
    ChannelData { number: u16, length: u16, body: Vec<u8> },
    Bytes(Vec<u8>),
}

impl Part {
    fn read(input: &mut Unstructured<'_>) -> Result<Self> {
        let kind = input.int_in_range(0..=2)?;
        let (first, second) = (input.arbitrary()?, input.arbitrary()?);
        let length = input.int_in_range(0..=64)?;
        let body = input.bytes(input.len().min(length))?.to_vec();
        Ok(match kind {
            0 => Self::Stun { kind: first, words: second, body },
            1 => Self::ChannelData { number: first, length: second, body },
            _ => Self::Bytes(body),
        })
    }

    fn append(&self, stream: &mut Vec<u8>) {
        let start = stream.len();
        let length = match self {
            Self::Stun { kind, words, body } => {
                let length = words & 0x3fff;
                stream.extend((kind & 0x3fff).to_be_bytes());
                stream.extend((length * 4).to_be_bytes());
                stream.extend(0x2112_a442_u32.to_be_bytes());
                stream.extend([7; 12]);
                stream.extend(body);
                HEADER + usize::from(length) * 4
            }
            Self::ChannelData { number, length, body } => {
                stream.extend((0x4000 | number & 0x3fff).to_be_bytes());
                stream.extend(length.to_be_bytes());
                stream.extend(body);
                4 + usize::from(*length).next_multiple_of(4)
            }
            Self::Bytes(bytes) => {
                stream.extend(bytes);
                bytes.len()
            }
        };
        stream.resize(start + length, 0);
    }
}

fuzz_target!(|input: &[u8]| {
    let mut input = Unstructured::new(input);
    // Lengths of the pieces, over and over.
    let cuts: Vec<u16> = (0..4).map_while(|_| input.arbitrary().ok()).collect();
    let mut stream = Vec::new();
    for _ in 0..8 {
        match Part::read(&mut input) {
            Ok(part) if !input.is_empty() => part.append(&mut stream),
            _ => break,
        }
    }
    let whole = frames_of(&stream);
    assert_eq!(frames_in_pieces(&stream, &cuts), whole);
});

/// Where the frames of a stream end that is there at once, and whether it is broken then.
fn frames_of(stream: &[u8]) -> (Vec<usize>, bool) {
    let (mut ends, mut at) = (Vec::new(), 0);
    loop {
        check_header_is_enough(&stream[at..]);
        match look(&stream[at..]) {
            Frame::Complete(length) => at += length,
            Frame::Incomplete => return (ends, false),
            Frame::Broken => return (ends, true),
        }
        ends.push(at);
    }
}

/// The same of a stream that comes in pieces.
fn frames_in_pieces(stream: &[u8], cuts: &[u16]) -> (Vec<usize>, bool) {
    let (mut ends, mut at, mut there) = (Vec::new(), 0, 0);
    let mut lengths = cuts.iter().map(|cut| usize::from(*cut)).cycle();
    while there < stream.len() {
        let piece = lengths.next().unwrap_or(1).max(1 + stream.len() / 1000);
        there = stream.len().min(there + piece);
        loop {
            match look(&stream[at..there]) {
                Frame::Complete(length) => at += length,
                Frame::Incomplete => break,
                Frame::Broken => return (ends, true),
            }
            ends.push(at);
        }
    }
    (ends, false)
}

fn look(bytes: &[u8]) -> Frame {
    let frame = Frame::of(bytes);
    if let Frame::Complete(length) = frame {
        assert!((1..=MAX_FRAME.min(bytes.len())).contains(&length) && length.is_multiple_of(4));
        if bytes[0] < 4 {
            let parsed = Message::parse(&bytes[..length]).map(drop);
            assert!(matches!(parsed, Ok(()) | Err(ParseError::Attribute | ParseError::Fingerprint)), "{parsed:?}");
        }
    }
    frame
}

/// Nothing but the header counts, and how much is there: a look takes no time that grows with what is there.
fn check_header_is_enough(bytes: &[u8]) {
    let mut zeros = vec![0; bytes.len()];
    let seen = bytes.len().min(HEADER);
    zeros[..seen].copy_from_slice(&bytes[..seen]);
    assert_eq!(Frame::of(&zeros), Frame::of(bytes));
}
