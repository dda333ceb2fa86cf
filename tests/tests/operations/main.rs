//! A relay in the hands of its operator: broken on purpose, reloaded and drained under load, with allocations that are
//! closed. What the operator sees of it is asserted, and that nobody else notices.

mod bed;
mod broken;
mod closing;
mod drain;
mod logs;
mod reload;
