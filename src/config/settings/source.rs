//! The settings of `[source]`.

use super::choices::{
    ALL, Image, MONGODB, MYSQL, OnAddedDefault, POSTGRES, RETHINKDB, SERVERS, SQL_SERVERS, SQLITE, SourceAuth, SourceKind, Spelling,
};
use crate::config::key::{Key, OptionalKey};
use crate::config::kind;
use crate::config::schema::Default::{Absent, Derived, Is, Required};
use crate::net::secret::Secret;
use crate::net::{RequireAuth, TlsMode};
use crate::pipeline::OnGap;
use std::path::PathBuf;

settings! {
    KIND: Key<SourceKind> = "source.kind", ALL, kind::choice(), Required("sqlite"), "The kind of database.";
    PATH: Key<PathBuf> = "source.path", SQLITE, kind::PATH, Required("shop.db"),
        "The database file. It must exist; feedline adds triggers and a log table to it.";
    URL: OptionalKey<String> = "source.url", SERVERS, kind::TEXT, Absent("postgres://feedline@db.example.com:5432/shop"),
        "Host, port, user and database in one URL, without a password. Replaces `host`, `port`, `user`, `database`. MySQL, MariaDB: `mysql://`. MongoDB: `mongodb://`. RethinkDB: `rethinkdb://`.";
    HOST: Key<String> = "source.host", SERVERS, kind::TEXT, Is("127.0.0.1"), "Host name or address of the server.";
    PORT: OptionalKey<u16> = "source.port", SERVERS, kind::integer(1, 65_535), Derived("5432; 3306 with `kind = \"mysql\"`; 27017 with `kind = \"mongodb\"`; 28015 with `kind = \"rethinkdb\"`"),
        "Port of the server.";
    MEMBERS: OptionalKey<Vec<String>> = "source.members", MONGODB, kind::LIST, Absent("[\"db2.example.com:27017\", \"db3.example.com:27017\"]"),
        "Other members of the replica set, or other routers: `host` or `host:port`. They are asked if `host` does not answer.";
    USER: Key<String> = "source.user", SERVERS, kind::TEXT, Is("feedline"),
        "The user. Needs privileges: PostgreSQL: REPLICATION, and SELECT on the tables; MySQL, MariaDB: see docs/mysql.md; MongoDB: see docs/mongodb.md; RethinkDB: read on the database.";
    PASSWORD: OptionalKey<Secret> = "source.password", SERVERS, kind::SECRET, Absent("/run/secrets/database"),
        "The user's password. Not needed for trust or certificate authentication.";
    DATABASE: Key<String> = "source.database", SERVERS, kind::TEXT, Required("shop"),
        "The database. MySQL, MariaDB: that of tables which are named without one; `database.table` names any other. MongoDB, RethinkDB: the one whose collections or tables are followed.";
    AUTH: Key<SourceAuth> = "source.auth", MONGODB, kind::choice(), Is("scram"),
        "How to log in. `scram`: with `user` and `password`; without a password no login takes place. `x509`: with the client certificate.";
    AUTH_DATABASE: Key<String> = "source.auth_database", MONGODB, kind::TEXT, Is("admin"), "The database that holds the user.";
    TLS: Key<TlsMode> = "source.tls", SERVERS, kind::choice(), Is("verify_full"),
        "`verify_full`: verify certificate and host name. `verify_ca`: verify the certificate. `require`: only encrypt. `disable`: plain text (a warning, unless the host is this machine).";
    CA_FILE: OptionalKey<PathBuf> = "source.ca_file", SERVERS, kind::PATH, Absent("/etc/ssl/database-ca.pem"),
        "Trusted CA certificates, PEM. Default: those of the operating system.";
    CERT_FILE: OptionalKey<PathBuf> = "source.cert_file", SERVERS, kind::PATH, Absent("/run/secrets/client.crt"),
        "Client certificate, PEM. Requires `key_file`.";
    KEY_FILE: OptionalKey<PathBuf> = "source.key_file", SERVERS, kind::PATH, Absent("/run/secrets/client.key"),
        "Private key of the client certificate, PEM. Requires `cert_file`.";
    REQUIRE_AUTH: Key<RequireAuth> = "source.require_auth", SQL_SERVERS, kind::choice(), Is("scram"),
        "The weakest login that is accepted from a server whose certificate is not verified. PostgreSQL: `scram` also authenticates the server; `md5` and `password` reveal the password to it; `none` allows it to skip the configured password. MySQL, MariaDB: `password` allows logins that reveal the password.";
    SLOT: OptionalKey<String> = "source.slot", POSTGRES, kind::TEXT, Derived("feedline_{name}"), "The replication slot.";
    PUBLICATION: OptionalKey<String> = "source.publication", POSTGRES, kind::TEXT, Derived("feedline_{name}"), "The publication.";
    SERVER_ID: OptionalKey<u32> = "source.server_id", MYSQL, kind::integer(1, 4_294_967_295), Absent("1001"),
        "The number by which the server knows feedline among its replicas. No replica may have the same. Default: a random number.";
    STORE: Key<PathBuf> = "source.store", RETHINKDB, kind::PATH, Required("/var/lib/feedline/shop.store"),
        "The file of the local store: each followed document, and the changes that are not delivered yet. feedline makes it. It must be on a volume that outlives the process.";
    STORE_LOG_MAX: Key<u64> = "source.store_log_max", RETHINKDB, kind::size(16 << 20, 1 << 40), Is("4GiB"),
        "How much may wait in the local store for the broker. Beyond, feedline asks for no more changes, and the server queues them.";
    QUEUE_SIZE: Key<u32> = "source.queue_size", RETHINKDB, kind::integer(1, 100_000_000), Is("1000000"),
        "How many changes of one table the server may queue for feedline (`changefeed_queue_size`). When a queue is full, the server drops it, and the table is scanned again.";
    FULL_DOCUMENT: Key<Image> = "source.full_document", MONGODB, kind::choice(), Is("when_available"),
        "Whether an update carries the whole document. `when_available`: where the collection stores images; other updates tell only what changed. `required`: each collection must store them, and an image that has expired is a gap. `off`: updates tell only what changed.";
    PRE_IMAGES: Key<Image> = "source.pre_images", MONGODB, kind::choice(), Is("off"),
        "Whether updates and deletes carry the document as it was before, in `before`. The values are as for `full_document`.";
    SPELLING: Key<Spelling> = "source.spelling", MONGODB, kind::choice(), Is("plain"),
        "How values are spelled that JSON does not have. `plain`: an ObjectId is a text, a date a timestamp; the key is spelled as with `relaxed`. `relaxed`, `canonical`: MongoDB Extended JSON v2.";
    MANAGE: Key<bool> = "source.manage", POSTGRES, kind::BOOLEAN, Is("true"),
        "`true`: create the slot and the publication if they are missing. `false`: only verify them.";
    ON_GAP: Key<OnGap> = "source.on_gap", ALL, kind::choice(), Is("stop"),
        "What to do if the log no longer holds the next changes. `stop`: stop and name the missing range. `prefeed`: send a reset event and read the affected tables again.";
    ON_ADDED_DEFAULT: Key<OnAddedDefault> = "source.on_added_default", POSTGRES, kind::choice(), Is("prefeed"),
        "What to do if a column is added with a default. It changes existing rows, but the changes are not in the log. `prefeed`: read the table again. `ignore`: do nothing.";
}
