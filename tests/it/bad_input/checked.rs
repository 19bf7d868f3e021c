//! Errors that `feedline check` finds.

use super::{Input, Line, ORDERS, STDOUT, World, assert_named, line};
use crate::servers::port;
use crate::servers::postgres::{Options, Postgres};

/// The configuration itself.
fn configurations(world: &World) -> Vec<Line> {
    let sink = |sink: &str| Input::new(world.sqlite("shop.db"), ORDERS, sink);
    let feeds = |feeds: &str| Input::new(world.sqlite("shop.db"), feeds, STDOUT);
    let secret = |file: &str| sink(&format!("kind = \"amqp\"\npassword_file = \"{file}\""));
    let empty = world.program.directory.join("empty").display().to_string();
    let amqp = |lines: &str| sink(&world.amqp(lines));
    let kafka = |lines: &str| sink(&format!("kind = \"kafka\"\nbootstrap_servers = \"a\"\n{lines}"));
    let unbound = "declare = false\n[[sink.queues]]\nname = \"a\"\nkeys = [\"#\"]";
    let two = "kind = \"amqp\"\n[checkpoint]\nkind = \"amqp\"\npath = \"a\"";
    vec![
        line(
            "an unknown setting",
            sink("kind = \"kafka\"\nbootstrap_server = \"a\""),
            "FL1002",
            2,
            "bootstrap_server:",
            "did you mean `sink.bootstrap_servers`",
        ),
        line("a value of another type", amqp("window = \"many\""), "FL1003", 2, "sink.window = \"many\"", "a whole number"),
        line("a number out of bounds", amqp("window = 0"), "FL1003", 2, "sink.window = 0", "from 1 to 100000"),
        line(
            "a setting that is missing",
            sink("kind = \"kafka\""),
            "FL1004",
            2,
            "sink.bootstrap_servers: missing",
            "such as bootstrap_servers =",
        ),
        line(
            "a guarantee of a later version",
            kafka("delivery = \"exactly_once\""),
            "FL1006",
            2,
            "sink.delivery",
            "set delivery = \"at_least_once\"",
        ),
        line("a setting of another sink", sink("kind = \"stdout\"\nexchange = \"x\""), "FL1005", 2, "sink.exchange", "leave it out"),
        line("a password in a URL", sink("kind = \"amqp\"\nurl = \"amqps://me:canary@a\""), "FL1003", 2, "sink.url", "use password_file"),
        line("a secret's file that is not there", secret("/nowhere/secret"), "FL1007", 2, "/nowhere/secret", "correct the path"),
        line("a secret's file that is empty", secret(&empty), "FL1007", 2, "empty", "write the secret into it"),
        line("a placeholder that does not exist", kafka("topic = \"{tabel}\""), "FL1003", 2, "{tabel}", "did you mean {table}"),
        line(
            "an ordering that does not exist",
            amqp("ordering = \"strict\""),
            "FL1003",
            2,
            "sink.ordering = \"strict\"",
            "one of \"go_back\", \"per_key\"",
        ),
        line("a queue without binding keys", amqp("[[sink.queues]]\nname = \"a\""), "FL1004", 2, "sink.queues.0.keys", "such as keys ="),
        line("queues where nothing is declared", amqp(unbound), "FL1005", 2, "sink.declare = false", "leave [[sink.queues]] out"),
        line(
            "a certificate without its key",
            sink("kind = \"amqp\"\ncert_file = \"a\""),
            "FL1005",
            2,
            "sink.cert_file",
            "set sink.key_file",
        ),
        line("acknowledgements turned off", kafka("[sink.properties]\nacks = 0"), "FL1005", 2, "\"acks\" cannot be set", "leave it out"),
        line(
            "a checkpoint in a broker, and none",
            sink("kind = \"stdout\"\n[checkpoint]\nkind = \"kafka\""),
            "FL1005",
            2,
            "checkpoint.kind",
            "or use \"file\"",
        ),
        line("a checkpoint in a file and in the broker", sink(two), "FL1005", 2, "checkpoint.path", "leave one of the two out"),
        line("no table", feeds(""), "FL1004", 2, "feeds: missing", "[[feeds]] tables ="),
        line(
            "a table that is not there",
            feeds("[[feeds]]\ntables = [\"order\"]"),
            "FL1011",
            2,
            "`order` matches no table",
            "did you mean `orders`",
        ),
        line("a table in two feeds", feeds(&format!("{ORDERS}\n{ORDERS}")), "FL1010", 2, "main.orders", "keep it in one of them"),
        line("a table without a key", feeds("[[feeds]]\ntables = [\"keyless\"]"), "FL2009", 71, "`keyless`", "declare a primary key"),
        line(
            "a file for a prefeed that is not there",
            feeds(&format!("{ORDERS}\nprefeed = {{ file = \"/nowhere/rows\" }}")),
            "FL5001",
            71,
            "/nowhere/rows",
            "check the path",
        ),
    ]
}

