//! Mistakes that were really made, by others or on the way here: the model must find each.

use super::laws::Law;

/// One mistake, in the store, the client or the resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// The resource takes each write.
    NoFence,
    /// The resource takes a write whose token is another one than the last, as if it had to be newer.
    FenceByInequality,
    /// The holder's deadline is counted from when the answer came.
    DeadlineFromReply,
    /// The holder's deadline is the very end of the lease, without what clocks may differ by.
    DeadlineWithoutMargin,
    /// The store frees the lock for whoever names it.
    ReleaseByName,
    /// The owner is the host, and the callers are on one host.
    OwnerPerHost,
    /// Who asks again for what it holds gets a new token.
    TokenRaisedByReentry,
    /// A renewal gets a new token.
    TokenRaisedByRenewal,
    /// Tokens are a counter in the record, and the release deletes it.
    CounterDeletedOnRelease,
    /// The client believes again when a renewal turns out to have been good after its deadline.
    LateRenewalRevives,
    /// The store renews a lease that has expired as long as nobody took it.
    ExpiredIsRenewed,
    /// The store sets the end of a lease to what the renewal asks for, also where that is earlier.
    RenewalShortens,
    /// The record goes though its lease lives: its retention is counted from the grant, and is shorter than the hold.
    RetentionUnderHold,
    /// Each attempt of a call has an owner of its own.
    OwnerPerAttempt,
    /// Who asks again has its ttl added to what is left.
    RetryAddsUp,
}

impl Flaw {
    /// All of them, with a law that each breaks, and the steps by which the shortest way there goes.
    pub const ALL: [(Self, Law, &'static [&'static str]); 16] = [
        (Self::NoFence, Law::Resource, &["Write(0)", "TakeUp(1)", "Write(1)", "WriteArrives(1)", "WriteArrives(0)"]),
        (
            Self::FenceByInequality,
            Law::Resource,
            &["Write(0)", "TakeUp(1)", "Write(1)", "WriteArrives(1)", "WriteArrives(0)"],
        ),
        (Self::DeadlineFromReply, Law::Belief, &["AcquireArrives(0, true)", "Tick", "TakeUp(0)", "TakeUp(1)"]),
        (
            Self::DeadlineWithoutMargin,
            Law::Belief,
            &["AcquireArrives(0, true)", "StoreGains", "TakeUp(0)", "TakeUp(1)"],
        ),
        (Self::ReleaseByName, Law::Strangers, &["GiveUp(0)", "AcquireArrives(1, true)", "ReleaseArrives(0)"]),
        (
            Self::ReleaseByName,
            Law::Belief,
            &["AcquireArrives(1, true)", "ReleaseArrives(0)", "TakeUp(1)", "AcquireArrives(2, true)", "TakeUp(2)"],
        ),
        (Self::OwnerPerHost, Law::Belief, &["TakeUp(0)", "AcquireArrives(1, true)", "TakeUp(1)"]),
        (Self::TokenRaisedByReentry, Law::Stability, &["AcquireArrives(0, true)", "AcquireArrives(0, true)"]),
        (Self::TokenRaisedByRenewal, Law::Stability, &["TakeUp(0)", "Renew(0)", "RenewArrives(0, false)"]),
        (Self::CounterDeletedOnRelease, Law::Fence, &["ReleaseArrives(0)", "AcquireArrives(0, false)"]),
        (Self::LateRenewalRevives, Law::Finality, &["Renew(0)", "Tick", "RenewArrives(0, true)", "HearRenewal(0)"]),
        (Self::ExpiredIsRenewed, Law::Strangers, &["Renew(0)", "Tick", "RenewArrives(0, false)"]),
        (Self::RenewalShortens, Law::Belief, &["TakeUp(0)", "Renew(0)", "RenewArrives(0, false)", "Tick", "TakeUp(1)"]),
        (Self::RetentionUnderHold, Law::Belief, &["Sweep(0)", "TakeUp(0)", "AcquireArrives(1, true)", "TakeUp(1)"]),
        (Self::OwnerPerAttempt, Law::Doubt, &["AcquireArrives(0, true)", "AskAgain(0)", "AcquireArrives(0, true)"]),
        (Self::RetryAddsUp, Law::Doubt, &["AcquireArrives(0, true)", "AcquireArrives(0, true)"]),
    ];

    /// What is wrong, in a few words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::NoFence => "no fence",
            Self::FenceByInequality => "!= at the fence",
            Self::DeadlineFromReply => "deadline from the reply",
            Self::DeadlineWithoutMargin => "deadline without a margin",
            Self::ReleaseByName => "release by name",
            Self::OwnerPerHost => "owner per host",
            Self::TokenRaisedByReentry => "re-entry raises the token",
            Self::TokenRaisedByRenewal => "renewal raises the token",
            Self::CounterDeletedOnRelease => "release deletes the counter",
            Self::LateRenewalRevives => "a late renewal revives",
            Self::ExpiredIsRenewed => "an expired lease is renewed",
            Self::RenewalShortens => "a renewal shortens",
            Self::RetentionUnderHold => "retention under the hold",
            Self::OwnerPerAttempt => "owner per attempt",
            Self::RetryAddsUp => "a retry adds its ttl",
        }
    }
}
