//! Generates the shared protos with micro, and two once more as tonic has them, for comparison.

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    micro_build::compile_protos(
        &["../proto/echo.proto", "../proto/greeter.proto", "../proto/ledger.proto"],
        &["../proto"],
    )?;

    let out_dir = PathBuf::from(env::var("OUT_DIR")?).join("tonic");
    fs::create_dir_all(&out_dir)?;
    let files = protox::compile(["../proto/echo.proto", "../proto/ledger.proto"], ["../proto"])?;
    tonic_prost_build::configure().out_dir(out_dir).compile_fds(files)?;
    Ok(())
}
