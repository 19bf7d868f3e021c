//! The settings of the process: `[format]`, `[checkpoint]`, `[pipeline]`, `[admin]`, `[log]`.

use super::choices::{ALL, CheckpointKind, FormatKind};
use crate::config::key::{Key, OptionalKey};
use crate::config::kind;
use crate::config::plan::LogFormat;
use crate::config::schema::Default::{Derived, Is};
use crate::format::cloudevents::Mode;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

settings! {
    FORMAT_KIND: Key<FormatKind> = "format.kind", ALL, kind::choice(), Is("json"),
        "`json`: feedline's own JSON, version 1. `cloudevents`: CloudEvents 1.0, with that JSON as data.";
    FORMAT_MODE: Key<Mode> = "format.mode", ALL, kind::choice(), Is("binary"),
        "Where the attributes of CloudEvents are. `binary`: in headers. `structured`: in the body; so always on standard output and in files.";
    CHECKPOINT_KIND: Key<CheckpointKind> = "checkpoint.kind", ALL, kind::choice(), Is("file"),
        "Where the checkpoint is stored: in a file, or in the sink's broker, in the topic or queue `{name}.checkpoint`.";
    CHECKPOINT_PATH: OptionalKey<PathBuf> = "checkpoint.path", ALL, kind::PATH, Derived("{name}.checkpoint"),
        "The checkpoint file, for `checkpoint.kind = \"file\"`. It must be on a disk that survives a restart.";
    CHECKPOINT_INTERVAL: Key<Duration> = "checkpoint.interval", ALL, kind::period(Duration::from_millis(10), seconds(60)), Is("500ms"),
        "How often the checkpoint is saved while events flow. After a crash, events since the last save may be sent again.";
    MEMORY: Key<usize> = "pipeline.memory", ALL, kind::size(1 << 20, 64 << 30), Is("32MiB"),
        "Memory for events from the source's socket to the broker's confirmation. The process needs about twice this plus 32 MB.";
    SHUTDOWN_DEADLINE: Key<Duration> = "pipeline.shutdown_deadline", ALL, kind::period(seconds(0), seconds(3600)), Is("20s"),
        "How long a stop waits for confirmations.";
    PREFEED_SLICE: Key<Duration> = "pipeline.prefeed_slice", ALL, kind::period(seconds(1), seconds(3600)), Is("1min"),
        "How long one snapshot is held while no feed is live. At most 15 s once any feed is live.";
    PREFEED_READERS: Key<usize> = "pipeline.prefeed_readers", ALL, kind::integer(1, 16), Is("2"),
        "Number of sessions that read existing rows in parallel, if the database is a server.";
    PREFEED_RATE: Key<Option<NonZeroU64>> = "pipeline.prefeed_rate", ALL, kind::RATE, Is("unlimited"),
        "Limit of the rate at which existing rows are read, in bytes of events.";
    TAKEOVER_TIMEOUT: Key<Duration> = "pipeline.takeover_timeout", ALL, kind::period(seconds(0), seconds(3600)), Is("90s"),
        "How long to wait for a slot, lock or exclusive queue that another instance holds, at a start and later.";
    ADMIN_LISTEN: Key<Option<SocketAddr>> = "admin.listen", ALL, kind::LISTEN, Is("127.0.0.1:9464"),
        "Address of the HTTP server for `/metrics`, `/livez`, `/readyz`, `/startupz` and `/version`.";
    LOG_FORMAT: Key<LogFormat> = "log.format", ALL, kind::choice(), Is("auto"), "`auto`: `pretty` on a terminal, else `json`.";
    LOG_LEVEL: Key<String> = "log.level", ALL, kind::TEXT, Is("info"),
        "`error`, `warn`, `info`, `debug`, `trace` or `off`; also per module, such as `info,feedline::pipeline=debug`. The reason why a run stopped is logged at every level.";
}
