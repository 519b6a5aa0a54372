//! A service -> its `ServiceDescriptor`, a constant.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use prost_build::Comments;

use super::{MethodCode, ServiceCode};
use crate::{
    docs, names,
    shape::{Shape, Shapes},
};

/// Writes the constant: first the messages that the methods exchange, then the methods.
pub(super) fn write(service: &ServiceCode, shapes: &Shapes, buf: &mut String) {
    let messages = Messages::of(service);
    let described: Vec<_> = messages
        .constants
        .iter()
        .map(|(name, constant)| (constant, shapes.message(name)))
        .collect();
    let lists = Lists::of(described.iter().map(|(_, shape)| shape), messages.taken.clone());
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
    for ((_, fields), constant) in &lists.constants {
        let _ = writeln!(buf, "const {constant}: &[TypeDescriptor] = {};", lists.written(fields));
    }
    for (constant, shape) in &described {
        let Shape { name, kind, fields } = shape;
        let fields = lists.written(fields);
        let _ = writeln!(
            buf,
            "const {constant}: TypeDescriptor = TypeDescriptor::new({name:?}, {kind:?}, {fields});"
        );
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
        messages.constants[&method.method.input_proto_type],
        messages.constants[&method.method.output_proto_type],
    );
}

/// What stands before an item and behind it.
fn comment(comments: &Comments) -> String {
    docs::plain(&[&comments.leading[..], &comments.trailing[..]].concat())
}

/// Names of constants, each given once.
#[derive(Clone, Default)]
struct Taken(BTreeSet<String>);

impl Taken {
    /// `a.B.C` and `a.BC` are two messages and one name in capitals.
    fn take(&mut self, mut constant: String) -> String {
        while !self.0.insert(constant.clone()) {
            constant.push('_');
        }
        constant
    }
}

/// The messages that a service's methods name, each with a constant's name of its own.
struct Messages {
    constants: BTreeMap<String, String>,
    taken: Taken,
}

impl Messages {
    fn of(service: &ServiceCode) -> Self {
        let messages = service
            .methods
            .iter()
            .flat_map(|method| [&method.method.input_proto_type, &method.method.output_proto_type]);
        let (mut constants, mut taken) = (BTreeMap::new(), Taken::default());
        for message in messages {
            if !constants.contains_key(message) {
                constants.insert(message.clone(), taken.take(names::constant(message)));
            }
        }
        Self { constants, taken }
    }
}

/// The fields of the messages within those, by the message's type: a constant each, since written
/// out in each field of the type they would be as many as the fields of both multiplied.
#[derive(Default)]
struct Lists<'a> {
    constants: BTreeMap<(&'a str, &'a [Shape]), String>,
    taken: Taken,
}

impl<'a> Lists<'a> {
    fn of(messages: impl Iterator<Item = &'a Shape>, taken: Taken) -> Self {
        let mut lists = Self { taken, ..Self::default() };
        messages.for_each(|message| lists.add(message));
        lists
    }

    fn add(&mut self, message: &'a Shape) {
        for field in message.fields.iter().filter(|field| !field.fields.is_empty()) {
            let key = (field.kind.as_str(), field.fields.as_slice());
            if !self.constants.contains_key(&key) {
                let constant = format!("{}_FIELDS", names::constant(&field.kind));
                self.constants.insert(key, self.taken.take(constant));
                self.add(field);
            }
        }
    }

    fn written(&self, fields: &[Shape]) -> String {
        let written = fields.iter().map(|Shape { name, kind, fields }| {
            let constant = self.constants.get(&(kind.as_str(), fields.as_slice()));
            let fields = constant.map_or("&[]", String::as_str);
            format!("TypeDescriptor::new({name:?}, {kind:?}, {fields})")
        });
        format!("&[{}]", written.collect::<Vec<_>>().join(", "))
    }
}
