//! The prefeed (SCAN-CUT): sends existing rows between live events, so that no key ever goes backwards.
//!
//! A slice holds the log, opens a snapshot whose exact position in the log (the cut) is known, reads rows as the snapshot shows them, hands over
//! the log up to the cut, and then sends the rows. So the order for each key is: live events up to the cut, the row at the cut, live events
//! after it up to the next cut, and so on. A row that is deleted between two slices has its delete event between them. A row that is read
//! again is newer. No key is compared outside the database, and nothing is written to it.

mod between;
mod file;
mod plan;
mod rate_limit;
mod report;
mod run;
mod slice;

pub(super) use plan::Plan;
