//! What operators write: URLs of stores, and files of users.

mod url;
mod users_file;
