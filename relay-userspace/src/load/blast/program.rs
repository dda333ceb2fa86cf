//! The three programs: one that makes frames, one that turns them around, and one that counts and checks them.
#![allow(clippy::cast_possible_wrap, reason = "offsets in a frame are far below 32,768")]

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::Relaxed;

use super::assembler::Register::{R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10};
use super::assembler::{Assembler, If, Label, MAP_LOOKUP, REDIRECT, Width, XDP_LOAD_BYTES};
use super::bpf::{self, Array};

const XDP_DROP: i32 = 1;
const XDP_PASS: i32 = 2;
const XDP_TX: i32 = 3;
/// Offsets of `data` and `data_end` in `struct xdp_md`.
const DATA: i16 = 0;
const DATA_END: i16 = 4;

/// How much of a frame is written anew for each: memory comes back as the relay left it, with other headers in it. All
/// headers that anybody puts before application data end before.
const HEAD: usize = 128;
/// How many frames are kept to be looked at, and the room for each.
pub(super) const SAMPLES: usize = 64;
pub(super) const SAMPLE_ROOM: usize = 2048;
/// A flow is noted by its number in a mark; more have to share.
pub(super) const MOST_FLOWS: usize = 1 << 16;
/// A prime: going round in steps of it visits all flows, in an order that no prefetcher follows.
const STEP: usize = 7919;
/// How many frames the kernel makes at a time; its default.
const BATCH: u32 = 64;
/// How often a program runs that nobody interrupts: some minutes.
const RUN: u32 = 1 << 30;

/// Makes frames of many flows, one after the other, and sends them out of an interface.
#[derive(Debug)]
pub(super) struct Source {
    program: OwnedFd,
    /// Words: the next flow, how many there are, how many frames were made, and how many may be.
    state: Array,
    _heads: Array,
    first: Vec<u8>,
    interface: u32,
}

impl Source {
    /// `frames` is one for each flow, all of one length.
    pub(super) fn new(frames: &[Vec<u8>], interface: u32) -> io::Result<Self> {
        let first = frames.first().ok_or(io::ErrorKind::InvalidInput)?.clone();
        let head = first.len().min(HEAD);
        let state = Array::new(1, 4)?;
        state.memory()[1].store(frames.len() as u64, Relaxed);
        let heads = Array::new(frames.len() as u32, (head as u32).div_ceil(8))?;
        // Neighbours have much in common, and flows of a real relay do not come in the order of their making.
        let step = if frames.len().is_multiple_of(STEP) { 1 } else { STEP };
        let order = (0..frames.len()).map(|index| &frames[index * step % frames.len()]);
        for (frame, words) in order.zip(heads.memory().chunks_exact(heads.words())) {
            for (chunk, word) in frame[..head].chunks(8).zip(words) {
                let mut bytes = [0; 8];
                bytes[..chunk.len()].copy_from_slice(chunk);
                word.store(u64::from_ne_bytes(bytes), Relaxed);
            }
        }
        let program = bpf::load(&source(head, &state, &heads, interface))?;
        Ok(Self { program, state, _heads: heads, first, interface })
    }

    /// Sends the frames that are allowed, from the calling thread's CPU, until a signal comes.
    pub(super) fn run(&self) -> io::Result<()> {
        match bpf::run_live(self.program.as_fd(), &self.first, self.interface, RUN, BATCH) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            other => other,
        }
    }

    /// Allows so many frames, counted since the beginning.
    pub(super) fn allow(&self, frames: u64) {
        self.state.memory()[3].store(frames, Relaxed);
    }

    /// How many frames were made so far.
    pub(super) fn made(&self) -> u64 {
        self.state.memory()[2].load(Relaxed)
    }
}

