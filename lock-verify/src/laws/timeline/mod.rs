//! A history as a picture: clients as rows, holds as bars with their tokens, what was written as marks, faults as bands.
//!
//! A bar is as long as its holder believed; a thin line before it is the call that got it, a short upright line its deadline, a
//! red cross its loss. Below the bars: what was written, green where the resource accepted it, a red cross where it refused,
//! orange where nobody knows. The events of a violation have red rings with numbers, and are told in words below.

mod canvas;
mod rows;
mod shown;

use lock_core::Moment;

pub use self::shown::{Shown, Subject};
use self::{
    canvas::{Anchor, Canvas, RED, Stroke},
    rows::Rows,
};
use super::facts::{Facts, Made};
use crate::history::{Event, F, Kind, Mode, Process};

const WIDTH: f64 = 1_200.0;
const LEFT: f64 = 110.0;
const RIGHT: f64 = 30.0;
const TOP: f64 = 70.0;
const ROW: f64 = 52.0;
const BLUES: [&str; 4] = ["#6baed6", "#74c476", "#9e9ac8", "#fd8d3c"];
const GREY: &str = "#8a8a8a";
const GREEN: &str = "#1a7f37";
const LEGEND: &str = "bar: believed · broken line: to its deadline · green: accepted · red cross: refused, or lost · orange: nobody knows · sand: fault";
const ORANGE: &str = "#d9730d";

/// Draws what is to be shown, as SVG.
#[must_use]
pub fn draw(facts: &Facts<'_>, shown: &Shown) -> String {
    let rows = Rows::of(facts, shown);
    let mut drawing =
        Drawing { facts, shown, bottom: TOP + ROW * rows.count() as f64, rows, canvas: Canvas::default() };
    drawing.bands();
    drawing.head();
    drawing.axis();
    drawing.holds();
    drawing.calls();
    drawing.marks();
    drawing.pointed_out();
    let height = drawing.bottom + 66.0 + 18.0 * shown.pointed_out.len() as f64;
    drawing.canvas.finish(WIDTH, height)
}

struct Drawing<'a> {
    facts: &'a Facts<'a>,
    shown: &'a Shown,
    rows: Rows,
    bottom: f64,
    canvas: Canvas,
}

