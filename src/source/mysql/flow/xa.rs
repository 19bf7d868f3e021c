//! XA transactions: their rows are passed over, and given once the transaction is committed, from the log opened a second time.

use super::transaction::Stage;
use super::{Applied, Flow, Replayed};
use crate::source::Emitter;
use crate::source::mysql::binlog::{Message, XaPrepare};
use crate::source::mysql::error::Error;
use crate::source::mysql::token::{LogFile, Token};
use crate::source::mysql::xa::XaId;

impl Flow {
    /// Ends an XA transaction, by its preparation or at once.
    pub(super) fn end_xa(&mut self, prepare: &XaPrepare<'_>, out: &mut Emitter<'_, Token>) -> Result<Applied, Error> {
        let transaction = self.transaction.as_ref().ok_or(Error::Protocol { what: "a transaction before its end" })?;
        let place = transaction.place;
        self.refuse_end_of_cut_off()?;
        match (prepare.is_one_phase, transaction.stage) {
            (true, Stage::Xa) => return Ok(Applied::Replay(place.file, place.offset)),
            (false, Stage::Xa) => self.prepared.add(XaId::of(prepare), place.file, place.offset),
            _ => {}
        }
        self.end(out)?;
        Ok(Applied::Whole)
    }

    /// Commits an XA transaction that was prepared, once its rows were given.
    pub(super) fn commit_xa(&mut self, id: Option<XaId>, out: &mut Emitter<'_, Token>) -> Result<Applied, Error> {
        let id = id.ok_or(Error::Protocol { what: "the identifier of an XA transaction" })?;
        if self.transaction.as_ref().is_some_and(|transaction| transaction.stage != Stage::Replayed) {
            return match self.prepared.get(id) {
                Some(Some((file, offset))) => Ok(Applied::Replay(file, offset)),
                Some(None) => Err(self.lost("an XA transaction was prepared on another server, before a failover", out)),
                None => Err(self.lost("an XA transaction was committed that was prepared before feedline began to read (end such transactions before a first start)", out)),
            };
        }
        self.prepared.remove(id);
        self.end(out)?;
        Ok(Applied::Whole)
    }

    /// The file with this number.
    pub(in crate::source::mysql) fn file(&self, number: u32) -> LogFile {
        LogFile { number, ..self.cursor.boundary().0.clone() }
    }

    /// The rows of an XA transaction come next, by [`Self::replay`].
    pub(in crate::source::mysql) const fn begin_replay(&mut self) {
        if let Some(transaction) = &mut self.transaction {
            transaction.begin_replay();
        }
    }

    /// Applies an event of the XA transaction that is committed. Cancel safe as [`Self::apply`].
    pub(in crate::source::mysql) async fn replay(
        &mut self,
        message: &Message<'_>,
        out: &mut Emitter<'_, Token>,
    ) -> Result<Replayed, Error> {
        let transaction = self.transaction.as_mut().ok_or(Error::Protocol { what: "the commit of an XA transaction" })?;
        let Stage::Replay { has_begun } = &mut transaction.stage else { return Ok(Replayed::End) };
        match message {
            Message::MariaGtid(_) | Message::MySqlGtid(_) if !*has_begun => *has_begun = true,
            Message::TableMap(map) if *has_begun => self.definitions.learn(map, out).await?,
            Message::Rows(rows) if *has_begun => {
                return Ok(if self.rows(rows, out)? == Applied::Whole { Replayed::Whole } else { Replayed::Part });
            }
            Message::MariaGtid(_) | Message::MySqlGtid(_) | Message::XaPrepare(_) if *has_begun => {
                transaction.stage = Stage::Replayed;
                return Ok(Replayed::End);
            }
            _ => {}
        }
        Ok(Replayed::Whole)
    }
}
