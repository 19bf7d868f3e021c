//! Looks up what a relation message does not say: the definitions of unknown types, and a table's current name.

use crate::source::Emitter;
use crate::source::postgres::error::Error;
use crate::source::postgres::flow::Flow;
use crate::source::postgres::options::Options;
use crate::source::postgres::pgoutput::Relation;
use crate::source::postgres::session::{Mode, Session};
use crate::source::postgres::tables;
use crate::source::postgres::token::Token;
use crate::source::postgres::types::Types;
use std::pin::Pin;

/// The session, the types known to it, and the table's schema and name.
type Found = (Session, Types, Option<(String, String)>);
type Running = Pin<Box<dyn Future<Output = Result<Found, Error>> + Send>>;

pub(super) struct Lookup {
    options: Options,
    /// Opened for the first lookup, and kept.
    session: Option<Session>,
    /// A lookup in progress. If a call is cancelled, the next one continues it, however slow the server is.
    running: Option<Running>,
}

impl Lookup {
    pub(super) const fn new(options: Options) -> Self {
        Self { options, session: None, running: None }
    }

    /// Prepares `flow` for the rows of a relation. Cancel safe.
    pub(super) async fn learn(
        &mut self,
        relation: &Relation<'_>,
        flow: &mut Flow,
        types: &mut Types,
        out: &Emitter<'_, Token>,
    ) -> Result<(), Error> {
        let unknown = flow.unknown_types(relation, types);
        let is_renamed = flow.is_renamed(relation);
        let mut name = None;
        if !unknown.is_empty() || is_renamed {
            name = self.look_up(types, unknown, is_renamed.then_some(relation.id)).await?;
        }
        flow.check_name(relation, name)?;
        flow.learn(relation, types, out).await
    }

    /// Adds the definitions of `unknown` to `types`; returns the current name of the table with the OID `renamed`.
    async fn look_up(&mut self, types: &mut Types, unknown: Vec<u32>, renamed: Option<u32>) -> Result<Option<(String, String)>, Error> {
        let (options, session) = (&self.options, &mut self.session);
        let running =
            self.running.get_or_insert_with(|| Box::pin(look_up(options.clone(), session.take(), std::mem::take(types), unknown, renamed)));
        let found = running.as_mut().await;
        self.running = None;
        let (session, learnt, name) = found?;
        self.session = Some(session);
        *types = learnt;
        Ok(name)
    }
}

async fn look_up(
    options: Options,
    session: Option<Session>,
    mut types: Types,
    unknown: Vec<u32>,
    renamed: Option<u32>,
) -> Result<Found, Error> {
    let mut session = match session {
        Some(session) => session,
        None => Session::open(&options, Mode::Ordinary).await?,
    };
    types.learn(&unknown, &mut session).await?;
    let name = match renamed {
        Some(oid) => tables::name_of(oid, &mut session).await?,
        None => None,
    };
    Ok((session, types, name))
}
