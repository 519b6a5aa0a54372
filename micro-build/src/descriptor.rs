//! A service -> its `ServiceDescriptor`, a constant.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use prost_build::Comments;

use crate::{
    docs, names,
    service::{MethodCode, ServiceCode},
    shape::{Shape, Shapes},
};

/// Writes the constant: first the messages that the methods exchange, then the methods.
pub(crate) fn write(service: &ServiceCode, shapes: &Shapes, buf: &mut String) {
    let messages = Messages::of(service);
    let _ = writeln!(
        buf,
        "/// Describes `{}`: its methods and what they exchange.\n\
         #[allow(dead_code)]\n\
         pub const {}: ::micro::descriptor::ServiceDescriptor = {{\n\
         use ::micro::descriptor::{{{}}};",
        service.full_name,
        service.names.descriptor,
        match service.methods.is_empty() {
            true => "ServiceDescriptor",
            false => {
                "IdempotencyLevel, MethodDescriptor, MethodKind, ServiceDescriptor, TypeDescriptor"
            }
        },
    );
    for (message, constant) in &messages.0 {
        let _ = write!(buf, "const {constant}: TypeDescriptor = ");
        expression(&shapes.message(message), buf);
        buf.push_str(";\n");
    }
    let _ = writeln!(
        buf,
        "ServiceDescriptor {{ name: {:?}, comment: {:?}, deprecated: {}, methods: &[",
        service.full_name,
        comment(&service.comments),
        service.deprecated,
    );
    for method in &service.methods {
        method_expression(service, method, &messages, buf);
    }
    buf.push_str("] } };\n");
}

fn method_expression(
    service: &ServiceCode,
    method: &MethodCode,
    messages: &Messages,
    buf: &mut String,
) {
    let name = &method.method.proto_name;
    let _ = writeln!(
        buf,
        "MethodDescriptor {{ name: {name:?}, path: {:?}, kind: MethodKind::{}, \
         idempotency: IdempotencyLevel::{}, deprecated: {}, comment: {:?}, \
         request: {}, response: {} }},",
        format!("/{}/{name}", service.full_name),
        method.kind.name(),
        method.idempotency(),
        method.deprecated(),
        comment(&method.method.comments),
        messages.0[&method.method.input_proto_type],
        messages.0[&method.method.output_proto_type],
    );
}

/// What stands before an item and behind it.
fn comment(comments: &Comments) -> String {
    docs::plain(&[&comments.leading[..], &comments.trailing[..]].concat())
}

fn expression(shape: &Shape, buf: &mut String) {
    let _ = write!(buf, "TypeDescriptor::new({:?}, {:?}, &[", shape.name, shape.kind);
    for field in &shape.fields {
        expression(field, buf);
        buf.push_str(", ");
    }
    buf.push_str("])");
}

/// The messages that a service's methods name, each with a constant's name of its own.
struct Messages(BTreeMap<String, String>);

impl Messages {
    fn of(service: &ServiceCode) -> Self {
        let messages = service
            .methods
            .iter()
            .flat_map(|method| [&method.method.input_proto_type, &method.method.output_proto_type]);
        let (mut constants, mut taken) = (BTreeMap::new(), BTreeSet::new());
        for message in messages {
            if constants.contains_key(message) {
                continue;
            }
            // `a.B.C` and `a.BC` are two messages and one name in capitals.
            let mut constant = names::constant(message);
            while !taken.insert(constant.clone()) {
                constant.push('_');
            }
            constants.insert(message.clone(), constant);
        }
        Self(constants)
    }
}
