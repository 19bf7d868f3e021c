//! What a preflight refuses, as a start sees it.

use feedline::fault::{Classify, Code, Fault};
use feedline::preflight::Warning;
use feedline::source::SourceConnector;

/// A problem with which a start or a session fails.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    code: Code,
    fault: Fault,
    message: String,
}

impl Refusal {
    pub(crate) const fn fatal(code: Code, message: String) -> Self {
        Self { code, fault: Fault::Fatal, message }
    }
}

impl Classify for Refusal {
    fn fault(&self) -> Fault {
        self.fault
    }

    fn code(&self) -> Code {
        self.code
    }
}

/// Makes the preflight, as a start does.
pub(crate) async fn verify(connector: &mut impl SourceConnector) -> Result<(), Vec<Refusal>> {
    let fatal = |Warning { code, message }| Refusal::fatal(code, message);
    let refusals: Vec<_> = match connector.preflight().await {
        Ok(findings) => findings.refusals.into_iter().map(fatal).collect(),
        Err(error) => vec![Refusal { code: error.code(), fault: error.fault(), message: error.to_string() }],
    };
    if refusals.is_empty() { Ok(()) } else { Err(refusals) }
}

/// Asserts that these are all problems, each with its code and these words.
#[track_caller]
pub(crate) fn assert_found(errors: &[Refusal], expected: &[(Code, &[&str])]) {
    for (code, words) in expected {
        let matches = |error: &&Refusal| error.code() == *code && words.iter().all(|word| error.to_string().contains(word));
        assert!(errors.iter().any(|error| matches(&error)), "{code} {words:?} is not in {errors:#?}");
    }
    assert_eq!(errors.len(), expected.len(), "{errors:#?}");
}
