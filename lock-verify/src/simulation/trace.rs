//! The events of a run, one a line: what `--replay` prints.

use std::fmt;

use lock_core::{AcquireRequest, Acquired, ReleaseRequest, Released, RenewRequest, Renewed};

use super::network::Question;

/// Writes down what happens, if anybody wants to know.
#[derive(Debug, Default)]
pub(super) struct Trace(pub(super) Option<String>);

impl Trace {
    pub(super) fn note(&mut self, at: u64, who: &str, what: fmt::Arguments<'_>) {
        if let Some(text) = &mut self.0 {
            use fmt::Write as _;
            // Writing to a string doesn't fail.
            let _ = writeln!(text, "{:>5}.{:09} {who:<9} {what}", at / 1_000_000_000, at % 1_000_000_000);
        }
    }

    pub(super) fn of_node(&mut self, at: u64, node: usize, what: fmt::Arguments<'_>) {
        if self.0.is_some() {
            self.note(at, &format!("node {node}"), what);
        }
    }

    pub(super) fn sent(&mut self, at: u64, node: usize, question: &Question) {
        if self.0.is_none() {
            return;
        }
        match question {
            Question::Acquire(requests, _) => {
                for request in requests {
                    self.of_node(at, node, format_args!("asks for {} as {}", request.name, request.owner));
                }
            }
            Question::Renew(requests, _) => {
                for request in requests {
                    self.of_node(at, node, format_args!("renews {} under {}", request.name, request.token));
                }
            }
            Question::Release(requests, _) => {
                for request in requests {
                    self.of_node(at, node, format_args!("releases {} of {}", request.name, request.owner));
                }
            }
            Question::Listen(..) => self.of_node(at, node, format_args!("subscribes")),
            Question::Write(write, _) => {
                self.of_node(at, node, format_args!("sends write {} under {}", write.number, write.fence));
            }
        }
    }

    pub(super) fn acquired(&mut self, at: u64, node: usize, request: &AcquireRequest, answer: &Acquired) {
        if self.0.is_none() {
            return;
        }
        let (name, owner) = (&request.name, request.owner);
        match answer {
            Acquired::Granted(grant) => {
                self.note(at, "store", format_args!("{name} to node {node} as {owner}: granted under {}", grant.token));
            }
            // Without the holder, which tells of this process.
            Acquired::Held(held) => {
                self.note(at, "store", format_args!("{name} to node {node}: held for {:?}", held.remaining));
            }
            other => self.note(at, "store", format_args!("{name} to node {node}: {other:?}")),
        }
    }

    pub(super) fn renewed(&mut self, at: u64, node: usize, request: &RenewRequest, answer: Renewed) {
        self.note(at, "store", format_args!("{} of node {node} under {}: {answer:?}", request.name, request.token));
    }

    pub(super) fn released(&mut self, at: u64, node: usize, request: &ReleaseRequest, answer: Released) {
        let (name, owner, keep) = (&request.name, request.owner, request.keep_for);
        self.note(at, "store", format_args!("{name} of node {node} as {owner}: {answer:?}, kept {keep:?}"));
    }
}
