//! Instructions of BPF (RFC 9669), as many as three small programs need.

use std::os::fd::{AsRawFd as _, BorrowedFd};

/// One 64-bit instruction word, laid out as the kernel takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// A register. `R0` is a result, `R1` to `R5` are arguments and lost in calls, `R6` to `R9` are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Register {
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    /// The frame pointer: the stack is below it.
    R10,
}

/// How much memory a load or a store takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    Byte,
    Half,
    Word,
    Double,
}

/// When a jump is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum If {
    Equal,
    NotEqual,
    Greater,
    Less,
}

/// A place that jumps lead to, further down in the program.
#[derive(Debug, Default)]
pub(super) struct Label(Vec<usize>);

/// A program in the making. Jumps only lead forward.
#[derive(Debug, Default)]
pub(super) struct Assembler(Vec<Instruction>);

/// bpf_map_lookup_elem(map, key)
pub(super) const MAP_LOOKUP: i32 = 1;
/// bpf_redirect(interface, flags)
pub(super) const REDIRECT: i32 = 23;
/// bpf_xdp_load_bytes(context, offset, buffer, length)
pub(super) const XDP_LOAD_BYTES: i32 = 189;

const ALU64: u8 = 0x07;
const JMP: u8 = 0x05;
const JMP32: u8 = 0x06;
const LD_IMM64: u8 = 0x18;
const LDX: u8 = 0x61;
const STX: u8 = 0x63;
/// The operand is a register instead of the immediate.
const SOURCE_REGISTER: u8 = 0x08;

const PSEUDO_MAP_FD: u8 = 1;
const PSEUDO_MAP_VALUE: u8 = 2;

impl Width {
    /// The bits of the code that differ from those of a word.
    fn bits(self) -> u8 {
        match self {
            Self::Word => 0x00,
            Self::Half => 0x08,
            Self::Byte => 0x10,
            Self::Double => 0x18,
        }
    }

    /// In bytes.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::Byte => 1,
            Self::Half => 2,
            Self::Word => 4,
            Self::Double => 8,
        }
    }
}

impl If {
    fn bits(self) -> u8 {
        match self {
            Self::Equal => 0x10,
            Self::Greater => 0x20,
            Self::NotEqual => 0x50,
            Self::Less => 0xa0,
        }
    }
}

impl Assembler {
    /// The finished program.
    pub(super) fn finish(self) -> Vec<Instruction> {
        self.0
    }

    /// `to = from`
    pub(super) fn copy(&mut self, to: Register, from: Register) {
        self.push(ALU64 | 0xb0 | SOURCE_REGISTER, to, from as u8, 0, 0);
    }

    /// `to = number`
    pub(super) fn set(&mut self, to: Register, number: i32) {
        self.push(ALU64 | 0xb0, to, 0, 0, number);
    }

    /// `to += number`
    pub(super) fn add(&mut self, to: Register, number: i32) {
        self.push(ALU64, to, 0, 0, number);
    }

    /// `to += other`
    pub(super) fn add_register(&mut self, to: Register, other: Register) {
        self.push(ALU64 | SOURCE_REGISTER, to, other as u8, 0, 0);
    }

    /// `to -= other`
    pub(super) fn subtract_register(&mut self, to: Register, other: Register) {
        self.push(ALU64 | 0x10 | SOURCE_REGISTER, to, other as u8, 0, 0);
    }

    /// `to &= number`
    pub(super) fn and(&mut self, to: Register, number: i32) {
        self.push(ALU64 | 0x50, to, 0, 0, number);
    }

    /// `to &= other`
    pub(super) fn and_register(&mut self, to: Register, other: Register) {
        self.push(ALU64 | 0x50 | SOURCE_REGISTER, to, other as u8, 0, 0);
    }

    /// `to <<= bits`
    pub(super) fn shift_left(&mut self, to: Register, bits: i32) {
        self.push(ALU64 | 0x60, to, 0, 0, bits);
    }

    /// `to = memory[at + offset]`
    pub(super) fn load(&mut self, width: Width, to: Register, at: Register, offset: i16) {
        self.push(LDX | width.bits(), to, at as u8, offset, 0);
    }

