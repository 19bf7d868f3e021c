//! Errors that only a run finds: in servers, rows and checkpoints.

use super::{Input, Line, ORDERS, STDOUT, World, assert_named, line, sqlite};
use crate::amqp::destination::Destination;
use crate::crash::feedline::Feedline;
use crate::servers::port;
use lapin::ExchangeKind;
use lapin::options::ExchangeDeclareOptions;
use lapin::types::FieldTable;
use std::time::Duration;

/// Declares an exchange that does not fit.
fn exchange(world: &World, name: &str, kind: ExchangeKind, durable: bool) -> Input {
    let destination = Destination { port: world.rabbit.port(), name: format!("{}.{name}", world.exchange) };
    let exchange = destination.name.clone();
    destination.with_channel(async move |channel| {
        let options = ExchangeDeclareOptions { durable, ..ExchangeDeclareOptions::default() };
        channel.exchange_declare(exchange.as_str().into(), kind, options, FieldTable::default()).await.unwrap();
    });
    Input::new(world.sqlite("shop.db"), ORDERS, world.amqp(&format!("exchange = \"{}\"", destination.name)))
}

/// A new SQLite database with one row; each pipeline leaves its change log in its database.
fn database(world: &World, name: &str, row: &str) -> String {
    let statements = format!(
        "PRAGMA journal_mode = WAL; CREATE TABLE orders (id TEXT PRIMARY KEY NOT NULL, note TEXT); INSERT INTO orders VALUES ({row})"
    );
    sqlite(&world.program.directory.join(name), &statements);
    world.sqlite(name)
}

/// Errors in servers, rows and files.
fn lines(world: &World) -> Vec<Line> {
    let direct = exchange(world, "direct", ExchangeKind::Direct, true);
    let fleeting = exchange(world, "fleeting", ExchangeKind::Topic, false);
    let bound = format!("exchange = \"{}\"", world.exchange);
    let wide_key = Input::new(database(world, "wide_key.db", "printf('%.*c', 140000, 'x'), ''"), ORDERS, world.amqp(&bound));
    let unbound = "exchange = \"nobody.listens\"";
    let unroutable = Input::new(database(world, "unroutable.db", "1, ''"), ORDERS, world.amqp(unbound));
    let topic = format!("small.{}", world.exchange);
    world.kafka.create_topic(&topic, 1, &[("max.message.bytes", "2000")]);
    let wide_row =
        Input::new(database(world, "wide_row.db", "1, printf('%.*c', 5000, 'x')"), ORDERS, world.kafka(&format!("topic = \"{topic}\"")));
    let rows = world.program.directory.join("rows.jsonl");
    std::fs::write(&rows, "{\"id\":\"1\"}\n{\"id\":2\n").unwrap();
    let broken = format!("{ORDERS}\nprefeed = {{ file = \"{}\" }}", rows.display());
    let repeats = format!("{ORDERS}\nprefeed = {{ query = \"SELECT 1 AS id, note FROM public.orders\" }}");
    vec![
        line(
            "an exchange of another type",
            direct,
            "FL3202",
            71,
            format!("{}.direct", world.exchange),
            "name another one, or make it durable, of type topic, neither auto-delete nor internal",
        ),
        line("an exchange of another durability", fleeting, "FL3202", 71, format!("{}.fleeting", world.exchange), "make it durable"),
        line("a key too long for a header", wide_key, "FL3007", 71, "main.orders", "raise that limit of the broker"),
        line("an event that no queue takes", unroutable, "FL3203", 71, "main.orders.read", "bind a queue"),
        line("a record too large for its topic", wide_row, "FL3007", 71, topic, "max.message.bytes"),
        line(
            "a prefeed's file with a broken line",
            Input::new(database(world, "broken.db", "1, ''"), &broken, STDOUT),
            "FL5003",
            71,
            "line 2",
            "correct the line",
        ),
        line(
            "a query that repeats a key",
            Input::new(world.postgres(""), &repeats, STDOUT),
            "FL5004",
            71,
            "the key (1) more than once",
            "unique and not null",
        ),
    ]
}

#[test]
fn every_bad_input_that_only_a_run_finds_is_named_with_its_remedy() {
    let world = World::new("run_only");
    assert_named(lines(&world), |input| world.program.run(input));
    // The slot of a run would keep the server's log for all other tests.
    let slot = format!("SELECT pg_drop_replication_slot('feedline_{}')", world.program.name);
    port::wait_for("the slot is free", Duration::from_secs(10), || world.postgres.try_psql(&world.database, &slot).ok());
    std::fs::remove_dir_all(&world.program.directory).unwrap();
}

