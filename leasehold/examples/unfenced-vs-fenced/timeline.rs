//! What was seen, as lines and as a picture.

use std::{fmt::Write, time::Duration};

/// To whom it happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    A,
    B,
    Data,
}

/// One course of events.
#[derive(Debug)]
pub(crate) struct Scene {
    told: String,
    events: Vec<(Lane, Duration, String)>,
}

impl Scene {
    pub(crate) fn new(told: &str) -> Self {
        Self { told: told.to_owned(), events: Vec::new() }
    }

    pub(crate) fn note(&mut self, lane: Lane, at: Duration, what: &str) {
        self.events.push((lane, at, what.to_owned()));
    }

    pub(crate) fn as_text(&self) -> String {
        let line = |(lane, at, what): &(Lane, Duration, String)| {
            let who = match lane {
                Lane::A => "A",
                Lane::B => "  B",
                Lane::Data => "    ",
            };
            format!("  {:6.3} s  {who} {what}", at.as_secs_f64())
        };
        self.events.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    /// When this was seen of the lane.
    fn when(&self, lane: Lane, what: &str) -> Option<Duration> {
        let found = |event: &&(Lane, Duration, String)| event.0 == lane && event.2.starts_with(what);
        self.events.iter().find(found).map(|(_, at, _)| *at)
    }
}

const WIDTH: f64 = 760.0;
const LEFT: f64 = 60.0;
const HEIGHT: f64 = 210.0;

/// The scenes, one below the other, on one scale of time.
pub(crate) fn draw(scenes: &[Scene]) -> String {
    let last = |scene: &Scene| scene.events.last().map_or(0.0, |(_, at, _)| at.as_secs_f64());
    let scale = (WIDTH - LEFT - 190.0) / scenes.iter().map(last).fold(0.1, f64::max);
    let height = HEIGHT * scenes.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    for (scene, top) in scenes.iter().zip((0..).map(|index| f64::from(index) * HEIGHT)) {
        draw_scene(&mut svg, scene, top, scale);
    }
    svg + "</svg>\n"
}

fn draw_scene(svg: &mut String, scene: &Scene, top: f64, scale: f64) {
    let x = |at: Duration| LEFT + at.as_secs_f64() * scale;
    let y = |lane| top + [60.0, 110.0, 160.0][lane as usize];
    text(svg, 10.0, top + 22.0, "#000", &format!("<tspan font-weight=\"bold\">{}</tspan>", escaped(&scene.told)));
    for (lane, name) in [(Lane::A, "A"), (Lane::B, "B"), (Lane::Data, "balance")] {
        text(svg, 10.0, y(lane) + 4.0, "#000", name);
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{1:.1}\" y2=\"{1:.1}\" stroke=\"#ccc\"/>",
            WIDTH - 10.0,
            y(lane)
        );
    }
    // Holding the lock, and standing still.
    let granted = |lane| scene.when(lane, "granted");
    if let (Some(a), Some(b)) = (granted(Lane::A), granted(Lane::B)) {
        bar(svg, x(a), x(b), y(Lane::A), "#9ecae1");
        let end = scene.when(Lane::B, "writes").unwrap_or(b);
        bar(svg, x(b), x(end), y(Lane::B), "#9ecae1");
    }
    if let (Some(from), Some(to)) = (scene.when(Lane::A, "frozen"), scene.when(Lane::A, "goes on")) {
        let _ = writeln!(
            svg,
            "<line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{2:.1}\" y2=\"{2:.1}\" stroke=\"#555\" stroke-width=\"3\" stroke-dasharray=\"3 3\"/>",
            x(from),
            x(to),
            y(Lane::A)
        );
        text(svg, x(from) + 8.0, y(Lane::A) - 12.0, "#555", "frozen (SIGSTOP)");
    }
    for lane in [Lane::A, Lane::B] {
        let side = if lane == Lane::A { -12.0 } else { 22.0 };
        if let Some(at) = granted(lane) {
            text(svg, x(at), y(lane) + 22.0, "#08519c", "granted");
        }
        if let Some((_, at, what)) = scene.events.iter().find(|event| event.0 == lane && event.2.starts_with("writes"))
        {
            let _ = writeln!(
                svg,
                "<line x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{1:.1}\" y2=\"{2:.1}\" stroke=\"#006d2c\" stroke-width=\"2\"/>",
                x(*at),
                y(lane),
                y(Lane::Data)
            );
            text(svg, x(*at) + 5.0, y(lane) + side, "#006d2c", &escaped(what));
        }
        if let Some(at) = scene.when(lane, "refused") {
            text(svg, x(at) - 5.0, y(lane) + 5.0, "#a50f15", "<tspan font-size=\"18\">×</tspan>");
            text(svg, x(at) + 10.0, y(lane) - 12.0, "#a50f15", "refused");
        }
    }
    if let Some((_, at, what)) = scene.events.iter().find(|event| event.0 == Lane::Data) {
        let bad = scene.when(Lane::A, "writes").is_some();
        let (color, told) = if bad { ("#a50f15", ": B's write is lost") } else { ("#006d2c", "") };
        text(svg, x(*at) + 5.0, y(Lane::Data) + 22.0, color, &format!("{}{told}", escaped(what)));
    }
}

fn bar(svg: &mut String, from: f64, to: f64, y: f64, color: &str) {
    let width = (to - from).max(3.0);
    let _ = writeln!(
        svg,
        "<rect x=\"{from:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"12\" fill=\"{color}\"/>",
        y - 6.0
    );
}

fn text(svg: &mut String, x: f64, y: f64, color: &str, text: &str) {
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"{color}\">{text}</text>");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
