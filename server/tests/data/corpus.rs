//! Replays the corpus of a fuzz target without a fuzzer, so that what it once found stays found.

use std::path::Path;

/// Plays every input of `fuzz/corpus/TARGET`, of which there are at least `inputs_min`, and names each before it is played.
pub(crate) fn replay(target: &str, inputs_min: usize, play: impl Fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut replayed = 0;
    for entry in std::fs::read_dir(&corpus).expect("the corpus is in the repository") {
        let path = entry.expect("it can be listed").path();
        println!("{}", path.display());
        play(&std::fs::read(&path).expect("it can be read"));
        replayed += 1;
    }
    assert!(replayed >= inputs_min, "only {replayed} inputs in {}", corpus.display());
}
