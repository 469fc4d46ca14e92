//! The models in the small form, which a debug build searches in seconds: all laws, all situations, the mistakes.
//!
//! The full form is the program `models`. In the small one there are two calls and not three, two attempts and not three,
//! three masters and not five. The mistakes are searched for in models as large as they take; two take too many states and
//! are left to the full form: a claim that is taken back by its owner and not by the number of its attempt, and the longer way
//! of a token that a master accepts from two owners.

use std::time::Duration;

use lock_verify::models::{Expected, Search, Size, cases};

/// For a machine that is slow: a search that is broken off fails.
const PATIENCE: Duration = Duration::from_secs(300);

fn search_all(wanted: impl Fn(&str) -> bool) {
    let mut searched = 0;
    let mut wrong = Vec::new();
    for case in cases(Size::Small).into_iter().filter(|case| wanted(&case.name)) {
        let expected = case.expected;
        let (search, judged) = case.run(2, PATIENCE);
        println!("{}: {} states, depth {}, {:?}", search.model, search.states, search.depth, search.time);
        if let (Expected::Broken { .. }, Some(found)) = (expected, search.broken.first()) {
            println!("    {}: {}", found.property, found.path.join(", "));
        }
        wrong.extend(judged.err().map(|why| format!("{}: {why}", search.model)));
        searched += 1;
    }
    assert!(searched > 0 && wrong.is_empty(), "{searched} searched: {wrong:#?}");
}

#[test]
fn leases_and_fences_keep_the_laws() {
    search_all(|name| name.starts_with("lease: "));
}

#[test]
fn each_mistake_with_leases_and_fences_is_found() {
    search_all(|name| name.starts_with("lease, wrong: "));
}

#[test]
fn redlock_keeps_the_laws() {
    search_all(|name| name.starts_with("redlock: "));
}

#[test]
fn each_mistake_with_redlock_is_found() {
    search_all(|name| name.starts_with("redlock, "));
}

/// A judgement that lets everything pass would make all of the above green.
#[test]
fn what_was_not_expected_is_told() {
    let first = |start: &str| cases(Size::Small).into_iter().find(|case| case.name.starts_with(start)).unwrap();
    let (clean, _) = first("redlock: 3 masters").run(2, PATIENCE);
    assert!(clean.is_clean());
    let (broken, _) = first("lease, wrong: no fence").run(1, PATIENCE);
    let found = Expected::Broken { law: "L4", by: &["Write(0)", "WriteArrives(0)"] };
    assert_eq!(found.judge(&broken), Ok(()));

    let too_small = Expected::Clean { states: clean.states + 1 }.judge(&clean).unwrap_err();
    assert!(too_small.contains("only"), "{too_small}");
    for (expected, search) in [
        (Expected::Clean { states: 1 }, &broken),
        (found, &clean),
        (Expected::Broken { law: "L1", by: &[] }, &broken),
        (Expected::Broken { law: "L4", by: &["WriteArrives(0)", "Write(0)"] }, &broken),
    ] {
        assert!(expected.judge(search).is_err(), "{expected:?}");
    }
    let unfinished = Search { finished: false, ..clean.clone() };
    assert!(Expected::Clean { states: 1 }.judge(&unfinished).is_err());
    let blind = Search { unseen: vec!["a take-over"], ..clean };
    assert!(Expected::Clean { states: 1 }.judge(&blind).is_err());
}

/// The rules of Redlock are written twice, in Lua and in the model. Whoever changes them there is to look at the model, and
/// then to put the new sums here.
#[test]
fn the_model_of_redlock_is_of_the_scripts_as_they_are() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../lock-redis/src/redlock");
    let sum = |file: &str| {
        let text = std::fs::read_to_string(format!("{folder}/{file}")).unwrap();
        // Comments and layout say nothing of what is done; nor do the tests below the rules.
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let lines = code.lines().map(str::trim).filter(|line| !line.starts_with("--") && !line.starts_with("//"));
        // FNV-1a, 64 bits.
        lines
            .flat_map(str::bytes)
            .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    };
    let modelled = [
        ("ballot.rs", 0x1681_dad6_1637_77a3),
        ("campaign.rs", 0xc6c8_e0f1_0ceb_07e2),
        ("lua/accept.lua", 0x94b4_c26d_b762_0f8f),
        ("lua/claim.lua", 0x4847_bc6e_60dd_d4df),
        ("lua/release.lua", 0x858e_f82c_be70_2c9d),
        ("lua/renew.lua", 0xb4d2_ac2b_5d5b_4423),
    ];
    let found = modelled.map(|(file, _)| (file, sum(file)));
    assert_eq!(found, modelled, "look at src/models/redlock");
}
