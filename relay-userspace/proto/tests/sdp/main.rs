//! Session descriptions as the agents of the field write them: what is read of each, what becomes of each, and what is
//! refused.

mod properties;
mod reading;
mod refusals;
mod rewriting;
mod samples;
