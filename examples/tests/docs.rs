//! The documentation of `micro` runs on generated code that is kept beside it.

#[test]
fn the_code_that_micros_docs_run_on_is_what_the_generators_write() {
    for (file, kept, written) in [
        (
            "greeter.v1.rs",
            include_str!("../../micro/src/doc/greeter.v1.rs"),
            include_str!(concat!(env!("OUT_DIR"), "/greeter.v1.rs")),
        ),
        (
            "echo.v1.rs",
            include_str!("../../micro/src/doc/echo.v1.rs"),
            include_str!(concat!(env!("OUT_DIR"), "/echo.v1.rs")),
        ),
        (
            "tonic-greeter.v1.rs",
            include_str!("../../micro/src/doc/tonic-greeter.v1.rs"),
            include_str!(concat!(env!("OUT_DIR"), "/tonic/greeter.v1.rs")),
        ),
    ] {
        assert!(kept == written, "copy the generated {file} to micro/src/doc/{file}");
    }
}
