//! Histories as Jepsen's tools read them.

use std::fmt::Write;

use super::{
    event::Event,
    kinds::{Kind, Process},
};

/// One event as a line of EDN: `{:process 3, :type :invoke, :f :acquire, :value {…}, :time 123}`.
///
/// What belongs to the event is its `:value`, under the names that it has in JSON. Jepsen wants the nemesis's events to be
/// `:info` and each process to make one call at a time; so the call's number stands in the value as well.
#[must_use]
pub fn to_edn(event: &Event) -> String {
    let said = serde_json::to_value(event).unwrap_or_default();
    let kind = match event.process {
        Process::Nemesis => Kind::Info,
        Process::Client(_) => event.kind,
    };
    let word = |value: serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let as_word = |value: Result<serde_json::Value, _>| value.map(word).unwrap_or_default();
    let process = match event.process {
        Process::Client(number) => number.to_string(),
        Process::Nemesis => ":nemesis".to_owned(),
    };
    let (kind, f) = (as_word(serde_json::to_value(kind)), as_word(serde_json::to_value(event.f)));
    let mut line = format!("{{:process {process}, :type :{kind}, :f :{f}, :value {{");
    let outside = ["process", "type", "f", "time"];
    let inside = said.as_object().into_iter().flatten().filter(|(name, _)| !outside.contains(&name.as_str()));
    for (place, (name, value)) in inside.enumerate() {
        let _ = write!(line, "{}:{} ", if place == 0 { "" } else { ", " }, name.replace('_', "-"));
        write_value(&mut line, value);
    }
    let _ = write!(line, "}}, :time {}}}", event.time.as_nanos());
    line
}

fn write_value(line: &mut String, value: &serde_json::Value) {
    match value {
        serde_json::Value::Array(items) => {
            line.push('[');
            for (place, item) in items.iter().enumerate() {
                if place > 0 {
                    line.push(' ');
                }
                write_value(line, item);
            }
            line.push(']');
        }
        serde_json::Value::String(text) => write_text(line, text),
        serde_json::Value::Null => line.push_str("nil"),
        // Numbers and booleans are spelt alike; events have no objects inside.
        other => {
            let _ = write!(line, "{other}");
        }
    }
}

/// A string that every reader of EDN takes: its escapes are fewer than JSON's.
fn write_text(line: &mut String, text: &str) {
    line.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                line.push('\\');
                line.push(c);
            }
            '\n' => line.push_str("\\n"),
            '\t' => line.push_str("\\t"),
            '\r' => line.push_str("\\r"),
            c if c.is_control() => {
                let _ = write!(line, "\\u{:04x}", u32::from(c));
            }
            c => line.push(c),
        }
    }
    line.push('"');
}
