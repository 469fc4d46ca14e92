//! What a write says of the grant it is made under, and how that travels.

use std::{fmt, fmt::Write as _, str::FromStr};

use serde::{Deserialize, Serialize};

use super::error::InvalidFence;
use crate::{
    client::{Lease, LeaseGuard},
    name::LockName,
    token::FencingToken,
};

/// Under which grant of which lock a write is made: what every guard and every register asks for.
///
/// It comes from a live lease ([`Lease::fence`](crate::Lease::fence)), may outlive it, and may travel as text to the process
/// or service that does the write, where it is parsed back. It gives no right to release or renew the lock.
///
/// A lock's name is to mean one lock in one store: tokens of two stores, or of one that was restored from a backup, can't be
/// compared, and nothing in a fence tells them apart. When a lock moves, see to it that no holder from before is at work,
/// and then [`forget`](crate::FenceRegister::forget).
///
/// The text is the token, `@`, and the lock's name, in which all but `A-Z a-z 0-9 - . _ ~ / :` is percent-encoded: no
/// spaces, no quotes, so that it fits a header, a URL or a shell's word. At most 1,556 bytes.
///
/// ```
/// use lock_core::{Fence, FencingToken, LockName};
///
/// let fence = Fence::new(LockName::new("invoice 42")?, FencingToken::new(1764328000123456))?;
/// assert_eq!(fence.to_string(), "1764328000123456@invoice%2042");
/// assert_eq!("1764328000123456@invoice%2042".parse::<Fence>()?, fence);
/// assert!("-1@invoice%2042".parse::<Fence>().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Fence {
    lock: LockName,
    token: FencingToken,
}

impl Fence {
    /// The fence of this grant of this lock.
    ///
    /// # Errors
    /// [`InvalidFence`] for a token that no store hands out: zero, or above 2^63 - 1.
    pub fn new(lock: LockName, token: FencingToken) -> Result<Self, InvalidFence> {
        if (1..=FencingToken::MAX.get()).contains(&token.get()) {
            Ok(Self { lock, token })
        } else {
            Err(InvalidFence::token(&token.to_string()))
        }
    }

    /// Of which lock.
    #[must_use]
    pub fn lock(&self) -> &LockName {
        &self.lock
    }

    /// Of which grant.
    #[must_use]
    pub fn token(&self) -> FencingToken {
        self.token
    }

    /// The token as the signed number that databases keep; always positive.
    #[must_use]
    pub fn token_i64(&self) -> i64 {
        // Checked when it was made.
        i64::try_from(self.token.get()).unwrap_or(i64::MAX)
    }
}

/// What tells the fence of a write: a lease, or its fence.
pub trait ToFence {
    /// The fence.
    ///
    /// # Errors
    /// [`InvalidFence`] for a lease that isn't exclusive: its tokens order no writes.
    fn to_fence(&self) -> Result<Fence, InvalidFence>;
}

impl ToFence for Fence {
    fn to_fence(&self) -> Result<Fence, InvalidFence> {
        Ok(self.clone())
    }
}

impl ToFence for Lease {
    fn to_fence(&self) -> Result<Fence, InvalidFence> {
        self.fence()
    }
}

impl ToFence for LeaseGuard {
    fn to_fence(&self) -> Result<Fence, InvalidFence> {
        self.fence()
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@", self.token)?;
        for byte in self.lock.as_str().bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b':' => {
                    f.write_char(char::from(byte))?;
                }
                other => write!(f, "%{other:02X}")?,
            }
        }
        Ok(())
    }
}

impl FromStr for Fence {
    type Err = InvalidFence;

    /// # Errors
    /// [`InvalidFence`] for anything but what is written by `to_string`; it says what is wrong.
    fn from_str(text: &str) -> Result<Self, InvalidFence> {
        let Some((token, lock)) = text.split_once('@') else { return Err(InvalidFence::form(text)) };
        let token = token.parse()?;
        let name = decoded(lock).ok_or_else(|| InvalidFence::form(text))?;
        let lock = LockName::new(name).map_err(|error| InvalidFence::lock(&error))?;
        let fence = Self::new(lock, token)?;
        // One spelling only: what is compared as text is compared rightly.
        if fence.to_string() == text { Ok(fence) } else { Err(InvalidFence::form(text)) }
    }
}

