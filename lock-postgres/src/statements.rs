//! The statements, with the schema's name put in.

use std::sync::Arc;

use lock_core::{ErrorKind, StoreError};

/// The longest identifier of PostgreSQL, in bytes (NAMEDATALEN - 1); it cuts longer ones without a word.
pub(crate) const MAX_IDENTIFIER: usize = 63;

/// A schema's name, checked.
#[derive(Clone, Debug)]
pub(crate) struct Schema(String);

impl Schema {
    /// The one that is used unless another is named.
    pub(crate) fn usual() -> Self {
        Self("leasehold".to_owned())
    }

    pub(crate) fn new(name: &str) -> Result<Self, StoreError> {
        let complaint = if name.is_empty() {
            "the schema's name can't be empty".to_owned()
        } else if name.len() > MAX_IDENTIFIER {
            format!("the schema's name has at most {MAX_IDENTIFIER} bytes, this one has {}", name.len())
        } else if name.contains('\0') {
            "the schema's name can't contain a NUL byte".to_owned()
        } else {
            return Ok(Self(name.to_owned()));
        };
        Err(StoreError::refused(ErrorKind::InvalidConfig, complaint))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Puts the quoted names into a statement of `sql/`.
    ///
    /// Safe to execute: an identifier in double quotes ends at a double quote alone, and those are doubled
    /// (PostgreSQL manual, 4.1.1). Names of locks and all other data go as parameters.
    pub(crate) fn qualify(&self, template: &str) -> String {
        self.template(template).fill(&[])
    }

    /// A statement with the quoted names put in, into which values go.
    ///
    /// A schema that is named like a placeholder is not replaced again: a template is read once.
    pub(crate) fn template(&self, template: &str) -> Template {
        let schema = format!("\"{}\"", self.0.replace('"', "\"\""));
        let (mut pieces, mut text, mut rest) = (Vec::new(), String::new(), template);
        while let Some((before, (word, after))) =
            rest.split_once("{{").and_then(|(before, after)| Some((before, after.split_once("}}")?)))
        {
            text.push_str(before);
            match word {
                "schema" => text.push_str(&schema),
                "locks" | "fences" => text.extend([&schema, ".\"", word, "\""]),
                "guards" => text.push_str(&self.guards()),
                "takeovers" => text.push_str(&self.takeovers()),
                value => pieces.push((std::mem::take(&mut text), value.to_owned())),
            }
            rest = after;
        }
        text.push_str(rest);
        Template { pieces, end: text }
    }

    /// What the keys of this schema's guards are hashed with, so that they are others in each schema.
    fn guards(&self) -> String {
        format!("'{}'::bigint", fnv1a(&format!("leasehold guards:{}", self.0)).cast_signed())
    }

    /// The first half of the keys of this schema's take-overs: keys of two halves are others than whole ones.
    fn takeovers(&self) -> String {
        (fnv1a(&format!("leasehold take-overs:{}", self.0)) >> 33).to_string()
    }

    /// The channel of this schema's wake-ups, no longer than an identifier. `NOTIFY` stays within one database.
    pub(crate) fn channel(&self) -> String {
        let plain = format!("leasehold:{}", self.0);
        if plain.len() <= MAX_IDENTIFIER {
            return plain;
        }
        let cut = (0..=MAX_IDENTIFIER - 17).rev().find(|at| plain.is_char_boundary(*at)).unwrap_or(0);
        format!("{}~{:016x}", &plain[..cut], fnv1a(&plain))
    }
}

/// A statement that lacks only its values.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    /// Text, and the name of the value that comes after it.
    pieces: Vec<(String, String)>,
    end: String,
}

impl Template {
    /// The statement with these values, which are safe as they are: nothing is quoted. One that isn't named is empty.
    pub(crate) fn fill(&self, values: &[(&str, &str)]) -> String {
        let mut filled = String::with_capacity(1024);
        for (text, name) in &self.pieces {
            filled.push_str(text);
            filled.push_str(values.iter().find(|(named, _)| named == name).map_or("", |(_, value)| *value));
        }
        filled.push_str(&self.end);
        filled
    }
}

/// FNV-1a, 64 bits: the same in every version and process, which the hashers of `std` don't promise.
pub(crate) fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The statements for one schema.
#[derive(Debug)]
pub(crate) struct Statements {
    pub(crate) acquire: Arc<str>,
    pub(crate) renew: Arc<str>,
    pub(crate) release: Arc<str>,
    pub(crate) force_release: Arc<str>,
    pub(crate) notify: Arc<str>,
    pub(crate) inspect: Arc<str>,
    pub(crate) list: Arc<str>,
    pub(crate) sweep: Arc<str>,
}

impl Statements {
    pub(crate) fn new(schema: &Schema) -> Self {
        let qualify = |template| Arc::from(schema.qualify(template));
        Self {
            acquire: qualify(include_str!("sql/acquire.sql")),
            renew: qualify(include_str!("sql/renew.sql")),
            release: qualify(include_str!("sql/release.sql")),
            force_release: qualify(include_str!("sql/force_release.sql")),
            notify: qualify(include_str!("sql/notify.sql")),
            inspect: qualify(include_str!("sql/inspect.sql")),
            list: qualify(include_str!("sql/list.sql")),
            sweep: qualify(include_str!("sql/sweep.sql")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_cannot_break_out_of_its_quotes() {
        let schema = Schema::new("a\".x; drop table y; --").unwrap();
        assert_eq!(schema.qualify("SELECT FROM {{locks}}"), "SELECT FROM \"a\"\".x; drop table y; --\".\"locks\"");
        let schema = Schema::new("{{locks}}").unwrap();
        assert_eq!(schema.qualify("{{schema}} {{locks}}"), "\"{{locks}}\" \"{{locks}}\".\"locks\"");
        let schema = Schema::new("{{token}}").unwrap();
        let filled = schema.template("{{token}} {{fences}} {{lock}}").fill(&[("token", "5"), ("lock", "78")]);
        assert_eq!(filled, "5 \"{{token}}\".\"fences\" 78");
        for bad in ["", "a\0b", &"x".repeat(64)] {
            assert_eq!(Schema::new(bad).unwrap_err().kind(), ErrorKind::InvalidConfig, "{bad:?}");
        }
    }

    #[test]
    fn channels_fit_and_differ() {
        let long = |end| Schema::new(&("é".repeat(30) + end)).unwrap().channel();
        assert!(long("a").len() <= MAX_IDENTIFIER);
        assert_ne!(long("a"), long("b"));
        assert_eq!(Schema::new("leasehold").unwrap().channel(), "leasehold:leasehold");
    }
}
