//! The client against coturn, a server that shares nothing with this project.

mod datagrams;
mod server;
mod streams;
