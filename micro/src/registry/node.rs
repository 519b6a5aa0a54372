//! What a registry holds: one record a node.

use std::collections::BTreeMap;

use super::format::gomicro;
use crate::descriptor::{MethodDescriptor, MethodKind, ServiceDescriptor, TypeDescriptor};

/// One registered instance of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The name of the service, under which the node is found.
    pub service: String,
    /// The version of the service; `latest` unless set, as go-micro has it.
    pub version: String,
    /// The node's id, unique within the service.
    pub id: String,
    /// Where it is reached: `host:port`.
    pub address: String,
    /// Free-form facts; `protocol`, `server` and `transport` say `grpc`.
    pub metadata: BTreeMap<String, String>,
    /// The RPC methods it serves, sorted by name.
    pub endpoints: Vec<Endpoint>,
}

impl Node {
    /// A gRPC node of version `latest` without endpoints.
    pub fn new(
        service: impl Into<String>,
        id: impl Into<String>,
        address: impl Into<String>,
    ) -> Self {
        let grpc = |key: &str| (key.to_owned(), "grpc".to_owned());
        Self {
            service: service.into(),
            version: "latest".to_owned(),
            id: id.into(),
            address: address.into(),
            metadata: ["protocol", "server", "transport"].map(grpc).into(),
            endpoints: Vec::new(),
        }
    }

    /// The record as go-micro writes it, for what keeps records elsewhere than in a registry.
    pub(crate) fn to_record(&self) -> Result<Vec<u8>, String> {
        gomicro::encode(self)
    }

    /// The node of such a record.
    pub(crate) fn from_record(record: &[u8]) -> Result<Self, String> {
        gomicro::decode(record)
    }

    /// Whether the node speaks gRPC: its metadata says `protocol=grpc`, as go-micro's gRPC nodes
    /// do and its default ("mucp") nodes do not.
    pub fn is_grpc(&self) -> bool {
        self.metadata.get("protocol").is_some_and(|protocol| protocol == "grpc")
    }
}

/// One RPC method in a node's record.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Endpoint {
    /// `Greeter.SayHello`: the service without its package, and the method.
    pub name: String,
    /// The request; `Context` for a streaming method, as go-micro writes it.
    pub request: Option<Value>,
    /// The response; `Stream` for a streaming method, as go-micro writes it.
    pub response: Option<Value>,
    /// `stream=true` for streaming methods.
    pub metadata: BTreeMap<String, String>,
}

/// The shape of a message in a record.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Value {
    /// The message's or field's name.
    pub name: String,
    /// The type, named as Go names it.
    pub kind: String,
    /// The fields of a message.
    pub values: Vec<Self>,
}

impl Endpoint {
    /// The endpoints of a service, as go-micro advertises them, sorted by name.
    pub fn of(service: &ServiceDescriptor) -> Vec<Self> {
        let mut endpoints: Vec<_> =
            service.methods.iter().map(|method| Self::of_method(service, method)).collect();
        endpoints.sort_by(|a, b| a.name.cmp(&b.name));
        endpoints
    }

    fn of_method(service: &ServiceDescriptor, method: &MethodDescriptor) -> Self {
        let name = format!("{}.{}", service.short_name(), method.name);
        if method.kind == MethodKind::Unary {
            let (request, response) = (Value::of(&method.request), Value::of(&method.response));
            return Self {
                name,
                request: Some(request),
                response: Some(response),
                metadata: BTreeMap::new(),
            };
        }
        let named = |name: &str| {
            Some(Value { name: name.to_owned(), kind: name.to_owned(), values: Vec::new() })
        };
        Self {
            name,
            request: named("Context"),
            response: named("Stream"),
            metadata: BTreeMap::from([("stream".to_owned(), "true".to_owned())]),
        }
    }
}

impl Value {
    fn of(descriptor: &TypeDescriptor) -> Self {
        Self {
            name: descriptor.name.to_owned(),
            kind: descriptor.kind.to_owned(),
            values: descriptor.fields.iter().map(Self::of).collect(),
        }
    }
}
