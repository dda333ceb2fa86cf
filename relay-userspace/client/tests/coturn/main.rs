//! The client against coturn, a server that shares nothing with this project.

mod connections;
mod datagrams;
mod mobility;
mod server;
mod streams;
mod tokens;
