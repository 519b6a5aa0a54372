//! What a name of a `.proto` becomes in Rust. Messages, enums and fields follow `prost-build`,
//! which keeps its rules to itself; what matters here is that equal names stay equal.

use heck::{ToShoutySnakeCase, ToSnakeCase, ToUpperCamelCase};

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
        let camel = type_name(proto_name);
        Self {
            descriptor: valid(camel.to_shouty_snake_case()),
            register: format!("register_{}_handler", camel.to_snake_case()),
            handler: format!("{camel}Handler"),
            client: format!("{camel}Client"),
        }
    }
}

/// The Rust type of a message, enum or oneof.
pub(crate) fn type_name(name: &str) -> String {
    valid(name.to_upper_camel_case())
}

/// A field, a module or a method before keywords are escaped.
pub(crate) fn snake(name: &str) -> String {
    name.to_snake_case()
}

/// The variant of an enum's value: without the enum's name in front, as `prost-build` does.
pub(crate) fn variant(enum_name: &str, value: &str) -> String {
    let value = value.to_upper_camel_case();
    match value.strip_prefix(&enum_name.to_upper_camel_case()) {
        Some(rest) if rest.starts_with(char::is_uppercase) => rest.to_owned(),
        _ => value,
    }
}

/// A name for a constant that stands for the message with this full name.
pub(crate) fn constant(full_name: &str) -> String {
    full_name.trim_start_matches('.').replace('.', "_").to_shouty_snake_case()
}

fn valid(name: String) -> String {
    if name.starts_with(|first: char| first.is_ascii_digit()) { format!("_{name}") } else { name }
}
