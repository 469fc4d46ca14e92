//! The report as a whole.

use lock_verify::laws::{Finding, Law};

use crate::tape::Tape;

#[test]
fn a_law_that_checked_nothing_says_so() {
    let report = Tape::new().judged();
    let told = report.to_string();
    assert_eq!(told.matches("nothing to check").count(), report.findings().len(), "{told}");
    assert!(!told.contains("kept"), "{told}");
    assert!(report.is_clean());
    assert!(report.findings().iter().all(|finding| !finding.is_kept()));
}

#[test]
fn the_table_tells_what_was_kept_and_what_broken() {
    let mut tape = Tape::new();
    tape.acquire(1, 10, (0, 5)).acquire(2, 11, (100, 110));
    let told = tape.judged().to_string();
    let line = |law: Law| told.lines().find(|line| line.starts_with(law.name())).unwrap();
    assert!(line(Law::Belief).ends_with("BROKEN"), "{told}");
    assert!(line(Law::Fence).ends_with("kept by 1 grants after another of their lock"), "{told}");
    assert!(line(Law::Order).ends_with("nothing to check"), "{told}");
    let broken = "L1 belief broken: the grant 11 of \"x\" to process 2 was had 895ms before the grant 10 of \"x\" to \
                  process 1 had ended; events [1, 3]";
    assert!(told.contains(broken), "{told}");
}

#[test]
fn many_violations_are_counted() {
    let mut tape = Tape::new();
    for (who, start) in (0_u32..2_000).zip((0_u64..).step_by(2)) {
        tape.acquire(who, u64::from(who), (start, start + 1));
    }
    // Each is believed in for 1000 ms, so that all but the first come too early.
    let report = tape.judged();
    let finding = report.of(Law::Belief).unwrap();
    assert_eq!((finding.broken, finding.violations.len()), (1_999, Finding::KEPT));
    assert!(report.to_string().contains("L1 belief broken: and 1996 more"), "{report}");
}
