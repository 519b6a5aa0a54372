//! Messages as go-micro describes them in a registry record.
//!
//! go-micro reflects over the Go structs that `protoc-gen-go` generates (its
//! `server/grpc/extractor.go`), so names and types here are Go's: `float64`, `[]uint8`, a nested
//! message `Outer_Inner`, a oneof as the unexported interface `isOuter_Choice`. Maps are
//! anonymous types in Go, whose name is empty. It stops at the third level, does not look into
//! repeated messages, and so do we.

use std::collections::HashMap;

use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};

/// A message or field with its fields: the source of a `TypeDescriptor`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Shape {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) fields: Vec<Self>,
}

/// Levels that go-micro describes: the message, its fields, their fields.
const LEVELS: usize = 3;

/// Every message and enum of a build by its full name with a leading dot.
#[derive(Debug, Default)]
pub(crate) struct Shapes {
    messages: HashMap<String, (String, DescriptorProto)>,
    enums: HashMap<String, String>,
}

impl Shapes {
    pub(crate) fn new(set: &FileDescriptorSet) -> Self {
        let mut shapes = Self::default();
        for file in &set.file {
            let scope = match file.package() {
                "" => String::new(),
                package => format!(".{package}"),
            };
            shapes.add(&scope, "", &file.message_type, &file.enum_type);
        }
        shapes
    }

    fn add(
        &mut self,
        scope: &str,
        outer: &str,
        messages: &[DescriptorProto],
        enums: &[EnumDescriptorProto],
    ) {
        let go_name = |name: &str| match outer {
            "" => go_camel(name),
            outer => go_camel(&format!("{outer}.{name}")),
        };
        for item in enums {
            self.enums.insert(format!("{scope}.{}", item.name()), go_name(item.name()));
        }
        for message in messages {
            let full = format!("{scope}.{}", message.name());
            let path = match outer {
                "" => message.name().to_owned(),
                outer => format!("{outer}.{}", message.name()),
            };
            self.messages.insert(full.clone(), (go_name(message.name()), message.clone()));
            self.add(&full, &path, &message.nested_type, &message.enum_type);
        }
    }

    /// The shape of the message with this full name (leading dot).
    pub(crate) fn message(&self, full_name: &str) -> Shape {
        self.at_level(full_name, 0)
    }

    fn at_level(&self, full_name: &str, level: usize) -> Shape {
        let Some((name, message)) = self.messages.get(full_name) else {
            unreachable!("`{full_name}` is used and protox resolved every name");
        };
        let fields =
            if level + 1 < LEVELS { self.fields(name, message, level + 1) } else { Vec::new() };
        Shape { name: name.clone(), kind: name.clone(), fields }
    }

    fn fields(&self, go_name: &str, message: &DescriptorProto, level: usize) -> Vec<Shape> {
        let mut fields = Vec::new();
        let mut oneofs = Vec::new();
        for field in &message.field {
            match field.oneof_index {
                // A proto3 `optional` is a oneof of one field to the compiler only.
                Some(oneof) if !field.proto3_optional() => {
                    if !oneofs.contains(&oneof) {
                        oneofs.push(oneof);
                        let oneof = message.oneof_decl[oneof as usize].name();
                        let name = format!("is{go_name}_{}", go_camel(oneof));
                        fields.push(Shape { kind: name.clone(), name, fields: Vec::new() });
                    }
                }
                _ => fields.push(self.field(field, level)),
            }
        }
        fields
    }

    fn field(&self, field: &FieldDescriptorProto, level: usize) -> Shape {
        let leaf = |kind: String| Shape { name: field.name().to_owned(), kind, fields: Vec::new() };
        if self.is_map(field) {
            return leaf(String::new());
        }
        let scalar = match field.r#type() {
            Type::Double => "float64",
            Type::Float => "float32",
            Type::Int64 | Type::Sint64 | Type::Sfixed64 => "int64",
            Type::Int32 | Type::Sint32 | Type::Sfixed32 => "int32",
            Type::Uint64 | Type::Fixed64 => "uint64",
            Type::Uint32 | Type::Fixed32 => "uint32",
            Type::Bool => "bool",
            Type::String => "string",
            // A slice of slices has an element without a name.
            Type::Bytes if field.label() == Label::Repeated => "",
            Type::Bytes => "[]uint8",
            Type::Enum => self.enums[field.type_name()].as_str(),
            Type::Message | Type::Group => {
                let mut shape = self.at_level(field.type_name(), level);
                if field.label() == Label::Repeated {
                    return leaf(format!("[]{}", shape.kind));
                }
                field.name().clone_into(&mut shape.name);
                return shape;
            }
        };
        match field.label() {
            Label::Repeated => leaf(format!("[]{scalar}")),
            _ => leaf(scalar.to_owned()),
        }
    }

    fn is_map(&self, field: &FieldDescriptorProto) -> bool {
        let message = self.messages.get(field.type_name());
        let options = message.and_then(|(_, message)| message.options.as_ref());
        options.is_some_and(|options| options.map_entry())
    }
}

