//! The rule.

use super::{
    error::{FenceError, OtherLock, Stale},
    resource::Resource,
    value::Fence,
};

/// Which tokens pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Pass {
    /// The highest that was seen, and higher ones: a holder writes as often as it likes.
    #[default]
    Again,
    /// Higher ones only: each grant writes once. For effects that must not happen twice under one grant, such as a retried
    /// request. A holder that raised the register before has used its token up.
    Once,
}

/// Judges a write by the highest fence that its resource has seen, if any: whether that is to be raised with the write.
///
/// Pure. Who can read and write a resource in one atomic step needs to add nothing but that step; stores that judge in
/// their own language (SQL, Lua) follow the same rule there.
///
/// # Errors
/// [`FenceError::Stale`] and [`FenceError::OtherLock`]: then nothing is to be written.
pub fn admit(highest: Option<&Fence>, resource: &Resource, fence: &Fence, pass: Pass) -> Result<bool, FenceError> {
    let Some(highest) = highest else { return Ok(true) };
    if highest.lock() != fence.lock() {
        let (fenced_by, lock) = (highest.lock().clone(), fence.lock().clone());
        return Err(OtherLock { resource: resource.clone(), fenced_by, lock }.into());
    }
    let passes = match pass {
        Pass::Again => fence.token() >= highest.token(),
        Pass::Once => fence.token() > highest.token(),
    };
    if !passes {
        let (lock, token, highest) = (fence.lock().clone(), fence.token(), highest.token());
        return Err(Stale { resource: resource.clone(), lock, token, highest }.into());
    }
    Ok(fence.token() > highest.token())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FencingToken, LockName};

    fn fence(lock: &str, token: u64) -> Fence {
        Fence::new(LockName::new(lock).unwrap(), FencingToken::new(token)).unwrap()
    }

    #[test]
    fn the_highest_passes_again_or_once_and_lower_ones_never() {
        let resource = Resource::new("accounts").unwrap();
        let seen = fence("x", 5);
        let judge = |token, pass| admit(Some(&seen), &resource, &fence("x", token), pass).ok();
        for (token, again, once) in [(4, None, None), (5, Some(false), None), (6, Some(true), Some(true))] {
            assert_eq!((judge(token, Pass::Again), judge(token, Pass::Once)), (again, once), "{token}");
        }
        assert!(admit(None, &resource, &seen, Pass::Once).unwrap());
    }

    #[test]
    fn a_token_of_another_lock_is_refused_however_high() {
        let resource = Resource::new("accounts").unwrap();
        let error = admit(Some(&fence("x", 5)), &resource, &fence("y", 6), Pass::Again).unwrap_err();
        assert!(matches!(&error, FenceError::OtherLock(other) if other.fenced_by.as_str() == "x"), "{error}");
    }
}
