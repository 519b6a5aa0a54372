//! Finds who answers a path.
//!
//! A path is `/package.Service/Method`. go-micro's clients send the *registry's* name of the service
//! in the package's place, and its servers look at nothing but the service's short name; so where
//! the full name is unknown the short one decides, if it is of one service only.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    sync::Arc,
};

use tonic::Status;

use super::{connection::Inbound, guard::Running};
use crate::{
    Error,
    descriptor::ServiceDescriptor,
    near::{self, clip},
};

/// What a server says that nothing was registered on.
pub(super) const NO_HANDLER: &str = "no handler is registered on this server; register one with \
     the generated function, as in register_greeter_handler(service.server(), Greeter), before it \
     starts";

/// Answers one method: the request and the limit of a message, in bytes.
pub(super) type Method = Arc<dyn Fn(http::Request<Inbound>, usize) -> Running + Send + Sync>;

/// Answers a service we know nothing of but its name.
pub(super) type Mounted = Arc<dyn Fn(http::Request<Inbound>) -> Running + Send + Sync>;

/// A service as it is added to the server.
#[derive(Clone)]
pub(super) enum Service {
    /// Handlers for our descriptor's methods, in its order; none for a method without a handler.
    Typed(&'static ServiceDescriptor, Vec<Option<Method>>),
    Mounted(&'static str, Mounted),
}

impl Service {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Typed(descriptor, _) => descriptor.name,
            Self::Mounted(name, _) => name,
        }
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Service").field(&self.name()).finish()
    }
}

/// Who answers a path.
#[derive(Clone)]
pub(super) enum Route<'a> {
    Method(&'static str, &'a Method),
    /// With the path it knows itself by, if that is not the one that was asked for.
    Mounted(&'a Mounted, Option<String>),
}

impl fmt::Debug for Route<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Method(path, _) => f.debug_tuple("Method").field(path).finish(),
            Self::Mounted(_, path) => f.debug_tuple("Mounted").field(path).finish(),
        }
    }
}

/// All that a server answers.
#[derive(Default)]
pub(super) struct Router {
    methods: HashMap<&'static str, Method>,
    /// By full name; `None` for those whose methods are in `methods`.
    services: HashMap<&'static str, Option<Mounted>>,
    /// Full names by short name.
    short: HashMap<&'static str, Vec<&'static str>>,
}

impl Router {
    /// # Errors
    ///
    /// Two services of one name.
    pub(super) fn new(services: impl IntoIterator<Item = Service>) -> Result<Self, Error> {
        let mut router = Self::default();
        for service in services {
            router.add(service, true)?;
        }
        Ok(router)
    }

    /// Adds the server's own service: it is found by its full name alone, since its short one
    /// belongs to the user, and it gives way to the user's service of the same name.
    pub(super) fn add_built_in(&mut self, service: Service) -> Result<(), Error> {
        if self.services.contains_key(service.name()) { Ok(()) } else { self.add(service, false) }
    }

    fn add(&mut self, service: Service, by_short_name: bool) -> Result<(), Error> {
        let name = service.name();
        let Entry::Vacant(slot) = self.services.entry(name) else {
            return Err(Error::config(format!(
                "the service {name} is added to the server twice: keep one of the two"
            )));
        };
        match service {
            Service::Mounted(_, mounted) => drop(slot.insert(Some(mounted))),
            Service::Typed(descriptor, methods) => {
                slot.insert(None);
                let methods = descriptor.methods.iter().zip(methods);
                self.methods
                    .extend(methods.filter_map(|(method, call)| Some((method.path, call?))));
            }
        }
        if by_short_name {
            self.short.entry(short_name(name)).or_default().push(name);
        }
        Ok(())
    }

