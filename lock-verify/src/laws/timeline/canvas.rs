//! The few shapes that a timeline is made of, as SVG.

use std::fmt::Write;

/// A drawing under way.
#[derive(Debug, Default)]
pub(super) struct Canvas(String);

/// How a line is drawn.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stroke {
    Thin,
    Thick,
    Dashed,
}

impl Canvas {
    /// A band or bar; `told` is shown to who points at it.
    pub(super) fn bar(&mut self, [x, y, width, height]: [f64; 4], color: &str, told: &str) {
        let (width, told) = (width.max(1.5), escaped(told));
        let _ = writeln!(
            self.0,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{color}\"><title>{told}</title></rect>"
        );
    }

    pub(super) fn line(&mut self, [x1, y1, x2, y2]: [f64; 4], color: &str, stroke: Stroke) {
        let style = match stroke {
            Stroke::Thin => "stroke-width=\"1\"",
            Stroke::Thick => "stroke-width=\"2.5\"",
            Stroke::Dashed => "stroke-width=\"2\" stroke-dasharray=\"4 3\"",
        };
        let _ = writeln!(
            self.0,
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{color}\" {style}/>"
        );
    }

    pub(super) fn cross(&mut self, x: f64, y: f64, color: &str) {
        self.line([x - 4.0, y - 4.0, x + 4.0, y + 4.0], color, Stroke::Thick);
        self.line([x - 4.0, y + 4.0, x + 4.0, y - 4.0], color, Stroke::Thick);
    }

    pub(super) fn dot(&mut self, x: f64, y: f64, color: &str) {
        let _ = writeln!(self.0, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{color}\"/>");
    }

    /// A ring with a number, around what is pointed out.
    pub(super) fn ring(&mut self, x: f64, y: f64, number: usize) {
        let _ = writeln!(
            self.0,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"7\" fill=\"none\" stroke=\"{RED}\" stroke-width=\"2\"/>"
        );
        self.text(x + 8.0, y - 5.0, RED, Anchor::Start, &number.to_string(), true);
    }

    pub(super) fn text(&mut self, x: f64, y: f64, color: &str, anchor: Anchor, text: &str, bold: bool) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let (weight, text) = (if bold { " font-weight=\"bold\"" } else { "" }, escaped(text));
        // A rim of the background's colour keeps text readable over lines.
        let _ = writeln!(
            self.0,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"{color}\" text-anchor=\"{anchor}\"{weight} paint-order=\"stroke\" stroke=\"#fff\" stroke-width=\"3\" stroke-linejoin=\"round\">{text}</text>"
        );
    }

    /// The whole picture.
    pub(super) fn finish(self, width: f64, height: f64) -> String {
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{}</svg>\n",
            self.0
        )
    }
}

/// Which part of a text stands at its place.
#[derive(Clone, Copy, Debug)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// What broke a law.
pub(super) const RED: &str = "#c00d1e";

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            c if c.is_control() => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}