/// Databases.
fn sources(world: &World, plain: &Postgres) -> Vec<Line> {
    let free = port::free();
    let source = |source: String| Input::new(source, ORDERS, STDOUT);
    let sqlite = |file: &str| source(world.sqlite(file));
    let postgres = |lines: &str| source(world.postgres(lines));
    let weak = |password: &str| postgres(&format!("user = \"{}\"\npassword_env = \"{password}\"", world.weak_role));
    let query = |query: &str| Input::new(world.postgres(""), &format!("{ORDERS}\nprefeed = {{ query = \"{query}\" }}"), STDOUT);
    let nowhere = format!("kind = \"postgres\"\nhost = \"127.0.0.1\"\nport = {free}\nuser = \"a\"\ndatabase = \"a\"\ntls = \"disable\"");
    let keyless = Input::new(world.postgres(""), "[[feeds]]\ntables = [\"public.keyless\"]\nkey = [\"a\"]", STDOUT);
    let address = format!("127.0.0.1:{}", world.postgres.port());
    let physical = format!(
        "kind = \"postgres\"\nhost = \"127.0.0.1\"\nport = {}\nuser = \"postgres\"\ndatabase = \"postgres\"\ntls = \"disable\"",
        plain.port()
    );
    let writes = "WITH gone AS (DELETE FROM public.orders RETURNING id) SELECT id FROM gone";
    vec![
        line("a SQLite file that is not there", sqlite("none.db"), "FL2001", 71, "none.db", "check source.path"),
        line("a file that is no database", sqlite("text.db"), "FL2200", 71, "text.db", "check source.path"),
        line("a database without WAL", sqlite("rollback.db"), "FL2201", 71, "rollback.db", "PRAGMA journal_mode = WAL"),
        line(
            "PostgreSQL that is not there",
            source(nowhere),
            "FL2001",
            71,
            format!("127.0.0.1:{free}"),
            "check source.host and source.port",
        ),
        line("a database that is not there", postgres("database = \"none\""), "FL2101", 71, "\"none\"", "check source.database"),
        line("a wrong password", weak("WRONG"), "FL2002", 71, &world.weak_role, "source.password_file"),
        line("an authority that is not trusted", postgres("tls = \"verify_full\""), "FL2003", 71, address, "set source.ca_file"),
        line("a role that may not replicate", weak("SECRET"), "FL2004", 71, &world.weak_role, "run: ALTER ROLE"),
        line("a table without a replica identity", keyless, "FL2009", 71, "public.keyless", "REPLICA IDENTITY FULL"),
        line("a server whose log is not logical", source(physical), "FL2100", 71, "wal_level", "ALTER SYSTEM SET wal_level = 'logical'"),
        line("a publication that nobody made", postgres("manage = false"), "FL2102", 71, "feedline_bad_checked", "run: CREATE PUBLICATION"),
        line("a query that writes", query(writes), "FL5004", 71, "public.orders", "one SELECT that writes nothing"),
        line(
            "a query without the key",
            query("SELECT note FROM public.orders"),
            "FL5004",
            71,
            "no column \"id\"",
            "with the key's columns",
        ),
    ]
}

