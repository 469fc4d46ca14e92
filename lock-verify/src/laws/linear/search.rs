//! Looks for an order in which a lock that serves one call after the other would have given all the answers.

use std::{cell::Cell, rc::Rc};

use lock_core::{FencingToken, Moment};
use stateright::semantics::{ConsistencyTester, LinearizabilityTester};

use super::model::{Answer, Ask, Locked, Model};

/// One call, as the search sees it.
#[derive(Clone, Debug)]
pub struct Step {
    /// When it began.
    pub start: Moment,
    /// What was asked.
    pub ask: Ask,
    /// When it was answered, and what; of one without an answer nobody knows whether or when it happened.
    pub answer: Option<(Moment, Answer)>,
}

/// What the search came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Searched {
    /// There is such an order.
    Linearizable,
    /// There is none.
    Impossible,
    /// There are too many orders to try.
    TooBig,
}

/// So many calls are searched at most.
pub(super) const CALLS: usize = 60;
/// So many of them may be without an answer: they can happen anywhere, or nowhere.
const OPEN: usize = 6;
/// So many steps of the model are taken at most.
const STEPS: u64 = 20_000;

/// Searches steps of one lock that was free before, `last` being the highest token until then.
#[must_use]
pub fn search(model: Model, last: Option<FencingToken>, steps: &[Step]) -> Searched {
    if steps.len() > CALLS || steps.iter().filter(|step| step.answer.is_none()).count() > OPEN {
        return Searched::TooBig;
    }
    let budget = Rc::new(Cell::new(STEPS));
    let mut tester = LinearizabilityTester::new(Locked::free(model, last, &budget));
    let lanes = lanes(steps);
    // Of one moment, beginnings come first: what ended then is not certainly before what began then.
    let mut order: Vec<(Moment, bool, usize)> = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        order.push((step.start, false, number));
        order.extend(step.answer.map(|(end, _)| (end.max(step.start), true, number)));
    }
    order.sort_unstable();
    for (_, is_end, number) in order {
        let step = &steps[number];
        let placed = match step.answer.filter(|_| is_end) {
            Some((_, answer)) => tester.on_return(lanes[number], answer).map(|_| ()),
            None => tester.on_invoke(lanes[number], step.ask).map(|_| ()),
        };
        // Lanes are made so that this can't be; not searched is the honest answer if it is.
        if placed.is_err() {
            return Searched::TooBig;
        }
    }
    match (tester.is_consistent(), budget.get()) {
        (true, _) => Searched::Linearizable,
        (false, 0) => Searched::TooBig,
        (false, _) => Searched::Impossible,
    }
}

/// As few sequences of calls as there can be, so that no call begins before the one before it in its sequence has ended.
fn lanes(steps: &[Step]) -> Vec<usize> {
    let mut by_start: Vec<usize> = (0..steps.len()).collect();
    by_start.sort_by_key(|number| steps[*number].start);
    let mut ends: Vec<Option<Moment>> = Vec::new();
    let mut lanes = vec![0; steps.len()];
    for number in by_start {
        let step = &steps[number];
        let free = ends.iter().position(|end| end.is_some_and(|end| end < step.start));
        let lane = free.unwrap_or(ends.len());
        if free.is_none() {
            ends.push(None);
        }
        ends[lane] = step.answer.map(|(end, _)| end);
        lanes[number] = lane;
    }
    lanes
}

/// How many of the answers, in the order in which they came, are enough to make it impossible; given that all of them are.
pub(super) fn fewest(model: Model, last: Option<FencingToken>, steps: &[Step]) -> Vec<usize> {
    let mut ends: Vec<Moment> = steps.iter().filter_map(|step| step.answer.map(|(end, _)| end)).collect();
    ends.sort_unstable();
    // What is impossible stays so however the history goes on, so the first such end can be searched for by halves.
    let first = ends.partition_point(|end| {
        let (_, before) = until(steps, *end);
        search(model, last, &before) != Searched::Impossible
    });
    ends.get(first).map_or_else(|| (0..steps.len()).collect(), |end| until(steps, *end).0)
}

/// What had begun by then, without the answers that came later; and which of the steps these are.
fn until(steps: &[Step], end: Moment) -> (Vec<usize>, Vec<Step>) {
    let begun = steps.iter().enumerate().filter(|(_, step)| step.start <= end);
    begun
        .map(|(number, step)| (number, Step { answer: step.answer.filter(|(at, _)| *at <= end), ..step.clone() }))
        .unzip()
}
