//! What the broker's user must be allowed, and the command that allows it.

use super::Options;
use std::collections::BTreeSet;
use std::fmt;

/// What RabbitMQ asks a permission for (RabbitMQ documentation, "Access Control").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Permission {
    /// To make a thing, or to say how it is made.
    Configure,
    /// To put something into it.
    Write,
    /// To take something out of it.
    Read,
}

/// What a permission is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Resource {
    Exchange(String),
    Queue(String),
    /// A queue that the broker gives a name to.
    Unnamed,
}

/// One permission for one thing.
pub(super) type Need = (Permission, Resource);

/// All that a user needs.
#[derive(Clone, Debug)]
pub(super) struct Permissions {
    user: String,
    vhost: String,
    needs: BTreeSet<Need>,
}

impl Permissions {
    /// What publishing needs, as it is configured.
    pub(super) fn of_events(options: &Options) -> Self {
        use Permission::{Configure, Read, Write};
        let exchange = || Resource::Exchange(options.exchange.clone());
        let lock = || Resource::Queue(options.lock());
        let mut needs = BTreeSet::from([(Configure, lock()), (Read, lock()), (Write, exchange())]);
        if options.declare {
            needs.insert((Configure, exchange()));
        }
        for queue in &options.queues {
            let queue = || Resource::Queue(queue.name.clone());
            needs.extend([(Configure, queue()), (Write, queue()), (Read, exchange())]);
        }
        if let Some(name) = options.dead_letter.as_deref() {
            let (exchange, queue) = (|| Resource::Exchange(name.to_owned()), || Resource::Queue(name.to_owned()));
            needs.insert((Write, exchange()));
            if options.declare {
                needs.extend([(Configure, exchange()), (Configure, queue()), (Write, queue()), (Read, exchange())]);
            }
        }
        Self { user: options.user.clone(), vhost: options.vhost.clone(), needs }
    }

    /// What the pipeline needs: publishing, and its checkpoint where that is kept here.
    pub(super) fn of(options: &Options) -> Self {
        let events = Self::of_events(options);
        if options.keeps_checkpoint { events.keeping_checkpoint(options) } else { events }
    }

    /// And what the checkpoint's queue needs.
    pub(super) fn keeping_checkpoint(self, options: &Options) -> Self {
        use Permission::{Configure, Read, Write};
        let queue = |end: &str| Resource::Queue(format!("{}.checkpoint{end}", options.pipeline));
        // The checkpoint is published by the queue's name, through the exchange that has none: RabbitMQ calls it so.
        let unnamed = Resource::Exchange("amq.default".to_owned());
        let locks = [(Configure, queue(".lock")), (Read, queue(".lock")), (Configure, queue(".look"))];
        let beside = [(Configure, queue(".written")), (Configure, queue(".strays"))];
        self.and(locks).and(beside).and([(Configure, queue("")), (Write, queue("")), (Read, queue("")), (Write, unnamed)])
    }

    /// And what it takes to listen to the exchange on a queue of one's own.
    pub(super) fn listening(self, exchange: &str) -> Self {
        use Permission::{Configure, Read, Write};
        let own = [Configure, Write, Read].map(|permission| (permission, Resource::Unnamed));
        self.and(own).and([(Read, Resource::Exchange(exchange.to_owned()))])
    }

    /// And what it takes to read a queue.
    pub(super) fn reading(self, queue: &str) -> Self {
        self.and([(Permission::Read, Resource::Queue(queue.to_owned()))])
    }

    fn and(mut self, needs: impl IntoIterator<Item = Need>) -> Self {
        self.needs.extend(needs);
        self
    }

    /// Each of them.
    pub(super) const fn needs(&self) -> &BTreeSet<Need> {
        &self.needs
    }

