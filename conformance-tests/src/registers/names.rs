//! Names as people and attackers write them.

use lock_core::{FenceError, LockName, Pass, Resource};

use super::{Registers, fence, fresh};
use crate::{Failure, asker::Outcome, ensure};

/// Endings that some store or other would take for one another, or for something that it isn't; each is put behind the
/// same beginning.
const HOSTILE: &[&str] = &[
    "",
    " ",
    "  ",
    "a",
    "A",
    "a ",
    " a",
    "a\t",
    "a\n",
    "a\r\n",
    "\u{1}",
    "\u{7f}",
    "\u{1b}[2J",
    "/",
    "//",
    "a/b",
    "a//b",
    "a/b/",
    "a%2Fb",
    "a%2fb",
    "a\\b",
    "/../a",
    "/./a",
    "/..",
    "..",
    ".",
    "a.b",
    "a:b",
    "{a}",
    "{a}b",
    "{}",
    "*",
    "?",
    "[a]",
    "%",
    "_",
    "$a",
    "$where",
    "~",
    "#a",
    "'",
    "''",
    "\"",
    "`",
    "';--",
    "a;b",
    "a,b",
    "-a",
    "ß",
    "ss",
    "İ",
    "i",
    "ı",
    // The same letter, composed and not.
    "\u{e9}",
    "e\u{301}",
    "\u{1f512}",
    "\u{1f513}",
    "\u{202e}a",
    "\u{feff}a",
    "\u{ffff}",
    "\u{10ffff}",
];

/// Beginnings that have a meaning for some store or other; each is put before the same end. They are names of
/// their own, too, but in a store that is shared with other runs, which may be at `..` just now.
const BEGINNINGS: [&str; 13] = ["../", "..", "./", ".", "/", "//", "*", "~", "~/", "-", "$", "%", "{}"];

/// The beginning, so many bytes of it at the end filled up to the most that a name may have, and the last letter.
fn longest(beginning: &str, filling: char, last: &str, most: usize) -> String {
    let mut name = beginning.to_owned();
    while name.len() + filling.len_utf8() + last.len() <= most {
        name.push(filling);
    }
    while name.len() + last.len() < most {
        name.push('.');
    }
    name + last
}

/// Names that are all different, and hostile.
fn hostile(about: &str, most: usize) -> Vec<String> {
    let beginning = fresh(about);
    let mut names: Vec<String> = HOSTILE.iter().map(|end| format!("{beginning}{end}")).collect();
    for (filling, last) in
        [('a', "a"), ('a', "b"), ('a', "A"), ('/', "a"), ('/', "b"), ('\u{1f512}', "a"), ('\u{1}', "a")]
    {
        names.push(longest(&beginning, filling, last, most));
    }
    // One that is the beginning of a longer one.
    names.push(longest(&beginning, 'a', "", most - 1));
    names
}

/// Resources are compared byte by byte: case, blanks, slashes, control characters, forms of one letter, 512 bytes of which
/// the last differs. What is raised or forgotten of one is of that one alone.
pub async fn resources_are_told_apart(h: &dyn Registers) -> Outcome {
    let register = h.register().await?;
    let own = fresh("resource");
    let mut names = hostile("resource", Resource::MAX_BYTES);
    names.extend(BEGINNINGS.map(|first| format!("{first}{own}")));
    if !h.is_shared() {
        names.extend(BEGINNINGS.map(str::to_owned));
    }
    names.push(own);
    // A name before those below it: there are buckets (SeaweedFS's) in which what is a folder of others can't be made an
    // object on condition.
    names.sort();
    let resources = names.into_iter().map(|name| Ok(Resource::new(name)?)).collect::<Result<Vec<_>, Failure>>()?;
    for (resource, token) in resources.iter().zip(100..) {
        let passed = register.raise(resource, &fence("x", token)?, Pass::Again).await;
        ensure!(passed.is_ok(), "nothing was seen of {resource:?}, and its first fence: {passed:?}");
    }
    for (resource, token) in resources.iter().zip(100..) {
        let (seen, raised) = (register.highest(resource).await?, fence("x", token)?);
        ensure!(seen.as_ref() == Some(&raised), "{raised} was raised at {resource:?}, and {seen:?} is seen");
        let stale = register.raise(resource, &fence("x", token - 1)?, Pass::Again).await;
        ensure!(matches!(stale, Err(FenceError::Stale(_))), "a lower token at {resource:?}: {stale:?}");
    }
    let mut left = resources.len();
    for resource in &resources {
        ensure!(register.forget(resource).await?, "{resource:?} was forgotten together with another, {left} were left");
        left -= 1;
    }
    Ok(())
}

/// So are locks: a name that only looks like the lock's is another lock's. What is seen names the lock as it is.
pub async fn locks_are_told_apart(h: &dyn Registers) -> Outcome {
    let register = h.register().await?;
    let resource = Resource::new(fresh("fenced-by"))?;
    let locks = hostile("lock", LockName::MAX_BYTES);
    for (lock, next) in locks.iter().zip(locks.iter().cycle().skip(1)) {
        let (own, other) = (fence(lock, 5)?, fence(next, 6)?);
        register.raise(&resource, &own, Pass::Again).await?;
        let refused = register.raise(&resource, &other, Pass::Again).await;
        let told = matches!(&refused, Err(FenceError::OtherLock(told))
            if told.fenced_by == *own.lock() && told.lock == *other.lock());
        ensure!(told, "{own} was raised, and then came {other}: {refused:?}");
        let seen = register.highest(&resource).await?;
        ensure!(seen.as_ref() == Some(&own), "{own} was raised, and {seen:?} is seen");
        register.forget(&resource).await?;
    }
    Ok(())
}
