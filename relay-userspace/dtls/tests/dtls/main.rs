//! DTLS sessions in memory over a network that loses, repeats and reorders, and against OpenSSL's own tool.

mod certificates;
mod cookies;
mod data;
mod handshake;
mod network;
mod openssl_tool;
mod pki;