fn source(head: usize, state: &Array, heads: &Array, interface: u32) -> Vec<super::assembler::Instruction> {
    let mut a = Assembler::default();
    let (mut out, mut next, mut allowed) = (Label::default(), Label::default(), Label::default());
    a.copy(R6, R1);
    a.map_value(R9, state.fd());
    a.load(Width::Double, R1, R9, 16);
    a.load(Width::Double, R2, R9, 24);
    a.jump_register(If::Less, R1, R2, &mut allowed);
    a.exit_with(XDP_DROP);
    a.land(allowed);
    a.load(Width::Word, R7, R6, DATA);
    a.load(Width::Word, R8, R6, DATA_END);
    a.copy(R2, R7);
    a.add(R2, head as i32);
    a.jump_register(If::Greater, R2, R8, &mut out);
    // Which flow is it? The next one then.
    a.load(Width::Double, R1, R9, 0);
    a.store(Width::Word, R10, -4, R1);
    a.load(Width::Double, R3, R9, 8);
    a.add(R1, 1);
    a.jump_register(If::Less, R1, R3, &mut next);
    a.set(R1, 0);
    a.land(next);
    a.store(Width::Double, R9, 0, R1);
    a.increment(R9, 16, R1);
    // Its headers.
    a.map(R1, heads.fd());
    a.copy(R2, R10);
    a.add(R2, -4);
    a.call(MAP_LOOKUP);
    a.jump(If::Equal, R0, 0, &mut out);
    let mut at = 0;
    for width in [Width::Double, Width::Word, Width::Half, Width::Byte] {
        while at + width.bytes() <= head {
            a.load(width, R1, R0, at as i16);
            a.store(width, R7, at as i16, R1);
            at += width.bytes();
        }
    }
    a.set(R1, interface.cast_signed());
    a.set(R2, 0);
    a.call(REDIRECT);
    a.exit();
    a.land(out);
    a.exit_with(XDP_DROP);
    a.finish()
}

/// Swaps link-layer addresses and sends back: what any forwarding costs at least.
pub(super) fn load_reflector() -> io::Result<OwnedFd> {
    let mut a = Assembler::default();
    let mut out = Label::default();
    a.load(Width::Word, R7, R1, DATA);
    a.load(Width::Word, R8, R1, DATA_END);
    a.copy(R2, R7);
    a.add(R2, 14);
    a.jump_register(If::Greater, R2, R8, &mut out);
    a.load(Width::Word, R2, R7, 0);
    a.load(Width::Half, R3, R7, 4);
    a.load(Width::Word, R4, R7, 6);
    a.load(Width::Half, R5, R7, 10);
    a.store(Width::Word, R7, 6, R2);
    a.store(Width::Half, R7, 10, R3);
    a.store(Width::Word, R7, 0, R4);
    a.store(Width::Half, R7, 4, R5);
    a.exit_with(XDP_TX);
    a.land(out);
    a.exit_with(XDP_PASS);
    bpf::load(&a.finish())
}

/// Passes every frame on.
pub(super) fn load_passing() -> io::Result<OwnedFd> {
    let mut a = Assembler::default();
    a.exit_with(XDP_PASS);
    bpf::load(&a.finish())
}

/// What the frames that are waited for have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Length in bytes.
    pub(super) length: usize,
    /// Where the mark begins: four bytes of the run, and the number of the flow in four more, little-endian.
    pub(super) mark_at: usize,
    /// The bytes of the run.
    pub(super) run: [u8; 4],
}

/// Counts frames of a shape, keeps some, and notes of which flows they are. Others are passed on.
#[derive(Debug)]
pub(super) struct Sink {
    program: OwnedFd,
    /// Words: frames of the shape, others, the mask that chooses samples, how many samples were taken.
    state: Array,
    samples: Array,
    /// A byte for each flow.
    seen: Array,
    length: usize,
}

