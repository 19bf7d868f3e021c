//! What an error means for the pipeline, and the number under which a person finds it in the documentation.

use std::fmt;

/// What the pipeline does about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// May pass by itself: the half that met it starts again, with backoff, for ever.
    Transient,
    /// A range of the log can no longer be read: stop and name it, or read the tables again, as the policy says.
    Gap,
    /// A person must act before anything can go on.
    Fatal,
}

/// Implemented by every error enum beside its variants, so that no central table can forget one.
///
/// The error's `Display` says what happened, where, and what to do about it; it never shows a secret.
pub trait Classify: std::error::Error + Send + Sync + 'static {
    /// What the pipeline does about this error.
    fn fault(&self) -> Fault;
    /// The stable number of this error, documented in `docs/errors.md`.
    fn code(&self) -> Code;
}

/// Exit status of the process, as `docs/operations.md` documents it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Exit {
    /// Drained and stopped.
    Clean = 0,
    /// A defect of feedline: a panic.
    Crash = 1,
    /// The configuration or the command line is wrong.
    Configuration = 2,
    /// Stopped at the deadline with records unconfirmed; nothing is lost, they follow at the next start.
    Deadline = 3,
    /// A gap in the log or a foreign source: an operator must decide.
    Gap = 70,
    /// A fault that a person must mend: a privilege, an unpublishable record, a failing disk.
    Mend = 71,
    /// Another instance holds the pipeline, or has fenced this one.
    Held = 75,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal => $exit:ident,)*) => {
        /// The closed set of error numbers: 1xxx configuration, 2xxx source, 3xxx sink, 4xxx checkpoint, 5xxx prefeed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// Every code, in the order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The four digits.
            #[must_use]
            pub const fn number(self) -> u16 {
                match self { $(Self::$name => $number,)* }
            }

            /// The exit status with which a process ends that stops for this error.
            #[must_use]
            pub const fn exit(self) -> Exit {
                match self { $(Self::$name => Exit::$exit,)* }
            }
        }
    };
}

