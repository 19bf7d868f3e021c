//! Checks whether a binding takes each routing key.

use super::bindings::{Bindings, Taker};
use super::inspection::{ExchangeState, Inspection};
use crate::fault::Code;
use crate::preflight::Warning;
use std::collections::{BTreeMap, BTreeSet};

/// Up to so many routing keys are listed one by one.
const KEYS_LISTED: usize = 6;

impl Inspection<'_> {
    /// Checks whether a binding takes each routing key, as far as the broker shows it.
    pub(super) async fn check_routes(&mut self, exchange: &ExchangeState, dead_letters: Option<&ExchangeState>) {
        let options = self.options;
        // A new exchange has the configured bindings. Those of an existing one are shown only by the management API.
        let shown = match exchange {
            ExchangeState::Absent => Ok(Bindings::default()),
            ExchangeState::Present { .. } | ExchangeState::Unfit => self.bindings_of(&options.exchange).await,
        };
        let mut queues = BTreeSet::new();
        match shown.map(|bindings| bindings.with(&options.queues)) {
            Ok(bindings) => {
                if *exchange != ExchangeState::Unfit {
                    self.report_unrouted(&bindings, *exchange == ExchangeState::Absent);
                }
                queues.extend(bindings.into_queues());
            }
            Err(reason) => self.report_unseen(exchange, &reason),
        }
        if let (Some(name), Some(ExchangeState::Present { .. }), false) = (options.dead_letter.as_deref(), dead_letters, options.declare) {
            match self.bindings_of(name).await {
                Ok(bindings) => {
                    self.report_unbound_dead_letters(&bindings, name);
                    queues.extend(bindings.into_queues());
                }
                Err(reason) => {
                    let message = format!("{reason}; it is unknown whether a queue takes the dead letters of exchange {name:?}");
                    self.warn(Code::BindingsUnseen, message);
                }
            }
        }
        self.check_bound_queues(&queues).await;
    }

    /// The bindings of an existing exchange, or why they are not known.
    async fn bindings_of(&self, exchange: &str) -> Result<Bindings, String> {
        let Some(management) = &self.options.management else {
            return Err("AMQP does not show bindings: set sink.management_url".to_owned());
        };
        let read = Bindings::read(self.options, management, exchange).await;
        read.map_err(|reason| format!("the management API at {} did not show the bindings: {reason}", management.address))
    }

    /// Reports the routing keys that no binding takes.
    fn report_unrouted(&mut self, bindings: &Bindings, is_new: bool) {
        let (exchange, all_keys) = (&self.options.exchange, self.keys.clone());
        let mut by_taker: BTreeMap<Taker, BTreeSet<&str>> = BTreeMap::new();
        for key in &all_keys {
            by_taker.entry(bindings.taker(key)).or_default().insert(key);
        }
        let taken_by = |taker| by_taker.get(&taker).map(|keys| (keys.len(), list_keys(keys)));
        let unbound = |count| format!("exchange {exchange:?} has no binding for {count} routing keys of this pipeline");
        if let Some((count, keys)) = taken_by(Taker::Nobody) {
            let problem = if is_new && self.options.queues.is_empty() {
                format!("exchange {exchange:?} will be made without a queue; configure one in [[sink.queues]]")
            } else {
                format!("{}; bind a queue, for example with the key \"#\"", unbound(count))
            };
            // With dead letters the pipeline does not stop.
            let (severity, consequence) = match self.options.dead_letter {
                Some(_) => (&mut self.findings.warnings, "; until then these events become dead letters"),
                None => (&mut self.findings.refusals, ""),
            };
            severity.push(Warning { code: Code::EventUnroutable, message: format!("{problem}{consequence}; the keys: {keys}") });
        }
        if let (Some((count, keys)), Some(policy)) = (taken_by(Taker::Unknown), &bindings.hidden_policy) {
            let message = format!(
                "{}; an alternate exchange may take them, but user {:?} may not read the policy {policy:?}: give it the tag policymaker; the \
                 keys: {keys}",
                unbound(count),
                self.options.user
            );
            self.warn(Code::BindingsUnseen, message);
        }
        if let (Some((count, keys)), Some(alternate)) = (taken_by(Taker::Alternate), &bindings.alternate) {
            let message = format!(
                "{}; they go to the alternate exchange {alternate:?} and count as delivered if a queue there takes them; bind a queue if readers \
                 need them; the keys: {keys}",
                unbound(count)
            );
            self.warn(Code::EventUnroutable, message);
        }
    }

    /// Reports an exchange of dead letters that has no binding.
    fn report_unbound_dead_letters(&mut self, bindings: &Bindings, exchange: &str) {
        if bindings.is_empty() {
            let message = format!(
                "exchange {exchange:?} of the dead letters has no queue: the first dead letter stops the pipeline; bind a queue, or set sink.declare"
            );
            self.warn(Code::EventUnroutable, message);
        }
    }

    /// Reports the routing keys that the configured bindings do not take, when the existing bindings are not shown.
    fn report_unseen(&mut self, exchange: &ExchangeState, reason: &str) {
        let configured = Bindings::default().with(&self.options.queues);
        let is_unbound = |key: &&str| configured.taker(key) == Taker::Nobody;
        let unbound: BTreeSet<&str> = self.keys.iter().map(|key| &**key).filter(is_unbound).collect();
        if unbound.is_empty() && self.options.declare {
            return;
        }
        let or_alternate = match exchange {
            ExchangeState::Present { alternate: Some(alternate) } => format!(", or one of the alternate exchange {alternate:?}"),
            _ => String::new(),
        };
        let message = format!("{reason}; it is unknown whether a queue takes each event{or_alternate}; the keys: {}", list_keys(&unbound));
        self.warn(Code::BindingsUnseen, message);
    }
}

