//! Stores, with real servers and with databases that coturn's `turnadmin` has written.

mod asking;
mod certificates;
mod coturn;
mod directory;
mod failing;
mod fake;
mod http;
mod postgres;
mod redis;
mod sqlite;
mod webhook;
