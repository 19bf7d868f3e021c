//! What passes only for so long: another instance in the way, a refused login.

use crate::fault::{Code, Exit, Fault};
use crate::pipeline::failure::Failure;
use std::time::Duration;
use tokio::time::Instant;

/// How long after a refused login the next is tried, with secrets read anew: they may just be renewed, or whoever knows them
/// (a directory, an authentication service) be away, which a server tells in the same words. Few tries: some lock a user out.
const LOGIN_DELAYS: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(30)];
/// The same at a first start, where it is most likely a slip: it ends within half a minute.
const FIRST_LOGIN_DELAYS: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(25)];
/// A refusal that is so long past has nothing to do with this one.
const LOGIN_FORGOTTEN: Duration = Duration::from_mins(5);

/// Judges failures in a row, each of which may pass.
#[derive(Debug)]
pub(super) struct Judge {
    takeover_timeout: Duration,
    held_since: Option<Instant>,
    /// Refused logins in a row, and when the last was.
    refused: usize,
    refused_at: Option<Instant>,
    /// Whether the pipeline ran before, and so its login was right once.
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

    /// The pipeline ran before.
    pub(super) const fn ran_before(&mut self) {
        self.was_right = true;
    }

    /// The failure, as grave as it is: a holder that stays beyond the timeout is no longer a transient fault, and a login that is
    /// refused is not one to begin with.
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
                "certificates read anew"
            } else {
                "secrets read anew: a server whose authentication service is away says the same"
            }
        );
        Failure { fault: Fault::Transient, message, ..failure }
    }

    /// How long after the last refusal the next try is made; `None` where there is none, or a person must act.
    fn login_delay(&self) -> Option<Duration> {
        let delays = if self.was_right { LOGIN_DELAYS } else { FIRST_LOGIN_DELAYS };
        delays.get(self.refused.checked_sub(1)?).copied()
    }

    /// What was tried succeeded.
    pub(super) const fn passed(&mut self) {
        self.held_since = None;
        self.refused = 0;
    }

    /// How long to wait before the next try.
    pub(super) fn delay(&self, delay: Duration) -> Duration {
        self.login_delay().map_or(delay, |least| delay.max(least))
    }
}

/// Whether a failure with this number is a login that was refused, or what a login may do: a broker asks the same service for it.
const fn is_login(code: Code) -> bool {
    matches!(code, Code::SourceAuthentication | Code::SinkAuthentication | Code::SinkPrivilege | Code::VirtualHostMissing)
}

/// Whether a failure with this number is a certificate that was refused: one side's may just be renewed, before the other's authorities
/// are. What was never right is for a person at once.
const fn is_tls(code: Code) -> bool {
    matches!(code, Code::SourceTls | Code::SinkTls)
}

/// Whether a failure with this number may pass once files are read anew.
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
    async fn a_holder_is_waited_for_as_long_as_is_configured() {
        let mut judge = Judge::new(TIMEOUT);
        let held = || failure(Code::SinkBusy, Fault::Transient);
        assert!(judge.judge(held(), Instant::now()).is_transient());
        advance(TIMEOUT).await;
        let given_up = judge.judge(held(), Instant::now());
        assert!(!given_up.is_transient() && given_up.message.contains("waited 90 s"), "{given_up}");
        // What comes between is another matter.
        assert!(judge.judge(failure(Code::SinkUnreachable, Fault::Transient), Instant::now()).is_transient());
        assert!(judge.judge(held(), Instant::now()).is_transient());
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_login_is_tried_again_before_it_is_a_persons_fault() {
        let refused = || failure(Code::SourceAuthentication, Fault::Fatal);
        let mut judge = Judge::new(TIMEOUT);
        for delay in LOGIN_DELAYS {
            assert!(judge.judge(refused(), Instant::now()).is_transient());
            assert_eq!(judge.delay(Duration::from_millis(100)), delay);
            advance(delay).await;
        }
        assert!(!judge.judge(refused(), Instant::now()).is_transient());
        // Long after, or after another failure, it begins anew.
        advance(Duration::from_mins(5)).await;
        assert!(judge.judge(refused(), Instant::now()).is_transient());
        judge.judge(failure(Code::SourceUnreachable, Fault::Transient), Instant::now());
        assert_eq!(judge.delay(Duration::from_millis(100)), Duration::from_millis(100));
        assert!(judge.judge(refused(), Instant::now()).is_transient());
    }

    #[tokio::test(start_paused = true)]
    async fn a_certificate_that_was_right_once_is_read_anew() {
        for code in [Code::SourceTls, Code::SinkTls] {
            let judged = Judge::new(TIMEOUT).judge(failure(code, Fault::Fatal), Instant::now());
            assert!(judged.is_transient() && judged.message.contains("in 2 s, with certificates read anew"), "{judged}");
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
