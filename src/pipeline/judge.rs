//! Decides for how long a failure is retried: another instance that holds the pipeline, a refused login, a refused certificate.

use super::failure::Failure;
use crate::fault::{Code, Exit, Fault};
use std::time::Duration;
use tokio::time::Instant;

/// Delays after refused logins, before each of which secrets are read again: they may just have been renewed. Or the authentication service
/// (a directory) is away, which many servers report as a refused login. Few attempts: some servers lock a user out.
const LOGIN_DELAYS: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(30)];
/// The same at a first start, where a mistake is most likely: it ends within half a minute.
const FIRST_LOGIN_DELAYS: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(25)];
/// A refusal longer ago than this is not counted with the current one.
const LOGIN_FORGOTTEN: Duration = Duration::from_mins(5);

/// Judges failures in a row.
#[derive(Debug)]
pub(super) struct Judge {
    takeover_timeout: Duration,
    held_since: Option<Instant>,
    /// Refused logins in a row, and the time of the last.
    refused: usize,
    refused_at: Option<Instant>,
    /// Whether the pipeline ran before: then its login was right once.
    was_right: bool,
}

impl Judge {
    pub(super) const fn new(takeover_timeout: Duration) -> Self {
        Self { takeover_timeout, held_since: None, refused: 0, refused_at: None, was_right: true }
    }

    /// For a first start.
    pub(super) const fn of_first_start(takeover_timeout: Duration) -> Self {
        Self { was_right: false, ..Self::new(takeover_timeout) }
    }

    /// Notes that the pipeline ran before.
    pub(super) const fn ran_before(&mut self) {
        self.was_right = true;
    }

    /// Returns the failure with its fault corrected: fatal for an instance that holds the pipeline longer than the timeout, transient for the
    /// first refused logins.
    pub(super) fn judge(&mut self, failure: Failure, begun: Instant) -> Failure {
        let is_held = failure.code.exit() == Exit::Held && failure.is_transient();
        self.held_since = if is_held { Some(self.held_since.unwrap_or(begun)) } else { None };
        let is_refused = (is_login(failure.code) || (self.was_right && is_tls(failure.code))) && !failure.is_transient();
        match self.held_since {
            Some(since) if self.takeover_timeout <= since.elapsed() => {
                let waited = self.takeover_timeout.as_secs();
                let message = format!("{} (waited {waited} s: `pipeline.takeover_timeout`)", failure.message);
                Failure { fault: Fault::Fatal, message, ..failure }
            }
            _ if is_refused => self.judge_login(failure),
            _ => {
                self.refused = 0;
                failure
            }
        }
    }

    fn judge_login(&mut self, failure: Failure) -> Failure {
        if self.refused_at.is_some_and(|at| LOGIN_FORGOTTEN <= at.elapsed()) {
            self.refused = 0;
        }
        self.refused_at = Some(Instant::now());
        self.refused += 1;
        let Some(delay) = self.login_delay() else { return failure };
        let message = format!(
            "{} (asked again in {} s, with {})",
            failure.message,
            delay.as_secs(),
            if is_tls(failure.code) {
                "certificates read again"
            } else {
                "secrets read again: a server reports the same while its authentication service is away"
            }
        );
        Failure { fault: Fault::Transient, message, ..failure }
    }

    /// The delay after the last refused login; `None` where there was none, or a person must act.
    fn login_delay(&self) -> Option<Duration> {
        let delays = if self.was_right { LOGIN_DELAYS } else { FIRST_LOGIN_DELAYS };
        delays.get(self.refused.checked_sub(1)?).copied()
    }

    /// Notes a success.
    pub(super) const fn passed(&mut self) {
        self.held_since = None;
        self.refused = 0;
    }

    /// The delay before the next attempt.
    pub(super) fn delay(&self, delay: Duration) -> Duration {
        self.login_delay().map_or(delay, |minimum| delay.max(minimum))
    }
}

