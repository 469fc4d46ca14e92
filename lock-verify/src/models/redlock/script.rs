//! What the masters' scripts do, and the choice of the token: `lock-redis/src/redlock/lua/*.lua` and `ballot.rs`.

use lock_core::FencingToken;

use super::state::{At, Master};

/// The masters' clocks, which a token is above as well: they stand still, so that they don't hide what the phases do.
const MICROS: u64 = 1;

impl Master {
    pub(super) const FREE: Self = Self { owner: 0, attempt: 0, token: 0, granted: 0 };

    /// `claim.lua`: the last token and the one granted to this owner, if the lock is the asker's here now.
    pub(super) fn claim(&mut self, owner: u8, attempt: u8) -> Option<(u8, u8)> {
        let mine = self.owner == owner;
        if !mine && self.owner > 0 {
            return None;
        }
        let granted = if mine { self.granted } else { 0 };
        let attempt = match (mine, granted) {
            (true, 0) => self.attempt.max(attempt),
            (true, _) => 0,
            (false, _) => attempt,
        };
        let last = self.token;
        *self = Self { owner, attempt, token: last, granted };
        Some((last, granted))
    }

    /// `accept.lua`: whether the token is accepted.
    pub(super) fn accept(&mut self, owner: u8, attempt: u8, token: u8, rule: Acceptance) -> bool {
        let mine = self.owner == owner && (self.attempt == attempt || self.attempt == 0);
        let nobody_elses = self.token < token || self.granted == token;
        let yes = mine && (nobody_elses || rule == Acceptance::OfAnyToken);
        if yes {
            (self.token, self.granted) = (self.token.max(token), self.granted.max(token));
        }
        yes
    }

    /// `renew.lua`.
    pub(super) fn renew(&mut self, owner: u8, token: u8) {
        if self.owner == owner && (self.granted == 0 || self.granted == token) {
            *self = Self { owner, attempt: 0, token: self.token.max(token), granted: token };
        }
    }

    /// `release.lua` with the number of an attempt, which takes back what that one claimed.
    pub(super) fn take_back(&mut self, owner: u8, attempt: Option<u8>) {
        if self.owner == owner && attempt.is_none_or(|attempt| self.attempt == attempt) {
            self.end();
        }
    }

    /// The lease is over here: expired, released or forcibly released.
    pub(super) fn end(&mut self) {
        *self = Self { token: self.token, ..Self::FREE };
    }
}

/// Which tokens a master accepts from its owner, by the attempt that claimed it last, or by any once one was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acceptance {
    /// Those above the last one here, and the one that it accepted from this owner already.
    OfHigherTokens,
    /// All of them: how it was once.
    OfAnyToken,
}

/// `Ballot::token`: above all that were told, or the one that the owner has already unless somebody else may have it.
pub(super) fn choose<'a>(counted: impl Iterator<Item = &'a At> + Clone) -> u8 {
    let last = counted.clone().map(|at| at.last).max().unwrap_or(0);
    let granted = counted.clone().map(|at| at.granted).max().unwrap_or(0);
    let elsewhere = counted.clone().any(|at| at.last >= granted && at.granted != granted);
    if granted > 0 && !elsewhere {
        return granted;
    }
    let last = Some(FencingToken::new(u64::from(last))).filter(|last| last.get() > 0);
    FencingToken::next(last, MICROS).get() as u8
}
