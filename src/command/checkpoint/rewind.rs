//! `feedline checkpoint rewind`.

use super::stored::{open, say_error};
use super::token;
use crate::checkpoint::{Checkpoint, CheckpointStore as _, FeedName, FeedState, ResumeToken};
use crate::command::configured::Configured;
use crate::command::process::say;
use crate::config::Plan;
use crate::fault::Exit;
use crate::feed::pattern::TablePattern;
use clap::Args;
use std::collections::BTreeSet;

#[derive(Debug, Args)]
#[group(id = "what", required = true, multiple = true, args = ["feed", "all", "token"])]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(super) configured: Configured,
    /// Publish the rows of this table again: a name that `checkpoint show` prints, or a pattern such as `public.order_*` (repeatable)
    #[arg(long)]
    feed: Vec<String>,
    /// Publish the rows of every table again
    #[arg(long, conflicts_with = "feed")]
    all: bool,
    /// Resume from this log position, as `checkpoint show` prints it
    #[arg(long)]
    token: Option<String>,
    /// Allow a token later than the checkpoint's: the changes in between are never published
    #[arg(long)]
    yes: bool,
}

/// A change of the checkpoint's token.
struct TokenMove {
    from: ResumeToken,
    to: ResumeToken,
    skips: bool,
}

pub(super) async fn rewind(arguments: &Arguments, plan: &Plan) -> Exit {
    let (mut store, mut checkpoint) = match open(plan).await {
        Ok(opened) => opened,
        Err(exit) => return exit,
    };
    let feeds = match chosen_feeds(arguments, &checkpoint, &plan.pipeline.default_schema) {
        Ok(feeds) => feeds,
        Err(message) => {
            say(&message);
            return Exit::Configuration;
        }
    };
    for feed in &feeds {
        let state = checkpoint.feeds.get_mut(feed).expect("chosen among these feeds");
        // Rows that were sent may have been deleted since: a reset comes first.
        if state.may_have_sent() {
            *state = FeedState::Again { start: state.since().cloned(), reset: true };
        }
    }
    let moved = match &arguments.token {
        Some(token) => match move_token(token, arguments.yes, &mut checkpoint, plan).await {
            Ok(moved) => Some(moved),
            Err(exit) => return exit,
        },
        None => None,
    };
    if let Err(error) = store.save(&checkpoint).await {
        return say_error(&error);
    }
    log_changes(&plan.pipeline.name, &feeds, moved.as_ref());
    Exit::Clean
}

/// Puts another token into the checkpoint. A token that skips changes needs `is_allowed_to_skip`.
async fn move_token(token: &str, is_allowed_to_skip: bool, checkpoint: &mut Checkpoint, plan: &Plan) -> Result<TokenMove, Exit> {
    let to = ResumeToken(token.into());
    let Some(from) = checkpoint.token.replace(to.clone()) else {
        say("nothing has been read yet: there is no token to replace\n");
        return Err(Exit::Configuration);
    };
    let skips = match token::skips(plan, &from, &to).await {
        Ok(skips) => skips,
        Err(failure) => {
            say(&format!("{failure}\n"));
            return Err(Exit::Configuration);
        }
    };
    if skips && !is_allowed_to_skip {
        say(&format!(
            "{} is later than the checkpoint's token {}, or cannot be compared with it: changes in between would never be published.\n\
             Add `--yes` to skip them.\n",
            to.0, from.0
        ));
        return Err(Exit::Configuration);
    }
    // Both times are unknown at another log position.
    (checkpoint.committed_at, checkpoint.caught_up_at) = (None, None);
    Ok(TokenMove { from, to, skips })
}

fn log_changes(pipeline: &str, feeds: &BTreeSet<FeedName>, moved: Option<&TokenMove>) {
    for feed in feeds {
        tracing::warn!(pipeline, feed = &**feed, "checkpoint rewound: the next start publishes the rows of this feed again");
    }
    match moved {
        Some(TokenMove { from, to, skips: true }) => tracing::warn!(
            pipeline,
            from = &*from.0,
            to = &*to.0,
            "checkpoint moved forward: changes between the two tokens are skipped, and never published"
        ),
        Some(TokenMove { from, to, skips: false }) => tracing::warn!(
            pipeline,
            from = &*from.0,
            to = &*to.0,
            "checkpoint rewound: the next start publishes the changes between the two tokens again"
        ),
        None => {}
    }
}

/// The feeds whose rows are to be published again.
fn chosen_feeds(arguments: &Arguments, checkpoint: &Checkpoint, default_schema: &str) -> Result<BTreeSet<FeedName>, String> {
    if arguments.all {
        return Ok(checkpoint.feeds.keys().cloned().collect());
    }
    let mut chosen = BTreeSet::new();
    for name in &arguments.feed {
        if checkpoint.feeds.contains_key(name.as_str()) {
            chosen.insert(name.as_str().into());
            continue;
        }
        let pattern = TablePattern::parse(name).map_err(|error| format!("--feed: {error}\n"))?;
        let matching: Vec<_> = checkpoint.feeds.keys().filter(|feed| pattern.matches_name(feed, default_schema)).cloned().collect();
        if matching.is_empty() {
            let known: Vec<_> = checkpoint.feeds.keys().map(|feed| &**feed).collect();
            return Err(format!("the checkpoint has no feed `{name}`; it has {}\n", known.join(", ")));
        }
        chosen.extend(matching);
    }
    Ok(chosen)
}
