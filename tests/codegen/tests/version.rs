//! What the compiler says to code of a micro-build that does not fit.

#[test]
fn code_of_another_version() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/version/another.rs");
}
