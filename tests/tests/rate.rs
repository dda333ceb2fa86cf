//! The kernel path under load. Alone in its file, so that no other test competes for the processors.

use hairpin_tests::lab::load::Load;
use hairpin_tests::lab::{Family, Lab, Relay};

#[test]
fn nothing_is_lost_at_100_000_packets_a_second_and_the_kernel_forwards_them() {
    let lab = Lab::routed();
    let relay = Relay::start(&lab.relay, &["--xdp", "native"]);
    for family in Family::ALL {
        // Each packet is relayed twice.
        let load = Load { rate: 50_000, seconds: 5, payload: 160, allocations: 10 };
        let before = relay.metrics();
        let outcome = load.run(&lab, family);
        let after = relay.metrics();
        let (sent, received) = (outcome.count("packets_sent"), outcome.count("packets_received"));
        println!("{family:?}: {}", outcome.report);
        assert_eq!(sent, received, "lost: {}", outcome.report);
        assert_eq!(outcome.count("packets_duplicated"), 0, "{}", outcome.report);
        // A slow machine sends less; half of it still is a load.
        let asked = u64::from(load.rate * load.seconds);
        assert!(sent > asked / 2, "the generator sent {sent} of {asked}: {}", outcome.report);
        for direction in ["to_peer", "to_client"] {
            let relayed = |path| {
                let labels = [("path", path), ("direction", direction)];
                after.sum("hairpin_relayed_packets_total", &labels)
                    - before.sum("hairpin_relayed_packets_total", &labels)
            };
            let (kernel, userspace) = (relayed("kernel"), relayed("userspace"));
            assert_eq!(kernel + userspace, sent, "{family:?} {direction}: every packet is counted once");
            assert!(
                kernel * 1000 >= (kernel + userspace) * 999,
                "{family:?} {direction}: {kernel} packets in the kernel, {userspace} in userspace"
            );
        }
    }
    relay.stop();
}
