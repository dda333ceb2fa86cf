//! Single packets through the XDP program: {description, packet, verdict, bytes}.

use anyhow::Result;
use hairpin_tests::program::{
    bench::{Bench, NEXT_HOP},
    flow::{Direction, Flow},
};

const DIRECTIONS: [Direction; 2] = [Direction::ToPeer, Direction::ToClient];

#[test]
fn a_good_packet_is_relayed_in_each_direction_and_family() -> Result<()> {
    let Some(mut bench) = Bench::or_skip() else { return Ok(()) };
    for ipv6 in [false, true] {
        let flow = Flow::numbered(ipv6, 1);
        bench.install(&flow)?;
        for direction in DIRECTIONS {
            let packet = flow.packet(direction, b"some audio");
            let expected = flow.relayed_packet(direction, &packet, b"some audio", &NEXT_HOP);
            bench.expect_sent("a good packet", &packet.bytes(), direction, 10, &expected.bytes())?;
        }
    }
    Ok(())
}
