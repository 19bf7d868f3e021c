//! Settings of every session. They keep the settings of the server and the user from changing what feedline sees, how values are printed,
//! and how long statements may take.

use crate::source::mysql::version::Product;

/// What both products know.
const ALWAYS: &str = "SET NAMES utf8mb4, SESSION time_zone = '+00:00', SESSION sql_mode = '', SESSION autocommit = 1, \
    SESSION lock_wait_timeout = 1, SESSION innodb_lock_wait_timeout = 1, SESSION wait_timeout = 28800, SESSION net_write_timeout = 600, \
    SESSION sql_quote_show_create = 1";

/// The statements that apply the settings.
pub(super) const fn of(product: Product) -> [&'static str; 2] {
    match product {
        // Before 11.1 the isolation has the name that it had in MySQL 5.7.
        Product::MariaDb => [ALWAYS, "SET SESSION tx_isolation = 'REPEATABLE-READ', SESSION max_statement_time = 0"],
        Product::MySql => [ALWAYS, "SET SESSION transaction_isolation = 'REPEATABLE-READ', SESSION max_execution_time = 0"],
    }
}
