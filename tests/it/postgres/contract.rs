//! The contract of a source, tested with PostgreSQL.

use super::world::World;
use crate::contract_source::{RowChange, Workload, sql};
use feedline::source::postgres::Connector;

struct Database(World);

impl Database {
    fn new() -> Self {
        Self(World::new("", Vec::new()))
    }
}

impl Workload for Database {
    type Connector = Connector;

    fn schema(&self) -> &'static str {
        "public"
    }

    fn connector(&self) -> Connector {
        self.0.connector()
    }

    fn create(&mut self, table: &str) {
        self.0.sql(&sql::create(table));
    }

    fn write(&mut self, table: &str, transaction: &[RowChange]) {
        self.0.sql(&sql::transaction(table, transaction).join(";\n"));
    }
}

crate::contract_source::suite!(Database::new());
