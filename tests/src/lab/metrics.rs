//! The Prometheus text format, as far as the relay uses it.

use std::collections::BTreeMap;

/// One scrape.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Its samples, in their order.
    pub samples: Vec<Sample>,
}

/// One line of a scrape.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Name of the family.
    pub name: String,
    /// Labels and their values.
    pub labels: BTreeMap<String, String>,
    /// The value.
    pub value: f64,
}

impl Metrics {
    /// Reads a scrape.
    ///
    /// # Panics
    /// On a line that is neither a comment nor a sample.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let samples = lines.map(|line| Sample::parse(line).unwrap_or_else(|| panic!("not a sample: {line}")));
        Self { samples: samples.collect() }
    }

    /// All samples of a family whose labels include these.
    pub fn of<'a>(&'a self, name: &'a str, labels: &'a [(&'a str, &'a str)]) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| {
            let has = |(name, value): &(&str, &str)| sample.labels.get(*name).is_some_and(|is| is == value);
            sample.name == name && labels.iter().all(has)
        })
    }

    /// Their sum; 0 when there are none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        self.of(name, labels).map(Sample::count).sum()
    }

    /// Packets relayed, by path (`kernel` or `userspace`), both directions.
    pub fn relayed(&self, path: &str) -> u64 {
        self.sum("hairpin_relayed_packets_total", &[("path", path)])
    }

    /// Packets that the kernel path left to the stack for a reason.
    pub fn passed(&self, reason: &str) -> u64 {
        self.sum("hairpin_xdp_passed_packets_total", &[("reason", reason)])
    }

    /// Packets that ended on a path (`kernel` or `userspace`) for a reason.
    pub fn dropped(&self, path: &str, reason: &str) -> u64 {
        self.sum("hairpin_dropped_packets_total", &[("path", path), ("reason", reason)])
    }
}

impl Sample {
    /// The value of what is counted in whole numbers.
    #[allow(clippy::cast_sign_loss, reason = "there are no fewer than none")]
    pub fn count(&self) -> u64 {
        self.value as u64
    }

    fn parse(line: &str) -> Option<Self> {
        let (head, value) = line.rsplit_once(' ')?;
        let value = value.parse().ok()?;
        let Some((name, labels)) = head.split_once('{') else {
            return Some(Self { name: head.to_owned(), labels: BTreeMap::new(), value });
        };
        // No value of ours contains a comma or a quote.
        let labels = labels.strip_suffix('}')?.split(',').filter(|label| !label.is_empty()).map(|label| {
            let (name, value) = label.split_once('=')?;
            Some((name.to_owned(), value.strip_prefix('"')?.strip_suffix('"')?.to_owned()))
        });
        Some(Self { name: name.to_owned(), labels: labels.collect::<Option<_>>()?, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_is_read_and_summed_by_labels() {
        let metrics = Metrics::parse(
            "# HELP a_total What.\n# TYPE a_total counter\na_total{path=\"kernel\",direction=\"to_peer\"} 3\n\
             a_total{path=\"kernel\",direction=\"to_client\"} 4\na_total{path=\"userspace\"} 5\n\nb 1\n",
        );
        assert_eq!(metrics.samples.len(), 4);
        assert_eq!(metrics.sum("a_total", &[]), 12);
        assert_eq!(metrics.sum("a_total", &[("path", "kernel")]), 7);
        assert_eq!(metrics.sum("a_total", &[("path", "kernel"), ("direction", "to_peer")]), 3);
        assert_eq!(metrics.sum("a_total", &[("path", "none")]), 0);
        assert_eq!(metrics.sum("b", &[]), 1);
    }
}
