//! RabbitMQ: the program's rate, compared with a publisher that writes frames by hand.

use crate::{
    kinds::{Bench, Shape, TABLE, VALUES, carry, establish, unique},
    meter::{Drain, timed},
    servers::rabbitmq::RabbitMq,
};
use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    process::Command,
};

/// Roughly the size of an event's body here.
const BODY_BYTES: usize = 560;
const WINDOW: u64 = 1_000;
const BURST: u64 = 100;

/// A backlog that was carried, and the rate of the hand-written publisher for the same number of events.
pub(crate) struct Against {
    pub(crate) drain: Drain,
    pub(crate) bare_rate: f64,
}

/// A connection on which frames are written by hand (AMQP 0-9-1, 2.3.5 and 1.4 to 1.8).
struct Bare(TcpStream);

impl Bare {
    fn open(broker: &RabbitMq) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", broker.port())).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.write_all(b"AMQP\0\0\x09\x01").unwrap();
        let mut bare = Self(stream);
        bare.read();
        // start-ok, tune-ok, connection.open, channel.open, confirm.select
        let mut start = vec![0, 10, 0, 11, 0, 0, 0, 0, 5];
        start.extend(b"PLAIN\0\0\0\x0c\0guest\0guest\x05en_US");
        bare.write(&frame(1, 0, &start));
        bare.read();
        let mut tune = vec![0, 10, 0, 31];
        tune.extend(2047_u16.to_be_bytes());
        tune.extend(131_072_u32.to_be_bytes());
        tune.extend(0_u16.to_be_bytes());
        bare.write(&frame(1, 0, &tune));
        for (channel, method) in [(0, &[0, 10, 0, 40, 1, b'/', 0, 0][..]), (1, &[0, 20, 0, 10, 0]), (1, &[0, 85, 0, 10, 0])] {
            bare.write(&frame(1, channel, method));
            bare.read();
        }
        bare
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    fn read(&mut self) -> Vec<u8> {
        let mut head = [0; 7];
        self.0.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes(head[3..].try_into().unwrap()) as usize;
        let mut rest = vec![0; length + 1];
        self.0.read_exact(&mut rest).unwrap();
        rest
    }

    /// Publishes this many events, with the properties and the size of feedline's, to its exchange. It sends a window at a time, and waits for
    /// all confirms.
    fn publish(&mut self, exchange: &str, count: u64) {
        let short = |text: &str| [&[u8::try_from(text.len()).unwrap()][..], text.as_bytes()].concat();
        let long = |text: &str| [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat();
        let mut publish = vec![0, 60, 0, 40, 0, 0];
        publish.extend(short(exchange));
        publish.extend(short("public.event.insert"));
        // Mandatory.
        publish.push(1);
        let field = |name: &str, value: &str| [short(name), vec![b'S'], long(value)].concat();
        let table = [field("feedline-table", "public.event"), field("feedline-key", "{\"id\":100000}")].concat();
        let mut header = vec![0, 60, 0, 0];
        header.extend((BODY_BYTES as u64).to_be_bytes());
        // Content type, headers, delivery mode, message id, timestamp, type, application.
        header.extend([0xB0, 0xE8]);
        header.extend(short("application/json"));
        header.extend(u32::try_from(table.len()).unwrap().to_be_bytes());
        header.extend(table);
        header.push(2);
        header.extend(short("bench1/00000001-00000000016B3748-1-0000000000000030"));
        header.extend(1_700_000_000_u64.to_be_bytes());
        header.extend(short("insert"));
        header.extend(short("feedline"));
        let one = [frame(1, 1, &publish), frame(2, 1, &header), frame(3, 1, &[b'x'; BODY_BYTES])].concat();
        let burst = one.repeat(usize::try_from(BURST).unwrap());
        let (mut sent, mut confirmed) = (0, 0);
        while confirmed < count {
            while sent < count && sent + BURST - confirmed <= WINDOW {
                self.write(&burst);
                sent += BURST;
            }
            let method = self.read();
            assert_eq!(method[..4], [0, 60, 0, 80], "a confirm");
            let tag = u64::from_be_bytes(method[4..12].try_into().unwrap());
            confirmed = if method[12] & 1 == 1 { tag } else { confirmed + 1 };
        }
    }
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap();
    [&[kind][..], &channel.to_be_bytes(), &length.to_be_bytes(), payload, &[0xCE]].concat()
}

impl Bench {
    /// A backlog of PostgreSQL to a durable queue of this type.
    pub(crate) fn rabbit_postgres(&self, broker: &RabbitMq, shape: Shape, queue: &str) -> Against {
        let (name, database) = (unique(), self.postgres.create_database("bench"));
        self.postgres.psql(&database, TABLE);
        let mut feedline = self.to_rabbit(broker, &name, &self.source(&database), "public.event", queue);
        establish(&mut feedline);
        let Shape { transactions, rows } = shape;
        self.postgres.psql(
            &database,
            &format!(
                "DO $$ BEGIN FOR t IN 0..{transactions} - 1 LOOP \
                 INSERT INTO event SELECT {VALUES}, 0 FROM generate_series(t * {rows}, (t + 1) * {rows} - 1) g; COMMIT; END LOOP; END $$"
            ),
        );
        let against = against(broker, &name, &mut feedline, transactions * rows);
        drop(feedline);
        self.remove(&name, &database);
        against
    }

