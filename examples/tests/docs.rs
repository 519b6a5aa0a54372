//! The documentation of `micro` runs on generated code that is kept beside it.

#[test]
fn the_code_that_micros_docs_run_on_is_what_micro_build_writes() {
    let kept = include_str!("../../micro/src/doc/greeter.v1.rs");
    let written = include_str!(concat!(env!("OUT_DIR"), "/greeter.v1.rs"));
    assert!(kept == written, "copy the greeter's generated code to micro/src/doc/greeter.v1.rs");
}
