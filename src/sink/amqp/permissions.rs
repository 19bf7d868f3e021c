//! The permissions that the broker's user needs, and the `rabbitmqctl` command that grants them.

use super::options::Options;
use std::collections::BTreeSet;
use std::fmt;

/// RabbitMQ's three kinds of permission (RabbitMQ documentation, "Access Control").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Permission {
    /// To create, delete or change a resource.
    Configure,
    /// To put messages into it.
    Write,
    /// To take messages out of it.
    Read,
}

/// The resource that a permission is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Resource {
    Exchange(String),
    Queue(String),
    /// A queue whose name the broker chooses.
    ServerNamedQueue,
}

/// One permission on one resource.
pub(super) type Grant = (Permission, Resource);

/// All permissions that a user needs.
#[derive(Clone, Debug)]
pub(super) struct Permissions {
    user: String,
    vhost: String,
    needs: BTreeSet<Grant>,
}

impl Permissions {
    /// The permissions for publishing, as configured.
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

    /// The permissions for the pipeline: publishing, and the checkpoint if it is stored here.
    pub(super) fn of(options: &Options) -> Self {
        let events = Self::of_events(options);
        if options.keeps_checkpoint { events.keeping_checkpoint(options) } else { events }
    }

    /// Adds the permissions for the checkpoint's queues.
    pub(super) fn keeping_checkpoint(self, options: &Options) -> Self {
        use Permission::{Configure, Read, Write};
        let queue = |end: &str| Resource::Queue(format!("{}.checkpoint{end}", options.pipeline));
        // The checkpoint is published through the default exchange, whose name in permissions is this.
        let default_exchange = Resource::Exchange("amq.default".to_owned());
        let locks = [(Configure, queue(".lock")), (Read, queue(".lock")), (Configure, queue(".look"))];
        let beside = [(Configure, queue(".written")), (Configure, queue(".strays"))];
        self.and(locks).and(beside).and([(Configure, queue("")), (Write, queue("")), (Read, queue("")), (Write, default_exchange)])
    }

    /// Adds the permissions for consuming the exchange through a server-named queue.
    pub(super) fn consuming_exchange(self, exchange: &str) -> Self {
        use Permission::{Configure, Read, Write};
        let own = [Configure, Write, Read].map(|permission| (permission, Resource::ServerNamedQueue));
        self.and(own).and([(Read, Resource::Exchange(exchange.to_owned()))])
    }

    /// Adds the permission to read a queue.
    pub(super) fn reading_queue(self, queue: &str) -> Self {
        self.and([(Permission::Read, Resource::Queue(queue.to_owned()))])
    }

    fn and(mut self, needs: impl IntoIterator<Item = Grant>) -> Self {
        self.needs.extend(needs);
        self
    }

    pub(super) const fn needs(&self) -> &BTreeSet<Grant> {
        &self.needs
    }

    /// The command that grants these permissions and no others.
    pub(super) fn command(&self) -> String {
        let [configure, write, read] = [Permission::Configure, Permission::Write, Permission::Read].map(|kind| {
            let of_kind = self.needs.iter().filter(|(permission, _)| *permission == kind);
            let names: BTreeSet<String> = of_kind.map(|(_, resource)| resource.expression()).collect();
            let names: Vec<String> = names.into_iter().collect();
            quoted(&match names.as_slice() {
                [] => "^$".to_owned(),
                [name] => format!("^{name}$"),
                names => format!("^({})$", names.join("|")),
            })
        });
        format!("rabbitmqctl set_permissions -p {} {} {configure} {write} {read}", shell_word(&self.vhost), shell_word(&self.user))
    }
}

impl Resource {
    /// The regular expression that matches its name.
    fn expression(&self) -> String {
        let name = match self {
            Self::Exchange(name) | Self::Queue(name) => name,
            Self::ServerNamedQueue => return r"amq\.gen.*".to_owned(),
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
            Self::ServerNamedQueue => f.write_str("queues \"amq.gen-...\""),
        }
    }
}

/// Lists permissions for a message: `configure for exchange "shop", queue "shop.lock"; write for exchange "shop"`
pub(super) fn list(needs: &[&Grant]) -> String {
    let list = |kind| {
        let of_kind = needs.iter().filter(|(permission, _)| *permission == kind);
        let resources: Vec<String> = of_kind.map(|(_, resource)| resource.to_string()).collect();
        (!resources.is_empty()).then(|| format!("{kind} for {}", resources.join(", ")))
    };
    let lists = [Permission::Configure, Permission::Write, Permission::Read].into_iter().filter_map(list);
    lists.collect::<Vec<_>>().join("; ")
}

/// The command that allows a user every routing key of an exchange.
pub(super) fn grant_every_key(vhost: &str, user: &str, exchange: &str) -> String {
    format!("rabbitmqctl set_topic_permissions -p {} {} {} '.*' '.*'", shell_word(vhost), shell_word(user), shell_word(exchange))
}

/// A word quoted for the shell, if it needs quotes.
pub(super) fn shell_word(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./@%:".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) { word.to_owned() } else { quoted(word) }
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::{Permission, Permissions, Resource, list};
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
            (Permission::Configure, Resource::ServerNamedQueue),
        ];
        assert_eq!(
            permissions(&needs).command(),
            r"rabbitmqctl set_permissions -p / 'o'\''brien' '^(amq\.gen.*|shop|shop\.lock)$' '^a\+b$' '^$'"
        );
    }

    #[test]
    fn permissions_are_listed_by_kind() {
        let exchange = || Resource::Exchange("shop".to_owned());
        let needs = [
            (Permission::Configure, exchange()),
            (Permission::Configure, Resource::Queue("shop.lock".to_owned())),
            (Permission::Write, exchange()),
        ];
        assert_eq!(
            list(&needs.iter().collect::<Vec<_>>()),
            r#"configure for exchange "shop", queue "shop.lock"; write for exchange "shop""#
        );
    }
}
