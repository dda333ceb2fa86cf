//! Limits of rate that an allocation or a path has of its own: whose data they are asked about, and when.

use std::thread;

use anyhow::Result;
use hairpin::datapath::Limits;
use hairpin_common::{limit::Limit, maps::AllocationState, verdict::Verdict};
use hairpin_tests::program::{
    bench::INTERFACE,
    fixture::{DATA, Fixture, at_once},
    model::{Direction, Judgement},
    setup::{OwnLimit, Unit},
    sys::{self, TRANSMITTED},
    world::Path,
};

const UNITS: [Unit; 2] = [Unit::Packets, Unit::Bytes];
/// Whose data a path's is, and which way.
fn counted(fixture: &Fixture, path: &Path) -> Vec<(u32, Direction)> {
    match fixture.setup.judge(INTERFACE, &path.frame(DATA).bytes()) {
        Judgement::Sent(sent) => sent.counted,
        refused => panic!("{}: {refused:?}", path.name),
    }
}

/// Gives an index a limit of its own, on the bench, that lets so many good packets pass from now on.
fn limit(fixture: &Fixture, index: u32, unit: Unit, packets: u64) {
    fixture.bench.maps.state.rest(index);
    match unit {
        Unit::Packets => fixture.bench.limit(index, at_once(packets), Limit::NONE),
        Unit::Bytes => fixture.bench.limit(index, Limit::NONE, at_once(packets * DATA.len() as u64)),
    }
}

#[test]
fn a_limit_of_its_own_is_asked_about_everything_that_counts_for_it() -> Result<()> {
    Fixture::each_with_data(|fixture, path, packet| {
        for (index, used_up) in counted(fixture, path) {
            for unit in UNITS {
                let limit = OwnLimit { index, unit, used_up };
                fixture.setup.own_limits = vec![limit];
                fixture.bench.use_up(&limit)?;
                let what = format!("{}: {limit:?}", path.name);
                let run = fixture.bench.expect(&what, &fixture.setup, &packet.bytes())?;
                assert_eq!(run.counted[0].0, unit.verdict(), "{what}");
                fixture.setup.own_limits.clear();
                fixture.bench.maps.state.rest(index);
                fixture.sent(&format!("{what}, no longer"), &packet)?;
            }
        }
        Ok(())
    })
}

#[test]
fn nobody_elses_limit_nor_that_of_the_other_way_is_asked() -> Result<()> {
    Fixture::each_with_data(|fixture, path, packet| {
        let counted = counted(fixture, path);
        let other_ways: Vec<_> = fixture
            .setup
            .indices()
            .flat_map(|index| [(index, Direction::ToPeer), (index, Direction::ToClient)])
            .filter(|way| !counted.contains(way))
            .collect();
        for unit in UNITS {
            for &(index, used_up) in &other_ways {
                fixture.bench.use_up(&OwnLimit { index, unit, used_up })?;
            }
            // Where both ways of one are not this path's, both are used up.
            fixture.sent(&path.name, &packet)?;
            for index in fixture.setup.indices() {
                fixture.bench.maps.state.rest(index);
            }
        }
        Ok(())
    })
}