impl Sink {
    pub(super) fn new(shape: Shape) -> io::Result<Self> {
        if shape.length > SAMPLE_ROOM || shape.mark_at + 8 > shape.length {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let state = Array::new(1, 4)?;
        let samples = Array::new(1, (SAMPLES * SAMPLE_ROOM / 8) as u32)?;
        let seen = Array::new(1, (MOST_FLOWS / 8) as u32)?;
        let program = bpf::load(&sink(shape, &state, &samples, &seen))?;
        Ok(Self { program, state, samples, seen, length: shape.length })
    }

    /// Attaches it to an interface until the result is dropped.
    pub(super) fn attach(&self, interface: u32) -> io::Result<OwnedFd> {
        bpf::attach(self.program.as_fd(), interface)
    }

    /// Puts it in place of another program that is attached.
    pub(super) fn replace(&self, attached: BorrowedFd<'_>) -> io::Result<()> {
        bpf::replace(attached, self.program.as_fd())
    }

    /// How many frames of the shape have come.
    pub(super) fn received(&self) -> u64 {
        self.state.memory()[0].load(Relaxed)
    }

    /// How many others have come.
    pub(super) fn others(&self) -> u64 {
        self.state.memory()[1].load(Relaxed)
    }

    /// Keeps each frame whose number has none of these bits, counted from 1.
    pub(super) fn sample_every(&self, mask: u64) {
        self.state.memory()[2].store(mask, Relaxed);
    }

    /// The frames that were kept since the last time. The program may be overwriting them while it runs.
    pub(super) fn take_samples(&self) -> Vec<Vec<u8>> {
        let taken = self.state.memory()[3].swap(0, Relaxed) as usize;
        let room = self.samples.memory().chunks_exact(SAMPLE_ROOM / 8).take(taken.min(SAMPLES));
        room.map(|words| {
            let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.load(Relaxed).to_ne_bytes()).collect();
            bytes.truncate(self.length);
            bytes
        })
        .collect()
    }

    /// How many of the first so many flows a frame has come of.
    pub(super) fn flows_seen(&self, flows: usize) -> usize {
        let bytes = self.seen.memory().iter().flat_map(|word| word.load(Relaxed).to_ne_bytes());
        bytes.take(flows).filter(|seen| *seen != 0).count()
    }
}

fn sink(shape: Shape, state: &Array, samples: &Array, seen: &Array) -> Vec<super::assembler::Instruction> {
    let mut a = Assembler::default();
    let (mut other, mut drop) = (Label::default(), Label::default());
    let mark_at = shape.mark_at as i16;
    a.copy(R6, R1);
    a.load(Width::Word, R7, R6, DATA);
    a.load(Width::Word, R8, R6, DATA_END);
    a.map_value(R9, state.fd());
    a.copy(R2, R8);
    a.subtract_register(R2, R7);
    a.jump(If::NotEqual, R2, shape.length as i32, &mut other);
    a.copy(R2, R7);
    a.add(R2, shape.mark_at as i32 + 8);
    a.jump_register(If::Greater, R2, R8, &mut other);
    a.load(Width::Word, R2, R7, mark_at);
    a.jump_half(If::NotEqual, R2, i32::from_ne_bytes(shape.run), &mut other);
    a.increment(R9, 0, R1);
    a.load(Width::Word, R2, R7, mark_at + 4);
    a.and(R2, MOST_FLOWS as i32 - 1);
    a.map_value(R3, seen.fd());
    a.add_register(R3, R2);
    a.set(R2, 1);
    a.store(Width::Byte, R3, 0, R2);
    // Is it one to be looked at?
    a.load(Width::Double, R2, R9, 16);
    a.and_register(R1, R2);
    a.jump(If::NotEqual, R1, 0, &mut drop);
    a.load(Width::Double, R1, R9, 24);
    a.copy(R2, R1);
    a.add(R2, 1);
    a.store(Width::Double, R9, 24, R2);
    a.and(R1, SAMPLES as i32 - 1);
    a.shift_left(R1, SAMPLE_ROOM.ilog2() as i32);
    a.map_value(R3, samples.fd());
    a.add_register(R3, R1);
    a.copy(R1, R6);
    a.set(R2, 0);
    a.set(R4, shape.length as i32);
    a.call(XDP_LOAD_BYTES);
    a.land(drop);
    a.exit_with(XDP_DROP);
    a.land(other);
    a.increment(R9, 8, R1);
    a.exit_with(XDP_PASS);
    a.finish()
}
