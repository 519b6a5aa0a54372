//! When cargo runs the build script again.

use std::{collections::BTreeSet, fs, path::Path};

#[test]
fn every_file_read_is_watched_imports_included() {
    // Where cargo keeps what a build script printed.
    let printed = Path::new(env!("OUT_DIR")).parent().unwrap().join("output");
    let printed = fs::read_to_string(printed).unwrap();
    let watched: BTreeSet<_> =
        printed.lines().filter_map(|line| line.strip_prefix("cargo:rerun-if-changed=")).collect();
    let expected = [
        "proto/bare.proto",
        "proto/comments.proto",
        "proto/common/v1/common.proto",
        "proto/deep/deep.proto",
        "proto/deep/er/deeper.proto",
        "proto/kinds.proto",
        "proto/known.proto",
        "proto/optional.proto",
        "proto/options.proto",
        "proto/orders.proto",
        "proto/reserved.proto",
    ];
    assert_eq!(watched, expected.into(), "and no google/protobuf/*.proto, which is no file here");
}