impl Drawing<'_> {
    fn x(&self, at: Moment) -> f64 {
        let whole = self.shown.to.since(self.shown.from).as_secs_f64().max(1e-9);
        let part = at.clamp(self.shown.from, self.shown.to).since(self.shown.from).as_secs_f64();
        LEFT + part / whole * (WIDTH - LEFT - RIGHT)
    }

    fn is_in(&self, from: Moment, to: Moment) -> bool {
        from <= self.shown.to && to >= self.shown.from
    }

    /// The middle of a process's row.
    fn y(&self, process: Process) -> Option<f64> {
        self.rows.of_process(process).map(|row| TOP + ROW * (row as f64 + 0.5))
    }

    fn head(&mut self) {
        self.canvas.text(10.0, 20.0, "#000", Anchor::Start, &shortened(&self.shown.title, 160), true);
        for (row, name) in self.rows.names().enumerate() {
            let y = TOP + ROW * (row as f64 + 0.5);
            self.canvas.text(10.0, y + 4.0, "#000", Anchor::Start, &name, false);
            self.canvas.line([LEFT, y, WIDTH - RIGHT, y], "#ddd", Stroke::Thin);
        }
        if self.rows.left_out() > 0 {
            let told = format!("{} more processes are not drawn", self.rows.left_out());
            self.canvas.text(WIDTH - RIGHT, 20.0, GREY, Anchor::End, &told, false);
        }
    }

    /// Faults: over the rows that they befell.
    fn bands(&mut self) {
        let mut told_until = [0.0_f64; 2];
        for fault in &self.facts.faults {
            if !self.is_in(fault.from, fault.to) {
                continue;
            }
            let event = self.facts.event(fault.at);
            let (from, to) = (self.x(fault.from), self.x(fault.to));
            let what = event.fault.as_deref().unwrap_or("fault");
            let told = event.target.as_deref().map_or_else(|| what.to_owned(), |target| format!("{what} {target}"));
            let rows = event.clients.iter().filter_map(|client| self.y(Process::Client(*client)));
            let spans: Vec<[f64; 2]> = if event.clients.is_empty() {
                vec![[TOP, self.bottom - TOP]]
            } else {
                rows.map(|y| [y - ROW / 2.0, ROW]).collect()
            };
            for [y, height] in spans {
                self.canvas.bar([from, y, (to - from).max(2.0), height], "#f8e6c4", &told);
            }
            let free = told_until.iter().position(|until| *until <= from);
            if let Some(line) = free {
                let y = TOP - 8.0 - 14.0 * line as f64;
                self.canvas.text(from, y, "#7a5200", Anchor::Start, &told, false);
                told_until[line] = from + 7.0 * told.chars().count() as f64 + 8.0;
            }
        }
    }

    /// The bars: beliefs, with tokens and deadlines.
    fn holds(&mut self) {
        let mut told_until = vec![0.0_f64; self.rows.count()];
        for grant in &self.facts.grants {
            let shows = self.shown.shows(self.facts.event(grant.got_at)) && self.is_in(grant.got, grant.deadline);
            let (Some(y), true) = (self.y(grant.process), shows) else { continue };
            let (from, to) = (self.x(grant.got), self.x(grant.until));
            let lock = self.facts.locks.name(grant.lock);
            let mode = if grant.mode == Mode::Exclusive { String::new() } else { format!(" ({})", grant.mode) };
            let told = format!("{lock}: {}{mode}", grant.token);
            if self.is_in(grant.got, grant.until) {
                self.canvas.bar([from, y - 8.0, to - from, 16.0], BLUES[grant.lock % BLUES.len()], &told);
            }
            if grant.deadline >= self.shown.from && grant.deadline <= self.shown.to {
                let x = self.x(grant.deadline);
                self.canvas.line([to, y, x, y], BLUES[grant.lock % BLUES.len()], Stroke::Dashed);
                self.canvas.line([x, y - 9.0, x, y + 9.0], "#08519c", Stroke::Thin);
            }
            let row = self.rows.of_process(grant.process).unwrap_or_default();
            let short = if self.shown.subject.is_some() { format!("{}{mode}", grant.token) } else { told };
            if from >= told_until[row] {
                self.canvas.text(from, y - 13.0, "#08519c", Anchor::Start, &short, false);
                told_until[row] = from + 7.0 * short.chars().count() as f64 + 6.0;
            }
        }
    }

    /// What was under way: acquires as thin lines, those in doubt dashed.
    fn calls(&mut self) {
        for made in &self.facts.calls {
            let invoke = self.facts.event(made.call.invoke);
            if !self.is_in(made.start, made.end) || !self.shown.shows(invoke) {
                continue;
            }
            let Some(y) = self.y(made.call.process) else { continue };
            match made.call.f {
                F::Acquire => self.under_way(made, y),
                F::Release => self.canvas.line([self.x(made.start), y, self.x(made.end), y], GREY, Stroke::Thick),
                F::Write | F::Raise => self.write(made, y + 16.0),
                _ => {}
            }
        }
    }

    fn under_way(&mut self, made: &Made, y: f64) {
        let (color, stroke) = match made.outcome {
            Kind::Info => (ORANGE, Stroke::Dashed),
            _ => (GREY, Stroke::Thin),
        };
        let (from, to) = (self.x(made.start), self.x(made.end));
        self.canvas.line([from, y, to, y], color, stroke);
        self.canvas.line([from, y - 4.0, from, y + 4.0], color, Stroke::Thin);
        if made.outcome == Kind::Fail && made.end <= self.shown.to {
            self.canvas.line([to, y - 4.0, to, y + 4.0], color, Stroke::Thin);
        }
    }

    fn write(&mut self, made: &Made, y: f64) {
        let x = self.x(made.end);
        self.canvas.line([self.x(made.start), y, x, y], GREY, Stroke::Thin);
        match made.outcome {
            Kind::Ok => self.canvas.dot(x, y, GREEN),
            Kind::Fail => self.canvas.cross(x, y, RED),
            _ => self.canvas.dot(x, y, ORANGE),
        }
    }

    /// Losses and ends of processes.
    fn marks(&mut self) {
        let events = self.facts.history.events();
        let first = events.partition_point(|event| event.time < self.shown.from);
        for event in events[first..].iter().take_while(|event| event.time <= self.shown.to) {
            let (Some(y), true) = (self.y(event.process), self.shown.shows(event)) else { continue };
            let x = self.x(event.time);
            match event.f {
                F::Lost => {
                    self.canvas.cross(x, y, RED);
                    self.canvas.text(x + 4.0, y - 9.0, RED, Anchor::Start, "lost", false);
                }
                F::Exit => {
                    self.canvas.line([x, y - 16.0, x, y + 16.0], "#000", Stroke::Thick);
                    self.canvas.text(x + 4.0, y + 4.0, "#000", Anchor::Start, "end of process", false);
                }
                _ => {}
            }
        }
    }

    fn pointed_out(&mut self) {
        self.canvas.text(LEFT, self.bottom + 40.0, GREY, Anchor::Start, LEGEND, false);
        let mut below = self.bottom + 66.0;
        for (number, at) in (1_usize..).zip(&self.shown.pointed_out) {
            let event = self.facts.event(*at);
            if let Some(middle) = self.y(event.process) {
                let y = if matches!(event.f, F::Write | F::Raise) { middle + 16.0 } else { middle };
                self.canvas.ring(self.x(event.time), y, number);
            }
            self.canvas.text(LEFT, below, "#000", Anchor::Start, &in_words(number, event, self.shown.from), false);
            below += 18.0;
        }
    }

    /// Time, from the left edge on.
    fn axis(&mut self) {
        let whole = self.shown.to.since(self.shown.from).as_nanos().max(1);
        let step = step(whole);
        self.canvas.line([LEFT, self.bottom, WIDTH - RIGHT, self.bottom], "#555", Stroke::Thin);
        for tick in (0..=whole / step).map(|tick| tick * step) {
            let at = std::time::Duration::from_nanos(u64::try_from(tick).unwrap_or(u64::MAX));
            let x = self.x(self.shown.from + at);
            self.canvas.line([x, self.bottom, x, self.bottom + 4.0], "#555", Stroke::Thin);
            self.canvas.text(
                x,
                self.bottom + 18.0,
                "#555",
                Anchor::Middle,
                &if tick == 0 { "0".to_owned() } else { format!("{at:?}") },
                false,
            );
        }
    }
}

