//! The preflight of a pipeline: one pass over source, sink and checkpoint, in the order of a start. It changes nothing.
//!
//! A start and `feedline check` make the same pass. They differ in what they do with a problem, see [`Observer`].

use super::agreement;
use super::failure::Failure;
use super::settings::Settings;
use crate::checkpoint::{Checkpoint, Identity};
use crate::fault::Classify;
use crate::feed::Feeds;
use crate::feed::resolve::resolve_all;
use crate::preflight::{Findings, Warning};
use crate::sink::SinkConnector;
use crate::source::SourceConnector;
use std::sync::Arc;

/// A part of a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The checkpoint, and whether the configuration fits it.
    Checkpoint,
    /// The source.
    Source,
    /// The sink.
    Sink,
}

/// Decides what follows from what the preflight finds.
pub trait Observer {
    /// Why the preflight was ended.
    type Stop;

    /// Takes problems with which a start fails; at least one.
    ///
    /// # Errors
    /// Ends the preflight. Otherwise it goes on as far as it can.
    fn refuse(&mut self, part: Part, problems: Vec<Failure>) -> Result<(), Self::Stop>;

    /// Takes what a start would do, and the problems that do not stop it.
    fn note(&mut self, part: Part, actions: Vec<String>, warnings: Vec<Warning>);
}

/// The checkpoint before a start.
#[derive(Clone, Copy, Debug)]
pub enum Known<'c> {
    /// There is none.
    Nothing,
    /// This one.
    Checkpoint(&'c Checkpoint),
    /// There is one that cannot be read, or is another pipeline's. Nothing is compared with it.
    Unusable,
}

/// What the preflight has learnt, for the next steps.
#[derive(Debug)]
pub struct Preflight {
    /// The configured feeds whose tables exist. Source and sink have them selected.
    pub feeds: Arc<Feeds>,
    /// The source's identity, if it was asked for: without an identity in the checkpoint.
    pub source: Identity,
    /// Whether the tables of all configured feeds exist.
    pub is_complete: bool,
    /// Whether the source answered.
    pub is_source_reached: bool,
    /// Whether the sink answered, or was not asked.
    pub is_sink_reached: bool,
}

/// Makes the preflight.
///
/// # Errors
/// As the observer decides.
pub async fn preflight<C: SourceConnector, K: SinkConnector, O: Observer>(
    source: &mut C,
    sink: &mut K,
    settings: &Settings,
    mut known: Known<'_>,
    observer: &mut O,
) -> Result<Preflight, O::Stop> {
    if let Known::Checkpoint(checkpoint) = known
        && let Err(error) = agreement::check_name(checkpoint, &settings.name)
    {
        refuse(observer, Part::Checkpoint, &error)?;
        known = Known::Unusable;
    }
    let mut found = inspect_source(source, settings, known, observer).await?;
    sink.select(Arc::clone(&found.feeds));
    let Known::Checkpoint(checkpoint) = known else { return Ok(found) };
    if !settings.accept_config_change
        && let Err(error) = agreement::check_configuration(checkpoint, &settings.configuration, &found.feeds)
    {
        refuse(observer, Part::Checkpoint, &error)?;
    }
    // The identity is empty until the sink was first reached.
    if checkpoint.sink.is_empty() {
        return Ok(found);
    }
    match sink.recognize(&checkpoint.sink).await {
        Ok(now) => {
            if let Err(error) = agreement::check_sink(checkpoint, &now) {
                refuse(observer, Part::Sink, &error)?;
            }
        }
        Err(error) => {
            found.is_sink_reached = false;
            refuse(observer, Part::Sink, &error)?;
        }
    }
    Ok(found)
}

async fn inspect_source<C: SourceConnector, O: Observer>(
    source: &mut C,
    settings: &Settings,
    known: Known<'_>,
    observer: &mut O,
) -> Result<Preflight, O::Stop> {
    let mut found =
        Preflight { feeds: Arc::default(), source: Identity::new(), is_complete: false, is_source_reached: false, is_sink_reached: true };
    let catalogue = match source.catalogue().await {
        Ok(catalogue) => catalogue,
        Err(error) => {
            refuse(observer, Part::Source, &error)?;
            return Ok(found);
        }
    };
    found.is_source_reached = true;
    let recognized = match known {
        Known::Checkpoint(checkpoint) if !checkpoint.source.is_empty() => Some(&checkpoint.source),
        _ => None,
    };
    if let Some(known) = recognized
        && let Err(error) = source.recognize(known).await
    {
        refuse(observer, Part::Source, &error)?;
    }
    let Settings { name, rules, route, default_schema, .. } = settings;
    let (feeds, errors) = resolve_all(name, rules, route, &catalogue, default_schema);
    found.feeds = Arc::new(feeds);
    found.is_complete = errors.is_empty();
    if !errors.is_empty() {
        observer.refuse(Part::Source, errors.iter().map(Failure::of).collect())?;
    }
    source.select(Arc::clone(&found.feeds));
    let is_fit = match source.preflight().await {
        Ok(findings) => note(observer, Part::Source, findings, found.is_complete)?,
        Err(error) => refuse(observer, Part::Source, &error).map(|()| false)?,
    };
    if matches!(known, Known::Nothing)
        && let Err(error) = source.unclaimed().await
    {
        refuse(observer, Part::Source, &error)?;
    }
    // Asking for the identity may need another kind of connection: the one that reads the log.
    if is_fit && recognized.is_none() {
        match source.identity().await {
            Ok(identity) => found.source = identity,
            Err(error) => refuse(observer, Part::Source, &error)?,
        }
    }
    Ok(found)
}

/// Hands findings to the observer; whether a start would not fail with them. Actions for only some of the feeds are not what a start would do.
///
/// # Errors
/// As the observer decides.
pub fn note<O: Observer>(observer: &mut O, part: Part, findings: Findings, is_complete: bool) -> Result<bool, O::Stop> {
    let Findings { actions, refusals, warnings } = findings;
    observer.note(part, if is_complete { actions } else { Vec::new() }, warnings);
    let is_fit = refusals.is_empty();
    if !is_fit {
        observer.refuse(part, refusals.into_iter().map(Failure::of_refusal).collect())?;
    }
    Ok(is_fit)
}

fn refuse<O: Observer>(observer: &mut O, part: Part, error: &impl Classify) -> Result<(), O::Stop> {
    observer.refuse(part, vec![Failure::of(error)])
}
