//! The admin interface of a running relay, and the commands that ask it.

mod access;
mod answers;
mod bed;
mod commands;
mod credentials;
mod document;
mod events;
mod ice;
mod page;
mod patience;
mod socket;