/// `protoc-gen-go`'s naming (`strs.GoCamelCase`).
fn go_camel(name: &str) -> String {
    let bytes = name.as_bytes();
    let is_lower = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_lowercase);
    let mut camel = String::with_capacity(name.len());
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        match byte {
            b'.' if is_lower(at + 1) => {}
            b'.' => camel.push('_'),
            b'_' if at == 0 || bytes[at - 1] == b'.' => camel.push('X'),
            b'_' if is_lower(at + 1) => {}
            _ if byte.is_ascii_digit() => camel.push(byte.into()),
            _ => {
                camel.push(byte.to_ascii_uppercase().into());
                while is_lower(at + 1) {
                    at += 1;
                    camel.push(bytes[at].into());
                }
            }
        }
        at += 1;
    }
    camel
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::Value;

    use super::*;

    fn vectors() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors")
    }

    fn shapes_of(proto: &str) -> Shapes {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("test.proto"), proto).unwrap();
        Shapes::new(&protox::compile(["test.proto"], [folder.path()]).unwrap())
    }

    fn shape_of(value: &Value) -> Shape {
        Shape {
            name: value["name"].as_str().unwrap().to_owned(),
            kind: value["type"].as_str().unwrap().to_owned(),
            fields: value["values"].as_array().into_iter().flatten().map(shape_of).collect(),
        }
    }

    fn leaf(name: &str, kind: &str) -> Shape {
        Shape { name: name.to_owned(), kind: kind.to_owned(), fields: Vec::new() }
    }

    #[test]
    fn every_shape_is_the_one_that_go_micro_wrote_into_etcd() {
        let set = protox::compile(["echo.proto"], [vectors()]).unwrap();
        let shapes = Shapes::new(&set);
        let records = std::fs::read_to_string(vectors().join("etcd-records.txt")).unwrap();
        let mut compared = 0;
        for line in records.lines().filter(|line| line.starts_with("VALUE")) {
            let Some(json) = line.find('{').map(|at| &line[at..]) else {
                continue;
            };
            let Ok(record) = serde_json::from_str::<Value>(json) else {
                continue;
            };
            // go-micro's other server ("mucp") has an extractor of its own.
            if record["nodes"][0]["metadata"]["server"] != "grpc" {
                continue;
            }
            for endpoint in record["endpoints"].as_array().into_iter().flatten() {
                let unary = endpoint["metadata"]["stream"].is_null();
                for side in ["request", "response"] {
                    let written = &endpoint[side];
                    if !unary || written["type"].as_str().is_none_or(str::is_empty) {
                        continue;
                    }
                    let written = shape_of(written);
                    assert_eq!(shapes.message(&format!(".echo.v1.{}", written.name)), written);
                    compared += 1;
                }
            }
        }
        assert!(compared >= 4, "the vectors hold unary endpoints, {compared} were compared");
    }

    #[test]
    fn a_rich_message_is_described_three_levels_deep_with_gos_names() {
        let set = protox::compile(["echo.proto"], [vectors()]).unwrap();
        let rich = Shapes::new(&set).message(".echo.v1.Rich");
        let leaf_fields = vec![leaf("leaf_name", "string"), leaf("deep", "Deep")];
        let expected = vec![
            leaf("user_name", "string"),
            leaf("raw_data", "[]uint8"),
            leaf("i32", "int32"),
            leaf("u64", "uint64"),
            leaf("flag", "bool"),
            leaf("ratio", "float64"),
            leaf("kind", "Kind"),
            Shape { fields: leaf_fields, ..leaf("leaf", "Leaf") },
            leaf("leaves", "[]Leaf"),
            leaf("tags", "[]string"),
            leaf("labels", ""),
            leaf("opt", "int32"),
            leaf("isRich_Choice", "isRich_Choice"),
        ];
        assert_eq!(rich, Shape { fields: expected, ..leaf("Rich", "Rich") });
    }

    #[test]
    fn nested_types_are_named_as_protoc_gen_go_names_them() {
        let shapes = shapes_of(
            r#"syntax = "proto3"; package a.b;
               message outer_one {
                 message inner { oneof which_one { string x = 1; string y = 2; } }
                 enum mode { ZERO = 0; }
                 inner in = 1; mode the_mode = 2; repeated mode modes = 3;
                 repeated bytes blobs = 4; float f = 5; sfixed64 s = 6; optional bytes b = 7;
               }"#,
        );
        let which = "isOuterOneInner_WhichOne";
        let expected = vec![
            Shape { fields: vec![leaf(which, which)], ..leaf("in", "OuterOneInner") },
            leaf("the_mode", "OuterOneMode"),
            leaf("modes", "[]OuterOneMode"),
            leaf("blobs", "[]"),
            leaf("f", "float32"),
            leaf("s", "int64"),
            leaf("b", "[]uint8"),
        ];
        let message = shapes.message(".a.b.outer_one");
        assert_eq!(message, Shape { fields: expected, ..leaf("OuterOne", "OuterOne") });
    }

    #[test]
    fn a_message_that_contains_itself_ends_at_the_third_level() {
        let shapes = shapes_of("syntax = \"proto3\"; message Tree { Tree left = 1; }");
        let third = leaf("left", "Tree");
        let second = Shape { fields: vec![third], ..leaf("left", "Tree") };
        assert_eq!(shapes.message(".Tree"), Shape { fields: vec![second], ..leaf("Tree", "Tree") });
    }

    #[test]
    fn gos_camel_case() {
        for (name, go) in [
            ("choice", "Choice"),
            ("foo_bar", "FooBar"),
            ("Outer.Inner", "Outer_Inner"),
            ("outer.inner", "OuterInner"),
            ("_hidden", "XHidden"),
            ("a_1", "A_1"),
            ("URL_x", "URLX"),
        ] {
            assert_eq!(go_camel(name), go, "{name}");
        }
    }
}
