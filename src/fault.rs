//! Error classification: what the pipeline does about an error, its code in the documentation, and the exit status.

use std::error::Error;
use std::fmt;

/// What the pipeline does about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// It may pass by itself: the side of the pipeline that met it restarts, with backoff, for ever.
    Transient,
    /// A range of the log can no longer be read: the pipeline stops, or reads the tables again, as configured.
    Gap,
    /// A person must act before the pipeline can continue.
    Fatal,
}

/// Implemented by each error enum, next to its variants, so that no variant can be missing from a central table.
///
/// The error's `Display` says what happened, where, and what to do about it. It never contains a secret.
pub trait Classify: std::error::Error + Send + Sync + 'static {
    /// What the pipeline does about this error.
    fn fault(&self) -> Fault;
    /// The stable number of this error, documented in `docs/errors.md`.
    fn code(&self) -> Code;
}

/// An error and the chain of its causes. A cause that the text already contains is left out.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let reason = error.to_string();
        if !text.contains(&reason) {
            text.push_str(": ");
            text.push_str(&reason);
        }
        cause = error.source();
    }
    text
}

/// Exit status of the process, as `docs/operations.md` documents it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Exit {
    /// Stopped after everything that was read had been delivered.
    Clean = 0,
    /// A panic: a defect of feedline.
    Crash = 1,
    /// The configuration or the command line is wrong.
    Configuration = 2,
    /// Stopped at the deadline with unconfirmed records. They are sent again at the next start.
    Deadline = 3,
    /// A gap in the log or a foreign source: an operator must decide.
    Gap = 70,
    /// A fault that a person must repair: a missing privilege, a record that cannot be published, a failing disk.
    Repair = 71,
    /// Another instance runs the pipeline, or has fenced this one.
    Held = 75,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal => $exit:ident,)*) => {
        /// All error codes: 1xxx configuration, 2xxx source, 3xxx sink, 4xxx checkpoint, 5xxx prefeed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// Every code, in the order of the numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The four-digit number.
            #[must_use]
            pub const fn number(self) -> u16 {
                match self { $(Self::$name => $number,)* }
            }

            /// The exit status of a process that stops because of this error.
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
    /// A required setting is missing.
    ConfigMissing = 1004 => Configuration,
    /// Two settings that contradict each other.
    ConfigContradictory = 1005 => Configuration,
    /// A setting whose feature is not in this build or version.
    ConfigUnsupported = 1006 => Configuration,
    /// A secret's file or environment variable, or a certificate's file, cannot be read.
    SecretUnreadable = 1007 => Configuration,
    /// A secret is written in the configuration itself; a warning.
    SecretLiteral = 1008 => Configuration,
    /// Secrets or rows would cross a network unencrypted; a warning.
    PlainText = 1009 => Configuration,
    /// Two feeds match the same table.
    TableInTwoFeeds = 1010 => Configuration,
    /// A feed's pattern matches no table.
    TableMissing = 1011 => Configuration,
    /// Two tables would share one destination.
    DestinationShared = 1012 => Configuration,
    /// A destination's name is too long for the broker, or contains a character that it refuses.
    DestinationInvalid = 1013 => Configuration,
    /// The admin server cannot listen on its address.
    AdminAddress = 1014 => Configuration,

    /// The source cannot be reached.
    SourceUnreachable = 2001 => Repair,
    /// The source refused the user or the password.
    SourceAuthentication = 2002 => Repair,
    /// The source's TLS certificate or protocol was refused.
    SourceTls = 2003 => Repair,
    /// The source's user lacks a privilege.
    SourcePrivilege = 2004 => Repair,
    /// The source violated its protocol, or a resume token is not a position in its log.
    SourceProtocol = 2005 => Repair,
    /// The configured address leads to another database, or its change log was removed.
    SourceForeign = 2006 => Gap,
    /// The source's log was rewound: it no longer contains changes that were already published.
    SourceRewound = 2007 => Gap,
    /// The source's log no longer contains the next changes.
    SourceLogLost = 2008 => Gap,
    /// A table has no usable key.
    TableKeyless = 2009 => Repair,
    /// Another instance reads from the source's slot or log.
    SourceBusy = 2010 => Held,
    /// A row cannot be read from the source.
    RowUnreadable = 2011 => Repair,
    /// A table's definition changed in a way that feedline cannot follow.
    TableChanged = 2012 => Repair,
    /// What the pipeline would create in the source exists already, but there is no checkpoint.
    SourceClaimed = 2013 => Gap,
    /// The source's clock differs much from this machine's; a warning.
    ClockOffset = 2014 => Repair,
    /// The configured format cannot express a table.
    FormatUnfit = 2015 => Repair,

    /// The PostgreSQL server cannot serve a changefeed: its version, its `wal_level`, or it is a standby.
    PostgresUnsuitable = 2100 => Repair,
    /// The database does not exist on the PostgreSQL server.
    PostgresDatabaseMissing = 2101 => Repair,
    /// The publication is missing, or does not contain every table of the feeds.
    PostgresPublication = 2102 => Repair,
    /// The replication slot cannot serve the pipeline: it has another plugin or database, or it is missing and must not be created.
    PostgresSlotUnfit = 2103 => Repair,
    /// The PostgreSQL server has no free replication slot or walsender.
    PostgresSlotsExhausted = 2104 => Repair,
    /// The PostgreSQL server refused a command.
    PostgresRefused = 2105 => Repair,
    /// The PostgreSQL server does not limit the log that it keeps for a slot; a warning.
    PostgresLogUnbounded = 2106 => Repair,
    /// A transaction that was prepared long ago blocks snapshots; a warning.
    PostgresPreparedOrphan = 2107 => Repair,
    /// Updates may leave out large values that did not change; a warning.
    PostgresUnchangedValues = 2108 => Repair,
    /// The PostgreSQL server may invalidate the slot and delete its log; a warning.
    PostgresSlotPerishable = 2109 => Repair,
    /// Running transactions delay the creation of the slot; a warning in `check`.
    PostgresHeldUp = 2110 => Repair,

    /// The configured file is not a SQLite database, or is damaged.
    SqliteFile = 2200 => Repair,
    /// The SQLite database is not in WAL mode.
    SqliteJournalMode = 2201 => Repair,
    /// A table has more columns than the change log supports.
    SqliteTooWide = 2202 => Repair,
    /// A unique index of a table cannot be read, so that rows that REPLACE removes would go unnoticed.
    SqliteIndex = 2203 => Repair,
    /// SQLite refuses one of feedline's statements: the schema needs something that only the application has.
    SqliteRefused = 2204 => Repair,
    /// A trigger of the application may keep changes out of the log; a warning.
    SqliteUnseen = 2205 => Repair,
    /// A write transaction of another connection delays feedline.
    SqliteLocked = 2206 => Repair,

    /// The MySQL or MariaDB server cannot serve a changefeed: its version, its settings, or a proxy in between.
    MySqlUnsuitable = 2300 => Repair,
    /// The MySQL or MariaDB server refused a statement.
    MySqlRefused = 2301 => Repair,
    /// A table cannot be followed on MySQL or MariaDB: its engine, its old versions of rows, or a character set.
    MySqlTableUnfit = 2302 => Repair,
    /// Foreign keys change rows of a table without events in the log; a warning.
    MySqlCascades = 2303 => Repair,
    /// The MySQL or MariaDB server may delete its log early; a warning.
    MySqlLogPerishable = 2304 => Repair,
    /// The MySQL or MariaDB server may lose or damage the end of its log in a crash; a warning.
    MySqlLogFragile = 2305 => Repair,
    /// The position in the log means nothing on another MySQL server; a warning.
    MySqlNoFailover = 2306 => Repair,

    /// The RethinkDB server refused a query.
    RethinkDbRefused = 2400 => Repair,
    /// A RethinkDB changefeed ended, stalled, or left changes out.
    RethinkDbFeedEnded = 2401 => Repair,
    /// The local store of a RethinkDB source cannot be opened, read or written.
    RethinkDbStore = 2402 => Repair,

    /// The MongoDB server cannot serve a changefeed: it is standalone, or too old.
    MongoDbUnsuitable = 2500 => Repair,
    /// The MongoDB server refused a command.
    MongoDbRefused = 2501 => Repair,
    /// The MongoDB change stream ended.
    MongoDbStreamEnded = 2502 => Repair,
    /// A MongoDB collection cannot be followed.
    MongoDbUnfit = 2503 => Repair,
    /// Updates of a MongoDB collection tell only what changed; a warning.
    MongoDbPartial = 2504 => Repair,
    /// The MongoDB server cannot split large events; a warning.
    MongoDbLargeEvents = 2505 => Repair,

    /// No broker can be reached.
    SinkUnreachable = 3001 => Repair,
    /// The broker refused the user or the password.
    SinkAuthentication = 3002 => Repair,
    /// The broker's TLS certificate or protocol was refused, or the broker refused ours.
    SinkTls = 3003 => Repair,
    /// The broker's user lacks a privilege.
    SinkPrivilege = 3004 => Repair,
    /// A topic does not exist.
    TopicMissing = 3005 => Repair,
    /// A topic could not be created.
    TopicNotCreated = 3006 => Repair,
    /// A record is larger than its topic allows.
    RecordTooLarge = 3007 => Repair,
    /// The broker refused a record because of its content.
    RecordRefused = 3008 => Repair,
    /// Records were not confirmed, and are sent again.
    RecordsUnconfirmed = 3009 => Repair,
    /// The client library refused its settings.
    SinkConfiguration = 3010 => Configuration,
    /// Another instance holds the pipeline's lock on the broker.
    SinkBusy = 3011 => Held,
    /// A topic's retention may be too short for its readers; a warning.
    TopicForgets = 3012 => Repair,
    /// One failing broker may lose confirmed records of a topic; a warning.
    TopicFragile = 3013 => Repair,
    /// Events of one key go to several topics; a warning.
    TopicsParted = 3014 => Repair,
    /// The reader of the standard output is gone.
    OutputClosed = 3101 => Repair,
    /// A file or the standard output cannot be written.
    OutputUnwritable = 3102 => Repair,
    /// The file for events contains something else.
    OutputForeign = 3103 => Repair,
    /// The virtual host does not exist on the broker, or is down.
    VirtualHostMissing = 3201 => Repair,
    /// The exchange does not exist, or has the wrong type.
    ExchangeUnfit = 3202 => Repair,
    /// No queue receives an event.
    EventUnroutable = 3203 => Repair,
    /// A queue differs from its configuration, or cannot be declared.
    QueueUnfit = 3204 => Repair,
    /// The bindings of an exchange could not be checked; a warning.
    BindingsUnseen = 3205 => Repair,
    /// A queue may lose messages or fill the broker's disk; a warning.
    QueueUnsafe = 3206 => Repair,
    /// The sink is not the one that the checkpoint was made with.
    SinkForeign = 3900 => Gap,
    /// A destination was deleted and created again since the checkpoint.
    DestinationAnew = 3901 => Gap,

    /// The checkpoint cannot be opened or read.
    CheckpointUnreadable = 4001 => Repair,
    /// The checkpoint is damaged, or is not a checkpoint.
    CheckpointCorrupt = 4002 => Repair,
    /// A later version of feedline wrote the checkpoint.
    CheckpointNewer = 4003 => Repair,
    /// Another instance holds the checkpoint.
    CheckpointHeld = 4004 => Held,
    /// The checkpoint cannot be made durable.
    CheckpointUnwritable = 4005 => Repair,
    /// The disk of the checkpoint is nearly full; a warning.
    CheckpointCramped = 4006 => Repair,
    /// Another instance has taken over or reset the checkpoint in the broker.
    CheckpointTaken = 4007 => Held,
    /// The topic or queue of the checkpoint is missing, or could lose it.
    CheckpointStoreUnfit = 4008 => Repair,
    /// The checkpoint belongs to another pipeline.
    CheckpointForeign = 4100 => Repair,
    /// The configuration changed in a way that changes ids, keys or bytes of events.
    CheckpointConfiguration = 4101 => Configuration,

    /// The file of a prefeed cannot be read.
    DatasetUnreadable = 5001 => Repair,
    /// The file of a prefeed is not the one that was partly sent.
    DatasetChanged = 5002 => Repair,
    /// A line of a prefeed's file is not a row of the table.
    DatasetLine = 5003 => Repair,
    /// The query of a prefeed cannot replace the rows of the table.
    PrefeedQuery = 5004 => Repair,
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
    fn numbers_ascend_and_never_repeat() {
        assert!(Code::ALL.windows(2).all(|pair| pair[0].number() < pair[1].number()));
    }

    #[test]
    fn a_code_prints_four_digits() {
        assert_eq!(Code::ConfigUnreadable.to_string(), "FL1001");
    }
}
