//! Numbers and texts as people read them.

use crate::api::{Amount, Share};

pub(super) use crate::printable::clean;

/// A duration in seconds: the two largest units.
pub(super) fn age(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m{:02}s", seconds % 60),
        3600..86_400 => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d{:02}h", hours % 24),
    }
}

/// How long ago something was, or how far off it is.
pub(super) fn since(now: u64, then: u64) -> String {
    if then > now { format!("in {}", age(then - now)) } else { format!("{} ago", age(now - then)) }
}

/// What is left until a time.
pub(super) fn until(now: u64, then: u64) -> String {
    age(then.saturating_sub(now))
}

/// Bytes.
pub(super) fn size(bytes: u64) -> String {
    scaled(bytes, &["B", "kB", "MB", "GB", "TB", "PB", "EB"])
}

/// Bits a second of so many bytes in so many seconds.
pub(super) fn bit_rate(bytes: u64, seconds: u64) -> String {
    scaled(bytes.saturating_mul(8) / seconds.max(1), &["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"])
}

/// Packets and their bytes.
pub(super) fn amount(amount: Amount) -> String {
    format!("{} ({} packets)", size(amount.bytes), count(amount.packets))
}

/// A number, with three digits or so.
pub(super) fn count(number: u64) -> String {
    scaled(number, &["", "k", "M", "G", "T", "P", "E"]).replace(' ', "")
}

/// A part of a whole, in percent.
pub(super) fn percent(part: u64, whole: u64) -> String {
    let tenths = u128::from(part) * 1000 / u128::from(whole.max(1));
    match tenths {
        0 if part > 0 => "<0.1%".to_owned(),
        0..100 => format!("{}.{}%", tenths / 10, tenths % 10),
        _ => format!("{}%", tenths / 10),
    }
}

/// A share.
pub(super) fn share(Share { used, of }: Share) -> String {
    format!("{used} of {of}")
}

/// `1 allocation`, `2 allocations`.
pub(super) fn plural(number: u64, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}

/// The name of a user, who may be called nothing: a minted credential needs no name.
pub(super) fn named(user: &str) -> String {
    if user.trim().is_empty() { "(none)".to_owned() } else { user.to_owned() }
}

/// One digit behind the point below ten, none above: as much as matters.
fn scaled(number: u64, units: &[&str]) -> String {
    let (mut power, mut unit) = (1_u64, 0);
    while unit + 1 < units.len() && number / power >= 1000 {
        power *= 1000;
        unit += 1;
    }
    let (whole, tenth) = (number / power, number % power * 10 / power);
    let text = if unit > 0 && whole < 100 {
        format!("{whole}.{tenth} {}", units[unit])
    } else {
        format!("{whole} {}", units[unit])
    };
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m00s"),
            (192, "3m12s"),
            (3599, "59m59s"),
            (3600, "1h00m"),
            (86_399, "23h59m"),
            (86_400, "1d00h"),
            (1_000_000, "11d13h"),
        ] {
            assert_eq!(age(seconds), text);
        }
        assert_eq!(since(100, 40), "1m00s ago");
        assert_eq!(since(40, 100), "in 1m00s");
        assert_eq!(until(100, 40), "0s");
    }

    #[test]
    fn amounts_have_the_digits_that_matter() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (1_234_567, "1.2 MB"),
            (99_999, "99.9 kB"),
            (100_000, "100 kB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(bit_rate(1_250_000, 10), "1.0 Mbit/s");
        assert_eq!(bit_rate(1_250_000, 0), "10.0 Mbit/s");
        assert_eq!(bit_rate(u64::MAX, 1), "18446744 Tbit/s");
        assert_eq!((count(999).as_str(), count(12_345).as_str()), ("999", "12.3k"));
        for (part, whole, text) in
            [(0, 5, "0.0%"), (1, 100_000, "<0.1%"), (1, 100, "1.0%"), (2, 3, "66%"), (0, 0, "0.0%")]
        {
            assert_eq!(percent(part, whole), text);
        }
    }
}
