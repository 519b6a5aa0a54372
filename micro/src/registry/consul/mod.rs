//! `consul://`: services of a Consul agent, each with a TTL check, in the words of go-micro and, if
//! asked for, of Kratos and Kitex.

mod agent;
mod connections;
mod files;
#[cfg(test)]
mod fuzz;
mod health;
mod known;
mod options;
mod registration;
mod service;
mod watch;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::time::{Instant, sleep};

use self::{
    agent::{Agent, Answer, EXCHANGE, Request, part},
    known::Known,
    options::Options,
    registration::{Registration, check_id},
    service::Local,
};
use super::{BoxFuture, Lease, Listing, Node, Registry, RenewError, Watch, share::share, url::Url};
use crate::Error;

/// Consul itself has no least; under it, its own way from a check to the watchers takes too much of
/// the TTL.
const MIN_TTL: Duration = Duration::from_secs(1);

/// How long a removal may take to reach the watchers of all agents.
const SPREAD: Duration = Duration::from_secs(2);

/// Until the catalog is looked at again for what the agent is about to tell it.
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// A registry in Consul, by the HTTP API of one of its agents. A node is a service of that agent: the
/// service's id is the node's, so that it must be unique on the agent, and its TTL check is passed at
/// each renewal. When the TTL is over the check is critical and the node is listed no more; TTL and
/// 5 s later, and no sooner than 65 s, Consul removes it.
///
/// Version, metadata and endpoints are in go-micro's tags, the metadata also in `Meta` as far as
/// Consul's limits allow. Read are nodes without a critical check; one in `warning` counts.
///
/// A lease is written into the check's notes: that way a renewal tells its own record from
/// another's. It asks the agent, and the catalog too, which may have lost what the agent still has.
///
/// Every exchange is bounded by 1 s, a list that has begun to come by 20 s; a connection without
/// an answer is left with all others of its time. A watch is a blocking query of up to 60 s: in HTTP/1.1,
/// which an agent without TLS speaks, on a connection of its own, and in HTTP/2 beside up to 99 others.
/// Agents take 200 connections from one address (`http_max_conns_per_client`), so without TLS a process
/// that calls more services than that needs the limit raised.
#[derive(Debug)]
pub struct Consul {
    agent: Arc<Agent>,
}

impl Consul {
    pub(super) fn open(url: &Url) -> Result<Arc<dyn Registry>, Error> {
        let options = Options::of(url)?;
        Ok(share(options.identity(), || Self { agent: Arc::new(Agent::new(options)) }))
    }

    fn record(&self, node: &Node) -> Result<Registration, Error> {
        let Options { formats, is_connect, .. } = &self.agent.options;
        Registration::of(node, formats, *is_connect).map_err(|why| self.refuse(node, &why))
    }

    fn refuse(&self, node: &Node, why: &str) -> Error {
        let (name, id, service) = (self.name(), &node.id, &node.service);
        Error::config(format!("{name}: cannot register {id} of service {service}: {why}"))
    }

    /// What the agent itself has under this id.
    async fn local(&self, what: &str, id: &str, deadline: Instant) -> Result<Local, Error> {
        let request = Request::get(format!("/v1/agent/health/service/id/{}", part(id)));
        let answer = self.agent.call(what, request, deadline).await?;
        // The status tells the health, in codes that a refusal has as well: the body tells them apart.
        if matches!(answer.status.as_u16(), 200 | 404 | 429 | 503)
            && let Ok(local) = serde_json::from_slice::<Local>(&answer.body)
            && local.service.is_none() == (answer.status.as_u16() == 404)
        {
            return Ok(local);
        }
        answer.success(&self.agent, what)?;
        Err(self.agent.not_consuls(what, "it tells of no service"))
    }

