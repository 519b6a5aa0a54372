//! A service -> its descriptor, handler trait, registration and client stub.
//!
//! What is written here is a thin typed table; what a call or a server does lives in `micro`.

mod descriptor;

use std::fmt::Write;

use prost_build::{Comments, Method, Service, ServiceGenerator};
use prost_types::method_options::IdempotencyLevel;

use crate::{
    docs::OWN,
    external::Externals,
    names::{self, ServiceNames},
    shape::Shapes,
};

/// Which sides of a service are generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Sides {
    #[default]
    Both,
    Client,
    Server,
}

/// Writes the services of a build, each after the messages of its file.
#[derive(Debug)]
pub(crate) struct Generator {
    pub(crate) shapes: Shapes,
    pub(crate) externals: Externals,
    pub(crate) sides: Sides,
}

impl ServiceGenerator for Generator {
    fn generate(&mut self, service: Service, buf: &mut String) {
        let service = ServiceCode::new(service);
        if self.externals.has(&format!(".{}", service.full_name)) {
            return;
        }
        descriptor::write(&service, &self.shapes, buf);
        if self.sides != Sides::Client {
            service.handler(buf);
            service.register(buf);
        }
        if self.sides != Sides::Server {
            service.client(buf);
        }
    }
}

/// A service with its names in Rust.
struct ServiceCode {
    names: ServiceNames,
    /// `greeter.v1.Greeter`.
    full_name: String,
    deprecated: bool,
    comments: Comments,
    methods: Vec<MethodCode>,
}

/// A method with its names in Rust.
struct MethodCode {
    /// `say_hello`.
    rust_name: String,
    kind: Kind,
    method: Method,
}

impl MethodCode {
    fn deprecated(&self) -> bool {
        self.method.options.deprecated()
    }

    fn idempotency(&self) -> &'static str {
        match self.method.options.idempotency_level() {
            IdempotencyLevel::IdempotencyUnknown => "Unknown",
            IdempotencyLevel::NoSideEffects => "NoSideEffects",
            IdempotencyLevel::Idempotent => "Idempotent",
        }
    }

    /// The comment, or `otherwise`, and whether it is deprecated.
    fn head(&self, otherwise: &str, buf: &mut String) {
        docs(&self.method.comments, otherwise, buf);
        if self.deprecated() {
            buf.push_str("#[deprecated]\n");
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unary,
    ServerStreaming,
    ClientStreaming,
    BidiStreaming,
}

impl Kind {
    fn of(method: &Method) -> Self {
        match (method.client_streaming, method.server_streaming) {
            (false, false) => Self::Unary,
            (false, true) => Self::ServerStreaming,
            (true, false) => Self::ClientStreaming,
            (true, true) => Self::BidiStreaming,
        }
    }

    /// `MethodKind`'s variant, and the stem of the call's type.
    fn name(self) -> &'static str {
        match self {
            Self::Unary => "Unary",
            Self::ServerStreaming => "ServerStreaming",
            Self::ClientStreaming => "ClientStreaming",
            Self::BidiStreaming => "BidiStreaming",
        }
    }

    /// The method of `Handlers`.
    fn registration(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::ServerStreaming => "server_streaming",
            Self::ClientStreaming => "client_streaming",
            Self::BidiStreaming => "bidi_streaming",
        }
    }

    fn streams_requests(self) -> bool {
        matches!(self, Self::ClientStreaming | Self::BidiStreaming)
    }

    fn streams_responses(self) -> bool {
        matches!(self, Self::ServerStreaming | Self::BidiStreaming)
    }
}

impl ServiceCode {
    fn new(service: Service) -> Self {
        let full_name = match service.package.as_str() {
            "" => service.proto_name.clone(),
            package => format!("{package}.{}", service.proto_name),
        };
        let methods = service.methods.into_iter().map(|method| MethodCode {
            rust_name: names::method(&method.name),
            kind: Kind::of(&method),
            method,
        });
        Self {
            names: ServiceNames::new(&service.proto_name),
            full_name,
            deprecated: service.options.deprecated(),
            comments: service.comments,
            methods: methods.collect(),
        }
    }

