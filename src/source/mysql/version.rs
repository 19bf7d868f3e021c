//! What differs between MySQL and MariaDB, and between their versions.

use std::fmt;

/// The version of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) product: Product,
    /// Major, minor and patch.
    numbers: (u16, u16, u16),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Product {
    MariaDb,
    /// MySQL, Percona Server and services that are made of them.
    MySql,
}

impl Version {
    /// The oldest versions that log the names of columns (`binlog_row_metadata`).
    pub(super) const OLDEST: [Self; 2] =
        [Self { product: Product::MariaDb, numbers: (10, 5, 0) }, Self { product: Product::MySql, numbers: (8, 0, 1) }];

    /// Reads it from the server's greeting: `8.4.3`, `10.11.6-MariaDB-log`. MariaDB before 11.0 begins with `5.5.5-`, for old replicas.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let product = if text.contains("MariaDB") { Product::MariaDb } else { Product::MySql };
        let text = text.strip_prefix("5.5.5-").filter(|_| product == Product::MariaDb).unwrap_or(text);
        let mut numbers = text.split(['.', '-']).map_while(|number| number.parse().ok());
        Some(Self { product, numbers: (numbers.next()?, numbers.next()?, numbers.next().unwrap_or_default()) })
    }

    pub(super) fn is_mariadb(self) -> bool {
        self.product == Product::MariaDb
    }

    /// Whether its log can be read.
    pub(super) fn is_supported(self) -> bool {
        Self::OLDEST.iter().any(|oldest| oldest.product == self.product && oldest.numbers <= self.numbers)
    }

    /// The table of sessions and what they do. That of MySQL's `information_schema` cannot be read while a statement with certain characters runs
    /// (error 3854), whatever is asked of it.
    pub(super) fn process_list(self) -> &'static str {
        if !self.is_mariadb() && (8, 0, 22) <= self.numbers { "performance_schema.processlist" } else { "information_schema.PROCESSLIST" }
    }

    /// The statement that shows where the log ends.
    pub(super) fn log_status_statement(self) -> &'static str {
        if !self.is_mariadb() && (8, 2, 0) <= self.numbers { "SHOW BINARY LOG STATUS" } else { "SHOW MASTER STATUS" }
    }

    /// The statement that shows whose log MySQL applies, if anybody's.
    pub(super) fn replica_status_statement(self) -> &'static str {
        if (8, 0, 22) <= self.numbers { "SHOW REPLICA STATUS" } else { "SHOW SLAVE STATUS" }
    }

    /// Whether the numbers of collations stand in another table of the catalogue: a collation of MariaDB 10.10 and later may belong to several
    /// character sets, with a number for each.
    pub(super) fn has_collation_numbers_by_charset(self) -> bool {
        self.is_mariadb() && (10, 10, 0) <= self.numbers
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let product = if self.is_mariadb() { "MariaDB" } else { "MySQL" };
        let (major, minor, patch) = self.numbers;
        write!(formatter, "{product} {major}.{minor}.{patch}")
    }
}

#[cfg(test)]
mod tests {
    use super::Version;

    #[test]
    fn a_greeting_names_product_and_version() {
        for (greeting, shown, supported) in [
            ("9.7.4-2", "MySQL 9.7.4", true),
            ("8.0.35-27.1-log", "MySQL 8.0.35", true),
            ("5.7.44", "MySQL 5.7.44", false),
            ("11.4.5-MariaDB-log", "MariaDB 11.4.5", true),
            ("5.5.5-10.11.19-MariaDB-0+deb12u1-log", "MariaDB 10.11.19", true),
            ("5.5.5-10.4.1-MariaDB", "MariaDB 10.4.1", false),
        ] {
            let version = Version::parse(greeting).unwrap();
            assert_eq!((version.to_string().as_str(), version.is_supported()), (shown, supported));
        }
        assert_eq!(Version::parse("nonsense"), None);
    }
}