/// 1, 2 or 5 times a power of ten, so that there are some ten steps.
fn step(whole: u128) -> u128 {
    let mut power = 1;
    while power * 100 <= whole {
        power *= 10;
    }
    [1, 2, 5, 10].into_iter().map(|times| times * power).find(|step| whole / step <= 12).unwrap_or(power * 10)
}

fn in_words(number: usize, event: &Event, from: Moment) -> String {
    let mut told = format!(
        "{number}   at {:.3?}: process {}, {:?} {:?}",
        event.time.since(from),
        event.process,
        event.f,
        event.kind
    );
    let mut say = |what: &str, value: Option<String>| {
        told.extend(value.map(|value| format!(", {what} {value}")));
    };
    say("lock", event.lock.as_deref().map(|lock| shortened(&format!("{lock:?}"), 40)));
    say("token", event.token.map(|token| token.to_string()));
    say("deadline", event.deadline.map(|deadline| format!("at {:.3?}", deadline.since(from))));
    say("resource", event.resource.as_deref().map(|resource| shortened(&format!("{resource:?}"), 40)));
    say("value", event.value.map(|value| value.to_string()));
    say("valid:", event.valid.map(|valid| valid.to_string()));
    say("because", event.why.map(|why| format!("{why:?}")));
    told
}

fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most { text.to_owned() } else { text.chars().take(most).chain(['…']).collect() }
}
