//! The nodes of those who hold a lock or wait for it: Curator's layout (`InterProcessMutex` with protection), so that
//! its clients and ours exclude each other.

use lock_core::OwnerId;

/// Between the owner's id and the number that the server adds.
const MARK: &str = "lock-";

/// The server counts entries in 32 bits. What it gives from here on says nothing of the order: while the lock's node is
/// never without requests it is the largest number again and again.
const LAST: i64 = i32::MAX as i64 - 1;

/// Somebody's place in a lock's queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The node's name.
    pub(crate) node: String,
    /// Whose, if it is said as Curator says it.
    pub(crate) owner: Option<OwnerId>,
    number: i64,
}

/// What a new entry's name begins with; the server adds the number.
pub(crate) fn prefix(owner: OwnerId) -> String {
    let id = owner.to_string();
    let (a, b, c, d, e) = (&id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]);
    format!("_c_{a}-{b}-{c}-{d}-{e}-{MARK}")
}

impl Entry {
    /// Reads a node's name; `None` for what is no place in the queue.
    pub(crate) fn read(node: &str) -> Option<Self> {
        // As Curator sorts: by what comes after the last mark.
        let (before, number) = node.rsplit_once(MARK)?;
        let digits = number.strip_prefix('-').unwrap_or(number);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let owner = before.strip_prefix("_c_").and_then(|id| id.strip_suffix('-')).and_then(owner);
        Some(Self { node: node.to_owned(), owner, number: number.parse().ok()? })
    }

    /// How far behind another it is. What comes after the largest number, if anything does, is below zero.
    fn behind(&self, other: &Self) -> i64 {
        match (i32::try_from(self.number), i32::try_from(other.number)) {
            (Ok(own), Ok(others)) => i64::from(own.wrapping_sub(others)),
            _ => self.number.wrapping_sub(other.number),
        }
    }
}

/// Whether the place at this position is told from others' by its number. If not, who is first isn't certain.
pub(crate) fn is_in_order(queue: &[Entry], at: usize) -> bool {
    let Some(own) = queue.get(at) else { return false };
    let is_shared = queue.iter().enumerate().any(|(other, entry)| other != at && entry.number == own.number);
    !is_shared && (0..LAST).contains(&own.number)
}

fn owner(id: &str) -> Option<OwnerId> {
    let digits: String = id.chars().filter(|c| *c != '-').collect();
    (id.len() == 36).then(|| digits.parse().ok()).flatten()
}

/// The queue that these children of a lock's node are, the head first.
pub(crate) fn queue(children: &[String]) -> Vec<Entry> {
    let mut entries: Vec<Entry> = children.iter().filter_map(|child| Entry::read(child)).collect();
    if let Some(pivot) = entries.first().cloned() {
        entries.sort_by_key(|entry| entry.behind(&pivot));
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_reads_back() {
        let owner = OwnerId::from_u128(0x0123_4567_89ab_cdef_0011_2233_4455_6677);
        let node = format!("{}0000000042", prefix(owner));
        assert_eq!(node, "_c_01234567-89ab-cdef-0011-223344556677-lock-0000000042");
        let entry = Entry::read(&node).unwrap();
        assert_eq!((entry.owner, entry.number), (Some(owner), 42));
        for stranger in ["", "lock-", "_c_x", "x-lock-12a", "lock--", "data", "lock-99999999999999999999"] {
            assert_eq!(Entry::read(stranger), None, "{stranger}");
        }
        assert_eq!(Entry::read("lock-0000000001").unwrap().owner, None);
    }

    #[test]
    fn a_number_that_others_have_or_beyond_which_none_comes_is_no_place() {
        let queue_of =
            |numbers: &[&str]| queue(&numbers.iter().map(|number| format!("lock-{number}")).collect::<Vec<_>>());
        let shared = queue_of(&["0000000007", "0000000008", "0000000008"]);
        assert_eq!([0, 1, 2, 3].map(|at| is_in_order(&shared, at)), [true, false, false, false]);
        for (number, is_place) in
            [("2147483645", true), ("2147483646", false), ("2147483647", false), ("-2147483648", false)]
        {
            assert_eq!(is_in_order(&queue_of(&[number]), 0), is_place, "{number}");
        }
    }

    #[test]
    fn the_queue_goes_on_when_the_numbers_run_over() {
        let names = ["-2147483647", "2147483646", "-2147483648", "2147483647", "x"];
        let nodes: Vec<String> = names.iter().map(|number| format!("lock-{number}")).collect();
        let queue: Vec<String> = queue(&nodes).into_iter().map(|entry| entry.node).collect();
        assert_eq!(queue, ["lock-2147483646", "lock-2147483647", "lock--2147483648", "lock--2147483647"]);
    }
}