/// Lists routing keys; many of them in short form: `public.{orders,people}.{delete,update}`.
fn list_keys(keys: &BTreeSet<&str>) -> String {
    if keys.len() <= KEYS_LISTED {
        return keys.iter().copied().collect::<Vec<_>>().join(", ");
    }
    // Tables of the same schema with the same operations share an entry.
    let mut ends: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut whole = Vec::new();
    for key in keys {
        match key.rsplit_once('.') {
            Some((table, operation)) => {
                ends.entry(table).or_default().insert(operation);
            }
            None => whole.push((*key).to_owned()),
        }
    }
    let mut tables: BTreeMap<(&str, BTreeSet<&str>), BTreeSet<&str>> = BTreeMap::new();
    for (table, operations) in ends {
        let (schema, name) = table.rsplit_once('.').unwrap_or(("", table));
        tables.entry((schema, operations)).or_default().insert(name);
    }
    whole.extend(tables.into_iter().map(|((schema, operations), names)| {
        let schema = if schema.is_empty() { String::new() } else { format!("{schema}.") };
        format!("{schema}{}.{}", alternatives(&names), alternatives(&operations))
    }));
    whole.join(", ")
}

fn alternatives(words: &BTreeSet<&str>) -> String {
    let list = words.iter().copied().collect::<Vec<_>>().join(",");
    if words.len() == 1 { list } else { format!("{{{list}}}") }
}

#[cfg(test)]
mod tests {
    use super::list_keys;
    use std::collections::BTreeSet;

    #[test]
    fn every_key_is_listed() {
        assert_eq!(list_keys(&BTreeSet::from(["a.b.c", "a.b.d"])), "a.b.c, a.b.d");
        let many = BTreeSet::from(["a.b.u", "a.b.d", "a.c.u", "a.c.d", "a.x.i", "z", "y.u", "b.b.u"]);
        assert_eq!(list_keys(&many), "z, y.u, a.{b,c}.{d,u}, a.x.i, b.b.u");
    }
}
