//! `grpc.health.v1`: what load balancers, Kubernetes and other clients ask a server before they
//! call it. It follows the node's readiness; the server as a whole (the empty name) and each of its
//! services say the same, but while the registry has lost the node: who asks whether it may be called is
//! not who asks whether a rollout may go on.

use std::collections::HashSet;

use futures_core::Stream;
use futures_util::stream;
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
};

use super::{Handlers, router::Service};
use crate::descriptor::{
    IdempotencyLevel, MethodDescriptor, MethodKind, ServiceDescriptor, TypeDescriptor,
};

const REQUEST: TypeDescriptor =
    TypeDescriptor { name: "HealthCheckRequest", kind: "HealthCheckRequest", fields: &[] };
const RESPONSE: TypeDescriptor =
    TypeDescriptor { name: "HealthCheckResponse", kind: "HealthCheckResponse", fields: &[] };

const fn method(name: &'static str, path: &'static str, kind: MethodKind) -> MethodDescriptor {
    MethodDescriptor {
        name,
        path,
        kind,
        idempotency: IdempotencyLevel::NoSideEffects,
        deprecated: false,
        comment: "",
        request: REQUEST,
        response: RESPONSE,
    }
}

const HEALTH: ServiceDescriptor = ServiceDescriptor {
    name: "grpc.health.v1.Health",
    comment: "",
    deprecated: false,
    methods: &[
        method("Check", "/grpc.health.v1.Health/Check", MethodKind::Unary),
        method("Watch", "/grpc.health.v1.Health/Watch", MethodKind::ServerStreaming),
    ],
};

/// What the server says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    NotServing,
    /// Its registry has it no more. It answers those who know it as before.
    Unlisted,
    Serving,
    /// Not serving, and closing: watches end, so that none keeps the server from leaving.
    Leaving,
}

impl Health {
    /// What it comes to for the server as a whole, whose name is empty, or one of its services.
    fn of(self, service: &str) -> ServingStatus {
        match self {
            Self::Serving => ServingStatus::Serving,
            Self::Unlisted if !service.is_empty() => ServingStatus::Serving,
            Self::NotServing | Self::Unlisted | Self::Leaving => ServingStatus::NotServing,
        }
    }
}

struct Answers {
    health: watch::Receiver<Health>,
    services: HashSet<&'static str>,
}

/// The service that tells `health` for each of these names.
pub(super) fn service(
    health: watch::Receiver<Health>,
    services: impl Iterator<Item = &'static str>,
) -> Service {
    let services = services.chain(["", HEALTH.name]).collect();
    Handlers::new(&HEALTH, Answers { health, services })
        .unary(0, |answers, request| async move { answers.check(&request) })
        .server_streaming(1, |answers, request| async move {
            Ok(Response::new(answers.watch(&request)))
        })
        .build()
        .into_service()
}

impl Answers {
    /// The name that is asked for, if it is one of this server's.
    fn known(&self, request: &Request<HealthCheckRequest>) -> Option<&'static str> {
        self.services.get(request.get_ref().service.as_str()).copied()
    }

    fn check(
        &self,
        request: &Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let Some(service) = self.known(request) else {
            let name = &request.get_ref().service;
            return Err(Status::not_found(format!("no service {name:?} on this server")));
        };
        Ok(Response::new(say(self.health.borrow().of(service))))
    }

    /// Says the state at once and at each change. A name that is not known stays unknown: services
    /// are not added to a running server.
    fn watch(
        &self,
        request: &Request<HealthCheckRequest>,
    ) -> impl Stream<Item = Result<HealthCheckResponse, Status>> + use<> {
        let service = self.known(request);
        let watching = Watching { health: self.health.clone(), said: None, is_over: false };
        stream::unfold(watching, move |mut watching| async move {
            let item = watching.next(service).await?;
            Some((item, watching))
        })
    }
}

struct Watching {
    health: watch::Receiver<Health>,
    said: Option<ServingStatus>,
    is_over: bool,
}

impl Watching {
    async fn next(&mut self, service: Option<&str>) -> Option<Result<HealthCheckResponse, Status>> {
        loop {
            let health = *self.health.borrow_and_update();
            let status =
                service.map_or(ServingStatus::ServiceUnknown, |service| health.of(service));
            if self.said != Some(status) {
                self.said = Some(status);
                return Some(Ok(say(status)));
            }
            if self.is_over {
                return None;
            }
            if health == Health::Leaving || self.health.changed().await.is_err() {
                self.is_over = true;
                return Some(Err(Status::unavailable("the server is leaving")));
            }
        }
    }
}

fn say(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}
