//! The page on writing a provider shows the code of the example, and keeps its word about it.

const PAGE: &str = include_str!("../../docs/writing-a-provider.md");
const EXAMPLE: &str = include_str!("../examples/own_provider.rs");

/// The lines without their indentation: the page shows methods at the margin.
fn margin(code: &str) -> String {
    code.lines().map(str::trim).fold(String::from("\n"), |text, line| text + line + "\n")
}

/// What stands in the fenced blocks of this language.
fn blocks(language: &str) -> Vec<String> {
    let (mut blocks, mut open): (Vec<String>, Option<String>) = (Vec::new(), None);
    for line in PAGE.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(told)) => open = Some(format!("{told}\n")),
            (None, None) => {}
            (Some(block), None) => *block += &format!("{line}\n"),
            (Some(_), Some(_)) => blocks.extend(open.take()),
        }
    }
    assert!(open.is_none(), "a block isn't closed");
    blocks.iter().filter_map(|block| block.strip_prefix(&format!("{language}\n"))).map(str::to_owned).collect()
}

#[test]
fn all_rust_of_the_page_is_in_the_example() {
    let (example, blocks) = (margin(EXAMPLE), blocks("rust"));
    assert!(blocks.len() >= 10, "the page shows {} blocks", blocks.len());
    for block in blocks {
        assert!(example.contains(&margin(&block)), "this isn't in examples/own_provider.rs:\n{block}");
    }
}

#[test]
fn properties_that_the_page_names_are_there() {
    let groups: Vec<&str> =
        conformance_tests::PROPERTIES.iter().filter_map(|property| property.name.split("::").next()).collect();
    let mut named = 0;
    for word in PAGE.split('`').skip(1).step_by(2).filter(|word| word.contains("::")) {
        let property = word.split_once("::").is_some_and(|(group, name)| groups.contains(&group) && !name.is_empty());
        if property {
            assert!(
                conformance_tests::PROPERTIES.iter().any(|known| known.name == word),
                "there is no property {word}"
            );
            named += 1;
        }
    }
    assert!(named >= 14, "{named} properties were found on the page");
}

#[test]
fn the_example_is_as_short_as_the_page_says() {
    assert!(PAGE.contains("under\n250 lines"));
    assert!(EXAMPLE.lines().count() < 250, "{} lines", EXAMPLE.lines().count());
}
