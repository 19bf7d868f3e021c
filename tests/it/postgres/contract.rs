//! The contract of a source, tested with PostgreSQL.

use super::world::World;
use crate::contract_source::Workload;
use feedline::source::postgres::Connector;

struct Database(World);

impl Database {
    fn new() -> Self {
        Self(World::new("", Vec::new()))
    }
}

impl Workload for Database {
    type Connector = Connector;
    const SCHEMA: &'static str = "public";

    fn connector(&self) -> Connector {
        self.0.connector()
    }

    fn run(&mut self, statements: &[&str]) {
        self.0.sql(&statements.join(";\n"));
    }
}

crate::contract_source::suite!(Database::new());
