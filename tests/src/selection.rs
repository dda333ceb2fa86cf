//! What both benchmarks of the XDP program are asked for.

use clap::Args;

/// Which rows a benchmark measures, and how it prints them.
#[derive(Clone, Debug, Args)]
pub struct Selection {
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
    /// Measure only what has this in its name.
    #[arg(long, value_name = "NAME", default_value = "")]
    pub only: String,
    /// Measure with so many flows; may be repeated.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub flows: Vec<u32>,
}

impl Selection {
    /// How many flows to measure with; `usual` unless something else was asked for.
    pub fn flows(&self, usual: &[u32]) -> Vec<u32> {
        if self.flows.is_empty() { usual.to_vec() } else { self.flows.clone() }
    }
}
