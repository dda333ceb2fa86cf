//! Who may relay: users, secrets, tokens, realms, quotas and reserved addresses, with the real daemon, real databases, and
//! clients that did not agree with it before.

mod bed;
mod outages;
mod quotas;
mod realms;
mod reserved;
mod security;
mod stores;
mod talk;
mod user_files;
mod webhook;
