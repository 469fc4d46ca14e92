//! The table of properties by store.

use std::fmt::Write;

use comfy_table::{Table, presets};

use crate::results::{Line, Outcome, Results};

/// The whole report: table, footnotes, one closing line per store.
pub(crate) fn report(results: &Results) -> String {
    if results.is_empty() {
        return "no conformance results were written\n".to_owned();
    }
    let mut footnotes = Footnotes::default();
    let mut report = format!("{}\n", table(results, &mut footnotes).trim_fmt());
    if !footnotes.0.is_empty() {
        report.push('\n');
    }
    for (index, reason) in footnotes.0.iter().enumerate() {
        let _ = writeln!(report, "{:>3}  {reason}", index + 1);
    }
    report.push('\n');
    for store in results.stores() {
        let _ = writeln!(report, "{}", closing_line(results, store));
    }
    for line in &results.unreadable {
        let _ = writeln!(report, "unreadable result: {line}");
    }
    report
}

fn table(results: &Results, footnotes: &mut Footnotes) -> Table {
    let stores = results.stores();
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(std::iter::once("property").chain(stores.iter().copied()));
    let mut group = None;
    for property in results.properties() {
        let (this_group, name) = property.split_once("::").unwrap_or(("", property));
        if group != Some(this_group) {
            group = Some(this_group);
            table.add_row([format!("{this_group}::")]);
        }
        let marks = stores.iter().map(|store| mark(results.get(property, store), footnotes));
        table.add_row(std::iter::once(format!("  {name}")).chain(marks));
    }
    table
}

fn mark(line: Option<&Line>, footnotes: &mut Footnotes) -> String {
    let Some(line) = line else {
        return "-".to_owned();
    };
    let word = match line.outcome {
        Outcome::Passed => return "ok".to_owned(),
        Outcome::Ignored => "ign",
        Outcome::Failed => "FAIL",
    };
    match &line.reason {
        Some(reason) => format!("{word} {}", footnotes.number(reason)),
        None => word.to_owned(),
    }
}

fn closing_line(results: &Results, store: &str) -> String {
    let count = |outcome| results.of_store(store).filter(|line| line.outcome == outcome).count();
    let seconds: f64 = results.of_store(store).map(|line| line.seconds).sum();
    format!(
        "{store}: {} passed, {} failed, {} ignored ({seconds:.1} s of tests)",
        count(Outcome::Passed),
        count(Outcome::Failed),
        count(Outcome::Ignored),
    )
}

/// Reasons, each listed once however many cells share it.
#[derive(Default)]
struct Footnotes(Vec<String>);

impl Footnotes {
    fn number(&mut self, reason: &str) -> usize {
        // A reason is a line: a panic's message may have many.
        let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
        match self.0.iter().position(|known| *known == reason) {
            Some(index) => index + 1,
            None => {
                self.0.push(reason);
                self.0.len()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = r#"
{"property":"grants::a_free_lock_is_granted","store":"memory","outcome":"passed","seconds":0.5}
{"property":"grants::a_free_lock_is_granted","store":"postgres","outcome":"passed","seconds":1.25}
{"property":"waiting::no_polling","store":"memory","outcome":"ignored","reason":"no server to count at","seconds":0}
{"property":"waiting::no_polling","store":"postgres","outcome":"failed","reason":"saw 9\nstatements","seconds":2}
{"property":"waiting::fifo","store":"memory","outcome":"ignored","reason":"no server to count at","seconds":0}
"#;

    fn sample() -> String {
        let mut results = Results::default();
        results.add("sample", SAMPLE);
        report(&results)
    }

    #[test]
    fn properties_by_store_with_reasons_once_below() {
        let expected = " property                  memory  postgres
 grants::
   a_free_lock_is_granted  ok      ok
 waiting::
   fifo                    ign 1   -
   no_polling              ign 1   FAIL 2

  1  no server to count at
  2  saw 9 statements

memory: 1 passed, 0 failed, 2 ignored (0.5 s of tests)
postgres: 1 passed, 1 failed, 0 ignored (3.2 s of tests)
";
        assert_eq!(sample(), expected);
    }

    #[test]
    fn nothing_written_is_said() {
        assert_eq!(report(&Results::default()), "no conformance results were written\n");
    }
}
