//! Times as people write them on a command line.

use std::time::Duration;

/// Reads `30s`, `5m`, `1h30m`, or a plain number of seconds (`10`, `1.5`) as in flock(1).
///
/// # Errors
/// A sentence for people.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if plain && let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).map_err(|_| "that is longer than any clock runs".to_owned());
    }
    humantime::parse_duration(text)
        .map_err(|_| "write a time as 30s, 5m, 1h30m or 250ms, or as a number of seconds".to_owned())
}

/// Writes a time for people: whole seconds above ten of them, tenths below.
pub(crate) fn show(span: Duration) -> String {
    if span < Duration::from_secs(10) {
        return format!("{:.1}s", span.as_secs_f64());
    }
    humantime::format_duration(Duration::from_secs(span.as_secs())).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_people_write_them() {
        for (text, millis) in [
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("10", 10_000),
            ("1.5", 1_500),
            ("250ms", 250),
            ("0", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "soon", "-1", "1.5.5", "5 parsecs", "1e400", "inf", "NaN"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
