//! Delivery: gives batches to the sink, and makes durable what the sink has confirmed.
//!
//! [`Delivery`] is what the sink side asks for. [`AtLeastOnce`] is its one implementation: it gives batches to the sink as they come and saves
//! the checkpoint at an interval. The ledger, the fold and the commit timer know nothing of each other.

mod at_least_once;
mod commit_timer;
mod fold;
mod ledger;
mod save_attempts;
mod saver;
mod stall;
mod strategy;

pub(super) use at_least_once::{AtLeastOnce, Handles};
pub use ledger::{Ledger, Lost};
pub(super) use saver::Durable;
pub(super) use strategy::{Delivery, DeliveryError, Interrupt};
