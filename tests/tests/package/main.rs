//! What a host gets that installs Hairpin: a service that speaks with its manager, units, a manual, completions, and a
//! package of Debian's kind, tried in a clean root. Root is needed.

mod activation;
mod completions;
mod debian;
mod host;
mod manual;
mod notify;
mod supervisor;
mod thread;
mod units;
