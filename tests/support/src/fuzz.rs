//! Fuzzing without a compiler of its own: mutants of a corpus against a function that must stand them.
//!
//! Owns: the mutations, the budget of a run, and what is kept of a finding. The functions under test and what they
//! promise are the callers'.
//!
//! A run without `FUZZ_SECONDS` is the same every time and short: it is part of the tests. With it, it lasts that
//! long and starts from a seed of its own, which is printed. Every file of the corpus is run as it is first, so that
//! a finding that is added to it stays found.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// Mutants of a run without `FUZZ_SECONDS`.
const MUTANTS: u64 = 2_000;

/// Largest mutant: several times the largest file of a corpus.
const LARGEST: usize = 64 * 1024;

/// An input that takes this long, in a build without optimisation, is a finding: nothing here is more than linear.
const SLOWEST: Duration = Duration::from_secs(2);

/// What XML documents break at.
const WORDS: &[&str] = &[
    "<",
    ">",
    "</",
    "/>",
    "<a>",
    "</a>",
    "<a/>",
    "&",
    ";",
    "&#0;",
    "&#x110000;",
    "&amp;",
    "&lol;",
    "\"",
    "'",
    "=",
    "<![CDATA[",
    "]]>",
    "<!--",
    "-->",
    "<?",
    "?>",
    "<!DOCTYPE a [<!ENTITY b \"c\">]>",
    "xmlns",
    "xsi:type=\"\"",
    ":type=\"x\"",
    ",",
    "-1",
    "99999999999999999999",
    "9223372036854775807",
    "1e400",
    "20,",
    "*",
    "\0",
    "\u{1b}[31m",
    "\u{fffd}",
    "\u{feff}",
    "<returnval>",
    "</returnval>",
    "<value>",
    "</value>",
    "<token>",
    "<entity type=\"VirtualMachine\">vm-1</entity>",
    "<soapenv:Fault>",
    "<detail>",
    "<missingSet>",
    "<fault xsi:type=\"NotAuthenticated\"/>",
    "2026-02-30T25:61:61Z",
];

/// Runs `check` on every file of `tests/fuzz/<target>` and on mutants of them.
///
/// # Panics
/// When `check` panics or takes too long. The input is kept in `target/fuzz/`.
#[expect(
    clippy::panic,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a finding fails the test that runs the target"
)]
pub fn run(target: &str, check: impl Fn(&str)) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut corpus: Vec<Vec<u8>> = Vec::new();
    let mut files: Vec<PathBuf> = fs::read_dir(root.join("tests/fuzz").join(target))
        .unwrap_or_else(|error| panic!("no corpus for {target}: {error}"))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    for file in files {
        corpus.push(fs::read(file).unwrap());
    }
    assert!(!corpus.is_empty(), "the corpus of {target} is empty");

    let stand = |input: &[u8]| {
        // As the transport does: bytes that are not UTF-8 are replaced.
        let text = String::from_utf8_lossy(input);
        let mut result = Ok(());
        let mut took = Duration::MAX;
        // A machine that stalls is not the input's fault: slow is what is slow every time.
        for _ in 0..3 {
            let started = Instant::now();
            result = catch_unwind(AssertUnwindSafe(|| check(&text)));
            took = took.min(started.elapsed());
            if result.is_err() || took <= SLOWEST {
                break;
            }
        }
        let slow = took > SLOWEST;
        if result.is_err() || slow {
            let kept = keep(&root, target, input);
            eprintln!(
                "{target}: {} after {:?}; the input is {}",
                if slow { "slow" } else { "panic" },
                took,
                kept.display()
            );
        }
        if let Err(panic) = result {
            resume_unwind(panic);
        }
        assert!(!slow, "{target}: too slow");
    };
    for input in &corpus {
        stand(input);
    }
    let seconds = std::env::var("FUZZ_SECONDS")
        .ok()
        .map(|text| text.parse().unwrap());
    let seed = seconds.map_or(1, |_: u64| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        now.map_or(1, |now| u64::from(now.subsec_nanos()) << 16 | 1)
    });
    let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut random = Random(seed);
    let mut n = 0_u64;
    while end.map_or(n < MUTANTS, |end| Instant::now() < end) {
        stand(&mutant(&corpus, &mut random));
        n += 1;
    }
    if end.is_some() {
        eprintln!(
            "{target}: {n} mutants of {} files from seed {seed}, no finding",
            corpus.len()
        );
    }
}

fn keep(root: &Path, target: &str, input: &[u8]) -> PathBuf {
    let directory = root.join("target/fuzz");
    let hash = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let file = directory.join(format!("{target}-{hash:016x}"));
    // Where it cannot be kept, the panic still tells the seed's story.
    fs::create_dir_all(directory)
        .and_then(|()| fs::write(&file, input))
        .unwrap_or_default();
    file
}

/// xorshift64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 1).unwrap_or(0) % end.max(1)
    }

    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length + 1);
        let most = if self.below(4) == 0 { length } else { 64 };
        start..(start + self.below(most + 1)).min(length)
    }
}

/// A file of the corpus with one to eight changes.
fn mutant(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let pick = |random: &mut Random| {
        corpus
            .get(random.below(corpus.len()))
            .cloned()
            .unwrap_or_default()
    };
    let mut input = pick(random);
    for _ in 0..=random.below(8) {
        let at = random.below(input.len() + 1);
        match random.below(9) {
            // Other bits.
            0 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
            // Any byte, UTF-8 or not.
            1 => input.insert(at, u8::try_from(random.below(256)).unwrap_or(0)),
            // Ends early.
            2 => input.truncate(at),
            // A part is missing.
            3 => {
                let range = random.range(input.len());
                input.drain(range);
            }
            // A part comes twice, or in another place.
            4 | 5 => {
                let range = random.range(input.len());
                let part = input.get(range).unwrap_or_default().to_vec();
                for _ in 0..=random.below(4) {
                    input.splice(at..at, part.iter().copied());
                }
            }
            // A part of another document.
            6 => {
                let other = pick(random);
                let range = random.range(other.len());
                input.splice(at..at, other.get(range).unwrap_or_default().iter().copied());
            }
            // Something that means something, in between or instead.
            _ => {
                let word = WORDS.get(random.below(WORDS.len())).copied().unwrap_or_default();
                let until = (at + random.below(2) * word.len()).min(input.len());
                input.splice(at..until, word.bytes());
            }
        }
        input.truncate(LARGEST);
    }
    input
}