    /// Whether the catalog has the node's record under this lease.
    async fn in_catalog(
        &self,
        what: &str,
        node: &Node,
        record: &Registration,
        lease: Lease,
        deadline: Instant,
    ) -> Result<Found, Error> {
        let found = health::own(&self.agent, what, &node.service, &node.id, deadline).await?;
        let ours = found.iter().find_map(|it| {
            let check = it.check(&node.id).filter(|check| check.is_under(lease))?;
            Some((&it.service, check.is_critical()))
        });
        Ok(match ours {
            None => Found::Nothing,
            Some((ours, is_critical)) if record.is(ours) => Found::Ours { is_critical },
            Some(_) => Found::Another,
        })
    }

    /// Passes the node's check for another TTL.
    async fn pass(&self, what: &str, node: &Node, deadline: Instant) -> Result<Answer, Error> {
        let path = format!("/v1/agent/check/pass/{}", part(&check_id(&node.id)));
        self.agent.call(what, Request::put(path), deadline).await
    }

    /// Why a record on the agent is not the one written under the lease; none if it is.
    fn judge(
        &self,
        node: &Node,
        record: &Registration,
        lease: Lease,
        local: &Local,
    ) -> Option<RenewError> {
        let lost = |why: &str| Some(RenewError::Lost(why.to_owned()));
        let Some(service) = &local.service else {
            return lost(
                "the agent has no service of this id any more: it was deregistered, or the agent was \
                 restarted with nothing in it",
            );
        };
        if service.service != node.service {
            return Some(RenewError::Taken(format!(
                "the record of {} was overwritten by service {:?}; an id must be unique on its \
                 agent, whatever the service: give each node its own, or leave the id out for a new \
                 one at each start",
                node.id, service.service
            )));
        }
        let Some(check) = local.check(&node.id) else {
            return lost("the service's TTL check was deregistered");
        };
        if !check.is_under(lease) || !record.is(service) {
            let other = service.node(&node.service, "", &self.agent.options.formats);
            return Some(match other {
                Ok((_, other)) => RenewError::taken_by(node, &other),
                Err(why) => RenewError::Taken(format!(
                    "the service was overwritten with what is no record: {why}"
                )),
            });
        }
        if check.is_critical() {
            return lost("its TTL was over before it was renewed, or its check was failed by hand");
        }
        None
    }
}

/// What the catalog has in a record's place.
enum Found {
    Nothing,
    Ours { is_critical: bool },
    Another,
}

impl Registry for Consul {
    fn name(&self) -> &str {
        self.agent.name()
    }

    /// Always: an agent on this machine is as a rule one of many.
    fn is_shared(&self) -> bool {
        true
    }

    fn spread(&self) -> Duration {
        SPREAD
    }

    fn min_ttl(&self) -> Duration {
        MIN_TTL
    }

    fn validate(&self, node: &Node) -> Result<(), Error> {
        self.record(node).map(drop)
    }

