//! Where a declaration is: `path:line`.

use prost_types::FileDescriptorProto;

/// Field numbers of `descriptor.proto`, of which paths in source information are made.
pub(crate) mod tag {
    pub(crate) const FILE_MESSAGE: i32 = 4;
    pub(crate) const FILE_ENUM: i32 = 5;
    pub(crate) const FILE_SERVICE: i32 = 6;
    pub(crate) const FILE_PACKAGE: i32 = 2;
    pub(crate) const MESSAGE_FIELD: i32 = 2;
    pub(crate) const MESSAGE_NESTED: i32 = 3;
    pub(crate) const MESSAGE_ENUM: i32 = 4;
    pub(crate) const MESSAGE_ONEOF: i32 = 8;
    pub(crate) const ENUM_VALUE: i32 = 2;
    pub(crate) const SERVICE_METHOD: i32 = 2;
}

/// The line, from 1, on which the declaration at `path` starts; 1 if the file has no source
/// information, as those that `protox` carries.
pub(crate) fn line(file: &FileDescriptorProto, path: &[i32]) -> i32 {
    let locations = file.source_code_info.iter().flat_map(|info| &info.location);
    let span = locations.filter(|location| location.path == path).map(|location| &location.span);
    span.filter_map(|span| span.first()).next().map_or(1, |line| line + 1)
}
