//! The corpus of the fuzz target `http_machine`, without a fuzzer: what once was found stays found.

#[path = "data/corpus.rs"]
mod corpus;
#[path = "data/driver.rs"]
mod driver;

#[test]
fn every_file_of_the_corpus_passes() {
    corpus::replay("http_machine", 50, driver::any_input);
}
