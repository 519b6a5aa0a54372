//! Two builds: one with default options, and one in which each option is used.

use std::{env, path::Path};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    micro_build::compile_protos(
        &[
            "proto/kinds.proto",
            "proto/deep/deep.proto",
            "proto/bare.proto",
            "proto/comments.proto",
            "proto/known.proto",
            "proto/optional.proto",
            "proto/orders.proto",
            "proto/reserved.proto",
        ],
        &["proto"],
    )?;

    let out_dir = env::var("OUT_DIR")?;
    let options = || {
        micro_build::configure()
            .extern_path(".common.v1", "crate::common::v1")
            .type_attribute("options.Blob", "#[must_use]")
            .field_attribute("Blob.data", "#[doc = \"The data itself.\"]")
            .bytes(["."])
            .file_descriptor_set_path(Path::new(&out_dir).join("options.bin"))
    };
    options().compile_protos(&["proto/options.proto"], &["proto"])?;
    for (folder, options) in
        [("client", options().client_only()), ("server", options().server_only())]
    {
        let folder = Path::new(&out_dir).join(folder);
        std::fs::create_dir_all(&folder)?;
        options.out_dir(folder).compile_protos(&["proto/options.proto"], &["proto"])?;
    }
    Ok(())
}
