//! The XDP program: what is relayed is rewritten in the driver and sent straight back out.
//!
//! A packet goes through the files in this order, and leaves for the kernel's stack, untouched, at the first question
//! that has no good answer:
//!
//! 1. [`frame`] is the packet's memory;
//! 2. [`parse`] finds UDP to a port with a role, and [`family`] knows what differs between IPv4 and IPv6;
//! 3. [`framing`] finds the application data, in ChannelData or plain;
//! 4. [`lookup`] finds the one record that says what to send, and asks [`clock`] whether it is still in force;
//! 5. [`egress`] asks whether the next hop can take it, moves the head of the frame, and writes the new headers, for
//!    which [`checksum`] has the sums;
//! 6. [`count`] counts the verdict.
//!
//! All of it is generic over the IP version and the VLAN tag, and becomes straight code for each.
//!
//! Memory is safe because the kernel's verifier proves it of the compiled program. What it cannot prove is kept here:
//! a passed packet is never changed, because every check comes before the head is moved; and no record is trusted that
//! another CPU may have been writing.
#![no_std]
#![no_main]
// For the one barrier in `lookup`: the core library has no atomic exchange for this target.
#![feature(asm_experimental_arch)]

mod checksum;
mod clock;
mod count;
mod egress;
mod family;
mod frame;
mod framing;
mod lookup;
mod maps;
mod parse;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use hairpin_common::{
    verdict::{Action, Verdict},
    wire::{ETHERNET_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_VLAN, VLAN_TAG_LEN},
};

use crate::{
    count::Sent,
    family::{Family, V4, V6},
    frame::Frame,
    framing::Payload,
};

/// The program's entry.
#[xdp]
fn hairpin(context: XdpContext) -> u32 {
    let frame = Frame::of(&context);
    let verdict = match relay_any(&frame) {
        Ok(sent) => {
            count::sent(&sent);
            sent.verdict
        }
        Err(verdict) => {
            count::not_sent(verdict, frame.length());
            verdict
        }
    };
    match verdict.action() {
        Action::Transmit => xdp_action::XDP_TX,
        Action::Pass => xdp_action::XDP_PASS,
        Action::Drop => xdp_action::XDP_DROP,
    }
}

/// Finds out what the frame carries.
#[inline(always)]
fn relay_any(frame: &Frame) -> Result<Sent, Verdict> {
    if !frame.holds(ETHERNET_LEN + VLAN_TAG_LEN) {
        return Err(Verdict::NotUdp);
    }
    match u16::from_be(frame.load(ETHERNET_LEN - 2)) {
        ETHERTYPE_IPV4 => relay::<V4, false>(frame),
        ETHERTYPE_IPV6 => relay::<V6, false>(frame),
        ETHERTYPE_VLAN => match u16::from_be(frame.load(ETHERNET_LEN + VLAN_TAG_LEN - 2)) {
            ETHERTYPE_IPV4 => relay::<V4, true>(frame),
            ETHERTYPE_IPV6 => relay::<V6, true>(frame),
            _ => Err(Verdict::NotUdp),
        },
        _ => Err(Verdict::NotUdp),
    }
}

/// The whole way of a packet of one IP version, with or without a VLAN tag.
#[inline(always)]
fn relay<F: Family, const TAGGED: bool>(frame: &Frame) -> Result<Sent, Verdict> {
    let packet = parse::parse::<F, TAGGED>(frame)?;
    let payload = Payload::find::<F>(frame, &packet)?;
    let record = lookup::lookup::<F>(&F::key(frame, packet.layer3, payload.channel))?;
    let plan = egress::plan::<F>(frame, &packet, &payload, &record)?;
    egress::send::<F, TAGGED>(frame, &packet, &payload, &record, &plan)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // Nothing here panics; the verifier would refuse a program with a way into this loop.
    loop {}
}

/// Needed for the helpers this program calls; the sources are under the terms in Cargo.toml.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
