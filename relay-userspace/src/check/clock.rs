//! The clocks: credentials expire by the wall clock, and every packet is looked at with the other one.

use super::{Finding, Findings, read};
use crate::clock::unix_seconds;

/// 2025: no hairpin is older.
const EARLIEST: u64 = 1_735_689_600;
/// 2100: credentials of today would all have expired.
const LATEST: u64 = 4_102_444_800;

pub(super) fn check() -> Vec<Finding> {
    let source = read::text("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    judge(unix_seconds(), source.as_deref())
}

fn judge(now: u64, source: Option<&str>) -> Vec<Finding> {
    let mut findings = Findings::about("clock");
    if !(EARLIEST..LATEST).contains(&now) {
        findings.warning(
            format!("it is {now} seconds after the beginning of 1970 by this host's clock, which cannot be"),
            "credentials that expire are judged by it: set it, and keep it right with NTP",
        );
    }
    // Those are read from a device, not from the processor.
    if let Some(slow) = source.filter(|source| ["hpet", "acpi_pm", "jiffies"].contains(source)) {
        findings.warning(
            format!("the kernel takes the time from {slow}, which is slow"),
            "a host whose TSC is stable can use it: see `dmesg | grep -i tsc`",
        );
    }
    findings.or_ok("the wall clock can be right")
}

#[cfg(test)]
mod tests {
    use super::super::{Level, expect, levels};
    use super::*;

    #[test]
    fn a_clock_that_cannot_be_right_or_is_slow_is_told() {
        assert_eq!(levels(&judge(EARLIEST, Some("tsc"))), [Level::Ok]);
        expect(&judge(0, None), Level::Warning, "NTP");
        expect(&judge(LATEST, None), Level::Warning, "NTP");
        expect(&judge(EARLIEST, Some("acpi_pm")), Level::Warning, "acpi_pm");
    }
}
