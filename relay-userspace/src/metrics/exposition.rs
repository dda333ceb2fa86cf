//! Prometheus' text format, version 0.0.4: each family's HELP and TYPE, then all its samples.
//!
//! The exporter's library says how a line looks. Its registry is not used: a page is made anew for each scrape, so that what is
//! gone (a certificate, a relay address) shows no more, and what the shards have counted is written as it is, histograms
//! included, which the registry takes by single observations only.

use std::fmt::Display;

use indexmap::IndexMap;
use metrics::{Key, Label};
use metrics_exporter_prometheus::LabelSet;
use metrics_exporter_prometheus::formatting::{write_help_line, write_metric_line, write_type_line};

use super::family::{Family, Kind};
use crate::shard::Histogram;

/// The samples of one scrape.
pub(super) struct Page {
    /// The lines of each family, in the order of [`Family::ALL`].
    samples: Vec<String>,
}

impl Page {
    pub(super) fn new() -> Self {
        Self { samples: vec![String::new(); Family::ALL.len()] }
    }

    /// Adds a sample. `labels` are the values of [`Family::labels`], in their order.
    pub(super) fn put(&mut self, family: Family, labels: &[&str], value: impl Display) {
        self.line(family, None, labels, None, value);
    }

    /// Adds a histogram.
    pub(super) fn put_histogram(&mut self, family: Family, labels: &[&str], histogram: &Histogram) {
        debug_assert_eq!(family.kind(), Kind::Histogram);
        for (end, count) in histogram.cumulative() {
            let end = if end.is_infinite() { "+Inf".to_owned() } else { end.to_string() };
            self.line(family, Some("bucket"), labels, Some(&end), count);
        }
        self.line(family, Some("sum"), labels, None, histogram.sum());
        self.line(family, Some("count"), labels, None, histogram.count());
    }

    /// The whole page. A family without a sample is left out.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for (family, samples) in Family::ALL.iter().zip(&self.samples).filter(|(_, samples)| !samples.is_empty()) {
            let name = family.name();
            write_help_line(&mut text, name, None, None, family.help());
            write_type_line(&mut text, name, None, None, family.kind().label());
            text.push_str(samples);
        }
        text
    }

    fn line(
        &mut self,
        family: Family,
        suffix: Option<&'static str>,
        values: &[&str],
        bucket: Option<&str>,
        value: impl Display,
    ) {
        debug_assert_eq!(family.labels().len(), values.len(), "{}", family.name());
        let pairs = family.labels().iter().zip(values);
        let labels: Vec<_> = pairs.map(|(label, value)| Label::new(*label, (*value).to_owned())).collect();
        let labels = LabelSet::from_key_and_global(&Key::from_parts(family.name(), labels), &IndexMap::new());
        let bucket = bucket.map(|end| ("le", end));
        let lines = &mut self.samples[family as usize];
        write_metric_line(lines, family.name(), suffix, &labels, bucket, value, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_explained_once_and_has_all_its_samples_behind_that() {
        let mut page = Page::new();
        page.put(Family::RelayedPackets, &["kernel", "to_peer"], 5_u64);
        page.put(Family::Shards, &[], 4);
        page.put(Family::RelayedPackets, &["userspace", "to_peer"], u64::MAX);
        let name = Family::RelayedPackets.name();
        let text = page.text();
        let expected = format!(
            "# TYPE {name} counter\n{name}{{path=\"kernel\",direction=\"to_peer\"}} 5\n\
             {name}{{path=\"userspace\",direction=\"to_peer\"}} 18446744073709551615\n"
        );
        assert!(text.contains(&expected), "{text}");
        assert_eq!(text.matches("# HELP").count(), 2, "{text}");
    }

    #[test]
    fn a_histogram_has_every_bucket_a_sum_and_a_count() {
        let mut histogram = Histogram::new(&[0.1, 2.5]);
        for value in [0.05, 1.0, 9.0] {
            histogram.record(value);
        }
        let mut page = Page::new();
        page.put_histogram(Family::HandshakeSeconds, &["tls"], &histogram);
        let lines = "hairpin_handshake_seconds_bucket{transport=\"tls\",le=\"0.1\"} 1\n\
                     hairpin_handshake_seconds_bucket{transport=\"tls\",le=\"2.5\"} 2\n\
                     hairpin_handshake_seconds_bucket{transport=\"tls\",le=\"+Inf\"} 3\n\
                     hairpin_handshake_seconds_sum{transport=\"tls\"} 10.05\n\
                     hairpin_handshake_seconds_count{transport=\"tls\"} 3\n";
        assert!(
            page.text().ends_with(&format!("# TYPE hairpin_handshake_seconds histogram\n{lines}")),
            "{}",
            page.text()
        );
    }

    #[test]
    fn a_label_may_hold_anything() {
        let mut page = Page::new();
        page.put(Family::CertificateExpiry, &["a \"b\"\\c\nd"], 1);
        assert!(page.text().contains("{file=\"a \\\"b\\\"\\\\c\\nd\"} 1\n"), "{}", page.text());
    }
}
