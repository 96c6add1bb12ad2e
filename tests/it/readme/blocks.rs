//! The fenced blocks of the README, and who holds each of them.

use super::inline::spans;
use super::readme;

/// A fenced block.
#[derive(Debug)]
pub(crate) struct Block {
    /// What stands behind the opening fence.
    pub(crate) language: String,
    /// Without the indentation of the list that it stands in.
    pub(crate) text: String,
    /// The section (`##`) that it stands in.
    pub(crate) section: String,
    /// The line above it that says what its commands need and no test of this program has: `*Needs ...*`.
    pub(crate) needs: Option<String>,
}

impl Block {
    /// Its lines without comments and empty ones.
    fn commands(&self) -> impl Iterator<Item = &str> {
        let lines = self.text.lines().map(str::trim);
        lines.filter(|line| !line.is_empty() && !line.starts_with('#'))
    }

    /// Targets of make alone, which a test cannot call: it is called by one of them.
    pub(super) fn is_make(&self) -> bool {
        self.commands().all(|line| line.starts_with("make "))
    }
}

/// All of them, in their order.
pub(crate) fn blocks() -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let (mut section, mut above, mut fence) = (String::new(), String::new(), None);
    for line in readme().lines() {
        let trimmed = line.trim_start();
        match (fence, trimmed.strip_prefix("```")) {
            (None, Some(language)) => {
                fence = Some(line.len() - trimmed.len());
                blocks.push(Block {
                    language: language.to_owned(),
                    text: String::new(),
                    section: section.clone(),
                    needs: (above.starts_with("*Needs ") && above.ends_with('*')).then(|| above.clone()),
                });
            }
            (Some(_), Some("")) => fence = None,
            (Some(indentation), _) => {
                let block = blocks.last_mut().unwrap();
                block.text.push_str(line.get(indentation..).unwrap_or_default());
                block.text.push('\n');
            }
            (None, None) => {
                if let Some(title) = line.strip_prefix("## ") {
                    section = title.to_owned();
                }
                if !trimmed.is_empty() {
                    above = trimmed.to_owned();
                }
            }
        }
    }
    assert_eq!(fence, None, "the last block has no end");
    blocks
}

/// Those that somebody types as they stand, on a machine of their own: the test of [`super::newcomer`] does.
pub(super) fn typed() -> Vec<Block> {
    let shell = blocks().into_iter().filter(|block| block.language == "sh");
    shell
        .filter(|block| block.needs.is_none() && !block.is_make())
        .collect()
}

fn text(path: &str) -> String {
    std::fs::read_to_string(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[test]
fn every_block_is_of_a_kind_that_a_test_holds() {
    for block in blocks() {
        match block.language.as_str() {
            // Typed by a newcomer, targets of make, or marked; each is below. Every statement is asked by
            // `store::cookbook`, every configuration read by the two tests below, scraping by `prometheus`.
            "sh" | "sql" | "toml" | "yaml" => {}
            // Answers, those of queries held by `store::cookbook`. A command among them would be held by nobody.
            "" | "text" => {
                for line in block.text.lines() {
                    let word = line.split_whitespace().next().unwrap_or_default();
                    assert!(
                        !["$", "sudo", "virt-collector", "make", "psql", "curl", "systemctl"].contains(&word),
                        "a command in a block that is no ```sh: {line}"
                    );
                }
            }
            other => panic!("who holds a block of {other:?}?\n{}", block.text),
        }
    }
}

#[test]
fn every_target_of_make_that_the_readme_names_is_one() {
    let makefile = text("Makefile");
    let mut commands = spans(&readme());
    for block in blocks().iter().filter(|block| block.language == "sh") {
        commands.extend(block.commands().map(str::to_owned));
    }
    let mut named = 0;
    for command in commands {
        // Variables may stand in front.
        let mut words = command.split_whitespace().skip_while(|word| word.contains('='));
        if let (Some("make"), Some(target)) = (words.next(), words.next()) {
            named += 1;
            assert!(makefile.contains(&format!("\n{target}: ")), "{command}");
        }
    }
    assert!(named >= 20, "{named}");
}

/// What is marked as needing systemd is typed by the test of the package, which takes it out of the README as well.
#[test]
fn every_block_that_needs_other_things_is_run_by_the_test_of_the_package() {
    let run = text("tests/package/run");
    let marked: Vec<Block> = blocks()
        .into_iter()
        .filter(|block| block.needs.is_some())
        .collect();
    for block in &marked {
        assert_eq!(block.language, "sh", "{}", block.text);
        assert!(
            block.needs.as_ref().unwrap().contains("`make package-test`"),
            "who runs what is below {:?}?",
            block.needs
        );
        // It takes a block by how it begins, in the text that `make package-test` has before it.
        let first = block.commands().next().unwrap();
        let is_typed = run
            .split("readme ")
            .skip(1)
            .filter_map(|rest| {
                rest.strip_prefix('\'')
                    .map_or_else(|| rest.split([' ', ')']).next(), |rest| rest.split('\'').next())
            })
            .any(|begin| begin.len() > 5 && first.starts_with(begin));
        assert!(is_typed, "tests/package/run does not type: {first}");
    }
    assert!(marked.len() >= 2, "{marked:?}");
}

#[test]
fn every_configuration_of_the_readme_is_taken() {
    use virt_collector::config::Config;

    let least = "[database]\nurl = \"postgresql://virt_writer@db.example.com/virt\"\n";
    let platform = "name = \"berlin\"\ntype = \"vcenter\"\nhost = \"vcenter.example.com\"\nuser = \"u\"\npassword_file = \"p\"";
    let mut taken = 0;
    for block in blocks().iter().filter(|block| block.language == "toml") {
        // What a part of one leaves out.
        let mut whole = block.text.replace("# ...", platform);
        if !whole.contains("[database]") {
            whole.insert_str(0, least);
        }
        Config::parse(&whole, std::path::Path::new("/etc/virt-collector/config.toml"))
            .unwrap_or_else(|error| panic!("{error}\n{whole}"));
        taken += 1;
    }
    assert!(taken >= 2, "{taken}");
}
