//! Sessions of two legs, driven through their public interface with a clock and randomness of the test's own.

mod agent;
mod answers;
mod candidates;
mod consent;
mod creating;
mod demultiplexing;
mod ending;
mod families;
mod flows;
mod harness;
mod invariants;
mod latching;
mod later_offers;
mod lite;
mod model;
mod moves;
mod nomination;
mod offers;
mod operator;
mod plain;
mod refusals;
mod restart;
mod told;
