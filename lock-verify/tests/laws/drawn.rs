//! Pictures of histories.

use lock_verify::{
    history::{Effect, Event, F, Why},
    laws::{
        Facts, Law,
        timeline::{Shown, draw},
    },
};

use crate::tape::{Tape, owner, token};

/// A holder stands still, its lock is taken over, it writes all the same.
fn frozen() -> Tape {
    let mut tape = Tape::new();
    tape.acquire(1, 1_010, (0, 20)).write(1, 1_010, 1, (60, 90)).renew(1, 1_010, (300, 320));
    let stopped = |event: Event| event.fault("SIGSTOP").target("process 1").clients(vec![1]);
    tape.call(0, F::Fault, (400, 1_900), stopped, |event, to| event.info(to));
    tape.timed_out(3, 300, (100, 410));
    tape.acquire_as(2, 1_011, (200, 1_420), |event| event.wait(Event::FOR_EVER));
    tape.write(2, 1_011, 2, (1_500, 1_540)).fault("cut", (1_600, 1_650), Effect::Harmless);
    tape.write(1, 1_010, 3, (1_910, 1_940)).lost(1, 1_010, 1_960, Why::Expired);
    tape.attempt(1, 1_010, 4, (2_000, 2_030), |event, to| event.fail(to, Why::Stale));
    tape.doubtful(3, (1_980, 2_100)).release(2, 1_011, (2_150, 2_200));
    tape
}

fn drawn(tape: &Tape) -> String {
    let history = tape.history();
    let facts = Facts::new(&history, &tape.terms);
    let report = tape.judged();
    let shown = report
        .violations()
        .next()
        .map_or_else(|| Shown::beginning(&facts, 1_000), |violation| Shown::violation(&facts, violation));
    draw(&facts, &shown)
}

/// Keeps a picture where it can be looked at, if asked for.
fn keep(name: &str, svg: &str) {
    if let Some(folder) = std::env::var_os("KEEP_PICTURES") {
        std::fs::write(std::path::Path::new(&folder).join(name), svg).unwrap();
    }
}

fn count(svg: &str, part: &str) -> usize {
    svg.matches(part).count()
}

#[test]
fn a_violation_is_pointed_out() {
    let tape = frozen();
    assert_eq!(tape.broken(Law::Resource).len(), 1, "{}", tape.judged());
    let svg = drawn(&tape);
    keep("violation.svg", &svg);
    // Four events with rings, each told in words.
    assert_eq!(count(&svg, "r=\"7\""), 4, "{svg}");
    for told in
        ["process 1", "process 2", "SIGSTOP process 1", "1011", "lost", "Write Ok, lock &quot;x&quot;, token 1010"]
    {
        assert!(svg.contains(told), "{told}: {svg}");
    }
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
}

#[test]
fn the_beginning_is_drawn_where_nothing_is_broken() {
    let mut tape = Tape::new();
    tape.acquire(1, 10, (0, 5)).release(1, 10, (500, 510)).acquire(2, 11, (400, 520)).release(2, 11, (600, 610));
    let svg = drawn(&tape);
    keep("beginning.svg", &svg);
    assert!(svg.contains("all 8 events") && svg.contains("x: 10") && svg.contains("x: 11"), "{svg}");
    assert_eq!(count(&svg, "r=\"7\""), 0);
    assert!(drawn(&Tape::new()).contains("all 0 events"));
}

#[test]
fn names_cannot_break_out_of_the_picture() {
    let mut tape = Tape::new();
    let said = |event: Event| event.lock("</svg><script>&\"\u{7}").owner(owner(1)).ttl(crate::tape::ms(1_000));
    tape.call(1, F::Acquire, (0, 5), said, |event, to| event.ok(to).token(token(1)).deadline(to));
    let svg = drawn(&tape);
    assert_eq!(count(&svg, "</svg>"), 1, "{svg}");
    assert!(!svg.contains("<script>") && !svg.contains('\u{7}'), "{svg}");
}

#[test]
fn many_clients_are_told_and_not_drawn() {
    let mut tape = Tape::new();
    for who in 0..100 {
        tape.refused(who, (0, 5));
    }
    let svg = drawn(&tape);
    assert!(svg.contains("76 more processes are not drawn"), "{svg}");
}