    /// The full names of all services.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.services.keys().copied()
    }

    /// # Errors
    ///
    /// `Unimplemented`, with the reason: a malformed path, an unknown service or method, or a short
    /// name that several services have.
    pub(super) fn find(&self, path: &str) -> Result<Route<'_>, Status> {
        if let Some((path, call)) = self.methods.get_key_value(path) {
            return Ok(Route::Method(path, call));
        }
        let split = path.strip_prefix('/').and_then(|rest| rest.rsplit_once('/'));
        let Some((service, method)) =
            split.filter(|(service, method)| !(service.is_empty() || method.is_empty()))
        else {
            return Err(Status::unimplemented(format!(
                "malformed method name {:?}: a path is /package.Service/Method",
                clip(path)
            )));
        };
        if let Some(mounted) = self.services.get(service) {
            return match mounted {
                Some(mounted) => Ok(Route::Mounted(mounted, None)),
                None => Err(self.unknown_method(method, service)),
            };
        }
        let full = match self.short.get(short_name(service)).map(Vec::as_slice) {
            None | Some([]) => return Err(self.unknown_service(service)),
            Some([full]) => *full,
            Some(several) => {
                return Err(Status::unimplemented(format!(
                    "unknown service {}, and its short name is ambiguous: call it by its full \
                     name, one of {}",
                    clip(service),
                    near::list(service, several.iter().copied()).unwrap_or_default()
                )));
            }
        };
        let path = format!("/{full}/{method}");
        match self.services.get(full) {
            Some(Some(mounted)) => Ok(Route::Mounted(mounted, Some(path))),
            _ => match self.methods.get_key_value(path.as_str()) {
                Some((path, call)) => Ok(Route::Method(path, call)),
                None => Err(self.unknown_method(method, full)),
            },
        }
    }

    /// Names the user's services: the server's own are nobody's to register.
    fn unknown_service(&self, service: &str) -> Status {
        let names = near::list(service, self.short.values().flatten().copied());
        let service = clip(service);
        Status::unimplemented(match names {
            Some(names) => format!(
                "unknown service {service}: this server has {names}; register its handler with the \
                 generated register_.._handler function, or call a node that has it"
            ),
            None => format!("unknown service {service}: {NO_HANDLER}"),
        })
    }

    fn unknown_method(&self, method: &str, service: &str) -> Status {
        let methods = self
            .methods
            .keys()
            .filter_map(|path| path.strip_prefix('/')?.strip_prefix(service)?.strip_prefix('/'));
        let methods = near::list(method, methods);
        let (method, service) = (clip(method), clip(service));
        Status::unimplemented(match methods {
            Some(methods) => format!(
                "unknown method {method} of service {service}, which has {methods} here; where the \
                 .proto has more, this node runs an older version"
            ),
            None => {
                format!("unknown method {method} of service {service}, which has no methods here")
            }
        })
    }
}

