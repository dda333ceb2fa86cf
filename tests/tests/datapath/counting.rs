//! What is counted for an index, and for whom.

use aya::maps::PerCpuValues;
use hairpin::datapath::Flow;
use hairpin_common::maps::{AllocationCount, Count};
use hairpin_common::verdict::Verdict;

use super::lab::{Lab, Maps, flow4, scopes};
use super::{options, settled, soon};

/// Counts of data to peers.
fn to_peers(packets: u64) -> AllocationCount {
    AllocationCount { to_peer: Count { packets, bytes: packets * 100 }, to_client: Count::default() }
}

/// Puts what each CPU is to have counted for an index into the program's memory. All together.
fn count(maps: &mut Maps, index: u32, on_first_cpu: u64) -> AllocationCount {
    let cpus = (0..).zip(on_first_cpu..).take(aya::util::nr_cpus().expect("the number of CPUs is known"));
    let mut sum = 0;
    for (cpu, packets) in cpus {
        maps.allocations
            .set(cpu * options().max_allocations + index, to_peers(packets), 0)
            .expect("there is such a value");
        sum += packets;
    }
    to_peers(sum)
}

#[test]
fn counters_are_summed_over_cpus() {
    let Some(lab) = Lab::new() else { return };
    let datapath = lab.start(options());
    let (handle, mut maps) = (datapath.handle(), lab.maps());
    let sums = [3, 4].map(|index| count(&mut maps, index, 1 + u64::from(index)));
    assert_eq!([3, 4].map(|index| handle.allocation_count(index)), sums);
    assert_eq!(handle.allocation_count(99), AllocationCount::default(), "out of range");

    let verdict = Verdict::ToClient;
    let packets = (1..).take(aya::util::nr_cpus().expect("the number of CPUs is known"));
    let counts: Vec<_> = packets.map(|packets| Count { packets, bytes: packets * 100 }).collect();
    let packets = counts.iter().map(|count| count.packets).sum();
    maps.verdicts.set(verdict as u32, PerCpuValues::try_from(counts).expect("one for each CPU"), 0).unwrap();
    assert_eq!(handle.counters().verdicts[verdict as usize], Count { packets, bytes: packets * 100 });
}

#[test]
fn whoever_gets_an_index_never_sees_what_was_counted_for_those_before() {
    let Some(lab) = Lab::new() else { return };
    let datapath = lab.start(options());
    let (handle, mut maps) = (datapath.handle(), lab.maps());
    let (nothing, other) = (AllocationCount::default(), Flow { allocation: 5, ..flow4() });
    let cpus = aya::util::nr_cpus().expect("the number of CPUs is known") as u64;
    for round in 0..10 {
        let before = count(&mut maps, 3, 1000 * round + 10);
        assert!(handle.allocation_count(3) != nothing && before != nothing);
        // The writer has much to do.
        for flow in scopes(other).iter().cycle().take(5000) {
            handle.install(*flow, soon());
        }
        for _ in 0..=round % 2 {
            handle.reset_allocation(3);
            assert_eq!(handle.allocation_count(3), nothing, "the kernel may not have heard of the end");
        }
        settled(&datapath);
        assert_eq!(handle.allocation_count(3), nothing);
        count(&mut maps, 3, 1000 * round + 13);
        assert_eq!(handle.allocation_count(3), to_peers(3 * cpus));
    }
    assert_eq!(handle.allocation_count(4), nothing);
}
