//! What all checks came to.

use std::fmt;

use super::finding::{Finding, Law, Violation};

/// The findings of all laws. Its `Display` is a table for people, followed by the first violations of each law.
#[derive(Clone, Debug)]
pub struct Report {
    findings: Vec<Finding>,
}

/// So many violations of a law are told in full.
const TOLD: usize = 3;

impl Report {
    pub(super) fn new(findings: Vec<Finding>) -> Self {
        Self { findings }
    }

    /// Each law's.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// This law's, if it was judged.
    #[must_use]
    pub fn of(&self, law: Law) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.law == law)
    }

    /// Adds another law's finding.
    pub fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// Whether no law was broken but where that was to be expected. It does not say that all of them were checked.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.iter().all(|finding| finding.broken == 0)
    }

    /// What broke a law, in the order of the laws.
    pub fn violations(&self) -> impl Iterator<Item = &Violation> {
        self.findings.iter().flat_map(|finding| &finding.violations)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<18}  {:>9}  {:>8}  {:>8}  says", "law", "checked", "broken", "expected")?;
        for finding in &self.findings {
            let Finding { law, checked, things, broken, excused, unseen, .. } = finding;
            let says = match (checked, broken) {
                (_, 1..) => "BROKEN".to_owned(),
                (0, _) => "nothing to check".to_owned(),
                _ => format!("kept by {checked} {things}"),
            };
            write!(f, "{law:<18}  {checked:>9}  {broken:>8}  {excused:>8}  {says}")?;
            for (what, count) in unseen {
                write!(f, "; not checked: {count} {what}")?;
            }
            writeln!(f)?;
        }
        for finding in &self.findings {
            for (kept, all, word) in
                [(&finding.violations, finding.broken, "broken"), (&finding.expected, finding.excused, "expected")]
            {
                for Violation { told, events, excuse, .. } in kept.iter().take(TOLD) {
                    let excuse = excuse.map(|excuse| format!(" ({excuse})")).unwrap_or_default();
                    writeln!(f, "{} {word}: {told}{excuse}; events {events:?}", finding.law)?;
                }
                if all > TOLD as u64 {
                    writeln!(f, "{} {word}: and {} more", finding.law, all - TOLD as u64)?;
                }
            }
        }
        Ok(())
    }
}