/// The configuration of a pipeline that runs beside the refused one.
fn configuration(world: &World, input: &Input, checkpoint: &str) -> String {
    let checkpoint = world.program.directory.join(checkpoint);
    format!(
        "name = \"{}\"\n[source]\n{}\n{}\n[checkpoint]\npath = \"{}\"\n[sink]\n{}\n",
        world.program.name,
        input.source,
        input.feeds,
        checkpoint.display(),
        input.sink
    )
}

#[test]
fn a_second_instance_waits_for_the_first_and_says_who_it_is() {
    let world = World::new("second");
    let instance = |name: &str, input: &Input| {
        let directory = world.program.directory.join(name);
        std::fs::create_dir(&directory).unwrap();
        let mut text = configuration(&world, input, &format!("{name}/checkpoint"));
        text = text.replace("password_env = \"RABBIT\"", "password = \"guest\"");
        let mut feedline = Feedline::new(&directory, &text);
        feedline.start();
        feedline.wait_until_live();
        feedline
    };
    // Two pipelines of one name on one RabbitMQ.
    let bound = world.amqp(&format!("exchange = \"{}\"", world.exchange));
    let mut first = instance("rabbit", &Input::new(database(&world, "first.db", "1, ''"), ORDERS, bound.clone()));
    let second = Input::new(database(&world, "second.db", "1, ''"), ORDERS, bound);
    let held = line("RabbitMQ's lock", second, "FL3011", 75, "bad_second.lock", "stop it, or wait");
    assert_named(vec![held], |input| world.program.run(input));
    first.stop();
    // A copy of the checkpoint, and the slot is another's. It goes on where the server's log does, so it is held while the copy is used.
    let input = || Input::new(world.postgres(""), ORDERS, STDOUT);
    let mut first = instance("postgres", &input());
    first.pause();
    std::fs::copy(world.program.directory.join("postgres/checkpoint"), world.program.directory.join("checkpoint")).unwrap();
    let busy = line("a slot that is in use", input(), "FL2010", 75, "\"feedline_bad_second\" is in use", "stop it, or wait");
    assert_named(vec![busy], |input| world.program.run_on(input));
    first.resume();
    first.stop();
    world.postgres.psql(&world.database, &format!("SELECT pg_drop_replication_slot('feedline_{}')", world.program.name));
    std::fs::remove_dir_all(&world.program.directory).unwrap();
}

#[test]
fn a_checkpoint_that_cannot_be_trusted_is_refused() {
    let world = World::new("checkpoint");
    let input = || Input::new(world.sqlite("shop.db"), ORDERS, STDOUT);
    let mut feedline =
        Feedline::new(&world.program.directory, &configuration(&world, &input(), "checkpoint").replace(&world.program.name, "another"));
    feedline.start();
    feedline.wait_until_live();
    feedline.stop();
    let file = world.program.directory.join("checkpoint");
    let refused = |line: Line| assert_named(vec![line], |input| world.program.run_on(input));
    refused(line("another pipeline's checkpoint", input(), "FL4100", 71, "\"another\"", "set `name` back"));
    let good = std::fs::read(&file).unwrap();
    // In both slots: another version, with its checksum.
    let mut newer = good.clone();
    for slot in newer.chunks_mut(256 << 10) {
        let length = usize::from(u16::from_le_bytes([slot[24], slot[25]]));
        slot[8] = 9;
        let checksum = crc32c::crc32c(&slot[..32 + length]).to_le_bytes();
        slot[32 + length..36 + length].copy_from_slice(&checksum);
    }
    std::fs::write(&file, newer).unwrap();
    refused(line("a checkpoint of a later version", input(), "FL4003", 71, "format version 9", "run the version that wrote it"));
    let mut torn = good;
    torn.chunks_mut(256 << 10).for_each(|slot| slot[100] ^= 1);
    std::fs::write(&file, torn).unwrap();
    refused(line("a checkpoint that is torn", input(), "FL4002", 71, "is unusable", "`feedline checkpoint reset` and `feedline detach`"));
    std::fs::remove_dir_all(&world.program.directory).unwrap();
}
