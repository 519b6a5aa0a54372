//! Methods that `prost` derives on a message for some of its fields.

use prost_types::{
    DescriptorProto, FieldDescriptorProto,
    field_descriptor_proto::{Label, Type},
};

use crate::names;

/// The names of the methods for one field of a message that is not in a oneof. `full` is the
/// message's full name with a leading dot.
pub(crate) fn accessors(
    message: &DescriptorProto,
    full: &str,
    field: &FieldDescriptorProto,
    is_proto2: bool,
) -> Vec<String> {
    let name = names::snake(field.name());
    let is_repeated = field.label() == Label::Repeated;
    if let Some(entry) = map_entry(message, full, field) {
        let is_enum = entry.field.iter().any(|field| field.r#type() == Type::Enum);
        return if is_enum {
            vec![format!("get_{name}"), format!("insert_{name}")]
        } else {
            vec![]
        };
    }
    let is_optional = field.proto3_optional() || is_proto2 && field.label() == Label::Optional;
    match field.r#type() {
        Type::Enum if is_repeated => vec![format!("push_{name}"), name],
        Type::Enum => vec![format!("set_{name}"), name],
        Type::Message | Type::Group => vec![],
        _ if is_optional => vec![name],
        _ => vec![],
    }
}

/// The message that stands for the entries of a map, if `field` is one.
pub(crate) fn map_entry<'a>(
    message: &'a DescriptorProto,
    full: &str,
    field: &FieldDescriptorProto,
) -> Option<&'a DescriptorProto> {
    let name = field.type_name().strip_prefix(full)?.strip_prefix('.')?;
    message.nested_type.iter().find(|nested| nested.name() == name && is_map_entry(nested))
}

pub(crate) fn is_map_entry(message: &DescriptorProto) -> bool {
    message.options.as_ref().is_some_and(|options| options.map_entry())
}
