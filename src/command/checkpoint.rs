//! `feedline checkpoint`.

use super::{Configured, block_on, log, print, say};
use crate::assemble::store::Store;
use crate::assemble::{Visit, visit};
use crate::checkpoint::{Checkpoint, CheckpointStore, FeedName, FeedState, ResumeToken};
use crate::config::Plan;
use crate::fault::{Classify, Exit};
use crate::feed::pattern::TablePattern;
use crate::pipeline::Failure;
use crate::sink::SinkConnector;
use crate::source::SourceConnector;
use crate::status::metrics::Metrics;
use clap::{Args, Subcommand};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Print where the pipeline would resume
    Show(Show),
    /// Publish a table's rows again, or resume from an earlier place in the log
    Rewind(Rewind),
    /// Forget the checkpoint: the next start publishes every row again, and readers begin with empty tables
    Reset(Reset),
    /// Write what `checkpoint show --json` printed where there is no checkpoint yet
    Restore(Restore),
    /// Take the sink that the next start finds for the one that the checkpoint was made with: its cluster was renamed
    AcceptSink(AcceptSink),
}

#[derive(Debug, Args)]
pub(super) struct Show {
    #[command(flatten)]
    configured: Configured,
    /// All of it, as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[group(id = "what", required = true, multiple = true, args = ["feed", "all", "token"])]
pub(super) struct Rewind {
    #[command(flatten)]
    configured: Configured,
    /// A table as `checkpoint show` names it, or a pattern such as `public.order_*`, whose existing rows are published again (repeatable)
    #[arg(long)]
    feed: Vec<String>,
    /// The existing rows of every table are published again
    #[arg(long, conflicts_with = "feed")]
    all: bool,
    /// A place in the source's log, as `checkpoint show` prints it
    #[arg(long)]
    token: Option<String>,
    /// Also where the token is later than the checkpoint's: changes between the two are then never published
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
pub(super) struct Reset {
    #[command(flatten)]
    configured: Configured,
    /// Do it: every row is published again, readers must begin with empty tables, and changes before the next start may be skipped
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
pub(super) struct Restore {
    #[command(flatten)]
    configured: Configured,
    /// The JSON, all of it
    file: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct AcceptSink {
    #[command(flatten)]
    configured: Configured,
}

pub(super) fn run(command: &Command) -> Exit {
    let configured = match command {
        Command::Show(Show { configured, .. })
        | Command::Rewind(Rewind { configured, .. })
        | Command::Reset(Reset { configured, .. })
        | Command::Restore(Restore { configured, .. })
        | Command::AcceptSink(AcceptSink { configured }) => configured,
    };
    let plan = match configured.load() {
        Ok(loaded) => loaded.plan,
        Err(exit) => return exit,
    };
    // What changes a checkpoint is logged as a run is.
    if !matches!(command, Command::Show(_)) {
        log::start(&plan.log);
    }
    match command {
        Command::Show(arguments) => block_on(show(arguments, &plan)),
        Command::Rewind(arguments) => block_on(rewind(arguments, &plan)),
        Command::Reset(arguments) => block_on(reset(arguments, &plan)),
        Command::Restore(arguments) => block_on(restore(arguments, &plan)),
        Command::AcceptSink(_) => block_on(accept_sink(&plan)),
    }
}

fn refuse(error: &impl Classify) -> Exit {
    say(&format!("{} {error}\n", error.code()));
    error.code().exit()
}

fn none(plan: &Plan) -> Exit {
    say(&format!("there is no checkpoint at {}: the next start begins from nothing\n", plan.checkpoint.location()));
    Exit::Configuration
}

async fn show(arguments: &Show, plan: &Plan) -> Exit {
    let checkpoint = match Store::inspect(plan).await {
        Ok(Some(checkpoint)) => checkpoint,
        Ok(None) => return none(plan),
        Err(error) => return refuse(&error),
    };
    if arguments.json {
        let text = serde_json::to_string_pretty(&checkpoint).expect("maps with text for keys, and no number that JSON lacks");
        return print(&(text + "\n"));
    }
    let mut out = format!("pipeline   {} ({})\n", checkpoint.name, checkpoint.instance);
    let token = checkpoint.token.as_ref().map_or("nothing was read yet", |token| &token.0);
    writeln!(out, "token      {token}").expect("a string takes all");
    for (feed, state) in &checkpoint.feeds {
        let state = match state {
            FeedState::Pending => "its rows are still to be read".to_owned(),
            FeedState::Loading { after: None, .. } => "its file is still to be read".to_owned(),
            FeedState::Loading { after: Some(after), .. } => format!("its file is being read, after {}", after.0),
            FeedState::Again { .. } => "its rows are to be read again".to_owned(),
            FeedState::Reading { after: None, .. } => "its rows are being read".to_owned(),
            FeedState::Reading { after: Some(after), .. } => format!("its rows are being read, after {}", after.0),
            FeedState::Live { .. } => "live".to_owned(),
        };
        writeln!(out, "feed       {feed}: {state}").expect("a string takes all");
    }
    let restarts: Vec<_> = checkpoint.restarts.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    writeln!(out, "restarts   {}", restarts.join(", ")).expect("a string takes all");
    writeln!(out, "last exit  {:?}", checkpoint.last_exit).expect("a string takes all");
    print(&out)
}

/// The store, and the checkpoint in it that is to be changed.
async fn open(plan: &Plan) -> Result<(Store, Checkpoint), Exit> {
    let mut store = Store::open(plan).map_err(|error| refuse(&error))?;
    match store.load().await {
        Ok(Some(checkpoint)) => Ok((store, checkpoint)),
        Ok(None) => Err(none(plan)),
        Err(error) => Err(refuse(&error)),
    }
}

async fn rewind(arguments: &Rewind, plan: &Plan) -> Exit {
    let (mut store, mut checkpoint) = match open(plan).await {
        Ok(opened) => opened,
        Err(exit) => return exit,
    };
    let feeds = match chosen(arguments, &checkpoint, plan.source.default_schema()) {
        Ok(feeds) => feeds,
        Err(message) => {
            say(&message);
            return Exit::Configuration;
        }
    };
    for feed in &feeds {
        let state = checkpoint.feeds.get_mut(feed).expect("it was chosen among them");
        // What was read before may hold rows that are gone by now.
        if state.may_have_sent() {
            *state = FeedState::Again { start: state.since().cloned(), reset: true };
        }
    }
    let mut moved = None;
    if let Some(token) = &arguments.token {
        let to = ResumeToken(token.as_str().into());
        let Some(from) = checkpoint.token.replace(to.clone()) else {
            say("nothing was read yet: the next start begins where the log does\n");
            return Exit::Configuration;
        };
        let skips = match visit(plan, &Metrics::new(&plan.name), Move { from: &from, to: &to }).await {
            Ok(skips) => skips,
            Err(failure) => {
                say(&format!("{failure}\n"));
                return Exit::Configuration;
            }
        };
        if skips && !arguments.yes {
            say(&format!(
                "{} is later than {}, where the checkpoint ends, or cannot be compared with it: changes between the two would never be published.\n\
                 Say `--yes` to skip them.\n",
                to.0, from.0
            ));
            return Exit::Configuration;
        }
        // Neither is known of the other place.
        (checkpoint.committed_at, checkpoint.caught_up_at) = (None, None);
        moved = Some((from, to, skips));
    }
    if let Err(error) = store.save(&checkpoint).await {
        return refuse(&error);
    }
    let pipeline = &*plan.name;
    for feed in &feeds {
        tracing::warn!(pipeline, feed = &**feed, "checkpoint rewound: the next start publishes the rows of this feed again");
    }
    match moved {
        Some((from, to, true)) => tracing::warn!(
            pipeline,
            from = &*from.0,
            to = &*to.0,
            "checkpoint moved forward: changes between the two places are skipped, and never published"
        ),
        Some((from, to, false)) => tracing::warn!(
            pipeline,
            from = &*from.0,
            to = &*to.0,
            "checkpoint rewound: the next start publishes again what lies between the two places"
        ),
        None => {}
    }
    Exit::Clean
}

/// The feeds whose rows are to be published again.
fn chosen(arguments: &Rewind, checkpoint: &Checkpoint, default_schema: &str) -> Result<BTreeSet<FeedName>, String> {
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
        let is_meant = |feed: &&FeedName| pattern.matches_name(feed, default_schema);
        let before = chosen.len();
        chosen.extend(checkpoint.feeds.keys().filter(is_meant).cloned());
        if chosen.len() == before && !checkpoint.feeds.keys().any(|feed| is_meant(&feed)) {
            let known: Vec<_> = checkpoint.feeds.keys().map(|feed| &**feed).collect();
            return Err(format!("the checkpoint knows no feed `{name}`; it knows {}\n", known.join(", ")));
        }
    }
    Ok(chosen)
}

/// Whether going on at another place leaves changes out, by the word of the source whose places these are.
struct Move<'t> {
    from: &'t ResumeToken,
    to: &'t ResumeToken,
}

impl Visit for Move<'_> {
    type Output = Result<bool, Failure>;

