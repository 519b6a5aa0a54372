//! What generated code knows about a service, as constants.
//!
//! `micro-build` writes one [`ServiceDescriptor`] per service. The server routes by it, the client
//! calls by it, and the registry record advertises it.

/// A service of a `.proto` file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceDescriptor {
    /// The full name, package included: `greeter.v1.Greeter`.
    pub name: &'static str,
    /// The comment before the service and behind it, without comment signs; empty when it has none.
    pub comment: &'static str,
    /// Whether the service is marked `deprecated`.
    pub deprecated: bool,
    /// Its methods in the order of the file.
    pub methods: &'static [MethodDescriptor],
}

impl ServiceDescriptor {
    /// The name without the package: `Greeter`.
    pub fn short_name(&self) -> &'static str {
        self.name.rsplit_once('.').map_or(self.name, |(_, short)| short)
    }
}

/// A method of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MethodDescriptor {
    /// The name as the `.proto` has it: `SayHello`.
    pub name: &'static str,
    /// The path on the wire: `/greeter.v1.Greeter/SayHello`.
    pub path: &'static str,
    /// Which sides stream.
    pub kind: MethodKind,
    /// What the `.proto` says about calling it twice.
    pub idempotency: IdempotencyLevel,
    /// Whether the method is marked `deprecated`.
    pub deprecated: bool,
    /// The comment before it and behind it, without comment signs; empty when it has none.
    pub comment: &'static str,
    /// The request message, as the registry record describes it.
    pub request: TypeDescriptor,
    /// The response message, as the registry record describes it.
    pub response: TypeDescriptor,
}

/// Which sides of a call stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MethodKind {
    /// One request, one response.
    Unary,
    /// One request, a stream of responses.
    ServerStreaming,
    /// A stream of requests, one response.
    ClientStreaming,
    /// Both sides stream.
    BidiStreaming,
}

/// The `idempotency_level` option of a method, which permits retries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum IdempotencyLevel {
    /// Not declared: a call is sent again only if no handler can have seen it.
    #[default]
    Unknown,
    /// `NO_SIDE_EFFECTS`.
    NoSideEffects,
    /// `IDEMPOTENT`.
    Idempotent,
}

impl IdempotencyLevel {
    /// Whether a second attempt is harmless, so that a call may be retried on another node.
    pub fn is_idempotent(self) -> bool {
        !matches!(self, Self::Unknown)
    }
}

/// A message or a field, with its fields down to the depth that go-micro advertises (three levels).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TypeDescriptor {
    /// The message's name, or the field's name in the `.proto`.
    pub name: &'static str,
    /// The type as go-micro names it: `string`, `int32`, `[]uint8`, a message's name.
    pub kind: &'static str,
    /// The fields of a message; empty for scalars and below the third level.
    pub fields: &'static [Self],
}

impl TypeDescriptor {
    /// A message or field of this name and type, with these fields.
    pub const fn new(name: &'static str, kind: &'static str, fields: &'static [Self]) -> Self {
        Self { name, kind, fields }
    }
}
