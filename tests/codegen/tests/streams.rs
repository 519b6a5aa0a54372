//! How methods that stream are written, and what the compiler says to what does not work. The
//! documentation of generated traits and of `micro-build` says the same; keep them together.

#[test]
fn methods_that_stream() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/streams/any_stream.rs");
    cases.pass("tests/streams/error_only.rs");
    cases.pass("tests/streams/named.rs");
    cases.compile_fail("tests/streams/named_without_allow.rs");
    cases.compile_fail("tests/streams/borrowing_the_handler.rs");
}
