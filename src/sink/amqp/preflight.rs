//! Preflight: what a start would do to the broker, what would stop it, and which events no queue would take. Read-only.
//!
//! Without a broker, a login or the virtual host there is nothing to check. All other problems are collected, so that one run reports
//! all of them.

use super::connect::{self, ANSWER_TIMEOUT, BrokerConnection};
use super::error::Error;
use super::options::Options;
use crate::feed::Feeds;
use crate::preflight::Findings;
use inspection::Inspection;
use lapin::ExchangeKind;
use tokio::time::timeout;

mod bindings;
mod exchanges;
mod inspection;
mod permissions;
mod question;
mod queues;
mod routes;

/// Runs the preflight.
pub(super) async fn preflight(options: &Options, feeds: &Feeds) -> Result<Findings, Error> {
    let BrokerConnection { connection, peer, address, .. } = connect::connect(options).await?;
    let product = connect::greeting(options, &address, &peer).await?.property("product");
    let is_rabbitmq = product.as_deref() == Some("RabbitMQ");
    let mut inspection = Inspection::new(options, feeds, connection, peer, is_rabbitmq);
    inspection.check_lock().await?;
    let exchange = inspection.check_exchange(&options.exchange, &ExchangeKind::Topic, "publish", "").await?;
    for queue in &options.queues {
        inspection.check_queue(queue, &options.exchange).await?;
    }
    let dead_letters = inspection.check_dead_letters().await?;
    // A broker that is short of memory or disk stops reading from a connection that has published. So publishing is checked last.
    for (name, state) in [(Some(options.exchange.as_str()), Some(&exchange)), (options.dead_letter.as_deref(), dead_letters.as_ref())] {
        if let (Some(name), Some(state)) = (name, state) {
            inspection.check_publishing(name, state).await?;
            inspection.check_reading_exchange(name).await?;
        }
    }
    inspection.report_permissions();
    inspection.check_routes(&exchange, dead_letters.as_ref()).await;
    if !inspection.is_blocked() {
        // All answers are there: an error here changes nothing. The channel of a refused question may still be closing.
        let _closed = timeout(ANSWER_TIMEOUT, inspection.connection.close(200, "looked".into())).await;
    }
    Ok(inspection.findings)
}
