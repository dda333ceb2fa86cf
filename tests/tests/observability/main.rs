//! What operators look at: metrics and their table, rules and alerts for Prometheus, the dashboard. They are compared with each
//! other, and tried with a real Prometheus.

mod dashboard;
mod documents;
mod rules;
mod scraped;
