//! `feedline checkpoint show`.

use super::stored::{say_error, say_none};
use crate::assemble::store::Store;
use crate::checkpoint::{Checkpoint, FeedState};
use crate::command::configured::Configured;
use crate::command::process::print;
use crate::config::Plan;
use crate::fault::Exit;
use clap::Args;
use std::fmt::Write as _;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(super) configured: Configured,
    /// Print the whole checkpoint, as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn show(arguments: &Arguments, plan: &Plan) -> Exit {
    let checkpoint = match Store::inspect(plan).await {
        Ok(Some(checkpoint)) => checkpoint,
        Ok(None) => return say_none(plan),
        Err(error) => return say_error(&error),
    };
    if arguments.json {
        let text = serde_json::to_string_pretty(&checkpoint).expect("a checkpoint has string keys, and only numbers that JSON has");
        return print(&(text + "\n"));
    }
    print(&to_text(&checkpoint))
}

fn to_text(checkpoint: &Checkpoint) -> String {
    let mut out = format!("pipeline   {} ({})\n", checkpoint.name, checkpoint.instance);
    let token = checkpoint.token.as_ref().map_or("nothing has been read yet", |token| &token.0);
    writeln!(out, "token      {token}").expect("a string takes all");
    for (feed, state) in &checkpoint.feeds {
        let state = match state {
            FeedState::Pending => "rows are not read yet".to_owned(),
            FeedState::Loading { after: None, .. } => "file is not read yet".to_owned(),
            FeedState::Loading { after: Some(after), .. } => format!("file is being read, after {}", after.0),
            FeedState::Again { .. } => "rows will be read again".to_owned(),
            FeedState::Reading { after: None, .. } => "rows are being read".to_owned(),
            FeedState::Reading { after: Some(after), .. } => format!("rows are being read, after {}", after.0),
            FeedState::Live { .. } => "live".to_owned(),
        };
        writeln!(out, "feed       {feed}: {state}").expect("a string takes all");
    }
    let restarts: Vec<_> = checkpoint.restarts.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    writeln!(out, "restarts   {}", restarts.join(", ")).expect("a string takes all");
    writeln!(out, "last exit  {:?}", checkpoint.last_exit).expect("a string takes all");
    out
}