    /// The command that grants them, and nothing else.
    pub(super) fn command(&self) -> String {
        let [configure, write, read] = [Permission::Configure, Permission::Write, Permission::Read].map(|wanted| {
            let of_one = self.needs.iter().filter(|(permission, _)| *permission == wanted);
            let names: BTreeSet<String> = of_one.map(|(_, resource)| resource.expression()).collect();
            let names: Vec<String> = names.into_iter().collect();
            quoted(&match names.as_slice() {
                [] => "^$".to_owned(),
                [name] => format!("^{name}$"),
                names => format!("^({})$", names.join("|")),
            })
        });
        format!("rabbitmqctl set_permissions -p {} {} {configure} {write} {read}", plain(&self.vhost), plain(&self.user))
    }
}

impl Resource {
    /// The regular expression that matches its name.
    fn expression(&self) -> String {
        let name = match self {
            Self::Exchange(name) | Self::Queue(name) => name,
            Self::Unnamed => return r"amq\.gen.*".to_owned(),
        };
        let mut expression = String::with_capacity(name.len());
        for character in name.chars() {
            if r"\^$.|?*+()[]{}".contains(character) {
                expression.push('\\');
            }
            expression.push(character);
        }
        expression
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Configure => "configure",
            Self::Write => "write",
            Self::Read => "read",
        })
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exchange(name) => write!(f, "exchange {name:?}"),
            Self::Queue(name) => write!(f, "queue {name:?}"),
            Self::Unnamed => f.write_str("queues \"amq.gen-...\""),
        }
    }
}

/// `configure for exchange "shop", queue "shop.lock"; write for exchange "shop"`
pub(super) fn listed(needs: &[&Need]) -> String {
    let of_one = |wanted| {
        let of_one = needs.iter().filter(|(permission, _)| *permission == wanted);
        let resources: Vec<String> = of_one.map(|(_, resource)| resource.to_string()).collect();
        (!resources.is_empty()).then(|| format!("{wanted} for {}", resources.join(", ")))
    };
    let lists = [Permission::Configure, Permission::Write, Permission::Read].into_iter().filter_map(of_one);
    lists.collect::<Vec<_>>().join("; ")
}

/// The command that lets a user use every routing key of an exchange.
pub(super) fn every_key(vhost: &str, user: &str, exchange: &str) -> String {
    format!("rabbitmqctl set_topic_permissions -p {} {} {} '.*' '.*'", plain(vhost), plain(user), plain(exchange))
}

/// A word as a shell takes it.
pub(super) fn plain(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./@%:".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) { word.to_owned() } else { quoted(word) }
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::{Permission, Permissions, Resource, listed};
    use std::collections::BTreeSet;

    fn permissions(needs: &[(Permission, Resource)]) -> Permissions {
        Permissions { user: "o'brien".to_owned(), vhost: "/".to_owned(), needs: needs.iter().cloned().collect::<BTreeSet<_>>() }
    }

    #[test]
    fn the_command_grants_the_names_and_no_others() {
        let of = |name: &str| Resource::Queue(name.to_owned());
        let needs = [
            (Permission::Configure, of("shop")),
            (Permission::Configure, of("shop.lock")),
            (Permission::Write, of("a+b")),
            (Permission::Configure, Resource::Unnamed),
        ];
        assert_eq!(
            permissions(&needs).command(),
            r"rabbitmqctl set_permissions -p / 'o'\''brien' '^(amq\.gen.*|shop|shop\.lock)$' '^a\+b$' '^$'"
        );
    }

    #[test]
    fn what_is_lacking_is_listed_by_permission() {
        let exchange = || Resource::Exchange("shop".to_owned());
        let needs = [
            (Permission::Configure, exchange()),
            (Permission::Configure, Resource::Queue("shop.lock".to_owned())),
            (Permission::Write, exchange()),
        ];
        assert_eq!(
            listed(&needs.iter().collect::<Vec<_>>()),
            r#"configure for exchange "shop", queue "shop.lock"; write for exchange "shop""#
        );
    }
}
