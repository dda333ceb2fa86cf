//! The manual: README.md, docs, and the README files of deploy. Every command that a page shows is run, in the order of the
//! page, on a host of the page's own (`world`), and every link leads somewhere.
//!
//! What a block of code is says the word behind its fence; `sh` is a command, and the words behind that say how it is run:
//!
//! | fence | |
//! |---|---|
//! | `sh` | runs to its end on the relay's host, from the root of the repository, and must succeed |
//! | `sh client` | the same on a client's host |
//! | `sh relay` | is a relay: takes the place of the one that runs, which is there when the page begins, and runs on |
//! | `sh background` | is another server: opens a port, and runs on until the page ends |
//! | `sh no_run: REASON` | is not run, for one of the reasons in `commands`; its syntax and options are looked at |
//! | `text output` | what the command before it prints; numbers and random words may be others, lines may be left out, and `...` stands for the rest of one |
//! | `text exactly` | what the command before it prints, to the letter |
//! | `toml FILE`, `text FILE` and so on | is written to the file, on the relay's host |
//!
//! Options of hairpin in prose exist, too.

mod commands;
mod links;
mod options;
mod world;
