//! The format of a plan's events.

use crate::config::Plan;
use crate::config::plan::SourcePlan;
use crate::format::{Envelope, Format};
use std::sync::Arc;

/// The configured format, with what is the same in all events of the pipeline.
pub(super) fn format(plan: &Plan) -> Format {
    let database = match &plan.source {
        SourcePlan::Sqlite { path } => path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into(),
        SourcePlan::Postgres(server) => server.database.as_str().into(),
    };
    let envelope = Envelope { name: Arc::clone(&plan.name), backend: plan.source.kind(), database, tombstones: plan.sink.tombstones() };
    Format::Json(Arc::new(envelope))
}
