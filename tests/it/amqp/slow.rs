//! A broker behind a slow connection, and one that offers larger limits than feedline needs.

use super::connector;
use super::destination::Destination;
use crate::contract_sink::{Builder, Settling, Spec, open};
use crate::servers::line::Line;
use crate::servers::rabbitmq::RabbitMq;
use feedline::sink::Sink;
use lapin::types::FieldTable;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Sending this takes longer than the confirm timeout. What the kernel holds of it at the end, up to 3 MB, takes less.
const BYTES: usize = 6 << 20;
const BYTES_PER_SECOND: usize = 70_000;

#[tokio::test]
async fn a_large_event_on_a_slow_line_is_sent_once() {
    let destination = Destination::new(RabbitMq::shared(), &["#"], FieldTable::default());
    let line = Line::to(destination.port, BYTES_PER_SECOND);
    let mut options = destination.options();
    options.addresses[0].port = line.port();
    let mut connector = connector(options);
    let mut session = open(&mut connector).await;
    let (mut builder, mut settling) = (Builder::new(), Settling::new());
    let body = "x".repeat(BYTES);
    let batch = builder.batch(&[Spec::insert("shop/1", "{\"id\":1}", &body)]).await;
    session.submit(Arc::clone(&batch), settling.ack(&batch, 1)).await.unwrap();
    let settled = timeout(Duration::from_mins(10), async {
        loop {
            if let Some(settled) = settling.so_far().first() {
                return settled.confirmed;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    assert!(settled.await.unwrap(), "{:?}", session.failure());
    session.close().await.unwrap();
    assert_eq!(destination.read().len(), 1, "one copy");
}

#[tokio::test]
async fn the_negotiated_limits_are_no_larger_than_needed() {
    for (frame_max, expected) in [("0", "131072"), ("16777216", "131072"), ("65536", "65536")] {
        let broker = Arc::new(RabbitMq::start(&[("frame_max", frame_max), ("channel_max", "0"), ("heartbeat", "600")]));
        let destination = Destination::new(&broker, &["#"], FieldTable::default());
        let mut connector = connector(destination.options());
        let session = open(&mut connector).await;
        let told = tokio::task::spawn_blocking({
            let broker = Arc::clone(&broker);
            move || broker.ctl(&["list_connections", "--no-table-headers", "frame_max", "channel_max", "timeout"])
        });
        let told = told.await.unwrap();
        assert_eq!(told.split_whitespace().collect::<Vec<_>>(), [expected, "256", "10"], "{told}");
        session.close().await.unwrap();
    }
}