/// The name that was percent-encoded, if it is one.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut name = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            name.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        name.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(name).ok()
}

impl FromStr for FencingToken {
    type Err = InvalidFence;

    /// Reads the number, 1 to 2^63 - 1, in decimal digits and nothing else.
    ///
    /// # Errors
    /// [`InvalidFence`], which says what is wrong.
    fn from_str(text: &str) -> Result<Self, InvalidFence> {
        // `parse` would take a sign and leading zeros as well.
        let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
        let number = text.parse().ok().filter(|number| plain && *number <= Self::MAX.get());
        number.map(Self::new).ok_or_else(|| InvalidFence::token(text))
    }
}

impl From<Fence> for String {
    fn from(fence: Fence) -> Self {
        fence.to_string()
    }
}

impl TryFrom<String> for Fence {
    type Error = InvalidFence;

    fn try_from(text: String) -> Result<Self, InvalidFence> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fence(lock: &str, token: u64) -> Fence {
        Fence::new(LockName::new(lock).unwrap(), FencingToken::new(token)).unwrap()
    }

    proptest! {
        #[test]
        fn it_survives_its_travel(lock in "[^\0]{1,100}", token in 1..=FencingToken::MAX.get()) {
            let fence = fence(&lock, token);
            let text = fence.to_string();
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text}");
            prop_assert_eq!(&text.parse::<Fence>().unwrap(), &fence);
            prop_assert_eq!(serde_json::from_value::<Fence>(serde_json::json!(text)).unwrap(), fence);
        }

        #[test]
        fn no_two_texts_mean_the_same(text in "[0-9]{1,3}@[a%0-9A-F/ ]{1,6}") {
            if let Ok(fence) = text.parse::<Fence>() {
                prop_assert_eq!(fence.to_string(), text);
            }
        }
    }

    #[test]
    fn the_longest_is_as_long_as_is_told() {
        assert_eq!(fence(&"é".repeat(256), FencingToken::MAX.get()).to_string().len(), 1_556);
    }

    #[test]
    fn bad_tokens_are_refused_and_it_is_said_why() {
        let bad = [
            "",
            "0",
            "-1",
            "+1",
            "01",
            " 1",
            "1 ",
            "1 2",
            "1.0",
            "1e3",
            "0x1",
            "abc",
            "9223372036854775808",
            "18446744073709551616",
            "99999999999999999999999",
            "١",
            "1\n",
            "NaN",
        ];
        for token in bad {
            let error = format!("{token}@x").parse::<Fence>().unwrap_err();
            assert!(error.to_string().contains("1 to 9223372036854775807"), "{token:?}: {error}");
            assert!(token.parse::<FencingToken>().is_err(), "{token:?}");
        }
        assert!(Fence::new(LockName::new("x").unwrap(), FencingToken::new(0)).is_err());
        assert!(Fence::new(LockName::new("x").unwrap(), FencingToken::new(1 << 63)).is_err());
        assert_eq!("9223372036854775807".parse::<FencingToken>().unwrap(), FencingToken::MAX);
    }

    #[test]
    fn bad_forms_are_refused() {
        for text in
            ["", "5", "5@", "@x", "5@a b", "5@%", "5@%4", "5@%zz", "5@%61", "5@%c3%a9", "5@%00", "5@%ff", "5@x@y"]
        {
            let error = text.parse::<Fence>().unwrap_err();
            assert!(!error.to_string().is_empty(), "{text}");
        }
        let long = format!("{}\n", "x".repeat(10_000)).parse::<Fence>().unwrap_err().to_string();
        assert!(long.len() < 300 && !long.contains('\n'), "{long}");
    }
}
