//! Generates the examples' code: micro's for all of them, tonic's own beside it for `existing-tonic-service`.

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    micro_build::compile_protos(&["../proto/greeter.proto", "../proto/echo.proto"], &["../proto"])?;

    let out_dir = PathBuf::from(env::var("OUT_DIR")?).join("tonic");
    fs::create_dir_all(&out_dir)?;
    let files = protox::compile(["../proto/greeter.proto"], ["../proto"])?;
    tonic_prost_build::configure().out_dir(out_dir).compile_fds(files)?;
    Ok(())
}
