//! Small models of a lock: what one that serves one call after the other would answer.

use std::{cell::Cell, rc::Rc};

use lock_core::{FencingToken, OwnerId};
use stateright::semantics::SequentialSpec;

/// Which lock it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// Knows its owner, who may ask again, and expires. Tokens are not looked at.
    OwnerAware,
    /// Each grant has a higher token than the one before; its owner can't have it twice.
    Fenced,
    /// Each grant has a higher token than the one before; its owner that asks again has the same grant. The contract's own.
    FencedReentrant,
}

/// What is asked of the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// To be granted to this owner.
    Acquire(OwnerId),
    /// To stay the owner's, under this token.
    Renew(OwnerId, FencingToken),
    /// To be no longer the owner's, under this token if it knows one.
    Release(OwnerId, Option<FencingToken>),
    /// To be nobody's.
    ForceRelease,
    /// That the grant of this owner is over, as it may be from its deadline on. Nobody asks; it may happen, or not.
    Expire(OwnerId, Option<FencingToken>),
}

/// What it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is the owner's, under this token.
    Granted(FencingToken),
    /// Somebody has it.
    Held,
    /// It was the owner's, and what was asked is done.
    Done,
    /// It is not the owner's, and nothing changed.
    NotOurs,
}

/// A model's state. Clones share what is left of the search's budget.
#[derive(Clone, Debug)]
pub(super) struct Locked {
    model: Model,
    /// Of a grant whose call was never answered nobody knows the token.
    holder: Option<(OwnerId, Option<FencingToken>)>,
    last: Option<FencingToken>,
    budget: Rc<Cell<u64>>,
}

impl Locked {
    /// A free lock whose tokens so far are not above `last`.
    pub(super) fn free(model: Model, last: Option<FencingToken>, budget: &Rc<Cell<u64>>) -> Self {
        Self { model, holder: None, last, budget: budget.clone() }
    }

    fn is_of(&self, owner: OwnerId, token: Option<FencingToken>) -> bool {
        let fenced = self.model != Model::OwnerAware;
        let same = |held: Option<FencingToken>| !fenced || held.is_none() || token.is_none() || held == token;
        // A token that nobody has seen yet is higher than all before.
        let possible = |held: Option<FencingToken>| held.is_some() || token.is_none() || token > self.last || !fenced;
        self.holder.is_some_and(|(holder, held)| holder == owner && same(held) && possible(held))
    }

    /// Whether it can be granted with this token now; then it is.
    fn grant(&mut self, owner: OwnerId, token: FencingToken) -> bool {
        let rises = self.model == Model::OwnerAware || self.last.is_none_or(|last| last < token);
        let good = match self.holder {
            None => rises,
            // Granted by a call that was never answered: the token is told now.
            Some((holder, None)) => holder == owner && rises && self.model != Model::Fenced,
            Some((holder, Some(held))) => match self.model {
                Model::OwnerAware => holder == owner,
                Model::Fenced => false,
                Model::FencedReentrant => holder == owner && held == token,
            },
        };
        if good {
            self.holder = Some((owner, Some(token)));
            self.last = self.last.max(Some(token));
        }
        good
    }

    fn free_if(&mut self, owner: OwnerId, token: Option<FencingToken>) -> bool {
        let is = self.is_of(owner, token);
        if is {
            self.last = self.last.max(token);
            self.holder = None;
        }
        is
    }
}

impl SequentialSpec for Locked {
    type Op = Ask;
    type Ret = Answer;

    /// Of a call whose answer nobody knows: does what it would, and answers anything.
    fn invoke(&mut self, ask: &Ask) -> Answer {
        match *ask {
            Ask::Acquire(owner) => {
                if self.holder.is_none() {
                    self.holder = Some((owner, None));
                }
            }
            Ask::Renew(..) => {}
            Ask::Release(owner, token) | Ask::Expire(owner, token) => {
                self.free_if(owner, token);
            }
            Ask::ForceRelease => self.holder = None,
        }
        Answer::Done
    }

    fn is_valid_step(&mut self, ask: &Ask, answer: &Answer) -> bool {
        let Some(left) = self.budget.get().checked_sub(1) else { return false };
        self.budget.set(left);
        match (*ask, *answer) {
            (Ask::Acquire(owner), Answer::Granted(token)) => self.grant(owner, token),
            (Ask::Acquire(owner), Answer::Held) => {
                self.holder.is_some_and(|(holder, _)| holder != owner || self.model == Model::Fenced)
            }
            (Ask::Renew(owner, token), Answer::Done) => {
                let is = self.is_of(owner, Some(token));
                if is {
                    self.holder = Some((owner, Some(token)));
                    self.last = self.last.max(Some(token));
                }
                is
            }
            (Ask::Renew(owner, token), Answer::NotOurs) => !self.is_of(owner, Some(token)),
            (Ask::Release(owner, token), Answer::Done) => self.free_if(owner, token),
            (Ask::Release(owner, token), Answer::NotOurs) => !self.is_of(owner, token),
            (Ask::ForceRelease, Answer::Done) => {
                self.holder = None;
                true
            }
            _ => false,
        }
    }
}