    /// `memory[at + offset] = from`
    pub(super) fn store(&mut self, width: Width, at: Register, offset: i16, from: Register) {
        self.push(STX | width.bits(), at, from as u8, offset, 0);
    }

    /// `memory[at + offset] += 1`, by way of a register; only for memory that no other program writes.
    pub(super) fn increment(&mut self, at: Register, offset: i16, by_way_of: Register) {
        self.load(Width::Double, by_way_of, at, offset);
        self.add(by_way_of, 1);
        self.store(Width::Double, at, offset, by_way_of);
    }

    /// `to = the map`
    pub(super) fn map(&mut self, to: Register, map: BorrowedFd<'_>) {
        self.push(LD_IMM64, to, PSEUDO_MAP_FD, 0, map.as_raw_fd());
        self.push(0, Register::R0, 0, 0, 0);
    }

    /// `to = &first value of the array`
    pub(super) fn map_value(&mut self, to: Register, map: BorrowedFd<'_>) {
        self.push(LD_IMM64, to, PSEUDO_MAP_VALUE, 0, map.as_raw_fd());
        self.push(0, Register::R0, 0, 0, 0);
    }

    /// `R0 = helper(R1, R2, ...)`
    pub(super) fn call(&mut self, helper: i32) {
        self.push(JMP | 0x80, Register::R0, 0, 0, helper);
    }

    /// Ends the program with this verdict.
    pub(super) fn exit_with(&mut self, verdict: i32) {
        self.set(Register::R0, verdict);
        self.exit();
    }

    /// Ends the program with the verdict in `R0`.
    pub(super) fn exit(&mut self) {
        self.push(JMP | 0x90, Register::R0, 0, 0, 0);
    }

    /// Jumps when `left` compares so with a number.
    pub(super) fn jump(&mut self, when: If, left: Register, number: i32, to: &mut Label) {
        to.0.push(self.0.len());
        self.push(JMP | when.bits(), left, 0, 0, number);
    }

    /// Jumps when the lower half of `left` compares so with a number.
    pub(super) fn jump_half(&mut self, when: If, left: Register, number: i32, to: &mut Label) {
        to.0.push(self.0.len());
        self.push(JMP32 | when.bits(), left, 0, 0, number);
    }

    /// Jumps when two registers compare so.
    pub(super) fn jump_register(&mut self, when: If, left: Register, right: Register, to: &mut Label) {
        to.0.push(self.0.len());
        self.push(JMP | when.bits() | SOURCE_REGISTER, left, right as u8, 0, 0);
    }

    /// Here jumps to this label arrive.
    #[allow(clippy::cast_possible_wrap, reason = "the programs have some hundred instructions")]
    pub(super) fn land(&mut self, label: Label) {
        for from in label.0 {
            self.0[from].offset = (self.0.len() - from - 1) as i16;
        }
    }

    fn push(&mut self, code: u8, destination: Register, source: u8, offset: i16, immediate: i32) {
        self.0.push(Instruction { code, registers: destination as u8 | source << 4, offset, immediate });
    }
}

#[cfg(test)]
mod tests {
    use super::Register::{R1, R2};
    use super::*;

    #[test]
    fn instructions_are_encoded_as_the_rfc_says() {
        let mut assembler = Assembler::default();
        let mut out = Label::default();
        assembler.load(Width::Word, R2, R1, 4);
        assembler.jump_register(If::Greater, R2, R1, &mut out);
        assembler.store(Width::Half, R2, -2, R1);
        assembler.jump_half(If::NotEqual, R2, -1, &mut out);
        assembler.call(REDIRECT);
        assembler.land(out);
        assembler.exit_with(2);
        let words: Vec<_> = assembler
            .finish()
            .iter()
            .map(|Instruction { code, registers, offset, immediate }| (*code, *registers, *offset, *immediate))
            .collect();
        assert_eq!(
            words,
            [
                (0x61, 0x12, 4, 0),
                (0x2d, 0x12, 3, 0),
                (0x6b, 0x12, -2, 0),
                (0x56, 0x02, 1, -1),
                (0x85, 0, 0, 23),
                (0xb7, 0, 0, 2),
                (0x95, 0, 0, 0),
            ]
        );
    }
}