/// Whether a failure with this code is a refused login or a missing permission: brokers ask the same service for both.
const fn is_login(code: Code) -> bool {
    matches!(code, Code::SourceAuthentication | Code::SinkAuthentication | Code::SinkPrivilege | Code::VirtualHostMissing)
}

/// Whether a failure with this code is a refused certificate. One side's certificate may have been renewed before the other side's
/// authorities were.
const fn is_tls(code: Code) -> bool {
    matches!(code, Code::SourceTls | Code::SinkTls)
}

/// Whether a failure with this code may be over once files are read again.
pub(super) const fn may_be_renewed(code: Code) -> bool {
    is_login(code) || is_tls(code)
}

#[cfg(test)]
mod tests {
    use super::{FIRST_LOGIN_DELAYS, Judge, LOGIN_DELAYS};
    use crate::fault::{Code, Fault};
    use crate::pipeline::failure::Failure;
    use std::time::Duration;
    use tokio::time::{Instant, advance};

    const TIMEOUT: Duration = Duration::from_secs(90);

    fn failure(code: Code, fault: Fault) -> Failure {
        Failure { code, fault, message: "it failed".to_owned() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_is_waited_for_until_the_timeout() {
        let mut judge = Judge::new(TIMEOUT);
        let held = || failure(Code::SinkBusy, Fault::Transient);
        assert!(judge.judge(held(), Instant::now()).is_transient());
        advance(TIMEOUT).await;
        let given_up = judge.judge(held(), Instant::now());
        assert!(!given_up.is_transient() && given_up.message.contains("waited 90 s"), "{given_up}");
        // Another failure between them starts the timeout anew.
        assert!(judge.judge(failure(Code::SinkUnreachable, Fault::Transient), Instant::now()).is_transient());
        assert!(judge.judge(held(), Instant::now()).is_transient());
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_login_is_tried_again_before_it_is_fatal() {
        let refused = || failure(Code::SourceAuthentication, Fault::Fatal);
        let mut judge = Judge::new(TIMEOUT);
        for delay in LOGIN_DELAYS {
            assert!(judge.judge(refused(), Instant::now()).is_transient());
            assert_eq!(judge.delay(Duration::from_millis(100)), delay);
            advance(delay).await;
        }
        assert!(!judge.judge(refused(), Instant::now()).is_transient());
        // Long after, or after another failure, counting starts anew.
        advance(Duration::from_mins(5)).await;
        assert!(judge.judge(refused(), Instant::now()).is_transient());
        judge.judge(failure(Code::SourceUnreachable, Fault::Transient), Instant::now());
        assert_eq!(judge.delay(Duration::from_millis(100)), Duration::from_millis(100));
        assert!(judge.judge(refused(), Instant::now()).is_transient());
    }

    #[tokio::test(start_paused = true)]
    async fn a_certificate_that_was_right_once_is_read_again() {
        for code in [Code::SourceTls, Code::SinkTls] {
            let judged = Judge::new(TIMEOUT).judge(failure(code, Fault::Fatal), Instant::now());
            assert!(judged.is_transient() && judged.message.contains("in 2 s, with certificates read again"), "{judged}");
            assert!(!Judge::of_first_start(TIMEOUT).judge(failure(code, Fault::Fatal), Instant::now()).is_transient());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_start_ends_within_half_a_minute() {
        let refused = || failure(Code::SinkAuthentication, Fault::Fatal);
        let mut judge = Judge::of_first_start(TIMEOUT);
        let begun = Instant::now();
        for delay in FIRST_LOGIN_DELAYS {
            let judged = judge.judge(refused(), Instant::now());
            assert!(judged.is_transient() && judged.message.contains(&format!("in {} s", delay.as_secs())), "{judged}");
            assert_eq!(judge.delay(Duration::from_millis(100)), delay);
            advance(delay).await;
        }
        assert!(begun.elapsed() < Duration::from_secs(30));
        assert!(!judge.judge(refused(), Instant::now()).is_transient());
    }
}
