//! The corpus of the fuzz target `http_machine`, without a fuzzer: what once was found stays found.

#[path = "data/driver.rs"]
mod driver;

#[test]
fn every_file_of_the_corpus_passes() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/http_machine");
    let files: Vec<_> = std::fs::read_dir(corpus).expect("the corpus lies in fuzz/").map(|entry| entry.expect("readable").path()).collect();
    assert!(files.len() >= 50, "only {} files: the corpus is gone", files.len());
    for file in files {
        let input = std::fs::read(&file).expect("readable");
        let passed = std::panic::catch_unwind(|| driver::any_input(&input));
        assert!(passed.is_ok(), "{}", file.display());
    }
}
