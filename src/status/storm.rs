//! Keeps a failure that goes on from filling the log: its first line at once, then one a minute, with how often it happened.

use crate::fault::Code;
use std::time::Duration;
use tokio::time::Instant;

/// How often a failure that goes on is logged.
const LOG_EVERY: Duration = Duration::from_mins(1);

/// The failures that were logged, by their code.
#[derive(Debug, Default)]
pub struct Storm(Vec<Logged>);

#[derive(Debug)]
struct Logged {
    code: Code,
    at: Instant,
    /// How often it has happened since.
    since: u64,
}

impl Storm {
    /// Counts a failure. If it is to be logged now, returns how often it has happened since the line before, this time included.
    pub fn due_line(&mut self, code: Code) -> Option<u64> {
        let now = Instant::now();
        let Some(known) = self.0.iter_mut().find(|logged| logged.code == code) else {
            self.0.push(Logged { code, at: now, since: 0 });
            return Some(1);
        };
        known.since += 1;
        if now.saturating_duration_since(known.at) < LOG_EVERY {
            return None;
        }
        known.at = now;
        Some(std::mem::take(&mut known.since))
    }
}

#[cfg(test)]
mod tests {
    use super::Storm;
    use crate::fault::Code;
    use std::time::Duration;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn a_failure_that_goes_on_is_one_line_a_minute_with_a_count() {
        let mut storm = Storm::default();
        let mut lines = Vec::new();
        for second in 0..150_u64 {
            lines.extend(storm.due_line(Code::SinkUnreachable).map(|times| (second, times)));
            advance(Duration::from_secs(1)).await;
        }
        assert_eq!(lines, [(0, 1), (60, 60), (120, 60)]);
        assert_eq!(storm.due_line(Code::SourceUnreachable), Some(1), "another failure is logged at once");
    }
}
