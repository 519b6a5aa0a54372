//! What has Rust code elsewhere and gets none here.

/// The paths given by `extern_path`, and `google.protobuf`, whose types `micro` re-exports.
#[derive(Debug, Default)]
pub(crate) struct Externals(Vec<String>);

impl Externals {
    pub(crate) fn new(extern_paths: &[(String, String)]) -> Self {
        let paths = extern_paths.iter().map(|(proto, _)| proto.clone());
        Self(paths.chain([".google.protobuf".to_owned()]).collect())
    }

    /// Whether the item with this full name (leading dot) lies under one of the paths.
    pub(crate) fn has(&self, full_name: &str) -> bool {
        self.0.iter().any(|path| {
            full_name
                .strip_prefix(path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    }
}