    /// Allows rpcs whose Rust names would have clippy expect another `self`.
    fn convention(&self) -> &'static str {
        let starts = |method: &MethodCode, start| method.rust_name.starts_with(start);
        let mut methods = self.methods.iter();
        match methods.any(|method| starts(method, "into_") || starts(method, "from_")) {
            true => ", clippy::wrong_self_convention",
            false => "",
        }
    }

    fn handler(&self, buf: &mut String) {
        let ServiceNames { handler, register, .. } = &self.names;
        docs(&self.comments, &format!("Handles calls of `{}`.", self.full_name), buf);
        let link = format!(
            "\nEach method is written as an `async fn`; [`{register}`] puts it on a server.\n"
        );
        own_docs(&link, buf);
        if let Some(method) = self.methods.iter().find(|method| method.kind.streams_responses()) {
            own_docs(&streaming_docs(method), buf);
        }
        let _ = writeln!(
            buf,
            "#[allow(dead_code{})]\npub trait {handler}: \
             ::core::marker::Send + ::core::marker::Sync + 'static {{",
            self.convention(),
        );
        for method in &self.methods {
            method.head(&format!("Handles `{}`.", method.method.proto_name), buf);
            let Method { input_type, output_type, .. } = &method.method;
            let request = match method.kind.streams_requests() {
                true => format!("::micro::Streaming<{input_type}>"),
                false => input_type.clone(),
            };
            let response = match method.kind.streams_responses() {
                true => format!(
                    "impl ::micro::Stream<\
                     Item = ::core::result::Result<{output_type}, ::micro::Status>> \
                     + ::core::marker::Send + 'static"
                ),
                false => output_type.clone(),
            };
            let _ = writeln!(
                buf,
                "fn {}(&self, request: ::micro::Request<{request}>) -> \
                 impl ::core::future::Future<Output = ::core::result::Result<\
                 ::micro::Response<{response}>, ::micro::Status>> + ::core::marker::Send;",
                method.rust_name,
            );
        }
        buf.push_str("}\n");
    }

    fn register(&self, buf: &mut String) {
        let ServiceNames { descriptor, handler, register, .. } = &self.names;
        let deprecated = self.methods.iter().any(MethodCode::deprecated);
        let _ = writeln!(
            buf,
            "/// Has `server` answer the calls of `{}` with `handler`.\n\
             #[allow(dead_code{})]\n\
             pub fn {register}(server: &mut ::micro::Server, handler: impl {handler}) {{\n\
             server.add_handlers(::micro::server::Handlers::new(&{descriptor}, handler)",
            self.full_name,
            if deprecated { ", deprecated" } else { "" },
        );
        for (index, method) in self.methods.iter().enumerate() {
            // By the trait's path: a method of an `Arc` or of the prelude's traits (`into`, `eq`)
            // would come first otherwise. A stream's type names the borrow of the handler, though
            // it holds none: boxed, it names it no more and may outlive the call.
            let _ = writeln!(
                buf,
                ".{}({index}, |handler, request| async move {{\n\
                 {handler}::{}(&*handler, request).await{}\n}})",
                method.kind.registration(),
                method.rust_name,
                match method.kind.streams_responses() {
                    true => ".map(::micro::stream::boxed)",
                    false => "",
                },
            );
        }
        buf.push_str(".build());\n}\n");
    }

    fn client(&self, buf: &mut String) {
        let ServiceNames { descriptor, client, .. } = &self.names;
        docs(&self.comments, &format!("Calls `{}`.", self.full_name), buf);
        own_docs("\nCheap to clone; every clone calls over the same connections.\n", buf);
        let deprecated = match self.deprecated {
            true => "#[deprecated]\n",
            false => "",
        };
        let allowed = match self.deprecated {
            true => ", deprecated",
            false => "",
        };
        let _ = writeln!(
            buf,
            "{deprecated}#[allow(dead_code)]\n#[derive(Debug, Clone)]\n\
             pub struct {client} {{ channel: ::micro::Channel }}\n\
             #[allow(dead_code{allowed}{})]\n\
             impl {client} {{\n\
             /// The service's full name in the `.proto`, which is not its name in the registry.\n\
             pub const NAME: &'static str = {descriptor}.name;\n\
             /// Calls the nodes that the registry of `client` has under the name `service`.\n\
             pub fn new(service: &str, client: &::micro::Client) -> Self {{\n\
             Self {{ channel: client.channel(service) }}\n}}",
            self.convention(),
        );
        for (index, method) in self.methods.iter().enumerate() {
            method.head(&format!("Calls `{}`.", method.method.proto_name), buf);
            let Method { input_type, output_type, .. } = &method.method;
            let (argument, conversion) = match method.kind.streams_requests() {
                true => (
                    format!("::micro::IntoStreamingRequest<Message = {input_type}>"),
                    "::micro::IntoStreamingRequest::into_streaming_request",
                ),
                false => (
                    format!("::micro::IntoRequest<{input_type}>"),
                    "::micro::IntoRequest::into_request",
                ),
            };
            let call = format!("::micro::client::{}Call", method.kind.name());
            let _ = writeln!(
                buf,
                "pub fn {}(&self, request: impl {argument}) -> {call}<{input_type}, {output_type}> \
                 {{\n{call}::new(&self.channel, &{descriptor}.methods[{index}], \
                 {conversion}(request))\n}}",
                method.rust_name,
            );
        }
        buf.push_str("}\n");
    }
}

/// How a method with a stream of responses is written, by the example of one of the service.
fn streaming_docs(method: &MethodCode) -> String {
    let Method { input_type, output_type, .. } = &method.method;
    let request = match method.kind.streams_requests() {
        true => format!("Streaming<{input_type}>"),
        false => input_type.clone(),
    };
    format!(
        "\n\
         # Methods that stream\n\
         \n\
         A method that streams its response may return any `Stream` that owns its data:\n\
         \n\
         ```text\n\
         async fn {}(\n    &self,\n    request: Request<{request}>,\n\
         ) -> Result<Response<impl Stream<Item = Result<{output_type}, Status>> + Send + \
         'static>, Status>\n\
         ```\n\
         \n\
         A body that only fails says `micro::stream::fails(status)`, since `Err(status)` alone\n\
         leaves open which stream it is. A named type in the place of `impl Stream` wants\n\
         `#[allow(refining_impl_trait)]` on the method.\n",
        method.rust_name,
    )
}

fn docs(comments: &Comments, otherwise: &str, buf: &mut String) {
    let mut lines = comments.leading.iter().chain(&comments.trailing);
    if lines.all(|line| line.trim().is_empty()) {
        let _ = writeln!(buf, "/// {otherwise}");
    } else {
        comments.append_with_indent(0, buf);
    }
}

/// Adds to an item's documentation what is not the `.proto`'s: it is for rustdoc as it is, whatever
/// comes before.
fn own_docs(text: &str, buf: &mut String) {
    for line in text.lines() {
        let _ = writeln!(buf, "///{OWN} {line}");
    }
}