fn short_name(service: &str) -> &str {
    service.rsplit_once('.').map_or(service, |(_, short)| short)
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::descriptor::{IdempotencyLevel, MethodDescriptor, MethodKind, TypeDescriptor};

    const EMPTY: TypeDescriptor = TypeDescriptor { name: "Empty", kind: "Empty", fields: &[] };

    const fn method(name: &'static str, path: &'static str) -> MethodDescriptor {
        MethodDescriptor {
            name,
            path,
            kind: MethodKind::Unary,
            idempotency: IdempotencyLevel::Unknown,
            deprecated: false,
            comment: "",
            request: EMPTY,
            response: EMPTY,
        }
    }

    const fn service(
        name: &'static str,
        methods: &'static [MethodDescriptor],
    ) -> ServiceDescriptor {
        ServiceDescriptor { name, comment: "", deprecated: false, methods }
    }

    const GREETER: ServiceDescriptor = service(
        "greeter.v1.Greeter",
        &[
            method("Hello", "/greeter.v1.Greeter/Hello"),
            method("Missing", "/greeter.v1.Greeter/Missing"),
        ],
    );
    const PLAIN: ServiceDescriptor = service("Plain", &[method("Go", "/Plain/Go")]);
    const A: ServiceDescriptor = service("a.Twin", &[method("Go", "/a.Twin/Go")]);
    const B: ServiceDescriptor = service("b.Twin", &[method("Go", "/b.Twin/Go")]);

    fn typed(descriptor: &'static ServiceDescriptor) -> Service {
        let never: Method = Arc::new(|_, _| unreachable!("routes are only looked up here"));
        let methods = descriptor.methods.iter();
        let methods = methods.map(|method| (method.name != "Missing").then(|| Arc::clone(&never)));
        Service::Typed(descriptor, methods.collect())
    }

    fn mounted(name: &'static str) -> Service {
        Service::Mounted(name, Arc::new(|_| unreachable!("routes are only looked up here")))
    }

    fn router() -> Router {
        let services =
            [typed(&GREETER), typed(&PLAIN), typed(&A), typed(&B), mounted("old.Ledger")];
        let mut router = Router::new(services).expect("no name twice");
        router.add_built_in(mounted("grpc.health.v1.Health")).expect("a free name");
        router
    }

    fn found(path: &str) -> Result<String, (Code, String)> {
        match router().find(path) {
            Ok(Route::Method(path, _)) => Ok(path.to_owned()),
            Ok(Route::Mounted(_, rewritten)) => Ok(format!("mounted as {rewritten:?}")),
            Err(status) => Err((status.code(), status.message().to_owned())),
        }
    }

    #[test]
    fn the_full_name_finds_its_method() {
        assert_eq!(found("/greeter.v1.Greeter/Hello").unwrap(), "/greeter.v1.Greeter/Hello");
        assert_eq!(found("/Plain/Go").unwrap(), "/Plain/Go");
        assert_eq!(found("/a.Twin/Go").unwrap(), "/a.Twin/Go", "its short name does not matter");
        assert_eq!(found("/old.Ledger/Post").unwrap(), "mounted as None");
        assert_eq!(found("/grpc.health.v1.Health/Check").unwrap(), "mounted as None");
    }

    #[test]
    fn go_micros_paths_find_it_by_the_short_name() {
        for path in [
            "/Greeter/Hello",
            "/go.micro.srv.greeter.Greeter/Hello",
            "/greeter.Greeter/Hello",
            "/team/pay.Greeter/Hello",
        ] {
            assert_eq!(found(path).expect(path), "/greeter.v1.Greeter/Hello");
        }
        assert_eq!(found("/x.Ledger/Post").unwrap(), r#"mounted as Some("/old.Ledger/Post")"#);
    }

    #[test]
    fn what_is_unknown_is_unimplemented_and_named() {
        for (path, text) in [
            (
                "/x.Plan/Go",
                "unknown service x.Plan: this server has 'Plain', 'a.Twin', 'b.Twin', 'old.Ledger' \
                 and 'greeter.v1.Greeter'; register its handler with the generated \
                 register_.._handler function, or call a node that has it",
            ),
            (
                "/greeter.v1.Greeter/Helo",
                "unknown method Helo of service greeter.v1.Greeter, which has 'Hello' here; where \
                 the .proto has more, this node runs an older version",
            ),
            ("/greeter.v1.Greeter/Missing", "unknown method Missing"),
            ("/Greeter/Bye", "unknown method Bye of service greeter.v1.Greeter"),
            (
                "/x.Twin/Go",
                "unknown service x.Twin, and its short name is ambiguous: call it by its full name, \
                 one of 'a.Twin' and 'b.Twin'",
            ),
            ("/x.Health/Check", "unknown service x.Health"),
            ("/", "malformed method name"),
            ("/greeter.v1.Greeter", "malformed method name"),
            ("/greeter.v1.Greeter/", "malformed method name"),
            ("//Hello", "malformed method name"),
            ("*", "malformed method name"),
            ("", "malformed method name"),
        ] {
            let (code, message) = found(path).expect_err(path);
            assert_eq!(code, Code::Unimplemented, "{path}");
            assert!(message.contains(text), "{path}: {message}");
        }
    }

    #[test]
    fn a_server_without_handlers_says_how_to_register_one() {
        let mut router = Router::new([]).expect("no name twice");
        router.add_built_in(mounted("grpc.health.v1.Health")).expect("a free name");
        let status = router.find("/greeter.v1.Greeter/Hello").expect_err("nothing is there");
        assert_eq!(status.code(), Code::Unimplemented);
        assert_eq!(
            status.message(),
            "unknown service greeter.v1.Greeter: no handler is registered on this server; register \
             one with the generated function, as in register_greeter_handler(service.server(), \
             Greeter), before it starts"
        );
    }

    #[test]
    fn a_service_without_methods_is_said_to_have_none() {
        const IDLE: ServiceDescriptor = service("Idle", &[]);
        let router = Router::new([typed(&IDLE)]).expect("no name twice");
        let status = router.find("/Idle/Go").expect_err("it has no method");
        assert_eq!(
            status.message(),
            "unknown method Go of service Idle, which has no methods here"
        );
    }

    #[test]
    fn what_a_peer_sent_makes_no_long_text() {
        for path in [format!("/{}/Go", "x".repeat(10_000)), "x".repeat(10_000)] {
            let (_, message) = found(&path).expect_err("unknown");
            assert!(message.len() < 500, "{message}");
        }
    }

    #[test]
    fn a_name_is_taken_once() {
        let error = Router::new([typed(&GREETER), mounted("greeter.v1.Greeter")]).err();
        let error = error.expect("the second is refused");
        assert!(error.is_config() && error.to_string().contains("greeter.v1.Greeter"), "{error}");

        let mut router = Router::new([mounted("grpc.health.v1.Health")]).expect("one name");
        router.add_built_in(typed(&PLAIN)).expect("a free name");
        router.add_built_in(mounted("grpc.health.v1.Health")).expect("gives way to the user's");
        assert_eq!(router.names().count(), 2);
    }
}
