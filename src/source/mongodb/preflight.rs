//! What a start would find wrong.

use super::action::Action;
use super::bson::Writer;
use super::catalogue::{self, Collection};
use super::change_stream;
use super::document::KEY;
use super::error::Error;
use super::filter;
use super::options::{Image, Options};
use super::session::Session;
use super::snapshot;
use super::token::Token;
use crate::fault::Code;
use crate::feed::{Feed, Feeds};
use crate::preflight::{Findings, Warning, named};

/// Looks at the cluster and at the feeds' collections.
pub(super) async fn preflight(
    options: &Options,
    feeds: &Feeds,
    session: &mut Session,
    errors: &mut Vec<Error>,
    findings: &mut Findings,
) -> Result<(), Error> {
    let collections = catalogue::collections(session).await?;
    let mut partial = Vec::new();
    for feed in feeds.iter() {
        let found = collections.iter().find(|collection| *collection.name == *feed.table);
        errors.extend(check(options, feed, found));
        if found.is_some_and(|collection| !collection.stores_images) && options.full_document == Image::WhenAvailable {
            partial.push(feed.name.to_string());
        }
        errors.extend(filter::of(feed).err());
    }
    if !partial.is_empty() {
        findings.warnings.push(Warning {
            code: Code::MongoDbPartial,
            message: format!(
                "updates of {} tell only what changed: the collections store no images; run db.runCommand({{collMod: NAME, \
                 changeStreamPreAndPostImages: {{enabled: true}}}})",
                named(partial)
            ),
        });
    }
    let at = snapshot::time(session, feeds).await?;
    let opened = change_stream::open_cursor(session, options, feeds, &Token::at(0, at + 1)).await?;
    let kill = Writer::new().text("killCursors", "$cmd.aggregate").array("cursors", [opened.cursor], Writer::long);
    session.run(Action::Watch, kill).await?;
    findings.actions.push(format!("read the change stream of database {}; nothing is changed in it", options.database));
    if !opened.splits_events {
        findings.warnings.push(Warning {
            code: Code::MongoDbLargeEvents,
            message: "this server cannot split events above 16 MiB, at which the change stream ends; upgrade to 6.0.9, 7.0 or later"
                .to_owned(),
        });
    }
    Ok(())
}

/// Why a collection cannot be followed.
fn check(options: &Options, feed: &Feed, found: Option<&Collection>) -> Option<Error> {
    let table = feed.name.to_string();
    let Some(collection) = found else {
        return Some(Error::Unfit { table, reason: "it does not exist; create it, or correct the feed".to_owned() });
    };
    if let Some(reason) = collection.kind.refusal() {
        return Some(Error::Unfit { table, reason: reason.to_owned() });
    }
    if feed.key.len() != 1 || &*feed.key[0] != KEY {
        return Some(Error::Key { table });
    }
    let required = [("full_document", options.full_document), ("pre_images", options.pre_images)];
    let (setting, _) = required.into_iter().find(|(_, image)| *image == Image::Required && !collection.stores_images)?;
    let reason = format!(
        "source.{setting} is \"required\" and it stores no images; run db.runCommand({{collMod: {:?}, changeStreamPreAndPostImages: {{enabled: true}}}})",
        collection.name
    );
    Some(Error::Unfit { table, reason })
}
