//! Lab, fixtures, differential, end-to-end and interop tests.

pub mod lab;
pub mod live;
pub mod markdown;
pub mod program;
pub mod selection;