    fn register<'a>(
        &'a self,
        node: &'a Node,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Lease, Error>> {
        async move {
            if ttl < MIN_TTL {
                let why = format!("a TTL of {ttl:?} is under the least for Consul, 1 s");
                return Err(self.refuse(node, &why));
            }
            let deadline = Instant::now() + EXCHANGE;
            let lease = Lease(fastrand::i64(1..));
            let record = self.record(node)?;
            let body = record.under(ttl, lease).map_err(|why| self.refuse(node, &why))?;
            let what = format!("register {} of service {}", node.id, node.service);
            // Checks of whatever had the id before would go on to judge the node.
            let request = Request::put("/v1/agent/service/register")
                .with("replace-existing-checks", "true")
                .with_body(body);
            let answer = self.agent.call(&what, request, deadline).await?;
            answer.success(&self.agent, &what)?;
            // Of a service that it had already, the agent keeps the check's state; and it keeps none
            // over a restart but one that was passed.
            self.pass(&what, node, deadline).await?.success(&self.agent, &what)?;
            // An agent takes a service also when it cannot pass it on to the catalog.
            loop {
                match self.in_catalog(&what, node, &record, lease, deadline).await? {
                    Found::Ours { is_critical: false } => return Ok(lease),
                    Found::Ours { is_critical: true } => sleep(BETWEEN_LOOKS).await,
                    Found::Nothing | Found::Another => {
                        return Err(self.agent.failed(
                            &what,
                            "the agent took the service, and the catalog does not have it yet",
                        ));
                    }
                }
            }
        }
        .boxed()
    }

    fn renew<'a>(&'a self, node: &'a Node, lease: Lease) -> BoxFuture<'a, Result<(), RenewError>> {
        async move {
            let deadline = Instant::now() + EXCHANGE;
            let record = self.record(node).map_err(RenewError::Failed)?;
            let what = format!("renew {} of service {}", node.id, node.service);
            // First, so that no other's check is passed.
            let local = self.local(&what, &node.id, deadline).await.map_err(RenewError::Failed)?;
            if let Some(why) = self.judge(node, &record, lease, &local) {
                return Err(why);
            }
            let (passed, found) = tokio::try_join!(
                self.pass(&what, node, deadline),
                self.in_catalog(&what, node, &record, lease, deadline),
            )
            .map_err(RenewError::Failed)?;
            if passed.status.as_u16() == 404 {
                return Err(RenewError::Lost("the agent has no such check any more".to_owned()));
            }
            passed.success(&self.agent, &what).map_err(RenewError::Failed)?;
            match found {
                // The agent may be about to pass on that it passes.
                Found::Ours { .. } => Ok(()),
                Found::Nothing => Err(RenewError::Lost(
                    "the agent has the service, and the catalog does not: it was deregistered there, \
                     or Consul's servers were wiped"
                        .to_owned(),
                )),
                Found::Another => {
                    Err(RenewError::Taken("the record was overwritten in the catalog".to_owned()))
                }
            }
        }
        .boxed()
    }

    fn deregister<'a>(&'a self, node: &'a Node, lease: Lease) -> BoxFuture<'a, Result<(), Error>> {
        async move {
            let deadline = Instant::now() + EXCHANGE;
            let record = self.record(node)?;
            let what = format!("deregister {} of service {}", node.id, node.service);
            let local = self.local(&what, &node.id, deadline).await?;
            let Some(service) = &local.service else { return Ok(()) };
            // The very same record without a check, as by somebody's hand, would outlive its node for
            // ever.
            let is_ours = local
                .check(&node.id)
                .map_or_else(|| record.is(service), |check| check.is_under(lease));
            if !is_ours {
                return Ok(());
            }
            let path = format!("/v1/agent/service/deregister/{}", part(&node.id));
            let answer = self.agent.call(&what, Request::put(path), deadline).await?;
            if answer.status.as_u16() != 404 {
                answer.success(&self.agent, &what)?;
            }
            Ok(())
        }
        .boxed()
    }

    fn read<'a>(&'a self, service: &'a str) -> BoxFuture<'a, Result<Listing, Error>> {
        async move {
            let what = format!("read service {service}");
            let begins = Instant::now() + EXCHANGE;
            health::read(&self.agent, &what, service, None, begins, &mut Known::default()).await
        }
        .boxed()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<String>, Error>> {
        async move {
            let what = "list services";
            let mut request = Request::get("/v1/catalog/services");
            if let Some(dc) = &self.agent.options.dc {
                request = request.with("dc", dc);
            }
            let begins = Instant::now() + EXCHANGE;
            let _turn = self.agent.turn(what, begins).await?;
            let answer = self.agent.read(what, request, None, begins).await?;
            let services: BTreeMap<String, serde::de::IgnoredAny> =
                answer.json(&self.agent, what)?;
            // Consul itself is one.
            if services.is_empty() {
                return Err(self.agent.failed(
                    what,
                    "Consul shows none to this token, or to one who has none; its policy must have service_prefix \"\" { \
                     policy = \"read\" } and node_prefix \"\" { policy = \"read\" }",
                ));
            }
            Ok(services.into_keys().collect())
        }
        .boxed()
    }

    fn watch(&self, service: &str, after: u64) -> Watch {
        watch::watch(self.agent.clone(), service.to_owned(), after)
    }
}
