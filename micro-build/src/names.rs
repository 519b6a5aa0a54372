//! What a name of a `.proto` becomes in Rust. Messages, enums and fields follow `prost-build`,
//! which keeps its rules to itself; what matters here is that equal names stay equal.

use heck::{ToShoutySnakeCase, ToSnakeCase, ToUpperCamelCase};
use prost_types::{DescriptorProto, EnumDescriptorProto};

/// Names that a client stub has already (`new`, `clone`), or that the prelude's traits take from
/// it by value, before a method on `&self` is looked at (`into`, `try_into`).
const TAKEN: [&str; 4] = ["new", "clone", "into", "try_into"];

/// The Rust method of an rpc, given its snake-case name with keywords already escaped.
pub(crate) fn method(snake: &str) -> String {
    if TAKEN.contains(&snake) { format!("{snake}_") } else { snake.to_owned() }
}

/// The Rust names of a service's items.
#[derive(Debug)]
pub(crate) struct ServiceNames {
    /// `GREETER`, the descriptor.
    pub(crate) descriptor: String,
    /// `GreeterHandler`, the trait.
    pub(crate) handler: String,
    /// `register_greeter_handler`.
    pub(crate) register: String,
    /// `GreeterClient`, the stub.
    pub(crate) client: String,
}

impl ServiceNames {
    pub(crate) fn new(proto_name: &str) -> Self {
        let camel = proto_name.to_upper_camel_case();
        Self {
            descriptor: valid(camel.to_shouty_snake_case()),
            register: format!("register_{}_handler", camel.to_snake_case()),
            handler: valid(format!("{camel}Handler")),
            client: valid(format!("{camel}Client")),
        }
    }
}

/// The Rust type of a message, enum or oneof; the variant of a oneof's field.
pub(crate) fn type_name(name: &str) -> String {
    valid(name.to_upper_camel_case())
}

/// The enum of a oneof, which gives way to what is nested in the message.
pub(crate) fn oneof(message: &DescriptorProto, name: &str) -> String {
    let messages = message.nested_type.iter().map(DescriptorProto::name);
    let enums = message.enum_type.iter().map(EnumDescriptorProto::name);
    let rust = type_name(name);
    let is_taken = messages.chain(enums).any(|nested| type_name(nested) == rust);
    if is_taken { format!("{rust}OneOf") } else { rust }
}

/// A field, a module or a method, where `type` stands for `r#type`.
pub(crate) fn snake(name: &str) -> String {
    valid(name.to_snake_case())
}

/// The variant of an enum's value: without the enum's name in front, as `prost-build` does.
pub(crate) fn variant(enum_name: &str, value: &str) -> String {
    let value = type_name(value);
    match value.strip_prefix(&type_name(enum_name)) {
        Some(rest) if rest.starts_with(char::is_uppercase) => valid(rest.to_owned()),
        _ => value,
    }
}

/// A name for a constant that stands for the message with this full name.
pub(crate) fn constant(full_name: &str) -> String {
    valid(full_name.trim_start_matches('.').replace('.', "_").to_shouty_snake_case())
}

/// Whether Rust allows the name as `r#name` alone.
pub(crate) fn is_raw(name: &str) -> bool {
    // `syn` does not know the one that became a keyword last.
    name == "gen" || syn::parse_str::<syn::Ident>(name).is_err()
}

fn valid(name: String) -> String {
    match name.as_str() {
        "self" | "super" | "crate" | "extern" | "Self" => format!("{name}_"),
        _ if name.starts_with(|first: char| first.is_ascii_digit()) => format!("_{name}"),
        _ => name,
    }
}