    /// A backlog of SQLite to a durable queue of this type.
    pub(crate) fn rabbit_sqlite(&self, broker: &RabbitMq, rows: u32, queue: &str) -> Against {
        let name = unique();
        let path = self.sqlite(&name);
        let source = format!("kind = \"sqlite\"\npath = \"{}\"", path.display());
        let mut feedline = self.to_rabbit(broker, &name, &source, "main.event", queue);
        establish(&mut feedline);
        Self::fill_sqlite(&path, rows);
        against(broker, &name, &mut feedline, rows)
    }

    /// From commit to an outside consumer, at a thousand changes a second: the median and the 99th of a hundred, in milliseconds.
    pub(crate) fn rabbit_latency(&self, broker: &RabbitMq, seconds: u32, queue: &str) -> [f64; 2] {
        let (name, database) = (unique(), self.postgres.create_database("bench"));
        self.postgres.psql(&database, TABLE);
        let mut feedline = self.to_rabbit(broker, &name, &self.source(&database), "public.event", queue);
        feedline.start();
        feedline.wait_until_live();
        let count = (seconds + 1) * 1_000;
        let script = "import json, pika, sys, time\n\
            c = pika.BlockingConnection(pika.URLParameters(sys.argv[1])).channel(); c.basic_qos(prefetch_count=1000)\n\
            seen = []\n\
            for m, _, b in c.consume(sys.argv[2]):\n  \
              seen.append(time.time() * 1e3 - json.loads(b)['after']['sent_us'] / 1e3); c.basic_ack(m.delivery_tag)\n  \
              if len(seen) == int(sys.argv[3]): break\n\
            seen = sorted(seen[1000:]); print(seen[len(seen) // 2], seen[len(seen) * 99 // 100])";
        let url = format!("amqp://guest:guest@127.0.0.1:{}/%2f", broker.port());
        let consumer = Command::new("/usr/bin/python3")
            .args(["-c", script, &url, &name, &count.to_string()])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        self.write_steadily(&database, count);
        let seen = String::from_utf8(consumer.wait_with_output().unwrap().stdout).unwrap();
        let seen: Vec<f64> = seen.split_whitespace().map(|number| number.parse().unwrap()).collect();
        feedline.stop();
        drop(feedline);
        self.remove(&name, &database);
        [seen[0], seen[1]]
    }

    fn to_rabbit(&self, broker: &RabbitMq, name: &str, source: &str, table: &str, queue: &str) -> crate::feedline::Feedline {
        let directory = self.directory.join(name);
        fs::create_dir_all(&directory).unwrap();
        let configuration = format!(
            "name = \"{name}\"\n[source]\n{source}\n[[feeds]]\ntables = [\"{table}\"]\nprefeed = \"none\"\n\
             [sink]\nkind = \"amqp\"\nport = {}\ntls = \"disable\"\npassword = \"guest\"\n\
             [[sink.queues]]\nname = \"{name}\"\nkeys = [\"#\"]\ntype = \"{queue}\"\n\
             [checkpoint]\npath = \"{}\"\n",
            broker.port(),
            directory.join("checkpoint").display(),
        );
        crate::feedline::Feedline::new(&directory, &configuration)
    }
}

/// Carries the backlog, empties the queue, and then publishes as many events by hand.
fn against(broker: &RabbitMq, queue: &str, feedline: &mut crate::feedline::Feedline, events: u32) -> Against {
    let drain = carry(feedline, events);
    broker.ctl(&["purge_queue", queue]);
    let mut bare = Bare::open(broker);
    let count = u64::from(events) / BURST * BURST;
    let took = timed(|| bare.publish(queue, count));
    broker.ctl(&["delete_queue", queue]);
    Against { drain, bare_rate: f64::from(u32::try_from(count).unwrap()) / took.as_secs_f64() }
}