codes! {
    /// The configuration file cannot be read or is not TOML.
    ConfigUnreadable = 1001 => Configuration,
    /// A setting that does not exist.
    ConfigUnknown = 1002 => Configuration,
    /// A setting whose value has the wrong type, unit or range.
    ConfigInvalid = 1003 => Configuration,
    /// A setting that must be there is not.
    ConfigMissing = 1004 => Configuration,
    /// Two settings that cannot stand together.
    ConfigContradictory = 1005 => Configuration,
    /// A setting whose feature is not in this build or not in this version.
    ConfigUnsupported = 1006 => Configuration,
    /// A secret's file or environment variable, or a certificate's file, cannot be read.
    SecretUnreadable = 1007 => Configuration,
    /// A secret stands in the configuration itself; a warning.
    SecretLiteral = 1008 => Configuration,
    /// Secrets or rows would cross a network in plain text; a warning.
    PlainText = 1009 => Configuration,
    /// A table is named by two feeds.
    TableInTwoFeeds = 1010 => Configuration,
    /// A feed's pattern matches no table.
    TableMissing = 1011 => Configuration,
    /// Two tables would share one destination.
    DestinationShared = 1012 => Configuration,
    /// A destination's name is longer than the broker allows, or holds a character that it refuses.
    DestinationInvalid = 1013 => Configuration,
    /// The admin server cannot listen on its address.
    AdminAddress = 1014 => Configuration,

    /// The source cannot be reached.
    SourceUnreachable = 2001 => Mend,
    /// The source refused the user or the password.
    SourceAuthentication = 2002 => Mend,
    /// The source's TLS certificate or protocol was refused.
    SourceTls = 2003 => Mend,
    /// The source's user lacks a privilege.
    SourcePrivilege = 2004 => Mend,
    /// The source sent something that the protocol does not allow, or a resume token is not a place in its log.
    SourceProtocol = 2005 => Mend,
    /// Another database stands behind the configured name, or its change log was removed.
    SourceForeign = 2006 => Gap,
    /// The source's log was rewound: it no longer holds what was already published.
    SourceRewound = 2007 => Gap,
    /// The source's log no longer holds what comes next.
    SourceLogLost = 2008 => Gap,
    /// A table has no usable key.
    TableKeyless = 2009 => Mend,
    /// Another instance reads from the source's slot or log.
    SourceBusy = 2010 => Held,
    /// A row cannot be read from the source.
    RowUnreadable = 2011 => Mend,
    /// A table's definition changed in a way that cannot be followed.
    TableChanged = 2012 => Mend,
    /// What the pipeline would make in the source is there already, but no checkpoint is.
    SourceClaimed = 2013 => Gap,
    /// The source's clock is far from this machine's; a warning.
    ClockOffset = 2014 => Mend,

    /// The PostgreSQL server cannot serve a changefeed: its version, its `wal_level`, or it is a standby.
    PostgresUnsuitable = 2100 => Mend,
    /// The database does not exist on the PostgreSQL server.
    PostgresDatabaseMissing = 2101 => Mend,
    /// The publication is missing, or does not hold every table of the feeds.
    PostgresPublication = 2102 => Mend,
    /// The replication slot cannot serve the pipeline: another plugin or database, or it is missing and not ours to make.
    PostgresSlotUnfit = 2103 => Mend,
    /// The PostgreSQL server has no replication slot or walsender left.
    PostgresSlotsExhausted = 2104 => Mend,
    /// The PostgreSQL server refused a command.
    PostgresRefused = 2105 => Mend,
    /// The PostgreSQL server sets no limit to the log that a slot keeps; a warning.
    PostgresLogUnbounded = 2106 => Mend,
    /// A transaction was prepared long ago and holds up snapshots; a warning.
    PostgresPreparedOrphan = 2107 => Mend,
    /// Updates may leave out large values that did not change; a warning.
    PostgresUnchangedValues = 2108 => Mend,
    /// The PostgreSQL server may give up the slot, and the log that it keeps; a warning.
    PostgresSlotPerishable = 2109 => Mend,
    /// Transactions that are running hold up the making of the slot; in a check a warning.
    PostgresHeldUp = 2110 => Mend,

    /// The configured file is not a SQLite database, or is damaged.
    SqliteFile = 2200 => Mend,
    /// The SQLite database is not in WAL mode.
    SqliteJournalMode = 2201 => Mend,
    /// A table has more columns than the change log can hold.
    SqliteTooWide = 2202 => Mend,
    /// A unique index of a table cannot be read, so that rows which REPLACE removes could not be noticed.
    SqliteIndex = 2203 => Mend,
    /// SQLite refuses a statement of feedline's: the schema needs what only the application has.
    SqliteRefused = 2204 => Mend,
    /// A trigger of the application's may keep changes from the log; a warning.
    SqliteUnseen = 2205 => Mend,

    /// No broker can be reached.
    SinkUnreachable = 3001 => Mend,
    /// The broker refused the user or the password.
    SinkAuthentication = 3002 => Mend,
    /// The broker's TLS certificate or protocol was refused, or ours by the broker.
    SinkTls = 3003 => Mend,
    /// The broker's user lacks a privilege.
    SinkPrivilege = 3004 => Mend,
    /// A topic does not exist.
    TopicMissing = 3005 => Mend,
    /// A topic could not be created.
    TopicNotCreated = 3006 => Mend,
    /// A record is larger than its topic accepts.
    RecordTooLarge = 3007 => Mend,
    /// The broker refused a record for what it is.
    RecordRefused = 3008 => Mend,
    /// Records were not confirmed and are sent again.
    RecordsUnconfirmed = 3009 => Mend,
    /// The client library refused its settings.
    SinkConfiguration = 3010 => Configuration,
    /// Another instance holds the pipeline's lock on the broker.
    SinkBusy = 3011 => Held,
    /// A topic keeps less than its readers may need; a warning.
    TopicForgets = 3012 => Mend,
    /// A topic's confirmed records may be lost with one broker; a warning.
    TopicFragile = 3013 => Mend,
    /// The events of a key go to several topics; a warning.
    TopicsParted = 3014 => Mend,
    /// Whoever read the standard output is gone.
    OutputClosed = 3101 => Mend,
    /// A file or the standard output cannot be written.
    OutputUnwritable = 3102 => Mend,
    /// The file for events holds something else.
    OutputForeign = 3103 => Mend,
    /// The virtual host does not exist on the broker, or is not up.
    VirtualHostMissing = 3201 => Mend,
    /// The exchange does not exist, or is of another kind than is needed.
    ExchangeUnfit = 3202 => Mend,
    /// No queue takes an event.
    EventUnroutable = 3203 => Mend,
    /// A queue exists and is not as it is configured, or cannot be made.
    QueueUnfit = 3204 => Mend,
    /// The bindings of an exchange were not looked at; a warning.
    BindingsUnseen = 3205 => Mend,
    /// A queue loses messages, or fills the broker's disk; a warning.
    QueueDoubtful = 3206 => Mend,
    /// The sink is not the one that the checkpoint was made with.
    SinkForeign = 3900 => Gap,
    /// A destination is not the one that was written to before the checkpoint.
    DestinationAnew = 3901 => Gap,

    /// The checkpoint cannot be opened or read.
    CheckpointUnreadable = 4001 => Mend,
    /// The checkpoint is damaged, or is none.
    CheckpointCorrupt = 4002 => Mend,
    /// A later version wrote the checkpoint.
    CheckpointNewer = 4003 => Mend,
    /// Another instance holds the checkpoint.
    CheckpointHeld = 4004 => Held,
    /// The checkpoint cannot be made durable.
    CheckpointUnwritable = 4005 => Mend,
    /// There is little room where the checkpoint lies; a warning.
    CheckpointCramped = 4006 => Mend,
    /// Another instance has gone on from the checkpoint in the broker.
    CheckpointTaken = 4007 => Held,
    /// The topic or queue of the checkpoint would not keep it.
    CheckpointPlaceUnfit = 4008 => Mend,
    /// The checkpoint belongs to another pipeline.
    CheckpointForeign = 4100 => Mend,
    /// The configuration changed in a way that changes ids, keys or bytes of events.
    CheckpointConfiguration = 4101 => Configuration,

    /// A prefeed's file cannot be read.
    DatasetUnreadable = 5001 => Mend,
    /// A prefeed's file is not the one that was begun.
    DatasetChanged = 5002 => Mend,
    /// A line of a prefeed's file is not a row of its table.
    DatasetLine = 5003 => Mend,
    /// A prefeed's query cannot stand for the rows of its table.
    PrefeedQuery = 5004 => Mend,
}

impl fmt::Display for Code {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "FL{:04}", self.number())
    }
}

#[cfg(test)]
mod tests {
    use super::Code;

    #[test]
    fn numbers_ascend_and_so_never_repeat() {
        assert!(Code::ALL.windows(2).all(|pair| pair[0].number() < pair[1].number()));
    }

    #[test]
    fn a_code_prints_four_digits() {
        assert_eq!(Code::ConfigUnreadable.to_string(), "FL1001");
    }
}
