//! The whole world on the bench: what most tests of single packets start with.

use anyhow::{Result, bail, ensure};
use hairpin_common::{limit::Limit, maps::NextHop, verdict::Verdict};

use super::{
    bench::{Bench, INTERFACE, NEXT_HOP, Outcome, Run},
    frame::{Frame, hex},
    media::{media_world, media_world_behind_nat},
    model::Judgement,
    setup::Setup,
    world::{Path, world, world_behind_nat},
};

/// Application data of a good packet.
pub const DATA: &[u8] = b"some audio";

/// A limit that lets this many units pass, and then none for as long as a test takes.
pub fn at_once(units: u64) -> Limit {
    // Each moves the meter by a minute. One more than the burst holds passes, since it is due when the meter is at rest.
    const MINUTE: u64 = 60_000_000_000;
    Limit { cost: MINUTE << 16, burst: MINUTE * (units - 1) + MINUTE / 2 }
}

/// A bench on which the [`world`] is installed.
pub struct Fixture {
    /// The program.
    pub bench: Bench,
    /// What is installed.
    pub setup: Setup,
    /// The ways through it.
    pub paths: Vec<Path>,
}

impl Fixture {
    /// A new one, or `None` where [`Bench::or_skip`] says so.
    pub fn or_skip() -> Result<Option<Self>> {
        Self::of_world(world())
    }

    /// The same behind a NAT.
    pub fn behind_nat_or_skip() -> Result<Option<Self>> {
        Self::of_world(world_behind_nat())
    }

    /// A bench on which the [`media_world`] is installed.
    pub fn of_media_or_skip() -> Result<Option<Self>> {
        Self::of_world(media_world())
    }

    /// The same behind a NAT.
    pub fn of_media_behind_nat_or_skip() -> Result<Option<Self>> {
        Self::of_world(media_world_behind_nat())
    }

    fn of_world((setup, paths): (Setup, Vec<Path>)) -> Result<Option<Self>> {
        let Some(mut bench) = Bench::or_skip() else { return Ok(None) };
        bench.install(&setup)?;
        Ok(Some(Self { bench, setup, paths }))
    }

    /// Runs a test for each path, those of media and those behind a NAT included, with a good packet of it.
    pub fn each(mut test: impl FnMut(&mut Self, &Path, Frame) -> Result<()>) -> Result<()> {
        let fixtures =
            [Self::or_skip, Self::behind_nat_or_skip, Self::of_media_or_skip, Self::of_media_behind_nat_or_skip];
        for fixture in fixtures {
            let Some(mut fixture) = fixture()? else { return Ok(()) };
            for path in fixture.paths.clone() {
                let packet = path.frame(DATA);
                test(&mut fixture, &path, packet)?;
            }
        }
        Ok(())
    }

    /// Runs a test for each path that carries data.
    pub fn each_with_data(mut test: impl FnMut(&mut Self, &Path, Frame) -> Result<()>) -> Result<()> {
        Self::each(|fixture, path, packet| if path.carries_data() { test(fixture, path, packet) } else { Ok(()) })
    }

    /// Fails unless a packet is sent, as the model says.
    pub fn sent(&self, what: &str, packet: &Frame) -> Result<Run> {
        let packet = packet.bytes();
        let judgement = self.setup.judge(INTERFACE, &packet);
        let sent = matches!(judgement, Judgement::Sent(_));
        ensure!(sent, "{what}: the model does not send it: {judgement:?}{}", hex(&packet));
        self.bench.expect(what, &self.setup, &packet)
    }

    /// Fails unless a packet is refused with this verdict, which the model must agree to.
    pub fn refused(&self, what: &str, packet: &[u8], verdict: Verdict) -> Result<()> {
        let judgement = self.setup.judge(INTERFACE, packet);
        let agreed = matches!(&judgement, Judgement::Refused(verdicts) if verdicts.contains(&verdict));
        ensure!(agreed, "{what}: the model does not see {verdict:?}, but {judgement:?}{}", hex(packet));
        self.bench.expect_refused(what, packet, verdict)
    }

    /// Sends a path's packet until a limit drops it with this verdict; how many came through.
    pub fn until(&self, path: &Path, data: &[u8], verdict: Verdict) -> Result<u32> {
        let packet = path.frame(data).bytes();
        for passed in 0..100 {
            let Run { outcome, counted, packet } = self.bench.run(&packet)?;
            if outcome == Outcome::Dropped {
                let as_it_is =
                    matches!(counted[..], [(found, count)] if found == verdict && count.bytes > data.len() as u64);
                ensure!(as_it_is, "{}: dropped as {counted:?}, not {verdict:?}", path.name);
                return Ok(passed);
            }
            ensure!(outcome == Outcome::Transmitted, "{}: {counted:?}{}", path.name, hex(&packet));
        }
        bail!("{}: no end", path.name)
    }

    /// Changes the one next hop of the world; `None` is how it was.
    pub fn set_next_hop(&mut self, next_hop: Option<NextHop>) -> Result<()> {
        self.setup.next_hops.insert(1, next_hop.unwrap_or(NEXT_HOP));
        self.bench.install_links(&self.setup)
    }

    /// Changes what one allocation has, in the setup and in the kernel.
    pub fn change(&mut self, allocation: usize, change: impl FnOnce(&mut super::setup::Allocation)) -> Result<()> {
        for (key, _) in self.setup.records_of(&self.setup.allocations[allocation]) {
            self.bench.remove(&key)?;
        }
        change(&mut self.setup.allocations[allocation]);
        let allocation = &self.setup.allocations[allocation];
        for (key, record) in self.setup.records_of(allocation) {
            self.bench.insert(key, record)?;
        }
        self.bench.complete(allocation)
    }
}