#[test]
fn it_holds_instead_of_the_general_one_be_it_tighter_or_looser() -> Result<()> {
    Fixture::each_with_data(|fixture, path, _| {
        let indices: Vec<_> = counted(fixture, path).into_iter().map(|(index, _)| index).collect();
        let rest = |fixture: &Fixture| {
            for index in &indices {
                fixture.bench.maps.state.rest(*index);
            }
        };
        let limit_all = |fixture: &Fixture, unit, packets| {
            for index in &indices {
                limit(fixture, *index, unit, packets);
            }
        };
        for unit in UNITS {
            let general = match unit {
                Unit::Packets => Limits { allocation_packets: at_once(4), ..Limits::default() },
                Unit::Bytes => Limits { allocation_bytes: at_once(4 * DATA.len() as u64), ..Limits::default() },
            };
            for (general, own) in [(Limits::default(), 3), (general, 2), (general, 6)] {
                fixture.bench.set_limits(general);
                limit_all(fixture, unit, own);
                assert_eq!(u64::from(fixture.until(path, DATA, unit.verdict())?), own, "{} {unit:?}", path.name);
            }
            rest(fixture);
            assert_eq!(fixture.until(path, DATA, unit.verdict())?, 4, "{} {unit:?}: the general one", path.name);
            // Of the other unit there is none of its own, so both hold.
            let other = if unit == Unit::Packets { Unit::Bytes } else { Unit::Packets };
            for (own, verdict) in [(3, other.verdict()), (6, unit.verdict())] {
                limit_all(fixture, other, own);
                assert_eq!(u64::from(fixture.until(path, DATA, verdict)?), own.min(4), "{} {unit:?}", path.name);
            }
            rest(fixture);
        }
        fixture.bench.set_limits(Limits::default());
        Ok(())
    })
}

#[test]
fn all_of_it_counts_towards_the_limit_of_the_relay() -> Result<()> {
    let Some(fixture) = Fixture::of_media_or_skip()? else { return Ok(()) };
    fixture.bench.set_limits(Limits { relay_bytes: at_once(2 * DATA.len() as u64), ..Limits::default() });
    let path = &fixture.paths[0];
    for (index, _) in counted(&fixture, path) {
        fixture.bench.limit(index, at_once(50), at_once(5000));
    }
    assert_eq!(fixture.until(path, DATA, Verdict::RelayBitRate)?, 2);
    Ok(())
}

#[test]
fn whoever_gets_the_index_next_has_no_limit() -> Result<()> {
    let Some(fixture) = Fixture::of_media_or_skip()? else { return Ok(()) };
    for path in fixture.paths.iter().filter(|path| path.carries_data()) {
        for (index, _) in counted(&fixture, path) {
            limit(&fixture, index, Unit::Packets, 1);
            fixture.until(path, DATA, Verdict::AllocationPacketRate)?;
            let AllocationState { announced, installed, .. } = fixture.bench.state(index)?;
            fixture.bench.maps.state.rest(index);
            let state = AllocationState { announced, installed, ..AllocationState::default() };
            assert_eq!(fixture.bench.state(index)?, state, "{}", path.name);
            fixture.sent(&path.name, &path.frame(DATA))?;
        }
    }
    Ok(())
}

#[test]
fn the_general_limit_does_not_hold_while_one_of_its_own_is_exchanged() -> Result<()> {
    const PACKETS: usize = 30_000;
    let Some(fixture) = Fixture::of_media_or_skip()? else { return Ok(()) };
    fixture.bench.set_limits(Limits {
        allocation_packets: at_once(1),
        allocation_bytes: at_once(1),
        ..Limits::default()
    });
    let path = &fixture.paths[0];
    let (packet, program) = (path.frame(DATA).bytes(), fixture.bench.program.fd()?);
    let [(index, _)] = counted(&fixture, path)[..] else { panic!("{}: two count", path.name) };
    // Each has room for all of them; half of one and half of another would not.
    let wide = [(1 << 20, 1 << 60), (1 << 38, 1 << 62), (1, 1 << 40)].map(|(cost, burst)| Limit { cost, burst });
    fixture.bench.limit(index, wide[0], wide[0]);
    let lost = thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let runs = (0..PACKETS).map(|_| sys::time_run(program, &packet).expect("the program runs"));
            runs.filter(|(_, verdict)| *verdict != TRANSMITTED).count()
        });
        while !sender.is_finished() {
            for limit in wide {
                fixture.bench.limit(index, limit, limit);
            }
        }
        sender.join().expect("a count")
    });
    assert_eq!(lost, 0, "of {PACKETS}");
    Ok(())
}
