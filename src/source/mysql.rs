//! The MySQL and MariaDB source.
//!
//! | question | file |
//! |---|---|
//! | what do the bytes of the log say? | `binlog.rs` |
//! | how does a row become cells? | `row.rs`, `kind.rs`, `charset.rs` |

pub mod binlog;
pub mod charset;
pub mod kind;
pub mod row;