    async fn visit<C: SourceConnector, K: SinkConnector>(self, source: C, _sink: K) -> Self::Output {
        source.skips(self.from, self.to).map_err(|error| Failure::of(&error))
    }
}

/// What is empty is filled by the next start.
async fn accept_sink(plan: &Plan) -> Exit {
    let (mut store, mut checkpoint) = match open(plan).await {
        Ok(opened) => opened,
        Err(exit) => return exit,
    };
    let before = std::mem::take(&mut checkpoint.sink);
    match store.save(&checkpoint).await {
        Ok(()) => {
            tracing::warn!(pipeline = &*plan.name, sink = ?before, "the sink of the checkpoint is forgotten: the next start takes the one that it finds");
            Exit::Clean
        }
        Err(error) => refuse(&error),
    }
}

/// What follows from beginning anew: no `reset` event goes before the rows, as nothing is known of what readers hold.
const EVERY_ROW_AGAIN: &str = "the next start publishes every row again, and readers must begin with empty tables and topics: of rows that \
     were deleted meanwhile nobody is told, and positions may be lower than those that readers hold";

async fn reset(arguments: &Reset, plan: &Plan) -> Exit {
    if !arguments.yes {
        say(&format!(
            "this forgets {}: {EVERY_ROW_AGAIN}; changes before that may be skipped.\n\
             Say `feedline checkpoint reset --yes`; the source still remembers the pipeline then: `feedline detach --yes` follows.\n",
            plan.checkpoint.location()
        ));
        return Exit::Configuration;
    }
    let mut store = match Store::open(plan) {
        Ok(store) => store,
        Err(error) => return refuse(&error),
    };
    match store.remove().await {
        Ok(true) => {
            tracing::warn!(
                pipeline = &*plan.name, checkpoint = %plan.checkpoint.location(),
                "checkpoint forgotten: {EVERY_ROW_AGAIN}; before the next start, `feedline detach --yes` removes what the source remembers of the pipeline"
            );
            Exit::Clean
        }
        Ok(false) => none(plan),
        Err(error) => refuse(&error),
    }
}

async fn restore(arguments: &Restore, plan: &Plan) -> Exit {
    let file = arguments.file.display();
    let read = std::fs::read(&arguments.file).map_err(|error| error.to_string());
    let checkpoint: Checkpoint = match read.and_then(|bytes| serde_json::from_slice(&bytes).map_err(|error| error.to_string())) {
        Ok(checkpoint) => checkpoint,
        Err(error) => {
            say(&format!("{file}: {error}; expected what `feedline checkpoint show --json` prints\n"));
            return Exit::Configuration;
        }
    };
    if checkpoint.name != *plan.name {
        say(&format!("{file} is the checkpoint of the pipeline {:?}, this one is {:?}\n", checkpoint.name, plan.name));
        return Exit::Configuration;
    }
    if let Some(token) = &checkpoint.token
        && let Err(failure) = visit(plan, &Metrics::new(&plan.name), Move { from: token, to: token }).await
    {
        say(&format!("{file}: {failure}\n"));
        return Exit::Configuration;
    }
    let mut store = match Store::open(plan) {
        Ok(store) => store,
        Err(error) => return refuse(&error),
    };
    match store.load().await {
        Ok(None) => {}
        Ok(Some(_)) => {
            say(&format!(
                "there is a checkpoint at {}, which is not written over: see `feedline checkpoint show`\n",
                plan.checkpoint.location()
            ));
            return Exit::Configuration;
        }
        Err(error) => return refuse(&error),
    }
    match store.save(&checkpoint).await {
        Ok(()) => {
            let token = checkpoint.token.as_ref().map(|token| &*token.0);
            tracing::warn!(pipeline = &*plan.name, token, "checkpoint restored: the next start goes on from it");
            Exit::Clean
        }
        Err(error) => refuse(&error),
    }
}
