//! What was found.

use serde::Serialize;

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// Works, but not as it should.
    Warning,
    /// Does not work.
    Bad,
    /// Cannot be reached, so that nothing can be said.
    Unreachable,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How it is.
    pub verdict: Verdict,
    /// Which part, for example `broker 10.0.0.1:5672`.
    pub part: String,
    /// What was seen.
    pub seen: String,
    /// How to mend it; empty where it is good.
    pub cure: String,
}

/// All findings, in the order in which they were made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Findings.
    pub findings: Vec<Finding>,
}

impl Report {
    /// The gravest verdict; `Good` where nothing was looked at.
    #[must_use]
    pub fn worst(&self) -> Verdict {
        let all = self.findings.iter().map(|finding| finding.verdict);
        all.max().unwrap_or(Verdict::Good)
    }

    pub(super) fn good(&mut self, part: impl Into<String>, seen: impl Into<String>) {
        self.add(Verdict::Good, part.into(), seen.into(), "");
    }

    pub(super) fn warn(
        &mut self,
        part: impl Into<String>,
        seen: impl Into<String>,
        cure: impl Into<String>,
    ) {
        self.add(Verdict::Warning, part.into(), seen.into(), cure);
    }

    pub(super) fn bad(
        &mut self,
        part: impl Into<String>,
        seen: impl Into<String>,
        cure: impl Into<String>,
    ) {
        self.add(Verdict::Bad, part.into(), seen.into(), cure);
    }

    pub(super) fn unreachable(
        &mut self,
        part: impl Into<String>,
        seen: impl Into<String>,
        cure: impl Into<String>,
    ) {
        self.add(Verdict::Unreachable, part.into(), seen.into(), cure);
    }

    fn add(&mut self, verdict: Verdict, part: String, seen: String, cure: impl Into<String>) {
        self.findings.push(Finding {
            verdict,
            part,
            seen,
            cure: cure.into(),
        });
    }
}