/// Brokers.
fn sinks(world: &World) -> Vec<Line> {
    let free = port::free();
    let sink = |sink: String| Input::new(world.sqlite("shop.db"), ORDERS, sink);
    let amqp = |lines: String| sink(world.amqp(&lines));
    let kafka = |lines: &str| sink(world.kafka(lines));
    let exchange = format!("exchange = \"{}\"", world.exchange);
    let two = Input::new(world.sqlite("shop.db"), "[[feeds]]\ntables = [\"orders\", \"others\"]", world.kafka("topic = \"one\""));
    let poor = format!("user = \"{}\"\npassword_env = \"SECRET\"\nvhost = \"/\"\n{exchange}", world.poor_user);
    let nowhere = format!("kind = \"kafka\"\nbootstrap_servers = \"127.0.0.1:{free}\"");
    let broker = format!("127.0.0.1:{}", world.rabbit.port());
    vec![
        line("Kafka that is not there", sink(nowhere), "FL3001", 71, format!("127.0.0.1:{free}"), "check `sink.bootstrap_servers`"),
        line("a topic that is not there", kafka("topic = \"none.{table}\""), "FL3005", 71, "none.orders", "set `sink.create_topics`"),
        line("a topic's name that Kafka refuses", kafka("topic = \"a b\""), "FL1013", 2, "\"a b\"", "change `topic`"),
        line(
            "a topic's name that is too long",
            kafka(&format!("topic = \"{}\"", "x".repeat(250))),
            "FL1013",
            2,
            "main.orders",
            "change `topic`",
        ),
        line("two tables on one topic", two, "FL1012", 2, "main.others", "{table}"),
        line(
            "RabbitMQ that is not there",
            amqp(format!("port = {free}")),
            "FL3001",
            71,
            format!("127.0.0.1:{free}"),
            "check sink.host and sink.port",
        ),
        line("RabbitMQ's password", amqp("password_env = \"WRONG\"".into()), "FL3002", 71, "\"guest\"", "sink.password_file"),
        line("a virtual host that is not there", amqp("vhost = \"none\"".into()), "FL3201", 71, "\"none\"", "rabbitmqctl add_vhost"),
        line("an exchange of the broker's own", amqp("exchange = \"amq.direct\"".into()), "FL1003", 2, "amq.direct", "expected a name"),
        line(
            "an exchange that is not there",
            amqp("exchange = \"none\"\ndeclare = false".into()),
            "FL3202",
            71,
            "\"none\"",
            "name another one, or make it durable, of type topic",
        ),
        line("a user without permissions", amqp(poor), "FL3004", 71, &world.poor_user, "rabbitmqctl set_permissions"),
        line(
            "no topic for the checkpoint",
            kafka("[checkpoint]\nkind = \"kafka\""),
            "FL4008",
            71,
            "bad_checked.checkpoint",
            "--partitions 1 --replication-factor 1 --config cleanup.policy=compact",
        ),
        line(
            "no queue for the checkpoint",
            amqp(format!("{exchange}\ndeclare = false\n[checkpoint]\nkind = \"amqp\"")),
            "FL4008",
            71,
            "bad_checked.checkpoint",
            "let sink.declare make it, or make a durable one",
        ),
        line("TLS where there is none", amqp("tls = \"require\"".into()), "FL3003", 71, broker, "check sink.port"),
        line(
            "a routing key that is too long",
            amqp(format!("routing_key = \"{}\"", "x".repeat(256))),
            "FL1013",
            2,
            "main.orders",
            "set a shorter feeds.routing_key",
        ),
        line(
            "a management API that is not there",
            amqp(format!("{exchange}\nmanagement_url = \"http://127.0.0.1:{free}\"")),
            "FL3205",
            0,
            format!("127.0.0.1:{free}"),
            "rabbitmq-plugins enable rabbitmq_management",
        ),
    ]
}

#[test]
fn every_bad_input_that_check_can_find_is_named_with_its_remedy() {
    let world = World::new("checked");
    let plain = Postgres::start(&Options { settings: vec![("wal_level", "replica")], ..Options::default() });
    plain.psql("postgres", "CREATE TABLE orders (id int PRIMARY KEY)");
    let lines = [configurations(&world), sources(&world, &plain), sinks(&world)].into_iter().flatten().collect();
    assert_named(lines, |input| world.program.check(input));
    std::fs::remove_dir_all(&world.program.directory).unwrap();
}
